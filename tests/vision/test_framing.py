"""The object is whole, in the middle, with its margins; scenes become square without cutting it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from dreambooth3d.errors import ConfigError
from dreambooth3d.vision.framing import Box, frame_object, object_box, square_target
from dreambooth3d.vision.refusal import RefusedError

WHITE, RED, BLUE = (255, 255, 255), (200, 30, 20), (20, 40, 200)


def picture(width: int, height: int, box: tuple[int, int, int, int]) -> Image.Image:
    """Draw a red box on blue."""
    image = Image.new("RGB", (width, height), BLUE)
    image.paste(RED, box)
    return image


def alpha_of(width: int, height: int, box: tuple[int, int, int, int]) -> NDArray[np.float32]:
    alpha = np.zeros((height, width), np.float32)
    alpha[box[1] : box[3], box[0] : box[2]] = 1
    return alpha


@st.composite
def boxes(draw: st.DrawFn) -> tuple[int, int, tuple[int, int, int, int]]:
    width, height = draw(st.integers(12, 150)), draw(st.integers(12, 150))
    left, top = draw(st.integers(0, width - 8)), draw(st.integers(0, height - 8))
    right, bottom = draw(st.integers(left + 8, width)), draw(st.integers(top + 8, height))
    return width, height, (left, top, right, bottom)


@settings(max_examples=60, deadline=None)
@given(boxes(), st.sampled_from([32, 64, 65]), st.sampled_from([0.0, 0.1, 0.3]))
def test_the_object_is_never_cut_and_has_its_margins(
    drawn: tuple[int, int, tuple[int, int, int, int]], side: int, margin: float
) -> None:
    width, height, box = drawn
    framed = frame_object(picture(width, height, box), alpha_of(width, height, box), side, margin)
    assert framed.image.size == (side, side)
    assert framed.alpha_HW.shape == (side, side)
    assert framed.window.holds(Box(left=box[0], top=box[1], right=box[2], bottom=box[3]))
    assert framed.window.width == framed.window.height
    found = object_box(framed.alpha_HW > 0.5)
    longest = max(box[2] - box[0], box[3] - box[1])
    pixel = side / framed.window.width
    assert max(found.width, found.height) == pytest.approx(longest * pixel, abs=2.1)
    assert max(found.width, found.height) <= side * (1 - 2 * margin) + 2
    for low, high in ((found.left, side - found.right), (found.top, side - found.bottom)):
        assert low - high == pytest.approx(0, abs=2 * pixel + 2)


def test_the_object_keeps_its_colours_and_the_rest_is_white() -> None:
    box = (10, 20, 50, 44)
    framed = frame_object(picture(90, 60, box), alpha_of(90, 60, box), 100, 0.1)
    pixels = np.asarray(framed.image)
    assert tuple(pixels[50, 50]) == RED
    assert (pixels[framed.alpha_HW == 0] >= 250).all()
    assert (pixels[:8] == 255).all()
    # No blue at the edge: it was behind the object.
    assert (pixels[..., 2].astype(int) - pixels[..., 1] < 40).all()


def test_other_backgrounds() -> None:
    box = (5, 5, 25, 25)
    framed = frame_object(picture(30, 30, box), alpha_of(30, 30, box), 40, 0.2, (127, 127, 127))
    assert framed.image.getpixel((0, 0)) == (127, 127, 127)


def test_what_the_picture_lacks_is_padded() -> None:
    framed = frame_object(picture(20, 60, (0, 0, 20, 60)), alpha_of(20, 60, (0, 0, 20, 60)), 60, 0)
    pixels = np.asarray(framed.image)
    assert (pixels[:, :18] == 255).all()
    assert (pixels[:, 22:38] == RED).all()
    assert framed.window == Box(left=-20, top=0, right=40, bottom=60)


def test_colours_of_a_picture_with_alpha_are_the_objects_own() -> None:
    alpha = np.zeros((40, 40), np.float32)
    alpha[10:30, 10:30] = 0.5
    clear = np.zeros((40, 40, 4), np.uint8)
    clear[..., :3][alpha > 0] = RED
    clear[..., 3] = (alpha * 255).astype(np.uint8)
    framed = frame_object(Image.fromarray(clear), alpha, 40, 0.25)
    assert np.asarray(framed.image)[20, 20] == pytest.approx([228, 142, 138], abs=2)


def test_soft_edges_belong_to_the_object() -> None:
    alpha = np.zeros((20, 20), np.float32)
    alpha[5:15, 5:15] = 0.06
    alpha[8:12, 8:12] = 1
    assert object_box(alpha) == Box(left=5, top=5, right=15, bottom=15)


def test_nothing_to_frame_is_refused() -> None:
    with pytest.raises(RefusedError, match="mask must show an object") as caught:
        frame_object(Image.new("RGB", (9, 9)), np.zeros((9, 9), np.float32), 16, 0.1)
    assert caught.value.reason == "no_object"


@pytest.mark.parametrize(
    ("side", "margin", "shape", "text"),
    [
        (0, 0.1, (9, 9), "side must be at least 1"),
        (8, 0.5, (9, 9), "margin must be 0 to 0.45"),
        (8, -0.1, (9, 9), "margin must be"),
        (8, 0.1, (9, 8), "mask must have the picture's size"),
    ],
)
def test_wrong_settings(side: int, margin: float, shape: tuple[int, int], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        frame_object(Image.new("RGB", (9, 9)), np.ones(shape, np.float32), side, margin)


def test_a_box_holds_a_pixel() -> None:
    with pytest.raises(ConfigError, match="box must hold a pixel"):
        Box(left=3, top=0, right=3, bottom=2)


@settings(max_examples=60, deadline=None)
@given(boxes(), st.sampled_from([32, 65]))
def test_a_target_never_cuts_the_object(
    drawn: tuple[int, int, tuple[int, int, int, int]], side: int
) -> None:
    width, height, box = drawn
    mask = alpha_of(width, height, box) > 0
    target = square_target(picture(width, height, box), side, mask)
    assert target.image.size == (side, side)
    assert target.mask_HW is not None
    assert target.mask_HW.shape == (side, side)
    assert target.window.holds(object_box(mask))
    fits = max(box[2] - box[0], box[3] - box[1]) <= min(width, height)
    assert target.window.width == (min(width, height) if fits else max(width, height))


def test_a_crop_keeps_the_object_in_the_middle_where_it_can() -> None:
    wide = square_target(
        picture(100, 40, (60, 10, 70, 30)), 40, alpha_of(100, 40, (60, 10, 70, 30)) > 0
    )
    assert wide.window == Box(left=45, top=0, right=85, bottom=40)
    edge = square_target(
        picture(100, 40, (92, 10, 99, 30)), 40, alpha_of(100, 40, (92, 10, 99, 30)) > 0
    )
    assert edge.window == Box(left=60, top=0, right=100, bottom=40)
    np.testing.assert_array_equal(
        np.asarray(wide.image), np.asarray(picture(100, 40, (60, 10, 70, 30)))[:, 45:85]
    )


def test_an_object_longer_than_a_square_gets_white_beside_it() -> None:
    box = (0, 10, 90, 30)
    target = square_target(picture(100, 40, box), 100, alpha_of(100, 40, box) > 0)
    pixels = np.asarray(target.image)
    assert (pixels[:30] == 255).all()
    assert (pixels[70:] == 255).all()
    assert tuple(pixels[50, 50]) == RED


@pytest.mark.parametrize("mask", [None, np.zeros((40, 100), np.bool_)])
def test_without_a_known_object_nothing_is_cropped(mask: NDArray[np.bool_] | None) -> None:
    target = square_target(picture(100, 40, (0, 0, 5, 40)), 50, mask)
    assert target.window == Box(left=0, top=-30, right=100, bottom=70)
    pixels = np.asarray(target.image)
    assert (pixels[:15] == 255).all()
    np.testing.assert_allclose(pixels[25, 0], RED, atol=8)


def test_square_scenes_of_the_right_size_are_not_touched() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8)
    target = square_target(Image.fromarray(noise), 48, None)
    np.testing.assert_array_equal(np.asarray(target.image), noise)


def test_transparent_scenes_lie_on_white() -> None:
    target = square_target(Image.new("RGBA", (10, 10), (0, 0, 0, 0)), 10, None)
    assert (np.asarray(target.image) == 255).all()
    assert target.mask_HW is None


def test_slivers_survive() -> None:
    target = square_target(Image.new("RGB", (1, 3000), RED), 20, None)
    assert (np.asarray(target.image)[:, :, 0] < 255).any()
