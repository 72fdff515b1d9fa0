"""File systems behind URLs: how they are connected, and what is said when they fail."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

import fsspec
import pyarrow as pa
from pyarrow import fs as arrow_fs

from dreambooth3d.errors import Dreambooth3dError, InputError

_ARROW_SCHEMES = ("s3", "gs", "gcs", "abfs", "abfss", "hdfs", "viewfs", "hf")
_GS_RETRY_SECONDS = "20"
_CHECKSUMS = "AWS_REQUEST_CHECKSUM_CALCULATION"
_FAILURES = (OSError, ValueError, pa.ArrowException, ImportError)
_environment_lock = threading.Lock()


@lru_cache(maxsize=16)
def connect(store: str) -> tuple[Any, str]:
    """Open the file system of a URL, once a process, and tell the path within."""
    scheme, _, _ = store.partition("://")
    if scheme in _ARROW_SCHEMES:
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


def with_options(url: str) -> str:
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
def named_failures(
    url: str, store: str, rule: str, kind: type[Dreambooth3dError]
) -> Iterator[None]:
    """Turn any failure of a file system into one sentence that names the URL."""
    try:
        yield
    except Dreambooth3dError:
        raise
    except (*_FAILURES, *_hub_failures(store)) as error:
        found = " ".join(hide_keys(str(error), store).split()) or type(error).__name__
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


def hide_keys(text: str, url: str) -> str:
    """Replace the keys that a URL holds wherever they stand in a text."""
    for part in sorted(_keys_of(url), key=len, reverse=True):
        for spelling in (part, unquote(part)):
            text = text.replace(spelling, "***") if spelling else text
    return text


def _keys_of(url: str) -> set[str]:
    try:
        parts = urlsplit(url)
    except ValueError:
        # No URL at all: its keys may be anywhere.
        return {url}
    keys, mark, _ = parts.netloc.rpartition("@")
    found = {keys, *keys.split(":", 1)} if mark else set()
    name, mark, port = parts.netloc.rpartition(":")
    if mark and not found and not port.isdigit():
        # A key whose @ was forgotten: no port has letters.
        found = {name, port}
    if parts.scheme in ("http", "https"):
        # Of a web address the query is not ours: it may be a token.
        found.add(parts.query)
    return found
