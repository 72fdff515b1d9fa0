"""Soft edges follow the picture; colours lose what shone through."""

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from dreambooth3d.vision.matting import foreground_colours, guided_filter, lay_on, soften

Map = NDArray[np.float32]
WHITE = (255, 255, 255)


def disc(size: int, radius: float, softness: float = 1.0) -> Map:
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    return np.clip((radius - np.hypot(x, y)) / softness + 0.5, 0, 1).astype(np.float32)


def photo(alpha: Map, front: tuple[int, int, int], behind: tuple[int, int, int]) -> Image.Image:
    page = np.empty((*alpha.shape, 3), np.uint8)
    page[:] = front
    return Image.fromarray(lay_on(page, alpha, behind))


def filtered_by_definition(guide: Map, values: Map, radius: int, noise: float) -> Map:
    """He et al. 2013, eq. 19, window by window, away from borders."""
    height, width = values.shape
    slopes, offsets = np.zeros((height, width, 3)), np.zeros((height, width))
    for y in range(radius, height - radius):
        for x in range(radius, width - radius):
            window = (slice(y - radius, y + radius + 1), slice(x - radius, x + radius + 1))
            colours = guide[window].reshape(-1, 3).astype(np.float64)
            wanted = values[window].ravel().astype(np.float64)
            apart = colours - colours.mean(0)
            covariance = apart.T @ apart / len(apart) + noise * np.eye(3)
            slopes[y, x] = np.linalg.solve(covariance, apart.T @ wanted / len(apart))
            offsets[y, x] = wanted.mean() - slopes[y, x] @ colours.mean(0)
    result = np.zeros((height, width))
    for y in range(2 * radius, height - 2 * radius):
        for x in range(2 * radius, width - 2 * radius):
            window = (slice(y - radius, y + radius + 1), slice(x - radius, x + radius + 1))
            result[y, x] = (slopes[window].mean((0, 1)) @ guide[y, x]) + offsets[window].mean()
    return result.astype(np.float32)


def test_guided_filter_is_that_of_the_paper() -> None:
    rng = np.random.default_rng(0)
    guide = rng.random((16, 18, 3), dtype=np.float32)
    values = rng.random((16, 18), dtype=np.float32)
    inner = (slice(4, -4), slice(4, -4))
    expected = filtered_by_definition(guide, values, 2, 1e-2)[inner]
    found = guided_filter(guide, values, radius=2, noise=1e-2)[inner]
    np.testing.assert_allclose(found, expected, atol=2e-4)


@pytest.mark.parametrize("off", [-2.0, 2.0])
def test_a_mask_that_is_a_little_off_moves_towards_the_edge_of_the_picture(off: float) -> None:
    truth, given = disc(600, 180), disc(600, 180 + off) > 0.5
    alpha = soften(given, photo(truth, (200, 40, 30), (40, 90, 160)))
    assert alpha.shape == (600, 600)
    assert alpha.dtype == np.float32
    assert np.abs(alpha - truth).mean() < 0.75 * np.abs(given - truth).mean()


def test_away_from_edges_a_soft_mask_is_exactly_zero_or_one() -> None:
    rng = np.random.default_rng(1)
    picture = Image.fromarray(rng.integers(0, 256, (160, 120, 3), dtype=np.uint8))
    mask = np.zeros((40, 30), np.bool_)
    mask[10:30, 8:22] = True
    alpha = soften(mask, picture)
    assert alpha.shape == (160, 120)
    assert (alpha[60:100, 50:70] == 1).all()
    assert (alpha[:20] == 0).all()


def test_large_pictures_keep_their_size() -> None:
    mask = disc(64, 20) > 0.5
    picture = photo(disc(1500, 469), (250, 250, 0), (10, 10, 10)).resize((1500, 750))
    alpha = soften(np.asarray(Image.fromarray(mask).resize((64, 32))), picture)
    assert alpha.shape == (750, 1500)
    assert alpha[375, 750] == 1


@pytest.mark.parametrize("behind", [(20, 160, 40), (0, 0, 0), (250, 240, 30)])
def test_what_shone_through_is_taken_out(behind: tuple[int, int, int]) -> None:
    front = (180, 50, 60)
    alpha = disc(120, 40, softness=8)
    seen = np.asarray(photo(alpha, front, behind))
    colours = foreground_colours(seen, alpha)
    edge = (alpha > 0.05) & (alpha < 0.95)
    error = np.abs(colours[edge].astype(float) - front)
    assert error.mean() < 6
    assert error.mean() < np.abs(seen[edge].astype(float) - front).mean() / 4
    page = np.full((120, 120, 3), front, np.uint8)
    on_white, wanted = lay_on(colours, alpha, WHITE), lay_on(page, alpha, WHITE)
    assert np.abs(on_white.astype(float) - wanted)[edge].mean() < 4


def test_opaque_pixels_stay_as_they_are() -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    alpha = np.ones((40, 50), np.float32)
    np.testing.assert_array_equal(foreground_colours(pixels, alpha), pixels)
    np.testing.assert_array_equal(lay_on(pixels, alpha, (1, 2, 3)), pixels)


def test_where_there_is_no_object_there_is_background() -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    nothing = np.zeros((40, 50), np.float32)
    assert (lay_on(foreground_colours(pixels, nothing), nothing, (9, 8, 7)) == (9, 8, 7)).all()
