"""Names that others chose, as text that is safe to store and to show."""

import hashlib
import unicodedata

_MOST_LETTERS = 160
_DIGEST_LETTERS = 12


def printable(name: str) -> str:
    r"""Spell a name in visible characters: a newline is ``\n``, a byte that is no text ``\udcff``.

    Different names stay different; long ones are cut and end in a hash of the whole.
    """
    text = "".join(map(_visible, unicodedata.normalize("NFC", name)))
    # Two names may differ in normal form alone; they are two files on most systems.
    if len(text) <= _MOST_LETTERS and unicodedata.is_normalized("NFC", name):
        return text
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGEST_LETTERS]
    return f"{text[:_MOST_LETTERS]}~{digest}"


def _visible(letter: str) -> str:
    if letter.isprintable() and letter != "\\":
        return letter
    return letter.encode("unicode_escape").decode("ascii")
