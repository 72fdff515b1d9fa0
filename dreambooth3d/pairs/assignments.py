"""`name=value` texts: settings whose names depend on other settings."""

import json
from collections.abc import Sequence

from dreambooth3d.errors import ConfigError


def read_assignments(what: str, texts: Sequence[str]) -> dict[str, object]:
    """Read texts of `name=value`; a value is JSON where it can be, else it is text.

    Raises:
        ConfigError: a text is none, or a name comes twice; `what` is the setting it names.
    """
    found: dict[str, object] = {}
    for text in texts:
        name, mark, value = (part.strip() for part in text.partition("="))
        if not mark or not name or name in found:
            raise ConfigError(
                f"{what} must be name=value, each name once, got {text!r}; correct it"
            )
        found[name] = _value(value)
    return found


def _value(text: str) -> object:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
