"""Every performance claim as a figure against a named baseline: `make bench [SEED=n] [ROWS=a,b]`.

Prints one table, adds it to docs/bench/history.jsonl with machine, versions, sizes and every
repeat, draws every figure over time into docs/bench/history.svg, and writes the newest ones into
the README between its markers. Run it with nothing beside: it takes about an hour.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import psutil

from benchmarks import joint_step
from benchmarks.bench_pairs import measure_throughput
from benchmarks.commands import ROOT
from benchmarks.personalize import fan_out, fan_out_rate, subjects_per_core_hour
from benchmarks.pretrain import machinery_ratios
from benchmarks.recovery import seconds_to_recover
from benchmarks.serve_engine import batching_gains, clips_per_hour
from dreambooth3d.artifacts.chart import line_chart
from dreambooth3d.artifacts.key import publish_file

HOME = ROOT / "docs" / "bench"
HISTORY = HOME / "history.jsonl"
BEGIN, END = "<!-- bench -->", "<!-- /bench -->"
_PACKAGES = ("torch", "ray", "diffusers", "deepspeed", "webdataset")


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One number that the project tells of itself.

    Attributes:
        name: printed, and used with ROWS=.
        what: what is measured.
        against: the baseline of a ratio; empty for a number that stands for itself.
        unit: of the number; `x` for a ratio.
        sizes: of what is measured.
        measure: seed to the number of every repeat; their median is told.
    """

    name: str
    what: str
    unit: str
    sizes: str
    measure: Callable[[int], Sequence[float]]
    against: str = ""


def _each(measure: Callable[[int], float], repeats: int) -> Callable[[int], Sequence[float]]:
    """Repeat what gives one number, with the next seeds."""
    return lambda seed: [measure(seed + repeat) for repeat in range(repeats)]


_PAIRS = "8,192 pairs of 64 px"
_STEP = "width 256, 8 blocks, 256 target and 4 x 256 reference tokens, rank 16, fp32"
_BATCH = "16 subjects, 400 updates at 64 px, rank 16"
_CLIPS = "8 clips of 9 frames, 64 x 64, 20 steps, guidance"
FIGURES = (
    Figure(name="pairs_scaling", what="pairs on two workers", against="on one worker", unit="x",
           sizes=_PAIRS, measure=lambda seed: measure_throughput(seed).ratios("one", "two")),
    Figure(name="pairs_per_core", what="pairs on each of two cores",
           against="a plain loop with webdataset.ShardWriter", unit="x", sizes=_PAIRS,
           measure=lambda seed: measure_throughput(seed).ratios("loop", "two", cores=2)),
    Figure(name="pairs_of_ray_data", what="pairs on two cores", against="Ray's write_webdataset",
           unit="x", sizes=_PAIRS,
           measure=lambda seed: measure_throughput(seed).ratios("ray_data", "two")),
    Figure(name="pretrain_step", what="time of a step with Ray Train and DeepSpeed",
           against="a plain PyTorch loop", unit="x",
           sizes="60 steps, batch of 4, 64 px, ZeRO-2", measure=machinery_ratios),
    Figure(name="recovery", what="from a killed worker to the next useful step", unit="s",
           sizes="one worker, a checkpoint every 5 steps", measure=_each(seconds_to_recover, 3)),
    Figure(name="joint_step_exact", what="joint training steps a second, same losses",
           against="the published procedure", unit="x", sizes=f"{_STEP}, 1 target a step",
           measure=lambda seed: joint_step.exact(seed).ratios),
    Figure(name="joint_step_isolated", what="the same, isolated, four targets that share views",
           against="the published procedure", unit="x", sizes=f"{_STEP}, 4 targets a step",
           measure=lambda seed: joint_step.isolated(seed).ratios),
    Figure(name="fan_out", what="16 subjects on 2 cores", against="their updates alone", unit="x",
           sizes=_BATCH, measure=_each(fan_out, 1)),
    Figure(name="fan_out_rate", what="16 subjects in one command", against="16 commands",
           unit="x", sizes=_BATCH, measure=_each(fan_out_rate, 1)),
    Figure(name="subjects_per_core_hour", what="subjects of 400 updates", unit="/core-hour",
           sizes=_BATCH, measure=_each(subjects_per_core_hour, 1)),
    Figure(name="batching", what="32 previews of 8 subjects in mixed batches",
           against="one at a time with adapter swap", unit="x",
           sizes="1 frame, 20 steps, batches of 16", measure=batching_gains),
    *(Figure(name=f"clips_{count}_adapter{'s' if count > 1 else ''}", unit="/hour", sizes=_CLIPS,
             what=f"9-frame clips, batches of 8, {count} adapter{'s' if count > 1 else ''} in each",
             measure=_each(partial(clips_per_hour, num_adapters=count), 3))
      for count in (1, 2, 4, 8)),
)  # fmt: skip


