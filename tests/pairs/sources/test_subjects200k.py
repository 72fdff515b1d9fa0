import io
import math
import pickle
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from dreambooth3d.artifacts.place import Place
from dreambooth3d.errors import ConfigError, InputError
from dreambooth3d.pairs.records import RawPair, Record, Rejected
from dreambooth3d.pairs.sources.subjects200k import Subjects200KSource
from tests.pairs.sources.subjects200k_files import (
    GREEN,
    SCHEMA,
    composite,
    encoded,
    good_row,
    two_panels,
    write_rows,
)
from tests.s3_server import s3_url, serve_s3

Row = dict[str, Any]


def source_of(path: Path, **settings: Any) -> Subjects200KSource:
    return Subjects200KSource(place=Place.parse(str(path)), **settings)


def read_all(source: Subjects200KSource) -> list[Record]:
    chunks = source.chunks()
    assert [chunk.index for chunk in chunks] == list(range(len(chunks)))
    found = [list(source.read(chunk)) for chunk in chunks]
    assert [len(records) for records in found] == [chunk.num_records for chunk in chunks]
    return [record for records in found for record in records]


def pixels(picture: bytes | Image.Image) -> np.ndarray:
    assert isinstance(picture, Image.Image)
    return np.asarray(picture).astype(int)


def test_both_directions_come_each_with_the_caption_of_its_target(tmp_path: Path) -> None:
    write_rows(tmp_path / "train-0.parquet", [good_row(0), good_row(1)])
    records = read_all(source_of(tmp_path))
    assert [record.key for record in records] == [
        "00000-00000000-left",
        "00000-00000000-right",
        "00000-00000001-left",
        "00000-00000001-right",
    ]
    for index, record in enumerate(records):
        assert isinstance(record, RawPair)
        row, target = divmod(index, 2)
        panels = [np.asarray(panel)[1:-1, 1:-1].astype(int) for panel in two_panels(row)]
        assert np.abs(pixels(record.target) - panels[target]).mean() < 4
        assert np.abs(pixels(record.reference) - panels[1 - target]).mean() < 4
        assert record.caption == f"Thing {row} on the {('left', 'right')[target]}."
        assert record.subject == f"thing {row}"
        assert record.class_noun == f"Thing {row}"
        assert record.meta["collection"] == f"collection_{1 + row}"
        assert record.meta["least_score"] == 5
        assert record.licence == "Apache-2.0"
        assert "Subjects200K" in record.attribution
        assert f"row {row}" in record.origin


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_no_colour_of_the_strips_is_left_at_full_size(tmp_path: Path, form: str) -> None:
    row = good_row(0)
    row["image"]["bytes"] = encoded(composite(*two_panels(0, size=512)), form)
    write_rows(tmp_path / "a.parquet", [row])
    for record in read_all(source_of(tmp_path)):
        assert isinstance(record, RawPair)
        for picture in (record.reference, record.target):
            rgb = pixels(picture)
            assert rgb.shape == (510, 510, 3)
            green = np.abs(rgb - np.array(GREEN)).max(axis=2) < 100
            assert green.sum() == 0


def test_pictures_may_be_bytes_without_a_record(tmp_path: Path) -> None:
    row = good_row(0)
    row["image"] = row["image"]["bytes"]
    schema = SCHEMA.set(0, pa.field("image", pa.large_binary()))
    write_rows(tmp_path / "a.parquet", [row], schema=schema)
    assert all(isinstance(record, RawPair) for record in read_all(source_of(tmp_path)))


def without_scores(row: Row) -> None:
    row["quality_assessment"] = None


def lower_score(row: Row) -> None:
    row["quality_assessment"]["objectConsistency"] = 4


def null_score(row: Row) -> None:
    row["quality_assessment"]["imageQuality"] = None


def wild_score(row: Row) -> None:
    row["quality_assessment"]["imageQuality"] = 99


def invalid_description(row: Row) -> None:
    row["description"]["description_valid"] = False


def no_description(row: Row) -> None:
    row["description"] = None


def blank_captions(row: Row) -> None:
    row["description"] |= {"description_0": " \n", "description_1": None}


def no_image(row: Row) -> None:
    row["image"] = None


def no_bytes(row: Row) -> None:
    row["image"] = {"bytes": None, "path": "/etc/passwd"}


def empty_bytes(row: Row) -> None:
    row["image"]["bytes"] = b""


