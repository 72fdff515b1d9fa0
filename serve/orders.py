"""A request as a whole: the clip's shape (422), its prompt's brackets (400), its adapter (409).

`resolve` completes what `schema.parse_create` has read. What comes out, a `ClipOrder`, leaves
nothing to defaults and is what the job table stores.
"""

import secrets
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from dreambooth3d.artifacts.adapter import AdapterCard
from dreambooth3d.artifacts.jsonfile import JsonValue, read_json
from dreambooth3d.errors import AdapterError, ConfigError, InputError
from dreambooth3d.generate.config import GenerateConfig
from dreambooth3d.generate.generate import mark_subject
from dreambooth3d.model.backbone import BackboneCard
from dreambooth3d.model.prompts import split_brackets
from serve.errors import ApiError
from serve.schema import VideoCreate, shown
from serve.settings import ServeSettings

_DEFAULTS = GenerateConfig()
_DEFAULT_CLIP_SCALE = 16


@dataclass(frozen=True, kw_only=True)
class ClipOrder:
    """A complete request: nothing is left to defaults. Sizes in pixels and frames."""

    prompt: str
    negative_prompt: str
    subject: str | None
    model: str
    num_frames: int
    width: int
    height: int
    fps: int
    seed: int
    num_steps: int
    guidance_scale: float
    flow_shift: float
    metadata: dict[str, str]
    reference_scale: float = 1.0
    remixed_from: str | None = None

    def to_json(self) -> dict[str, JsonValue]:
        """Return the fields as JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> "ClipOrder":
        """Read what `to_json` wrote."""
        return cls(**found)


@dataclass(frozen=True, kw_only=True)
class ClipRules:
    """What clips the served backbone can make.

    Attributes:
        model: name of the backbone, without its folder.
        backbone: its card.
        spatial_ratio, temporal_ratio: of its VAE.
        size_multiple: pixels of one token along a side.
        max_tokens: latent tokens of the largest clip.
        max_steps: most denoising steps.
        reference_attention: which adapters are accepted.
    """

    model: str
    backbone: BackboneCard
    spatial_ratio: int
    temporal_ratio: int
    size_multiple: int
    max_tokens: int
    max_steps: int
    reference_attention: Literal["any", "joint", "isolated"]

    @classmethod
    def of(cls, card: BackboneCard, settings: ServeSettings) -> "ClipRules":
        """Read the VAE's ratios and the transformer's patches beside the card."""
        vae = read_json(card.folder / "vae" / "config.json", what="VAE config")
        transformer = read_json(
            card.folder / "transformer" / "config.json", what="transformer config"
        )
        spatial_ratio = int(str(vae["spatial_compression_ratio"]))
        rules = cls(
            model=Path(card.name).name,
            backbone=card,
            spatial_ratio=spatial_ratio,
            temporal_ratio=int(str(vae["temporal_compression_ratio"])),
            size_multiple=spatial_ratio * int(str(transformer["patch_size"])),
            max_tokens=settings.max_clip_tokens,
            max_steps=settings.max_steps,
            reference_attention=settings.reference_attention,
        )
        usual = rules.num_tokens(card.num_frames, card.width, card.height)
        return replace(rules, max_tokens=rules.max_tokens or _DEFAULT_CLIP_SCALE * usual)

    def num_tokens(self, num_frames: int, width: int, height: int) -> int:
        """Latent tokens of a clip."""
        num_latents = (num_frames - 1) // self.temporal_ratio + 1
        return num_latents * (width // self.spatial_ratio) * (height // self.spatial_ratio)

    def nearest_num_frames(self, num_frames: float) -> int:
        """Return the nearest frame count the VAE can hold, at least 1."""
        ratio = self.temporal_ratio
        return max(0, round((num_frames - 1) / ratio)) * ratio + 1


def ask_again(order: ClipOrder, prompt: str) -> VideoCreate:
    """Return what a client would send for the same clip with another prompt."""
    return VideoCreate(
        prompt=prompt,
        subject=order.subject,
        num_frames=order.num_frames,
        size=f"{order.width}x{order.height}",
        fps=order.fps,
        seed=order.seed,
        num_inference_steps=order.num_steps,
        guidance_scale=order.guidance_scale,
        reference_scale=order.reference_scale,
        negative_prompt=order.negative_prompt,
        metadata=order.metadata,
    )


def resolve(asked: VideoCreate, rules: ClipRules, adapter: AdapterCard | None) -> ClipOrder:
    """Complete a request from the backbone's defaults and check it as a whole."""
    check_model(asked.model, rules)
    _check_prompt(asked, adapter)
    size = asked.size or f"{rules.backbone.width}x{rules.backbone.height}"
    width, height = map(int, size.split("x"))
    fps = asked.fps or _DEFAULTS.fps
    num_frames = asked.num_frames
    if num_frames is None and asked.seconds is not None:
        num_frames = rules.nearest_num_frames(float(asked.seconds) * fps)
    if num_frames is None:
        num_frames = rules.backbone.num_frames
    _check_shape(rules, num_frames, width, height)
    scale = asked.guidance_scale
    return ClipOrder(
        prompt=asked.prompt,
        negative_prompt=asked.negative_prompt or "",
        subject=asked.subject,
        model=rules.model,
        num_frames=num_frames,
        width=width,
        height=height,
        fps=fps,
        seed=secrets.randbelow(2**31) if asked.seed is None else asked.seed,
        num_steps=_check_steps(asked.num_inference_steps or _DEFAULTS.steps, rules),
        guidance_scale=_DEFAULTS.guidance_scale if scale is None else scale,
        flow_shift=rules.backbone.flow_shift,
        metadata=asked.metadata or {},
        reference_scale=1.0 if asked.reference_scale is None else asked.reference_scale,
    )


