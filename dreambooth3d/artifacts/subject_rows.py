"""Rows of a catalogue become subjects, or problems that name the row and the field."""

import glob
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from dreambooth3d.artifacts.image import IMAGE_SUFFIXES, is_picture, list_images, natural_order
from dreambooth3d.artifacts.subject import (
    DEFAULT_TRIGGER,
    Problem,
    Subject,
    check_id,
    check_words,
    find_views,
    parse_prompt,
)
from dreambooth3d.errors import InputError

REQUIRED_COLUMNS = ("subject", "class_noun", "images")
OPTIONAL_COLUMNS = ("references", "trigger", "prompts", "steps", "seed", "priority")
COLUMNS = (*REQUIRED_COLUMNS, *OPTIONAL_COLUMNS)


@dataclass(frozen=True, kw_only=True)
class SubjectTable:
    """The rows of a catalogue that can be used, and what is wrong with the others.

    Attributes:
        subjects: Usable rows, in order.
        problems: What is wrong with the others.
        places: (row, line) of each usable subject, by id; the line is None where there are none.
    """

    subjects: tuple[Subject, ...]
    problems: tuple[Problem, ...]
    places: Mapping[str, tuple[int, int | None]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row before it is understood.

    Attributes:
        number: The first is 1.
        line: In the file; None where it has none.
        cells: Text by column; columns that are not there count as empty.
        problems: What was wrong already when it was read: then the cells are not looked at.
    """

    number: int
    line: int | None
    cells: Mapping[str, str]
    problems: tuple[Problem, ...] = ()


def parse_rows(rows: Iterable[Row], folder: Path) -> SubjectTable:
    """Understand every row; a bad one becomes problems and the others go on.

    Args:
        rows: In order.
        folder: Where relative paths start.
    """
    subjects: list[Subject] = []
    problems: list[Problem] = []
    first_rows: dict[str, int] = {}
    places: dict[str, tuple[int, int | None]] = {}
    for row in rows:
        found = _Parser(number=row.number, line=row.line, folder=folder, problems=[])
        found.problems.extend(row.problems)
        subject = None if row.problems else found.parse(row.cells, first_rows)
        problems += found.problems
        if subject is not None:
            subjects.append(subject)
            places[subject.id] = (row.number, row.line)
    return SubjectTable(subjects=tuple(subjects), problems=tuple(problems), places=places)


@dataclass(frozen=True, kw_only=True)
class _Parser:
    """One row while it is parsed; problems are collected, so that a user sees all at once."""

    number: int
    line: int | None
    folder: Path
    problems: list[Problem]

    def parse(self, cells: Mapping[str, str], first_rows: dict[str, int]) -> Subject | None:
        row = dict.fromkeys(COLUMNS, "") | dict(cells)
        self.check_identity(row, first_rows)
        trigger = row["trigger"] or DEFAULT_TRIGGER
        self.attempt("trigger", lambda: check_words("trigger", trigger))
        images, references = self.find(row)
        steps = self.whole_number("steps", row["steps"], least=1)
        seed = self.whole_number("seed", row["seed"], least=0)
        priority = self.whole_number("priority", row["priority"], least=0)
        prompts = tuple(text.strip() for text in row["prompts"].split("|") if text.strip())
        noun = row["class_noun"]
        for prompt in prompts:
            check = partial(parse_prompt, prompt, class_noun=noun, trigger=trigger)
            self.attempt("prompts", check)
        if self.problems:
            return None
        return Subject(
            id=row["subject"],
            class_noun=noun,
            images=images,
            references=references,
            trigger=trigger,
            prompts=prompts,
            steps=steps,
            seed=seed,
            priority=priority or 0,
        )

    def add(self, field: str, sentence: str) -> None:
        self.problems.append(
            Problem(row=self.number, line=self.line, field=field, sentence=sentence)
        )

    def attempt(self, field: str, check: Callable[[], object]) -> None:
        try:
            check()
        except InputError as error:
            self.add(field, str(error))

    def check_identity(self, row: Mapping[str, str], first_rows: dict[str, int]) -> None:
        name = row["subject"]
        self.attempt("subject", lambda: check_id(name))
        self.attempt("class_noun", lambda: check_words("class_noun", row["class_noun"]))
        first = first_rows.setdefault(name, self.number)
        if name and first != self.number:
            self.add(
                "subject",
                f"subject must be unique, got {name!r} again after row {first}; rename it",
            )

    def find(self, row: Mapping[str, str]) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
        try:
            return self.views(row)
        except (OSError, ValueError) as error:
            self.add("images", f"images must be a path that exists, got {error}; correct the cell")
            return (), ()

    def views(self, row: Mapping[str, str]) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
        images, references = _find_images(self.folder, row["images"])
        if not images:
            self.add(
                "images",
                "images must be a folder or glob with pictures "
                f"({', '.join(sorted(IMAGE_SUFFIXES))}), got {row['images']!r}; "
                "relative paths start at the folder of the catalogue",
            )
        if row["references"]:
            references = list_images(self.folder / row["references"])
            if not references:
                self.add(
                    "references",
                    f"references must be a folder with pictures, got {row['references']!r}; "
                    "leave the cell empty to do without",
                )
        return images, references

    def whole_number(self, field: str, text: str, *, least: int) -> int | None:
        if not text:
            return None
        if re.fullmatch(r"[0-9]{1,18}", text) and int(text) >= least:
            return int(text)
        self.add(
            field,
            f"{field} must be a whole number of at least {least}, got {text!r}; correct it",
        )
        return None


def _find_images(folder: Path, pattern: str) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    if not pattern:
        return (), ()
    place = folder / pattern
    if place.is_dir() or not glob.has_magic(pattern):
        return find_views(place)
    found = (Path(name) for name in glob.glob(str(place), recursive=True))  # noqa: PTH207
    images = tuple(sorted(filter(is_picture, found), key=natural_order))
    homes = {image.parent for image in images}
    beside = list_images(homes.pop().parent / "references") if len(homes) == 1 else ()
    return images, beside
