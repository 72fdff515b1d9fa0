"""Batches of one seed for the proof of the personalize stage."""

import csv
import json
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import psutil
from mlflow import MlflowClient

from benchmarks.commands import must, newest, pipeline_command
from benchmarks.processes import family
from dreambooth3d.artifacts.adapter import load_adapter
from dreambooth3d.pairs.subjects import photograph
from dreambooth3d.scenes import FIRST_HELD_OUT_SEED

LOG = "personalize"
NUM_SUBJECTS = 16
_NUM_PHOTOS = 8
_WARM = "dreambooth3d.runtime.warm"
_CARRIERS = ("ray::_carry_out", "ray::WarmHost")


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Subjects that were photographed for a proof.

    Attributes:
        home: folder of the photographs and the tables.
        seed: of everything.
        count: subjects.
    """

    home: Path
    seed: int
    count: int = NUM_SUBJECTS

    @property
    def names(self) -> list[str]:
        """Ids of the subjects."""
        return [f"o{number:02d}" for number in range(self.count)]

    def photograph(self) -> None:
        """Make the photographs."""
        for number, name in enumerate(self.names):
            seed = FIRST_HELD_OUT_SEED + 600_000 + 100 * self.seed + number
            photograph(self.home / name, seed, id=name, num_images=_NUM_PHOTOS)

    def table(self, *names: str) -> Path:
        """A catalogue of these subjects, of all when none is named."""
        chosen = names or tuple(self.names)
        path = self.home / f"{chosen[0]}-{chosen[-1]}.csv"
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("subject", "class_noun", "images"))
            writer.writerows((name, "thing", f"{name}/images") for name in chosen)
        return path

    def command(self, out: Path, table: Path, *settings: str) -> list[str]:
        """The command that trains a catalogue into `out`."""
        given = (f"seed={self.seed}", "held_out_share=0", *settings)
        sets = [part for setting in given for part in ("--set", setting)]
        return pipeline_command(
            "personalize_batch.py", str(table), "--adapter", "tiny", "--out", str(out), *sets
        )

    def train(self, out: Path, table: Path, *settings: str) -> float:
        """Train to the end; seconds, the interpreter's start included."""
        began = time.monotonic()
        must(self.command(out, table, *settings), log=LOG)
        return time.monotonic() - began


def pure_seconds(out: Path) -> float:
    """Seconds of all updates of all subjects, and of nothing else."""
    total = 0.0
    for path in newest(out, "personalize").glob("adapters/*/curve.json"):
        curve = json.loads(path.read_text(encoding="utf-8"))
        total += len(curve["loss"]) * float(curve["step_seconds"])
    return total


def difference(one: Path, other: Path, name: str) -> float:
    """Largest difference of any weight of a subject's adapter in two runs."""
    ours, theirs = (
        load_adapter(newest(out, "personalize") / "adapters" / name).weights for out in (one, other)
    )
    return max(
        float((tensor - theirs[role][key]).abs().max())
        for role, weights in ours.items()
        for key, tensor in weights.items()
    )


def repeated_runs(out: Path) -> int:
    """MLflow runs and model versions of a subject beyond the first."""
    client = MlflowClient(f"sqlite:///{out / 'mlflow.db'}")
    experiments = [e.experiment_id for e in client.search_experiments()]
    runs = client.search_runs(experiments, "tags.subject != ''", max_results=1000)
    keys = Counter(run.data.tags["artifact_key"] for run in runs)
    versions = Counter(version.name for version in client.search_model_versions())
    return sum(n - 1 for n in keys.values()) + sum(n - 1 for n in versions.values())


def trainers(pid: int) -> list[psutil.Process]:
    """Processes below a command that train a subject: forked from a warm process."""
    warm = [p for p in family(pid) if _WARM in _line(p)]
    pids = {process.pid for process in warm}
    return [process for process in warm if _parent(process) in pids]


def workers(pid: int) -> list[psutil.Process]:
    """All processes below a command that are there for its subjects."""
    return [p for p in family(pid) if _WARM in _line(p) or _line(p).startswith(_CARRIERS)]


def _line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return ""


def _parent(process: psutil.Process) -> int:
    try:
        return int(process.ppid())
    except psutil.NoSuchProcess:
        return 0
