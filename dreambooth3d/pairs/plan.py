"""What a corpus is made of: its sources, their chunks, and the keys that say what is done."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dreambooth3d.artifacts.key import artifact_key
from dreambooth3d.pairs.records import Chunk, Source

# Raised when a source or an operator makes something else of the same input.
PART_REVISION = 1


@dataclass(frozen=True, kw_only=True)
class PlannedSource:
    """A source and its place in a corpus.

    Attributes:
        label: of its shards and sample keys: its name, with a number from the second of a kind on.
        source: the plug.
        chunks: all of it, in order.
        key: of its parts; other sources make no difference to it.
    """

    label: str
    source: Source
    chunks: tuple[Chunk, ...]
    key: str

    @property
    def num_records(self) -> int:
        """Records expected."""
        return sum(chunk.num_records for chunk in self.chunks)

    def part_name(self, index: int) -> str:
        """Name the tar of a chunk."""
        return f"{self.label}-{index:06d}.tar"

    def part_names(self) -> Iterator[str]:
        """Name the tars of all chunks, in order."""
        return (self.part_name(chunk.index) for chunk in self.chunks)


def plan_sources(sources: Sequence[Source], operators: str) -> tuple[PlannedSource, ...]:
    """List every source's chunks.

    Args:
        sources: in the order of the corpus.
        operators: hash of all settings that decide what becomes of a record.

    Raises:
        InputError: a source as a whole cannot be used.
    """
    planned: list[PlannedSource] = []
    for source in sources:
        number = 1 + sum(1 for item in planned if item.source.name == source.name)
        label = source.name if number == 1 else f"{source.name}{number}"
        content = {"label": label, "operators": operators}
        planned.append(
            PlannedSource(
                label=label,
                source=source,
                chunks=tuple(source.chunks()),
                key=artifact_key("part", PART_REVISION, content, (source.fingerprint(),)),
            )
        )
    return tuple(planned)
