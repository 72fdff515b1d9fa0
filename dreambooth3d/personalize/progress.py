"""How far a batch is: done, running with step and score, failed, and when it will be over."""

from collections.abc import Callable, Mapping
from threading import Lock
from typing import Any

from dreambooth3d.training.loop import format_seconds

_SHOWN = 4


class Board:
    """Counts what workers tell; used from two threads.

    Args:
        num_steps: of every subject that is to be trained, by id.
        report: gets a line now and then.
        every: seconds between lines.
    """

    def __init__(
        self, num_steps: Mapping[str, int], report: Callable[[str], None], *, every: float = 5.0
    ) -> None:
        self._num_steps, self._report, self._every = dict(num_steps), report, every
        self._lock = Lock()
        self._running: dict[str, Mapping[str, Any]] = {}
        self._done: set[str] = set()
        self._num_failed = 0
        self._said_at = 0.0
        # Steps that others had done before, by subject: they say nothing of the pace.
        self._first: dict[str, int] = {}

    def hear(self, told: Mapping[str, Any]) -> None:
        """Take in what a worker tells after an update."""
        with self._lock:
            subject = str(told["subject"])
            if subject not in self._done:
                self._first.setdefault(subject, int(told["step"]) - 1)
                self._running[subject] = told

    def end(self, subject: str, *, is_failed: bool) -> None:
        """A subject has come to its end."""
        with self._lock:
            self._running.pop(subject, None)
            self._done.add(subject)
            self._num_failed += is_failed

    def lose(self, subject: str) -> None:
        """A subject has lost its worker."""
        with self._lock:
            self._running.pop(subject, None)

    def say(self, now: float) -> None:
        """Report when it is time to.

        Args:
            now: seconds since the batch began.
        """
        if now - self._said_at >= self._every:
            self._said_at = now
            self._report(f"personalize {self.line(now)}")

    def line(self, seconds: float) -> str:
        """One printable line, `seconds` after the start."""
        with self._lock:
            shown = [_one(told) for told in list(self._running.values())[:_SHOWN]]
            more = len(self._running) - len(shown)
            running = ", ".join([*shown, *([f"{more} more"] if more else [])]) or "starting"
            return (
                f"{len(self._done) - self._num_failed}/{len(self._num_steps)} done, "
                f"{self._num_failed} failed, running {running}, eta {self._eta(seconds)}"
            )

    def _eta_seconds(self, seconds: float) -> float | None:
        finished = sum(self._num_steps[s] - self._first.get(s, 0) for s in self._done)
        partly = {s: int(told["step"]) for s, told in self._running.items()}
        steps = finished + sum(step - self._first.get(s, 0) for s, step in partly.items())
        left = sum(n for s, n in self._num_steps.items() if s not in self._done)
        left -= sum(partly.values())
        return None if steps <= 0 else seconds / steps * left

    def eta(self, seconds: float) -> str:
        """The same for people."""
        with self._lock:
            return self._eta(seconds)

    def _eta(self, seconds: float) -> str:
        found = self._eta_seconds(seconds)
        return "unknown" if found is None else format_seconds(found)


def _one(told: Mapping[str, Any]) -> str:
    line = f"{told['subject']} {told['step']}/{told['num_steps']} loss {told['loss']:.4f}"
    if told["identity"] is None:
        return line
    return f"{line} identity {told['identity']:.3f} (step {told['judged_at']})"
