"""From sources to a published corpus, without a cluster."""

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import mlcroissant
import pytest
import webdataset

from dreambooth3d.artifacts.pairs import PairCorpus
from dreambooth3d.artifacts.place import Place
from dreambooth3d.errors import ConfigError, InputError
from dreambooth3d.pairs.blueprint import draw_blueprint
from dreambooth3d.pairs.config import PairsConfig
from dreambooth3d.pairs.finish import FinishRules, finish_shard, is_finished
from dreambooth3d.pairs.mesh_renderer import renderer
from dreambooth3d.pairs.parts import read_part, write_part
from dreambooth3d.pairs.unusable import publish_refusals
from dreambooth3d.pairs.validate import problems_in
from tests.pairs.corpora import build_here, object_photo, scenes_part
from tests.pairs.mesh_samples import box_glb
from tests.pairs.sources.subjects200k_files import write_rows
from tests.s3_server import s3_url

SCENES = PairsConfig(samples=10, samples_per_shard=4, pairs_per_subject=2, size=32)


def album(folder: Path, count: int = 4) -> Path:
    """Photos of two objects, one of them twice under another name, and a file that is none."""
    for subject in ("mug", "shoe"):
        (folder / subject).mkdir(parents=True)
        for number in range(count):
            seed = number + 100 * (subject == "shoe")
            object_photo(seed).save(folder / subject / f"{number}.png")
            (folder / subject / f"{number}.txt").write_text(f"a {subject}, {number}")
    return folder


def photos(folder: Path, **changes: object) -> PairsConfig:
    settings: dict[str, object] = {
        "sources": (f"captures:{folder}",), "size": 32, "samples_per_shard": 4,
        "identity": "none", "segmentation": "plain",
    }  # fmt: skip
    return PairsConfig(**(settings | changes))  # type: ignore[arg-type]


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_part_bytes_are_equal_in_two_runs() -> None:
    one, two = scenes_part(), scenes_part()
    assert (one.shard.tar, one.shard.index) == (two.shard.tar, two.shard.index)
    assert one.record == two.record
    assert [note.key for note in one.record.samples] == [f"scenes-{i:08d}" for i in range(6)]
    assert one.record.num_records == 6


def test_a_corpus_is_the_same_bytes_wherever_it_is_built(tmp_path: Path) -> None:
    one, manifest = build_here(SCENES, tmp_path / "one")
    two, _ = build_here(SCENES, tmp_path / "two")
    assert files(one) == files(two)
    assert set(files(one)) == {
        "SHA256SUMS", "manifest.json", "preview.html", "croissant.json", "dropped.jsonl",
        *(f"scenes-{i:06d}{end}" for i in range(3) for end in (".tar", ".index.json")),
    }  # fmt: skip
    assert manifest.outputs["num_samples"] == 10
    assert str(tmp_path) not in "".join(map(str, files(one).values()))
    corpus = PairCorpus.open(one, verify=True)
    samples = list(webdataset.WebDataset(sorted(map(str, one.glob("*.tar"))), shardshuffle=False))
    assert [sample["__key__"] for sample in samples] == list(corpus.sample_keys)
    assert list(problems_in(Place.parse(str(one)))) == []


def test_the_croissant_card_is_sound(tmp_path: Path) -> None:
    folder, _ = build_here(SCENES, tmp_path)
    card = mlcroissant.Dataset(jsonld=json.loads((folder / "croissant.json").read_text()))
    assert {record_set.name for record_set in card.metadata.record_sets} == {
        "references", "targets", "captions", "metas",
    }  # fmt: skip


def test_adding_a_source_keeps_the_parts_and_shards_of_the_others(tmp_path: Path) -> None:
    first = replace(SCENES, segmentation="plain", identity="none")
    one, _ = build_here(first, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob(".parts-*/*")}
    assert len(before) == 9
    photos_too = f"captures:{album(tmp_path / 'album')}"
    both, manifest = build_here(replace(first, sources=("scenes", photos_too)), tmp_path)
    assert both != one
    assert {path: path.stat().st_mtime_ns for path in before} == before
    shards = {name: data for name, data in files(one).items() if name.startswith("scenes-")}
    assert shards.items() <= files(both).items()
    sources = manifest.outputs["sources"]
    assert isinstance(sources, dict)
    assert set(sources) == {"captures", "scenes"}


