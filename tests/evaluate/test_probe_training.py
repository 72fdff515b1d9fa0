import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dreambooth3d.errors import ArtifactError, ConfigError
from dreambooth3d.evaluate.config import ProbeConfig
from dreambooth3d.evaluate.probe import load_probe
from dreambooth3d.evaluate.probe_batches import Windows, disturb, draw_batch, turn_over
from dreambooth3d.evaluate.probe_pool import (
    ProbePool,
    count_blocks,
    ensure_pool,
    held_out_specs,
    training_specs,
)
from dreambooth3d.evaluate.probe_training import ProbeTrainer, train_probe
from dreambooth3d.scenes import FIRST_HELD_OUT_SEED, MOTIONS
from dreambooth3d.training.snapshot import load_snapshot, save_snapshot


def test_training_and_held_out_seeds_are_apart(probe_config: ProbeConfig) -> None:
    full = ProbeConfig()
    assert max(s.first_seed + s.num_scenes for s in training_specs(full)) < FIRST_HELD_OUT_SEED
    assert min(s.first_seed for s in held_out_specs(full)) >= FIRST_HELD_OUT_SEED
    clips, images = (
        {seed for s in training_specs(full) if s.kind == kind
         for seed in range(s.first_seed, s.first_seed + s.num_scenes)}
        for kind in ("clip", "image")
    )  # fmt: skip
    assert (len(clips), len(images)) == (full.num_clips, full.num_images)
    assert not clips & images


def test_pool_is_rendered_once(probe_config: ProbeConfig, tmp_path: Path) -> None:
    specs = training_specs(probe_config)[:2]
    first = ensure_pool(specs, tmp_path, workers=1)
    times = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    ensure_pool(specs, tmp_path, workers=1)
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == times
    assert first.chunks[0].pixels.shape == (3, 3, 16, 16, 3)
    assert first.chunks[0].masks.shape == (3, 3, 8, 8)
    assert first.chunks[0].masks.max() <= 4


def test_masks_count_pixels_of_blocks() -> None:
    mask = np.zeros((1, 4, 4), np.bool_)
    mask[0, :2, :2], mask[0, 3, 3] = True, True
    np.testing.assert_array_equal(count_blocks(mask), [[[4, 0], [0, 1]]])


def test_turning_over_swaps_left_and_right() -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(256, size=(4, 3, 8, 8, 3)).astype(np.uint8)
    masks = rng.integers(5, size=(4, 3, 4, 4)).astype(np.uint8)
    names = ["turntable left", "slide right", "turntable right", "camera orbit"]
    windows = Windows(
        pixels=pixels, masks=masks, motions=np.array([MOTIONS.index(name) for name in names])
    )
    turned = turn_over(
        windows,
        is_mirrored=np.array([True, False, True, True]),
        is_reversed=np.array([False, True, True, False]),
    )
    assert [MOTIONS[i] for i in turned.motions] == [
        "turntable right", "slide left", "turntable right", "camera orbit",
    ]  # fmt: skip
    np.testing.assert_array_equal(turned.pixels[0], pixels[0, :, :, ::-1])
    np.testing.assert_array_equal(turned.pixels[1], pixels[1, ::-1])
    np.testing.assert_array_equal(turned.pixels[2], pixels[2, ::-1, :, ::-1])
    np.testing.assert_array_equal(turned.masks[0], masks[0, :, :, ::-1])


def test_batches_are_a_function_of_the_step(
    probe_config: ProbeConfig, probe_pool: ProbePool
) -> None:
    batch, again = (draw_batch(probe_pool, probe_config, 1) for _ in range(2))
    assert batch.pictures_BCHW.shape == (8, 3, 64, 64)
    assert batch.masks_BHW.shape == (8, 32, 32)
    assert batch.labels_BL.shape == (8, 3)
    assert batch.motions_N.shape == (2,)
    assert torch.equal(batch.pictures_BCHW, again.pictures_BCHW)
    other = draw_batch(probe_pool, probe_config, 2)
    assert not torch.equal(batch.pictures_BCHW, other.pictures_BCHW)


def test_disturbing_is_mild_and_the_same_for_all_frames_of_a_clip() -> None:
    pictures = torch.zeros(4, 3, 8, 8)
    found = disturb(pictures, torch.tensor([3, 1]), torch.Generator().manual_seed(0))
    assert float(found.abs().max()) < 0.5
    means = found.mean(dim=(1, 2, 3))
    assert torch.allclose(means[:3], means[0].expand(3), atol=0.02)


def test_a_stopped_training_goes_on_as_it_would_have(
    probe_config: ProbeConfig, probe_pool: ProbePool, tmp_path: Path
) -> None:
    whole = ProbeTrainer(probe_config, probe_pool)
    losses = [whole.update() for _ in range(3)]
    stopped = ProbeTrainer(probe_config, probe_pool)
    stopped.update()
    save_snapshot(tmp_path / "a.safetensors", stopped.state)
    resumed = ProbeTrainer(probe_config, probe_pool)
    assert load_snapshot(tmp_path / "a.safetensors", resumed.state)
    assert [resumed.update() for _ in range(2)] == losses[1:]
    for ours, theirs in zip(whole.probe.parameters(), resumed.probe.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    changed = ProbeTrainer(replace(probe_config, lr=1e-4), probe_pool)
    with pytest.raises(ArtifactError, match="must be a checkpoint of these settings"):
        load_snapshot(tmp_path / "a.safetensors", changed.state)


def test_training_moves_every_weight(probe_config: ProbeConfig, probe_pool: ProbePool) -> None:
    trainer = ProbeTrainer(probe_config, probe_pool)
    before = {name: p.clone() for name, p in trainer.probe.named_parameters()}
    trainer.update()
    still = [n for n, p in trainer.probe.named_parameters() if torch.equal(p, before[n])]
    assert still == []


def test_the_job_writes_weights_and_accuracies(probe_config: ProbeConfig, tmp_path: Path) -> None:
    weights = tmp_path / "shipped" / "probe.safetensors"
    score = train_probe(probe_config, tmp_path / "work", weights=weights)
    load_probe(weights)
    record = json.loads(weights.with_suffix(".json").read_text())
    assert record["held_out"]["clip"] == score.clip
    assert record["training"]["steps"] == 3
    assert 0 <= score.mask_iou <= 1


def test_bad_settings_are_refused() -> None:
    for setting, sentence in (
        ({"window": 1}, "window must be 2 to"),
        ({"size": 15}, "size must be even"),
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"decay_fraction": 1.0}, "decay_fraction must be at least 0 and below 1"),
    ):
        with pytest.raises(ConfigError, match=sentence):
            ProbeConfig(**setting)  # type: ignore[arg-type]
