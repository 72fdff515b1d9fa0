"""Which letters of a text people see: one answer for names, nouns, captions and pages."""

import unicodedata

# Format characters are invisible; these two join letters of Persian, Hindi and others.
JOINERS = frozenset("\u200c\u200d")
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def is_hidden(letter: str) -> bool:
    """Say whether a letter is invisible, reorders others, breaks the line or is no text."""
    return letter not in JOINERS and unicodedata.category(letter) in _HIDDEN


def spelled_out(letter: str) -> str:
    r"""Write a letter in ASCII, as in ``\n`` or ``\u202e``."""
    return letter.encode("unicode_escape").decode("ascii")


def one_line(text: str) -> str:
    """Return the letters people see, without joiners that join nothing; between words one space."""
    words = "".join(map(_seen, text)).split()
    return " ".join(word for word in words if not JOINERS.issuperset(word))


def _seen(letter: str) -> str:
    if unicodedata.category(letter) == "Cc" or letter.isspace():
        return " "
    return "" if is_hidden(letter) else letter
