"""Damage in a Parquet file is told, row by row where the footer says how many rows there are."""

from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dreambooth3d.errors import InputError
from dreambooth3d.pairs.records import RawPair, Record, Rejected
from dreambooth3d.pairs.sources.subjects200k import group_sizes
from tests.pairs.sources.subjects200k_files import SCHEMA, good_row, write_rows
from tests.pairs.sources.test_subjects200k import read_all, source_of

NUM_SEEDS = 100
NUM_ROWS, GROUP_ROWS = 6, 2


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    return [good_row(i) for i in range(NUM_ROWS)]


def good_rows(records: list[Record]) -> set[int]:
    return {int(str(r.meta["row"])) for r in records if isinstance(r, RawPair)}


def group_span(path: Path, group: int) -> slice:
    """Where the pages of a row group are."""
    found = pq.read_metadata(path).row_group(group)
    columns = [found.column(i) for i in range(found.num_columns)]
    start = min(c.dictionary_page_offset or c.data_page_offset for c in columns)
    return slice(start, start + sum(c.total_compressed_size for c in columns))


@pytest.mark.parametrize("has_checksums", [True, False])
def test_random_damage_is_counted(
    tmp_path: Path, rows: list[dict[str, Any]], has_checksums: bool
) -> None:
    path = tmp_path / "a.parquet"
    table = pa.Table.from_pylist(rows, schema=SCHEMA)
    pq.write_table(table, path, row_group_size=GROUP_ROWS, write_page_checksum=has_checksums)
    whole = path.read_bytes()
    spans = [group_span(path, group) for group in range(NUM_ROWS // GROUP_ROWS)]
    for seed in range(NUM_SEEDS):
        rng, data = Random(seed), bytearray(whole)
        start, size = rng.randrange(4, len(data)), rng.choice((1, 1, 8, 300))
        stretch = data[start : start + size]
        data[start : start + size] = rng.choice((bytes(len(stretch)), rng.randbytes(len(stretch))))
        path.write_bytes(data)
        try:
            chunks = source_of(tmp_path).chunks()
        except InputError as error:
            # The footer is whole, but names other columns.
            assert "must have the column" in str(error) or "must hold bytes" in str(error)  # noqa: PT017
            continue
        assert chunks
        records = read_all(source_of(tmp_path))
        if start >= spans[-1].stop:
            continue
        assert len(records) == 2 * NUM_ROWS
        end = start + size
        untouched = [g for g, s in enumerate(spans) if end <= s.start or start >= s.stop]
        expected = {g * GROUP_ROWS + row for g in untouched for row in range(GROUP_ROWS)}
        assert expected <= good_rows(records), seed


def test_a_file_without_a_footer_says_that_nobody_knows_its_rows(
    tmp_path: Path, rows: list[dict[str, Any]]
) -> None:
    write_rows(tmp_path / "0.parquet", rows[:1])
    data = write_rows(tmp_path / "1.parquet", rows).read_bytes()
    (tmp_path / "1.parquet").write_bytes(data[:-10])
    *good, lost = read_all(source_of(tmp_path))
    assert len(good) == 2
    assert isinstance(lost, Rejected)
    assert lost.origin == "1.parquet"
    assert "table 1.parquet must have a sound footer, got: " in lost.sentence
    assert "the whole file is unreadable and counts as one record" in lost.sentence


def test_a_broken_page_costs_rows_of_its_group_alone(
    tmp_path: Path, rows: list[dict[str, Any]]
) -> None:
    path = write_rows(tmp_path / "a.parquet", rows, row_group_size=GROUP_ROWS)
    span, data = group_span(path, 1), bytearray(path.read_bytes())
    data[span] = bytes(span.stop - span.start)
    path.write_bytes(data)
    records = read_all(source_of(tmp_path))
    assert good_rows(records) == {0, 1, 4, 5}
    lost = [r for r in records if isinstance(r, Rejected)]
    assert [r.origin for r in lost] == [f"a.parquet, row {row}" for row in (2, 2, 3, 3)]
    assert all("copy a.parquet again" in r.sentence for r in lost)


def footer_with(path: Path, byte: int, wanted: list[int], total: int) -> None:
    """Change one byte of a footer so that row groups, and all of it, claim these rows."""
    whole = path.read_bytes()
    length = int.from_bytes(whole[-8:-4], "little")
    for place in range(len(whole) - 8 - length, len(whole) - 8):
        # Two rows a group, six in all.
        if whole[place] not in (4, 12):
            continue
        data = whole[:place] + bytes([byte]) + whole[place + 1 :]
        try:
            found = pq.read_metadata(pa.BufferReader(data))
            claimed = [found.row_group(i).num_rows for i in range(found.num_row_groups)]
        except (OSError, pa.ArrowException):
            continue
        if (claimed, found.num_rows) == (wanted, total):
            path.write_bytes(data)
            return
    raise AssertionError(f"no byte makes a footer claim {wanted}")


@pytest.mark.parametrize(
    ("byte", "claimed", "total", "lost"),
    [
        # Numbers of rows are zigzag varints: 6 is three, 1 is minus one, 10 is five.
        (6, [2, 3, 2], 6, "columns of 2, 3 rows"),
        (1, [2, -1, 2], 6, "columns of -1, 2 rows"),
        (10, [2, 2, 2], 5, "6 rows in all row groups, but 5 in the footer"),
    ],
)
def test_a_footer_that_cannot_be_true_is_a_drop(
    tmp_path: Path,
    rows: list[dict[str, Any]],
    byte: int,
    claimed: list[int],
    total: int,
    lost: str,
) -> None:
    path = write_rows(tmp_path / "a.parquet", rows, row_group_size=GROUP_ROWS)
    footer_with(path, byte, claimed, total)
    records = read_all(source_of(tmp_path))
    (rejected,) = (r for r in records if isinstance(r, Rejected))
    assert lost in rejected.sentence
    assert "counts as one record, for nobody can say how many it had" in rejected.sentence
    # Behind a group of unknown size, rows are numbered from what is known.
    num_good = len(records) - 1
    assert good_rows(records) == set(range(num_good // 2))
    assert num_good == (2 * NUM_ROWS if total != NUM_ROWS else 2 * (NUM_ROWS - GROUP_ROWS))


def test_no_footer_makes_more_rows_than_its_file_has_bytes(
    tmp_path: Path, rows: list[dict[str, Any]]
) -> None:
    path = write_rows(tmp_path / "a.parquet", rows, row_group_size=GROUP_ROWS)
    metadata = pq.read_metadata(path)
    assert group_sizes(metadata, most_rows=2) == [2, 2, 2]
    assert group_sizes(metadata, most_rows=1) == ["a claim of 2 rows in 1 bytes"] * 3
