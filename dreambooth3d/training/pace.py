"""Pace of a training that ends after a count of steps or a time, whichever comes first."""

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
