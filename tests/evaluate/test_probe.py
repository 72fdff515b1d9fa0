from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from dreambooth3d.errors import ArtifactError, ConfigError
from dreambooth3d.evaluate.probe import (
    Probe,
    load_probe,
    opposite_motion,
    read_clips,
    read_frames,
    save_probe,
    subject_masks,
    to_pictures,
)
from dreambooth3d.scenes import (
    BACKGROUNDS,
    CLASSES,
    COLORS,
    MOTIONS,
    make_scene,
    make_subject,
    render_scene,
)


@pytest.fixture(scope="module")
def probe() -> Probe:
    torch.manual_seed(0)
    return Probe().eval()


@pytest.fixture(scope="module")
def clips() -> np.ndarray:
    scenes = [make_scene(make_subject(s), s, num_frames=3) for s in (5, 6)]
    return np.stack([render_scene(scene)[0] for scene in scenes])


def test_heads_have_a_logit_for_every_name(probe: Probe, clips: np.ndarray) -> None:
    logits = probe(to_pictures(clips.reshape(-1, 64, 64, 3)))
    assert logits.class_noun.shape == (6, len(CLASSES))
    assert logits.color.shape == (6, len(COLORS))
    assert logits.background.shape == (6, len(BACKGROUNDS))
    assert logits.mask_BHW.shape == (6, 32, 32)
    assert probe.read_motion(logits.fine_BCHW, 3).shape == (2, len(MOTIONS))


def test_motion_sees_the_order_of_frames(probe: Probe, clips: np.ndarray) -> None:
    pictures = to_pictures(clips[0])
    ahead = probe.read_motion(probe(pictures).fine_BCHW, 3)
    back = probe.read_motion(probe(pictures.flip(0)).fine_BCHW, 3)
    assert not torch.allclose(ahead, back, atol=1e-4)


def test_a_mirror_swaps_left_and_right_and_changes_nothing_else(
    probe: Probe, clips: np.ndarray
) -> None:
    assert opposite_motion("turntable left") == "turntable right"
    assert opposite_motion("camera orbit") == "camera orbit"
    for plain, mirrored in zip(
        read_clips(probe, clips), read_clips(probe, clips[:, :, :, ::-1]), strict=True
    ):
        assert mirrored == replace(plain, motion=opposite_motion(str(plain.motion)))


def test_weights_are_small_and_come_back(probe: Probe, tmp_path: Path) -> None:
    path = tmp_path / "weights" / "probe.safetensors"
    save_probe(probe, path)
    assert path.stat().st_size < 3_000_000
    loaded = load_probe(path)
    assert not loaded.training
    for name, value in probe.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], value, rtol=1e-3, atol=1e-4)


def test_absent_and_foreign_weights_are_named(probe: Probe, tmp_path: Path) -> None:
    path = tmp_path / "probe.safetensors"
    with pytest.raises(ArtifactError, match=r"got no file; make them with .*train_probe\.py"):
        load_probe(path)
    save_probe(probe, path)
    tensors = load_file(path)
    save_file({"mask.out.bias": tensors["mask.out.bias"]}, path)
    with pytest.raises(ArtifactError, match="must hold the weights of this probe"):
        load_probe(path)
    path.write_bytes(b"nothing")
    with pytest.raises(ArtifactError, match="must hold the weights of this probe"):
        load_probe(path)


def test_readings_are_names_and_do_not_depend_on_neighbours(
    probe: Probe, clips: np.ndarray
) -> None:
    both = read_clips(probe, clips)
    assert both == read_clips(probe, clips[:1]) + read_clips(probe, clips[1:])
    for reading in both:
        assert reading.class_noun in CLASSES
        assert reading.color in COLORS
        assert reading.background in BACKGROUNDS
        assert reading.motion in MOTIONS
    frames = read_frames(probe, clips[:, 0])
    assert [reading.motion for reading in frames] == [None, None]
    assert subject_masks(probe, clips[:, 0]).shape == (2, 32, 32)


def test_frames_of_other_sizes_are_scaled(probe: Probe) -> None:
    frames = np.full((2, 32, 48, 3), 7, np.uint8)
    assert to_pictures(frames).shape == (2, 3, 64, 64)
    assert len(read_frames(probe, frames)) == 2


@pytest.mark.parametrize(
    ("pixels", "sentence"),
    [
        (np.zeros((1, 1, 64, 64, 3), np.uint8), "at least 2 frames, got 1"),
        (np.zeros((2, 64, 64, 3), np.uint8), "uint8 of shape .*got uint8 of shape"),
        (np.zeros((1, 2, 64, 64, 3), np.float32), "got float32"),
    ],
)
def test_wrong_pixels_are_refused(probe: Probe, pixels: np.ndarray, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        read_clips(probe, pixels)
