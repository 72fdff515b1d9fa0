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

_REVISION = 1
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
        """Row ranges within row groups; a file whose footer is damaged is one record.

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

    def read(self, chunk: Chunk) -> Iterator[Record]:
        """Read the rows of a chunk; nothing of other row groups is touched."""
        file, number = unpack_name(chunk.payload["file"]), whole(chunk.payload["number"])
        if "damage" in chunk.payload:
            yield _damaged(f"{number:05d}", file, words(chunk.payload["damage"]))
            return
        first, rules = whole(chunk.payload["first_row"]), self._rules()
        num_rows, done = chunk.num_records // len(SIDES), 0
        rows = _rows(self._folder() / file, chunk.payload, num_rows)
        try:
            for cells in rows:
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
            for row in range(first + done, first + num_rows):
                for side in SIDES:
                    yield _damaged(f"{number:05d}-{row:08d}-{side}", f"{file}, row {row}", error)

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
        except _DAMAGE as error:
            _require_bytes(folder / file.name)
            yield {"damage": " ".join(str(error).split())}, 1
            return
        check_schema(schema, file=f"{folder.url.rstrip('/')}/{printable(file.name)}")
        step, row = self.records_per_chunk // len(SIDES), 0
        for group in range(metadata.num_row_groups):
            num_rows = metadata.row_group(group).num_rows
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


def _missing(column: str, file: str, found: str) -> InputError:
    return InputError(
        f"table {file} must have the column {column}, got {found}; "
        "use files in the schema of Subjects200K"
    )


def _rows(file: Place, payload: Mapping[str, JsonValue], num_rows: int) -> Iterator[dict[str, Any]]:
    """Yield the cells of a chunk's rows, a few decoded at a time."""
    skipped = whole(payload["first_in_group"])
    with file.open() as opened:
        table = pq.ParquetFile(opened, buffer_size=1 << 20, pre_buffer=False)
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
    """Convert one row; a text that is no UTF-8 becomes None."""
    cells: dict[str, Any] = {}
    for name in _SCHEMA:
        try:
            cells[name] = batch.column(name)[index].as_py()
        except UnicodeDecodeError:
            cells[name] = None
    return cells


def _require_bytes(file: Place) -> None:
    """Raise an `InputError` when it is the store that failed, not the table."""
    file.read_at(0, 1)


def _damaged(key: str, origin: str, found: object) -> Rejected:
    return Rejected(
        key=key,
        origin=printable(origin),
        reason="bad_row",
        sentence=f"table must be undamaged, got: {' '.join(str(found).split())}",
    )
