"""What became of the subjects of a batch: one record each, a printable line, the result table."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from PIL import Image

from dreambooth3d.artifacts.subject import Subject
from dreambooth3d.personalize.config import PersonalizeConfig


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """A checkpoint, judged on views of the subject that it was never trained on.

    Attributes:
        step: updates it has had; 0 is before training.
        loss: velocity loss, lower is better.
        identity: likeness to the subject, higher is better; None where it is not measured.
    """

    step: int
    loss: float
    identity: float | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Evidence:
    """What is known of a subject's training beside its adapter.

    Attributes:
        losses: of every update.
        seconds: of all updates, those before an interruption too where they are known.
        step_seconds: of one update, the median.
        judgements: of checkpoints, in order of their steps.
        best_step: whose weights the adapter holds.
        samples: a picture of what a checkpoint makes, by step.
    """

    losses: tuple[float, ...]
    seconds: float
    step_seconds: float = 0.0
    judgements: tuple[Judgement, ...] = ()
    best_step: int = 0
    samples: Mapping[int, Image.Image] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one subject."""

    subject: str
    status: str  # trained, kept (trained by an earlier run) or failed
    key: str
    method: str
    steps: int
    first_loss: float | None
    last_loss: float | None
    seconds: float
    adapter: str  # relative to the batch folder
    sha256: str
    error: str = ""

    @property
    def is_failed(self) -> bool:
        """Whether there is no adapter."""
        return self.status == "failed"


def failed(config: PersonalizeConfig, subject: Subject, key: str, error: str) -> Outcome:
    """Describe a subject that has no adapter, and why."""
    return Outcome(
        subject=subject.id,
        status="failed",
        key=key,
        method=config.method,
        steps=0,
        first_loss=None,
        last_loss=None,
        seconds=0.0,
        adapter="",
        sha256="",
        error=error,
    )


def describe(outcome: Outcome) -> str:
    """One printable line."""
    if outcome.is_failed:
        return f"{outcome.subject}: FAILED: {outcome.error}"
    if outcome.first_loss is None or outcome.last_loss is None:
        return f"{outcome.subject}: references only, no training"
    return (
        f"{outcome.subject}: {outcome.steps} steps, loss {outcome.first_loss:.4f} -> "
        f"{outcome.last_loss:.4f}, {outcome.seconds:.0f} s"
    )


def write_table(path: Path, outcomes: Sequence[Outcome]) -> None:
    """Write the result table of a batch as CSV."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(Outcome.__dataclass_fields__))
        writer.writeheader()
        for outcome in outcomes:
            writer.writerow(asdict(outcome) | {"status": "ready"})
