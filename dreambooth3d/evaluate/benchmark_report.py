"""The benchmark as a page: our table beside the published one, subjects, clips, best and worst."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from dreambooth3d.artifacts.jsonfile import JsonValue
from dreambooth3d.artifacts.report import Figure, Table, write_report
from dreambooth3d.evaluate.clip_scoring import ClipNumbers
from dreambooth3d.evaluate.config import BenchmarkConfig
from dreambooth3d.evaluate.geometry import Shape
from dreambooth3d.evaluate.intervals import Interval, bootstrap
from dreambooth3d.evaluate.skipping import Skipped
from dreambooth3d.evaluate.vbench import TEXT_ALIGNMENT, number_of

_SUMMARY = (
    "Clips against the references of their subjects. identity is the offline score: the mean of "
    "pooled and local EfficientNet-Lite0 likeness and of colours, each 1 for the same picture. It "
    "is neither CLIP-I nor DINO-I and has no place in their columns: compare clips, and compare a "
    "clip with its score against wrong subjects.\n\n"
    "Intervals are bootstrap 95 % intervals over subjects; a clip's are over its frames, which "
    "resemble each other, and are too narrow as a statement about other clips.\n\n"
    "CLIP-I and DINO-I are of CLIP ViT-B/32 and DINOv2 ViT-B/14: the paper does not say which "
    "sizes it used."
)
_PUBLISHED_COLUMNS = (
    "method", "CLIP-I", "DINO-I", "accuracy", "completeness", "CD",
    "aesthetic", "imaging", "smoothness", "ViCLIP",
)  # fmt: skip
# arXiv 2603.18524: 30 objects, 720p, 81 frames, 50 steps.
_PUBLISHED = (
    ("VACE (1 view)", 0.8964, 0.7395, 0.0278, 0.0427, 0.0353, 0.5915, 70.84, 0.9916, 0.2663),
    ("Phantom (1 view)", 0.8576, 0.5861, 0.0289, 0.0388, 0.0338, 0.5798, 70.58, 0.9934, 0.2634),
    ("3Dapter (1 view)", 0.8647, 0.5899, 0.0315, 0.0659, 0.0487, 0.6283, 71.65, 0.9944, 0.2048),
    ("3DreamBooth alone", 0.8382, 0.6530, 0.0156, 0.0322, 0.0239, 0.5245, 73.34, 0.9928, 0.2415),
    ("both", 0.8871, 0.7420, 0.0182, 0.0172, 0.0177, 0.5920, 74.33, 0.9918, 0.2388),
)  # fmt: skip
_OURS = "these clips"
_OUR_NAMES = {
    "CLIP-I": "clip_i",
    "DINO-I": "dino_i",
    "aesthetic": number_of("aesthetic_quality"),
    "imaging": number_of("imaging_quality"),
    "smoothness": number_of("motion_smoothness"),
    "ViCLIP": number_of(TEXT_ALIGNMENT),
}
_MAIN = "identity"
_CASES = 3


@dataclass(frozen=True, kw_only=True)
class ScoredClip:
    """One clip of the report.

    Attributes:
        name: relative to the folder of clips.
        subject: its id.
        numbers: what it scores.
        sheet: picture of references, frames and cutouts.
        cloud: picture of its shape on the true one, where it was measured.
    """

    name: str
    subject: str
    numbers: ClipNumbers
    sheet: Path
    cloud: Path | None = None

    def with_shape(self, shape: Shape) -> "ScoredClip":
        """Add the numbers of a shape, and its picture."""
        return replace(self, numbers=self.numbers.with_more(shape.numbers()), cloud=shape.picture)


def write_benchmark_report(
    out: Path,
    config: BenchmarkConfig,
    clips: Sequence[ScoredClip],
    skipped: Sequence[Skipped],
    notes: Sequence[str],
) -> dict[str, Interval]:
    """Write ``report.html`` and ``report.json``; return the mean of every number over subjects."""
    means = over_subjects(clips, config)
    page = write_report(
        out,
        title="Clips against their subjects",
        summary="\n\n".join((_SUMMARY, *notes)),
        tables=(
            _mean_table(means),
            _published_table(means),
            _subject_table(clips, config),
            _clip_table(clips, config),
            _skipped_table(skipped),
        ),
        figures=_cases(clips),
        data={
            "config": asdict(config),
            "means": {name: _interval(mean) for name, mean in means.items()},
            "clips": [_clip(clip) for clip in clips],
            "skipped": [asdict(each) for each in skipped],
        },
    )
    page.replace(out / "report.html")
    return means


def over_subjects(clips: Sequence[ScoredClip], config: BenchmarkConfig) -> dict[str, Interval]:
    """Mean of every number: clips of a subject first, then subjects."""
    by_subject: dict[str, dict[str, list[float]]] = {}
    for clip in clips:
        for name, value in _numbers(clip).items():
            by_subject.setdefault(name, {}).setdefault(clip.subject, []).append(value)
    return {
        name: bootstrap(
            [float(np.mean(values)) for values in subjects.values()],
            seed=config.seed,
            num_resamples=config.resamples,
        )
        for name, subjects in by_subject.items()
    }


def _numbers(clip: ScoredClip) -> dict[str, float]:
    wrong = list(clip.numbers.wrong.values())
    more = {"identity_wrong_subjects": float(np.mean(wrong))} if wrong else {}
    found = {**clip.numbers.numbers, **more}
    # What the page is about comes first.
    return dict(sorted(found.items(), key=lambda item: (not item[0].startswith(_MAIN), item[0])))


def _mean_table(means: Mapping[str, Interval]) -> Table:
    return Table(
        title="Mean over subjects",
        columns=("number", "mean", "from", "to", "subjects"),
        rows=tuple(
            (name, mean.mean, *_bounds(mean), mean.num_values) for name, mean in means.items()
        ),
    )


def _published_table(means: Mapping[str, Interval]) -> Table:
    """The paper's rows, and ours where a number of that name was measured."""
    names = (_OUR_NAMES.get(column, "") for column in _PUBLISHED_COLUMNS[1:])
    ours = (_OURS, *(means[name].mean if name in means else None for name in names))
    return Table(
        title="Published: 3D-CustomBench, 30 objects, 720p, 81 frames",
        columns=_PUBLISHED_COLUMNS,
        rows=(*_PUBLISHED, ours),
    )


