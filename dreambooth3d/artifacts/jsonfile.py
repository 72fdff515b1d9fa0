"""JSON on disk: sorted keys, two spaces, UTF-8, a newline at the end, finite numbers only."""

import dataclasses
import enum
import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

from dreambooth3d.errors import ArtifactError, ConfigError

JsonValue: TypeAlias = "bool | int | float | str | list[JsonValue] | dict[str, JsonValue] | None"

_LARGEST_EXACT_INT = 2**53


def canonical_json(value: object, *, what: str = "value") -> str:
    """Return the one spelling of `value` that keys are made of.

    Dict order, tuple or list, set order and ``1`` or ``1.0`` make no difference; dataclasses are
    their fields, enums their value. Paths are refused, because a key must not depend on a machine.
    """
    plain = _canonical(value, what)
    return json.dumps(plain, sort_keys=True, ensure_ascii=True, separators=(",", ":"))


def dump_json(value: Mapping[str, JsonValue], *, what: str, indent: int | None = None) -> str:
    """Return one JSON object as text with sorted keys; `what` names it when a number is NaN."""
    try:
        return json.dumps(value, sort_keys=True, ensure_ascii=False, indent=indent, allow_nan=False)
    except ValueError as error:
        raise ArtifactError(
            f"numbers in {what} must be finite, got NaN or infinity; "
            "leave the number out or write null"
        ) from error


def json_bytes(value: Mapping[str, JsonValue], *, what: str) -> bytes:
    """Return one JSON object as a file's content; the same value gives the same bytes."""
    return (dump_json(value, what=what, indent=2) + "\n").encode()


def write_json(path: Path, value: Mapping[str, JsonValue]) -> None:
    """Write one JSON object."""
    path.write_bytes(json_bytes(value, what=path.name))


def read_json(path: Path, *, what: str) -> dict[str, JsonValue]:
    """Read one JSON object; an `ArtifactError` names the file when it is missing or damaged."""
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise ArtifactError(
            f"{what} must be a JSON file, got no file at {path}; make it again"
        ) from error
    return parse_json(data, what=what, name=str(path))


def parse_json(data: bytes, *, what: str, name: str) -> dict[str, JsonValue]:
    """Return the JSON object in the content of the file `name`."""
    try:
        value = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ArtifactError(
            f"{what} must be valid JSON, got a damaged file {name} ({error}); make it again"
        ) from error
    if not isinstance(value, dict):
        raise ArtifactError(
            f"{what} must be a JSON object, got {type(value).__name__} in {name}; make it again"
        )
    return value


def sealed_json(value: Mapping[str, JsonValue], *, what: str) -> bytes:
    """Return one JSON object with the sha256 of its content, for `open_sealed`."""
    content = dump_json(value, what=what)
    return json_bytes({"content": content, "sha256": _sha256(content)}, what=what)


def open_sealed(data: bytes, *, what: str, name: str) -> dict[str, JsonValue]:
    """Return what `sealed_json` was given.

    Raises:
        ArtifactError: a byte of the file `name` is another than was written.
    """
    match parse_json(data, what=what, name=name):
        case {"content": str(content), "sha256": str(digest)} if digest == _sha256(content):
            return parse_json(content.encode(), what=what, name=name)
    raise ArtifactError(f"{what} must have its own sha256, got another in {name}; make it again")


def _sha256(content: str) -> str:
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()


def _canonical(value: object, what: str) -> JsonValue:
    if isinstance(value, enum.Enum):
        return _canonical(value.value, what)
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return _canonical_float(value, what)
    if isinstance(value, Mapping):
        return {_text_key(k, what): _canonical(v, f"{what}.{k}") for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_canonical(v, f"{what}[{i}]") for i, v in enumerate(value)]
    if isinstance(value, set | frozenset):
        return sorted((_canonical(v, what) for v in value), key=json.dumps)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value)]
        return {name: _canonical(getattr(value, name), f"{what}.{name}") for name in names}
    raise ConfigError(
        f"{what} must be made of numbers, text, lists and dicts to be part of a key, "
        f"got {type(value).__name__}; pass its content or its content_hash"
    )


def _canonical_float(value: float, what: str) -> int | float:
    if not math.isfinite(value):
        raise ConfigError(f"{what} must be finite, got {value}; choose a number")
    # A field typed float may be given 1 or 1.0; both mean the same run.
    return int(value) if value.is_integer() and abs(value) < _LARGEST_EXACT_INT else value


def _text_key(key: object, what: str) -> str:
    if not isinstance(key, str):
        raise ConfigError(f"keys of {what} must be text, got {key!r}; name the field")
    return key
