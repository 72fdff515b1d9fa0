"""Names that others chose: `subject_name` tells subjects apart, `printable` shows people a name."""

import hashlib
import unicodedata

from dreambooth3d.pairs.letters import is_hidden, one_line, spelled_out

_MOST_SHOWN = 160
_DIGEST_LETTERS = 12


def subject_name(name: str) -> str:
    """Return the whole name of a subject, on one line in NFC; of its own it makes the same again.

    Names that look alike are one: accents encoded in two ways, kinds of spaces, invisible letters.
    Bytes that are no text tell names apart, so they are spelled out. Empty only for no name.
    """
    text = "".join(spelled_out(c) if "\ud800" <= c <= "\udfff" else c for c in name)
    # Letters that stood apart may compose once an invisible one between them is gone.
    seen = unicodedata.normalize("NFC", one_line(unicodedata.normalize("NFC", text)))
    if seen:
        return seen
    # Nothing to see: all letters are spelled out, but for spaces, which may stand between them.
    spelled = "".join(map(spelled_out, name))
    return one_line(spelled) or spelled


def printable(name: str) -> str:
    r"""Show a name in visible letters: a newline is ``\n``, a byte that is no text ``\udcff``.

    Names that look alike are shown alike; long ones are cut and end in a hash of the whole.
    """
    text = "".join(map(_shown, unicodedata.normalize("NFC", name)))
    if len(text) <= _MOST_SHOWN:
        return text
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGEST_LETTERS]
    return f"{text[:_MOST_SHOWN]}~{digest}"


def _shown(letter: str) -> str:
    is_odd_space = letter.isspace() and letter != " "
    return spelled_out(letter) if letter == "\\" or is_odd_space or is_hidden(letter) else letter
