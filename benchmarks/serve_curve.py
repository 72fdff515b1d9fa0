"""What batching gains: seconds a clip over batch size, frames and distinct adapters.

`make bench-serve` writes the table (docs/bench/batching.md) and the plot
(docs/pictures/batching.svg), flat parts included. The tiny backbone in one process on one core, no
server; adapters of the published rank with random weights, which cost what trained ones do.
"""

import argparse
import os
import platform
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from benchmarks.commands import ROOT, scratch_folder
from benchmarks.serve_engine import proof_backbone, seconds_a_clip, subject_folders
from dreambooth3d.artifacts.chart import line_chart
from dreambooth3d.artifacts.key import publish_file
from dreambooth3d.generate.generate import load_subject

BATCHES, FRAMES, ADAPTERS = (1, 2, 4, 8, 16), (1, 9, 17), (1, 2, 4, 8)


@dataclass(frozen=True, kw_only=True)
class Point:
    """One place of the curve: `seconds` a clip, the median of the repeats."""

    frames: int
    batch: int
    adapters: int
    seconds: float


def measure(
    seed: int,
    *,
    batches: Sequence[int] = BATCHES,
    frames: Sequence[int] = FRAMES,
    adapters: Sequence[int] = ADAPTERS,
    steps: int = 4,
    repeats: int = 3,
) -> list[Point]:
    """Measure every place, in turn in each repeat so that a slow moment hits all alike.

    Args:
        seed: of adapters and clips.
        batches, frames, adapters: of the places; no place has more adapters than clips.
        steps: denoising steps a clip.
        repeats: of the whole curve.
    """
    with scratch_folder() as runs:
        subjects = [
            load_subject(folder, proof_backbone()) for folder in subject_folders(runs, seed)
        ]
    places = [(f, b, a) for f in frames for b in batches for a in adapters if a <= b]
    for num_frames in frames:
        # Reference latents are encoded once a size.
        seconds_a_clip(subjects[: max(adapters)], len(subjects), num_frames, steps=1, seed=seed)
    spent: dict[tuple[int, int, int], list[float]] = {place: [] for place in places}
    for _ in range(repeats):
        for place in places:
            num_frames, batch, distinct = place
            spent[place].append(
                seconds_a_clip(subjects[:distinct], batch, num_frames, steps=steps, seed=seed)
            )
    return [
        Point(frames=f, batch=b, adapters=a, seconds=statistics.median(spent[f, b, a]))
        for f, b, a in places
    ]


def gain(points: Sequence[Point], point: Point) -> float:
    """How many times quicker a clip is than alone with one adapter."""
    alone = next(p for p in points if (p.frames, p.batch, p.adapters) == (point.frames, 1, 1))
    return alone.seconds / point.seconds


def page(points: Sequence[Point], *, steps: int, repeats: int) -> str:
    """The table, with what it was measured on."""
    rows = "".join(
        f"| {p.frames} | {p.batch} | {p.adapters} | {1000 * p.seconds:.1f} "
        f"| {gain(points, p):.2f} |\n"
        for p in points
    )
    machine = f"{platform.machine()}, {os.cpu_count()} cores, one thread"
    return (
        "# What batching gains\n\n"
        f"The tiny backbone on CPU ({machine}, torch {torch.__version__}), {steps} steps a clip, "
        f"the median of {repeats}.\nMade by `make bench-serve`; the gain is over one clip alone "
        "with one adapter.\n\n"
        "![seconds a clip over batch size](../pictures/batching.svg)\n\n"
        "| frames | batch | distinct adapters | ms a clip | gain |\n|---|---|---|---|---|\n" + rows
    )


def plot(points: Sequence[Point]) -> str:
    """Gain over batch size; a line for each number of frames with the fewest and most adapters."""
    most = max(p.adapters for p in points)
    series = {}
    for frames in sorted({p.frames for p in points}):
        for label, want in (("one adapter", 1), (f"up to {most}", most)):
            series[f"{frames} frames, {label}"] = [
                (float(p.batch), gain(points, p))
                for p in points
                if p.frames == frames and p.adapters == min(want, p.batch)
            ]
    return line_chart(
        series, x_label="clips of a batch", y_label="times quicker than alone",
        title="What batching gains, tiny backbone on one core",
    )  # fmt: skip


def main(arguments: list[str]) -> int:
    """Measure, print the table, write both files below `--out`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=4, help="denoising steps a clip")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES)
    parser.add_argument("--frames", type=int, nargs="+", default=FRAMES)
    parser.add_argument("--adapters", type=int, nargs="+", default=ADAPTERS)
    parser.add_argument("--out", type=Path, default=ROOT / "docs", help="folder of the files")
    given = parser.parse_args(arguments)
    if 1 not in given.batches or 1 not in given.adapters:
        parser.error("--batches and --adapters must have 1, which the gain is over; add it")
    points = measure(
        given.seed, batches=given.batches, frames=given.frames, adapters=given.adapters,
        steps=given.steps, repeats=given.repeats,
    )  # fmt: skip
    table = page(points, steps=given.steps, repeats=given.repeats)
    print(table)
    for name, text in (("bench/batching.md", table), ("pictures/batching.svg", plot(points))):
        (given.out / name).parent.mkdir(parents=True, exist_ok=True)
        with publish_file(given.out / name) as aside:
            aside.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
