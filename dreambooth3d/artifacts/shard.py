"""One pair shard: a WebDataset tar whose bytes depend on its samples alone, and its byte index.

A tar holds members sorted by key, then extension: <key>.json (meta), <key>.reference.png,
<key>.target.jpg, <key>.txt (caption), and other fields such as <key>.mask.png (of the object in the
target) and <key>.latents.safetensors; mtime, uid and gid are 0. Beside `<name>.tar` lies
`<name>.index.json`: {"samples": [[key, {extension: [offset, size]}], ..], "crc32": [hex, ..]},
offsets in bytes, and of each sample the checksum of all its bytes, headers included, by which
damage is located.
"""

import hashlib
import io
import json
import re
import tarfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dreambooth3d.artifacts.image import flatten
from dreambooth3d.artifacts.jsonfile import JsonValue, dump_json
from dreambooth3d.errors import ArtifactError, InputError

META, REFERENCE, TARGET, CAPTION = "json", "reference.png", "target.jpg", "txt"
LATENTS = "latents.safetensors"
# Where the object is in the target, for corpora whose operators know it.
MASK = "mask.png"
# Beside the shards of an encoded corpus: a view of nothing, and no words.
BLANK_NAME = f"blank.{LATENTS}"
# WebDataset splits a member name at the first dot; 64 leaves room in a one-block tar header.
_KEY_FORM = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_EXTENSION_FORM = re.compile(r"[a-z0-9_]+(\.[a-z0-9_]+)?")
SHARD_FORM = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*\.tar")
_JPEG_QUALITY = 95
DECODE_FAILURES = (OSError, SyntaxError, ValueError, EOFError)

Members: TypeAlias = Mapping[str, bytes]
ByteRanges: TypeAlias = dict[str, tuple[int, int]]
ShardIndex: TypeAlias = tuple[tuple[str, ByteRanges], ...]


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One training sample of stage 1.

    Attributes:
        key: Name within the corpus; letters, digits, ``_`` and ``-``.
        reference: The object on white, RGB.
        target: The same object in a scene, RGB.
        caption: Describes the target.
        meta: Where the sample comes from; paths in it are relative.
        fields: Further members, extension -> bytes: masks, latents.
    """

    key: str
    reference: Image.Image
    target: Image.Image
    caption: str
    meta: dict[str, JsonValue] = field(default_factory=dict)
    fields: Mapping[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _require_key(self.key)


@dataclass(frozen=True, kw_only=True)
class ShardEntry:
    """What the manifest says about one shard.

    Attributes:
        name: File name of the tar in the corpus folder.
        sha256: Of the whole tar, hex.
        num_bytes: Size of the tar.
        num_samples: Samples inside.
        index_sha256: Of the index file, hex.
        dropped: Samples that were refused on the way, by reason.
        source: What the samples were made from.
        split: Which part of the corpus this is, such as ``train``.
    """

    name: str
    sha256: str
    num_bytes: int
    num_samples: int
    index_sha256: str
    dropped: dict[str, int] = field(default_factory=dict)
    source: str = ""
    split: str = "train"


@dataclass(frozen=True, kw_only=True)
class PackedShard:
    """The two files of a shard, and their entry."""

    entry: ShardEntry
    tar: bytes
    index: bytes


def encode_pair(pair: Pair) -> dict[str, bytes]:
    """Return the members of one sample: extension -> bytes."""
    return {
        **pair.fields,
        META: encode_meta(pair.meta, what=f"the meta of pair {pair.key}"),
        REFERENCE: encode_png(pair.reference),
        TARGET: _encode(pair.target, "JPEG", quality=_JPEG_QUALITY, subsampling=0),
        CAPTION: pair.caption.encode(),
    }


def encode_meta(meta: Mapping[str, JsonValue], *, what: str) -> bytes:
    """Return a sample's json; `what` names it in an error."""
    return (dump_json(meta, what=what) + "\n").encode()


def decode_pair(key: str, members: Members) -> Pair:
    """Return the sample that `encode_pair` wrote; the target went through JPEG."""
    return Pair(
        key=key,
        reference=_decode(members[REFERENCE], "PNG"),
        target=_decode(members[TARGET], "JPEG"),
        caption=members[CAPTION].decode(),
        meta=json.loads(members[META]),
        fields={
            name: value
            for name, value in members.items()
            if name not in (META, REFERENCE, TARGET, CAPTION)
        },
    )


def encode_png(image: Image.Image) -> bytes:
    """Return a bare picture as PNG: gray stays gray, all else becomes RGB on white."""
    if image.mode in ("1", "L"):
        buffer = io.BytesIO()
        image.save(buffer, format="PNG", compress_level=6)
        return buffer.getvalue()
    return _encode(image, "PNG", compress_level=6)


def encode_mask(mask_HW: NDArray[np.bool_]) -> bytes:
    """Return a mask as PNG of one bit a pixel, white where the object is."""
    return encode_png(Image.fromarray(mask_HW))


def decode_mask(data: bytes) -> NDArray[np.bool_]:
    """Return the mask that `encode_mask` wrote, (H, W)."""
    with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
        return np.asarray(image.convert("L")) >= 128


def index_name(shard: str) -> str:
    """Name the index file of a tar."""
    return f"{shard.removesuffix('.tar')}.index.json"


