"""A catalogue: many subjects in one table, in one folder, or behind a URL.

| form                     | what it is                                                          |
|--------------------------|---------------------------------------------------------------------|
| ``.csv``                 | a header, UTF-8, a row a subject; ``prompts`` are separated by ``|``|
| ``.parquet``             | the same columns; ``prompts`` may be a list of text                 |
| ``.jsonl``, ``.ndjson``  | an object a line, with the same fields                              |
| a folder                 | subject folders, see `artifacts.subject`; or one of them            |

Columns ``subject, class_noun, images`` are required, ``references, trigger, prompts, steps, seed,
priority`` optional. ``images`` is a folder (see `find_views`) or a glob, relative to the folder of
the table; ``references`` a folder, by default ``references/`` beside the images.
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dreambooth3d.artifacts.subject import Problem, Subject, check_images, read_subject
from dreambooth3d.artifacts.subject_rows import (
    COLUMNS,
    OPTIONAL_COLUMNS,
    REQUIRED_COLUMNS,
    Row,
    SubjectTable,
    parse_rows,
)
from dreambooth3d.artifacts.table import read_table
from dreambooth3d.errors import Dreambooth3dError, InputError

_METADATA_NAME = "metadata.json"


def read_catalogue(path: Path) -> SubjectTable:
    """Read a catalogue of any form; a bad row becomes problems and the other rows go on.

    Raises:
        InputError: It is missing, empty, or no catalogue as a whole.
    """
    return read_subjects_folder(path) if path.is_dir() else parse_rows(read_rows(path), path.parent)


def read_rows(path: Path) -> tuple[Row, ...]:
    """Read the rows of a table, whatever its form, before they are understood.

    Raises:
        InputError: The file is missing, empty, of no known form, or its columns cannot be used.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise InputError(
            f"a catalogue must be a folder or one of {', '.join(TABLE_SUFFIXES)}, got {path}; "
            "check the path, or rename or convert it"
        )
    if not path.is_file():
        raise InputError(f"a catalogue must be a file, got nothing at {path}; check the path")
    rows = tuple(reader(path))
    if not rows:
        raise InputError(f"a catalogue must have a row, got none in {path}; add one")
    return rows


def check_catalogue(table: SubjectTable) -> SubjectTable:
    """Decode every picture once; a subject with a bad one joins the problems."""
    good: list[Subject] = []
    problems = list(table.problems)
    for subject in table.subjects:
        row, line = table.places[subject.id]
        found = [replace(problem, row=row, line=line) for problem in check_images(subject)]
        problems += found
        if not found:
            good.append(subject)
    problems.sort(key=lambda problem: problem.row or 0)
    return replace(table, subjects=tuple(good), problems=tuple(problems))


def read_subjects_csv(path: Path) -> SubjectTable:
    """Read a CSV of subjects, whatever its name, UTF-8 with or without BOM.

    Raises:
        InputError: The file is missing, empty or not UTF-8, or its header cannot be used.
    """
    return parse_rows(_csv_rows(path), path.parent)


def read_subjects_folder(folder: Path) -> SubjectTable:
    """Read every subject folder in a folder, sorted by name; or the one that it is itself.

    Raises:
        InputError: There is none.
    """
    homes = [folder] if (folder / _METADATA_NAME).is_file() else _folders_in(folder)
    if not homes:
        raise InputError(
            f"a folder of subjects must hold a folder for each, got none in {folder}; "
            "put each subject's pictures and metadata.json in a folder of its own"
        )
    subjects: list[Subject] = []
    problems: list[Problem] = []
    places: dict[str, tuple[int, int | None]] = {}
    for number, home in enumerate(homes, start=1):
        try:
            subject = read_subject(home)
        except (Dreambooth3dError, UnicodeDecodeError) as error:
            problems.append(Problem(row=number, field=home.name, sentence=str(error)))
            continue
        if subject.id in places:
            sentence = f"id must be unique, got {subject.id!r} again in {home}; rename it"
            problems.append(Problem(row=number, field=home.name, sentence=sentence))
            continue
        subjects.append(subject)
        places[subject.id] = (number, None)
    return SubjectTable(subjects=tuple(subjects), problems=tuple(problems), places=places)


