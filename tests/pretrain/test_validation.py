"""Held-out losses and pictures come from saved weights alone."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from dreambooth3d.errors import ArtifactError
from dreambooth3d.model.backbone import load_backbone
from dreambooth3d.pretrain.config import PretrainConfig
from dreambooth3d.pretrain.pretrain import PairExamples
from dreambooth3d.pretrain.validation import LEVELS, Validator, compare_identity
from dreambooth3d.scenes import Camera, make_subject, render_view
from tests.pairs.corpora import write_scenes

CONFIG = PretrainConfig(strategy="single", rank=4)


@pytest.fixture(scope="module")
def validator(miniature: Path, tmp_path_factory: pytest.TempPathFactory) -> Validator:
    backbone = load_backbone(str(miniature))
    corpus = write_scenes(tmp_path_factory.mktemp("pairs"), samples=6)
    return Validator(CONFIG, backbone, PairExamples(corpus, backbone, 32))


def weights(validator: Validator, *, seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(p.shape, generator=generator) * 0.1
        for name, p in validator.trained.items()
    }


def test_losses_follow_the_weights_and_are_the_same_again(validator: Validator) -> None:
    validator.load(weights(validator, seed=1))
    first = validator.judge(10)
    validator.load(weights(validator, seed=2))
    assert validator.judge(20).own != first.own
    validator.load(weights(validator, seed=1))
    assert validator.judge(10) == first
    assert len(first.own) == len(first.other) == len(LEVELS)
    assert first.own != first.other
    assert "held-out at step 10: loss" in first.line()


def test_without_an_update_references_still_are_seen_but_teach_nothing(
    validator: Validator,
) -> None:
    zero = {name: torch.zeros(p.shape) for name, p in validator.trained.items()}
    validator.load(zero)
    assert abs(validator.judge(0).gain) < 0.2


def test_a_training_in_bf16_is_judged_in_bf16(
    validator: Validator, miniature: Path, tmp_path: Path
) -> None:
    backbone = load_backbone(str(miniature), dtype=torch.bfloat16)
    corpus = write_scenes(tmp_path / "pairs", samples=6)
    short = Validator(CONFIG, backbone, PairExamples(corpus, backbone, 32))
    for judging in (short, validator):
        judging.load(weights(validator, seed=1))
    assert short.judge(1).loss == pytest.approx(validator.judge(1).loss, rel=0.05)
    assert -1 <= short.draw(tmp_path / "step.png").own <= 1


def test_foreign_weights_are_refused(validator: Validator) -> None:
    with pytest.raises(ArtifactError, match="those of the trained parameters"):
        validator.load({"other": torch.zeros(1)})


def test_the_grid_has_a_column_a_pair(validator: Validator, tmp_path: Path) -> None:
    validator.load(weights(validator, seed=1))
    identity = validator.draw(tmp_path / "held_out" / "step.png")
    assert -1 <= identity.own <= 1
    assert -1 <= identity.other <= 1
    with Image.open(tmp_path / "held_out" / "step.png") as grid:
        assert grid.size == (6 * 32, 3 * 32)


def test_identity_is_highest_for_the_views_themselves() -> None:
    views = _pictures()
    same, turned = compare_identity(views, views), compare_identity(views, views[::-1])
    assert same.own > 0.9
    assert same.own > turned.own
    assert "identity" in same.line()
    assert math.isnan(compare_identity(views[:1], views[:1]).other)


def _pictures() -> list[NDArray[np.uint8]]:
    camera = Camera(azimuth_deg=30, elevation_deg=15)
    return [render_view(make_subject(seed), camera, size=64).rgb for seed in (1, 2)]
