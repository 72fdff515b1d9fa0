"""A camera that looks at an object in the unit sphere from any side."""

import math
from dataclasses import dataclass

import numpy as np

from dreambooth3d.errors import ConfigError
from dreambooth3d.pairs.mesh_geometry import Doubles, turned
from dreambooth3d.pairs.mesh_light import direction
from dreambooth3d.pairs.mesh_model import Mesh

# Far enough for the whole sphere in a view of 32 degrees, a portrait lens.
_DISTANCE = 3.6
# Room behind the object for its shadow.
_NEAR, _FAR = _DISTANCE - 1.05, _DISTANCE + 4.0


@dataclass(frozen=True, kw_only=True)
class Shot:
    """Where the camera stands and what its picture holds.

    Attributes:
        azimuth_deg: 0 looks along -z, at the front of most models; grows towards +x.
        elevation_deg: above the object's middle.
        size: side of the square picture, pixels.
        extent: longer side of the object's box in the picture, as a share of `size`.
        center: middle of that box, shares of `size` from the left and from above.
    """

    azimuth_deg: float
    elevation_deg: float
    size: int
    extent: float = 0.84
    center: tuple[float, float] = (0.5, 0.5)

    def __post_init__(self) -> None:
        """Check ranges."""
        if not -89.0 <= self.elevation_deg <= 89.0:
            raise ConfigError(
                f"elevation_deg must be -89 to 89, got {self.elevation_deg}; use for example 15"
            )
        if not 0.0 < self.extent <= 1.0:
            raise ConfigError(f"extent must be above 0 and at most 1, got {self.extent}; use 0.8")


@dataclass(frozen=True, kw_only=True, eq=False)
class Camera:
    """Matrices of a shot; `view_projection_44` is for column vectors."""

    eye: tuple[float, float, float]
    view_projection_44: Doubles


def place_camera(mesh: Mesh, shot: Shot) -> Camera:
    """Frame the object: the sphere gives the distance, the box in the picture the lens shift."""
    eye_3, view_44 = _view(shot.azimuth_deg, shot.elevation_deg)
    low, high = _box(mesh, view_44)
    half = 0.5 * float((high - low).max()) / shot.extent
    middle = 0.5 * (low + high)
    # The window's middle lies where the box's middle is not: shift the lens the other way.
    window = middle + 2.0 * half * (np.array([0.5, -0.5]) + np.array([-1.0, 1.0]) * shot.center)
    return Camera(
        eye=(float(eye_3[0]), float(eye_3[1]), float(eye_3[2])),
        view_projection_44=_frustum(window, half) @ view_44,
    )


def seen_size(mesh: Mesh, azimuth_deg: float, elevation_deg: float) -> tuple[float, float]:
    """Width and height of the object's box from that side; the longer is 1."""
    low, high = _box(mesh, _view(azimuth_deg, elevation_deg)[1])
    width, height = ((high - low) / float((high - low).max())).tolist()
    return width, height


def floor_height(mesh: Mesh) -> float:
    """Height of the lowest point."""
    return min(float(part.positions_T33[..., 1].min()) for part in mesh.parts)


def _view(azimuth_deg: float, elevation_deg: float) -> tuple[Doubles, Doubles]:
    """Where the camera stands (3,), and the matrix (4, 4) into its frame."""
    azimuth = math.radians(azimuth_deg)
    back_3 = np.array(direction(azimuth_deg, elevation_deg))
    right_3 = np.array([math.cos(azimuth), 0.0, -math.sin(azimuth)])
    view_33 = np.stack([right_3, np.cross(back_3, right_3), back_3])
    eye_3 = back_3 * _DISTANCE
    view_44 = np.eye(4)
    view_44[:3, :3] = view_33
    view_44[:3, 3] = -view_33 @ eye_3
    return eye_3, view_44


def _box(mesh: Mesh, view_44: Doubles) -> tuple[Doubles, ...]:
    """Corners (2,) of the object's box in the image plane at distance 1, y up."""
    boxes = []
    for part in mesh.parts:
        corners_N3 = part.positions_T33.reshape(-1, 3).astype(np.float64)
        seen_N3 = turned(corners_N3, view_44[:3, :3]) + view_44[:3, 3]
        plane_N2 = seen_N3[:, :2] / -seen_N3[:, 2:]
        boxes.append((plane_N2.min(axis=0), plane_N2.max(axis=0)))
    return np.min([low for low, _ in boxes], axis=0), np.max([high for _, high in boxes], axis=0)


def _frustum(middle: Doubles, half: float) -> Doubles:
    """Projection (4, 4) of a square window around `middle` in the plane at distance 1."""
    return np.array(
        [
            [1.0 / half, 0.0, middle[0] / half, 0.0],
            [0.0, 1.0 / half, middle[1] / half, 0.0],
            [0.0, 0.0, -(_FAR + _NEAR) / (_FAR - _NEAR), -2.0 * _FAR * _NEAR / (_FAR - _NEAR)],
            [0.0, 0.0, -1.0, 0.0],
        ]
    )
