"""Words of others that are kept with a sample: whole, on one line, safe to store and to show."""

import json
import unicodedata

from dreambooth3d.artifacts.jsonfile import JsonValue
from dreambooth3d.pairs.letters import is_hidden, spelled_out


def whole_words(text: str) -> str:
    r"""Bring a text onto one line and lose none of it; written again, it stays the same.

    White space becomes one space; what cannot be seen is spelled out, as ``\x07``. A name that is
    only shown may be cut, see `printable`; who must be named, and the terms, may not.
    """
    normal = unicodedata.normalize("NFC", " ".join(text.split()))
    return "".join(map(_visible, normal))


def words_of(value: JsonValue) -> str:
    """Take a value of a JSON record as words, see `text_of`."""
    return whole_words(text_of(value))


def text_of(value: JsonValue) -> str:
    """Take a value of a JSON record as text: numbers too, since 42 is a name; null is none."""
    match value:
        case None | [] | {}:
            return ""
        case str():
            return value
        # Tables turn whole numbers into these as soon as one is missing.
        case float() if value.is_integer():
            return str(int(value))
        case _:
            return json.dumps(value, sort_keys=True, ensure_ascii=False)


def _visible(letter: str) -> str:
    return spelled_out(letter) if is_hidden(letter) else letter
