"""What is left of a chunk when a worker is done with it: two files of a shard, and a record.

A part is finished when its record is there; the record is written last. Parts lie below the key of
their source, so another corpus with the same source and settings finds them.
"""

import base64
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, cast

from PIL import Image

from dreambooth3d.artifacts.jsonfile import JsonValue, json_bytes, parse_json
from dreambooth3d.artifacts.place import Place
from dreambooth3d.artifacts.shard import PackedShard, ShardEntry, index_name
from dreambooth3d.errors import ArtifactError
from dreambooth3d.pairs.records import Rejected

# People look at a few refused pictures of each reason; more would only fill the disk.
_EXAMPLES_A_REASON = 3
_EXAMPLE_SIDE = 160


@dataclass(frozen=True, kw_only=True)
class SampleNote:
    """What later steps must know of a sample without opening it.

    Attributes:
        key: of the sample.
        subject: whose picture it is; splits go by it.
        target_hash, reference_hash: perceptual hashes, 64 bits.
    """

    key: str
    subject: str
    target_hash: int
    reference_hash: int


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
        licences: samples by licence.
        attributions: who must be named, sorted.
    """

    shard: ShardEntry
    samples: tuple[SampleNote, ...]
    examples: tuple[Example, ...] = ()
    licences: dict[str, int] = field(default_factory=dict)
    attributions: tuple[str, ...] = ()

    @property
    def num_records(self) -> int:
        """Records the part was made of."""
        return len(self.samples) + sum(self.shard.dropped.values())


def choose_examples(rejected: Sequence[Rejected]) -> tuple[Example, ...]:
    """Keep the first few of every reason."""
    seen: Counter[str] = Counter()
    examples = []
    for item in rejected:
        seen[item.reason] += 1
        if seen[item.reason] <= _EXAMPLES_A_REASON:
            examples.append(
                Example(
                    origin=item.origin,
                    reason=item.reason,
                    sentence=item.sentence,
                    picture="" if item.picture is None else _small_jpeg(item.picture),
                )
            )
    return tuple(examples)


def write_part(place: Place, shard: PackedShard, record: PartRecord) -> None:
    """Write a part; the record last."""
    name = shard.entry.name
    (place / index_name(name)).write_bytes(shard.index)
    (place / name).write_bytes(shard.tar)
    content = cast(dict[str, JsonValue], asdict(record))
    record_place(place, name).write_bytes(json_bytes(content, what=f"the record of {name}"))


def read_part(place: Place, name: str) -> PartRecord | None:
    """Read the record of a part; None when there is none, or its tar is not the one it means."""
    path = record_place(place, name)
    if not path.is_file():
        return None
    found = parse_json(path.read_bytes(), what="part record", name=str(path))
    record = _parse(cast(dict[str, Any], found), str(path))
    tar = place / name
    is_whole = tar.is_file() and tar.sha256() == record.shard.sha256
    return record if is_whole else None


def record_place(place: Place, name: str) -> Place:
    """Where the record of a part lies."""
    return place / f"{name.removesuffix('.tar')}.record.json"


def _parse(found: dict[str, Any], name: str) -> PartRecord:
    try:
        return PartRecord(
            shard=ShardEntry(**found["shard"]),
            samples=tuple(SampleNote(**note) for note in found["samples"]),
            examples=tuple(Example(**example) for example in found["examples"]),
            licences=found["licences"],
            attributions=tuple(found["attributions"]),
        )
    except (KeyError, TypeError) as error:
        raise ArtifactError(
            f"part record must be one this version wrote, got another form in {name} ({error}); "
            "delete its folder and run again"
        ) from error


def _small_jpeg(picture: Image.Image) -> str:
    small = picture.convert("RGB")
    small.thumbnail((_EXAMPLE_SIDE, _EXAMPLE_SIDE))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=80)
    return base64.b64encode(buffer.getvalue()).decode("ascii")