def broken_bytes(row: Row) -> None:
    row["image"]["bytes"] = row["image"]["bytes"][: len(row["image"]["bytes"]) // 2]


def no_picture(row: Row) -> None:
    row["image"]["bytes"] = b"%PDF-1.4 not a picture"


def one_panel(row: Row) -> None:
    row["image"]["bytes"] = encoded(two_panels(0)[0])


def gigapixel_header(row: Row) -> None:
    buffer = io.BytesIO()
    Image.new("1", (1, 1)).save(buffer, format="PNG")
    data = bytearray(buffer.getvalue())
    data[16:24] = (40_000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
    row["image"]["bytes"] = bytes(data)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (without_scores, "failed_source_quality"),
        (lower_score, "failed_source_quality"),
        (null_score, "failed_source_quality"),
        (wild_score, "bad_row"),
        (invalid_description, "failed_source_quality"),
        (no_description, "bad_caption"),
        (blank_captions, "bad_caption"),
        (no_image, "bad_row"),
        (no_bytes, "bad_row"),
        (empty_bytes, "bad_row"),
        (broken_bytes, "unreadable_picture"),
        (no_picture, "unsupported_picture"),
        (one_panel, "bad_row"),
        (gigapixel_header, "too_many_pixels"),
    ],
)
def test_bad_rows_are_left_out_and_their_neighbours_stay(
    tmp_path: Path, spoil: Callable[[Row], None], reason: str
) -> None:
    rows = [good_row(0), good_row(1), good_row(2)]
    spoil(rows[1])
    write_rows(tmp_path / "a.parquet", rows)
    records = read_all(source_of(tmp_path))
    assert [isinstance(record, Rejected) for record in records] == [False] * 2 + [True] * 2 + [
        False
    ] * 2
    for record in records[2:4]:
        assert isinstance(record, Rejected)
        assert record.reason == reason
        assert "must" in record.sentence
        assert ", got" in record.sentence
        assert "row 1" in record.origin


def test_a_row_may_lose_one_direction_only(tmp_path: Path) -> None:
    row = good_row(0)
    row["description"]["description_0"] = ""
    write_rows(tmp_path / "a.parquet", [row])
    left, right = read_all(source_of(tmp_path))
    assert isinstance(left, Rejected)
    assert isinstance(right, RawPair)
    assert left.picture is not None
    assert left.picture.size == (62, 62)


def test_nan_is_a_bad_row(tmp_path: Path) -> None:
    scores = pa.struct([(field.name, pa.float64()) for field in SCHEMA.field(2).type])
    row = good_row(0)
    row["quality_assessment"] = dict.fromkeys(row["quality_assessment"], 5.0) | {
        "imageQuality": math.nan
    }
    schema = SCHEMA.set(2, pa.field("quality_assessment", scores))
    write_rows(tmp_path / "a.parquet", [row], schema=schema)
    assert {r.reason for r in read_all(source_of(tmp_path)) if isinstance(r, Rejected)} == {
        "bad_row"
    }


def test_unrated_rows_are_taken_when_asked_for(tmp_path: Path) -> None:
    rows = [good_row(0), good_row(1)]
    without_scores(rows[0])
    lower_score(rows[1])
    write_rows(tmp_path / "a.parquet", rows)
    assert all(isinstance(r, RawPair) for r in read_all(source_of(tmp_path, min_quality=0)))
    taken = [isinstance(r, RawPair) for r in read_all(source_of(tmp_path, min_quality=4))]
    assert taken == [False, False, True, True]


@pytest.mark.parametrize("index", range(4))
def test_a_missing_column_is_named_with_its_file(tmp_path: Path, index: int) -> None:
    write_rows(tmp_path / "0.parquet", [good_row(0)])
    row = good_row(0)
    name = SCHEMA.names[index]
    del row[name]
    write_rows(tmp_path / "below" / "1.parquet", [row], schema=SCHEMA.remove(index))
    with pytest.raises(InputError, match=rf"below/1\.parquet must have the column {name}, got"):
        source_of(tmp_path).chunks()


def test_a_missing_field_is_named(tmp_path: Path) -> None:
    fields = [field for field in SCHEMA.field(3).type if field.name != "description_1"]
    schema = SCHEMA.set(3, pa.field("description", pa.struct(fields)))
    write_rows(tmp_path / "0.parquet", [good_row(0)], schema=schema)
    with pytest.raises(InputError, match=r"must have the column description\.description_1"):
        source_of(tmp_path).chunks()


def test_pictures_of_another_type_are_named(tmp_path: Path) -> None:
    row = good_row(0)
    row["image"] = "picture.jpg"
    schema = SCHEMA.set(0, pa.field("image", pa.string()))
    write_rows(tmp_path / "0.parquet", [row], schema=schema)
    with pytest.raises(InputError, match=r"column image of .* must hold bytes"):
        source_of(tmp_path).chunks()


def test_no_files_is_an_error_of_the_source(tmp_path: Path) -> None:
    (tmp_path / ".hidden").mkdir()
    write_rows(tmp_path / ".hidden" / "0.parquet", [good_row(0)])
    with pytest.raises(InputError, match=r"must hold \.parquet files"):
        source_of(tmp_path).chunks()