def test_drops_are_counted_by_source_and_shown(tmp_path: Path) -> None:
    home = album(tmp_path / "album")
    (home / "mug" / "9.png").write_bytes(b"no picture")
    folder, manifest = build_here(photos(home, max_bad_fraction=0.9), tmp_path / "out")
    dropped = manifest.outputs["dropped"]
    assert isinstance(dropped, dict)
    assert dropped["unsupported_picture"] >= 1
    page = (folder / "preview.html").read_text()
    assert "unsupported_picture" in page
    assert page.count("data:image/jpeg") >= 4
    total = manifest.outputs["num_samples"]
    assert isinstance(total, int)
    assert total + sum(int(str(count)) for count in dropped.values()) == 8
    listed = [json.loads(line) for line in (folder / "dropped.jsonl").read_text().splitlines()]
    assert Counter(line["reason"] for line in listed) == dropped
    bad = [line for line in listed if line["reason"] == "unsupported_picture"]
    assert all("mug/9.png" in line["origin"] for line in bad)
    assert all(" must " in line["sentence"] for line in listed)
    assert all(line["source"] == "captures" for line in listed)


def test_objects_without_a_pair_are_named(tmp_path: Path) -> None:
    home = album(tmp_path / "album")
    for path in (home / "mug").glob("*.png"):
        path.write_bytes(b"")
    _, manifest = build_here(photos(home, max_bad_fraction=0.9), tmp_path / "out")
    sources = manifest.outputs["sources"]
    assert isinstance(sources, dict)
    captures = sources["captures"]
    assert isinstance(captures, dict)
    assert captures["without_pairs"] == ["mug"]


def test_objects_whose_records_never_were_pairs_are_named(tmp_path: Path) -> None:
    home = album(tmp_path / "album")
    for name in ("lonely", "noted", "shots"):
        (home / name).mkdir()
    object_photo(7).save(home / "lonely" / "1.png")
    for number in range(2):
        object_photo(20 + number).save(home / "noted" / f"{number}.png")
    (home / "noted" / "metadata.json").write_text("{")
    (home / "shots" / "1.heic").write_bytes(b"")
    _, manifest = build_here(photos(home, max_bad_fraction=0.9), tmp_path / "out")
    sources = manifest.outputs["sources"]
    assert isinstance(sources, dict)
    captures = sources["captures"]
    assert isinstance(captures, dict)
    assert captures["without_pairs"] == ["lonely", "noted", "shots"]


def test_small_pieces_of_work_become_large_shards(tmp_path: Path) -> None:
    home = album(tmp_path / "album", count=5)
    config = photos(home, pairs_per_subject=8, samples_per_shard=16)
    folder, _ = build_here(config, tmp_path / "out")
    corpus = PairCorpus.open(folder, verify=True)
    parts = sorted(tmp_path.glob("out/.parts-*/*.tar"))
    assert (len(parts), len(corpus.shards), len(corpus)) == (2, 1, 16)
    assert corpus.sample_keys == tuple(sorted(corpus.sample_keys))
    other, _ = build_here(replace(config, samples_per_shard=8), tmp_path / "out")
    assert [shard.num_samples for shard in PairCorpus.open(other).shards] == [8, 8]


def test_near_duplicates_go_and_are_shown(tmp_path: Path) -> None:
    home = album(tmp_path / "album", count=2)
    source = f"captures:{home}"
    folder, manifest = build_here(photos(home, sources=(source, source)), tmp_path / "out")
    sources = manifest.outputs["sources"]
    assert isinstance(sources, dict)
    second = sources["captures2"]
    assert isinstance(second, dict)
    assert (second["num_samples"], second["dropped"]) == (0, {"near_duplicate": 4})
    assert "near_duplicate" in (folder / "preview.html").read_text()
    _, kept = build_here(
        photos(home, sources=(source, source), duplicate_bits=-1), tmp_path / "out"
    )
    assert kept.outputs["num_samples"] == 8
    assert kept.key != manifest.key


def test_splits_part_subjects(tmp_path: Path) -> None:
    config = replace(SCENES, held_out_share=0.5, samples=20)
    folder, manifest = build_here(config, tmp_path)
    subjects = {
        split: {str(pair.meta["subject"]) for pair in PairCorpus.open(folder, split=split)}
        for split in ("train", "held_out")
    }
    assert subjects["train"]
    assert subjects["held_out"]
    assert not subjects["train"] & subjects["held_out"]
    splits = manifest.outputs["splits"]
    assert isinstance(splits, dict)
    assert splits == {s: len(PairCorpus.open(folder, split=s)) for s in ("held_out", "train")}
    assert list(problems_in(Place.parse(str(folder)))) == []
    (told,) = problems_in(Place.parse(str(folder.parent)))
    assert told.endswith(
        f"got none in {folder.parent}, which holds {folder.name}; name one of them"
    )


