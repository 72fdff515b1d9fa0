"""Content-addressed folders: the key of an artifact, and how it appears on disk in one step.

``<root>/<key>/`` is complete or absent: it is written aside as ``<root>/.<key>.<random>.partial``
and renamed. ``<root>/LATEST`` holds the key made last, in one line.
"""

import errno
import fcntl
import hashlib
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from dreambooth3d.artifacts.jsonfile import canonical_json
from dreambooth3d.errors import ArtifactError

_KEY_LENGTH = 16
_LATEST = "LATEST"
_KEY_FORM = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def artifact_key(
    stage: str, revision: int, versioned: Mapping[str, object], parents: Sequence[str]
) -> str:
    """Return 16 hex characters that change when, and only when, the content may change.

    Args:
        stage: Name of the stage, a verb.
        revision: Raised by hand when the stage's code changes what it makes.
        versioned: The config fields that shape the content; never workers, GPUs or log intervals.
        parents: Keys of the artifacts read, in the order the stage reads them.
    """
    parts = {
        "stage": stage,
        "revision": revision,
        "config": dict(versioned),
        "parents": list(parents),
    }
    text = canonical_json(parts, what=stage)
    return hashlib.sha256(text.encode("ascii")).hexdigest()[:_KEY_LENGTH]


def content_hash(path: Path) -> str:
    """Return the sha256 in hex of a file, or of a folder's sorted relative names and file hashes.

    Dates, owners and empty folders make no difference.
    """
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    if not path.is_dir():
        raise ArtifactError(f"path to hash must be a file or a folder, got {path}; check the path")
    digest = hashlib.sha256()
    files = {item.relative_to(path).as_posix(): item for item in path.rglob("*") if item.is_file()}
    for name in sorted(files):
        digest.update(f"{name}\0{content_hash(files[name])}\n".encode())
    return digest.hexdigest()


@contextmanager
def publish(final: Path) -> Iterator[Path]:
    """Yield a fresh folder beside `final`; rename it to `final` when the body succeeds.

    When the body raises, nothing is left. When another process published `final` first, its folder
    is kept and ours is discarded: equal keys mean equal content.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    aside = _aside(final)
    aside.mkdir()
    try:
        yield aside
        _sync_tree(aside)
        _rename_unless_present(aside, final)
        _sync(final.parent)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def publish_file(final: Path) -> Iterator[Path]:
    """Yield a path beside `final`; the file written there replaces `final` in one step."""
    final.parent.mkdir(parents=True, exist_ok=True)
    aside = _aside(final)
    try:
        yield aside
        _sync(aside)
        aside.replace(final)
        _sync(final.parent)
    finally:
        aside.unlink(missing_ok=True)


@contextmanager
def exclusive(root: Path, key: str) -> Iterator[None]:
    """Let one process at a time work on `key` below `root`; the others wait, then look again.

    Holds on one machine, and on file systems that share locks between machines.
    """
    root.mkdir(parents=True, exist_ok=True)
    with (root / f".{key}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def link_or_copy(source: Path, target: Path) -> None:
    """Show a file under a second name without a second copy, where the file system can."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def point_latest(root: Path, key: str) -> None:
    """Make `latest` return ``root/<key>`` from now on; readers see the old or the new key."""
    with publish_file(root / _LATEST) as aside:
        aside.write_text(key + "\n", encoding="utf-8")


def latest_key(root: Path) -> str:
    """Return the key that `point_latest` was given last; empty where there is none."""
    pointer = root / _LATEST
    return pointer.read_bytes().decode("utf-8", "replace").strip() if pointer.is_file() else ""


def latest(root: Path, *, what: str, made_by: str) -> Path:
    """Return the folder made last below `root`.

    Args:
        root: Folder that holds ``LATEST``.
        what: Name of the artifact in the error text, as in "pair shards".
        made_by: The command that makes it.
    """
    pointer = root / _LATEST
    try:
        key = pointer.read_text(encoding="utf-8").strip()
    except (FileNotFoundError, NotADirectoryError, UnicodeDecodeError) as error:
        raise ArtifactError(
            f"{what} must be made before they are used, got no {pointer}; run `{made_by}`"
        ) from error
    folder = root / key
    if not _KEY_FORM.fullmatch(key) or not folder.is_dir():
        raise ArtifactError(
            f"{what} must be the folder {pointer} names, got {key!r}; run `{made_by}`"
        )
    return folder


def _aside(final: Path) -> Path:
    return final.with_name(f".{final.name}.{uuid.uuid4().hex[:12]}.partial")


def _rename_unless_present(aside: Path, final: Path) -> None:
    try:
        aside.rename(final)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return
        if error.errno == errno.ENOTDIR:
            raise ArtifactError(
                f"artifact {final} must be a folder, got a file; move the file away"
            ) from error
        raise


def _sync_tree(folder: Path) -> None:
    for item in folder.rglob("*"):
        _sync(item)
    _sync(folder)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
