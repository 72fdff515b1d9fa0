"""Where models lie: a place, and zip containers in it, read in memory and never above the root.

Nothing is extracted to disk. Every read has a limit in bytes, so that a zip bomb ends as a refusal.
"""

import lzma
import posixpath
import re
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from dreambooth3d.artifacts.place import Place
from dreambooth3d.errors import InputError
from dreambooth3d.pairs.sources.listing import read_or_refuse
from dreambooth3d.pairs.sources.origin import printable
from dreambooth3d.vision.refusal import RefusedError

MODEL_SUFFIXES = frozenset({".glb", ".gltf", ".obj"})
# What other programs save and nothing here reads: said by name, not passed over.
_FOREIGN_SUFFIXES = frozenset(
    {".stl", ".ply", ".fbx", ".dae", ".3ds", ".blend", ".usd", ".usda", ".usdc", ".usdz", ".off"}
)
CONTAINER_SUFFIXES = frozenset({".sh3f", ".zip"})

# What the zip module and its decompressors raise on damaged, locked or exotic members.
_ZIP_FAILURES = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    OSError,
    NotImplementedError,
    RuntimeError,
    ValueError,
)
_MAX_MEMBERS = 200_000


@dataclass(frozen=True, kw_only=True)
class ModelFile:
    """One model.

    Attributes:
        container: zip that holds it, relative to the source's place; empty for a plain file.
        name: of the file within the container or the place; empty when the container is broken.
    """

    container: str
    name: str

    @property
    def origin(self) -> str:
        """Name of the file from the source's place, through its container."""
        return "/".join(part for part in (self.container, self.name) if part)


class Files(Protocol):
    """Files below one root, by relative POSIX names."""

    def names(self) -> Sequence[str]:
        """List all files that are not hidden, sorted."""

    def read(self, name: str, max_bytes: int) -> bytes:
        """Read one file whole, or raise `RefusedError`."""


@dataclass(frozen=True, kw_only=True)
class PlaceFiles:
    """Files of a place."""

    place: Place

    def names(self) -> Sequence[str]:
        """List all files that are not hidden, sorted."""
        return [file.name for file in self.place.list() if not _is_hidden(file.name)]

    def read(self, name: str, max_bytes: int) -> bytes:
        """Read one file whole; links that lead out of a local folder are refused."""
        _require_inside(self.place, name)
        return read_or_refuse(self.place / name, reason="bad_mesh", most_bytes=max_bytes)


@dataclass(frozen=True, kw_only=True)
class ZipFiles:
    """Members of one open zip."""

    container: zipfile.ZipFile

    def names(self) -> Sequence[str]:
        """List all members that are not folders or hidden, sorted."""
        found = {info.filename for info in self.container.infolist() if not info.is_dir()}
        return sorted(name for name in found if not _is_hidden(name))

    def read(self, name: str, max_bytes: int) -> bytes:
        """Read one member whole; the limit holds whatever size its header says."""
        try:
            with self.container.open(name) as file:
                data = file.read(max_bytes + 1)
        except KeyError as error:
            raise RefusedError(
                "bad_mesh", f"file must be in its zip, got none named {printable(name)}; add it"
            ) from error
        except _ZIP_FAILURES as error:
            raise RefusedError(
                "bad_mesh",
                f"zip members must unpack, got a damaged or locked {printable(name)} ({error}); "
                "pack again",
            ) from error
        if len(data) > max_bytes:
            raise RefusedError(
                "bad_mesh", f"file must have at most {max_bytes} bytes, got more; make it smaller"
            )
        return data


@contextmanager
def open_files(place: Place, container: str) -> Iterator[Files]:
    """Give the files of the place or, with a name, of the zip in it.

    Raises:
        RefusedError: the container cannot be read.
        InputError: the place cannot be reached.
    """
    if not container:
        yield PlaceFiles(place=place)
        return
    _require_inside(place, container)
    with (place / container).open() as file:
        try:
            opened = zipfile.ZipFile(file)
        except _ZIP_FAILURES as error:
            raise RefusedError(
                "bad_mesh", f"container must be a zip, got a damaged one ({error}); copy it again"
            ) from error
        with opened:
            if len(opened.filelist) > _MAX_MEMBERS:
                raise RefusedError(
                    "bad_mesh",
                    f"container must have at most {_MAX_MEMBERS} members, "
                    f"got {len(opened.filelist)}; divide it",
                )
            yield ZipFiles(container=opened)


def list_models(place: Place) -> tuple[ModelFile, ...]:
    """List every model of a place and of the zips in it, in a fixed order.

    A container that cannot be opened is one model without a name.
    """
    models: list[ModelFile] = []
    for name in PlaceFiles(place=place).names():
        if _suffix(name) in MODEL_SUFFIXES:
            models.append(ModelFile(container="", name=name))
        elif _suffix(name) in CONTAINER_SUFFIXES:
            models.extend(ModelFile(container=name, name=inner) for inner in _members(place, name))
    return tuple(models)


def _members(place: Place, container: str) -> Sequence[str]:
    try:
        with open_files(place, container) as files:
            return [name for name in files.names() if _suffix(name) in MODEL_SUFFIXES]
    except RefusedError:
        # Said again, with its sentence, when the chunk is read: there it can be counted.
        return [""]


def resolve_reference(base: str, reference: str) -> str:
    """Name, from the root, the file that the file `base` mentions.

    Raises:
        RefusedError: it is absolute, a URL, or above the root.
    """
    text = reference.strip().replace("\\", "/")
    whole = posixpath.normpath(posixpath.join(posixpath.dirname(base), text))
    is_absolute = text.startswith(("/", "~")) or re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", text)
    if not text or "\0" in text or is_absolute or whole.split("/")[0] in (".", ".."):
        raise RefusedError(
            "bad_mesh",
            "file a model mentions must be relative and inside the source, "
            f"got {printable(reference)}; copy it beside the model",
        )
    return whole


def require_safe_name(name: str) -> None:
    """Refuse a model whose own name in a zip is absolute or climbs."""
    if not name or resolve_reference("", name) != name:
        raise RefusedError(
            "bad_mesh",
            f"model's name must be a plain relative path, got {printable(name)}; pack again",
        )


def _require_inside(place: Place, name: str) -> None:
    """Follow links of a local folder; where they lead must be inside, and a plain file."""
    root = place.local_path
    if root is None:
        return
    try:
        path = (root / name).resolve(strict=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise RefusedError(
            "bad_mesh", f"file must be there, got nothing at {printable(name)}; add it"
        ) from error
    if not path.is_relative_to(root.resolve()) or not path.is_file():
        raise RefusedError(
            "bad_mesh",
            "file must be a plain one inside the source's folder, "
            f"got a link or a device at {printable(name)}; copy the file",
        )


def require_models(models: Sequence[ModelFile], place: Place) -> None:
    """Raise `InputError` when a place has no model at all."""
    if not models:
        raise InputError(
            f"meshes must be GLB, glTF or OBJ files, or zips of them, got none in {place}; "
            "check the path"
        )


def _suffix(name: str) -> str:
    return posixpath.splitext(name)[1].lower()


def foreign_models(place: Place) -> list[str]:
    """Names of models beside the others that are of a kind nobody here reads."""
    names = PlaceFiles(place=place).names()
    return [name for name in names if _suffix(name) in _FOREIGN_SUFFIXES]


def _is_hidden(name: str) -> bool:
    # Archives made on a Mac hold a shadow of every file in `__MACOSX`.
    return any(
        part == "__MACOSX" or (part.startswith(".") and part.strip(".")) for part in name.split("/")
    )
