"""Settings of the pairs stage."""

from dataclasses import dataclass
from typing import Literal

from dreambooth3d.artifacts.settings import require_range, resource
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
        require_range(self, "samples", "pairs_per_subject", "samples_per_shard", least=1)
        require_range(self, "seed", "workers", least=0)
        require_range(self, "size", least=32, most=1024)

    @property
    def num_shards(self) -> int:
        """Tars of the corpus."""
        return -(-self.samples // self.samples_per_shard)
