from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from dreambooth3d.backbone.config import BackboneTrainConfig
from dreambooth3d.backbone.pool import ensure_pool, held_out_specs, training_specs
from dreambooth3d.errors import ConfigError
from dreambooth3d.scenes import FIRST_HELD_OUT_SEED


def test_pool_is_rendered_once(config: BackboneTrainConfig, tmp_path: Path) -> None:
    first = ensure_pool(training_specs(config), tmp_path, workers=1)
    times = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    second = ensure_pool(training_specs(config), tmp_path, workers=1)
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == times
    assert list(first.captions()) == list(second.captions())
    assert first.of_kind("clip")[0].pixels.shape == (3, 5, 16, 16, 3)
    assert sum(len(chunk.pixels) for chunk in first.of_kind("reference")) == 4


def test_other_settings_render_again(config: BackboneTrainConfig, tmp_path: Path) -> None:
    ensure_pool(training_specs(config), tmp_path, workers=1)
    larger = ensure_pool(
        training_specs(replace(config, size=24, batch_tokens=64)), tmp_path, workers=1
    )
    assert larger.of_kind("image")[0].pixels.shape[2] == 24


def test_a_chunk_does_not_depend_on_its_size(config: BackboneTrainConfig, tmp_path: Path) -> None:
    small = ensure_pool(training_specs(config), tmp_path / "a", workers=1)
    whole = ensure_pool(training_specs(replace(config, chunk=6)), tmp_path / "b", workers=1)
    parts = np.concatenate([chunk.pixels for chunk in small.of_kind("image")])
    np.testing.assert_array_equal(parts, whole.of_kind("image")[0].pixels)


def test_references_are_on_white(config: BackboneTrainConfig, tmp_path: Path) -> None:
    pool = ensure_pool(training_specs(config), tmp_path, workers=1)
    for chunk in pool.of_kind("reference"):
        assert (chunk.pixels[:, 0, 0, 0] == 255).all()
        assert all("white" in caption for variants in chunk.captions for caption in variants)


def test_held_out_seeds_are_apart(config: BackboneTrainConfig) -> None:
    large = replace(config, num_clips=300_000, num_images=400_000, num_references=100_000)
    with pytest.raises(ConfigError, match="num_references must be at least 1 and at most 100000"):
        replace(config, num_references=100_001)
    assert max(s.first_seed + s.num_scenes for s in training_specs(large)) < FIRST_HELD_OUT_SEED
    assert min(s.first_seed for s in held_out_specs(config)) >= FIRST_HELD_OUT_SEED
    ranges = [(s.first_seed, s.first_seed + s.num_scenes) for s in training_specs(large)]
    ranges.sort()
    assert all(end <= start for (_, end), (start, _) in pairwise(ranges))
