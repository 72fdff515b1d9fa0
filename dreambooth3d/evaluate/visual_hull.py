"""The visual hull: a point cloud from the outlines of a turntable with known cameras."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dreambooth3d.errors import ConfigError, InputError
from dreambooth3d.scenes import Camera, camera_axes

Cloud = NDArray[np.float64]
Masks = NDArray[np.bool_]

# Of a side of the cube, in subject units: subjects of the embedded world fit into 1.
_REACH = 1.0
_LEAST_VIEWS = 2
# .55 of 20 masks are 11, and 11.000000000000002 in floating point.
_HAIR = 1e-9


@dataclass(frozen=True, kw_only=True)
class VisualHull:
    """Carve a cube by masks under parallel rays (Laurentini 1994): what no mask excludes is left.

    Hollows that no outline shows stay filled, so the hull of the true masks, not the true surface,
    is what a clip is fairly compared with.

    Attributes:
        cameras: one a frame.
        resolution: voxels along a side.
        centers: where each frame shows the subject's middle, (right, up) in halves of the long
            side; none when all show it in theirs.
        agreeing: share of the masks that must cover what is left, above 0 and at most 1; below 1
            a few wrong masks carve nothing away.
    """

    cameras: tuple[Camera, ...]
    resolution: int = 96
    centers: tuple[tuple[float, float], ...] = ()
    agreeing: float = 1.0

    def __post_init__(self) -> None:
        if self.centers and len(self.centers) != len(self.cameras):
            raise ConfigError(
                f"centers must be none or one for each of {len(self.cameras)} cameras, "
                f"got {len(self.centers)}; leave them out when every frame shows the middle"
            )
        if not 0 < self.agreeing <= 1:
            raise ConfigError(
                f"agreeing must be above 0 and at most 1, got {self.agreeing}; 1 asks all masks"
            )

    @property
    def name(self) -> str:
        """With all that decides a cloud."""
        return repr(self)

    def __call__(
        self,
        frames: Sequence[NDArray[np.uint8]] | NDArray[np.uint8],
        masks: Sequence[Masks] | Masks,
    ) -> Cloud:
        """Return the centres of the hull's outermost voxels, (N, 3); colours are not needed.

        Args:
            frames: not looked at.
            masks: the object in each of them, (H, W).

        Raises:
            InputError: cameras and masks differ in number, there are too few, or nothing is left.
        """
        if len(masks) != len(self.cameras) or len(masks) < _LEAST_VIEWS:
            raise InputError(
                f"visual hull must have one mask for each of {len(self.cameras)} cameras and at "
                f"least {_LEAST_VIEWS}, got {len(masks)}; pass the frames of one turntable"
            )
        axis = (np.arange(self.resolution) + 0.5) * (2 * _REACH / self.resolution) - _REACH
        grid_N3 = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
        num_spared = len(masks) - math.ceil(self.agreeing * len(masks) - _HAIR)
        num_against = np.zeros(len(grid_N3), dtype=np.int16)
        centers = self.centers or ((0.0, 0.0),) * len(self.cameras)
        for camera, center, mask_HW in zip(self.cameras, centers, masks, strict=True):
            left = np.flatnonzero(num_against <= num_spared)
            num_against[left] += ~_seen(camera, center, mask_HW, grid_N3[left])
        is_inside = num_against <= num_spared
        if not is_inside.any():
            raise InputError(
                "masks must agree on some place, got none left after carving; check masks, "
                "cameras and whether the subject keeps its place"
            )
        return grid_N3[_surface(is_inside.reshape((self.resolution,) * 3)).ravel()]


def _seen(camera: Camera, center: tuple[float, float], mask_HW: Masks, points_N3: Cloud) -> Masks:
    """Say which points a mask covers, (N,)."""
    height, width = mask_HW.shape
    plane_N3 = points_N3 @ camera_axes(camera).T.astype(np.float64) * camera.zoom
    side = max(height, width)
    across, down = plane_N3[:, 0] + center[0], -plane_N3[:, 1] - center[1]
    columns = np.floor((across + width / side) * side / 2).astype(np.int64)
    rows = np.floor((down + height / side) * side / 2).astype(np.int64)
    is_on = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    found = np.zeros(len(points_N3), dtype=np.bool_)
    found[is_on] = mask_HW[rows[is_on], columns[is_on]]
    return found


def _surface(inside_XYZ: Masks) -> Masks:
    """Keep voxels with a side to the outside."""
    padded = np.pad(inside_XYZ, 1)
    middle = slice(1, -1)
    covered = inside_XYZ.copy()
    for axis in range(3):
        for step in (slice(None, -2), slice(2, None)):
            place = [middle, middle, middle]
            place[axis] = step
            covered &= padded[tuple(place)]
    return np.asarray(inside_XYZ & ~covered, dtype=np.bool_)
