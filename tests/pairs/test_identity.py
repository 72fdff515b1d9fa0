"""The gate keeps pairs of one object; it finds copies and strangers, always by one number."""

import io
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from dreambooth3d.errors import ConfigError
from dreambooth3d.pairs.identity import IdentityLimits, object_view, pair_similarity
from dreambooth3d.scenes import Camera, make_scene, make_subject, render_scene, render_view
from dreambooth3d.vision.refusal import RefusedError

Cut = tuple[Image.Image, NDArray[np.bool_]]
LIMITS = IdentityLimits()


def target(seed: int, size: int = 96) -> Cut:
    frames, masks = render_scene(make_scene(make_subject(seed), seed, num_frames=1), size=size)
    return Image.fromarray(frames[0]), masks[0]


def reference(seed: int, size: int = 96) -> Cut:
    camera = Camera(azimuth_deg=30.0, elevation_deg=15.0)
    frame = render_view(make_subject(seed), camera, size=size)
    return Image.fromarray(frame.rgb), frame.mask


def similarity(first: Cut, second: Cut) -> float:
    return pair_similarity(first[0], second[0], reference_mask=first[1], target_mask=second[1])


def on_white(path: Path) -> Cut:
    picture = Image.open(path).convert("RGB")
    picture.thumbnail((400, 400))
    return picture, (np.asarray(picture) < 245).any(axis=2)


def copied(cut: Cut, scale: float, quality: int) -> Cut:
    size = (round(cut[0].width * scale), round(cut[0].height * scale))
    buffer = io.BytesIO()
    cut[0].resize(size, Image.Resampling.LANCZOS).save(buffer, format="JPEG", quality=quality)
    mask = Image.fromarray(cut[1]).resize(size, Image.Resampling.NEAREST)
    return Image.open(buffer).convert("RGB"), np.asarray(mask)


def test_right_pairs_of_scenes_pass_and_score_above_others() -> None:
    references, targets = [reference(s) for s in range(3)], [target(s) for s in range(3)]
    table = np.array([[similarity(r, t) for t in targets] for r in references])
    for score in np.diag(table):
        LIMITS.check(float(score))
    others = table[~np.eye(3, dtype=bool)]
    assert np.diag(table).mean() > others.mean() + 0.1


def test_a_reference_cut_from_its_own_target_is_refused() -> None:
    picture, mask = target(3, size=128)
    cut = object_view(picture, mask)
    framed = Image.fromarray(np.pad(cut, ((9, 9), (9, 9), (0, 0)), constant_values=128))
    own = np.pad(np.ones(cut.shape[:2], dtype=bool), 9)
    score = similarity((framed, own), (picture, mask))
    assert score > 0.99
    with pytest.raises(
        RefusedError, match=f"must be at most {LIMITS.highest}, got {score}"
    ) as refused:
        LIMITS.check(score)
    assert refused.value.reason == "same_picture"


def test_real_objects_pass_and_most_strangers_and_copies_do_not(shared: Path) -> None:
    folders = sorted((shared / "subjects").iterdir())[:4]
    front = [on_white(folder / "references" / "001.png") for folder in folders]
    side = [on_white(folder / "references" / "002.png") for folder in folders]
    table = np.array([[similarity(f, s) for s in side] for f in front])
    right, wrong = np.diag(table), table[~np.eye(len(table), dtype=bool)]
    assert right.min() >= LIMITS.lowest
    assert right.max() <= LIMITS.highest
    assert (wrong < LIMITS.lowest).mean() > 0.6
    assert min(similarity(cut, copied(cut, 1.0, 95)) for cut in front) > LIMITS.highest
    assert min(similarity(cut, copied(cut, 0.6, 95)) for cut in front) > right.max()


def test_a_stranger_is_refused_with_its_number() -> None:
    with pytest.raises(RefusedError, match=r"must be at least 0\.35, got 0\.3499") as refused:
        LIMITS.check(0.3499)
    assert refused.value.reason == "not_same_object"
    LIMITS.check(0.35)
    LIMITS.check(0.97)


def test_the_number_does_not_depend_on_threads_or_what_was_asked_before() -> None:
    import torch

    first = similarity(reference(1), target(1))
    assert first == round(first, 4)
    num_threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        similarity(reference(2), target(1))
        assert similarity(reference(1), target(1)) == first
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(num_threads)


def test_the_background_does_not_count() -> None:
    picture, mask = target(2)
    noise = np.random.default_rng(0).integers(0, 256, np.asarray(picture).shape, dtype=np.uint8)
    elsewhere = Image.fromarray(np.where(mask[..., None], np.asarray(picture), noise))
    assert similarity((picture, mask), (elsewhere, mask)) == 1.0
    assert pair_similarity(picture, elsewhere) < 0.9


def test_the_object_fills_a_square_of_grey() -> None:
    pixels = np.full((40, 60, 3), 200, dtype=np.uint8)
    mask = np.zeros((40, 60), dtype=bool)
    mask[10:20, 5:35] = True
    mask[12, 7] = False
    view = object_view(Image.fromarray(pixels), mask)
    assert view.shape == (30, 30, 3)
    assert (view == 200).all(axis=2).sum() == 299
    assert (view[12] == 200).any()
    assert (view == 128).all(axis=2).sum() == 900 - 299


def test_without_a_mask_the_whole_picture_counts() -> None:
    picture, mask = target(0)
    assert (object_view(picture, None) == np.asarray(picture)).all()
    assert (object_view(picture, np.zeros_like(mask)) == np.asarray(picture)).all()
    thin = Image.new("RGB", (300, 2), "red")
    assert -1 <= pair_similarity(thin, picture) <= 1


def test_inputs_are_checked() -> None:
    picture, _ = target(0)
    with pytest.raises(ConfigError, match=r"mask must have the picture's size \(96, 96\)"):
        object_view(picture, np.ones((3, 3), dtype=bool))
    for low, high in ((0.5, 0.5), (-2.0, 0.5), (0.1, 1.5)):
        with pytest.raises(ConfigError, match="the lowest below the highest"):
            IdentityLimits(lowest=low, highest=high)
