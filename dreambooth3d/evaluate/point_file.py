"""Point clouds as PLY files, which every viewer of meshes opens."""

from pathlib import Path

import numpy as np
import trimesh
from numpy.typing import NDArray

from dreambooth3d.errors import ArtifactError, InputError
from dreambooth3d.evaluate.alignment import unit_frame

Cloud = NDArray[np.float64]

# Of a mesh: points drawn evenly from its surface.
_SURFACE_POINTS = 20_000


def write_points(path: Path, points_N3: Cloud) -> None:
    """Write points, (N, 3)."""
    trimesh.PointCloud(points_N3).export(path, file_type="ply")


def read_points(path: Path) -> Cloud:
    """Read points, (N, 3); from a mesh they are drawn evenly, the same ones each time.

    Raises:
        ArtifactError: the file is no PLY, or what it holds has no shape.
    """
    try:
        points = _points_in(path)
    # What trimesh raises for files that are none.
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise ArtifactError(
            f"point cloud must be a PLY file, got {path} ({error}); export it again"
        ) from error
    try:
        unit_frame(points)
    except InputError as error:
        raise ArtifactError(f"{path}: {error}") from error
    return points


def _points_in(path: Path) -> Cloud:
    found = trimesh.load(path, file_type="ply", process=False)
    if isinstance(found, trimesh.Trimesh) and len(found.faces):
        points, _ = trimesh.sample.sample_surface(found, _SURFACE_POINTS, seed=0)
    else:
        points = getattr(found, "vertices", np.empty((0, 3)))
    return np.asarray(points, dtype=np.float64)
