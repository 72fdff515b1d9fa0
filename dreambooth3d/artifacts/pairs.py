"""Pair shards: WebDataset tars whose bytes depend on their samples alone, read at random.

A folder of pairs holds::

    <name>.tar       members sorted by key, then extension: <key>.json (meta), <key>.reference.png,
                     <key>.target.jpg, <key>.txt (caption), and any encoded field such as
                     <key>.latents.safetensors; mtime, uid and gid are 0
    index.json       {shard name: [[key, {extension: [offset, size]}], ..]}, offsets in bytes
    manifest.json    outputs.shards: name, sha256, num_bytes, num_samples, dropped by reason

``webdataset`` reads the tars as they are; `PairCorpus` reads one sample by its byte ranges.
"""

import io
import json
import re
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from PIL import Image

from dreambooth3d.artifacts.image import flatten
from dreambooth3d.artifacts.jsonfile import JsonValue, dump_json, read_json, write_json
from dreambooth3d.artifacts.key import content_hash, publish_file
from dreambooth3d.artifacts.manifest import Manifest
from dreambooth3d.errors import ArtifactError, InputError

INDEX_NAME = "index.json"

_META, _REFERENCE, _TARGET, _CAPTION = "json", "reference.png", "target.jpg", "txt"
# WebDataset splits a member name at the first dot; 64 leaves room in a one-block tar header.
_KEY_FORM = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_SHARD_FORM = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*\.tar")
_JPEG_QUALITY = 95
_DECODE_FAILURES = (OSError, SyntaxError, ValueError, EOFError)

