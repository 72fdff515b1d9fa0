"""Does a cut-out stand out from its surroundings, or did the cutter find shapes in grass?"""

import cv2
import numpy as np
from numpy.typing import NDArray

from dreambooth3d.vision.pieces import Mask, grown
from dreambooth3d.vision.refusal import RefusedError

# Measured on 27 photos and 32 composites: objects have at least 0.37 (0.28 and 0.30: two that were
# cut badly), 9.7 and at most 0.67. Of 20 pieces of photos without their object one passed: it shows
# a parked car.
_LEAST_EXPLAINED = 0.34
_LEAST_CONTOUR = 4.0
_MOST_ALIKE = 0.75
_LEAST_SHARE, _MOST_SHARE = 0.005, 0.85
# Of the mask's surroundings, in pixels of the working copy.
_RING = 10
_BINS = 16


def require_standout(
    mask_HW: Mask, pixels_HWC: NDArray[np.uint8], prior_HW: NDArray[np.uint8]
) -> None:
    """Refuse a mask that is no object in front of something else.

    Args:
        mask_HW: what was cut out.
        pixels_HWC: RGB, about 224 pixels a side: limits hold for that.
        prior_HW: where the object was expected, 0 to 255.

    Raises:
        RefusedError: `no_object`.
    """
    share = float(mask_HW.mean())
    if not _LEAST_SHARE <= share <= _MOST_SHARE:
        raise _refused(f"an object on {_LEAST_SHARE} to {_MOST_SHARE} of its area", share)
    found = explained_share(mask_HW, prior_HW)
    if found < _LEAST_EXPLAINED:
        raise _refused(f"one place that stands out by {_LEAST_EXPLAINED}", found)
    lab_HWC = cv2.cvtColor(pixels_HWC.astype(np.float32) / 255, cv2.COLOR_RGB2Lab)
    contour = contour_contrast(mask_HW, np.asarray(lab_HWC, np.float32))
    if contour < _LEAST_CONTOUR:
        raise _refused(f"an object with an edge of {_LEAST_CONTOUR} in Lab colour", contour)
    alike = likeness_to_ring(mask_HW, np.asarray(lab_HWC, np.float32))
    if alike > _MOST_ALIKE:
        raise _refused(f"an object at most {_MOST_ALIKE} like its surroundings", alike)


def explained_share(mask_HW: Mask, prior_HW: NDArray[np.uint8]) -> float:
    """Share of the prior that lies in the mask."""
    return float(prior_HW[mask_HW].sum() / max(int(prior_HW.sum()), 1))


def contour_contrast(mask_HW: Mask, lab_HWC: NDArray[np.float32]) -> float:
    """Mean colour gradient along the contour, in Lab units per pixel."""
    across = cv2.Sobel(lab_HWC, cv2.CV_32F, 1, 0) / 8
    down = cv2.Sobel(lab_HWC, cv2.CV_32F, 0, 1) / 8
    gradient_HW = np.sqrt((across**2 + down**2).sum(axis=2))
    contour_HW = grown(mask_HW, 1) & grown(~mask_HW, 1)
    return float(gradient_HW[contour_HW].mean()) if contour_HW.any() else 0.0


def likeness_to_ring(mask_HW: Mask, lab_HWC: NDArray[np.float32]) -> float:
    """Bhattacharyya coefficient of the colours inside and just outside; 1 is the same colours."""
    low = np.array([0, -128, -128], dtype=np.float32)
    cells_HWC = ((lab_HWC - low) / 8).astype(np.int64)
    cells_HW = (cells_HWC[..., 0] * 32 + cells_HWC[..., 1]) * 32 + cells_HWC[..., 2]
    ring_HW = grown(mask_HW, _RING) & ~mask_HW
    inside, outside = (_histogram(cells_HW[part]) for part in (mask_HW, ring_HW))
    return float(np.sqrt(inside * outside).sum())


def _histogram(cells_N: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.bincount(cells_N, minlength=_BINS * 32 * 32) / max(len(cells_N), 1)


def _refused(rule: str, value: float) -> RefusedError:
    return RefusedError(
        "no_object", f"photo must show {rule}, got {value:.2f}; give its mask or leave it out"
    )
