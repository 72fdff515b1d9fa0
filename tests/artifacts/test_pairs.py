"""Shards depend on their samples alone, and one sample is read without the others."""

import hashlib
import io
import json
import tarfile
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset as wds
from PIL import Image

from dreambooth3d.artifacts.manifest import Manifest
from dreambooth3d.artifacts.pairs import PairCorpus, write_corpus, write_shard
from dreambooth3d.artifacts.place import Place
from dreambooth3d.artifacts.shard import (
    Members,
    PackedShard,
    Pair,
    ShardEntry,
    encode_pair,
    encode_png,
    pack_shard,
    parse_index,
)
from dreambooth3d.errors import ArtifactError, InputError


def picture(seed: int, size: tuple[int, int] = (24, 16)) -> Image.Image:
    small = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)


def pair(number: int) -> Pair:
    return Pair(
        key=f"s{number:04d}",
        reference=picture(number),
        target=picture(100 + number),
        caption=f"ein Häschen, {number}",
        meta={"source": "scenes/a.obj", "number": number, "box": [1, 2.5, None]},
    )


def pack(name: str, pairs: Iterable[Pair], **options: Any) -> PackedShard:
    return pack_shard(name, ((pair.key, encode_pair(pair)) for pair in pairs), **options)


def place(folder: Path) -> Place:
    return Place.parse(str(folder))


def write_one(folder: Path, samples: Iterable[tuple[str, Members]]) -> ShardEntry:
    entry = write_shard(place(folder), pack_shard("a.tar", samples))
    write_corpus(place(folder), [entry], key="k", config={})
    return entry


def corpus(folder: Path, num_shards: int = 2, per_shard: int = 3) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    entries = [
        write_shard(
            place(folder),
            pack(
                f"pairs-{shard:03d}.tar",
                [pair(shard * per_shard + i) for i in range(per_shard)],
                dropped={"too_small": shard + 1},
                source="scenes",
                split="train" if shard == 0 else "held_out",
            ),
        )
        for shard in range(num_shards)
    ]
    write_corpus(place(folder), entries, key="0123456789abcdef", config={"size": 16}, parents=["p"])
    return folder


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image).astype(int)


def test_same_samples_in_any_order_and_at_any_time_give_the_same_bytes() -> None:
    first = pack("a.tar", [pair(i) for i in range(4)])
    time.sleep(0.01)
    second = pack("b.tar", (pair(i) for i in (2, 0, 3, 1)))
    assert (first.tar, first.index) == (second.tar, second.index)
    assert first.entry.sha256 == second.entry.sha256 == hashlib.sha256(first.tar).hexdigest()
    assert first.entry.num_bytes == len(first.tar)
    other = pack("c.tar", [pair(i) for i in (0, 1, 2, 4)])
    assert other.entry.sha256 != first.entry.sha256


def test_metadata_inside_pictures_does_not_reach_the_shard() -> None:
    noisy = pair(0)
    noisy.reference.info = {"icc_profile": b"x" * 100, "dpi": (72, 72)}
    noisy.target.info = {"icc_profile": b"x" * 100, "comment": b"hello"}
    assert pack("b.tar", [noisy]).tar == pack("a.tar", [pair(0)]).tar


def test_tar_members_are_sorted_and_anonymous() -> None:
    with tarfile.open(fileobj=io.BytesIO(pack("a.tar", [pair(1), pair(0)]).tar)) as tar:
        members = tar.getmembers()
    assert [m.name for m in members] == [
        f"s000{i}.{extension}"
        for i in (0, 1)
        for extension in ("json", "reference.png", "target.jpg", "txt")
    ]
    assert {(m.mtime, m.uid, m.gid, m.uname, m.gname) for m in members} == {(0, 0, 0, "", "")}


def test_byte_index_equals_the_tar() -> None:
    shard = pack("a.tar", [pair(i) for i in range(3)])
    with tarfile.open(fileobj=io.BytesIO(shard.tar)) as tar:
        expected = {m.name: (m.offset_data, m.size) for m in tar.getmembers()}
    index = parse_index(shard.index, name="a.tar")
    found = {f"{key}.{ext}": where for key, ranges in index for ext, where in ranges.items()}
    assert found == expected


def test_webdataset_reads_the_shard(tmp_path: Path) -> None:
    write_shard(place(tmp_path), pack("a.tar", [pair(0), pair(1)]))
    samples = list(wds.WebDataset(str(tmp_path / "a.tar"), shardshuffle=False))
    assert [sample["__key__"] for sample in samples] == ["s0000", "s0001"]
    assert {"json", "reference.png", "target.jpg", "txt"} <= set(samples[0])
    assert samples[1]["txt"].decode() == "ein Häschen, 1"


