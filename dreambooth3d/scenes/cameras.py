"""Orthographic cameras on a sphere around the subject."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from dreambooth3d.errors import ConfigError
from dreambooth3d.scenes.shapes import Array

__all__ = ["Camera", "camera_axes", "reference_cameras"]

_REFERENCE_ELEVATION_DEG = 15.0


@dataclass(frozen=True, kw_only=True)
class Camera:
    """View from a direction on the sphere; parallel rays, looking at the origin.

    Azimuth 0 is the front (camera on +x); growing azimuth moves the camera towards +y. The image
    plane spans [-1 / zoom, 1 / zoom] subject units in both directions.
    """

    azimuth_deg: float
    elevation_deg: float
    zoom: float = 1.0

    def __post_init__(self) -> None:
        if not -90.0 <= self.elevation_deg <= 90.0:
            raise ConfigError(
                f"elevation_deg must be between -90 and 90, got {self.elevation_deg}; "
                "turn the azimuth by 180 to look from the other side"
            )
        if not self.zoom > 0.0:
            raise ConfigError(f"zoom must be positive, got {self.zoom}; 1.0 fits the subject")


def camera_axes(camera: Camera) -> Array:
    """Rows (3, 3): image right, image up, and viewing direction, in the subject frame."""
    azimuth, elevation = math.radians(camera.azimuth_deg), math.radians(camera.elevation_deg)
    ca, sa = math.cos(azimuth), math.sin(azimuth)
    ce, se = math.cos(elevation), math.sin(elevation)
    rows = [[-sa, ca, 0.0], [-ca * se, -sa * se, ce], [-ca * ce, -sa * ce, -se]]
    return np.array(rows, np.float32)


def reference_cameras(num_views: int) -> tuple[Camera, ...]:
    """`num_views` cameras at evenly spaced azimuths that start at the front."""
    if num_views < 1:
        raise ConfigError(f"num_views must be at least 1, got {num_views}; ask for some views")
    return tuple(
        Camera(azimuth_deg=360.0 * index / num_views, elevation_deg=_REFERENCE_ELEVATION_DEG)
        for index in range(num_views)
    )
