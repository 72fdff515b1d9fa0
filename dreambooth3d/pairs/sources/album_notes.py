"""What is written about the photos of an album: metadata, and captions."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from reprlib import repr as shown
from typing import Any

from dreambooth3d.artifacts.place import Place
from dreambooth3d.artifacts.prompt import parse_prompt
from dreambooth3d.errors import InputError
from dreambooth3d.pairs.sources.listing import read_or_refuse
from dreambooth3d.pairs.sources.wording import whole_words
from dreambooth3d.vision.refusal import Reason, RefusedError

_MOST_TEXT_BYTES = 1_000_000


@dataclass(frozen=True, kw_only=True)
class AlbumNotes:
    """What ``metadata.json`` says; empty where it says nothing."""

    id: str = ""
    class_noun: str = ""
    licence: str = ""
    attribution: str = ""


def read_notes(file: Place) -> AlbumNotes:
    """Read ``metadata.json``.

    Raises:
        RefusedError: it is damaged, or a field is no text.
    """
    text = _read_text(file, "bad_row")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RefusedError("bad_row", f"metadata must be JSON, got {error}; correct it") from error
    if not isinstance(found, Mapping):
        raise RefusedError("bad_row", f"metadata must be a record, got {shown(found)}; correct it")
    return AlbumNotes(
        id=_field(found, "id"),
        class_noun=_field(found, "class_noun"),
        licence=_field(found, "licence") or _field(found, "license"),
        attribution=_field(found, "attribution") or _field(found, "source"),
    )


def read_caption(file: Place) -> str:
    """Read the text beside a photo.

    Raises:
        RefusedError: it is no text, or empty.
    """
    caption = " ".join(_read_text(file, "bad_caption").split())
    if not caption:
        raise RefusedError(
            "bad_caption",
            f"caption beside a photo must have words, got none in {file.name}; "
            "write some, or delete it",
        )
    return caption


def read_prompts(file: Place, *, num_photos: int, class_noun: str) -> tuple[str, ...]:
    """Read ``prompt.txt`` as captions, one line a photo; [brackets] give way to the class noun.

    Raises:
        RefusedError: there is another number of lines, or one is empty or has wrong brackets.
    """
    lines = [line for line in _read_text(file, "bad_caption").splitlines() if line.strip()]
    if len(lines) != num_photos:
        raise RefusedError(
            "bad_caption",
            f"prompts must be one line a photo, got {len(lines)} for {num_photos} photos in "
            f"{file.name}; add or remove lines",
        )
    try:
        parts = [parse_prompt(line.strip()) for line in lines]
    except InputError as error:
        raise RefusedError("bad_caption", str(error)) from error
    return tuple(
        f"{part.before}{class_noun or part.span}{part.after}" if part.span else part.text
        for part in parts
    )


def _read_text(file: Place, reason: Reason) -> str:
    data = read_or_refuse(file, reason=reason, most_bytes=_MOST_TEXT_BYTES)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RefusedError(reason, f"{file.name} must be UTF-8, got {error}; save it so") from error


def _field(found: Mapping[str, Any], name: str) -> str:
    value = found.get(name, "")
    if not isinstance(value, str):
        raise RefusedError(
            "bad_row", f"{name} in metadata must be text, got {shown(value)}; correct it"
        )
    return whole_words(value)
