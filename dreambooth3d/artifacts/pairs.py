"""A corpus of pairs: shards, their byte indexes and a manifest, read at random from anywhere.

A folder of pairs holds::

    <source>-<number>.tar          WebDataset shards, see `shard`
    <source>-<number>.index.json   where every member of every sample lies
    SHA256SUMS                     of every file, as ``sha256sum --check`` reads it
    manifest.json                  written last: a folder without it is not a corpus

``outputs`` of the manifest lists the shards (`ShardEntry`), totals, drops by source and reason, and
licences. ``webdataset`` reads the tars as they are; `PairCorpus` reads one sample by its byte
ranges, and loads an index only when a sample of its shard is asked for.
"""

import bisect
import hashlib
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

from dreambooth3d.artifacts.jsonfile import JsonValue, json_bytes, parse_json
from dreambooth3d.artifacts.manifest import MANIFEST_NAME, Manifest
from dreambooth3d.artifacts.place import Place
from dreambooth3d.artifacts.shard import (
    DECODE_FAILURES,
    SHARD_FORM,
    ByteRanges,
    PackedShard,
    Pair,
    ShardEntry,
    ShardIndex,
    decode_pair,
    index_name,
    parse_index,
)
from dreambooth3d.errors import ArtifactError, InputError

SUMS_NAME = "SHA256SUMS"
# Indexes of 128 samples take about 100 KB in memory each.
_OPEN_INDEXES = 256


def write_shard(place: Place, shard: PackedShard) -> ShardEntry:
    """Write the two files of a shard; the tar last, so that a tar always has its index."""
    (place / index_name(shard.entry.name)).write_bytes(shard.index)
    (place / shard.entry.name).write_bytes(shard.tar)
    return shard.entry


def write_corpus(
    place: Place,
    entries: Iterable[ShardEntry],
    *,
    key: str,
    config: dict[str, JsonValue],
    parents: Sequence[str] = (),
    stage: str = "pairs",
    notes: dict[str, JsonValue] | None = None,
    others: Mapping[str, str] | None = None,
) -> Manifest:
    """Write ``SHA256SUMS`` and ``manifest.json`` beside shards that are in `place` already.

    Args:
        place: Where the shards and their indexes are.
        entries: One for every shard.
        key, config, parents, stage: See `Manifest`.
        notes: What else the outputs say: licences, drops of chunks that left no shard.
        others: sha256 of further files in `place`, by name.
    """
    shards = sorted(entries, key=lambda entry: entry.name)
    dropped = sum((Counter(shard.dropped) for shard in shards), Counter())
    manifest = Manifest(
        stage=stage,
        key=key,
        config=config,
        parents=tuple(parents),
        outputs={
            "shards": [asdict(shard) for shard in shards],
            "num_samples": sum(shard.num_samples for shard in shards),
            "dropped": dict(sorted(dropped.items())),
            **(notes or {}),
        },
    )
    content = json_bytes(manifest.to_json(), what=MANIFEST_NAME)
    sums = {MANIFEST_NAME: hashlib.sha256(content).hexdigest(), **(others or {})}
    for shard in shards:
        sums |= {shard.name: shard.sha256, index_name(shard.name): shard.index_sha256}
    lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(sums.items()))
    (place / SUMS_NAME).write_bytes(lines.encode())
    (place / MANIFEST_NAME).write_bytes(content)
    return manifest


class PairCorpus:
    """All samples of a corpus, in the order of shard names, then keys.

    Reading a sample touches only its own byte ranges: safe from many threads.
    """

    def __init__(self, place: Place, manifest: Manifest, shards: Sequence[ShardEntry]) -> None:
        self.place = place
        self.manifest = manifest
        self.shards = tuple(shards)
        self._ends = list(itertools.accumulate(shard.num_samples for shard in shards))
        self._index_of = lru_cache(maxsize=_OPEN_INDEXES)(self._load_index)

    @classmethod
    def open(
        cls, place: Place | Path | str, *, split: str | None = None, verify: bool = False
    ) -> "PairCorpus":
        """Load the manifest and check it against the shards.

        Args:
            place: A published folder of pairs, a path or a URL.
            split: Only this part of the corpus, such as ``train``; None takes all.
            verify: Also hash every shard and index (reads all bytes); without it sizes are
                compared.
        """
        home = place if isinstance(place, Place) else Place.parse(str(place))
        manifest = read_manifest(home)
        shards = shards_of(manifest, home)
        if split is not None:
            shards = [shard for shard in shards if shard.split == split]
        sizes = {file.name: file.size for file in home.list()}
        for shard in shards:
            _check_size(home, shard, sizes)
            if verify:
                for problem in problems_of(home, shard):
                    raise problem
        return cls(home, manifest, shards)

    @property
    def key(self) -> str:
        """The artifact key of the folder."""
        return self.manifest.key

    @property
    def sample_keys(self) -> tuple[str, ...]:
        """The key of every sample, in order (loads every index)."""
        return tuple(key for number in range(len(self.shards)) for key, _ in self._index_of(number))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: int) -> Pair:
        key, members = self.read_members(index)
        try:
            return decode_pair(key, members)
        except KeyError as error:
            raise self._error(index, f"no member {error}") from error
        except DECODE_FAILURES as error:
            raise self._error(index, f"damaged bytes ({error})") from error

    def __iter__(self) -> Iterator[Pair]:
        return (self[index] for index in range(len(self)))

    def read_members(self, index: int) -> tuple[str, dict[str, bytes]]:
        """Return the key and the undecoded members of one sample, as `pack_shard` takes them."""
        shard, (key, ranges) = self._find(index)
        try:
            with (self.place / shard.name).open() as file:
                return key, dict(_members(file, ranges))
        except EOFError as error:
            raise self._error(index, f"a file that ends before {error}") from error
        except (InputError, OSError) as error:
            raise self._error(index, f"an unreadable file ({error})") from error

    def _find(self, index: int) -> tuple[ShardEntry, tuple[str, ByteRanges]]:
        place = index + len(self) if index < 0 else index
        if not 0 <= place < len(self):
            raise IndexError(f"sample must be below {len(self)}, got {index}")
        number = bisect.bisect_right(self._ends, place)
        start = self._ends[number] - self.shards[number].num_samples
        return self.shards[number], self._index_of(number)[place - start]

    def _load_index(self, number: int) -> ShardIndex:
        return read_index(self.place, self.shards[number])

    def _error(self, index: int, found: str) -> ArtifactError:
        shard, (key, _) = self._find(index)
        return ArtifactError(
            f"sample {key} of shard {shard.name} must be readable, got {found}; "
            "check the corpus with build_pairs.py --validate and make the pairs again"
        )