def test_a_file_without_a_footer_is_one_bad_row(tmp_path: Path) -> None:
    write_rows(tmp_path / "0.parquet", [good_row(0)])
    data = write_rows(tmp_path / "1.parquet", [good_row(1)]).read_bytes()
    (tmp_path / "1.parquet").write_bytes(data[:-10])
    (tmp_path / "2.parquet").write_bytes(b"")
    records = read_all(source_of(tmp_path))
    assert [isinstance(record, RawPair) for record in records] == [True, True, False, False]
    assert all(r.reason == "bad_row" for r in records if isinstance(r, Rejected))


def test_chunks_stay_within_row_groups_and_touch_nothing_else(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "0.parquet", [good_row(i) for i in range(7)], row_group_size=3)
    source = source_of(tmp_path, records_per_chunk=4)
    chunks = source.chunks()
    assert [chunk.num_records for chunk in chunks] == [4, 2, 4, 2, 2]
    whole = {record.key: record for record in read_all(source)}
    metadata = pq.read_metadata(path)
    data = bytearray(path.read_bytes())
    for group in (0, 2):
        columns = [metadata.row_group(group).column(i) for i in range(metadata.num_columns)]
        first = min(column.dictionary_page_offset or column.data_page_offset for column in columns)
        size = sum(column.total_compressed_size for column in columns)
        data[first : first + size] = b"\xff" * size
    path.write_bytes(bytes(data))
    found = [record for chunk in chunks[2:4] for record in source.read(chunk)]
    assert [record.key for record in found] == [k for k in whole if 3 <= int(k.split("-")[1]) < 6]
    for record in found:
        assert isinstance(record, RawPair)
        same = whole[record.key]
        assert isinstance(same, RawPair)
        assert pixels(record.target).tolist() == pixels(same.target).tolist()
    damaged = [record for chunk in (*chunks[:2], chunks[4]) for record in source.read(chunk)]
    assert len(damaged) == 8
    assert all(isinstance(record, Rejected) for record in damaged)
    assert {r.reason for r in damaged if isinstance(r, Rejected)} == {"bad_row"}


def test_the_fingerprint_goes_by_content_and_settings(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a" / "0.parquet", [good_row(0)])
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "0.parquet").write_bytes(path.read_bytes())
    first = source_of(tmp_path / "a").fingerprint()
    assert source_of(tmp_path / "b").fingerprint() == first
    assert source_of(path).fingerprint() == first
    assert source_of(path, inset=0).fingerprint() != first
    write_rows(path, [good_row(1)])
    assert source_of(path).fingerprint() != first


def test_hostile_names_and_items_stay_out_of_keys(tmp_path: Path) -> None:
    row = good_row(0)
    row["description"]["item"] = "\x1b[31m ../../x\n" + "long " * 100
    # Arrow itself cannot write to such a name.
    write_rows(tmp_path / "0.parquet", [row]).rename(tmp_path / "new\nline \udcff.parquet")
    for record in read_all(source_of(tmp_path)):
        assert isinstance(record, RawPair)
        assert record.key.replace("-", "").isalnum()
        for text in (record.origin, record.subject, record.class_noun, str(record.meta["file"])):
            assert text.isprintable()
            assert len(text) < 250


@pytest.mark.parametrize(
    "wrong", [{"min_quality": 6}, {"padding": -1}, {"inset": -1}, {"records_per_chunk": 1}]
)
def test_settings_have_ranges(tmp_path: Path, wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(wrong))} must be"):
        source_of(tmp_path, **wrong)


def test_a_table_in_an_object_store_gives_the_same_pairs(tmp_path: Path, address: str) -> None:
    path = write_rows(tmp_path / "0.parquet", [good_row(i) for i in range(3)], row_group_size=2)
    far = Place.parse(s3_url(address, tmp_path.name))
    (far / "data/0.parquet").write_bytes(path.read_bytes())
    source = pickle.loads(pickle.dumps(Subjects200KSource(place=far)))  # noqa: S301
    for one, other in zip(read_all(source_of(tmp_path)), read_all(source), strict=True):
        assert isinstance(one, RawPair)
        assert isinstance(other, RawPair)
        assert one.key == other.key
        assert one.caption == other.caption
        assert pixels(one.target).tolist() == pixels(other.target).tolist()


def test_a_store_that_went_away_is_no_reason_to_drop_pairs(tmp_path: Path) -> None:
    with serve_s3(tmp_path / "served") as address:
        far = Place.parse(s3_url(address, "x"))
        table = write_rows(tmp_path / "0.parquet", [good_row(0)])
        (far / "0.parquet").write_bytes(table.read_bytes())
        source = Subjects200KSource(place=far)
        (chunk,) = source.chunks()
    with pytest.raises(InputError, match=r"place s3://bucket/x.* must be readable"):
        list(source.read(chunk))
