"""Nothing is silent: whatever is wrong with an input, it is a counted drop with a reason."""

import json
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dreambooth3d.errors import InputError
from dreambooth3d.pairs.config import PairsConfig
from tests.pairs.corpora import build_here, object_photo, png
from tests.pairs.sources.test_webdataset import Members, sample, write_tar

NUM_RECORDS = 300
GOOD = png(object_photo(1, (32, 32)))
HEADER = bytearray(png(object_photo(1)))
HEADER[16:24] = (60_000).to_bytes(4, "big") * 2
HEADER[29:33] = zlib.crc32(bytes(HEADER[12:29])).to_bytes(4, "big")


def good(number: int) -> dict[str, bytes | None]:
    return {"reference_png": GOOD, "target_jpg": png(object_photo(number, (32, 32)))}


def meta(text: str) -> dict[str, bytes | None]:
    return {"json": text.encode()}


# What is done to a good sample, and what it is counted as.
DAMAGES: tuple[tuple[str, Callable[[int], dict[str, bytes | None]]], ...] = (
    ("kept", lambda n: {}),
    ("unreadable_picture", lambda n: {"target_jpg": GOOD[: 60 + n]}),
    ("unsupported_picture", lambda n: {"reference_png": f"<svg>{n}</svg>".encode()}),
    ("unreadable_picture", lambda n: {"target_jpg": b""}),
    ("too_many_pixels", lambda n: {"reference_png": bytes(HEADER)}),
    ("missing_member", lambda n: {"target_jpg": None}),
    ("bad_row", lambda n: meta('{"score": NaN}')),
    ("bad_row", lambda n: meta('{"score": ')),
    ("bad_row", lambda n: meta('["no", "record"]')),
    ("bad_caption", lambda n: {"txt": b" \x00\n", **meta("{}")}),
    ("bad_caption", lambda n: {"txt": b"nan", **meta('{"class_noun": ""}')}),
    ("bad_caption", lambda n: {"txt": b"\xff\xfe", **meta("{}")}),
)
SHARDS = PairsConfig(
    size=32, samples_per_shard=64, duplicate_bits=-1, quality="none", max_bad_fraction=1.0
)


def malformed(number: int) -> tuple[str, Members]:
    reason, damage = DAMAGES[number % len(DAMAGES)]
    key = f"é{number:04d}" if number % 5 == 0 else f"s{number:04d}"
    return reason, sample(key, **(good(number) | damage(number)))


@pytest.fixture(scope="module")
def tars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("malformed")
    for first in range(0, NUM_RECORDS, 100):
        found = [member for n in range(first, first + 100) for member in malformed(n)[1]]
        write_tar(folder / f"{first}.tar", found)
    return folder


def test_every_malformed_record_is_counted_with_its_reason(tars: Path, tmp_path: Path) -> None:
    expected = Counter(malformed(number)[0] for number in range(NUM_RECORDS))
    config = replace(SHARDS, sources=(f"webdataset:{tars}",))
    folder, manifest = build_here(config, tmp_path)
    dropped = manifest.outputs["dropped"]
    assert isinstance(dropped, dict)
    assert {"kept": manifest.outputs["num_samples"], **dropped} == dict(expected)
    page = (folder / "preview.html").read_text()
    assert all(reason in page for reason in dropped)


def test_members_that_would_leave_the_folder_are_counted(tmp_path: Path) -> None:
    evil = [("../../evil.txt", b"x"), ("/etc/evil.txt", b"x"), *sample("good", **good(1))]
    write_tar(tmp_path / "tars" / "a.tar", evil)
    config = replace(SHARDS, sources=(f"webdataset:{tmp_path / 'tars'}",))
    folder, manifest = build_here(config, tmp_path / "out")
    assert manifest.outputs["num_samples"] == 1
    dropped = manifest.outputs["dropped"]
    assert isinstance(dropped, dict)
    assert sum(int(str(count)) for count in dropped.values()) >= 1
    assert not list(tmp_path.parent.rglob("evil.txt"))
    assert json.loads((folder / "manifest.json").read_text())["outputs"]["num_samples"] == 1


def test_a_source_that_is_unusable_as_a_whole_is_one_error(tars: Path, tmp_path: Path) -> None:
    config = replace(SHARDS, sources=(f"webdataset:{tars}",), max_bad_fraction=0.25)
    with pytest.raises(InputError, match=r"source webdataset must have at most 25% broken"):
        build_here(config, tmp_path)
    (tmp_path / "table").mkdir()
    pq.write_table(pa.table({"image": [b"x"]}), tmp_path / "table" / "a.parquet")
    with pytest.raises(InputError, match="must have the column collection"):
        build_here(replace(SHARDS, sources=(f"subjects200k:{tmp_path / 'table'}",)), tmp_path)
    with pytest.raises(InputError, match=r"must hold pictures"):
        build_here(replace(SHARDS, sources=(f"captures:{tmp_path / 'table'}",)), tmp_path)
