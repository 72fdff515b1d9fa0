"""The offline ruler: ideal on identical input, and right on real objects in real photos."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from dreambooth3d.errors import InputError
from dreambooth3d.evaluate.subject_ruler import SubjectRuler, build_ruler, cut_reference
from dreambooth3d.vision.colour_distance import colour_quantiles, sliced_wasserstein
from dreambooth3d.vision.reference_match import GREY, cut_square, find_subject, learn_look

Pixels = NDArray[np.uint8]


def references(shared: Path, subject: str) -> list[Image.Image]:
    return [Image.open(p) for p in sorted((shared / "subjects" / subject / "references").iterdir())]


def composed(shared: Path, view: Image.Image) -> tuple[Pixels, tuple[slice, slice]]:
    """A view of an object pasted into a photo of another one, and where it is."""
    photo = Image.open(shared / "photos" / "can" / "000.jpg").convert("RGB").resize((640, 360))
    frame = np.array(photo)
    cutout = cut_reference(view)
    small = cv2.resize(cutout.pixels_HWC, (170, 170), interpolation=cv2.INTER_AREA)
    mask = cv2.resize(cutout.mask_HW.astype(np.uint8), (170, 170)) > 0
    place = (slice(150, 320), slice(400, 570))
    frame[place] = np.where(mask[..., None], small, frame[place])
    return frame, place


def test_a_reference_scores_one_against_itself(shared: Path) -> None:
    views = references(shared, "pink_rubber_duck")
    ruler = build_ruler(views)
    found = ruler.compare(cut_reference(views[2]))
    assert found.identity == pytest.approx(1, abs=1e-4)
    assert found.identity_efficientnet == pytest.approx(1, abs=1e-4)
    assert found.identity_local == pytest.approx(1, abs=1e-4)
    assert found.colour_distance == pytest.approx(0, abs=1e-4)


def test_the_subject_is_found_in_a_photo_and_told_from_others(shared: Path) -> None:
    views = references(shared, "penguin_plush")
    frame, place = composed(shared, views[1])
    kept = [views[0], views[2], views[3]]
    own = build_ruler(kept).measure(frame)
    other = build_ruler(references(shared, "graduation_bear")).measure(frame)
    assert own.identity > other.identity + 0.05
    found = own.cutout
    assert found.share == pytest.approx(0.055, rel=0.4)
    assert (found.pixels_HWC[~found.mask_HW] == GREY).all()
    assert place[0].stop - place[0].start == 170


def test_where_the_subject_is_makes_little_difference(shared: Path) -> None:
    views = references(shared, "pink_rubber_duck")
    frame, _ = composed(shared, views[1])
    ruler = build_ruler([views[0], views[2], views[3]])
    scores = [ruler.measure(moved).identity for moved in (frame, np.roll(frame, -200, axis=1))]
    assert scores[0] == pytest.approx(scores[1], abs=0.06)


def test_one_reference_is_enough_and_none_is_refused(shared: Path) -> None:
    views = references(shared, "white_sneaker")[:1]
    assert build_ruler(views).compare(cut_reference(views[0])).identity > 0.999
    with pytest.raises(InputError, match="at least one reference view"):
        SubjectRuler([])


@pytest.mark.parametrize("size", [(64, 64), (31, 200), (500, 40)])
def test_frames_of_any_size_are_measured(shared: Path, size: tuple[int, int]) -> None:
    look = learn_look([cut_reference(references(shared, "green_tea_bottle")[0])])
    blank = np.full((*size, 3), 90, np.uint8)
    noise = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    for frame in (blank, noise):
        found = find_subject(frame, look)
        assert found.mask_HW.any()
        assert 0 < found.share <= 1


def test_a_cutout_is_square_and_whole() -> None:
    picture = np.full((50, 80, 3), 200, np.uint8)
    mask = np.zeros((50, 80), np.bool_)
    mask[10:20, 5:45] = True
    found = cut_square(picture, mask)
    height, width = found.mask_HW.shape
    assert height == width >= 40
    assert found.mask_HW.sum() == 400
    assert (found.pixels_HWC[found.mask_HW] == 200).all()
    assert cut_square(picture, np.zeros_like(mask)).mask_HW.sum() == 4000


def test_a_known_shift_of_colour_is_half_its_length() -> None:
    rng = np.random.default_rng(0)
    grey = rng.integers(60, 180, (40, 40, 1)).repeat(3, axis=2).astype(np.uint8)
    mask = np.ones((40, 40), np.bool_)
    own = colour_quantiles(grey, mask)
    assert sliced_wasserstein(own, own) == 0
    brighter = (grey + 25).astype(np.uint8)
    light = [
        cv2.cvtColor(p.astype(np.float32) / 255, cv2.COLOR_RGB2Lab)[..., 0].mean()
        for p in (grey, brighter)
    ]
    expected = (light[1] - light[0]) / 2
    found = sliced_wasserstein(own, colour_quantiles(brighter, mask))
    assert found == pytest.approx(expected, rel=0.15)
    assert sliced_wasserstein(own, colour_quantiles(grey[::-1], mask)) == pytest.approx(0, abs=0.2)