def _folders_in(folder: Path) -> list[Path]:
    found = (path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    return sorted(found)


def _csv_rows(path: Path) -> Iterator[Row]:
    columns, rows = read_table(
        path, what="subjects CSV", required=REQUIRED_COLUMNS, optional=OPTIONAL_COLUMNS
    )
    for number, (line, cells) in enumerate(rows, start=1):
        yield _csv_row(number, line, columns, cells)


def _csv_row(number: int, line: int, columns: list[str], cells: list[str]) -> Row:
    if len(cells) <= len(columns):
        return Row(number=number, line=line, cells=dict(zip(columns, cells, strict=False)))
    sentence = (
        f"row must have at most {len(columns)} cells, got {len(cells)}; "
        "put text that contains commas in double quotes"
    )
    return _bad_row(number, line, "row", sentence)


def _parquet_rows(path: Path) -> Iterator[Row]:
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise InputError(
            f"a catalogue must be a readable Parquet file, got {path} ({error}); export it again"
        ) from error
    _check_columns(table.column_names, path)
    for number, row in enumerate(table.to_pylist(), start=1):
        yield _value_row(number, None, row)


def _jsonl_rows(path: Path) -> Iterator[Row]:
    try:
        lines = path.read_bytes().decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise InputError(
            f"a catalogue must be UTF-8, got other bytes in {path} at byte {error.start}; "
            "save it as UTF-8"
        ) from error
    rows = [(line, text) for line, text in enumerate(lines, start=1) if text.strip()]
    for number, (line, text) in enumerate(rows, start=1):
        yield _json_row(number, line, text)


def _check_columns(names: list[str], path: Path) -> None:
    unknown = [name for name in names if name not in COLUMNS]
    missing = [name for name in REQUIRED_COLUMNS if name not in names]
    if unknown or missing:
        raise InputError(
            f"columns must be {', '.join(REQUIRED_COLUMNS)} and may be "
            f"{', '.join(OPTIONAL_COLUMNS)}, got unknown {unknown} and no {missing} in {path}; "
            "rename them"
        )


def _json_row(number: int, line: int, text: str) -> Row:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        return _bad_row(
            number, line, "row", f"row must be one JSON object, got {error}; correct the line"
        )
    if not isinstance(found, dict):
        kind = type(found).__name__
        return _bad_row(
            number, line, "row", f"row must be one JSON object, got {kind}; write {{...}}"
        )
    return _value_row(number, line, found)


def _value_row(number: int, line: int | None, row: Mapping[str, Any]) -> Row:
    """A row of typed values becomes the text that a CSV would have held."""
    cells: dict[str, str] = {}
    problems: list[Problem] = []

    def add(field: str, sentence: str) -> None:
        problems.append(Problem(row=number, line=line, field=field, sentence=sentence))

    for name, value in row.items():
        if name not in COLUMNS:
            add(name, f"field must be one of {', '.join(COLUMNS)}, got {name!r}; rename it")
            continue
        text = _as_text(value, is_list=name == "prompts")
        if text is None:
            add(name, f"{name} must be text or a number, got {value!r}; correct it")
        else:
            cells[name] = text
    return Row(number=number, line=line, cells=cells, problems=tuple(problems))


def _as_text(value: object, *, is_list: bool) -> str | None:
    """What a CSV cell would say; None for what no cell can."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    if is_list and isinstance(value, list) and all(isinstance(text, str) for text in value):
        return "|".join(value)
    return None


def _bad_row(number: int, line: int | None, field: str, sentence: str) -> Row:
    problem = Problem(row=number, line=line, field=field, sentence=sentence)
    return Row(number=number, line=line, cells={}, problems=(problem,))


_READERS = {
    ".csv": _csv_rows,
    ".parquet": _parquet_rows,
    ".pq": _parquet_rows,
    ".jsonl": _jsonl_rows,
    ".ndjson": _jsonl_rows,
}
TABLE_SUFFIXES = tuple(_READERS)
