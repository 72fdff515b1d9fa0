"""How far two objects' colours are apart, whatever the places they have."""

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from dreambooth3d.vision.pieces import Mask

Quantiles = NDArray[np.float64]

_DIRECTIONS, _LEVELS, _SEED = 24, 99, 1
# Edge pixels have the background's colours, too.
_EDGE = 1


def colour_quantiles(pixels_HWC: NDArray[np.uint8], mask_HW: Mask) -> Quantiles:
    """Sort the Lab colours inside a mask along fixed directions, (99, 24), in Lab units."""
    inner = cv2.erode(mask_HW.astype(np.uint8), np.ones((3, 3), np.uint8), iterations=_EDGE) > 0
    chosen = inner if inner.any() else mask_HW
    lab_HWC = cv2.cvtColor(pixels_HWC.astype(np.float32) / 255, cv2.COLOR_RGB2Lab)
    along_ND = lab_HWC[chosen].astype(np.float64) @ _directions().T
    return np.asarray(np.quantile(along_ND, np.linspace(0.01, 0.99, _LEVELS), axis=0))


def sliced_wasserstein(one: Quantiles, other: Quantiles) -> float:
    """Mean over directions of the 1-D Wasserstein distance, Lab units; 0 is the same colours.

    Rabin et al. 2011. Shifting all colours by d gives half of |d|: a direction sees that much of a
    shift in the mean.
    """
    return float(np.abs(one - other).mean())


@lru_cache(maxsize=1)
def _directions() -> Quantiles:
    found = np.random.default_rng(_SEED).normal(size=(_DIRECTIONS, 3))
    return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True))
