"""From parts to shards: near-duplicates go, splits part, latents are added.

Finished shards lie on a shelf whose name says all that decides them, with a record that is written
last, so another corpus that begins with the same sources takes them as they are.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, cast

from dreambooth3d.artifacts.jsonfile import JsonValue, open_sealed, sealed_json
from dreambooth3d.artifacts.pairs import problems_of, write_shard
from dreambooth3d.artifacts.place import Place
from dreambooth3d.artifacts.shard import (
    META,
    Members,
    ShardEntry,
    decode_pair,
    encode_meta,
    index_name,
    pack_shard,
    parse_index,
)
from dreambooth3d.errors import ArtifactError
from dreambooth3d.pairs.parts import PartRecord
from dreambooth3d.pairs.records import Rejected, SampleNote
from dreambooth3d.pairs.refusals import DropLog, Refusal
from dreambooth3d.pairs.splits import HELD_OUT, Split, split_of

# Adds members to those of a sample.
Encode = Callable[[str, Members], Members]
_SPLITS: tuple[Split, ...] = ("train", "held_out")


@dataclass(frozen=True, kw_only=True)
class FinishRules:
    """What is done to all parts.

    Attributes:
        held_out_share: of the subjects, 0 to 1.
        seed: of the split.
        samples_per_shard: most that a shard should hold.
    """

    held_out_share: float = 0.0
    seed: int = 0
    samples_per_shard: int = 128


@dataclass(frozen=True, kw_only=True)
class FinishedShard:
    """The record of what some parts became.

    Attributes:
        name: of the plan they were made by.
        shards: one of every split; none when no sample is left.
        num_by_licence: samples by licence.
        attributions: who must be named, sorted.
        dropped: records of the parts that were left out, by reason.
        duplicates: those of them that were left out last.
    """

    name: str
    shards: tuple[ShardEntry, ...]
    num_by_licence: dict[str, int]
    attributions: tuple[str, ...]
    dropped: dict[str, int]
    duplicates: tuple[Refusal, ...] = ()


def finish_shard(
    name: str,
    parts: Place,
    records: Sequence[PartRecord],
    duplicates: frozenset[str],
    rules: FinishRules,
    shelf: Place,
    *,
    encode: Encode | None = None,
) -> FinishedShard:
    """Write what some parts become onto the shelf, then its record.

    Args:
        name: of the tar.
        parts: where the parts lie.
        records: of the parts, in order.
        duplicates: keys of samples that must go.
        rules: of the split.
        shelf: where the shards go.
        encode: adds latents to a sample.
    """
    drops = _log_duplicates(parts, records, duplicates)
    refused = (refusal.reason for record in records for refusal in record.refused)
    dropped = dict(sorted((drops.counts + Counter(refused)).items()))
    kept = [note for record in records for note in record.samples if note.key not in duplicates]
    splits = {note.key: split_by(note, rules) for note in kept}
    untold = _untold(kept, splits, rules)
    is_as_it_was = (
        encode is None
        and not duplicates
        and not untold
        and len(records) == 1
        and len(set(splits.values())) == 1
    )
    if is_as_it_was:
        split = next(iter(splits.values()))
        shards = [_copy(parts, records[0], shelf, shard_name(name, split, rules), split)]
    else:
        samples = [
            (key, _with_split(members, untold[key]) if key in untold else members)
            for record in records for key, members in read_samples(parts, record.shard)
            if key in splits
        ]  # fmt: skip
        source = records[0].shard.source
        shards = _pack(name, source, samples, shelf, splits, dropped, rules, encode)
    finished = FinishedShard(
        name=name,
        shards=tuple(shards),
        num_by_licence=dict(sorted(Counter(note.licence for note in kept).items())),
        attributions=tuple(sorted({note.attribution for note in kept} - {""})),
        dropped=dropped,
        duplicates=tuple(drops.refusals),
    )
    content = cast(dict[str, JsonValue], asdict(finished))
    _record_place(shelf, name).write_bytes(sealed_json(content, what=f"the record of {name}"))
    return finished


def is_finished(shelf: Place, name: str) -> bool:
    """Say whether an earlier run finished a shard, and its files are still whole."""
    if not _record_place(shelf, name).is_file():
        return False
    try:
        shards = read_finished(shelf, name).shards
    except ArtifactError:
        return False
    return not any(True for shard in shards for _ in problems_of(shelf, shard))


def read_finished(shelf: Place, name: str) -> FinishedShard:
    """Read the record of a finished shard.

    Raises:
        ArtifactError: its content is not what was written.
    """
    path = _record_place(shelf, name)
    opened = open_sealed(path.read_bytes(), what="shard record", name=str(path))
    found = cast(dict[str, Any], opened)
    try:
        finished = FinishedShard(
            name=found["name"],
            shards=tuple(ShardEntry(**shard) for shard in found["shards"]),
            num_by_licence=found["num_by_licence"],
            attributions=tuple(found["attributions"]),
            dropped=found["dropped"],
            duplicates=tuple(Refusal(**refusal) for refusal in found["duplicates"]),
        )
    except (KeyError, TypeError) as error:
        raise ArtifactError(
            f"shard record must be one this version wrote, got another form in {path} ({error}); "
            "delete its folder and run again"
        ) from error
    if finished.name != name:
        raise ArtifactError(
            f"shard record {path} must be of {name}, got that of {finished.name}; "
            "delete its folder and run again"
        )
    return finished


def shard_name(name: str, split: Split, rules: FinishRules) -> str:
    """Name a shard of the corpus; the split is in it where there are several."""
    if rules.held_out_share == 0 and split == "train":
        return name
    stem, number = name.removesuffix(".tar").rsplit("-", 1)
    return f"{stem}-{split}-{number}.tar"


def read_samples(parts: Place, shard: ShardEntry) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Yield the samples of a part; its tar is read once."""
    tar = (parts / shard.name).read_bytes()
    index = parse_index((parts / index_name(shard.name)).read_bytes(), name=shard.name)
    for key, ranges in index:
        yield key, {name: tar[start : start + size] for name, (start, size) in ranges.items()}


