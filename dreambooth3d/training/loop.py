"""The loop: batch, loss, step, report, save. Pretraining and personalization both run it."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from torch import Tensor

from dreambooth3d.artifacts.place import Place
from dreambooth3d.errors import RunError, StoppedError
from dreambooth3d.training.average import WeightAverage
from dreambooth3d.training.checkpoint import (
    Checkpoint,
    Keeping,
    load_checkpoint,
    save_checkpoint,
)
from dreambooth3d.training.engine import Engine
from dreambooth3d.training.settings import OptimConfig


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How long to train and when to save.

    Attributes:
        num_steps: updates of the whole training.
        optim: optimizer settings.
        run_key: names the run; a checkpoint of another run is refused.
        folder: where checkpoints go, here or in an object store; None saves nothing.
        save_every: updates between checkpoints.
        keeping: which of them stay.
        average_decay: of the weights' average; 0 keeps none.
    """

    num_steps: int
    optim: OptimConfig
    run_key: str
    folder: Path | Place | None = None
    save_every: int = 100
    keeping: Keeping = field(default_factory=Keeping)
    average_decay: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Told after every update."""

    step: int
    num_steps: int
    loss: float
    grad_norm: float
    lr: float
    seconds: float
    data_seconds: float
    eta_seconds: float

    def line(self) -> str:
        """One printable line."""
        return (
            f"step {self.step}/{self.num_steps} loss {self.loss:.4f} "
            f"grad {self.grad_norm:.3f} lr {self.lr:.1e} {self.seconds:.2f} s/step "
            f"data {self.data_seconds:.2f} s eta {format_seconds(self.eta_seconds)}"
        )


@dataclass(frozen=True, kw_only=True)
class FitResult:
    """A finished training.

    Attributes:
        losses: of every update.
        first_step: where this run of it began.
        seconds: of this run.
        step_seconds: the median over this run's updates.
        data_share: of the time of all updates, spent waiting for batches.
        average: averaged weights by parameter name; empty where none were kept.
    """

    losses: tuple[float, ...]
    first_step: int
    seconds: float
    step_seconds: float = 0.0
    data_share: float = 0.0
    average: dict[str, Tensor] = field(default_factory=dict)


def resume_point(plan: Plan) -> Checkpoint | None:
    """Find where an interrupted run of this plan ended; None starts from the beginning."""
    return None if plan.folder is None else load_checkpoint(plan.folder, run_key=plan.run_key)


def _do_nothing(*_: Any) -> None:
    """What a training tells to nobody."""


@dataclass(frozen=True, kw_only=True)
class Callbacks:
    """What a training tells, and what it asks.

    Attributes:
        on_start: told how many updates an interrupted training has already, on every rank.
        on_step: told after every update on every rank.
        must_save: asked after every update on every rank, and the same on all: whether to save now,
            besides every so many updates.
        on_save: told of every checkpoint, on the first rank.
        scores: of the checkpoints that have been judged, by step; the lower the better. Asked on
            the first rank.
        must_stop: asked on every rank after every so many updates; one that says so ends the
            training on all. None always trains to the end.
        must_end: asked on every rank after every update; one that says so has all save and end,
            not done. None is never told to.
    """

    on_start: Callable[[int], None] = _do_nothing
    on_step: Callable[[Progress], None] = _do_nothing
    must_save: Callable[[int], bool] = lambda step: False
    on_save: Callable[[Checkpoint], None] = _do_nothing
    scores: Callable[[], Mapping[int, float]] = dict
    must_stop: Callable[[], bool] | None = None
    must_end: Callable[[], bool] | None = None


SILENT = Callbacks()


def fit(
    engine: Engine,
    load_batch: Callable[[int], Sequence[Any]],
    plan: Plan,
    *,
    resume: Checkpoint | None = None,
    callbacks: Callbacks = SILENT,
) -> FitResult:
    """Train from where `resume` ended, or from the start.

    Args:
        engine: owns weights and optimizer.
        load_batch: this rank's slice of batch `step`, in equal parts that are run one after
            another; a pure function of the step.
        plan: length, optimizer, checkpoints.
        resume: the checkpoint that the engine was built with.
        callbacks: told how far it is, and asked when to save and to end.

    Raises:
        StoppedError: it was told to end; a checkpoint has been saved.
        RunError: the loss or its gradient stopped being a number; the last checkpoint is kept.
    """
    losses = [] if resume is None else list(resume.losses)
    first = len(losses)
    callbacks.on_start(first)
    average = _start_average(engine, plan, resume)
    ends = [time.monotonic()]
    spent: list[tuple[float, float]] = []
    for step in range(first, plan.num_steps):
        began = time.monotonic()
        batches = load_batch(step)
        loaded = time.monotonic()
        lr = plan.optim.lr_at(step, plan.num_steps)
        loss, norm = engine.update(batches, lr)
        losses.append(engine.mean(loss))
        _check_finite(losses[-1], norm, step)
        if average is not None and average.is_due(step + 1):
            average.add(engine.weights(), step + 1)
        ends.append(time.monotonic())
        spent.append((ends[-1] - began, loaded - began))
        callbacks.on_step(
            Progress(
                step=step + 1,
                num_steps=plan.num_steps,
                loss=losses[-1],
                grad_norm=norm,
                lr=lr,
                seconds=ends[-1] - began,
                data_seconds=loaded - began,
                eta_seconds=_pace(ends) * (plan.num_steps - step - 1),
            )
        )
        is_last = step + 1 == plan.num_steps
        is_due = is_last or (step + 1) % plan.save_every == 0
        is_told = not is_last and _is_wanted(callbacks.must_end, engine)
        if (callbacks.must_save(step + 1) or is_due or is_told) and plan.folder is not None:
            saved = _gather(engine, plan, losses, average)
            if engine.rank == 0:
                save_checkpoint(plan.folder, saved, keeping=plan.keeping, scores=callbacks.scores())
                callbacks.on_save(saved)
        if is_told:
            raise StoppedError(
                f"training must reach step {plan.num_steps}, got told to end at step {step + 1}; "
                "run the same command again to go on from there"
            )
        if is_due and _is_wanted(callbacks.must_stop, engine):
            break
    return FitResult(
        losses=tuple(losses),
        first_step=first,
        seconds=time.monotonic() - ends[0],
        step_seconds=median(whole for whole, _ in spent) if spent else 0.0,
        data_share=sum(d for _, d in spent) / max(1e-9, sum(whole for whole, _ in spent)),
        average={} if average is None else average.weights,
    )


def _is_wanted(asked: Callable[[], bool] | None, engine: Engine) -> bool:
    """Whether any rank wants something; a call for every rank."""
    return asked is not None and engine.mean(float(asked())) > 0


def _pace(ends: Sequence[float]) -> float:
    """Seconds an update takes, by the later half of them: the first one may encode a corpus.

    Args:
        ends: when the training began, and when each update ended.
    """
    middle = (len(ends) - 1) // 2
    return (ends[-1] - ends[middle]) / (len(ends) - 1 - middle)


def _start_average(engine: Engine, plan: Plan, resume: Checkpoint | None) -> WeightAverage | None:
    if plan.average_decay == 0:
        return None
    return WeightAverage(plan.average_decay, engine.weights() if resume is None else resume.average)


def _gather(
    engine: Engine, plan: Plan, losses: list[float], average: WeightAverage | None
) -> Checkpoint:
    """The state of the training now; a call for every rank."""
    return Checkpoint(
        run_key=plan.run_key,
        step=len(losses),
        losses=tuple(losses),
        weights=engine.weights(),
        optimizer=engine.optimizer_state(),
        average={} if average is None else average.weights,
    )


def _check_finite(loss: float, norm: float, step: int) -> None:
    """Raise before weights that are no numbers reach a checkpoint."""
    for name, value in (("loss", loss), ("norm of the gradient", norm)):
        if not math.isfinite(value):
            raise RunError(
                f"the {name} must stay a finite number, got {value} at step {step}; "
                "lower lr, or train in fp32, and run the command again to go on from the checkpoint"
            )


def format_seconds(seconds: float) -> str:
    """Seconds as `1h02m`, `3m20s` or `12s`."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 60}m{whole % 60:02d}s" if whole >= 60 else f"{whole}s"
