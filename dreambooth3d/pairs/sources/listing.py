"""Files of a source: found in a fixed order, and read so that a broken one is told from a cut."""

import os
from collections.abc import Iterable
from pathlib import Path

from dreambooth3d.artifacts.place import Place, PlacedFile
from dreambooth3d.errors import InputError
from dreambooth3d.vision.refusal import Reason, RefusedError


def list_files(place: Place, suffix: str, *, what: str) -> tuple[Place, tuple[PlacedFile, ...]]:
    """Return a folder and its files of one kind; hidden ones not.

    Args:
        place: the folder, searched at every depth, or one file.
        suffix: such as ``.tar``, in lower case.
        what: name of the source in an error's text.

    Raises:
        InputError: there is no such file.
    """
    is_file = place.is_file()
    folder = place.parent if is_file else place
    files = tuple(
        file
        for file in folder.list()
        if file.name.lower().endswith(suffix)
        and not is_hidden(file.name)
        and (not is_file or file.name == place.name)
    )
    if not files:
        raise InputError(f"{what} must hold {suffix} files, got none at {place}; check the address")
    return folder, files


def place_files(folder: Place, names: Iterable[str]) -> tuple[PlacedFile, ...]:
    """Return what a listing says of some files, sorted; on this machine they may lie elsewhere."""
    wanted = frozenset(names)
    if folder.local_path is None:
        return tuple(file for file in folder.list() if file.name in wanted)
    sizes = {name: _status(folder.local_path / name) for name in sorted(wanted)}
    return tuple(
        PlacedFile(name=name, size=found.st_size, mtime_ns=found.st_mtime_ns)
        for name, found in sizes.items()
    )


def _status(path: Path) -> os.stat_result:
    """Of what a link leads to; of the link where it leads nowhere."""
    return path.stat() if path.exists() else path.lstat()


def locate(folder: Place, name: str) -> Place:
    """The place of a file that a plan names; on this machine it may lead out of the folder."""
    return folder / name if folder.local_path is None else Place(path=f"{folder.path}/{name}")


def is_hidden(name: str) -> bool:
    """Whether any part of a relative name starts with a dot."""
    return any(part.startswith(".") for part in name.split("/"))


def read_or_refuse(file: Place, *, reason: Reason, most_bytes: int) -> bytes:
    """Read a file of a source.

    Raises:
        RefusedError: this file is at fault: it is gone, locked or far too large.
        InputError: the store is at fault. Reading again may help, so nothing may be dropped.
    """
    try:
        data = file.read_at(0, most_bytes + 1)
    except InputError as error:
        is_there = file.exists()
        if is_there and file.local_path is None:
            raise
        found = "one that may not be read" if is_there else "a name that leads nowhere"
        raise RefusedError(reason, f"file must be readable, got {found}; restore it") from error
    if len(data) > most_bytes:
        raise RefusedError(
            reason, f"file must have at most {most_bytes} bytes, got more; make it smaller"
        )
    return data
