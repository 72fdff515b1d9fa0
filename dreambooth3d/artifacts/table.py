"""CSV tables a user wrote: UTF-8 with or without BOM, any line ends, a header of known columns."""

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

from dreambooth3d.errors import InputError


def read_table(
    path: Path, *, what: str, required: Sequence[str], optional: Sequence[str]
) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Return the columns, and (line in the file, stripped cells) of every row that is not blank.

    Raises:
        InputError: The file is missing, empty, not UTF-8 or not CSV, or the header has a column
            that is unknown, repeated or missing.
    """
    rows = list(_rows(_read_text(path, what), path, what))
    columns = rows[0][1]
    _check_header(columns, path, required=required, optional=optional)
    if len(rows) == 1:
        raise InputError(f"{what} must have a row below its header, got none in {path}; add a row")
    return columns, rows[1:]


def _read_text(path: Path, what: str) -> str:
    if not path.is_file():
        raise InputError(f"{what} must be a file, got nothing at {path}; check the path")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{what} must be UTF-8, got other bytes in {path} ({error.reason} at byte "
            f"{error.start}); save it as 'CSV UTF-8'"
        ) from error
    if not text.strip(" \t\r\n,"):
        raise InputError(f"{what} must have a header, got an empty file {path}; fill it")
    return text


def _rows(text: str, path: Path, what: str) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    line = 1
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            if any(cells):
                yield line, cells
            # A quoted cell may span lines, so the next row starts after the last one read.
            line = reader.line_num + 1
    except csv.Error as error:
        raise InputError(
            f"{what} must be well-formed, got an error in line {line} of {path} ({error}); "
            "check the quotes"
        ) from error


def _check_header(
    columns: Sequence[str], path: Path, *, required: Sequence[str], optional: Sequence[str]
) -> None:
    known = (*required, *optional)
    wrong = [name for name in columns if name not in known or columns.count(name) > 1]
    if wrong:
        raise InputError(
            f"columns must be among {', '.join(known)}, each once, separated by commas, "
            f"got {', '.join(map(repr, wrong))} in {path}; rename or remove"
        )
    missing = [name for name in required if name not in columns]
    if missing:
        raise InputError(
            f"columns must include {', '.join(required)}, "
            f"got no {', '.join(missing)} in {path}; add it"
        )
