"""Which subject is next, and when one that lost its worker may try again; no clock of its own."""

from collections.abc import Sequence
from dataclasses import dataclass

from dreambooth3d.artifacts.subject import Subject

_MOST_BACKOFF = 300.0


@dataclass(frozen=True, kw_only=True)
class Turn:
    """A subject that waits.

    Attributes:
        subject: to train.
        attempt: 1-based.
        failures: attempts in a row that got no further.
        saved_step: checkpoint that the last attempt left.
        ready_at: seconds on the caller's clock before which it must not start.
    """

    subject: Subject
    attempt: int = 1
    failures: int = 0
    saved_step: int = 0
    ready_at: float = 0.0


class Schedule:
    """Waiting subjects: higher priority first, then in the catalogue's order.

    Args:
        subjects: in the catalogue's order.
        tries: attempts that may get no further.
        backoff: seconds before the second attempt; doubled for each further one.
    """

    def __init__(self, subjects: Sequence[Subject], *, tries: int, backoff: float) -> None:
        self._waiting = [
            Turn(subject=s) for s in sorted(subjects, key=lambda s: s.priority, reverse=True)
        ]
        self._tries, self._backoff = tries, backoff

    def __len__(self) -> int:
        return len(self._waiting)

    def next(self, now: float) -> Turn | None:
        """Take the first that may start; None when all that are left have to wait."""
        for number, turn in enumerate(self._waiting):
            if turn.ready_at <= now:
                return self._waiting.pop(number)
        return None

    def again(self, turn: Turn, *, saved_step: int, now: float) -> Turn | None:
        """Let a subject that lost its worker try again; None when it has had its tries."""
        has_moved = saved_step > turn.saved_step
        failures = 1 if has_moved else turn.failures + 1
        if failures >= self._tries and not has_moved:
            return None
        wait = min(_MOST_BACKOFF, self._backoff * 2.0 ** (failures - 1))
        later = Turn(
            subject=turn.subject,
            attempt=turn.attempt + 1,
            failures=failures,
            saved_step=saved_step,
            ready_at=now + wait,
        )
        # Those that have begun end before others begin.
        self._waiting.insert(0, later)
        return later
