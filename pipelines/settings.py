"""`--set name=value` onto a typed, frozen config."""

import inspect
import re
import textwrap
from dataclasses import MISSING, fields, replace
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from dreambooth3d.errors import ConfigError

Config = TypeVar("Config")
_ASSIGNMENT = re.compile(r"[\w.]+=")
_WORDS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def settings_help(kind: type[Any]) -> str:
    """What `--set` takes of a config: its documented attributes, then their defaults."""
    _, _, told = inspect.getdoc(kind).partition("Attributes:\n")  # type: ignore[union-attr]
    told = textwrap.indent(textwrap.dedent(told), "  ")
    defaults = ", ".join(
        f"{field.name}={_written(field.default)}"
        for field in fields(kind)
        if field.init and field.default is not MISSING
    )
    shown = textwrap.fill(
        f"defaults: {defaults}", 100, initial_indent="  ", subsequent_indent="    ",
        break_on_hyphens=False,
    )  # fmt: skip
    return f"{told.rstrip()}\n{shown}"


def _written(value: Any) -> str:
    """A default as it would be given."""
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def apply_settings(config: Config, settings: list[str]) -> Config:
    """Return the config with every `name=value` applied and checked.

    Raises:
        ConfigError: a name is unknown, or a value does not fit its field.
    """
    changes: dict[str, Any] = {}
    hints = get_type_hints(type(config))
    known = [f.name for f in fields(config) if f.init]  # type: ignore[arg-type]
    for setting in settings:
        name, separator, text = setting.partition("=")
        if not separator:
            raise ConfigError(f"--set must be name=value, got {setting!r}; write --set steps=100")
        if name not in known:
            raise ConfigError(
                f"--set name must be one of {', '.join(known)}, got {name!r}; correct the name"
            )
        value = _parse(name, text, hints[name])
        # A list that is set again goes on: each of its entries may be a setting of its own.
        is_more = isinstance(value, tuple) and name in changes
        changes[name] = (*changes[name], *value) if is_more else value
    return replace(config, **changes)  # type: ignore[type-var]


def _parse(name: str, text: str, kind: Any) -> Any:
    if get_origin(kind) is Literal:
        if text not in get_args(kind):
            raise ConfigError(
                f"{name} must be one of {', '.join(map(str, get_args(kind)))}, got {text!r}; "
                "choose one"
            )
        return text
    if kind is bool:
        if text.lower() not in _WORDS:
            raise ConfigError(f"{name} must be true or false, got {text!r}; choose one")
        return _WORDS[text.lower()]
    if kind in (int, float):
        try:
            return kind(text)
        except ValueError as error:
            word = "a whole number" if kind is int else "a number"
            raise ConfigError(f"{name} must be {word}, got {text!r}; correct it") from error
    if get_origin(kind) is tuple:
        return tuple(_parse(name, part, get_args(kind)[0]) for part in _entries(text))
    return text


def _entries(text: str) -> list[str]:
    """Parts between commas; after `name=value` one without `=` belongs to that value."""
    found: list[str] = []
    for part in text.split(","):
        if found and _ASSIGNMENT.match(found[-1]) and not _ASSIGNMENT.match(part):
            found[-1] += f",{part}"
        else:
            found.append(part)
    return [part for part in found if part]
