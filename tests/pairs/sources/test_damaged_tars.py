"""Damage in a tar is told, and costs no sample that it did not touch."""

import json
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from dreambooth3d.artifacts.pairs import write_corpus
from dreambooth3d.artifacts.place import Place
from dreambooth3d.artifacts.shard import damaged_samples, index_name, pack_shard
from dreambooth3d.errors import ArtifactError
from dreambooth3d.pairs.records import RawPair, Record, Rejected
from dreambooth3d.pairs.sources.webdataset import WebDatasetSource
from tests.pairs.sources.test_tar_members import tar_of
from tests.pairs.sources.test_webdataset import sample, source_of, told
from tests.s3_server import s3_url

NUM_SEEDS = 200
NUM_SAMPLES = 6
Change = Callable[[bytes], bytes]


def members_of(key: str, rng: Random) -> dict[str, bytes]:
    return {
        "json": json.dumps({"subject": f"thing {key}"}).encode(),
        "reference.png": rng.randbytes(rng.randint(1, 900)),
        "target.jpg": rng.randbytes(rng.randint(1, 900)),
        "txt": f"caption of {key}".encode(),
    }


def packed_samples(seed: int = 0) -> tuple[bytes, bytes]:
    """A small tar and its index."""
    rng = Random(seed)
    packed = pack_shard("a.tar", [(f"k{i}", members_of(f"k{i}", rng)) for i in range(NUM_SAMPLES)])
    return packed.tar, packed.index


def read_exactly(source: WebDatasetSource) -> list[Record]:
    """All records; every chunk must have as many as it said."""
    found: list[Record] = []
    for chunk in source.chunks():
        records = list(source.read(chunk))
        assert len(records) == chunk.num_records
        found += records
    assert len({record.key for record in found}) == len(found)
    return found


def names_of(records: list[Record]) -> list[str]:
    return [r.origin.split(", ")[1] for r in records if isinstance(r, RawPair)]


def spoiled(tar: bytes, rng: Random) -> bytes:
    """Flip, zero or overwrite some bytes, often in a header, or cut the end off."""
    data = bytearray(tar)
    for _ in range(rng.randint(1, 3)):
        size = rng.choice((1, 1, 8, 512, 1500))
        start = rng.randrange(len(tar))
        if rng.random() < 0.5:
            start -= start % 512
        stretch = data[start : start + size]
        data[start : start + size] = rng.choice(
            (bytes(len(stretch)), rng.randbytes(len(stretch)), bytes(b ^ 4 for b in stretch))
        )
    return bytes(data[: rng.randrange(len(data))] if rng.random() < 0.1 else data)


def test_random_damage_costs_only_the_samples_it_touched(tmp_path: Path) -> None:
    for seed in range(NUM_SEEDS):
        rng = Random(seed)
        tar, index = packed_samples(seed)
        data = spoiled(tar, rng)
        (tmp_path / "a.tar").write_bytes(data)
        (tmp_path / index_name("a.tar")).write_bytes(index)
        records = read_exactly(source_of(tmp_path, records_per_chunk=rng.choice((1, 4, 128))))
        lost = damaged_samples(data, index, name="a.tar")
        assert names_of(records) == [f"k{i}" for i in range(NUM_SAMPLES) if f"k{i}" not in lost]
        assert len(records) >= NUM_SAMPLES
        named = {r.origin.split(", ")[1] for r in records if isinstance(r, Rejected)}
        assert set(lost) <= named
        if data.rstrip(b"\0") != tar.rstrip(b"\0"):
            assert set(told(records)) - {"good"} == {"bad_member"}, seed


def test_random_damage_without_an_index_is_always_told_and_never_mixes(tmp_path: Path) -> None:
    for seed in range(NUM_SEEDS):
        rng = Random(seed)
        tar, index = packed_samples(seed)
        data = spoiled(tar, rng)
        (tmp_path / "a.tar").write_bytes(data)
        records = read_exactly(source_of(tmp_path, records_per_chunk=rng.choice((1, 4, 128))))
        lost = damaged_samples(data, index, name="a.tar")
        good = {r.origin.split(", ")[1]: r for r in records if isinstance(r, RawPair)}
        assert {f"k{i}" for i in range(NUM_SAMPLES)} - set(lost) <= set(good), seed
        # A sample that lost its record or its text must not pass for one that never had them.
        assert all(good[key].caption or key in lost for key in good)
        assert all(r.subject.startswith("thing") or k in lost for k, r in good.items())
        if not set(lost) <= set(good):
            assert any(isinstance(record, Rejected) for record in records), seed


def test_random_damage_to_an_index_costs_no_sample(tmp_path: Path) -> None:
    tar, index = packed_samples()
    (tmp_path / "a.tar").write_bytes(tar)
    for seed in range(NUM_SEEDS):
        (tmp_path / index_name("a.tar")).write_bytes(spoiled(index, Random(seed)))
        records = read_exactly(source_of(tmp_path))
        known = {f"k{i}" for i in range(NUM_SAMPLES)}
        kept = set(names_of(records))
        # A changed checksum or range refuses its sample; a changed key is the sample's name.
        assert len(kept) + sum(isinstance(record, Rejected) for record in records) >= len(known)


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        # The header of the first member of the third sample, then of its last.
        (lambda t: t[:8192] + bytes(512) + t[8704:], "good good bad good good good"),
        (lambda t: t[:11264] + b"\xff" * 512 + t[11776:], "good good bad good good good"),
        # Between samples two and four: one is gone without a trace.
        (lambda t: t[:8192] + bytes(4096) + t[12288:], "good good good bad good good"),
        # From within the third into the fifth.
        (lambda t: t[:9216] + bytes(8192) + t[17408:], "good good bad bad good"),
        # Tars that were joined.
        (lambda t: t + tar_of(sample("z0")), "good good good good good good good bad"),
        (lambda t: bytes(2048) + t, "good bad good good good good good"),
    ],
)
def test_what_is_lost_without_an_index_is_told_once(
    tmp_path: Path, damage: Change, expected: str
) -> None:
    tar = tar_of([member for i in range(NUM_SAMPLES) for member in sample(f"k{i}")])
    (tmp_path / "a.tar").write_bytes(damage(tar))
    for size in (1, 4, 128):
        records = read_exactly(source_of(tmp_path, records_per_chunk=size))
        assert [r.replace("bad_member", "bad") for r in told(records)] == expected.split()


def test_a_cut_tells_every_sample_that_its_index_has(tmp_path: Path) -> None:
    tar, index = packed_samples()
    (tmp_path / index_name("a.tar")).write_bytes(index)
    for cut in (0, 100, 4096, len(tar) // 4, len(tar) // 3):
        (tmp_path / "a.tar").write_bytes(tar[:cut])
        records = read_exactly(source_of(tmp_path))
        assert len(records) == NUM_SAMPLES
        for number, record in enumerate(records):
            assert record.origin == f"a.tar, k{number}"
            if isinstance(record, Rejected):
                assert f"its index says sample k{number} ends at, got {cut}" in record.sentence
        assert isinstance(records[-1], Rejected)


def test_samples_behind_those_of_an_index_are_read_too(tmp_path: Path, address: str) -> None:
    tar, index = packed_samples()
    end = len(tar.rstrip(b"\0")) // 512 * 512 + 512
    more = tar_of([*sample("k1"), *sample("z0"), *sample("z1")])
    far = Place.parse(s3_url(address, tmp_path.name))
    for place in (Place.parse(str(tmp_path)), far):
        (place / index_name("a.tar")).write_bytes(index)
        (place / "a.tar").write_bytes(tar[:end] + more)
        for size in (1, 128):
            records = read_exactly(WebDatasetSource(place=place, records_per_chunk=size))
            assert told(records) == ["good"] * NUM_SAMPLES + ["bad_member", "good", "good"]


@pytest.mark.parametrize(
    "index",
    [b"", b"[1]", b"{" * 100_000, b'{"samples": []}', b'{"samples": [1%s]}' % (b"0" * 9000)],
)
def test_an_index_that_cannot_be_used_is_told_and_nothing_is_lost(
    tmp_path: Path, index: bytes
) -> None:
    (tmp_path / "a.tar").write_bytes(packed_samples()[0])
    (tmp_path / index_name("a.tar")).write_bytes(index)
    records = read_exactly(source_of(tmp_path))
    assert told(records) == ["good"] * NUM_SAMPLES + ["bad_member"]
    assert "byte index of" in str(getattr(records[-1], "sentence", ""))


def test_an_index_with_a_gap_is_not_believed(tmp_path: Path) -> None:
    tar, index = packed_samples()
    found = json.loads(index)
    found = {"samples": found["samples"][:2] + found["samples"][3:], "crc32": found["crc32"][1:]}
    (tmp_path / "a.tar").write_bytes(tar)
    (tmp_path / index_name("a.tar")).write_bytes(json.dumps(found).encode())
    assert told(read_exactly(source_of(tmp_path))) == ["good"] * NUM_SAMPLES + ["bad_member"]


@pytest.mark.parametrize("extension", ["txt", "json", "target.jpg"])
def test_an_index_that_cuts_a_member_is_not_believed(tmp_path: Path, extension: str) -> None:
    tar, index = packed_samples()
    found = json.loads(index)
    ranges = found["samples"][2][1]
    ranges[extension] = [ranges[extension][0], ranges[extension][1] - 1]
    (tmp_path / "a.tar").write_bytes(tar)
    (tmp_path / index_name("a.tar")).write_bytes(json.dumps(found).encode())
    expected = ["good"] * NUM_SAMPLES
    expected[2] = "bad_member"
    assert told(read_exactly(source_of(tmp_path))) == expected
    del ranges[extension]
    (tmp_path / index_name("a.tar")).write_bytes(json.dumps(found).encode())
    assert "bad_member" in told(read_exactly(source_of(tmp_path)))


def test_the_split_of_a_shard_comes_with_its_samples(tmp_path: Path) -> None:
    place = Place.parse(str(tmp_path / "corpus"))
    rng, entries = Random(0), []
    for split in ("train", "held_out"):
        samples = [(f"{split}-{i}", members_of(f"{split}-{i}", rng)) for i in range(2)]
        samples.append(("own", members_of("own", rng) | {"json": b'{"split": "test"}'}))
        packed = pack_shard(f"x-{split}-000000.tar", samples, split=split)
        (place / packed.entry.name).write_bytes(packed.tar)
        (place / index_name(packed.entry.name)).write_bytes(packed.index)
        entries.append(packed.entry)
    write_corpus(place, entries, key="k", config={"held_out_share": 0.5})

    def splits(source: WebDatasetSource) -> list[object]:
        return [r.meta.get("split") for r in read_exactly(source) if isinstance(r, RawPair)]

    # What a sample was told when it was read before counts no more.
    expected = ["held_out"] * 3 + ["train"] * 3
    assert splits(source_of(tmp_path)) == expected
    assert splits(source_of(tmp_path / "corpus" / "x-train-000000.tar")) == expected[3:]
    first = source_of(tmp_path).fingerprint()
    # Nobody has split this one.
    write_corpus(place, entries, key="k", config={"held_out_share": 0.0})
    assert splits(source_of(tmp_path)) == [None, None, "test", "test", None, None]
    assert source_of(tmp_path).fingerprint() != first
    (place / "manifest.json").write_bytes(b'{"name": "of another tool"}')
    assert splits(source_of(tmp_path)) == [None, None, "test", "test", None, None]
    (place / "manifest.json").write_bytes(b'{"stage": "pairs", ')
    with pytest.raises(ArtifactError, match="manifest must be valid JSON"):
        source_of(tmp_path).chunks()


def test_an_index_counts_for_the_fingerprint(tmp_path: Path) -> None:
    tar, index = packed_samples()
    (tmp_path / "a.tar").write_bytes(tar)
    without = source_of(tmp_path).fingerprint()
    (tmp_path / index_name("a.tar")).write_bytes(index)
    assert source_of(tmp_path).fingerprint() != without
