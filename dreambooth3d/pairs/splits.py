"""Which subjects are trained on: a split by subject, never by picture, and a blocklist."""

import csv
import hashlib
import io
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from dreambooth3d.errors import ConfigError, InputError
from dreambooth3d.vision.refusal import RefusedError

Split: TypeAlias = Literal["train", "held_out"]
HELD_OUT: Split = "held_out"

_COLUMN = "subject"
_ANY_END = "*"


def split_of(subject: str, held_out_share: float, seed: int) -> Split:
    """Return the split of all pairs of a subject.

    Depends on the three arguments alone, so a corpus that grows moves nobody, and a larger share
    keeps who was held out.

    Args:
        subject: its id.
        held_out_share: 0 to 1, of the subjects.
        seed: another one holds out others.
    """
    if not 0 <= held_out_share <= 1:
        raise ConfigError(f"held_out_share must be 0 to 1, got {held_out_share}; use 0.05")
    digest = hashlib.sha256(f"split/{seed}/{_folded(subject)}".encode()).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64
    return "held_out" if place < held_out_share else "train"


@dataclass(frozen=True, kw_only=True)
class Blocklist:
    """Subjects that must not be in a corpus, such as those of an evaluation.

    Upper and lower case make no difference, nor does the way accents are encoded.

    Attributes:
        subjects: ids.
        prefixes: beginnings of ids.
    """

    subjects: frozenset[str] = frozenset()
    prefixes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not all((*self.subjects, *self.prefixes)):
            raise ConfigError(
                "entries of a blocklist must be words, got an empty one; it would match everything"
            )
        object.__setattr__(self, "subjects", frozenset(map(_folded, self.subjects)))
        object.__setattr__(self, "prefixes", tuple(sorted(set(map(_folded, self.prefixes)))))

    @classmethod
    def of(cls, entries: Iterable[str]) -> "Blocklist":
        """Make a list of ids, and of beginnings that end in `*`."""
        known = list(entries)
        return cls(
            subjects=frozenset(e for e in known if not e.endswith(_ANY_END)),
            prefixes=tuple(e.removesuffix(_ANY_END) for e in known if e.endswith(_ANY_END)),
        )

    def fingerprint(self) -> str:
        """Hash what is blocked, 64 hex digits: part of the key of a corpus."""
        listed = repr((sorted(self.subjects), self.prefixes))
        return hashlib.sha256(listed.encode()).hexdigest()

    def is_blocked(self, subject: str) -> bool:
        """Say whether the list names a subject."""
        name = _folded(subject)
        return name in self.subjects or name.startswith(self.prefixes)

    def check(self, subject: str) -> None:
        """Refuse a subject that the list names.

        Raises:
            RefusedError: `blocklisted`.
        """
        if self.is_blocked(subject):
            raise RefusedError(
                "blocklisted",
                f"subject must not be on the blocklist, got {subject!r}; "
                "take it off the list to use it",
            )


def read_blocklist(path: Path) -> Blocklist:
    """Read a text file of subjects, or a CSV table with a column `subject`.

    One id a line; an id that ends in `*` blocks all that begin like it; what follows `#` is a
    comment, unless the `#` is inside a word. UTF-8 with or without BOM.

    Raises:
        InputError: missing, not UTF-8, without an entry, or a `*` elsewhere than at the end.
    """
    if not path.is_file():
        raise InputError(f"blocklist must be a file, got nothing at {path}; check the path")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"blocklist must be UTF-8, got other bytes in {path}; save it as UTF-8"
        ) from error
    return parse_blocklist(text, where=str(path))


def parse_blocklist(text: str, *, where: str) -> Blocklist:
    """Parse the text of a blocklist, see `read_blocklist`; `where` names it in errors."""
    lines = [line for line in map(_without_comment, text.splitlines()) if line]
    try:
        entries = _column(lines, where) if lines and _is_table(lines[0]) else lines
    except csv.Error as error:
        raise InputError(
            f"blocklist must be lines or a CSV table, got an error in {where} ({error}); correct it"
        ) from error
    if not entries:
        raise InputError(
            f"blocklist must name a subject, got none in {where}; write one a line or leave it out"
        )
    for entry in entries:
        if _ANY_END in entry[:-1] or entry == _ANY_END:
            raise InputError(
                f"entry of a blocklist must be a subject, or its beginning and a final '*', "
                f"got {entry!r} in {where}; correct it"
            )
    return Blocklist.of(entries)


def _without_comment(line: str) -> str:
    words = line.strip()
    return "" if words.startswith("#") else words.partition(" #")[0].strip()


def _cells(lines: Iterable[str]) -> list[list[str]]:
    rows = csv.reader(io.StringIO("\n".join(lines)))
    return [[cell.strip() for cell in row] for row in rows]


def _is_table(first_line: str) -> bool:
    return _COLUMN in _cells([first_line])[0]


def _column(lines: Iterable[str], where: str) -> list[str]:
    header, *rows = _cells(lines)
    column = header.index(_COLUMN)
    found = [row[column] for row in rows if len(row) > column and row[column]]
    if len(found) < sum(1 for row in rows if row):
        raise InputError(
            f"every row of a blocklist must have a {_COLUMN}, got one without in {where}; add it"
        )
    return found


def _folded(name: str) -> str:
    """Return the one spelling under which names are compared."""
    folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", name.strip()).casefold())
    # Names of files may hold bytes that are no text; they must still have a place.
    return folded.encode("utf-8", "backslashreplace").decode()