def test_a_source_that_is_mostly_broken_is_one_error(tmp_path: Path) -> None:
    home = album(tmp_path / "album")
    for path in home.glob("*/[012].png"):
        path.write_bytes(b"")
    with pytest.raises(
        InputError,
        match=r"source captures must have at most 25% broken records, got 8 of 8 "
        r"\(unreadable_picture 8\), such as mug/0.png, .*: .*must",
    ):
        build_here(photos(home), tmp_path / "out")
    blueprint, shown = draw_blueprint(photos(home)), tmp_path / "refused"
    publish_refusals(Place.parse(str(shown)), blueprint, Place.parse(str(tmp_path / "out")))
    assert len((shown / "dropped.jsonl").read_text().splitlines()) == 8
    assert "mug/0.png" in (shown / "preview.html").read_text()


def test_a_damaged_record_is_made_again(tmp_path: Path) -> None:
    folder, _ = build_here(SCENES, tmp_path)
    place = Place.parse(str(next(tmp_path.glob(".parts-*"))))
    shelf = Place.parse(str(next(tmp_path.glob(".shards-*"))))
    assert read_part(place, "scenes-000000.tar") is not None
    assert is_finished(shelf, "scenes-000000.tar")
    for path in (
        *tmp_path.glob(".parts-*/*-000000.record.json"),
        *tmp_path.glob(".*/*.finished.json"),
    ):
        whole = path.read_bytes()
        path.write_bytes(whole.replace(b"scenes-00000001", b"scenes-00000009"))
    assert read_part(place, "scenes-000000.tar") is None
    for path in tmp_path.glob(".parts-*/*-000001.record.json"):
        path.write_bytes(path.read_bytes()[:100])
    for path in tmp_path.glob(".shards-*/*.finished.json"):
        path.write_bytes(path.read_bytes()[:100])
    assert read_part(place, "scenes-000001.tar") is None
    assert not is_finished(shelf, "scenes-000000.tar")
    shutil.rmtree(folder)
    again, _ = build_here(SCENES, tmp_path)
    assert list(problems_in(Place.parse(str(again)))) == []


def test_held_out_subjects_stay_held_out(tmp_path: Path) -> None:
    part = scenes_part()
    notes = tuple(
        replace(note, split="held_out" if note.subject == part.record.samples[0].subject else "")
        for note in part.record.samples
    )
    place = Place.parse(str(tmp_path / "parts"))
    write_part(place, part)
    record = replace(part.record, samples=notes)
    shelf = Place.parse(str(tmp_path / "shelf"))
    found = finish_shard("scenes-000000.tar", place, [record], frozenset(), FinishRules(), shelf)
    assert {shard.split: shard.name for shard in found.shards} == {
        "train": "scenes-000000.tar", "held_out": "scenes-held_out-000000.tar",
    }  # fmt: skip


def test_a_corpus_of_nothing_is_one_error(tmp_path: Path) -> None:
    home = album(tmp_path / "album")
    config = photos(home, quality_rules=("min_coverage=0.8",))
    with pytest.raises(InputError, match=r"must hold a pair, got none.*object_too_small 8"):
        build_here(config, tmp_path / "out")
    write_rows(tmp_path / "tables" / "a.parquet", [])
    empty = PairsConfig(sources=(f"subjects200k:{tmp_path / 'tables'}",))
    with pytest.raises(InputError, match=r"must hold a pair, got none \(the sources are empty\)"):
        build_here(empty, tmp_path / "out")
    both, manifest = build_here(
        replace(empty, sources=(*empty.sources, "scenes"), samples=3), tmp_path / "out"
    )
    assert manifest.outputs["num_samples"] == 3
    assert "subjects200k" in (both / "preview.html").read_text()


@pytest.mark.parametrize("part", ["tar", "index", "preview.html", "manifest.json", "croissant"])
def test_a_flipped_byte_is_found_and_named(part: str, tmp_path: Path) -> None:
    folder, _ = build_here(SCENES, tmp_path)
    name = {
        "tar": "scenes-000001.tar", "index": "scenes-000001.index.json",
        "croissant": "croissant.json",
    }.get(part, part)  # fmt: skip
    data = bytearray((folder / name).read_bytes())
    place = data.index(b"scenes-00000005.target.jpg") + 600 if part == "tar" else len(data) // 2
    data[place] ^= 1
    (folder / name).unlink()
    (folder / name).write_bytes(data)
    found = list(problems_in(Place.parse(str(folder))))
    assert any(name in sentence for sentence in found)
    if part == "tar":
        assert "damaged in scenes-00000005;" in found[0]


def test_a_wrong_sum_is_not_blamed_on_the_shard(tmp_path: Path) -> None:
    folder, _ = build_here(SCENES, tmp_path)
    lines = (folder / "SHA256SUMS").read_text().splitlines()
    wrong = [line.replace(line[0], "f" if line[0] != "f" else "e", 1) if "000001.tar" in line
             else line for line in lines]  # fmt: skip
    (folder / "SHA256SUMS").write_text("\n".join(wrong) + "\n")
    (found,) = problems_in(Place.parse(str(folder)))
    assert found.startswith("line of scenes-000001.tar in ")


