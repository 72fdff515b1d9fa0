"""When a training ends early, and which of its checkpoints is the best: pure functions."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the held-out losses say: the step of the best one, and whether patience ran out."""

    best: int
    is_over: bool


def decide(losses: Mapping[int, float], patience: int) -> Verdict | None:
    """Go through held-out losses by step; what comes after patience ran out changes nothing.

    So the result does not depend on how far the training got before it heard of it. None without
    any loss.
    """
    best, misses = None, 0
    for step in sorted(losses):
        if best is None or losses[step] < losses[best]:
            best, misses = step, 0
            continue
        misses += 1
        if misses == patience:
            return Verdict(best=best, is_over=True)
    return None if best is None else Verdict(best=best, is_over=False)


def held_out_losses(
    validations: Iterable[Mapping[str, Any]], *, every: int, last: int
) -> dict[int, float]:
    """Losses by step, of the regular checkpoints: those before a preemption come by chance."""
    return {
        row["step"]: row["loss"]
        for row in validations
        if row["step"] % every == 0 or row["step"] == last
    }
