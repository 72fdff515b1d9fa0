"""From parts to shards: near-duplicates go, splits part, latents are added."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from dreambooth3d.artifacts.pairs import write_shard
from dreambooth3d.artifacts.place import Place
from dreambooth3d.artifacts.shard import (
    Members,
    ShardEntry,
    index_name,
    pack_shard,
    parse_index,
)
from dreambooth3d.pairs.parts import PartRecord
from dreambooth3d.pairs.splits import Split, split_of

# Adds members to those of a sample, or returns them as they are.
Encode = Callable[[Members], Members]
_SPLITS: tuple[Split, ...] = ("train", "held_out")


@dataclass(frozen=True, kw_only=True)
class FinishRules:
    """What is done to every part.

    Attributes:
        held_out_share: of the subjects, 0 to 1.
        seed: of the split.
    """

    held_out_share: float
    seed: int


def finish_part(
    parts: Place,
    record: PartRecord,
    duplicates: frozenset[str],
    rules: FinishRules,
    corpus: Place,
    *,
    encode: Encode | None = None,
) -> list[ShardEntry]:
    """Write the shards of one part into the corpus; none when no sample is left.

    Args:
        parts: where the part lies.
        record: of the part.
        duplicates: keys of samples that must go.
        rules: of the split.
        corpus: where the shards go.
        encode: adds latents to a sample.
    """
    dropped = dict(record.shard.dropped)
    if duplicates:
        dropped["near_duplicate"] = len(duplicates)
    splits = _splits_of(record, rules)
    if encode is None and not duplicates and len(set(splits.values())) == 1:
        return [_copy(parts, record, corpus, next(iter(splits.values())), rules)]
    samples = [item for item in read_samples(parts, record.shard) if item[0] not in duplicates]
    entries: list[ShardEntry] = []
    for split in _SPLITS:
        own = [(key, members) for key, members in samples if splits[key] == split]
        if own:
            packed = pack_shard(
                shard_name(record.shard.name, split, rules),
                own if encode is None else _encoded(own, encode),
                dropped={} if entries else dropped,
                source=record.shard.source,
                split=split,
            )
            entries.append(write_shard(corpus, packed))
    return entries


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


def _splits_of(record: PartRecord, rules: FinishRules) -> Mapping[str, Split]:
    return {
        note.key: split_of(note.subject, rules.held_out_share, rules.seed)
        for note in record.samples
    }


def _encoded(
    samples: Iterable[tuple[str, Members]], encode: Encode
) -> Iterator[tuple[str, Members]]:
    return ((key, encode(members)) for key, members in samples)


def _copy(
    parts: Place, record: PartRecord, corpus: Place, split: Split, rules: FinishRules
) -> ShardEntry:
    """Take the part's tar as it is: the bytes need not travel."""
    old, name = record.shard.name, shard_name(record.shard.name, split, rules)
    (parts / index_name(old)).copy_to(corpus / index_name(name))
    (parts / old).copy_to(corpus / name)
    return replace(record.shard, name=name, split=split)