def main(arguments: Sequence[str]) -> int:
    """Measure, print, and keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rows", default="", help="comma-separated names (default: all)")
    given = parser.parse_args(arguments)
    wanted = [name for name in given.rows.split(",") if name]
    if unknown := sorted(set(wanted) - {figure.name for figure in FIGURES}):
        parser.error(f"rows must be among {[f.name for f in FIGURES]}, got {unknown}")
    for figure in FIGURES:
        if not wanted or figure.name in wanted:
            record = measure(figure, given.seed)
            print(f"{figure.name:24} {told(record)}", flush=True)
            keep(record)
    return 0


def measure(figure: Figure, seed: int) -> dict[str, Any]:
    """Measure one figure; the record says on what machine and with which versions."""
    began = time.monotonic()
    values = [float(value) for value in figure.measure(seed)]
    middle = statistics.median(values)
    return {
        "name": figure.name,
        "value": middle,
        "unit": figure.unit,
        "against": figure.against,
        "sizes": figure.sizes,
        "values": values,
        "spread": max(abs(value / middle - 1) for value in values) if middle else 0.0,
        "repeats": len(values),
        "seed": seed,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "seconds": round(time.monotonic() - began),
        "machine": machine(),
        "versions": {name: version(name) for name in _PACKAGES},
    }


def machine() -> dict[str, Any]:
    """What computes here."""
    return {
        "cores": os.cpu_count(),
        "processor": _processor(Path("/proc/cpuinfo")),
        "memory_gb": round(psutil.virtual_memory().total / 2**30),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
    }


def _processor(told_by: Path) -> str:
    """Its name; where Linux does not tell it, what Python knows."""
    lines = told_by.read_text(encoding="utf-8").splitlines() if told_by.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def told(record: Mapping[str, Any]) -> str:
    """The number with its unit, as the README has it."""
    value = float(record["value"])
    number = f"{value:.0f}" if value >= 100 else f"{value:.3g}"
    unit = str(record["unit"])
    return f"{number}{unit}" if unit in ("x", "s") else f"{number} {unit}"


def keep(record: Mapping[str, Any]) -> None:
    """Add a record to the history, and draw and write what follows from it."""
    HOME.mkdir(parents=True, exist_ok=True)
    with HISTORY.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")
    history = read_history()
    chart = line_chart(
        {name: list(enumerate(_relative(records), start=1)) for name, records in history.items()},
        x_label="measurement", y_label="of the first one", title="Figures over time",
    )  # fmt: skip
    with publish_file(HOME / "history.svg") as aside:
        aside.write_text(chart, encoding="utf-8")
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    with publish_file(readme) as aside:
        aside.write_text(f"{before}{BEGIN}\n{table(history)}{END}{after}", encoding="utf-8")


def read_history() -> dict[str, list[dict[str, Any]]]:
    """Records of every figure, the newest last, in the order of the figures."""
    lines = HISTORY.read_text(encoding="utf-8").splitlines() if HISTORY.is_file() else []
    records = [json.loads(line) for line in lines]
    names = [figure.name for figure in FIGURES]
    found = {name: [r for r in records if r["name"] == name] for name in names}
    return {name: own for name, own in found.items() if own}


def table(history: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """The newest figures, as Markdown."""
    what = {figure.name: figure.what for figure in FIGURES}
    newest = {name: records[-1] for name, records in history.items()}
    rows = [
        f"| {name} | {what[name]} | {told(record)} | {record['against'] or '–'} | "
        f"{repeated(record)} |\n"
        for name, record in newest.items()
    ]
    return "| | what | | against | repeats |\n|---|---|---|---|---|\n" + "".join(rows)


def repeated(record: Mapping[str, Any]) -> str:
    """How often it was measured, and how far the repeats are from the median."""
    count = int(record["repeats"])
    return "1" if count == 1 else f"{count}, ±{100 * float(record['spread']):.0f} %"


def _relative(records: Sequence[Mapping[str, Any]]) -> list[float]:
    first = float(records[0]["value"]) or 1.0
    return [float(record["value"]) / first for record in records]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
