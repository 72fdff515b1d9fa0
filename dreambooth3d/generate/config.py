"""Settings of the generate stage."""

from dataclasses import dataclass
from typing import Literal

from dreambooth3d.artifacts.settings import require_choices, require_range, resource


@dataclass(frozen=True, kw_only=True)
class GenerateConfig:
    """How clips are sampled.

    Attributes:
        backbone: `tiny`, a diffusers folder or a hub id.
        num_frames, width, height: the clip, in frames and pixels; 0 takes the backbone's default.
        steps: Euler steps.
        guidance_scale: classifier-free guidance on the text; 1 turns it off.
        guided_above: noise level, 0..1, below which the text guides no more (arXiv 2404.07724); 0
            guides at every level. On `tiny` 0.75 keeps objects the same as they turn.
        reference_guidance_scale: the same on the references of a subject (arXiv 2211.09800,
            equation 3); 1 turns it off, more costs a third pass a step.
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
    guided_above: float = 0.0
    reference_guidance_scale: float = 1.0
    flow_shift: float = 0.0
    negative_prompt: str = ""
    seed: int = 0
    fps: int = 8
    precision: Literal["fp32", "bf16"] = "fp32"
    batch_size: int = resource(8)
    reference_attention: Literal["adapter", "joint", "isolated"] = resource("adapter")

    def __post_init__(self) -> None:
        """Check ranges; the backbone checks the clip's shape."""
        require_choices(self)
        require_range(self, "num_frames", "width", "height", least=0)
        require_range(self, "seed", least=0, below=2**63)
        require_range(self, "steps", "batch_size", least=1)
        require_range(self, "fps", least=1, most=240)
        require_range(self, "guidance_scale", "reference_guidance_scale", least=0, most=100)
        require_range(self, "flow_shift", least=0)
        require_range(self, "guided_above", least=0, most=1)