Members: TypeAlias = Mapping[str, bytes]
ByteRanges: TypeAlias = dict[str, tuple[int, int]]


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One training sample of stage 1.

    Attributes:
        key: Name within the corpus; letters, digits, ``_`` and ``-``.
        reference: The object on white, RGB.
        target: The same object in a scene, RGB.
        caption: Describes the target.
        meta: Where the sample comes from; paths in it are relative.
    """

    key: str
    reference: Image.Image
    target: Image.Image
    caption: str
    meta: dict[str, JsonValue] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _require_key(self.key)


@dataclass(frozen=True, kw_only=True)
class ShardEntry:
    """What the manifest and the index say about one shard.

    Attributes:
        name: File name in the corpus folder.
        sha256: Of the whole file, hex.
        num_bytes: Size of the file.
        num_samples: Samples inside.
        dropped: Samples that were refused on the way, by reason.
        index: For every sample in order, its key and the (offset, size) of each member.
    """

    name: str
    sha256: str
    num_bytes: int
    num_samples: int
    dropped: dict[str, int]
    index: tuple[tuple[str, ByteRanges], ...]


def encode_pair(pair: Pair) -> dict[str, bytes]:
    """Return the members of one sample: extension -> bytes."""
    meta = dump_json(pair.meta, what=f"the meta of pair {pair.key}")
    return {
        _META: (meta + "\n").encode(),
        _REFERENCE: _encode(pair.reference, "PNG", compress_level=6),
        _TARGET: _encode(pair.target, "JPEG", quality=_JPEG_QUALITY, subsampling=0),
        _CAPTION: pair.caption.encode(),
    }


def decode_pair(key: str, members: Members) -> Pair:
    """Return the sample that `encode_pair` wrote; the target went through JPEG."""
    return Pair(
        key=key,
        reference=_decode(members[_REFERENCE], "PNG"),
        target=_decode(members[_TARGET], "JPEG"),
        caption=members[_CAPTION].decode(),
        meta=json.loads(members[_META]),
    )


def write_shard(
    path: Path, pairs: Iterable[Pair], *, dropped: Mapping[str, int] | None = None
) -> ShardEntry:
    """Write one tar of `pairs`; the same pairs in any order give the same bytes.

    Args:
        path: ``<folder>/<name>.tar``.
        pairs: Consumed once; only encoded bytes are kept in memory.
        dropped: Samples refused on the way, by reason; read after the last pair, so a stage may
            go on counting while `pairs` is consumed.
    """
    return write_members(path, ((pair.key, encode_pair(pair)) for pair in pairs), dropped=dropped)


def write_members(
    path: Path,
    samples: Iterable[tuple[str, Members]],
    *,
    dropped: Mapping[str, int] | None = None,
) -> ShardEntry:
    """Write one tar of samples that are bytes already, as `PairCorpus.read_members` gives them."""
    if not _SHARD_FORM.fullmatch(path.name):
        raise ArtifactError(
            f"shard name must be letters, digits, '_', '-' and end in .tar, got {path.name!r}; "
            "rename the shard"
        )
    by_key = _by_key(path.name, samples)
    with publish_file(path) as aside:
        index = _write_tar(aside, by_key)
    return ShardEntry(
        name=path.name,
        sha256=content_hash(path),
        num_bytes=path.stat().st_size,
        num_samples=len(index),
        dropped=dict(sorted((dropped or {}).items())),
        index=index,
    )


def write_corpus(
    folder: Path,
    entries: Iterable[ShardEntry],
    *,
    key: str,
    config: dict[str, JsonValue],
    parents: Sequence[str] = (),
    stage: str = "pairs",
) -> Manifest:
    """Write ``index.json`` and ``manifest.json`` beside shards that are in `folder` already."""
    shards = sorted(entries, key=lambda entry: entry.name)
    write_json(folder / INDEX_NAME, {shard.name: _index_to_json(shard) for shard in shards})
    dropped = sum((Counter(shard.dropped) for shard in shards), Counter())
    manifest = Manifest(
        stage=stage,
        key=key,
        config=config,
        parents=tuple(parents),
        outputs={
            "shards": [_entry_to_json(shard) for shard in shards],
            "num_samples": sum(shard.num_samples for shard in shards),
            "dropped": dict(sorted(dropped.items())),
            "index_sha256": content_hash(folder / INDEX_NAME),
        },
    )
    manifest.save(folder)
    return manifest


@dataclass(frozen=True, kw_only=True)
class _Shard:
    name: str
    sha256: str
    num_bytes: int


@dataclass(frozen=True, kw_only=True)
class _Location:
    shard: str
    key: str
    ranges: ByteRanges


class PairCorpus:
    """All samples of a folder of shards, in the order of shard names, then keys.

    Reading a sample touches only its own byte ranges and no shared state: safe from many threads.
    """

    def __init__(self, folder: Path, manifest: Manifest, locations: Sequence[_Location]) -> None:
        self.folder = folder
        self.manifest = manifest
        self._locations = tuple(locations)

    @classmethod
    def open(cls, folder: Path, *, verify: bool = False) -> "PairCorpus":
        """Load manifest and index and check them against the shards.

        Args:
            folder: A published folder of pairs.
            verify: Also hash every shard (reads all bytes); without it sizes are compared.
        """
        manifest = Manifest.load(folder)
        shards = _shards_of(manifest, folder)
        index = read_json(folder / INDEX_NAME, what="byte index")
        if content_hash(folder / INDEX_NAME) != manifest.outputs.get("index_sha256"):
            raise ArtifactError(
                f"byte index must be the one its manifest describes, got another file "
                f"{folder / INDEX_NAME}; make the pairs again"
            )
        for shard in shards:
            _check_shard(folder, shard, verify=verify)
        return cls(folder, manifest, [item for shard in shards for item in _locate(shard, index)])

    @property
    def key(self) -> str:
        """The artifact key of the folder."""
        return self.manifest.key

    @property
    def sample_keys(self) -> tuple[str, ...]:
        """The key of every sample, in order."""
        return tuple(location.key for location in self._locations)

    def __len__(self) -> int:
        return len(self._locations)

    def __getitem__(self, index: int) -> Pair:
        location = self._locations[index]
        members = self._read(location)
        try:
            return decode_pair(location.key, members)
        except KeyError as error:
            raise _sample_error(location, f"no member {error}") from error
        except _DECODE_FAILURES as error:
            raise _sample_error(location, f"damaged bytes ({error})") from error

    def __iter__(self) -> Iterator[Pair]:
        return (self[index] for index in range(len(self)))

    def read_members(self, index: int) -> tuple[str, dict[str, bytes]]:
        """Return the key and the undecoded members of one sample, as `write_members` takes them."""
        location = self._locations[index]
        return location.key, self._read(location)

    def _read(self, location: _Location) -> dict[str, bytes]:
        members: dict[str, bytes] = {}
        try:
            with (self.folder / location.shard).open("rb") as file:
                for extension, (offset, size) in location.ranges.items():
                    file.seek(offset)
                    members[extension] = file.read(size)
                    if len(members[extension]) != size:
                        raise _sample_error(location, f"a file that ends before {extension}")
        except OSError as error:
            raise _sample_error(location, f"an unreadable file ({error})") from error
        return members


def _encode(image: Image.Image, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    flatten(image).save(buffer, format=form, **options)
    return buffer.getvalue()


def _decode(data: bytes, form: str) -> Image.Image:
    with Image.open(io.BytesIO(data), formats=(form,)) as image:
        return image.convert("RGB")


def _require_key(key: str) -> None:
    if not _KEY_FORM.fullmatch(key):
        raise InputError(
            f"pair key must be 1 to 64 letters, digits, '_' and '-', got {key!r}; rename the sample"
        )


def _by_key(shard: str, samples: Iterable[tuple[str, Members]]) -> dict[str, Members]:
    by_key: dict[str, Members] = {}
    for key, members in samples:
        _require_key(key)
        if key in by_key:
            raise InputError(
                f"pair keys of shard {shard} must be unique, got {key!r} twice; rename one"
            )
        by_key[key] = members
    return dict(sorted(by_key.items()))


def _write_tar(path: Path, by_key: Mapping[str, Members]) -> tuple[tuple[str, ByteRanges], ...]:
    index: list[tuple[str, ByteRanges]] = []
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for key, members in by_key.items():
            ranges: ByteRanges = {}
            for extension, data in sorted(members.items()):
                header = tarfile.TarInfo(f"{key}.{extension}")
                header.size = len(data)
                ranges[extension] = (tar.offset + tarfile.BLOCKSIZE, header.size)
                tar.addfile(header, io.BytesIO(data))
            index.append((key, ranges))
    return tuple(index)


def _entry_to_json(entry: ShardEntry) -> JsonValue:
    return {
        "name": entry.name,
        "sha256": entry.sha256,
        "num_bytes": entry.num_bytes,
        "num_samples": entry.num_samples,
        "dropped": dict(entry.dropped),
    }


def _index_to_json(entry: ShardEntry) -> JsonValue:
    return [
        [key, {extension: [offset, size] for extension, (offset, size) in ranges.items()}]
        for key, ranges in entry.index
    ]


def _shards_of(manifest: Manifest, folder: Path) -> list[_Shard]:
    found = manifest.outputs.get("shards")
    shards: list[_Shard] = []
    for item in found if isinstance(found, list) else [None]:
        match item:
            case {"name": str(name), "sha256": str(sha256), "num_bytes": int(num_bytes)} if (
                _SHARD_FORM.fullmatch(name)
            ):
                shards.append(_Shard(name=name, sha256=sha256, num_bytes=num_bytes))
            case _:
                raise ArtifactError(
                    "manifest of pairs must list name, sha256 and num_bytes of every shard, "
                    f"got {item!r} in {folder}; make the pairs again"
                )
    return shards


def _check_shard(folder: Path, shard: _Shard, *, verify: bool) -> None:
    path = folder / shard.name
    if not path.is_file():
        raise ArtifactError(
            f"shard must be beside its manifest, got no file at {path}; make the pairs again"
        )
    size = path.stat().st_size
    if size != shard.num_bytes:
        raise ArtifactError(
            f"shard {path} must have {shard.num_bytes} bytes, got {size}; make the pairs again"
        )
    if verify and (found := content_hash(path)) != shard.sha256:
        raise ArtifactError(
            f"shard {path} must have sha256 {shard.sha256}, got {found}; make the pairs again"
        )


def _locate(shard: _Shard, index: Mapping[str, JsonValue]) -> list[_Location]:
    samples = index.get(shard.name)
    locations: list[_Location] = []
    for sample in samples if isinstance(samples, list) else [None]:
        match sample:
            case [str(key), dict(ranges)]:
                locations.append(_Location(shard=shard.name, key=key, ranges=_ranges(ranges)))
            case _:
                raise ArtifactError(
                    f"byte index of shard {shard.name} must list [key, ranges], got {sample!r}; "
                    "make the pairs again"
                )
    return locations


def _ranges(found: Mapping[str, JsonValue]) -> ByteRanges:
    ranges: ByteRanges = {}
    for extension, item in found.items():
        match item:
            case [int(offset), int(size)]:
                ranges[extension] = (offset, size)
            case _:
                raise ArtifactError(
                    f"byte range of {extension} must be [offset, size], got {item!r}; "
                    "make the pairs again"
                )
    return ranges


def _sample_error(location: _Location, found: str) -> ArtifactError:
    return ArtifactError(
        f"sample {location.key} of shard {location.shard} must be readable, got {found}; "
        "check the shard with verify=True and make the pairs again"
    )
