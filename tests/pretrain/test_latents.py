"""A corpus with latents trains the same adapter as one without, and needs no encoder for it."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dreambooth3d.artifacts.pairs import PairCorpus
from dreambooth3d.artifacts.shard import LATENTS, pack_shard
from dreambooth3d.errors import ArtifactError
from dreambooth3d.model.backbone import Denoiser, load_backbone, load_denoiser, read_card
from dreambooth3d.model.texts import TextStates
from dreambooth3d.pairs.config import PairsConfig
from dreambooth3d.pretrain.config import PretrainConfig
from dreambooth3d.pretrain.pretrain import PairExamples, has_latents, train_adapter
from dreambooth3d.training.examples import pack_example, unpack_example
from dreambooth3d.training.order import DataOrder
from dreambooth3d.training.task import BatchRules, Example, TrainBatch, build_batch
from tests.pairs.corpora import build_here

TRAINING = PretrainConfig(strategy="single", steps=3, batch_size=2, rank=4, lr=1e-2)
PAIRS = PairsConfig(samples=6, samples_per_shard=4, size=32)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, miniature: Path) -> tuple[Path, Path]:
    """The same pairs without and with latents."""
    home = tmp_path_factory.mktemp("corpora")
    plain, _ = build_here(PAIRS, home)
    encoded, _ = build_here(replace(PAIRS, encode=str(miniature)), home)
    return plain, encoded


def both(folders: tuple[Path, Path], miniature: Path) -> tuple[PairExamples, PairExamples]:
    plain, encoded = map(PairCorpus.open, folders)
    backbone = load_backbone(str(miniature))
    return PairExamples(plain, backbone, 32), PairExamples(encoded, None, 32)


def batch(examples: PairExamples) -> TrainBatch:
    blank = examples.blank()
    rules = BatchRules(
        seed=1, sigma_shift=3.0, text_dropout=0.5, null_text=blank.caption, reference_dropout=0.5,
        null_references_VCHW=blank.references_VCHW,
    )  # fmt: skip
    draws = DataOrder(num_samples=6, batch_size=6, seed=0).batch(0, rank=0, world_size=1)
    return build_batch(draws, examples, rules, device=torch.device("cpu"), dtype=torch.float32)


def test_pictures_and_captions_are_the_same_with_latents_beside_them(
    folders: tuple[Path, Path],
) -> None:
    plain, encoded = map(PairCorpus.open, folders)
    assert encoded.manifest.parents == plain.manifest.parents
    for index in range(6):
        key, members = encoded.read_members(index)
        assert members.pop(LATENTS)
        assert (key, members) == plain.read_members(index)


def test_batches_are_identical_either_way(folders: tuple[Path, Path], miniature: Path) -> None:
    one, other = map(batch, both(folders, miniature))
    for name in ("target_BCTHW", "noise_BCTHW", "sigma_B", "references_BVCHW"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name
    for ours, theirs in zip(one.texts, other.texts, strict=True):
        assert torch.equal(ours.states_SD, theirs.states_SD)
        assert ours.span == theirs.span


def test_the_adapter_is_the_same_and_no_encoder_is_needed(
    folders: tuple[Path, Path], miniature: Path
) -> None:
    plain, encoded = both(folders, miniature)
    backbone, denoiser = load_backbone(str(miniature)), load_denoiser(str(miniature))
    assert type(denoiser) is Denoiser
    one, _ = train_adapter(TRAINING, backbone, plain, run_key="k", folder=None)
    other, _ = train_adapter(TRAINING, denoiser, encoded, run_key="k", folder=None)
    assert one.weights["reference"].keys() == other.weights["reference"].keys()
    for name, weight in one.weights["reference"].items():
        assert torch.equal(weight, other.weights["reference"][name]), name


def test_latents_of_another_backbone_side_or_precision_are_not_used(
    folders: tuple[Path, Path], miniature: Path
) -> None:
    card = read_card(str(miniature))
    plain, encoded = map(PairCorpus.open, folders)
    assert has_latents(TRAINING, encoded, card)
    assert not has_latents(TRAINING, plain, card)
    assert not has_latents(replace(TRAINING, size=64), encoded, card)
    assert not has_latents(replace(TRAINING, precision="bf16"), encoded, card)
    assert not has_latents(TRAINING, encoded, replace(card, revision="0" * 16))


def test_a_sample_without_latents_is_named(folders: tuple[Path, Path]) -> None:
    corpus = PairCorpus.open(folders[0])
    with pytest.raises(ArtifactError, match=r"sample scenes-00000002 must have the member latents"):
        PairExamples(corpus, None, 32)(2)


def test_examples_come_back_bit_for_bit() -> None:
    example = Example(
        target_CTHW=torch.randn(4, 1, 2, 2),
        references_VCHW=torch.randn(1, 4, 2, 2),
        caption=TextStates(torch.randn(3, 8).bfloat16(), glyphs_GD=torch.randn(2, 5), span=(1, 3)),
    )
    data = pack_example(example)
    found = unpack_example(data, name="x")
    assert pack_example(found) == data
    assert torch.equal(found.caption.states_SD, example.caption.states_SD)
    assert found.caption.span == (1, 3)
    with pytest.raises(ArtifactError, match="latents of x must be an encoded pair"):
        unpack_example(b"other", name="x")
    assert pack_shard("a.tar", [("k", {LATENTS: data})]).entry.num_samples == 1
