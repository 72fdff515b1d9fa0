"""Requests: the only place that validates what a client sends.

`VideoCreate` checks each field alone (400). `resolve` checks it against the backbone and the
subject: the clip's shape (422), the prompt's brackets (400), the adapter (409). What comes out, a
`ClipOrder`, is complete and is what the job table stores.
"""

import hashlib
import json
import re
import secrets
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator

from dreambooth3d.artifacts.adapter import AdapterCard
from dreambooth3d.artifacts.jsonfile import JsonValue, read_json
from dreambooth3d.errors import AdapterError, ConfigError, InputError
from dreambooth3d.generate.config import GenerateConfig
from dreambooth3d.generate.generate import mark_subject
from dreambooth3d.model.backbone import BackboneCard
from dreambooth3d.model.prompts import split_brackets
from serve.errors import ApiError
from serve.settings import ServeSettings

MAX_PROMPT_LETTERS = 4000
_DEFAULTS = GenerateConfig()
_DEFAULT_CLIP_SCALE = 16
_MAX_SHOWN = 80
_JOB_ID = re.compile(r"video_[0-9a-f]{32}")
_SUBJECT_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_SIZE = re.compile(r"(\d{1,5})x(\d{1,5})", re.ASCII)
_RANGE = re.compile(
    r"bytes=(SPAN(?:, *SPAN){0,9})".replace("SPAN", r"(?:\d{1,18}-\d{0,18}|-\d{1,18})"), re.ASCII
)
_NUMBER = re.compile(r"\d{1,5}(\.\d{1,6})?", re.ASCII)


def _refuse_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("must be text without NUL characters")
    return text


Text = Annotated[str, AfterValidator(_refuse_nul)]