def read_manifest(place: Place) -> Manifest:
    """Read the manifest of a corpus."""
    path = place / MANIFEST_NAME
    if not path.is_file():
        raise ArtifactError(f"manifest must be a JSON file, got no file at {path}; make it again")
    found = parse_json(path.read_bytes(), what="manifest", name=str(path))
    return Manifest.from_json(found, name=str(path))


def read_index(place: Place, shard: ShardEntry) -> ShardIndex:
    """Read the byte index of a shard and check that it is the one the manifest means."""
    path = place / index_name(shard.name)
    if not path.is_file():
        raise ArtifactError(
            f"byte index must be beside its shard, got no file at {path}; make the pairs again"
        )
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != shard.index_sha256:
        raise ArtifactError(
            f"byte index must be the one its manifest describes, got another file {path}; "
            "make the pairs again"
        )
    index = parse_index(data, name=shard.name)
    if len(index) != shard.num_samples:
        raise ArtifactError(
            f"byte index {path} must list {shard.num_samples} samples, got {len(index)}; "
            "make the pairs again"
        )
    return index


def problems_of(place: Place, shard: ShardEntry) -> Iterator[ArtifactError]:
    """Hash a shard and its index; yield what is wrong with them."""
    path = place / shard.name
    if not path.is_file():
        yield _missing(path)
        return
    found = path.sha256()
    if found != shard.sha256:
        yield ArtifactError(
            f"shard {path} must have sha256 {shard.sha256}, got {found}; make the pairs again"
        )
    try:
        read_index(place, shard)
    except ArtifactError as error:
        yield error


def shards_of(manifest: Manifest, place: Place) -> list[ShardEntry]:
    """Read the entries of all shards from a manifest."""
    found = manifest.outputs.get("shards")
    return [_entry(item, place) for item in (found if isinstance(found, list) else [None])]


def _entry(item: JsonValue, place: Place) -> ShardEntry:
    match item:
        case {
            "name": str(name),
            "sha256": str(sha256),
            "num_bytes": int(num_bytes),
            "num_samples": int(num_samples),
            "index_sha256": str(index_sha256),
            "dropped": dict(dropped),
            "source": str(source),
            "split": str(split),
        } if SHARD_FORM.fullmatch(name) and all(isinstance(n, int) for n in dropped.values()):
            return ShardEntry(
                name=name,
                sha256=sha256,
                num_bytes=num_bytes,
                num_samples=num_samples,
                index_sha256=index_sha256,
                dropped={reason: n for reason, n in dropped.items() if isinstance(n, int)},
                source=source,
                split=split,
            )
    raise ArtifactError(
        "manifest of pairs must list name, sha256, num_bytes, num_samples and index_sha256 of "
        f"every shard, got {item!r} in {place}; make the pairs again"
    )


def _check_size(place: Place, shard: ShardEntry, sizes: Mapping[str, int]) -> None:
    size = sizes.get(shard.name)
    if size is None:
        raise _missing(place / shard.name)
    if size != shard.num_bytes:
        raise ArtifactError(
            f"shard {place / shard.name} must have {shard.num_bytes} bytes, got {size}; "
            "make the pairs again"
        )


def _missing(path: Place) -> ArtifactError:
    return ArtifactError(
        f"shard must be beside its manifest, got no file at {path}; make the pairs again"
    )


def _members(file: BinaryIO, ranges: ByteRanges) -> Iterator[tuple[str, bytes]]:
    for extension, (offset, size) in ranges.items():
        file.seek(offset)
        data = file.read(size)
        if len(data) != size:
            raise EOFError(extension)
        yield extension, data
