"""A folder anywhere: on this machine, or below the URL of an object store.

`Place.parse` takes a local path, ``file://``, ``s3://bucket/prefix``, ``gs://bucket/prefix``,
``hf://datasets/owner/name``, or any other URL that fsspec has a file system for. Options of S3
stand in the query: ``s3://bucket/prefix?endpoint_override=host:9000&scheme=http&region=x``; keys
come from the environment, or from ``s3://key:secret@bucket``. No text this module makes holds them.
"""

import hashlib
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, cast
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

import fsspec
import pyarrow as pa
from pyarrow import fs as arrow_fs

from dreambooth3d.artifacts.key import content_hash, link_or_copy, publish_file
from dreambooth3d.errors import ArtifactError, Dreambooth3dError, InputError

# Above this, a local folder is told from its earlier self by dates, which takes no reading.
_MOST_HASHED_BYTES = 4 * 1000**3
_STREAM_BYTES = 1 << 20
_GS_RETRY_SECONDS = "60"
_CHECKSUMS = "AWS_REQUEST_CHECKSUM_CALCULATION"
_FAILURES = (OSError, ValueError, pa.ArrowException, ImportError)
_environment_lock = threading.Lock()


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


@dataclass(frozen=True, kw_only=True)
class Place:
    """A folder or a file; holds no connection, so workers can have copies.

    Reading raises `InputError`, writing `ArtifactError`; both name the URL.

    Attributes:
        store: URL the file system is connected by, with its options; empty for this machine.
        path: within the store; absolute on this machine.
    """

    store: str = field(default="", repr=False)
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
        store = _with_options(text)
        with _named(_hide_keys(text, text), store, "reachable", InputError):
            _, path = _connect(store)
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

    @property
    def url(self) -> str:
        """What people call it: without keys and options."""
        return f"{self.store.partition('://')[0]}://{self.path}" if self.store else self.path

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition("/")[2]

    @property
    def parent(self) -> "Place":
        """The folder this is in."""
        return Place(store=self.store, path=self.path.rpartition("/")[0] or "/")

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

        Where the place is makes no difference, and on this machine dates neither, up to 4 GB.
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
        return _connect(self.store)[0]

    def _list_store(self) -> Iterator[PlacedFile]:
        selector = arrow_fs.FileSelector(self.path, recursive=True, allow_not_found=True)
        for info in self._remote().get_file_info(selector):
            if info.type is arrow_fs.FileType.File:
                name = info.path.removeprefix(self.path).lstrip("/")
                yield PlacedFile(name=name, size=info.size or 0, mtime_ns=info.mtime_ns or 0)

    def _reading(self) -> Any:
        return _named(self.url, self.store, "readable", InputError)

    def _writing(self) -> Any:
        return _named(self.url, self.store, "writable", ArtifactError)


@lru_cache(maxsize=16)
def _connect(store: str) -> tuple[Any, str]:
    """Open the file system of a URL, once a process, and tell the path within."""
    scheme, _, _ = store.partition("://")
    if scheme in ("s3", "gs", "gcs", "abfs", "abfss", "hdfs", "viewfs", "hf"):
        with _plain_uploads("endpoint_override=" in store):
            opened: tuple[Any, str] = arrow_fs.FileSystem.from_uri(store)
            return opened
    if scheme not in fsspec.available_protocols():
        raise InputError(
            f"place must be a path or a URL such as s3://, gs:// or hf://, got {scheme}://; "
            "copy the files to one of these"
        )
    system, path = fsspec.core.url_to_fs(store)
    return arrow_fs.PyFileSystem(arrow_fs.FSSpecHandler(system)), path


def _with_options(url: str) -> str:
    """Add to a URL the options that Arrow's defaults get wrong for us."""
    scheme = url.partition("://")[0]
    added = {
        # A small file is one request, and appears whole.
        "s3": {"allow_delayed_open": "true"},
        # Without a limit a missing key or network is tried again for a quarter of an hour.
        "gs": {"retry_limit_seconds": _GS_RETRY_SECONDS},
        "gcs": {"retry_limit_seconds": _GS_RETRY_SECONDS},
    }.get(scheme, {})
    base, _, query = url.partition("?")
    options = {**added, **dict(parse_qsl(query, keep_blank_values=True))}
    return f"{base}?{urlencode(options)}" if added else url


@contextmanager
def _plain_uploads(is_own_server: bool) -> Iterator[None]:
    """Have uploads sent with a length instead of a trailing checksum.

    The AWS SDK reads the choice from the environment when it is connected. Amazon takes both;
    several other servers answer an upload without Content-Length with an error (HTTP 411).
    """
    with _environment_lock:
        if not is_own_server or _CHECKSUMS in os.environ:
            yield
            return
        os.environ[_CHECKSUMS] = "when_required"
        try:
            yield
        finally:
            del os.environ[_CHECKSUMS]


@contextmanager
def _named(url: str, store: str, rule: str, kind: type[Dreambooth3dError]) -> Iterator[None]:
    """Turn any failure of a file system into one sentence that names the URL."""
    try:
        yield
    except Dreambooth3dError:
        raise
    except (*_FAILURES, *_hub_failures(store)) as error:
        found = " ".join(_hide_keys(str(error), store).split()) or type(error).__name__
        # Not chained: the original text may hold the keys.
        raise kind(
            f"place {url} must be {rule}, got: {found}; check the address, the keys and the network"
            if store
            else f"file {url} must be {rule}, got: {found}; check the path and its permissions"
        ) from None


def _hub_failures(store: str) -> tuple[type[BaseException], ...]:
    """What the client of the hub lets through when there is no network.

    It is the error of its HTTP library, which has changed between releases.
    """
    if not store.startswith("hf://"):
        return ()
    from huggingface_hub.errors import HfHubHTTPError

    return tuple(kind for kind in HfHubHTTPError.__mro__ if kind.__name__ == "HTTPError")


def _hide_keys(text: str, url: str) -> str:
    keys, mark, _ = urlsplit(url).netloc.rpartition("@")
    if not mark:
        return text
    for part in sorted({keys, *keys.split(":", 1)}, key=len, reverse=True):
        for spelling in (part, unquote(part)):
            text = text.replace(spelling, "***") if spelling else text
    return text


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
