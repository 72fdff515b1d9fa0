"""A lens: every pixel gathers some light of its neighbours, as in any photograph."""

from __future__ import annotations

import numpy as np

from dreambooth3d.scenes.shapes import Array

__all__ = ["soften"]

# Standard deviation of the point spread, pixels: just enough that neighbouring pixels agree with
# what a camera of this resolution can resolve (its Nyquist frequency is damped to 12 %).
_SPREAD = 0.65
_TAPS = np.exp(-0.5 * (np.arange(-2, 3) / _SPREAD) ** 2).astype(np.float32)
_TAPS /= _TAPS.sum()


def soften(rgb_HWC: Array) -> Array:
    """Spread the light of an image (H, W, C); its borders repeat outwards."""
    padded = np.pad(rgb_HWC, ((2, 2), (2, 2), (0, 0)), mode="edge")
    height, width = rgb_HWC.shape[:2]
    down = sum(_TAPS[tap] * padded[tap : tap + height] for tap in range(len(_TAPS)))
    spread: Array = sum(_TAPS[tap] * down[:, tap : tap + width] for tap in range(len(_TAPS)))
    return spread
