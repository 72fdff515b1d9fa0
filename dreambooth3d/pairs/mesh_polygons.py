"""Polygons into triangles, with their notches and holes left open.

A fan around the first corner fills what a concave polygon leaves out: a third of the models people
publish as OBJ have such polygons, and a glazed door drawn as one loses its panes.
"""

import numpy as np

from dreambooth3d.pairs.mesh_geometry import Doubles, Integers
from dreambooth3d.vision.refusal import RefusedError

# Clipping ears takes time with the square of the corners; real models stay far below.
_MAX_CORNERS = 2_000
_MAX_CLIPPED = 400_000
_FLAT = 1e-9


def triangulate(polygons_Pk3: Doubles) -> tuple[Integers, Integers]:
    """Divide polygons (P, k, 3) into triangles.

    Returns:
        The polygon (T,) of each triangle, and its three corners (T, 3) within that polygon.

    Raises:
        RefusedError: bad_mesh: so many concave corners that it would take minutes.
    """
    count, corners = polygons_Pk3.shape[:2]
    fan_F3 = np.array([[0, i, i + 1] for i in range(1, corners - 1)], np.int64)
    owner_T = np.repeat(np.arange(count), len(fan_F3))
    corners_T3 = np.tile(fan_F3, (count, 1))
    if corners == 3:
        return owner_T, corners_T3
    flat_Pk2, turn_Pk = _flattened(polygons_Pk3)
    is_concave_P = (turn_Pk < -_FLAT).any(axis=1)
    if corners == 4:
        # The fan of a quad is right when it starts at the corner that points inwards.
        start_P = np.where(is_concave_P, turn_Pk.argmin(axis=1), 0)
        return owner_T, (corners_T3 + np.repeat(start_P, 2)[:, None]) % 4
    concave_C = np.nonzero(is_concave_P)[0]
    if len(concave_C) * corners > _MAX_CLIPPED or (len(concave_C) and corners > _MAX_CORNERS):
        raise RefusedError(
            "bad_mesh",
            f"concave polygons must have at most {_MAX_CORNERS} corners, {_MAX_CLIPPED} together, "
            f"got {len(concave_C)} with {corners}; triangulate the model",
        )
    corners_PF3 = corners_T3.reshape(count, -1, 3)
    for polygon in concave_C:
        corners_PF3[polygon] = _clip_ears(flat_Pk2[polygon])
    return owner_T, corners_PF3.reshape(-1, 3)


def _flattened(polygons_Pk3: Doubles) -> tuple[Doubles, Doubles]:
    """Corners in the polygon's plane (P, k, 2), anticlockwise, and how each turns (P, k).

    The turn is the area beside a corner as a share of the polygon's, negative where it points in.
    """
    centred_Pk3 = polygons_Pk3 - polygons_Pk3.mean(axis=1, keepdims=True)
    normal_P3 = np.cross(centred_Pk3, np.roll(centred_Pk3, -1, axis=1)).sum(axis=1)
    area_P = np.linalg.norm(normal_P3, axis=1)
    sound_P = np.where(area_P > 0.0, area_P, 1.0)
    unit_P3 = normal_P3 / sound_P[:, None]
    # Any direction that is not the normal spans the plane with it.
    helper_P3 = np.eye(3)[np.abs(unit_P3).argmin(axis=1)]
    across_P3 = np.cross(helper_P3, unit_P3)
    across_P3 /= np.maximum(np.linalg.norm(across_P3, axis=1), 1e-300)[:, None]
    along_P3 = np.cross(unit_P3, across_P3)
    flat_Pk2 = np.stack(
        [
            np.einsum("pkc,pc->pk", centred_Pk3, across_P3),
            np.einsum("pkc,pc->pk", centred_Pk3, along_P3),
        ],
        axis=-1,
    )
    before = flat_Pk2 - np.roll(flat_Pk2, 1, axis=1)
    after = np.roll(flat_Pk2, -1, axis=1) - flat_Pk2
    return flat_Pk2, _cross(before, after) / sound_P[:, None]


def _clip_ears(flat_k2: Doubles) -> Integers:
    """Triangles (k - 2, 3) of a simple polygon, anticlockwise; a hole comes by a bridge."""
    left = list(range(len(flat_k2)))
    triangles = []
    while len(left) > 3:
        at = _find_ear(flat_k2[left])
        triangles.append([left[at - 1], left[at], left[(at + 1) % len(left)]])
        del left[at]
    return np.array([*triangles, left], np.int64)


def _find_ear(ring_n2: Doubles) -> int:
    """Find a corner whose triangle lies inside and holds no other corner."""
    before_n2, after_n2 = np.roll(ring_n2, 1, axis=0), np.roll(ring_n2, -1, axis=0)
    turn_n = _cross(ring_n2 - before_n2, after_n2 - ring_n2)
    for at in np.nonzero(turn_n > 0.0)[0]:
        a, b, c = before_n2[at], ring_n2[at], after_n2[at]
        others = ring_n2[turn_n <= 0.0]
        inside = (
            (_cross(b - a, others - a) >= 0.0)
            & (_cross(c - b, others - b) >= 0.0)
            & (_cross(a - c, others - c) >= 0.0)
        )
        # A bridge to a hole passes its corners twice: their copies block nothing.
        is_corner = (others == a).all(1) | (others == b).all(1) | (others == c).all(1)
        if not (inside & ~is_corner).any():
            return int(at)
    # Crossed or flat: what is left has no right answer, and little area.
    return int(np.abs(turn_n).argmin())


def _cross(u: Doubles, v: Doubles) -> Doubles:
    result: Doubles = u[..., 0] * v[..., 1] - u[..., 1] * v[..., 0]
    return result
