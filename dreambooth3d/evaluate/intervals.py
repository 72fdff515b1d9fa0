"""Means with their uncertainty."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_TAIL_PERCENT = 2.5


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean and its bootstrap 95 % interval; not-a-number bounds where one value says nothing.

    Attributes:
        mean, low, high: in the unit of the values.
        num_values: independent ones: subjects, or a clip's frames.
    """

    mean: float
    low: float
    high: float
    num_values: int

    def __str__(self) -> str:
        """As in a table."""
        if not np.isfinite(self.low):
            return f"{self.mean:.4f}"
        return f"{self.mean:.4f} [{self.low:.4f}, {self.high:.4f}]"


def bootstrap(values: Sequence[float], *, seed: int, num_resamples: int) -> Interval:
    """Resample values with replacement (Efron 1979, the percentile interval).

    Args:
        values: at least one, all finite.
        seed: the same values and seed give the same interval.
        num_resamples: draws of as many values as there are.
    """
    found = np.asarray(values, dtype=np.float64)
    mean = float(found.mean())
    if len(found) < 2:
        return Interval(mean=mean, low=float("nan"), high=float("nan"), num_values=len(found))
    rng = np.random.default_rng(seed)
    means = found[rng.integers(0, len(found), (num_resamples, len(found)))].mean(axis=1)
    low, high = np.percentile(means, [_TAIL_PERCENT, 100 - _TAIL_PERCENT])
    return Interval(mean=mean, low=float(low), high=float(high), num_values=len(found))
