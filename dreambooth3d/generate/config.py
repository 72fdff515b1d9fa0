"""Settings of the generate stage."""

from dataclasses import dataclass
from typing import Literal

from dreambooth3d.artifacts.settings import resource
from dreambooth3d.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class GenerateConfig:
    """How clips are sampled.

    Attributes:
        backbone: `tiny`, a diffusers folder or a hub id.
        num_frames, width, height: the clip, in frames and pixels; 0 takes the backbone's default.
        steps: Euler steps.
        guidance_scale: classifier-free guidance on the text; 1 turns it off.
        flow_shift: shift of the noise schedule; 0 takes the backbone's default.
        negative_prompt: text of the unconditional branch.
        seed: noise seed; the i-th clip of a subject uses seed + i.
        precision: `fp32` or, on a GPU, `bf16`.
        fps: frames a second of the mp4.
        batch_size: clips at a time; a clip is the same alone or beside neighbours.
        reference_attention: `adapter` takes the adapter's own; `joint` or `isolated` refuses an
            adapter of the other kind.
    """

    backbone: str = "tiny"
    num_frames: int = 0
    width: int = 0
    height: int = 0
    steps: int = 20
    guidance_scale: float = 4.0
    flow_shift: float = 0.0
    negative_prompt: str = ""
    seed: int = 0
    fps: int = 8
    precision: Literal["fp32", "bf16"] = "fp32"
    batch_size: int = resource(8)
    reference_attention: Literal["adapter", "joint", "isolated"] = resource("adapter")

    def __post_init__(self) -> None:
        """Check ranges; the backbone checks the clip's shape."""
        for name in ("num_frames", "width", "height", "seed"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} must be at least 0, got {getattr(self, name)}; "
                                  "use 0 for the default")  # fmt: skip
        for name in ("steps", "fps", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}; "
                                  f"leave {name} out for the default")  # fmt: skip
        if not 0 <= self.guidance_scale <= 100:
            raise ConfigError(
                f"guidance_scale must be 0 to 100, got {self.guidance_scale}; 1 turns it off"
            )
        if self.fps > 240 or self.seed >= 2**63 or self.flow_shift < 0:
            raise ConfigError(
                "fps must be at most 240, seed below 2**63 and flow_shift at least 0, "
                f"got {self.fps}, {self.seed} and {self.flow_shift}; correct them"
            )
