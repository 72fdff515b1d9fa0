"""A catalogue behind a URL comes here: its table, and the pictures that its rows name."""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from dreambooth3d.artifacts.catalogue import TABLE_SUFFIXES, read_rows
from dreambooth3d.artifacts.image import IMAGE_SUFFIXES
from dreambooth3d.artifacts.key import publish_file
from dreambooth3d.artifacts.place import Place, PlacedFile
from dreambooth3d.errors import InputError

_SIDE_FILES = ("metadata.json", "prompt.txt")
_GLOB_MARKS = frozenset("*?[")


def bring_here(source: str, cache: Path) -> Path:
    """Return the catalogue as a local path; one behind a URL is copied below `cache` first.

    Files that are there with the same size and date are not copied again.

    Raises:
        InputError: The URL cannot be read.
    """
    place = Place.parse(source)
    if place.local_path is not None:
        return place.local_path
    home = cache / hashlib.sha256(place.url.encode()).hexdigest()[:16]
    if PurePosixPath(place.path).suffix.lower() not in TABLE_SUFFIXES:
        _mirror(place, home, (f for f in place.list() if _is_of_subject(f.name)))
        return home
    folder = place.parent
    table = [file for file in folder.list() if file.name == place.name]
    if not table:
        raise InputError(f"a catalogue must be a file, got nothing at {place.url}; check the URL")
    _copy(folder, home, table)
    for name in sorted(_folders_named(home / place.name)):
        below = folder / name if name else folder
        _mirror(below, home / name, (file for file in below.list() if _is_of_subject(file.name)))
    return home / place.name


def _folders_named(table: Path) -> set[str]:
    """Folders, relative to the table, that hold what its rows name; "" is the table's own."""
    found: set[str] = set()
    for row in read_rows(table):
        images, references = row.cells.get("images", ""), row.cells.get("references", "")
        if (parts := _plain_parts(images)) is not None:
            found.add("/".join(parts))
            found.add("/".join((*parts[:-1], "references")))
        if (beside := _plain_parts(references)) is not None:
            found.add("/".join(beside))
    return found


def _plain_parts(cell: str) -> tuple[str, ...] | None:
    """The parts of a relative path before its first wildcard; None when it leads out of here."""
    parts: list[str] = []
    if not cell or "\0" in cell:
        return None
    for part in PurePosixPath(cell).parts:
        if part in ("..", "/"):
            return None
        if _GLOB_MARKS & set(part):
            break
        parts.append(part)
    return tuple(parts)


def _is_of_subject(name: str) -> bool:
    path = PurePosixPath(name)
    return path.suffix.lower() in IMAGE_SUFFIXES or path.name in _SIDE_FILES


def _mirror(source: Place, home: Path, files: Iterable[PlacedFile]) -> None:
    """Copy files of subjects, and forget those that are there no more."""
    known = list(files)
    names = {home / file.name for file in known}
    for path in home.rglob("*"):
        if path.is_file() and _is_of_subject(path.name) and path not in names:
            path.unlink()
    _copy(source, home, known)


def _copy(source: Place, home: Path, files: Iterable[PlacedFile]) -> None:
    for file in files:
        # The division refuses names that lead out of the folder.
        far, near = source / file.name, home / file.name
        # A store that gives no dates tells nothing of changes.
        if file.mtime_ns and near.is_file() and _stamp(near) == (file.size, file.mtime_ns):
            continue
        with publish_file(near) as aside:
            aside.write_bytes(far.read_bytes())
            os.utime(aside, ns=(file.mtime_ns, file.mtime_ns))


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns
