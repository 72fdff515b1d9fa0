import io
import json
import pickle
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dreambooth3d.artifacts.place import Place
from dreambooth3d.artifacts.shard import Pair, encode_pair, index_name, pack_shard
from dreambooth3d.errors import ConfigError, InputError
from dreambooth3d.pairs.records import RawPair, Record, Rejected
from dreambooth3d.pairs.sources.webdataset import WebDatasetSource
from tests.pairs.sources.test_tar_members import tar_of
from tests.s3_server import s3_url

Members = list[tuple[str, bytes]]


def source_of(path: Path, **settings: Any) -> WebDatasetSource:
    return WebDatasetSource(place=Place.parse(str(path)), **settings)


def read_all(source: WebDatasetSource) -> list[Record]:
    chunks = source.chunks()
    assert [chunk.index for chunk in chunks] == list(range(len(chunks)))
    records = [record for chunk in chunks for record in source.read(chunk)]
    assert len({record.key for record in records}) == len(records)
    return records


def told(records: Sequence[Record]) -> list[str]:
    return [record.reason if isinstance(record, Rejected) else "good" for record in records]


def sample(key: str, **changes: bytes | None) -> Members:
    """The members of one sample; a change replaces the bytes of an extension or leaves it out."""
    meta = {"subject": f"thing {key}", "class_noun": "thing", "licence": "CC0-1.0"}
    members: Mapping[str, bytes | None] = {
        "json": json.dumps(meta).encode(),
        "reference.png": f"reference of {key}".encode(),
        "target.jpg": f"target of {key}".encode(),
        "txt": f"caption of {key}\n".encode(),
    } | {name.replace("_", "."): data for name, data in changes.items()}
    return [(f"{key}.{name}", data) for name, data in members.items() if data is not None]


def write_tar(path: Path, members: Members, *, has_end: bool = True) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(tar_of(members, has_end=has_end, form=tarfile.GNU_FORMAT))
    return path


def test_our_own_shards_are_read_again(tmp_path: Path) -> None:
    pairs = [
        Pair(
            key=f"scenes-{number:08d}",
            reference=Image.new("RGB", (8, 8), (number, 0, 0)),
            target=Image.new("RGB", (8, 8), (0, number, 0)),
            caption=f"caption {number}",
            meta={"subject": f"s{number // 2}", "class_noun": "mug", "angle": 1.5},
            fields={"latents.safetensors": b"not for another picture"},
        )
        for number in range(5)
    ]
    packed = pack_shard("scenes-000000.tar", ((pair.key, encode_pair(pair)) for pair in pairs))
    (tmp_path / "scenes-000000.tar").write_bytes(packed.tar)
    source = source_of(tmp_path, records_per_chunk=2)
    assert [chunk.num_records for chunk in source.chunks()] == [2, 2, 1]
    for number, record in enumerate(read_all(source)):
        assert isinstance(record, RawPair)
        assert record.key == f"00000-{number:07d}"
        assert record.caption == f"caption {number}"
        assert (record.subject, record.class_noun) == (f"s{number // 2}", "mug")
        assert record.meta["angle"] == 1.5
        assert record.origin == f"scenes-000000.tar, scenes-{number:08d}"
        assert record.meta["origin_shard"] == record.origin
        assert isinstance(record.reference, bytes)
        assert Image.open(io.BytesIO(record.reference)).getpixel((0, 0)) == (number, 0, 0)
    assert not source.needs_segmentation


def test_shards_of_others_are_read_by_their_own_names(tmp_path: Path) -> None:
    members = [
        ("./x/001.input.WEBP", b"reference"),
        ("./x/001.out.jpg", b"target"),
        ("./x/001.caption.txt", b"\xef\xbb\xbf words "),
        ("./x/002.input.png", b"reference 2"),
        ("./x/002.out.jpg", b"target 2"),
    ]
    write_tar(tmp_path / "a" / "train-0.tar", members)
    source = source_of(
        tmp_path,
        reference="input.png; input.webp",
        target="out.jpg",
        caption="caption.txt",
        has_background=True,
    )
    one, two = read_all(source)
    assert isinstance(one, RawPair)
    assert isinstance(two, RawPair)
    assert (one.reference, one.target, one.caption) == (b"reference", b"target", "words")
    assert (two.reference, two.caption, two.class_noun, two.licence) == (b"reference 2", "", "", "")
    assert one.subject != two.subject
    assert pickle.loads(pickle.dumps(source)).needs_segmentation  # noqa: S301


def test_several_tars_are_merged_in_the_order_of_names(tmp_path: Path) -> None:
    for name in ("b", "a"):
        write_tar(tmp_path / f"{name}.tar", [*sample(f"{name}0"), *sample(f"{name}1")])
    records = read_all(source_of(tmp_path))
    assert [record.key for record in records] == [
        "00000-0000000",
        "00000-0000001",
        "00001-0000000",
        "00001-0000001",
    ]
    assert [r.caption for r in records if isinstance(r, RawPair)] == [
        f"caption of {key}" for key in ("a0", "a1", "b0", "b1")
    ]


@pytest.mark.parametrize(
    ("spoiled", "reason"),
    [
        (sample("../../etc/x"), "bad_member"),
        (sample("/etc/x"), "bad_member"),
        (sample("a//b"), "bad_member"),
        ([("noextension", b"")], "bad_member"),
        ([("._k1.target.jpg", b"")], "bad_member"),
        ([*sample("k1"), ("k1.txt", b"again")], "bad_member"),
        (sample("k1", reference_png=None), "missing_member"),
        (sample("k1", target_jpg=None), "missing_member"),
        ([("README.md", b"")], "missing_member"),
        (sample("k1", json=b"{"), "bad_row"),
        (sample("k1", json=b"[1]"), "bad_row"),
        (sample("k1", json=b'{"x": NaN}'), "bad_row"),
        (sample("k1", json=b'{"x": 1e999}'), "bad_row"),
        (sample("k1", json=b'{"x": "\\ud800"}'), "bad_row"),
        (sample("k1", json=b'{"x":' * 50_000), "bad_row"),
        (sample("k1", json=b"\xff\xfe\x00"), "bad_row"),
        (sample("k1", txt=b"\xff\xfe\x00"), "bad_caption"),
    ],
)
def test_a_bad_sample_is_one_record_and_its_neighbours_stay(
    tmp_path: Path, spoiled: Members, reason: str
) -> None:
    write_tar(tmp_path / "a.tar", [*sample("k0"), *spoiled, *sample("k2")])
    records = read_all(source_of(tmp_path))
    assert told(records) == ["good", reason, "good"]
    assert isinstance(records[1], Rejected)
    assert "must" in records[1].sentence
    assert ", got" in records[1].sentence
    assert len(records[1].sentence) < 600


def test_a_key_that_comes_again_is_refused(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", [*sample("k0"), *sample("k1"), *sample("k0"), *sample("k2")])
    assert told(read_all(source_of(tmp_path))) == ["good", "good", "bad_member", "good"]
    # Also when it first came in another chunk.
    assert told(read_all(source_of(tmp_path, records_per_chunk=1)))[2] == "bad_member"


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE])
def test_links_and_devices_are_never_followed(tmp_path: Path, kind: bytes) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in [*sample("k0"), *sample("k1", target_jpg=None)]:
            header = tarfile.TarInfo(name)
            header.size = len(data)
            tar.addfile(header, io.BytesIO(data))
        header = tarfile.TarInfo("k1.target.jpg")
        header.type, header.linkname = kind, "/etc/passwd"
        tar.addfile(header)
    (tmp_path / "a.tar").write_bytes(buffer.getvalue())
    records = read_all(source_of(tmp_path))
    assert told(records) == ["good", "bad_member"]
    assert isinstance(records[1], Rejected)
    assert "k1.target.jpg" in records[1].sentence


def test_a_tar_that_ends_early_keeps_what_stood_before(tmp_path: Path) -> None:
    members = [member for number in range(4) for member in sample(f"k{number}")]
    whole = tar_of(members, has_end=False)
    per_sample = len(whole) // 4
    for cut, expected in (
        (len(whole), ["good"] * 4 + ["bad_member"]),
        (len(whole) - 1, ["good"] * 4 + ["bad_member"]),
        (len(whole) - 512, ["good"] * 3 + ["bad_member"]),
        (2 * per_sample + 512, ["good"] * 2 + ["bad_member"]),
        (2 * per_sample + 2048, ["good"] * 2 + ["bad_member"]),
        (100, ["bad_member"]),
        (0, ["bad_member"]),
    ):
        (tmp_path / "a.tar").write_bytes(whole[:cut])
        for size in (1, 128):
            records = read_all(source_of(tmp_path, records_per_chunk=size))
            assert told(records) == expected, (cut, size)
            assert sum(c.num_records for c in source_of(tmp_path).chunks()) == len(expected)


def test_what_is_no_tar_is_one_bad_member_beside_good_ones(tmp_path: Path) -> None:
    write_tar(tmp_path / "good.tar", sample("k0"))
    (tmp_path / "text.tar").write_bytes(b"this is text " * 100)
    (tmp_path / "zero.tar").write_bytes(b"")
    (tmp_path / "ignored.txt").write_bytes(b"")
    assert told(read_all(source_of(tmp_path))) == ["good", "bad_member", "bad_member"]


def test_hostile_names_never_become_keys(tmp_path: Path) -> None:
    names = ("-rf", "ü ☃", "two\nlines", "\x1b[31m", "y" * 120)
    members = [member for name in names for member in sample(name, json=None)]
    write_tar(tmp_path / "new\nline.tar", members)
    records = read_all(source_of(tmp_path))
    assert told(records) == ["good"] * len(names)
    for record in records:
        assert isinstance(record, RawPair)
        assert record.key.replace("-", "").isdigit()
        assert record.origin.isprintable()
        assert record.subject.isprintable()


def with_meta(path: Path, *metas: Mapping[str, object]) -> Path:
    samples = [sample(f"k{i}", json=json.dumps(meta).encode()) for i, meta in enumerate(metas)]
    return write_tar(path, [member for members in samples for member in members])


def test_numbers_are_subjects(tmp_path: Path) -> None:
    """Tables give ids as numbers, with a point once one of them is missing."""
    spelled = ({"subject": subject} for subject in (42, 42.0, "42", "42\u200b\n"))
    with_meta(tmp_path / "a.tar", *spelled)
    source = source_of(tmp_path)
    pairs = [record for record in read_all(source) if isinstance(record, RawPair)]
    assert [pair.subject for pair in pairs] == ["42"] * 4
    assert source.remarks() == ()


def test_samples_without_a_subject_are_remarked_on(tmp_path: Path) -> None:
    with_meta(tmp_path / "a.tar", {"subject": None}, {})
    (told,) = source_of(tmp_path).remarks()
    assert told.startswith("samples without a subject, such as k0 in a.tar: each counts as a ")
    one, two = read_all(source_of(tmp_path))
    assert isinstance(one, RawPair)
    assert isinstance(two, RawPair)
    assert (one.subject, two.subject) == ("a.tar, k0", "a.tar, k1")


def test_words_of_a_sample_come_back_whole(tmp_path: Path) -> None:
    credit = "Ann " + "and a very long list of others, " * 40 + "Bob"
    meta = {
        "subject": "s" * 300, "class_noun": "n" * 300, "licence": "L" * 300,
        "attribution": f"{credit}\x1b[31m\n next",
        "origin": "red mug/1.png, reference red mug/2.png",
    }  # fmt: skip
    with_meta(tmp_path / "a.tar", meta)
    (pair,) = read_all(source_of(tmp_path))
    assert isinstance(pair, RawPair)
    assert pair.attribution == f"{credit}\\x1b[31m next"
    assert (pair.subject, pair.class_noun, pair.licence) == ("s" * 300, "n" * 300, "L" * 300)
    assert (pair.origin, pair.meta["origin_shard"]) == (meta["origin"], "a.tar, k0")
    # Once more, nothing changes.
    again = {"subject": pair.subject, "attribution": pair.attribution, "origin": pair.origin}
    with_meta(tmp_path / "a.tar", again)
    (second,) = read_all(source_of(tmp_path))
    assert isinstance(second, RawPair)
    assert (second.subject, second.attribution) == (pair.subject, pair.attribution)
    assert second.origin == pair.origin


def test_settings_and_tars_decide_the_fingerprint(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", sample("k0"))
    first = source_of(tmp_path).fingerprint()
    assert source_of(path).fingerprint() == first
    assert source_of(path, has_background=True).fingerprint() != first
    assert source_of(path, target="jpg").fingerprint() != first
    write_tar(path, sample("k1"))
    assert source_of(path).fingerprint() != first


def test_a_source_without_samples_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"must hold \.tar files"):
        source_of(tmp_path).chunks()
    write_tar(tmp_path / "empty.tar", [])
    with pytest.raises(InputError, match="must hold samples"):
        source_of(tmp_path).chunks()
    with pytest.raises(ConfigError, match="reference must be an extension"):
        source_of(tmp_path, reference="png;")


def test_tars_in_an_object_store_give_the_same_pairs(tmp_path: Path, address: str) -> None:
    far = Place.parse(s3_url(address, tmp_path.name))
    members = [member for number in range(5) for member in sample(f"k{number}")]
    path = write_tar(tmp_path / "a-000000.tar", [*members, *sample("k1")], has_end=False)
    (far / path.name).write_bytes(path.read_bytes())
    here, there = source_of(tmp_path), WebDatasetSource(place=far, records_per_chunk=2)
    assert [chunk.num_records for chunk in there.chunks()] == [1]
    assert read_all(there) == read_all(here)
    assert told(read_all(there)) == ["good"] * 5 + ["bad_member"] * 2


def test_an_index_tells_how_many_samples_are_far_away(tmp_path: Path, address: str) -> None:
    far = Place.parse(s3_url(address, tmp_path.name))
    samples = [(f"k{i}", {"reference.png": b"1", "target.jpg": b"2"}) for i in range(5)]
    packed = pack_shard("a.tar", samples)
    (far / "a.tar").write_bytes(packed.tar)
    (far / index_name("a.tar")).write_bytes(packed.index)
    source = WebDatasetSource(place=far, records_per_chunk=2)
    assert [chunk.num_records for chunk in source.chunks()] == [2, 2, 1]
    assert told(read_all(source)) == ["good"] * 5
