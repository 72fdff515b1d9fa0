"""Soft edges for a hard mask, and the object's own colours where the background shines through."""

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

Map = NDArray[np.float32]

# Long side on which edges are found; larger pictures get the same edge enlarged.
_GUIDE_SIDE = 1024
# Radius as a share of the guide's long side, and variance below which colours count as one.
_EDGE_RADIUS, _EDGE_NOISE = 0.008, 1e-4
# The filter's tails are cut: what is nearly nothing is nothing.
_TAIL = 0.1
# Blur radii of the two rounds of colour estimation, as shares of the long side.
_COLOUR_RADII = (0.09, 0.012)


def soften(mask_HW: NDArray[np.bool_], image: Image.Image) -> Map:
    """Let a hard mask follow the edges of the picture it was made of, at the picture's size.

    A guided filter with a colour guide (He et al. 2013, "Guided image filtering", eq. 19).

    Args:
        mask_HW: of any size, with the picture's proportions.
        image: RGB.

    Returns:
        Alpha (H, W), 0 to 1, exactly 0 or 1 away from edges.
    """
    guide = _guide_of(image)
    guide_HWC = (np.asarray(guide, dtype=np.float32) / 255).astype(np.float32)
    ramp_HW = _resized(mask_HW.astype(np.float32), guide.size)
    radius = max(2, round(_EDGE_RADIUS * max(guide.size)))
    alpha_HW = guided_filter(guide_HWC, ramp_HW, radius=radius, noise=_EDGE_NOISE)
    steep_HW = np.clip((alpha_HW - _TAIL) / (1 - 2 * _TAIL), 0, 1)
    return steep_HW if guide.size == image.size else _resized(steep_HW, image.size)


def guided_filter(guide_HWC: Map, values_HW: Map, *, radius: int, noise: float) -> Map:
    """Fit values as a linear function of the guide's colours in every window, (H, W).

    Args:
        guide_HWC: RGB, 0 to 1.
        values_HW: to be filtered.
        radius: of the square windows, in pixels.
        noise: variance added to the guide's; the larger, the smoother.
    """
    mean_HWC, mean_HW = _blurred(guide_HWC, radius), _blurred(values_HW, radius)
    joint_HWC = _blurred(guide_HWC * values_HW[..., None], radius) - mean_HWC * mean_HW[..., None]
    slope_HWC = _solved(_covariances(guide_HWC, mean_HWC, radius, noise), joint_HWC)
    offset_HW = mean_HW - (slope_HWC * mean_HWC).sum(axis=2)
    fitted_HWC = _blurred(slope_HWC, radius) * guide_HWC
    return np.asarray(fitted_HWC.sum(axis=2) + _blurred(offset_HW, radius), dtype=np.float32)


def foreground_colours(pixels_HWC: NDArray[np.uint8], alpha_HW: Map) -> NDArray[np.uint8]:
    """Estimate the object's own colours where the background shows through, (H, W, 3).

    Blur fusion in two rounds (Forte 2021, "Approximate fast foreground colour estimation").
    Opaque pixels stay as they are.
    """
    cv2.setNumThreads(1)
    seen_HWC = pixels_HWC.astype(np.float32)
    front_HWC, behind_HWC = seen_HWC, seen_HWC
    for share in _COLOUR_RADII:
        radius = max(1, round(share * max(alpha_HW.shape)))
        front_HWC, behind_HWC = _fused(seen_HWC, front_HWC, behind_HWC, alpha_HW, radius)
    return np.rint(np.clip(front_HWC, 0, 255)).astype(np.uint8)


def lay_on(
    pixels_HWC: NDArray[np.uint8], alpha_HW: Map, background: tuple[int, int, int]
) -> NDArray[np.uint8]:
    """Lay straight (not premultiplied) colours on one background colour, (H, W, 3)."""
    alpha_HW1 = alpha_HW[..., None]
    behind = np.array(background, dtype=np.float32)
    mixed = pixels_HWC.astype(np.float32) * alpha_HW1 + behind * (1 - alpha_HW1)
    return np.asarray(np.rint(np.clip(mixed, 0, 255)), dtype=np.uint8)


def _guide_of(image: Image.Image) -> Image.Image:
    scale = _GUIDE_SIDE / max(image.size)
    if scale >= 1:
        return image
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.BOX)


def _fused(
    seen_HWC: Map, front_HWC: Map, behind_HWC: Map, alpha_HW: Map, radius: int
) -> tuple[Map, Map]:
    """Spread colours of both layers into each other's place, then explain what is seen."""
    alpha_HW1 = alpha_HW[..., None]
    front_HWC = _weighted_blur(front_HWC, alpha_HW, radius)
    behind_HWC = _weighted_blur(behind_HWC, 1 - alpha_HW, radius)
    unexplained = seen_HWC - alpha_HW1 * front_HWC - (1 - alpha_HW1) * behind_HWC
    return np.clip(front_HWC + alpha_HW1 * unexplained, 0, 255), behind_HWC


def _weighted_blur(pixels_HWC: Map, weight_HW: Map, radius: int) -> Map:
    # Half-covered pixels know little of either layer.
    sure_HW = weight_HW**4
    total_HW = np.maximum(_blurred(sure_HW, radius), np.float32(1e-6))
    return np.asarray(
        _blurred(pixels_HWC * sure_HW[..., None], radius) / total_HW[..., None], np.float32
    )


def _covariances(guide_HWC: Map, mean_HWC: Map, radius: int, noise: float) -> dict[str, Map]:
    """Covariances of the guide's channels in every window, by pair of channel letters."""
    found: dict[str, Map] = {}
    for i, j in ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)):
        product = _blurred(guide_HWC[..., i] * guide_HWC[..., j], radius)
        spread = product - mean_HWC[..., i] * mean_HWC[..., j]
        if i == j:
            spread = spread + np.float32(noise)
        found["rgb"[i] + "rgb"[j]] = np.asarray(spread, np.float32)
    return found


def _solved(c: dict[str, Map], joint_HWC: Map) -> Map:
    """Solve the symmetric 3x3 system of every pixel by its adjugate, (H, W, 3)."""
    rr = c["gg"] * c["bb"] - c["gb"] ** 2
    rg = c["gb"] * c["rb"] - c["rg"] * c["bb"]
    rb = c["rg"] * c["gb"] - c["gg"] * c["rb"]
    gg = c["rr"] * c["bb"] - c["rb"] ** 2
    gb = c["rb"] * c["rg"] - c["rr"] * c["gb"]
    bb = c["rr"] * c["gg"] - c["rg"] ** 2
    determinant = c["rr"] * rr + c["rg"] * rg + c["rb"] * rb
    x, y, z = joint_HWC[..., 0], joint_HWC[..., 1], joint_HWC[..., 2]
    rows = (rr * x + rg * y + rb * z, rg * x + gg * y + gb * z, rb * x + gb * y + bb * z)
    return np.asarray(np.stack(rows, axis=2) / determinant[..., None], np.float32)


def _blurred(values: Map, radius: int) -> Map:
    side = 2 * radius + 1
    return np.asarray(cv2.blur(values, (side, side), borderType=cv2.BORDER_REFLECT), np.float32)


def _resized(values_HW: Map, size: tuple[int, int]) -> Map:
    return np.asarray(cv2.resize(values_HW, size, interpolation=cv2.INTER_LINEAR), np.float32)
