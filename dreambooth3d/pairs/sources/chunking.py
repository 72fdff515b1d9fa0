"""Divide a source into chunks, and read a chunk's payload back with its types."""

from urllib.parse import quote, unquote

from dreambooth3d.artifacts.jsonfile import JsonValue
from dreambooth3d.errors import ArtifactError
from dreambooth3d.pairs.records import Chunk


def fixed_chunks(num_records: int, records_per_chunk: int) -> tuple[Chunk, ...]:
    """Chunks that hold the number of their first record under `first`."""
    firsts = range(0, num_records, records_per_chunk)
    return tuple(
        Chunk(
            index=index,
            payload={"first": first},
            num_records=min(records_per_chunk, num_records - first),
        )
        for index, first in enumerate(firsts)
    )


def pack_name(name: str) -> str:
    """Spell a file name in ASCII, so that any JSON can carry it: names are bytes, not text."""
    return quote(name, safe="/ ", errors="surrogateescape")


def unpack_name(value: JsonValue) -> str:
    """Read what `pack_name` wrote."""
    return unquote(words(value), errors="surrogateescape")


def whole(value: JsonValue) -> int:
    """Read a whole number."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise _payload_error("whole numbers", value)


def words(value: JsonValue) -> str:
    """Read a text."""
    if isinstance(value, str):
        return value
    raise _payload_error("text", value)


def rows(value: JsonValue) -> list[list[JsonValue]]:
    """Read a list of lists."""
    if isinstance(value, list) and all(isinstance(row, list) for row in value):
        return [row for row in value if isinstance(row, list)]
    raise _payload_error("lists", value)


def record(value: JsonValue) -> dict[str, JsonValue]:
    """Read named values."""
    if isinstance(value, dict):
        return value
    raise _payload_error("named values", value)


def _payload_error(rule: str, value: JsonValue) -> ArtifactError:
    return ArtifactError(
        f"payload of a chunk must hold {rule} where its source wrote them, got {value!r}; "
        "take chunks from the source that reads them"
    )