def test_corpus_returns_what_was_written(tmp_path: Path) -> None:
    found = PairCorpus.open(corpus(tmp_path), verify=True)
    assert len(found) == 6
    assert found.key == "0123456789abcdef"
    assert found.sample_keys == tuple(f"s{i:04d}" for i in range(6))
    for number, sample in enumerate(found):
        expected = pair(number)
        assert (sample.key, sample.caption, sample.meta) == (
            expected.key,
            expected.caption,
            expected.meta,
        )
        np.testing.assert_array_equal(pixels(sample.reference), pixels(expected.reference))
        assert np.abs(pixels(sample.target) - pixels(expected.target)).mean() < 2
    assert found[-1].key == "s0005"
    with pytest.raises(IndexError):
        found[6]


def test_shard_round_trip_is_byte_equal(tmp_path: Path) -> None:
    found = PairCorpus.open(corpus(tmp_path / "one", num_shards=1))
    members = [found.read_members(i) for i in range(len(found))]
    copy = pack_shard("pairs-000.tar", members)
    assert copy.tar == (tmp_path / "one/pairs-000.tar").read_bytes()
    assert copy.entry.num_samples == 3


def test_encoded_fields_travel_along(tmp_path: Path) -> None:
    found = PairCorpus.open(corpus(tmp_path / "one", num_shards=1))
    key, members = found.read_members(0)
    write_one(tmp_path, [(key, members | {"latents.safetensors": b"123"})])
    again = PairCorpus.open(tmp_path)
    assert again[0].fields == {"latents.safetensors": b"123"}
    assert again[0].caption == found[0].caption


def test_whole_corpus_is_reproducible_and_names_no_machine(tmp_path: Path) -> None:
    one, two = corpus(tmp_path / "one"), corpus(tmp_path / "two")
    for path in one.iterdir():
        assert path.read_bytes() == (two / path.name).read_bytes()
    assert str(tmp_path) not in (one / "manifest.json").read_text()


def test_manifest_counts_samples_and_drops(tmp_path: Path) -> None:
    outputs = Manifest.load(corpus(tmp_path)).outputs
    assert outputs["num_samples"] == 6
    assert outputs["dropped"] == {"too_small": 3}
    shards = outputs["shards"]
    assert isinstance(shards, list)
    assert isinstance(shards[0], dict)
    assert {"name", "sha256", "num_bytes", "num_samples", "dropped"} <= set(shards[0])


def test_drops_counted_while_pairs_are_consumed_are_kept() -> None:
    dropped: dict[str, int] = {}

    def stage() -> Iterator[Pair]:
        yield pair(0)
        dropped["no_caption"] = 2

    assert pack("a.tar", stage(), dropped=dropped).entry.dropped == {"no_caption": 2}


def test_reading_touches_only_the_sample(tmp_path: Path) -> None:
    """Every byte outside the sample is overwritten; the sample still reads."""
    found = PairCorpus.open(corpus(tmp_path, num_shards=1))
    expected = found.read_members(1)
    index = parse_index((tmp_path / "pairs-000.index.json").read_bytes(), name="pairs-000.tar")
    keep = [(offset, size) for offset, size in index[1][1].values()]
    path = tmp_path / "pairs-000.tar"
    original = path.read_bytes()
    damaged = bytearray(b"\xff" * len(original))
    for offset, size in keep:
        damaged[offset : offset + size] = original[offset : offset + size]
    path.write_bytes(damaged)
    assert found.read_members(1) == expected
    assert found[1].caption == "ein Häschen, 1"
    with pytest.raises(ArtifactError, match=r"sample s0000 of shard pairs-000\.tar"):
        found[0]


def test_many_threads_read_the_same_corpus(tmp_path: Path) -> None:
    found = PairCorpus.open(corpus(tmp_path))
    with ThreadPoolExecutor(8) as pool:
        keys = list(pool.map(lambda i: found[i % 6].key, range(48)))
    assert keys == [f"s{i % 6:04d}" for i in range(48)]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open files in /proc")
def test_no_file_stays_open(tmp_path: Path) -> None:
    found = PairCorpus.open(corpus(tmp_path))
    before = len(list(Path("/proc/self/fd").iterdir()))
    list(found)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_missing_manifest_index_and_shard_are_named(tmp_path: Path) -> None:
    folder = corpus(tmp_path)
    (folder / "pairs-001.tar").rename(folder / "gone")
    with pytest.raises(ArtifactError, match=r"got no file at .*pairs-001\.tar"):
        PairCorpus.open(folder)
    (folder / "pairs-000.index.json").unlink()
    with pytest.raises(ArtifactError, match=r"byte index .*pairs-000\.index\.json"):
        PairCorpus.open(folder, split="train")[0]
    (folder / "manifest.json").unlink()
    with pytest.raises(ArtifactError, match=r"manifest\.json"):
        PairCorpus.open(folder)


def test_flipped_byte_is_found_by_verify_and_named(tmp_path: Path) -> None:
    path = corpus(tmp_path) / "pairs-001.tar"
    data = bytearray(path.read_bytes())
    data[700] ^= 1
    path.write_bytes(data)
    PairCorpus.open(tmp_path)
    with pytest.raises(ArtifactError, match=r"shard .*pairs-001\.tar must have sha256"):
        PairCorpus.open(tmp_path, verify=True)


