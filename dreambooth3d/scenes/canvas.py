"""Soft-edged shapes on a panorama that repeats sideways.

Coordinates: one unit is one frame height; y runs down from 0 to 1 and x runs from 0 to 2 and wraps,
so a camera can pan by any amount.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dreambooth3d.scenes.palette import RGB
from dreambooth3d.scenes.shapes import Array

__all__ = ["WIDTH", "Canvas"]

WIDTH = 2

_AnyArray = NDArray[np.floating[Any]]


class Canvas:
    """A panorama (size, 2 * size) with premultiplied `rgb` in 0..255 and `alpha` in 0..1."""

    def __init__(self, size: int) -> None:
        self.pixel = 1.0 / size
        self.rgb = np.zeros((size, WIDTH * size, 3), np.float32)
        self.alpha = np.zeros((size, WIDTH * size), np.float32)
        self._x = ((np.arange(WIDTH * size, dtype=np.float32) + 0.5) / size)[None, :]
        self._y = ((np.arange(size, dtype=np.float32) + 0.5) / size)[:, None]

    def gradient(self, top: float, bottom: float, above: RGB, below: RGB) -> None:
        """Vertical blend from `above` at y = top to `below` at y = bottom, opaque."""
        share = np.clip((self._y - top) / (bottom - top), 0.0, 1.0)[..., None]
        color = (1.0 - share) * np.array(above) + share * np.array(below)
        inside = np.clip((self._y - top) / self.pixel + 0.5, 0.0, 1.0)
        self._cover(np.broadcast_to(inside, self.alpha.shape), color.astype(np.float32), 1.0)

    def ellipse(
        self, x: float, y: float, half: tuple[float, float], color: RGB, opacity: float = 1.0
    ) -> None:
        """Filled ellipse with half-axes `half`."""
        across, down = self._dx(x) / half[0], (self._y - y) / half[1]
        self._fill((np.sqrt(across**2 + down**2) - 1.0) * min(half), color, opacity)

    def glow(self, x: float, y: float, radius: float, color: RGB, opacity: float) -> None:
        """Light that fades out as a Gaussian of width `radius`."""
        square = (self._dx(x) ** 2 + (self._y - y) ** 2) / radius**2
        self._cover(np.exp(-square), np.array(color, np.float32), opacity)

    def rectangle(
        self, x: float, y: float, half: tuple[float, float], color: RGB, opacity: float = 1.0
    ) -> None:
        """Filled axis-aligned rectangle."""
        across, down = np.abs(self._dx(x)) - half[0], np.abs(self._y - y) - half[1]
        self._fill(np.maximum(across, down), color, opacity)

    def peak(self, x: float, top: float, bottom: float, half_width: float, color: RGB) -> None:
        """Upright triangle with its tip at (x, top)."""
        edge = (self._y - top) * (half_width / (bottom - top))
        self._fill(np.maximum(np.abs(self._dx(x)) - edge, self._y - bottom), color, 1.0)

    def hills(self, y: float, height: float, waves: int, phase: float, color: RGB) -> None:
        """Everything below a wavy line around `y`; `waves` periods per panorama."""
        angle = math.pi * waves * self._x + phase
        line = y - height * (np.sin(angle) + 0.35 * np.sin(2.0 * angle + 1.7 * phase))
        self._fill(line - self._y, color, 1.0)

    def blade(
        self, x: float, bottom: float, height: float, width: float, sway: float, color: RGB
    ) -> None:
        """Wavy upright strip such as seaweed."""
        rise = (bottom - self._y) / height
        middle = self._dx(x) - sway * np.sin(5.0 * rise)
        outside = np.maximum(-rise, rise - 1.0) * height
        self._fill(np.maximum(np.abs(middle) - width * (1.1 - rise), outside), color, 1.0)

    def _dx(self, x: float) -> Array:
        """Signed distance to `x` the short way around the panorama."""
        return np.asarray((self._x - x + 0.5 * WIDTH) % WIDTH - 0.5 * WIDTH, np.float32)

    def _fill(self, distance: _AnyArray, color: RGB, opacity: float) -> None:
        """Paint where `distance`, in frame heights, is negative."""
        share = np.clip(0.5 - distance / self.pixel, 0.0, 1.0)
        self._cover(share, np.array(color, np.float32), opacity)

    def _cover(self, share: _AnyArray, color: Array, opacity: float) -> None:
        share = (share * opacity).astype(np.float32)
        self.alpha += share * (1.0 - self.alpha)
        self.rgb += share[..., None] * (color - self.rgb)
