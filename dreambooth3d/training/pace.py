"""Pace of a training that ends after a count of steps or a time, whichever comes first."""

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(kw_only=True)
class Pace:
    """Step and seconds used so far; the schedule follows the larger of both shares."""

    num_steps: int
    minutes: float
    step: int = 0
    seconds: float = 0.0

    @property
    def share(self) -> float:
        """How much of the training is done, 0..1."""
        by_time = self.seconds / (60 * self.minutes) if self.minutes > 0 else 0.0
        return min(1.0, max(self.step / max(self.num_steps, 1), by_time))

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to do."""
        return self.share >= 1.0

    @property
    def minutes_left(self) -> float:
        """Minutes to the end at the pace so far."""
        share = max(self.share, 1e-6)
        return self.seconds * (1 - share) / share / 60

    def advance(self, seconds: float) -> None:
        """Count one update that took `seconds`."""
        self.step += 1
        self.seconds += seconds

    def rate(self, *, warmup_steps: int, decay_fraction: float) -> float:
        """Warm-up, stable, linear decay to zero (arXiv 2405.18392), as a factor 0..1."""
        warm = min(1.0, (self.step + 1) / max(warmup_steps, 1))
        left = (1 - self.share) / decay_fraction if decay_fraction > 0 else 1.0
        return warm * min(1.0, left)


class Timer:
    """Tells when `seconds` have passed since it last said so."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._last = time.monotonic()

    def is_due(self) -> bool:
        """True once every `seconds`."""
        now = time.monotonic()
        if now - self._last < self.seconds:
            return False
        self._last = now
        return True


class Countdown:
    """Reports pieces of work as they are done, with the time that is left.

    Args:
        what: the work.
        seconds: between two lines.
        report: takes a line.
    """

    def __init__(self, what: str, seconds: float, report: Callable[[str], None]) -> None:
        self._what, self._report = what, report
        self._timer, self._started = Timer(seconds), time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        """Say that `done` of `total` pieces are done."""
        if self._timer.is_due() or done == total:
            left = (time.monotonic() - self._started) / done * (total - done)
            self._report(f"{self._what}: {done}/{total}, ETA {left:.0f} s")
