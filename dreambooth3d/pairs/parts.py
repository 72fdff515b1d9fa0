"""Parts: what a worker makes of one chunk, two files of a shard and a record.

A part is finished when its record is there; the record is written last. Parts lie below the key of
their source, so another corpus with the same source and settings finds them.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, cast

from dreambooth3d.artifacts.jsonfile import JsonValue, open_sealed, sealed_json
from dreambooth3d.artifacts.pairs import problems_of, write_shard
from dreambooth3d.artifacts.place import Place
from dreambooth3d.artifacts.shard import Members, PackedShard, ShardEntry, pack_shard
from dreambooth3d.errors import ArtifactError
from dreambooth3d.pairs.chain import Chain
from dreambooth3d.pairs.cutting import RememberingSegmenter
from dreambooth3d.pairs.records import Chunk, Sample, SampleNote, Source
from dreambooth3d.pairs.refusals import DropLog, Refusal


@dataclass(frozen=True, kw_only=True)
class PartRecord:
    """The record of one part.

    Attributes:
        shard: of the part's tar; its `dropped` counts what was refused so far.
        samples: one note a sample, in the order of the tar.
        refused: all records that were left out, in the order of the source.
    """

    shard: ShardEntry
    samples: tuple[SampleNote, ...]
    refused: tuple[Refusal, ...] = ()

    @property
    def num_records(self) -> int:
        """Records the part was made of."""
        return len(self.samples) + len(self.refused)


@dataclass(frozen=True, kw_only=True)
class Part:
    """A part before it is written."""

    shard: PackedShard
    record: PartRecord


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
        refused=tuple(drops.refusals),
    )
    return Part(shard=shard, record=record)


def write_part(place: Place, part: Part) -> None:
    """Write a part; the record last."""
    name = write_shard(place, part.shard).name
    content = cast(dict[str, JsonValue], asdict(part.record))
    _record_place(place, name).write_bytes(sealed_json(content, what=f"the record of {name}"))


def read_part(place: Place, name: str) -> PartRecord | None:
    """Read the record of a part; None when it has to be made: no record, or damaged files."""
    if not _record_place(place, name).is_file():
        return None
    try:
        record = read_record(place, name)
    except ArtifactError:
        return None
    is_damaged = any(True for _ in problems_of(place, record.shard))
    return None if is_damaged else record


def read_record(place: Place, name: str) -> PartRecord:
    """Read the record of a part that is there, without a look at its tar.

    Raises:
        ArtifactError: its content is not what was written.
    """
    path = _record_place(place, name)
    found = open_sealed(path.read_bytes(), what="part record", name=str(path))
    record = _parse(cast(dict[str, Any], found), str(path))
    if record.shard.name != name:
        raise ArtifactError(
            f"part record {path} must be of {name}, got that of {record.shard.name}; "
            "delete its folder and run again"
        )
    return record


def _record_place(place: Place, name: str) -> Place:
    return place / f"{name.removesuffix('.tar')}.record.json"


def _parse(found: dict[str, Any], name: str) -> PartRecord:
    try:
        return PartRecord(
            shard=ShardEntry(**found["shard"]),
            samples=tuple(SampleNote(**note) for note in found["samples"]),
            refused=tuple(Refusal(**refusal) for refusal in found["refused"]),
        )
    except (KeyError, TypeError) as error:
        raise ArtifactError(
            f"part record must be one this version wrote, got another form in {name} ({error}); "
            "delete its folder and run again"
        ) from error
