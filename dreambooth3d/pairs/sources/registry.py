"""Sources by name: ``scenes``, ``captures:photos/``, ``subjects200k:s3://bucket/data``."""

from collections.abc import Mapping
from dataclasses import fields
from types import NoneType, UnionType
from typing import Any, Literal, Union, cast, get_args, get_origin, get_type_hints

from dreambooth3d.artifacts.place import Place
from dreambooth3d.errors import ConfigError
from dreambooth3d.pairs.records import Source
from dreambooth3d.pairs.sources.captures import CapturesSource
from dreambooth3d.pairs.sources.scenes import ScenesSource
from dreambooth3d.pairs.sources.subjects200k import Subjects200KSource
from dreambooth3d.pairs.sources.webdataset import WebDatasetSource

KINDS = ("scenes", "subjects200k", "captures", "meshes", "webdataset")
_PLACE = "place"
_SCALARS = (int, float, str, bool, NoneType)


def parse_source(text: str, settings: Mapping[str, object] | None = None) -> Source:
    """Make a source of ``kind`` or ``kind:address``.

    Args:
        text: the address is a local path or a URL, see `Place.parse`.
        settings: of the source; those left out keep their defaults. Places are given as text.

    Raises:
        ConfigError: the kind, a setting or its value is unknown.
        InputError: the address is no place.
    """
    kind, mark, address = text.partition(":")
    made = source_class(kind)
    known = setting_types(kind)
    given = dict(settings or {})
    if unknown := [name for name in given if name not in known]:
        raise ConfigError(
            f"settings of {kind} must be among {', '.join(known)}, got {', '.join(unknown)}; "
            "leave them out"
        )
    values = {name: _value(f"{kind}.{name}", value, known[name]) for name, value in given.items()}
    needs_place = any(item.name == _PLACE for item in fields(made))
    if needs_place != bool(address) or bool(mark) != bool(address):
        raise ConfigError(
            f"source {kind} must {'have an address' if needs_place else 'stand alone'}, "
            f"got {text!r}; write {kind}{':photos/' if needs_place else ''}"
        )
    if needs_place:
        values[_PLACE] = Place.parse(address)
    return cast(Source, made(**values))


def source_class(kind: str) -> Any:
    """Return the class of a kind; what only one kind needs is imported with it."""
    classes = {
        source.name: source
        for source in (ScenesSource, CapturesSource, Subjects200KSource, WebDatasetSource)
    }
    if kind == "meshes":
        from dreambooth3d.pairs.sources.meshes import MeshesSource

        return MeshesSource
    if kind not in classes:
        raise ConfigError(
            f"source must be one of {', '.join(KINDS)}, got {kind!r}; write for example "
            "captures:photos/"
        )
    return classes[kind]


def setting_types(kind: str) -> dict[str, Any]:
    """Return name and type of every setting that can be given, in order."""
    made = source_class(kind)
    hints = get_type_hints(made)
    return {
        item.name: hints[item.name]
        for item in fields(made)
        if item.name != _PLACE and set(_options(hints[item.name])) <= {*_SCALARS, Place}
    }


def _options(kind: Any) -> tuple[Any, ...]:
    """The types a value may have: those of a union, and that of a `Literal`'s values."""
    if get_origin(kind) in (Union, UnionType):
        return tuple(option for part in get_args(kind) for option in _options(part))
    if get_origin(kind) is Literal:
        return tuple(type(choice) for choice in get_args(kind))
    return (kind,)


def _value(name: str, value: object, kind: Any) -> object:
    options = _options(kind)
    if Place in options and isinstance(value, str):
        return Place.parse(value)
    if type(value) in options or (float in options and type(value) is int):
        return value
    expected = " or ".join("nothing" if o is NoneType else o.__name__ for o in options)
    raise ConfigError(f"{name} must be {expected}, got {value!r}; correct it")
