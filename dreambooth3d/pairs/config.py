"""Settings of the pairs stage."""

from dataclasses import dataclass
from typing import Literal

from dreambooth3d.artifacts.settings import resource
from dreambooth3d.errors import ConfigError

Source = Literal["scenes"]


@dataclass(frozen=True, kw_only=True)
class PairsConfig:
    """What pairs are made of.

    Attributes:
        source: where objects come from; `scenes` is the embedded procedural world.
        samples: pairs in the corpus.
        pairs_per_subject: targets of the same object.
        size: side of the square pictures, in pixels.
        samples_per_shard: pairs in a tar.
        seed: of subjects, cameras and captions.
        workers: tasks at a time; 0 takes every core.
    """

    source: Source = "scenes"
    samples: int = 1024
    pairs_per_subject: int = 4
    size: int = 64
    samples_per_shard: int = 128
    seed: int = 0
    workers: int = resource(0)

    def __post_init__(self) -> None:
        """Check ranges."""
        if self.source != "scenes":
            raise ConfigError(f"source must be scenes, got {self.source!r}; leave it out")
        for name in ("samples", "pairs_per_subject", "samples_per_shard"):
            if getattr(self, name) < 1:
                raise ConfigError(
                    f"{name} must be at least 1, got {getattr(self, name)}; use for example 128"
                )
        if not 32 <= self.size <= 1024:
            raise ConfigError(f"size must be 32 to 1024 pixels, got {self.size}; use 64")
        if self.seed < 0 or self.workers < 0:
            raise ConfigError(
                f"seed and workers must be at least 0, got {self.seed} and {self.workers}"
            )

    @property
    def num_shards(self) -> int:
        """Tars of the corpus."""
        return -(-self.samples // self.samples_per_shard)
