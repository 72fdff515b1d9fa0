"""Source `subjects200k`: Parquet in the schema of Subjects200K (arXiv 2411.15098).

A row is one composite picture of two panels, three scores of 0 to 5, and a description of each
panel. Each row gives two pairs: every panel is once the target, with the caption of its own.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dreambooth3d.artifacts.jsonfile import JsonValue
from dreambooth3d.artifacts.key import artifact_key
from dreambooth3d.artifacts.place import Place, PlacedFile
from dreambooth3d.artifacts.settings import require_range
from dreambooth3d.errors import InputError
from dreambooth3d.pairs.records import Chunk, Record, Rejected
from dreambooth3d.pairs.sources.chunking import pack_name, unpack_name, whole, words
from dreambooth3d.pairs.sources.listing import list_files
from dreambooth3d.pairs.sources.origin import printable
from dreambooth3d.pairs.sources.subjects200k_row import (
    BEST_SCORE,
    SCORES,
    SIDES,
    RowRules,
    read_row,
)

_REVISION = 2
# Every column, and the fields it must have.
_SCHEMA: Mapping[str, tuple[str, ...]] = {
    "image": (),
    "collection": (),
    "quality_assessment": SCORES,
    "description": ("item", "description_0", "description_1", "category", "description_valid"),
}
# Rows that are decoded at a time: a composite is about 150 kB.
_ROWS_AT_ONCE = 8
# Damage shows as either; so does a store that cannot be reached, see `_require_bytes`.
_DAMAGE = (OSError, pa.ArrowException)


@dataclass(frozen=True, kw_only=True)
class Subjects200KSource:
    """Rows of Parquet files, in the order of the files' names.

    Attributes:
        place: a folder of Parquet files, or one file.
        min_quality: the least of a row's three scores that is taken; 0 takes unrated rows too.
        padding: width of the strips around panels, pixels; None finds it from the picture's size.
        inset: pixels left out at each edge of a panel, where JPEG mixes the colours of a seam.
        records_per_chunk: pairs in a shard, at most; a chunk stays within one row group.
        licence: of the pictures.
        attribution: who must be named.
    """

    place: Place
    min_quality: int = BEST_SCORE
    padding: int | None = None
    inset: int = 1
    records_per_chunk: int = 128
    licence: str = "Apache-2.0"
    attribution: str = "Subjects200K (Tan et al., arXiv 2411.15098)"

    name = "subjects200k"
    needs_segmentation = True

    def __post_init__(self) -> None:
        require_range(self, "min_quality", least=0, most=BEST_SCORE)
        require_range(self, "inset", least=0, most=64)
        require_range(self, "records_per_chunk", least=2)
        if self.padding is not None:
            require_range(self, "padding", least=0, most=256)

    def fingerprint(self) -> str:
        """A hash of the settings and the files."""
        folder, files = self._files()
        settings = {name: value for name, value in asdict(self).items() if name != "place"}
        return artifact_key(self.name, _REVISION, settings, (folder.fingerprint(files),))

    def chunks(self) -> Sequence[Chunk]:
        """Row ranges within row groups; the number of records is exact.

        A file whose footer cannot be read is one record, and so is a row group whose number of rows
        cannot be true: how many pairs are lost with it, nobody can say.

        Raises:
            InputError: there are no Parquet files, or one lacks a column.
        """
        folder, files = self._files()
        chunks: list[Chunk] = []
        for number, file in enumerate(files):
            for payload, num_records in self._ranges(folder, file):
                chunks.append(
                    Chunk(
                        index=len(chunks),
                        payload={"file": pack_name(file.name), "number": number, **payload},
                        num_records=num_records,
                    )
                )
        return chunks

    def remarks(self) -> Sequence[str]:
        """Nothing beyond its settings."""
        return ()

    def read(self, chunk: Chunk) -> Iterator[Record]:
        """Read the rows of a chunk; nothing of other row groups is touched."""
        file, number = unpack_name(chunk.payload["file"]), whole(chunk.payload["number"])
        if "damage" in chunk.payload:
            yield _unreadable(f"{number:05d}", file, chunk.payload)
            return
        first, rules = whole(chunk.payload["first_row"]), self._rules()
        num_rows, done = chunk.num_records // len(SIDES), 0
        found: object = "fewer rows than its footer says"
        try:
            for cells in _rows(self._folder() / file, chunk.payload, num_rows):
                row = first + done
                yield from read_row(
                    cells,
                    rules,
                    key=f"{number:05d}-{row:08d}",
                    origin=f"{printable(file)}, row {row}",
                    meta={"source": self.name, "file": printable(file), "row": row},
                )
                done += 1
        except _DAMAGE as error:
            _require_bytes(self._folder() / file)
            found = error
        for row in range(first + done, first + num_rows):
            for side in SIDES:
                yield _damaged(f"{number:05d}-{row:08d}-{side}", file, row, found)

    def _rules(self) -> RowRules:
        return RowRules(
            min_quality=self.min_quality,
            padding=self.padding,
            inset=self.inset,
            licence=self.licence,
            attribution=self.attribution,
        )

    def _files(self) -> tuple[Place, tuple[PlacedFile, ...]]:
        return list_files(self.place, ".parquet", what=self.name)

    def _folder(self) -> Place:
        return self.place.parent if self.place.is_file() else self.place

    def _ranges(
        self, folder: Place, file: PlacedFile
    ) -> Iterator[tuple[dict[str, JsonValue], int]]:
        """Yield payload and number of records of every chunk of a file."""
        try:
            with (folder / file.name).open() as opened:
                metadata = pq.read_metadata(opened)
                schema = metadata.schema.to_arrow_schema()
                sizes = group_sizes(metadata, most_rows=file.size)
        except (*_DAMAGE, UnicodeDecodeError) as error:
            _require_bytes(folder / file.name)
            yield {"damage": " ".join(str(error).split())}, 1
            return
        check_schema(schema, file=f"{folder.url.rstrip('/')}/{printable(file.name)}")
        step, row = self.records_per_chunk // len(SIDES), 0
        for group, num_rows in enumerate(sizes):
            if isinstance(num_rows, str):
                yield {"damage": num_rows, "row_group": group}, 1
                continue
            for first in range(0, num_rows, step):
                payload: dict[str, JsonValue] = {
                    "row_group": group,
                    "first_in_group": first,
                    "first_row": row + first,
                }
                yield payload, min(step, num_rows - first) * len(SIDES)
            row += num_rows


def check_schema(schema: Any, *, file: str) -> None:
    """Raise an `InputError` that names the first column, or field of one, that is missing."""
    for column, children in _SCHEMA.items():
        if column not in schema.names:
            raise _missing(column, file, ", ".join(schema.names))
        kind = schema.field(column).type
        found = [field.name for field in kind] if pa.types.is_struct(kind) else []
        for child in children:
            if child not in found:
                raise _missing(f"{column}.{child}", file, ", ".join(found) or str(kind))
    image = schema.field("image").type
    is_struct = pa.types.is_struct(image)
    data = image.field("bytes").type if is_struct and image.get_field_index("bytes") >= 0 else image
    if not (pa.types.is_binary(data) or pa.types.is_large_binary(data)):
        raise InputError(
            f"column image of {file} must hold bytes, or a record with bytes, got {image}; "
            "write the pictures into the table"
        )


def group_sizes(metadata: Any, *, most_rows: int) -> list[int | str]:
    """Return the number of rows of every row group, or what shows that it is not true.

    Args:
        metadata: the footer of a Parquet file.
        most_rows: a row takes a byte at least; a footer may claim any number.
    """
    is_flat = [
        metadata.schema.column(place).max_repetition_level == 0
        for place in range(metadata.num_columns)
    ]
    sizes: list[int | str] = []
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        counts = {group.num_rows} | {
            group.column(place).num_values
            for place in range(group.num_columns)
            if place < len(is_flat) and is_flat[place]
        }
        if len(counts) > 1:
            sizes.append(f"columns of {', '.join(map(str, sorted(counts)))} rows")
        elif not 0 <= group.num_rows <= most_rows:
            sizes.append(f"a claim of {group.num_rows} rows in {most_rows} bytes")
        else:
            sizes.append(int(group.num_rows))
    num_known = sum(size for size in sizes if isinstance(size, int))
    if len(sizes) == sum(isinstance(size, int) for size in sizes) and num_known != (
        metadata.num_rows
    ):
        sizes.append(f"{num_known} rows in all row groups, but {metadata.num_rows} in the footer")
    return sizes


def _missing(column: str, file: str, found: str) -> InputError:
    return InputError(
        f"table {file} must have the column {column}, got {found}; "
        "use files in the schema of Subjects200K"
    )


def _rows(file: Place, payload: Mapping[str, JsonValue], num_rows: int) -> Iterator[dict[str, Any]]:
    """Yield the cells of a chunk's rows, a few decoded at a time."""
    skipped = whole(payload["first_in_group"])
    with file.open() as opened:
        table = pq.ParquetFile(
            opened, buffer_size=1 << 20, pre_buffer=False, page_checksum_verification=True
        )
        batches = table.iter_batches(
            batch_size=_ROWS_AT_ONCE,
            row_groups=[whole(payload["row_group"])],
            columns=list(_SCHEMA),
            use_threads=False,
        )
        position = 0
        for batch in batches:
            for index in range(batch.num_rows):
                if skipped <= position < skipped + num_rows:
                    yield _cells(batch, index)
                position += 1
            if position >= skipped + num_rows:
                return


