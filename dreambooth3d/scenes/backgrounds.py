"""Named backgrounds as two panoramas that pan at different speeds."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from dreambooth3d.scenes import indoors, outdoors
from dreambooth3d.scenes.canvas import Canvas
from dreambooth3d.scenes.shapes import Array
from dreambooth3d.scenes.subjects import seeded

__all__ = ["BACKGROUNDS", "VARIANTS", "Backdrop", "backdrop"]

_PAINTERS: dict[str, Callable[[Canvas, Canvas, np.random.Generator], None]] = {
    "at night": outdoors.night,
    "at sunset": outdoors.sunset,
    "in a city street": indoors.city_street,
    "in a desert": outdoors.desert,
    "in a forest": outdoors.forest,
    "in a kitchen": indoors.kitchen,
    "in a living room": indoors.living_room,
    "in a meadow": outdoors.meadow,
    "in the snow": outdoors.snow,
    "on a beach": outdoors.beach,
    "on a wooden desk": indoors.wooden_desk,
    "on the moon": outdoors.moon,
    "under water": outdoors.under_water,
}

BACKGROUNDS: tuple[str, ...] = tuple(_PAINTERS)

VARIANTS = 32
"""Number of layouts per background; few enough that a long run finds them in the cache."""


@dataclass(frozen=True, kw_only=True)
class Backdrop:
    """Panoramas (H, 2 H): `far` RGB in 0..255, `near` premultiplied RGB with `near_alpha`."""

    far: Array
    near: Array
    near_alpha: Array

    def view(self, far_pan: float, near_pan: float) -> Array:
        """RGB (H, H, 3) seen after panning right by frame widths."""
        alpha = _crop(self.near_alpha[..., None], near_pan)
        return _crop(self.near, near_pan) + (1.0 - alpha) * _crop(self.far, far_pan)


def _crop(panorama: Array, pan: float) -> Array:
    """One frame width out of the panorama; `pan` frame widths, in between pixels too."""
    size, width = panorama.shape[:2]
    start = pan * size
    whole = int(np.floor(start))
    share = np.float32(start - whole)
    columns = np.arange(whole, whole + size) % width
    if share == 0.0:
        return panorama[:, columns]
    crop: Array = (1.0 - share) * panorama[:, columns] + share * panorama[:, (columns + 1) % width]
    return crop


@lru_cache(maxsize=512)
def backdrop(name: str, seed: int, size: int) -> Backdrop:
    """The background `name` laid out by `seed`."""
    rng = seeded(seed, zlib.crc32(name.encode()))
    far, near = Canvas(size), Canvas(size)
    _PAINTERS[name](far, near, rng)
    return Backdrop(far=far.rgb, near=near.rgb, near_alpha=near.alpha)