class VideoCreate(BaseModel):
    """Body of `POST /v1/videos`, as JSON or as multipart/form-data with the same names."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    prompt: Text = Field(
        min_length=1,
        max_length=MAX_PROMPT_LETTERS,
        description="What is to be seen; [trigger class noun] in brackets marks the subject.",
    )
    subject: Text | None = Field(default=None, description="Id of a subject; none is allowed.")
    model: Text | None = Field(default=None, description="Id of the served model.")
    seconds: str | int | float | None = Field(
        default=None, description="Length; rounded to a frame count the model can make."
    )
    num_frames: int | None = Field(default=None, description="Length, 4n + 1; wins over seconds.")
    size: Text | None = Field(default=None, description="<width>x<height> in pixels.")
    fps: int | None = Field(default=None, ge=1, le=60)
    seed: int | None = Field(default=None, ge=0, lt=2**63)
    num_inference_steps: int | None = Field(default=None, ge=1)
    guidance_scale: float | None = Field(default=None, ge=0, le=50)
    reference_scale: float | None = Field(
        default=None,
        ge=0,
        le=50,
        description="Guidance on the subject's views; 1, the default, is none, 4 is much.",
    )
    negative_prompt: Text | None = Field(default=None, max_length=MAX_PROMPT_LETTERS)
    metadata: dict[Text, Text] | None = Field(default=None, max_length=16)

    @field_validator(
        "seconds",
        "num_frames",
        "fps",
        "seed",
        "num_inference_steps",
        "guidance_scale",
        "reference_scale",
        mode="before",
    )
    @classmethod
    def _refuse_truth(cls, value: object) -> object:
        if isinstance(value, bool):
            raise ValueError("must be a number")
        return value

    @field_validator("prompt")
    @classmethod
    def _check_prompt(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("must be words")
        return value

    @field_validator("seconds")
    @classmethod
    def _check_seconds(cls, value: str | int | float | None) -> float | None:
        if value is not None and not (_NUMBER.fullmatch(str(value).strip()) and float(value) > 0):
            raise ValueError("must be a number above 0, such as 2 or '2'")
        return None if value is None else float(value)

    @field_validator("size")
    @classmethod
    def _check_size(cls, value: str | None) -> str | None:
        if value is not None and not _SIZE.fullmatch(value):
            raise ValueError("must be <width>x<height> in pixels, such as '64x64'")
        return value

    @field_validator("subject")
    @classmethod
    def _check_subject(cls, value: str | None) -> str | None:
        # Form fields cannot be null; an empty one is a field left empty.
        return value or None

    @property
    def content_hash(self) -> str:
        """Hash of what the client asked for: equal requests have equal hashes."""
        text = json.dumps(self.model_dump(exclude_none=True), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


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
        max_tokens: latent tokens of the largest clip.
        max_steps: most denoising steps.
        reference_attention: which adapters are accepted.
    """

    model: str
    backbone: BackboneCard
    spatial_ratio: int
    temporal_ratio: int
    max_tokens: int
    max_steps: int
    reference_attention: Literal["any", "joint", "isolated"]

    @classmethod
    def of(cls, card: BackboneCard, settings: ServeSettings) -> "ClipRules":
        """Read the VAE's ratios beside the card."""
        vae = read_json(card.folder / "vae" / "config.json", what="VAE config")
        rules = cls(
            model=Path(card.name).name,
            backbone=card,
            spatial_ratio=int(str(vae["spatial_compression_ratio"])),
            temporal_ratio=int(str(vae["temporal_compression_ratio"])),
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


def parse_create(body: object) -> VideoCreate:
    """Check the fields of a body, each alone; the first wrong one is a 400."""
    try:
        return VideoCreate.model_validate(body)
    except ValidationError as error:
        raise _bad_field(error) from error


def resolve(asked: VideoCreate, rules: ClipRules, adapter: AdapterCard | None) -> ClipOrder:
    """Complete a request from the backbone's defaults and check it as a whole."""
    _check_model(asked.model, rules)
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


def is_job_id(value: str) -> bool:
    """Say whether this could be a job's id; nothing else reaches the database."""
    return _JOB_ID.fullmatch(value) is not None


def is_subject_id(value: str) -> bool:
    """Say whether this could be a subject's id; nothing else is looked up."""
    return _SUBJECT_ID.fullmatch(value) is not None


def check_idempotency_key(value: str | None) -> str | None:
    """Check the `Idempotency-Key` header."""
    if value is not None and not (1 <= len(value) <= 255 and value.isprintable()):
        raise ApiError(
            400,
            "invalid_value",
            f"Idempotency-Key must be 1 to 255 printable characters, got {len(value)}; "
            "send for example a UUID",
            param="Idempotency-Key",
        )
    return value


def check_range(value: str | None, size: int) -> None:
    """Check a `Range` header against a file of `size` bytes."""
    if value is None:
        return
    spans = _RANGE.fullmatch(value)
    limits = [part.strip().split("-") for part in spans[1].split(",")] if spans else []
    if spans is None or any(a and b and int(a) > int(b) for a, b in limits):
        raise ApiError(
            400,
            "invalid_value",
            f"Range must be bytes=<first>-<last>, got {shown(value)}; correct or drop the header",
            param="Range",
        )
    if any(int(a) >= size if a else int(b) == 0 for a, b in limits):
        raise ApiError(
            416,
            "range_not_satisfiable",
            f"Range must lie in the file's {size} bytes, got {shown(value)}; ask for less",
            param="Range",
            headers={"Content-Range": f"bytes */{size}"},
        )


def shown(value: object) -> str:
    """Return a value as it may stand in a sentence: escaped and short."""
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}.."


def field_error(param: str, kind: str, rule: str, value: object) -> ApiError:
    """Word one of pydantic's findings as our sentence."""
    if kind == "missing":
        message = f"{param} must be given, got nothing; add it"
    elif kind == "extra_forbidden":
        known = ", ".join(VideoCreate.model_fields)
        message = f"fields must be among {known}, got {shown(param)}; leave it out"
    else:
        rule = rule.removeprefix("Value error, ").removeprefix("Input should ")
        rule = rule if rule.startswith(("be ", "must ")) else f"must be valid ({rule})"
        rule = rule if rule.startswith("must ") else f"must {rule}"
        message = f"{param} {rule}, got {shown(value)}; correct it"
    return ApiError(400, "invalid_value", message, param=param)


def _bad_field(error: ValidationError) -> ApiError:
    first = error.errors(include_url=False)[0]
    param = str(first["loc"][0]) if first["loc"] else "body"
    return field_error(shown(param)[1:-1], first["type"], first["msg"], first["input"])


def _check_model(model: str | None, rules: ClipRules) -> None:
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
    multiple = rules.spatial_ratio
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
