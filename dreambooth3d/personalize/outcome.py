"""What became of the subjects of a batch: one record each, a printable line, the result table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from PIL import Image

from dreambooth3d.artifacts.subject import Problem, Subject
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
        seconds: of all updates; those before an interruption count as the later ones.
        step_seconds: of one update, the median.
        judgements: of checkpoints, in order of their steps.
        best_step: whose weights the adapter holds.
        samples: a picture of what a checkpoint makes, by step.
        refused: why a photo became no reference view, by its file's name.
    """

    losses: tuple[float, ...]
    seconds: float
    step_seconds: float = 0.0
    judgements: tuple[Judgement, ...] = ()
    best_step: int = 0
    samples: Mapping[int, Image.Image] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one subject.

    Attributes:
        subject: its id.
        status: trained; kept: trained by an earlier run; failed; stopped with its batch; or
            invalid: a row of the catalogue that cannot be used.
        key, sha256: of the adapter.
        method: it was trained with.
        steps: updates; of one that was stopped, those that are saved.
        first_loss, last_loss: means over the first and the last tenth of the updates.
        seconds: of the updates.
        cost_seconds: core-seconds, or GPU-seconds where there is a GPU.
        identity_before, identity_after: on held-out views; None where not measured.
        best_step: whose weights the adapter holds.
        attempts: workers that had it.
        adapter: relative to the batch folder.
        error: why there is no adapter.
        refused: photos that became no reference view, and why.
    """

    subject: str
    status: Literal["trained", "kept", "failed", "stopped", "invalid"]
    key: str
    method: str
    steps: int
    first_loss: float | None
    last_loss: float | None
    seconds: float
    cost_seconds: float = 0.0
    identity_before: float | None = None
    identity_after: float | None = None
    best_step: int = 0
    attempts: int = 1
    adapter: str
    sha256: str
    error: str = ""
    refused: str = ""

    @property
    def is_failed(self) -> bool:
        """Whether there is no adapter."""
        return self.status in ("failed", "stopped", "invalid")


def failed(config: PersonalizeConfig, subject: Subject, key: str, error: str) -> Outcome:
    """Describe a subject that has no adapter, and why."""
    return _without_adapter(config, subject.id, error, status="failed", key=key)


def stopped(config: PersonalizeConfig, subject: Subject, key: str, *, steps: int) -> Outcome:
    """Describe a subject that was stopped with its batch after `steps` updates, and can go on."""
    error = f"stopped and saved at step {steps}; the same command goes on from there"
    found = _without_adapter(config, subject.id, error, status="stopped", key=key)
    return replace(found, steps=steps)


def invalid(config: PersonalizeConfig, problems: Sequence[Problem]) -> tuple[Outcome, ...]:
    """Describe the rows of a catalogue that were left out, each with all that is wrong."""
    told: dict[str, list[str]] = {}
    for problem in problems:
        name = "catalogue" if problem.row is None else f"row {problem.row}"
        told.setdefault(name, []).append(f"field {problem.field}: {problem.sentence}")
    return tuple(
        _without_adapter(config, name, "; ".join(sentences), status="invalid", attempts=0)
        for name, sentences in told.items()
    )


def _without_adapter(
    config: PersonalizeConfig,
    name: str,
    error: str,
    *,
    status: Literal["failed", "stopped", "invalid"],
    key: str = "",
    attempts: int = 1,
) -> Outcome:
    return Outcome(
        subject=name,
        status=status,
        key=key,
        method=config.method,
        steps=0,
        first_loss=None,
        last_loss=None,
        seconds=0.0,
        attempts=attempts,
        adapter="",
        sha256="",
        error=error,
    )


def describe(outcome: Outcome) -> str:
    """One printable line."""
    if outcome.status == "stopped":
        return f"{outcome.subject}: {outcome.error}"
    if outcome.is_failed:
        return f"{outcome.subject}: FAILED: {outcome.error}"
    return f"{outcome.subject}: {describe_training(outcome)}"


def describe_training(outcome: Outcome) -> str:
    """How a subject with an adapter came to it."""
    if outcome.first_loss is None or outcome.last_loss is None:
        return "references only, no training"
    return (
        f"{outcome.steps} steps, loss {outcome.first_loss:.4f} -> {outcome.last_loss:.4f}, "
        f"{outcome.seconds:.0f} s"
    )
