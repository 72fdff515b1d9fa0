"""Surface points of a subject."""

from __future__ import annotations

import math

import numpy as np

from dreambooth3d.errors import ConfigError
from dreambooth3d.scenes.parts import Part, rotation_matrix
from dreambooth3d.scenes.shapes import Array
from dreambooth3d.scenes.subjects import Subject, seeded

__all__ = ["point_cloud"]

_CLOUD = 5
_OVERSAMPLE = 4


def point_cloud(subject: Subject, num_points: int, seed: int = 0) -> Array:
    """Points (N, 3), even by area, on the outside of the union of the subject's parts."""
    if num_points < 1:
        raise ConfigError(f"num_points must be at least 1, got {num_points}; ask for some points")
    rng = seeded(seed, _CLOUD)
    count = max(256, math.ceil(_OVERSAMPLE * num_points / len(subject.parts)))
    points, areas = [], []
    for index, part in enumerate(subject.parts):
        on_part, area = _sample_part(part, count, rng)
        others = subject.parts[:index] + subject.parts[index + 1 :]
        outside = ~np.any([_contains(other, on_part) for other in others], axis=0)
        points.append(on_part[outside])
        areas.append(area[outside])
    weights = np.concatenate(areas).astype(np.float64)
    chosen = rng.choice(weights.size, num_points, p=weights / weights.sum())
    return np.concatenate(points)[chosen]


def _sample_part(part: Part, count: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Points (N, 3) in the subject frame and the area (N,) that each stands for."""
    size = np.array(part.size, np.float32)
    samples = part.shape.sample(count, rng)
    normals = samples.normals / np.maximum(
        np.linalg.norm(samples.normals, axis=1, keepdims=True), 1e-9
    )
    # A stretch by `size` scales an area element by its determinant times |normal / size|.
    areas = samples.areas * np.prod(size) * np.linalg.norm(normals / size, axis=1)
    rotation = rotation_matrix(part.turn).astype(np.float32)
    points = (samples.points * size) @ rotation.T + np.array(part.center, np.float32)
    return points.astype(np.float32), areas.astype(np.float32)


def _contains(part: Part, points: Array) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    rotation = rotation_matrix(part.turn).astype(np.float32)
    local = ((points - np.array(part.center, np.float32)) @ rotation) / np.array(
        part.size, np.float32
    )
    return part.shape.contains(np.ascontiguousarray(local.T))
