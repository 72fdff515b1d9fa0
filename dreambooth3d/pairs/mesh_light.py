"""Linear light and 8-bit pictures: encoding, cut-outs without fringes, the light of a place."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dreambooth3d.errors import ConfigError
from dreambooth3d.pairs.mesh_geometry import Floats
from dreambooth3d.pairs.mesh_materials import Color, linear_light

Bytes = NDArray[np.uint8]

# Glass may be this clear and still be part of the object.
MASK_ALPHA = 0.2

_STEPS = 65535
_LINEAR = linear_light(np.arange(256) / 255.0).astype(np.float32)
_SHARE = np.arange(_STEPS + 1) / _STEPS
_ENCODED = np.rint(
    255.0 * np.where(_SHARE <= 0.0031308, 12.92 * _SHARE, 1.055 * _SHARE ** (1 / 2.4) - 0.055)
).astype(np.uint8)
_LUMINANCE = np.array([0.2126, 0.7152, 0.0722], np.float32)
# Strength of the light from above, from below and of the key in a bright place.
_SKY, _FLOOR, _KEY = 0.68, 0.4, 0.55
# How much of a place's colour its light takes on; the object must stay recognisable.
_TINT = 0.3
_SPREAD_STEPS = 4


@dataclass(frozen=True, kw_only=True)
class Light:
    """Light on an object, linear.

    Attributes:
        sky: from above.
        floor: from below.
        key: of the lamp or the sun.
        key_direction: unit vector towards it; y is up.
    """

    sky: Color
    floor: Color
    key: Color
    key_direction: Color

    def __post_init__(self) -> None:
        """Check that the lamp is well above the floor: shadows end."""
        if not self.key_direction[1] >= 0.3:
            raise ConfigError(
                f"key_direction must rise by at least 0.3, got {self.key_direction}; lift the lamp"
            )


def studio_light(azimuth_deg: float, elevation_deg: float = 55.0) -> Light:
    """White light of a studio, with the lamp at that side of the object."""
    return Light(
        sky=(_SKY, _SKY, _SKY),
        floor=(_FLOOR, _FLOOR, _FLOOR),
        key=(_KEY, _KEY, _KEY),
        key_direction=direction(azimuth_deg, elevation_deg),
    )


def light_of(place_HW3: Floats, *, azimuth_deg: float, elevation_deg: float) -> Light:
    """Light as a place has it: colours of its upper and lower half, dim where it is dark.

    Args:
        place_HW3: the background, linear.
        azimuth_deg, elevation_deg: of its lamp or sun.
    """
    half = place_HW3.shape[0] // 2
    upper, lower = place_HW3[:half].mean(axis=(0, 1)), place_HW3[half:].mean(axis=(0, 1))
    brightness = float((0.5 * (upper + lower) * _LUMINANCE).sum())
    exposure = min(0.55 + 0.75 * math.sqrt(brightness), 1.0)
    return Light(
        sky=_tinted(upper, _SKY * exposure),
        floor=_tinted(lower, _FLOOR * exposure),
        key=_tinted(upper, _KEY * exposure),
        key_direction=direction(azimuth_deg, elevation_deg),
    )


def direction(azimuth_deg: float, elevation_deg: float) -> Color:
    """Unit vector towards a side of the object, y up; azimuth as in `Shot`."""
    azimuth, elevation = math.radians(azimuth_deg), math.radians(elevation_deg)
    flat = math.cos(elevation)
    return flat * math.sin(azimuth), math.sin(elevation), flat * math.cos(azimuth)


def decode(picture: Image.Image) -> Floats:
    """Linear light (H, W, 3) of an RGB picture."""
    light: Floats = _LINEAR[np.asarray(picture.convert("RGB"))]
    return light


def encode(light_HWC: Floats) -> Bytes:
    """8-bit sRGB of linear light; what is brighter than white is white."""
    steps = np.rint(np.clip(light_HWC, 0.0, 1.0) * np.float32(_STEPS)).astype(np.int64)
    encoded: Bytes = _ENCODED[steps]
    return encoded


def cut_out(render_HW4: Floats) -> Image.Image:
    """RGBA picture of a premultiplied render; colours go on a little beyond the edge.

    Whoever scales the picture mixes the colours of clear pixels in, so they must not be black.
    """
    alpha_HW1 = np.clip(render_HW4[..., 3:], 0.0, 1.0)
    color = render_HW4.copy()
    for _ in range(_SPREAD_STEPS):
        beside = _neighbours(color)
        color = np.where(color[..., 3:] > 0.0, color, beside)
    weight = color[..., 3:]
    straight = np.where(weight > 0.0, color[..., :3] / np.where(weight > 0.0, weight, 1.0), 1.0)
    opacity = np.rint(alpha_HW1 * 255.0).astype(np.uint8)
    return Image.fromarray(np.concatenate([encode(straight), opacity], axis=2))


def mask_of(render_HW4: Floats) -> NDArray[np.bool_]:
    """(H, W) where the object is seen."""
    mask: NDArray[np.bool_] = render_HW4[..., 3] >= MASK_ALPHA
    return mask


def _neighbours(color_HW4: Floats) -> Floats:
    """Sum of the four neighbours of every pixel."""
    padded = np.pad(color_HW4, ((1, 1), (1, 1), (0, 0)))
    total: Floats = padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:]
    return total


def _tinted(color_3: Floats, strength: float) -> Color:
    """Grey light of that strength, with some of the colour's hue."""
    luminance = max(float((color_3 * _LUMINANCE).sum()), 1e-4)
    hue_3 = np.clip(color_3 / luminance, 0.4, 2.0)
    red, green, blue = (strength * ((1.0 - _TINT) + _TINT * hue_3)).tolist()
    return red, green, blue
