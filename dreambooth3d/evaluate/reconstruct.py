"""Point clouds from frames: what may reconstruct, and what is here to do it.

| name          | takes                                              | needs                     |
|---------------|----------------------------------------------------|---------------------------|
| `pycolmap`    | frames of a textured object, in small steps        | the package               |
| `vggt`        | any frames                                         | the package and weights   |
| `visual_hull` | outlines of a turntable whose cameras are told     | nothing more              |
"""

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dreambooth3d.evaluate.skipping import Skipped

Cloud = NDArray[np.float64]

HULL = "visual_hull"
RECONSTRUCTORS = ("pycolmap", "vggt", HULL)
"""In the order in which the documentation tells of them."""


class Reconstructor(Protocol):
    """Makes a point cloud, in any unit, of the object that frames show."""

    @property
    def name(self) -> str:
        """Of itself, with its version and whatever else decides a cloud."""

    def __call__(
        self, frames: Sequence[NDArray[np.uint8]], masks: Sequence[NDArray[np.bool_]]
    ) -> Cloud:
        """Return points on the surface, (N, 3).

        Args:
            frames: RGB, (H, W, 3) each.
            masks: the object in each, (H, W).

        Raises:
            InputError: the frames do not show enough.
        """


def find_reconstructor(name: str, *, vggt_weights: str = "") -> Reconstructor | Skipped:
    """Return `pycolmap` or `vggt`, or why it is not here.

    Raises:
        ArtifactError: the weights are named and cannot be read.
    """
    if find_spec(name) is None:
        return Skipped(
            name=f"chamfer_{name}",
            reason=f"package {name} is not installed; docs/evaluate.md says from where",
        )
    if name == "pycolmap":
        from dreambooth3d.evaluate.structure_from_motion import StructureFromMotion

        return StructureFromMotion()
    if not vggt_weights:
        return Skipped(
            name="chamfer_vggt", reason="no weights: set vggt_weights to their downloaded folder"
        )
    from dreambooth3d.evaluate.vggt import load_vggt

    return load_vggt(vggt_weights)
