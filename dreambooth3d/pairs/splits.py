"""Which subjects are trained on: a split by subject, never by picture, and a blocklist."""

import csv
import hashlib
import io
import re
import unicodedata
from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from dreambooth3d.errors import ConfigError, InputError
from dreambooth3d.vision.refusal import RefusedError

Split: TypeAlias = Literal["train", "held_out"]
HELD_OUT: Split = "held_out"

_COLUMN = "subject"
_ANY_END = "*"
# Spreadsheets divide the cells of a table by any of these.
_DIVIDERS = (",", ";", "\t")
_BETWEEN_WORDS = re.compile(r"[\s_\-\u2010-\u2015]+")


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
    digest = hashlib.sha256(f"split/{seed}/{folded_name(subject)}".encode()).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64
    return "held_out" if place < held_out_share else "train"


@dataclass(frozen=True, kw_only=True)
class Blocklist:
    """Subjects that must not be in a corpus, such as those of an evaluation.

    Upper and lower case make no difference, nor does the way accents are encoded; spaces, `_` and
    `-` are alike. A name that is a path is also known by its last part.

    Attributes:
        subjects: ids.
        prefixes: beginnings of ids.
    """

    subjects: frozenset[str] = frozenset()
    prefixes: tuple[str, ...] = ()
    _written: dict[str, str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not all(map(folded_name, (*self.subjects, *self.prefixes))):
            raise ConfigError(
                "entries of a blocklist must be words, got an empty one; it would match everything"
            )
        whole = {_loose_name(name): name for name in sorted(self.subjects)}
        begun = {_loose_beginning(name): name + _ANY_END for name in sorted(self.prefixes)}
        object.__setattr__(self, "subjects", frozenset(whole))
        object.__setattr__(self, "prefixes", tuple(sorted(begun)))
        starred = {name + _ANY_END: entry for name, entry in begun.items()}
        object.__setattr__(self, "_written", whole | starred)

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
        return bool(self.entry_for(subject))

    def entry_for(self, name: str) -> str:
        """Return the entry that names a subject, as it was written, or nothing."""
        for known in map(_loose_name, (name, name.rpartition("/")[2])):
            if known in self.subjects:
                return self._written[known]
            for beginning in self.prefixes:
                if known.startswith(beginning):
                    return self._written[beginning + _ANY_END]
        return ""

    def check(self, subject: str, aliases: Iterable[str] = ()) -> None:
        """Refuse a subject that the list names.

        Args:
            subject: its id.
            aliases: other names of it.

        Raises:
            BlockedError: `blocklisted`.
        """
        for name in (subject, *aliases):
            if entry := self.entry_for(name):
                raise BlockedError(subject, entry)

    def remarks(self, used: Set[str]) -> Iterator[str]:
        """Tell of entries, as they were written, that are not among those used."""
        if idle := sorted({*self._written.values()} - used):
            yield (
                f"blocklist entries that match no subject {len(idle)} of {len(self._written)}, "
                f"such as {idle[0]!r}: check their spelling if it should be here"
            )


class BlockedError(RefusedError):
    """A subject on the blocklist.

    Attributes:
        entry: that names it, as it was written.
    """

    def __init__(self, subject: str, entry: str) -> None:
        super().__init__(
            "blocklisted",
            f"subject must not be on the blocklist, got {subject!r} (listed as {entry!r}); "
            "take it off the list to use it",
        )
        self.entry = entry


def read_blocklist(path: Path) -> Blocklist:
    """Read a text file of subjects, or a CSV table with a column `subject`.

    The header may be in any case of letters, cells be divided by commas, semicolons or tabs. In
    text, one id a line; an id that ends in `*` blocks all that begin like it; what follows `#` is a
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
        divider = _divider(lines[0]) if lines else ""
        entries = _column(lines, divider, where) if divider else [*map(str.strip, lines)]
    except csv.Error as error:
        raise InputError(
            f"blocklist must be lines or a CSV table, got an error in {where} ({error}); correct it"
        ) from error
    if not entries:
        raise InputError(
            f"blocklist must name a subject, got none in {where}; write one a line or leave it out"
        )
    for entry in entries:
        if _ANY_END in entry[:-1] or not folded_name(entry.removesuffix(_ANY_END)):
            raise InputError(
                f"entry of a blocklist must be a subject, or its beginning and a final '*', "
                f"got {entry!r} in {where}; correct it"
            )
    return Blocklist.of(entries)


def _without_comment(line: str) -> str:
    words = line.strip()
    # A tab at the beginning is an empty cell.
    return "" if not words or words.startswith("#") else line.partition(" #")[0].strip(" ")


def _cells(lines: Iterable[str], divider: str) -> list[list[str]]:
    rows = csv.reader(io.StringIO("\n".join(lines)), delimiter=divider)
    return [[cell.strip() for cell in row] for row in rows]


def _header(first_line: str, divider: str) -> list[str]:
    return [cell.casefold() for cell in _cells([first_line], divider)[0]]


def _divider(first_line: str) -> str:
    """Return what divides the cells of a table, or nothing where there is none."""
    found = (divider for divider in _DIVIDERS if _COLUMN in _header(first_line, divider))
    return next(found, "")


def _column(lines: list[str], divider: str, where: str) -> list[str]:
    column = _header(lines[0], divider).index(_COLUMN)
    _, *rows = _cells(lines, divider)
    found = [row[column] for row in rows if len(row) > column and row[column]]
    if len(found) < sum(1 for row in rows if row):
        raise InputError(
            f"every row of a blocklist must have a {_COLUMN}, got one without in {where}; add it"
        )
    return found


def folded_name(name: str) -> str:
    """Return the one spelling under which subjects are the same."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    seen = "".join(c for c in folded if unicodedata.category(c) != "Cf")
    # Names of files may hold bytes that are no text; they must still have a place.
    return " ".join(seen.split()).encode("utf-8", "backslashreplace").decode()


def _loose_name(name: str) -> str:
    """Return the spelling under which a name is looked for in a blocklist."""
    folded = folded_name(name)
    return _BETWEEN_WORDS.sub(" ", folded).strip() or folded


def _loose_beginning(name: str) -> str:
    """The same of a beginning, where `duck-` is no `duckling`."""
    folded = folded_name(name)
    return _BETWEEN_WORDS.sub(" ", folded).lstrip() or folded