def _cells(batch: Any, index: int) -> dict[str, Any]:
    """Convert one row; a text that is no UTF-8, or a date that is none, becomes None."""
    cells: dict[str, Any] = {}
    for name in _SCHEMA:
        try:
            cells[name] = batch.column(name)[index].as_py()
        except (ValueError, OverflowError):
            cells[name] = None
    return cells


def _require_bytes(file: Place) -> None:
    """Raise an `InputError` when it is the store that failed, not the table."""
    file.read_at(0, 1)


def _damaged(key: str, file: str, row: int, found: object) -> Rejected:
    return Rejected(
        key=key,
        origin=f"{printable(file)}, row {row}",
        reason="bad_row",
        sentence=f"table must be undamaged, got: {' '.join(str(found).split())}; "
        f"copy {printable(file)} again",
    )


def _unreadable(key: str, file: str, payload: Mapping[str, JsonValue]) -> Rejected:
    """Refuse a file, or one of its row groups, of which nobody knows how many rows it has."""
    group = payload.get("row_group")
    what = "the whole file" if group is None else f"row group {group} of the file"
    return Rejected(
        key=key if group is None else f"{key}-group-{group}",
        origin=printable(file) if group is None else f"{printable(file)}, row group {group}",
        reason="bad_row",
        sentence=f"table {printable(file)} must have a sound footer, got: "
        f"{words(payload['damage'])}; {what} is unreadable and counts as one record, for nobody "
        "can say how many it had: copy the file again",
    )
