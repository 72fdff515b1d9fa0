"""Parts: what a worker makes of one chunk, two files of a shard and a record.

A part is finished when its record is there; the record is written last. Parts lie below the key of
their source, so another corpus with the same source and settings finds them.
"""

import base64
import io
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, cast

from PIL import Image

from dreambooth3d.artifacts.image import flatten
from dreambooth3d.artifacts.jsonfile import JsonValue, json_bytes, parse_json
from dreambooth3d.artifacts.pairs import problems_of, write_shard
from dreambooth3d.artifacts.place import Place
from dreambooth3d.artifacts.shard import Members, PackedShard, ShardEntry, pack_shard
from dreambooth3d.errors import ArtifactError
from dreambooth3d.pairs.chain import Chain
from dreambooth3d.pairs.cutting import RememberingSegmenter
from dreambooth3d.pairs.records import Chunk, Rejected, Sample, SampleNote, Source

# People look at a few refused pictures of each reason; more would only fill the disk.
_EXAMPLES_A_REASON = 3
_EXAMPLE_SIDE = 160


@dataclass(frozen=True, kw_only=True)
class Example:
    """A refused record that people can look at; `picture` is a small JPEG in base64, or empty."""

    origin: str
    reason: str
    sentence: str
    picture: str


@dataclass(frozen=True, kw_only=True)
class PartRecord:
    """The record of one part.

    Attributes:
        shard: of the part's tar; its `dropped` counts what was refused so far.
        samples: one note a sample, in the order of the tar.
        examples: refused records to look at.
    """

    shard: ShardEntry
    samples: tuple[SampleNote, ...]
    examples: tuple[Example, ...] = ()

    @property
    def num_records(self) -> int:
        """Records the part was made of."""
        return len(self.samples) + sum(self.shard.dropped.values())


@dataclass(frozen=True, kw_only=True)
class Part:
    """A part before it is written."""

    shard: PackedShard
    record: PartRecord


class DropLog:
    """Counts refused records by reason, and keeps the first few of each to look at."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.examples: list[Example] = []

    def add(self, rejected: Rejected) -> None:
        """Count one; its picture is not kept as it is, for a chunk may have hundreds."""
        self.counts[rejected.reason] += 1
        if self.counts[rejected.reason] <= _EXAMPLES_A_REASON:
            picture = "" if rejected.picture is None else _small_jpeg(rejected.picture)
            self.examples.append(
                Example(
                    origin=rejected.origin,
                    reason=rejected.reason,
                    sentence=rejected.sentence,
                    picture=picture,
                )
            )


def make_part(source: Source, chunk: Chunk, chain: Chain, *, label: str, name: str) -> Part:
    """Send the records of a chunk through the chain.

    Args:
        source: of the chunk.
        chunk: one of its own.
        chain: the operators.
        label: of the source within the corpus.
        name: of the part's tar.
    """
    drops, notes = DropLog(), list[SampleNote]()
    own = replace(chain, segmenter=RememberingSegmenter(chain.segmenter))

    def passed() -> Iterator[tuple[str, Members]]:
        for record in source.read(chunk):
            made = own(record, label=label, is_photo=source.needs_segmentation)
            if isinstance(made, Sample):
                notes.append(made.note)
                yield made.note.key, made.members
            else:
                drops.add(made)

    shard = pack_shard(name, passed(), dropped=drops.counts, source=label)
    record = PartRecord(
        shard=shard.entry,
        samples=tuple(sorted(notes, key=lambda note: note.key)),
        examples=tuple(drops.examples),
    )
    return Part(shard=shard, record=record)


def write_part(place: Place, part: Part) -> None:
    """Write a part; the record last."""
    name = write_shard(place, part.shard).name
    content = cast(dict[str, JsonValue], asdict(part.record))
    _record_place(place, name).write_bytes(json_bytes(content, what=f"the record of {name}"))


def read_part(place: Place, name: str) -> PartRecord | None:
    """Read the record of a part; None when there is none, or its files are not those it means."""
    if not _record_place(place, name).is_file():
        return None
    record = read_record(place, name)
    is_damaged = any(True for _ in problems_of(place, record.shard))
    return None if is_damaged else record


def read_record(place: Place, name: str) -> PartRecord:
    """Read the record of a part that is there, without a look at its tar."""
    path = _record_place(place, name)
    found = parse_json(path.read_bytes(), what="part record", name=str(path))
    return _parse(cast(dict[str, Any], found), str(path))


def _record_place(place: Place, name: str) -> Place:
    return place / f"{name.removesuffix('.tar')}.record.json"


def _parse(found: dict[str, Any], name: str) -> PartRecord:
    try:
        return PartRecord(
            shard=ShardEntry(**found["shard"]),
            samples=tuple(SampleNote(**note) for note in found["samples"]),
            examples=tuple(Example(**example) for example in found["examples"]),
        )
    except (KeyError, TypeError) as error:
        raise ArtifactError(
            f"part record must be one this version wrote, got another form in {name} ({error}); "
            "delete its folder and run again"
        ) from error


def _small_jpeg(picture: Image.Image) -> str:
    small = flatten(picture)
    small.thumbnail((_EXAMPLE_SIDE, _EXAMPLE_SIDE))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=80)
    return base64.b64encode(buffer.getvalue()).decode("ascii")
