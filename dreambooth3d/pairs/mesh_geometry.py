"""Triangles as a renderer wants them: corners with normals, smooth where the surface is smooth."""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float32]
Doubles: TypeAlias = NDArray[np.float64]
Integers: TypeAlias = NDArray[np.int64]

# Neighbours that meet at a smaller angle share a normal: a ball is round, a box has edges.
_CREASE_COSINE = np.float32(np.cos(np.radians(50.0)))
# A fan has as many triangles as its rim; beyond this many at one point the rest are not compared.
_MAX_NEIGHBOURS = 24


def face_normals(corners_T33: Floats) -> tuple[Floats, Floats]:
    """Unit normals (T, 3) and areas (T,); the normal of a triangle without area is zero."""
    edges = (corners_T33[:, 1:] - corners_T33[:, :1]).astype(np.float64)
    cross_T3 = np.cross(edges[:, 0], edges[:, 1])
    length_T = np.linalg.norm(cross_T3, axis=1)
    unit_T3 = cross_T3 / np.where(length_T > 0.0, length_T, 1.0)[:, None]
    return unit_T3.astype(np.float32), (0.5 * length_T).astype(np.float32)


def crease_normals(corners_T33: Floats) -> Floats:
    """Normals (T, 3, 3) of corners: the mean, by area, over the smooth neighbours of each."""
    unit_T3, area_T = face_normals(corners_T33)
    order_N, place_N = _by_position(corners_T33)
    face_N = order_N // 3
    weighted_T3 = unit_T3 * area_T[:, None]
    total_N3 = weighted_T3[face_N].copy()
    for gap in range(1, min(_MAX_NEIGHBOURS, len(place_N))):
        left = np.nonzero(place_N[:-gap] == place_N[gap:])[0]
        if len(left) == 0:
            break
        a, b = face_N[left], face_N[left + gap]
        cosine = np.einsum("nc,nc->n", unit_T3[a], unit_T3[b])
        # Sheets that show both sides have neighbours that face the other way.
        side = np.sign(cosine) * (np.abs(cosine) > _CREASE_COSINE)
        # Within one gap all left corners differ, and all right ones: no sum is lost.
        total_N3[left] += weighted_T3[b] * side[:, None]
        total_N3[left + gap] += weighted_T3[a] * side[:, None]
    normals_N3 = np.empty_like(total_N3)
    normals_N3[order_N] = total_N3
    return unit(normals_N3.reshape(-1, 3, 3), instead=unit_T3[:, None, :])


def turned(vectors: Doubles, matrix_33: Doubles) -> Doubles:
    """Multiply column vectors (..., 3) by a matrix; the same bits for any number of threads."""
    # A matrix product would go to BLAS, which divides its work, and rounds, by thread count.
    result: Doubles = np.einsum("...c,dc->...d", vectors, matrix_33)
    return result


def unit(vectors: Floats, *, instead: Floats) -> Floats:
    """Scale to length 1; what has no length or is not finite becomes `instead`."""
    length = np.linalg.norm(vectors.astype(np.float64), axis=-1, keepdims=True)
    is_sound = np.isfinite(length) & (length > 0.0)
    scaled = vectors / np.where(is_sound, length, 1.0)
    result: Floats = np.where(is_sound, scaled, instead).astype(np.float32)
    return result


def _by_position(corners_T33: Floats) -> tuple[Integers, Integers]:
    """Corner numbers (N,) sorted by where they are, and the number of the place of each."""
    # Places are compared as bytes; adding zero makes one of -0.0 and 0.0.
    places_N3 = np.ascontiguousarray(corners_T33.reshape(-1, 3) + np.float32(0.0))
    keys_N = places_N3.view(np.dtype((np.void, 12))).reshape(-1)
    _, place_N = np.unique(keys_N, return_inverse=True)
    order_N = np.argsort(place_N, kind="stable")
    return order_N.astype(np.int64), place_N[order_N].astype(np.int64)
