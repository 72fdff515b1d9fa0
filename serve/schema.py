"""What a client sends, field by field (400); `orders` then checks a request as a whole."""

import hashlib
import json
import re
from collections.abc import Iterable
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator

from dreambooth3d.artifacts.subject import is_id
from serve.errors import ApiError

MAX_PROMPT_LETTERS = 4000
_MAX_SHOWN = 80
_JOB_ID = re.compile(r"video_[0-9a-f]{32}")
_SIZE = re.compile(r"(\d{1,5})x(\d{1,5})", re.ASCII)
_RANGE = re.compile(
    r"bytes=(SPAN(?:, *SPAN){0,9})".replace("SPAN", r"(?:\d{1,18}-\d{0,18}|-\d{1,18})"), re.ASCII
)
_NUMBER = re.compile(r"\d{1,5}(\.\d{1,6})?", re.ASCII)


def _refuse_unwritable(text: str) -> str:
    """Refuse what a database or an answer in UTF-8 cannot hold."""
    if "\0" in text:
        raise ValueError("must be text without NUL characters")
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise ValueError("must be text without halves of letters (lone surrogates)")
    return text


def _refuse_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("must be words")
    return text


Text = Annotated[str, AfterValidator(_refuse_unwritable)]
MetadataKey = Annotated[str, Field(max_length=64), AfterValidator(_refuse_unwritable)]
MetadataText = Annotated[str, Field(max_length=512), AfterValidator(_refuse_unwritable)]
Prompt = Annotated[
    str,
    Field(
        min_length=1,
        max_length=MAX_PROMPT_LETTERS,
        description="What is to be seen; [trigger class noun] in brackets marks the subject.",
    ),
    AfterValidator(_refuse_unwritable),
    AfterValidator(_refuse_blank),
]


class VideoCreate(BaseModel):
    """Body of `POST /v1/videos`, as JSON or as multipart/form-data with the same names."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    prompt: Prompt
    subject: Text | None = Field(default=None, description="Id of a subject; none is allowed.")
    model: Text | None = Field(default=None, description="Id of the served model.")
    seconds: str | int | float | None = Field(
        default=None, description="Length; rounded to a frame count the model can make."
    )
    num_frames: int | None = Field(
        default=None, le=100_000, description="Length, 4n + 1; wins over seconds."
    )
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
    metadata: dict[MetadataKey, MetadataText] | None = Field(default=None, max_length=16)

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


class VideoRemix(BaseModel):
    """Body of `POST /v1/videos/{id}/remix`: all but the prompt is that of the video."""

    model_config = ConfigDict(extra="forbid")

    prompt: Prompt


def parse_create(body: object) -> VideoCreate:
    """Check the fields of a body, each alone; the first wrong one is a 400."""
    try:
        return VideoCreate.model_validate(body)
    except ValidationError as error:
        raise _bad_field(error, VideoCreate) from error


def parse_remix(body: object) -> VideoRemix:
    """Check the body of a remix; a wrong field is a 400."""
    try:
        return VideoRemix.model_validate(body)
    except ValidationError as error:
        raise _bad_field(error, VideoRemix) from error


def is_job_id(value: str) -> bool:
    """Say whether this could be a job's id; nothing else reaches the database."""
    return _JOB_ID.fullmatch(value) is not None


def is_subject_id(value: str) -> bool:
    """Say whether this could be a subject's id; nothing else is looked up."""
    return is_id(value)


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


def field_error(
    param: str, kind: str, rule: str, value: object, *, known: Iterable[str] = ()
) -> ApiError:
    """Word one of pydantic's findings as our sentence; `known` are the fields there are."""
    if kind == "missing":
        message = f"{param} must be given, got nothing; add it"
    elif kind == "extra_forbidden":
        message = f"fields must be among {', '.join(known)}, got {shown(param)}; leave it out"
    else:
        rule = "be an object" if kind in ("model_type", "dict_type") else rule
        for library in ("Value error, ", "Input should ", "String should "):
            rule = rule.removeprefix(library)
        rule = rule if rule.startswith(("be ", "have ", "must ")) else f"must be valid ({rule})"
        rule = rule if rule.startswith("must ") else f"must {rule}"
        message = f"{param} {rule}, got {shown(value)}; correct it"
    return ApiError(400, "invalid_value", message, param=param)


def _bad_field(error: ValidationError, model: type[BaseModel]) -> ApiError:
    first = error.errors(include_url=False)[0]
    param = str(first["loc"][0]) if first["loc"] else "body"
    return field_error(
        shown(param)[1:-1], first["type"], first["msg"], first["input"], known=model.model_fields
    )
