"""A corpus of a corpus: who was held out once is never trained on."""

from dataclasses import replace
from pathlib import Path

import pytest

from dreambooth3d.artifacts.pairs import PairCorpus, write_shard
from dreambooth3d.artifacts.place import Place
from dreambooth3d.artifacts.shard import index_name, pack_shard
from dreambooth3d.errors import InputError
from dreambooth3d.pairs.blueprint import draw_blueprint
from dreambooth3d.pairs.config import PairsConfig
from dreambooth3d.pairs.finish import read_samples
from tests.pairs.corpora import build_here

SCENES = PairsConfig(samples=10, samples_per_shard=4, pairs_per_subject=2, size=32)


def test_what_was_held_out_once_is_never_trained_on(tmp_path: Path) -> None:
    """Three generations: a corpus, one of it that holds out more, and one of that."""
    config = replace(SCENES, samples=24, held_out_share=0.3, duplicate_bits=-1)
    first, _ = build_here(config, tmp_path)
    again = replace(config, sources=(f"webdataset:{first}",), held_out_share=0.5)
    second, _ = build_here(again, tmp_path)
    third, _ = build_here(
        replace(again, sources=(f"webdataset:{second}",), held_out_share=0.0), tmp_path
    )
    held, trained = (
        {str(pair.meta["subject"]) for pair in PairCorpus.open(third, split=split)}
        for split in ("held_out", "train")
    )
    assert held == {str(pair.meta["subject"]) for pair in PairCorpus.open(second, split="held_out")}
    assert trained
    assert not held & trained


@pytest.mark.parametrize("is_listed", [True, False])
def test_renamed_tars_stay_held_out(is_listed: bool, tmp_path: Path) -> None:
    config = replace(SCENES, samples=24, held_out_share=0.3, duplicate_bits=-1)
    first, _ = build_here(config, tmp_path / "first")
    held = {str(pair.meta["subject"]) for pair in PairCorpus.open(first, split="held_out")}
    assert {pair.meta["split"] for pair in PairCorpus.open(first, split="train")} == {"train"}
    assert {pair.meta["split"] for pair in PairCorpus.open(first, split="held_out")} == {"held_out"}
    for path in first.glob("scenes-held_out-*"):
        path.rename(first / f"a-{path.name}")
    if not is_listed:
        (first / "manifest.json").unlink()
    again = replace(config, sources=(f"webdataset:{first}",), held_out_share=0.0)
    remarks = draw_blueprint(again).sources[0].source.remarks()
    assert [r.split(",")[0] for r in remarks] == (
        [f"tars that the manifest beside them does not name {len(list(first.glob('a-*.tar')))}"]
        if is_listed else []
    )  # fmt: skip
    second, _ = build_here(again, tmp_path / "second")
    corpus = PairCorpus.open(second, split="held_out")
    assert held == {str(pair.meta["subject"]) for pair in corpus}
    assert held.isdisjoint(
        str(pair.meta["subject"]) for pair in PairCorpus.open(second, split="train")
    )


def test_older_corpora_are_split_by_their_manifest(tmp_path: Path) -> None:
    """Their samples say nothing, or what held before their last split."""
    config = replace(SCENES, samples=24, held_out_share=0.3, duplicate_bits=-1)
    first, _ = build_here(config, tmp_path / "first")
    held = {str(pair.meta["subject"]) for pair in PairCorpus.open(first, split="held_out")}
    place = Place.parse(str(first))
    for shard in PairCorpus.open(first).shards:
        samples = [
            (key, {**members, "json": members["json"].replace(b'"held_out"', b'"train"')})
            for key, members in read_samples(place, shard)
        ]
        for name in (shard.name, index_name(shard.name)):
            # Not in place: the shelf has the same file.
            (first / name).unlink()
        write_shard(place, pack_shard(shard.name, samples))
    again = replace(config, sources=(f"webdataset:{first}",), held_out_share=0.0)
    second, _ = build_here(again, tmp_path / "second")
    corpus = PairCorpus.open(second, split="held_out")
    assert held == {str(pair.meta["subject"]) for pair in corpus}


def test_a_subject_on_both_sides_of_a_split_is_refused(tmp_path: Path) -> None:
    config = replace(SCENES, samples=12, held_out_share=0.5, duplicate_bits=-1)
    first, _ = build_here(config, tmp_path)
    both = replace(config, sources=(f"webdataset:{first}", "scenes"), held_out_share=0.0)
    with pytest.raises(InputError, match=r"subject must be in one split.*webdataset and scenes"):
        build_here(both, tmp_path)