def test_sums_hold_every_file_and_end_lines_as_they_were_written(tmp_path: Path) -> None:
    folder, _ = build_here(SCENES, tmp_path)
    sums = folder / "SHA256SUMS"
    whole = sums.read_bytes()
    sums.unlink()
    sums.write_bytes(whole.replace(b"\n", b"\x0b", 1))
    found = list(problems_in(Place.parse(str(folder))))
    assert any(sentence.startswith("file croissant.json must be listed in") for sentence in found)
    kept = [line for line in whole.splitlines(keepends=True) if b"preview.html" not in line]
    sums.write_bytes(b"".join(kept))
    (told,) = problems_in(Place.parse(str(folder)))
    assert told.startswith("file preview.html must be listed in")


@pytest.mark.parametrize(
    "content",
    [
        "[" * 100_000, "[]", "{", "\ud800", '{"stage": 1}', "\x00",
        '{"stage": "pairs", "key": "k", "config": {}, "parents": [], "outputs": {"shards": 7}}',
        '{"stage": "pairs", "key": "k", "config": {}, "parents": [], "outputs": {"shards": [{'
        '"name": "a.tar", "sha256": "", "num_bytes": 1, "num_samples": 1, "index_sha256": "", '
        '"dropped": {"x": "many"}, "source": "", "split": ""}]}}',
        '{"stage": "pairs", "key": "k", "config": {}, "parents": [], "outputs": {}, '
        '"n": ' + "9" * 5000 + "}",
    ],
)  # fmt: skip
def test_odd_manifests_are_one_sentence(content: str, tmp_path: Path) -> None:
    folder, _ = build_here(SCENES, tmp_path)
    (folder / "manifest.json").write_bytes(content.encode("utf-8", "surrogatepass"))
    (found,) = problems_in(Place.parse(str(folder)))
    assert "manifest" in found
    assert " must " in found


def test_missing_and_foreign_shards_are_found(tmp_path: Path) -> None:
    folder, _ = build_here(SCENES, tmp_path)
    (folder / "scenes-000000.tar").rename(folder / "other.tar")
    found = " ".join(problems_in(Place.parse(str(folder))))
    assert "scenes-000000.tar must be there, got none" in found
    assert "other.tar must be in the manifest" in found
    (folder / "SHA256SUMS").unlink()
    assert "must have a SHA256SUMS" in " ".join(problems_in(Place.parse(str(folder))))


def test_a_corpus_on_an_object_store_is_the_same_bytes(address: str, tmp_path: Path) -> None:
    here, manifest = build_here(SCENES, tmp_path)
    url = s3_url(address, "corpora")
    build_here(SCENES, url)
    there = Place.parse(url) / manifest.key
    assert {file.name: (there / file.name).read_bytes() for file in there.list()} == files(here)
    assert list(problems_in(there)) == []
    assert PairCorpus.open(there, verify=True)[7].key == "scenes-00000007"


def test_shards_are_read_again_as_they_are_and_merged(tmp_path: Path) -> None:
    one, _ = build_here(SCENES, tmp_path / "one")
    config = replace(SCENES, sources=(f"webdataset:{one}", "scenes"), seed=1, duplicate_bits=-1)
    both, manifest = build_here(config, tmp_path / "both")
    assert manifest.outputs["num_samples"] == 20
    first, again = PairCorpus.open(one), PairCorpus.open(both)
    merged = [again.read_members(i) for i in range(20)]
    copies = [members for key, members in merged if key.startswith("webdataset-")]
    for index, members in enumerate(copies):
        _, original = first.read_members(index)
        assert members["reference.png"] == original["reference.png"]
        assert members["txt"] == original["txt"]
        meta, before = json.loads(members["json"]), json.loads(original["json"])
        assert meta["subject"] == before["subject"]
        assert meta["target_azimuth_deg"] == before["target_azimuth_deg"]
        assert (meta["origin"], meta["caption_kind"]) == (before["origin"], before["caption_kind"])
        assert meta["origin_shard"].startswith("scenes-00000")


def test_meshes_become_pairs(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    for name in ("red box", "tall tower"):
        (tmp_path / "models" / f"{name}.glb").write_bytes(box_glb())
    config = PairsConfig(sources=(f"meshes:{tmp_path / 'models'}",), size=64, pairs_per_subject=2)
    try:
        renderer()
    except ConfigError as error:
        pytest.skip(f"needs EGL: {error}")
    folder, manifest = build_here(config, tmp_path / "out")
    assert manifest.outputs["num_samples"] == 4
    pair = PairCorpus.open(folder)[0]
    assert pair.reference.size == pair.target.size == (64, 64)
    assert pair.reference.getpixel((0, 0)) == (255, 255, 255)
