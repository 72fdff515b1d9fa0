"""The loss curve of a training: a CSV file that a resumed run continues without a seam."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dreambooth3d.backbone.pool import KINDS, Kind
from dreambooth3d.backbone.train import Update

_HEADER = ("step", "seconds", *KINDS)


@dataclass(frozen=True, kw_only=True)
class Point:
    """Mean losses between two log lines; a kind that no update saw is missing."""

    step: int
    seconds: float
    losses: dict[Kind, float]


class Curve:
    """Points on disk, in order of their steps.

    Args:
        path: the CSV file; created with the first point.
        step: own points after this step are dropped: a resumed run makes them again.
        before: a curve that this one goes on from; its points come first.
    """

    def __init__(self, path: Path, *, step: int, before: Path | None = None) -> None:
        self.path = path
        self._pending: list[Update] = []
        earlier = [] if before is None else read_curve(before)
        self._first_step = earlier[-1].step if earlier else 0
        self._first_seconds = earlier[-1].seconds if earlier else 0.0
        own = [point for point in read_curve(path) if point.step > self._first_step]
        kept = earlier + [point for point in own if point.step <= self._first_step + step]
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([_HEADER, *map(_to_row, kept)])

    @property
    def has_pending(self) -> bool:
        """Whether updates have been counted since the last point."""
        return bool(self._pending)

    def add(self, update: Update) -> None:
        """Count one update into the next point."""
        self._pending.append(update)

    def flush(self, seconds: float) -> Point:
        """Write the mean of the updates since the last point; `seconds` of training so far."""
        losses = {kind: _mean(self._pending, kind) for kind in KINDS}
        point = Point(
            step=self._first_step + self._pending[-1].step,
            seconds=round(self._first_seconds + seconds, 1),
            losses={kind: value for kind, value in losses.items() if value is not None},
        )
        self._pending = []
        with self.path.open("a", encoding="utf-8", newline="") as file:
            csv.writer(file).writerow(_to_row(point))
        return point


def read_curve(path: Path) -> list[Point]:
    """Read every point of a curve; a file that does not exist has none."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return [
            Point(
                step=int(row["step"]),
                seconds=float(row["seconds"]),
                losses={kind: float(row[kind]) for kind in KINDS if row[kind]},
            )
            for row in csv.DictReader(file)
        ]


def _mean(updates: Sequence[Update], kind: Kind) -> float | None:
    losses = [update.loss for update in updates if update.kind == kind]
    return sum(losses) / len(losses) if losses else None


def _to_row(point: Point) -> tuple[object, ...]:
    values = (point.losses.get(kind) for kind in KINDS)
    return (point.step, point.seconds, *("" if v is None else f"{v:.5f}" for v in values))
