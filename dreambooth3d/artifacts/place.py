"""A folder anywhere: on this machine, or below the URL of an object store.

`Place.parse` takes a local path, ``file://``, ``s3://bucket/prefix``, ``gs://bucket/prefix``,
``hf://datasets/owner/name``, or any other URL that fsspec has a file system for. Options of S3
stand in the query: ``s3://bucket/prefix?endpoint_override=host:9000&scheme=http&region=x``; keys
come from the environment, or from ``s3://key:secret@bucket``. No text this module makes holds them.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, BinaryIO, cast
from urllib.parse import unquote

from pyarrow import fs as arrow_fs

from dreambooth3d.artifacts.key import content_hash, link_or_copy, publish_file
from dreambooth3d.artifacts.store import connect, hide_keys, named_failures, with_options
from dreambooth3d.errors import ArtifactError, InputError

# Above this, a local folder is told from its earlier self by dates, which takes no reading.
_MOST_HASHED_BYTES = 1000**3
_STREAM_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class PlacedFile:
    """One file of a listing.

    Attributes:
        name: relative to the place listed, parts divided by ``/``; any other text is possible.
        size: bytes.
        mtime_ns: last change in nanoseconds since 1970; 0 where the store does not say.
    """

    name: str
    size: int
    mtime_ns: int


@dataclass(frozen=True, kw_only=True, repr=False)
class Place:
    """A folder or a file; holds no connection, so workers can have copies.

    Reading raises `InputError`, writing `ArtifactError`; both name the URL.

    Attributes:
        store: URL the file system is connected by, with its options; empty for this machine.
        path: within the store; absolute on this machine.
    """

    store: str = ""
    path: str

    @classmethod
    def parse(cls, text: str) -> "Place":
        """Understand a local path or a URL; a relative path starts at the working directory.

        Raises:
            InputError: the URL is of no known kind, or its options are wrong.
        """
        if not text.strip() or "\0" in text:
            raise InputError(f"place must be a path or a URL, got {text!r}; write one")
        scheme, mark, rest = text.partition("://")
        if not mark:
            return cls(path=os.path.abspath(Path(text).expanduser()))  # noqa: PTH100
        if scheme == "file":
            return cls(path=os.path.abspath(unquote("/" + rest.partition("/")[2])))  # noqa: PTH100
        store = with_options(text)
        with named_failures(hide_keys(text, text), store, "reachable", InputError):
            _, path = connect(store)
        return cls(store=store, path=path.rstrip("/"))

    def __truediv__(self, name: str) -> "Place":
        """The place of this relative name below; it cannot lead out of here."""
        parts = name.split("/")
        if "\0" in name or not {"", ".", ".."}.isdisjoint(parts):
            raise InputError(
                f"name below {self.url} must be relative, without '.', '..' or empty parts, "
                f"got {name!r}; rename the file"
            )
        return Place(store=self.store, path=f"{self.path.rstrip('/')}/{name}")

    def __str__(self) -> str:
        return self.url

    def __repr__(self) -> str:
        return f"Place({self.url})"

    @property
    def url(self) -> str:
        """What people call it: without keys and options."""
        if not self.store or "://" in self.path:
            # Some file systems take the whole URL for the path.
            return hide_keys(self.path, self.path)
        return f"{self.store.partition('://')[0]}://{self.path}"

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition("/")[2]

    @property
    def parent(self) -> "Place":
        """The folder this is in."""
        return Place(store=self.store, path=self.path.rpartition("/")[0] or "/")

    def is_within(self, other: "Place") -> bool:
        """Whether this is the other place, or below it."""
        home = other.path.rstrip("/")
        return self.store == other.store and f"{self.path.rstrip('/')}/".startswith(f"{home}/")

    @property
    def local_path(self) -> Path | None:
        """Where it is on this machine; None when it is elsewhere."""
        return None if self.store else Path(self.path)

    def exists(self) -> bool:
        """Whether there is a file or a folder; an object store has folders that hold something."""
        return self._type() is not arrow_fs.FileType.NotFound

    def is_file(self) -> bool:
        """Whether there is a file."""
        return self._type() is arrow_fs.FileType.File

    def read_bytes(self) -> bytes:
        """Read a whole file."""
        with self._reading(), self.stream() as file:
            return file.read()

    def sha256(self) -> str:
        """Hash a whole file, a megabyte at a time."""
        digest = hashlib.sha256()
        with self._reading(), self.stream() as file:
            while part := file.read(_STREAM_BYTES):
                digest.update(part)
        return digest.hexdigest()

    def read_at(self, offset: int, size: int) -> bytes:
        """Read `size` bytes from `offset`; less means that the file ends there."""
        with self._reading(), self.open() as file:
            # A buffer of `size` is taken before the end is found, so a large size is cut first.
            size = max(0, min(size, file.seek(0, os.SEEK_END) - offset))
            file.seek(offset)
            return file.read(size)

    def open(self) -> BinaryIO:
        """Open a file to read here and there; every read of an object store is a request."""
        with self._reading():
            if self.store:
                return cast(BinaryIO, self._remote().open_input_file(self.path))
            return Path(self.path).open("rb")

    def stream(self) -> BinaryIO:
        """Open a file to read it once from its start, with few requests."""
        with self._reading():
            if self.store:
                # Arrow would unpack by the name's ending unless told otherwise.
                stream = self._remote().open_input_stream(
                    self.path, compression=None, buffer_size=_STREAM_BYTES
                )
                return cast(BinaryIO, stream)
            return Path(self.path).open("rb")

    def write_bytes(self, data: bytes) -> None:
        """Write a whole file in one step: readers see the old one or the new one."""
        with self._writing():
            if self.store:
                with self._remote().open_output_stream(self.path, compression=None) as stream:
                    stream.write(data)
                return
            with publish_file(Path(self.path)) as aside:
                aside.write_bytes(data)

    def write_stream(self, parts: Iterable[bytes]) -> str:
        """Write a file piece by piece, seen when it is whole; return its sha256."""
        digest = hashlib.sha256()
        with self._writing(), self._appending() as file:
            for part in parts:
                file.write(part)
                digest.update(part)
        return digest.hexdigest()

    @contextmanager
    def _appending(self) -> Iterator[BinaryIO]:
        if self.store:
            # A stream that is closed half-way would be a file: it is sent when it is whole.
            with TemporaryFile() as whole:
                yield cast(BinaryIO, whole)
                whole.seek(0)
                with self._remote().open_output_stream(self.path, compression=None) as stream:
                    while part := whole.read(_STREAM_BYTES):
                        stream.write(part)
            return
        with publish_file(Path(self.path)) as aside, aside.open("wb") as file:
            yield file
            file.flush()

    def copy_to(self, target: "Place") -> None:
        """Copy this file; within one store the bytes do not travel, locally it is a link."""
        if self.store != target.store:
            target.write_bytes(self.read_bytes())
            return
        with target._writing():
            if self.store:
                self._remote().copy_file(self.path, target.path)
                return
            with publish_file(Path(target.path)) as aside:
                link_or_copy(Path(self.path), aside)

    def delete(self) -> None:
        """Delete a file; nothing happens when there is none."""
        with self._writing():
            if not self.store:
                Path(self.path).unlink(missing_ok=True)
                return
            try:
                self._remote().delete_file(self.path)
            except OSError:
                # After deleting, Arrow puts an empty marker for the folder, which some stores
                # refuse: the file is gone nevertheless.
                if self.is_file():
                    raise

    def list(self) -> tuple[PlacedFile, ...]:
        """List all files below, sorted by name; hidden ones too, empty when there is no folder."""
        with self._reading():
            found = self._list_store() if self.store else _walk(Path(self.path))
            return tuple(sorted(found, key=lambda file: file.name))

    def fingerprint(self, files: Sequence[PlacedFile]) -> str:
        """Hash names and sizes of `files`, and their content or, where that is far, their dates.

        Where the place is makes no difference, and on this machine dates neither, up to 1 GB.
        """
        is_hashed = not self.store and sum(file.size for file in files) <= _MOST_HASHED_BYTES
        digest = hashlib.sha256()
        for file in files:
            with self._reading():
                content = self._content(file) if is_hashed else file.mtime_ns
            digest.update(f"{file.name}\0{file.size}\0{content}\n".encode("utf-8", "surrogatepass"))
        return digest.hexdigest()

    def _content(self, file: PlacedFile) -> str:
        path = Path(self.path) / file.name
        return content_hash(path) if path.exists() else "leads nowhere"

    def _type(self) -> Any:
        with self._reading():
            if self.store:
                return self._remote().get_file_info(self.path).type
            kinds = arrow_fs.FileType
            path = Path(self.path)
            if path.is_file():
                return kinds.File
            return kinds.Directory if path.exists() else kinds.NotFound

    def _remote(self) -> Any:
        return connect(self.store)[0]

    def _list_store(self) -> Iterator[PlacedFile]:
        selector = arrow_fs.FileSelector(self.path, recursive=True, allow_not_found=True)
        for info in self._remote().get_file_info(selector):
            if info.type is arrow_fs.FileType.File:
                name = info.path.removeprefix(self.path).lstrip("/")
                yield PlacedFile(name=name, size=info.size or 0, mtime_ns=info.mtime_ns or 0)

    def _reading(self) -> AbstractContextManager[None]:
        return named_failures(self.url, self.store, "readable", InputError)

    def _writing(self) -> AbstractContextManager[None]:
        return named_failures(self.url, self.store, "writable", ArtifactError)


def _walk(folder: Path) -> Iterator[PlacedFile]:
    """Every file below; links to folders are followed, each folder is entered once."""
    seen: set[tuple[int, int]] = set()
    for home, folders, names in os.walk(folder, followlinks=True, onerror=_fail):
        status = Path(home).stat()
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders.sort()
        for path in (Path(home) / name for name in names):
            # A link that leads nowhere is listed, so that reading it fails where failures count.
            if path.is_file() or not path.exists():
                file = path.lstat() if path.is_symlink() and not path.exists() else path.stat()
                yield PlacedFile(
                    name=path.relative_to(folder).as_posix(),
                    size=file.st_size,
                    mtime_ns=file.st_mtime_ns,
                )


def _fail(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error
