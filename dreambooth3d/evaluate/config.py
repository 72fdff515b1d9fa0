"""Settings of the evaluate stage."""

from dataclasses import dataclass

from dreambooth3d.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """What is measured.

    Attributes:
        frames: frames of a clip that are scored, evenly spaced; 0 scores all.
        batch_size: crops embedded at a time.
    """

    frames: int = 5
    batch_size: int = 32

    def __post_init__(self) -> None:
        """Check ranges."""
        if self.frames < 0 or self.batch_size < 1:
            raise ConfigError(
                "frames must be at least 0 and batch_size at least 1, "
                f"got {self.frames} and {self.batch_size}"
            )