def split_by(note: SampleNote, rules: FinishRules) -> Split:
    """Return the split of a sample; one that the corpus it comes from held out stays so."""
    if note.split == HELD_OUT:
        return HELD_OUT
    return split_of(note.subject, rules.held_out_share, rules.seed)


def _untold(
    kept: Sequence[SampleNote], splits: Mapping[str, Split], rules: FinishRules
) -> dict[str, Split]:
    """Splits, by key, of samples whose json does not say them yet.

    Where no split is made, `train` is nobody's choice; who was held out before says so already.
    """
    if rules.held_out_share == 0:
        return {}
    return {note.key: splits[note.key] for note in kept if note.split != splits[note.key]}


def _with_split(members: Members, split: Split) -> Members:
    """Write the split into a sample, which may leave its shard, or find it renamed."""
    meta = json.loads(members[META]) | {"split": split}
    return {**members, META: encode_meta(meta, what="a finished sample")}


def _log_duplicates(
    parts: Place, records: Sequence[PartRecord], duplicates: frozenset[str]
) -> DropLog:
    drops = DropLog()
    for record in records:
        if duplicates.isdisjoint(note.key for note in record.samples):
            continue
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


def _pack(
    name: str,
    source: str,
    samples: Sequence[tuple[str, Members]],
    shelf: Place,
    splits: Mapping[str, Split],
    dropped: Mapping[str, int],
    rules: FinishRules,
    encode: Encode | None,
) -> list[ShardEntry]:
    """Write one shard a split, of the samples that have one."""
    entries: list[ShardEntry] = []
    for split in _SPLITS:
        own = [(key, members) for key, members in samples if splits[key] == split]
        if own:
            packed = pack_shard(
                shard_name(name, split, rules),
                own if encode is None else _encoded(own, encode),
                # Counted once, though a part may become two shards.
                dropped={} if entries else dropped,
                source=source,
                split=split,
            )
            entries.append(write_shard(shelf, packed))
    return entries


def _encoded(
    samples: Iterable[tuple[str, Members]], encode: Encode
) -> Iterator[tuple[str, Members]]:
    return ((key, encode(key, members)) for key, members in samples)


def _copy(parts: Place, record: PartRecord, shelf: Place, name: str, split: Split) -> ShardEntry:
    """Take the part's tar as it is: the bytes need not travel."""
    old = record.shard.name
    (parts / index_name(old)).copy_to(shelf / index_name(name))
    (parts / old).copy_to(shelf / name)
    return replace(record.shard, name=name, split=split)


def _record_place(shelf: Place, name: str) -> Place:
    return shelf / f"{name.removesuffix('.tar')}.finished.json"