def pack_shard(
    name: str,
    samples: Iterable[tuple[str, Members]],
    *,
    dropped: Mapping[str, int] | None = None,
    source: str = "",
    split: str = "train",
) -> PackedShard:
    """Pack the samples into one tar; the same samples in any order give the same bytes.

    Args:
        name: ``<letters, digits>.tar``.
        samples: Keys and members; consumed once, kept in memory as bytes.
        dropped: Samples refused on the way, by reason; read after the last sample, so a stage may
            go on counting while `samples` is consumed.
        source, split: See `ShardEntry`.
    """
    if not SHARD_FORM.fullmatch(name):
        raise ArtifactError(
            f"shard name must be letters, digits, '_', '-' and end in .tar, got {name!r}; "
            "rename the shard"
        )
    tar, index = _pack(_by_key(name, samples))
    content = _index_bytes(index, tar)
    entry = ShardEntry(
        name=name,
        sha256=hashlib.sha256(tar).hexdigest(),
        num_bytes=len(tar),
        num_samples=len(index),
        index_sha256=hashlib.sha256(content).hexdigest(),
        dropped=dict(sorted((dropped or {}).items())),
        source=source,
        split=split,
    )
    return PackedShard(entry=entry, tar=tar, index=content)


def parse_index(data: bytes, *, name: str) -> ShardIndex:
    """Read an index file; `name` is that of the shard in an error's text."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _index_error(name, f"damaged JSON ({error})") from error
    samples = found.get("samples") if isinstance(found, dict) else None
    if not isinstance(samples, list):
        raise _index_error(name, "no list of samples")
    return tuple(map(partial(_parse_sample, name=name), samples))


def parse_checksums(data: bytes, samples: ShardIndex, *, name: str) -> tuple[str, ...]:
    """Read the checksums of an index file: one of every sample, over its `sample_span`."""
    sums = json.loads(data).get("crc32")
    if not isinstance(sums, list) or len(sums) != len(samples):
        raise _index_error(name, "no checksum of every sample")
    return tuple(map(str, sums))


def sample_span(ranges: ByteRanges) -> tuple[int, int]:
    """Where a sample lies in its tar: from its first header to behind its last padding."""
    start = min((offset for offset, _ in ranges.values()), default=0) - tarfile.BLOCKSIZE
    last = max((offset + size for offset, size in ranges.values()), default=0)
    return max(0, start), -(-last // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE


def span_checksum(span: bytes) -> str:
    """The checksum of a sample's span."""
    return f"{zlib.crc32(span):08x}"


def damaged_samples(tar: bytes, index: bytes, *, name: str) -> tuple[str, ...]:
    """Name the samples of a damaged shard whose bytes are not those that were packed.

    Args:
        tar, index: contents of the two files.
        name: of the shard in an error's text.
    """
    samples = parse_index(index, name=name)
    sums = parse_checksums(index, samples, name=name)
    found = zip(samples, _checksums(samples, tar), sums, strict=True)
    return tuple(key for (key, _), ours, theirs in found if ours != theirs)


def _checksums(index: ShardIndex, tar: bytes) -> Iterator[str]:
    for _, ranges in index:
        start, end = sample_span(ranges)
        yield span_checksum(tar[start:end])


def _parse_sample(sample: object, *, name: str) -> tuple[str, ByteRanges]:
    match sample:
        case [str(key), dict(found)]:
            ranges: ByteRanges = {}
            for extension, item in found.items():
                match item:
                    case [int(offset), int(size)] if offset >= 0 and size >= 0:
                        ranges[extension] = (offset, size)
                    case _:
                        raise _index_error(name, f"{item!r} as the range of {key}.{extension}")
            return key, ranges
    raise _index_error(name, repr(sample))


def _index_error(shard: str, found: str) -> ArtifactError:
    return ArtifactError(
        f"byte index of shard {shard} must list [key, {{extension: [offset, size]}}], "
        f"got {found}; make the pairs again"
    )


def _index_bytes(index: ShardIndex, tar: bytes) -> bytes:
    rows = ",\n".join(
        json.dumps([key, ranges], sort_keys=True, separators=(",", ":")) for key, ranges in index
    )
    sums = json.dumps(list(_checksums(index, tar)), separators=(",", ":"))
    return f'{{"samples":[\n{rows}\n],\n"crc32":{sums}}}\n'.encode()


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
        for extension in members:
            if not _EXTENSION_FORM.fullmatch(extension):
                raise InputError(
                    f"member of pair {key} must be named like reference.png, got {extension!r}; "
                    "rename the field"
                )
        by_key[key] = members
    return dict(sorted(by_key.items()))


def _pack(by_key: Mapping[str, Members]) -> tuple[bytes, ShardIndex]:
    index: list[tuple[str, ByteRanges]] = []
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for key, members in by_key.items():
            ranges: ByteRanges = {}
            for extension, data in sorted(members.items()):
                header = tarfile.TarInfo(f"{key}.{extension}")
                header.size = len(data)
                ranges[extension] = (tar.offset + tarfile.BLOCKSIZE, header.size)
                tar.addfile(header, io.BytesIO(data))
            index.append((key, ranges))
    return buffer.getvalue(), tuple(index)