def num_tokens(order: ClipOrder, rules: ClipRules, adapter: AdapterCard | None) -> int:
    """Latent tokens that a clip brings into a batch, its reference views among them."""
    own = rules.num_tokens(order.num_frames, order.width, order.height)
    if adapter is None or adapter.method == "3dreambooth":
        return own
    return own + adapter.num_views * rules.num_tokens(1, order.width, order.height)


def batch_key(order: ClipOrder, adapter: AdapterCard | None) -> str:
    """Jobs of equal key may share a batch; the engine checks again with loaded adapters."""
    shape = f"{order.width}x{order.height}x{order.num_frames}/{order.num_steps}/{order.flow_shift}"
    if adapter is None:
        return f"{shape}/plain"
    has_views = adapter.method != "3dreambooth"
    num_views = adapter.num_views if has_views else 0
    return f"{shape}/{adapter.reference_attention}/{num_views}/{adapter.text_scope}"


def check_adapter(adapter: AdapterCard, rules: ClipRules) -> None:
    """Refuse with 409 an adapter that was made for something else than what is served."""
    try:
        adapter.require_backbone(rules.backbone.revision, name=rules.model)
        if rules.reference_attention != "any":
            adapter.require_attention(rules.reference_attention)
    except AdapterError as error:
        raise ApiError(409, "adapter_mismatch", str(error), param="subject") from error


def check_model(model: str | None, rules: ClipRules) -> None:
    """Refuse with 404 a model that is not served; None is the one that is."""
    if model is not None and model != rules.model:
        raise ApiError(
            404,
            "model_not_found",
            f"model must be {rules.model!r}, got {shown(model)}; leave it out or see /v1/models",
            param="model",
        )


def _check_prompt(asked: VideoCreate, adapter: AdapterCard | None) -> None:
    for param in ("prompt", "negative_prompt"):
        text: str = getattr(asked, param) or ""
        try:
            marked = split_brackets(text)
            if adapter is not None and param == "prompt":
                mark_subject(text, adapter)
            elif marked.span is not None:
                raise ConfigError(
                    f"brackets in {param} must name the chosen subject, got "
                    f"[{marked.text[slice(*marked.span)]}] without one; "
                    "choose a subject or leave the brackets out"
                )
        except (ConfigError, InputError) as error:
            raise ApiError(400, "invalid_prompt", str(error), param=param) from error


def _check_shape(rules: ClipRules, num_frames: int, width: int, height: int) -> None:
    ratio = rules.temporal_ratio
    if num_frames < 1 or (num_frames - 1) % ratio:
        raise _bad_shape(
            f"num_frames must be {ratio}n + 1, got {num_frames}; "
            f"use {rules.nearest_num_frames(num_frames)}",
            "num_frames",
        )
    multiple = rules.size_multiple
    if min(width, height) < multiple or width % multiple or height % multiple:
        nearest = [max(1, round(side / multiple)) * multiple for side in (width, height)]
        raise _bad_shape(
            f"size must be multiples of {multiple}, got {width}x{height}; "
            f"use {nearest[0]}x{nearest[1]}",
            "size",
        )
    if (num_tokens := rules.num_tokens(num_frames, width, height)) > rules.max_tokens:
        raise _bad_shape(
            f"a clip must have at most {rules.max_tokens} latent tokens, got {num_tokens} for "
            f"{width}x{height} and {num_frames} frames; make it smaller or shorter",
            "size",
        )


def _check_steps(num_steps: int, rules: ClipRules) -> int:
    if num_steps > rules.max_steps:
        raise _bad_shape(
            f"num_inference_steps must be at most {rules.max_steps}, got {num_steps}; use fewer",
            "num_inference_steps",
        )
    return num_steps


def _bad_shape(message: str, param: str) -> ApiError:
    return ApiError(422, "shape_not_allowed", message, param=param)
