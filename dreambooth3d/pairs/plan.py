"""What a corpus is made of: its sources, their chunks, and the keys that say what is done."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dreambooth3d.artifacts.key import artifact_key
from dreambooth3d.pairs.records import Chunk, Source

# Raised when a source or an operator makes something else of the same input.
PART_REVISION = 5


@dataclass(frozen=True, kw_only=True)
class ShardPlan:
    """Which parts become one shard (one of every split).

    Attributes:
        name: of its tar.
        parts: numbers of its chunks.
    """

    name: str
    parts: range


@dataclass(frozen=True, kw_only=True)
class PlannedSource:
    """A source and its place in a corpus.

    Attributes:
        label: of its shards and sample keys: its name, with a number from the second of a kind on.
        source: the plug.
        chunks: all of it, in order.
        shards: what its parts become, in order.
        key: of its parts; other sources make no difference to it.
    """

    label: str
    source: Source
    chunks: tuple[Chunk, ...]
    shards: tuple[ShardPlan, ...]
    key: str

    @property
    def num_records(self) -> int:
        """Records expected."""
        return sum(chunk.num_records for chunk in self.chunks)

    def part_name(self, index: int) -> str:
        """Name the tar of a chunk."""
        return _tar_name(self.label, index)

    def part_names(self) -> Iterator[str]:
        """Name the tars of all chunks, in order."""
        return (self.part_name(chunk.index) for chunk in self.chunks)


def plan_sources(
    sources: Sequence[Source], operators: str, *, samples_per_shard: int
) -> tuple[PlannedSource, ...]:
    """List every source's chunks.

    Args:
        sources: in the order of the corpus.
        operators: hash of all settings that decide what becomes of a record.
        samples_per_shard: most that a shard should hold.

    Raises:
        InputError: a source as a whole cannot be used.
    """
    planned: list[PlannedSource] = []
    for source in sources:
        number = 1 + sum(1 for item in planned if item.source.name == source.name)
        label = source.name if number == 1 else f"{source.name}{number}"
        content = {"label": label, "operators": operators}
        chunks = tuple(source.chunks())
        planned.append(
            PlannedSource(
                label=label,
                source=source,
                chunks=chunks,
                shards=tuple(_shards(label, chunks, samples_per_shard)),
                key=artifact_key("part", PART_REVISION, content, (source.fingerprint(),)),
            )
        )
    return tuple(planned)


def _shards(label: str, chunks: Sequence[Chunk], most: int) -> Iterator[ShardPlan]:
    """Gather neighbouring chunks; one that is larger than a shard stands alone."""
    first = count = number = 0
    for place, chunk in enumerate(chunks):
        if place > first and count + chunk.num_records > most:
            yield ShardPlan(name=_tar_name(label, number), parts=range(first, place))
            first, count, number = place, 0, number + 1
        count += chunk.num_records
    if chunks:
        yield ShardPlan(name=_tar_name(label, number), parts=range(first, len(chunks)))


def _tar_name(label: str, number: int) -> str:
    return f"{label}-{number:06d}.tar"
