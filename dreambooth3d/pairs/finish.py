"""From parts to shards: near-duplicates go, splits part, latents are added.

Finished shards lie on a shelf whose name says all that decides them, with a record that is written
last, so another corpus that begins with the same sources takes them as they are.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, cast

from dreambooth3d.artifacts.jsonfile import JsonValue, json_bytes, parse_json
from dreambooth3d.artifacts.pairs import problems_of, write_shard
from dreambooth3d.artifacts.place import Place
from dreambooth3d.artifacts.shard import (
    Members,
    ShardEntry,
    decode_pair,
    index_name,
    pack_shard,
    parse_index,
)
from dreambooth3d.errors import ArtifactError
from dreambooth3d.pairs.parts import DropLog, Example, PartRecord
from dreambooth3d.pairs.records import Rejected
from dreambooth3d.pairs.splits import Split, split_of

# Adds members to those of a sample.
Encode = Callable[[str, Members], Members]
_SPLITS: tuple[Split, ...] = ("train", "held_out")


@dataclass(frozen=True, kw_only=True)
class FinishRules:
    """What is done to every part.

    Attributes:
        held_out_share: of the subjects, 0 to 1.
        seed: of the split.
    """

    held_out_share: float = 0.0
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class FinishedPart:
    """The record of a part's shards.

    Attributes:
        shards: none when no sample is left.
        num_by_licence: samples by licence.
        attributions: who must be named, sorted.
        dropped: records of the part that were left out, by reason.
        examples: of the duplicates, to look at.
    """

    shards: tuple[ShardEntry, ...]
    num_by_licence: dict[str, int]
    attributions: tuple[str, ...]
    dropped: dict[str, int]
    examples: tuple[Example, ...] = ()


def finish_part(
    parts: Place,
    record: PartRecord,
    duplicates: frozenset[str],
    rules: FinishRules,
    shelf: Place,
    *,
    encode: Encode | None = None,
) -> FinishedPart:
    """Write the shards of one part onto the shelf, then their record.

    Args:
        parts: where the part lies.
        record: of the part.
        duplicates: keys of samples that must go.
        rules: of the split.
        shelf: where the shards go.
        encode: adds latents to a sample.
    """
    drops = _log_duplicates(parts, record, duplicates)
    dropped = dict(sorted((drops.counts + Counter(record.shard.dropped)).items()))
    kept = [note for note in record.samples if note.key not in duplicates]
    splits = {note.key: split_of(note.subject, rules.held_out_share, rules.seed) for note in kept}
    is_as_it_was = encode is None and not duplicates and len(set(splits.values())) == 1
    if is_as_it_was:
        shards = [_copy(parts, record, shelf, next(iter(splits.values())), rules)]
    else:
        shards = _repack(parts, record, shelf, splits, dropped, rules, encode)
    finished = FinishedPart(
        shards=tuple(shards),
        num_by_licence=dict(sorted(Counter(note.licence for note in kept).items())),
        attributions=tuple(sorted({note.attribution for note in kept} - {""})),
        dropped=dropped,
        examples=tuple(drops.examples),
    )
    name = record.shard.name
    content = cast(dict[str, JsonValue], asdict(finished))
    _record_place(shelf, name).write_bytes(json_bytes(content, what=f"the record of {name}"))
    return finished


def is_finished(shelf: Place, name: str) -> bool:
    """Say whether an earlier run finished a part, and its shards are still whole."""
    if not _record_place(shelf, name).is_file():
        return False
    shards = read_finished(shelf, name).shards
    return not any(True for shard in shards for _ in problems_of(shelf, shard))


def read_finished(shelf: Place, name: str) -> FinishedPart:
    """Read the record of a finished part."""
    path = _record_place(shelf, name)
    found = cast(dict[str, Any], parse_json(path.read_bytes(), what="shard record", name=str(path)))
    try:
        return FinishedPart(
            shards=tuple(ShardEntry(**shard) for shard in found["shards"]),
            num_by_licence=found["num_by_licence"],
            attributions=tuple(found["attributions"]),
            dropped=found["dropped"],
            examples=tuple(Example(**example) for example in found["examples"]),
        )
    except (KeyError, TypeError) as error:
        raise ArtifactError(
            f"shard record must be one this version wrote, got another form in {path} ({error}); "
            "delete its folder and run again"
        ) from error


def shard_name(part: str, split: Split, rules: FinishRules) -> str:
    """Name a shard of the corpus; the split is in it where there are several."""
    if rules.held_out_share == 0:
        return part
    stem, number = part.removesuffix(".tar").rsplit("-", 1)
    return f"{stem}-{split}-{number}.tar"


def read_samples(parts: Place, shard: ShardEntry) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Yield the samples of a part; its tar is read once."""
    tar = (parts / shard.name).read_bytes()
    index = parse_index((parts / index_name(shard.name)).read_bytes(), name=shard.name)
    for key, ranges in index:
        yield key, {name: tar[start : start + size] for name, (start, size) in ranges.items()}


def _log_duplicates(parts: Place, record: PartRecord, duplicates: frozenset[str]) -> DropLog:
    drops = DropLog()
    if not duplicates:
        return drops
    for key, members in read_samples(parts, record.shard):
        if key in duplicates:
            pair = decode_pair(key, members)
            drops.add(
                Rejected(
                    key=key,
                    origin=str(pair.meta["origin"]),
                    reason="near_duplicate",
                    sentence="pair must look unlike every pair kept before it, got one like it",
                    picture=pair.target,
                )
            )
    return drops


def _repack(
    parts: Place,
    record: PartRecord,
    shelf: Place,
    splits: Mapping[str, Split],
    dropped: Mapping[str, int],
    rules: FinishRules,
    encode: Encode | None,
) -> list[ShardEntry]:
    """Write one shard a split, of the samples that have one."""
    samples = [item for item in read_samples(parts, record.shard) if item[0] in splits]
    entries: list[ShardEntry] = []
    for split in _SPLITS:
        own = [(key, members) for key, members in samples if splits[key] == split]
        if own:
            packed = pack_shard(
                shard_name(record.shard.name, split, rules),
                own if encode is None else _encoded(own, encode),
                # Counted once, though a part may become two shards.
                dropped={} if entries else dropped,
                source=record.shard.source,
                split=split,
            )
            entries.append(write_shard(shelf, packed))
    return entries


def _encoded(
    samples: Iterable[tuple[str, Members]], encode: Encode
) -> Iterator[tuple[str, Members]]:
    return ((key, encode(key, members)) for key, members in samples)


def _copy(
    parts: Place, record: PartRecord, shelf: Place, split: Split, rules: FinishRules
) -> ShardEntry:
    """Take the part's tar as it is: the bytes need not travel."""
    old, name = record.shard.name, shard_name(record.shard.name, split, rules)
    (parts / index_name(old)).copy_to(shelf / index_name(name))
    (parts / old).copy_to(shelf / name)
    return replace(record.shard, name=name, split=split)


def _record_place(shelf: Place, name: str) -> Place:
    return shelf / f"{name.removesuffix('.tar')}.finished.json"
