"""Exponential average of the trained weights: smoother than the last ones at a constant rate."""

from collections.abc import Mapping

import torch
from torch import Tensor

from dreambooth3d.training.settings import AVERAGED_EVERY


class WeightAverage:
    """An average over updates, fp32 on the CPU; the same on every rank and for any engine.

    It takes in the weights after every tenth update, with a decay that is short at first, so that
    the beginning is soon forgotten.

    Args:
        decay: of one update, 0 to 1; the last 1 / (1 - decay) updates count most.
        weights: what it starts from: fresh weights, or the average of a checkpoint.
    """

    def __init__(self, decay: float, weights: Mapping[str, Tensor]) -> None:
        self._decay = decay
        self._weights = {name: value.detach().clone() for name, value in weights.items()}

    @staticmethod
    def is_due(step: int) -> bool:
        """Whether the weights after `step` finished updates are taken in."""
        return step % AVERAGED_EVERY == 0

    def add(self, weights: Mapping[str, Tensor], step: int) -> None:
        """Take in the weights after `step` finished updates."""
        decay = min(self._decay, (1 + step) / (10 + step)) ** AVERAGED_EVERY
        torch._foreach_lerp_(
            list(self._weights.values()), [weights[name] for name in self._weights], 1 - decay
        )

    @property
    def weights(self) -> dict[str, Tensor]:
        """The average by parameter name."""
        return dict(self._weights)
