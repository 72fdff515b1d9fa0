"""The one data order: a global permutation by seed and epoch, cut into batches, cut into ranks."""

from dataclasses import dataclass
from functools import lru_cache

import torch

from dreambooth3d.diffusion.noise import keyed_generator
from dreambooth3d.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Draw:
    """One place in the global stream of samples.

    Attributes:
        sample: index of the sample in the corpus.
        place: position in the stream since the first step; with the seed it names every random
            draw made for this sample, whoever makes it.
    """

    sample: int
    place: int


@dataclass(frozen=True, kw_only=True)
class DataOrder:
    """Which samples make up batch i: the same whatever the number of workers.

    Epochs follow each other without a gap, so the state of the order is the step number alone.
    """

    num_samples: int
    batch_size: int
    seed: int

    def __post_init__(self) -> None:
        """Check counts."""
        for name in ("num_samples", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(
                    f"{name} must be at least 1, got {getattr(self, name)}; "
                    "check that the corpus is not empty"
                )

    def batch(self, step: int, *, rank: int = 0, world_size: int = 1) -> tuple[Draw, ...]:
        """List a rank's slice of batch `step`, in order."""
        if self.batch_size % world_size:
            raise ConfigError(
                f"batch_size must be a multiple of the number of workers ({world_size}), "
                f"got {self.batch_size}; change batch_size or workers"
            )
        share = self.batch_size // world_size
        start = step * self.batch_size + rank * share
        return tuple(self._draw(place) for place in range(start, start + share))

    def _draw(self, place: int) -> Draw:
        epoch, position = divmod(place, self.num_samples)
        sample = int(_permutation(self.num_samples, self.seed, epoch)[position])
        return Draw(sample=sample, place=place)


@lru_cache(maxsize=4)
def _permutation(num_samples: int, seed: int, epoch: int) -> torch.Tensor:
    return torch.randperm(num_samples, generator=keyed_generator("order", seed, epoch))
