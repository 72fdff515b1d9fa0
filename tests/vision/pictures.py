"""Drawn photos: an object of several colours in front of a rough background."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]


def background(size: tuple[int, int], seed: int, colour: tuple[int, int, int]) -> Pixels:
    """Draw spots of one colour, lighter towards the top; (H, W, 3)."""
    width, height = size
    rng = np.random.default_rng(seed)
    coarse = rng.normal(0, 12, (height // 8 + 1, width // 8 + 1)).astype(np.float32)
    spots = np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC))
    light = np.linspace(20, -20, height)[:, None] + spots + rng.normal(0, 4, (height, width))
    page = np.array(colour)[None, None] + light[..., None]
    return np.clip(page, 0, 255).astype(np.uint8)


def ellipse(
    size: tuple[int, int], centre: tuple[float, float], radii: tuple[float, float]
) -> NDArray[np.bool_]:
    """Return a mask; centre and radii are shares of width and height."""
    width, height = size
    y = ((np.arange(height) + 0.5) / height - centre[1]) / radii[1]
    x = ((np.arange(width) + 0.5) / width - centre[0]) / radii[0]
    return (y**2)[:, None] + (x**2)[None] < 1


def drawn_photo(
    size: tuple[int, int] = (300, 240), seed: int = 0, centre: tuple[float, float] = (0.52, 0.5)
) -> tuple[Image.Image, NDArray[np.bool_]]:
    """Draw a toy of two colours with an eye on spotted green; return it and its mask."""
    page = background(size, seed, (90, 130, 80))
    body = ellipse(size, centre, (0.2, 0.26))
    head = ellipse(size, (centre[0], centre[1] - 0.28), (0.11, 0.14))
    eye = ellipse(size, (centre[0], centre[1] - 0.3), (0.02, 0.03))
    rng = np.random.default_rng(seed + 1)
    for mask, colour in ((body, (200, 60, 40)), (head, (230, 190, 60)), (eye, (20, 20, 30))):
        noise = rng.normal(0, 6, (int(mask.sum()), 3))
        page[mask] = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
    return Image.fromarray(page), body | head


def overlap(alpha_HW: NDArray[np.float32], mask_HW: NDArray[np.bool_]) -> float:
    """Intersection over union."""
    cut = alpha_HW > 0.5
    return float((cut & mask_HW).sum() / (cut | mask_HW).sum())