def test_shortened_shard_is_found_without_hashing(tmp_path: Path) -> None:
    path = corpus(tmp_path) / "pairs-000.tar"
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-512])
    with pytest.raises(ArtifactError, match=rf"must have {size} bytes, got {size - 512}"):
        PairCorpus.open(tmp_path)


def test_shard_shortened_after_opening_names_shard_and_key(tmp_path: Path) -> None:
    found = PairCorpus.open(corpus(tmp_path))
    (tmp_path / "pairs-000.tar").write_bytes(b"")
    with pytest.raises(ArtifactError, match=r"sample s0002 of shard pairs-000\.tar .* ends before"):
        found[2]
    (tmp_path / "pairs-000.tar").unlink()
    with pytest.raises(ArtifactError, match=r"sample s0002 of shard pairs-000\.tar .* unreadable"):
        found[2]


def test_changed_index_is_found(tmp_path: Path) -> None:
    path = corpus(tmp_path) / "pairs-000.index.json"
    path.write_text(path.read_text().replace("s0000", "s9999"))
    found = PairCorpus.open(tmp_path)
    assert found[3].key == "s0003"
    with pytest.raises(ArtifactError, match="byte index must be the one its manifest describes"):
        found[0]
    with pytest.raises(ArtifactError, match="byte index must be the one its manifest describes"):
        PairCorpus.open(tmp_path, verify=True)


def test_a_split_is_a_part_of_the_corpus(tmp_path: Path) -> None:
    folder = corpus(tmp_path)
    assert PairCorpus.open(folder, split="train").sample_keys == ("s0000", "s0001", "s0002")
    assert PairCorpus.open(folder, split="held_out")[0].key == "s0003"
    assert len(PairCorpus.open(folder, split="none")) == 0


@pytest.mark.parametrize("shards", ['"x"', "[1]", '[{"name": "../a.tar"}]'])
def test_manifest_with_wrong_shards_is_refused(tmp_path: Path, shards: str) -> None:
    path = corpus(tmp_path) / "manifest.json"
    found = json.loads(path.read_text())
    found["outputs"]["shards"] = json.loads(shards)
    path.write_text(json.dumps(found))
    with pytest.raises(ArtifactError, match="must list name, sha256, num_bytes"):
        PairCorpus.open(tmp_path)


def test_member_missing_from_a_sample_is_named(tmp_path: Path) -> None:
    write_one(tmp_path, [("s1", {"txt": b"caption"})])
    with pytest.raises(ArtifactError, match=r"sample s1 of shard a\.tar .*reference\.png"):
        PairCorpus.open(tmp_path)[0]


@pytest.mark.parametrize("key", ["", "a.b", "a/b", "../a", "x" * 65, "é"])
def test_keys_that_webdataset_would_cut_are_refused(key: str) -> None:
    with pytest.raises(InputError, match="pair key must be"):
        Pair(key=key, reference=picture(0), target=picture(1), caption="")


def test_equal_keys_in_one_shard_are_refused() -> None:
    with pytest.raises(InputError, match=r"keys of shard a\.tar must be unique, got 's0000' twice"):
        pack("a.tar", [pair(0), pair(0)])


@pytest.mark.parametrize("extension", ["", "../x", "a/b", "A", "x.y.z"])
def test_member_names_are_checked(extension: str) -> None:
    with pytest.raises(InputError, match="member of pair a must be named like"):
        pack_shard("a.tar", [("a", {extension: b""})])


@pytest.mark.parametrize("name", ["a.zip", ".tar", "a b.tar"])
def test_shard_names_are_checked(name: str) -> None:
    with pytest.raises(ArtifactError, match="shard name must be"):
        pack_shard(name, [])


def test_reference_with_transparency_lies_on_white(tmp_path: Path) -> None:
    clear = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    sample = Pair(key="a", reference=clear, target=picture(0), caption="", meta={})
    write_one(tmp_path, [("a", encode_pair(sample))])
    assert PairCorpus.open(tmp_path)[0].reference.getpixel((0, 0)) == (255, 255, 255)
    png = io.BytesIO(PairCorpus.open(tmp_path).read_members(0)[1]["reference.png"])
    assert Image.open(png).mode == "RGB"


def test_masks_stay_gray() -> None:
    mask = Image.fromarray(np.eye(8, dtype=np.uint8) * 255)
    assert Image.open(io.BytesIO(encode_png(mask))).mode == "L"


def test_meta_that_json_cannot_hold_names_its_pair() -> None:
    sample = Pair(
        key="a", reference=picture(0), target=picture(1), caption="", meta={"x": float("nan")}
    )
    with pytest.raises(ArtifactError, match="numbers in the meta of pair a must be finite"):
        encode_pair(sample)