def _subject_table(clips: Sequence[ScoredClip], config: BenchmarkConfig) -> Table:
    rows = []
    for subject in dict.fromkeys(clip.subject for clip in clips):
        own = [clip for clip in clips if clip.subject == subject]
        values = [clip.numbers.numbers[_MAIN] for clip in own]
        mean = bootstrap(values, seed=config.seed, num_resamples=config.resamples)
        wrong = [value for clip in own for value in clip.numbers.wrong.values()]
        rows.append(
            (subject, len(own), mean.mean, *_bounds(mean), float(np.mean(wrong)) if wrong else None)
        )
    return Table(
        title="Subjects",
        columns=("subject", "clips", _MAIN, "from", "to", "wrong subjects"),
        rows=tuple(rows),
    )


def _clip_table(clips: Sequence[ScoredClip], config: BenchmarkConfig) -> Table:
    names = tuple(dict.fromkeys(name for clip in clips for name in _numbers(clip)))
    rows = []
    for clip in clips:
        frames = bootstrap(clip.numbers.identity, seed=config.seed, num_resamples=config.resamples)
        numbers = _numbers(clip)
        rows.append(
            (
                clip.name,
                clip.subject,
                len(clip.numbers.frames),
                *_bounds(frames),
                *(numbers.get(name) for name in names),
            )
        )
    columns = ("clip", "subject", "frames", f"{_MAIN} from", f"{_MAIN} to", *names)
    return Table(title="Clips", columns=columns, rows=tuple(rows))


def _skipped_table(skipped: Sequence[Skipped]) -> Table:
    return Table(
        title="Not measured",
        columns=("number", "why"),
        rows=tuple((each.name, each.reason) for each in skipped),
    )


def _cases(clips: Sequence[ScoredClip]) -> tuple[Figure, ...]:
    """The best and the worst clips; all of them where there are few."""
    ranked = sorted(clips, key=lambda clip: -clip.numbers.numbers[_MAIN])
    shown = ranked if len(ranked) <= 2 * _CASES else [*ranked[:_CASES], *ranked[-_CASES:]]
    sheets = [
        Figure(
            caption=f"{clip.name}: {_MAIN} {clip.numbers.numbers[_MAIN]:.3f}, place "
            f"{ranked.index(clip) + 1} of {len(ranked)}. References, frames, what was found.",
            content=clip.sheet,
        )
        for clip in shown
    ]
    clouds = [
        Figure(caption=f"{clip.name}: its shape in blue, the true one in grey", content=clip.cloud)
        for clip in shown
        if clip.cloud is not None
    ]
    return (*sheets, *clouds)


def _bounds(interval: Interval) -> tuple[float | None, float | None]:
    return (interval.low, interval.high) if np.isfinite(interval.low) else (None, None)


def _interval(interval: Interval) -> JsonValue:
    low, high = _bounds(interval)
    return {"mean": interval.mean, "low": low, "high": high, "num_values": interval.num_values}


def _clip(clip: ScoredClip) -> JsonValue:
    found = clip.numbers
    return {
        "clip": clip.name,
        "subject": clip.subject,
        "numbers": dict(found.numbers),
        "wrong": dict(found.wrong),
        "frames": list(found.frames),
        "identity": list(found.identity),
        "num_frames": found.num_frames,
    }
