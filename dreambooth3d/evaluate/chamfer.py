"""How far two surfaces are apart, as point clouds: accuracy, completeness and their mean.

Distances to a cloud shrink the more points it has. `even_clouds` makes clouds of one size of what
reconstructors give, without the points that lie far from all others.

Accuracy is the mean distance from a predicted point to the nearest true one (what was added or
misplaced), completeness the way back (what is missing), as in the benchmark's table.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from dreambooth3d.evaluate.alignment import Similarity, align, unit_frame

Cloud = NDArray[np.float64]

# Neighbours whose mean distance tells strays, and how often the usual one is too far.
_NEIGHBOURS, _STRAY = 8, 5.0


@dataclass(frozen=True, kw_only=True)
class Chamfer:
    """Distances in the unit of the clouds; 0 is the same surface.

    Attributes:
        accuracy: mean distance from predicted points to the truth.
        completeness: mean distance from true points to the prediction.
    """

    accuracy: float
    completeness: float

    @property
    def distance(self) -> float:
        """Mean of both, the benchmark's CD."""
        return (self.accuracy + self.completeness) / 2


def chamfer(predicted_N3: Cloud, true_M3: Cloud) -> Chamfer:
    """Compare clouds where they are.

    Raises:
        InputError: a cloud has no shape, see `alignment.align`.
    """
    # Refuses what has no shape.
    unit_frame(predicted_N3), unit_frame(true_M3)
    there, _ = cKDTree(true_M3).query(predicted_N3)
    back, _ = cKDTree(predicted_N3).query(true_M3)
    return Chamfer(accuracy=float(there.mean()), completeness=float(back.mean()))


def aligned_chamfer(predicted_N3: Cloud, true_M3: Cloud) -> Chamfer:
    """Compare clouds of any scale, turn and place.

    The prediction is laid on the truth; the unit is the geometric mean of both clouds' radii (root
    mean square, about the centre) then, so that exchanging them exchanges the two distances only.
    """
    return chamfer_after(align(predicted_N3, true_M3), predicted_N3, true_M3)


def chamfer_after(move: Similarity, predicted_N3: Cloud, true_M3: Cloud) -> Chamfer:
    """The same by an alignment that is known."""
    found = chamfer(move(predicted_N3), true_M3)
    radius = 1 / unit_frame(true_M3).scale
    moved_radius = move.scale / unit_frame(predicted_N3).scale
    unit = float(np.sqrt(radius * moved_radius))
    return Chamfer(accuracy=found.accuracy / unit, completeness=found.completeness / unit)


def even_clouds(*clouds: Cloud, num_points: int) -> tuple[Cloud, ...]:
    """Leave out strays, and bring what has more points to `num_points`, the same ones each time."""
    found = []
    for points_N3 in map(without_strays, clouds):
        count = min(num_points, len(points_N3))
        chosen = np.random.default_rng(0).choice(len(points_N3), count, replace=False)
        found.append(points_N3[np.sort(chosen)])
    return tuple(found)


def without_strays(points_N3: Cloud) -> Cloud:
    """Leave out points that are much farther from their neighbours than is usual in the cloud."""
    wanted = min(_NEIGHBOURS + 1, len(points_N3))
    if wanted < 2:
        return points_N3
    distances, _ = cKDTree(points_N3).query(points_N3, k=wanted)
    lonely = distances[:, 1:].mean(axis=1)
    return np.asarray(points_N3[lonely <= _STRAY * np.median(lonely)])
