"""Unit solids under parallel rays: intersection, normals, containment and surface samples.

Every solid lives inside the cube [-1, 1]^3 of its own local frame. A part of a subject stretches,
turns and moves it. Rays share one direction, so terms that depend on the direction are scalars.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dreambooth3d.errors import ConfigError

__all__ = [
    "BOX",
    "HULL",
    "ROOF",
    "WEDGE",
    "Array",
    "Ellipsoid",
    "Frustum",
    "Polyhedron",
    "Shape",
    "SurfaceSamples",
    "Torus",
]

Array = NDArray[np.float32]

_TINY = 1e-6
_TORUS_STEPS = 14
_TORUS_HIT = 0.03


@dataclass(frozen=True, kw_only=True)
class SurfaceSamples:
    """Points on a unit solid: `points` (N, 3), outward `normals` (N, 3), `areas` (N,).

    `areas` is the share of the unit solid's surface that each point stands for.
    """

    points: Array
    normals: Array
    areas: Array


class Shape(Protocol):
    """A solid inside the unit cube."""

    def reach(self, direction: Array) -> float:
        """Largest value of `direction . p` over the solid; `direction` is (3,)."""

    def hit(self, origins: Array, direction: Array) -> Array:
        """Ray parameter of the first hit, +inf for a miss: origins (3, ...) to (...)."""

    def normals(self, points: Array) -> Array:
        """Outward normals, not normalised, at surface points (3, N) to (3, N)."""

    def contains(self, points: Array) -> NDArray[np.bool_]:
        """Whether points (3, N) lie strictly inside."""

    def sample(self, count: int, rng: np.random.Generator) -> SurfaceSamples:
        """About `count` points spread over the surface."""


@dataclass(frozen=True)
class Ellipsoid:
    """The unit ball; a part's three half-sizes make it an ellipsoid."""

    def reach(self, direction: Array) -> float:
        """See `Shape.reach`."""
        return math.sqrt(float(direction @ direction))

    def hit(self, origins: Array, direction: Array) -> Array:
        """See `Shape.hit`."""
        square = float(direction @ direction)
        along = np.tensordot(direction, origins, 1)
        rest = np.einsum("i...,i...->...", origins, origins) - 1.0
        disc = along * along - square * rest
        near = (-along - np.sqrt(np.maximum(disc, 0.0))) / square
        return np.where(disc >= 0.0, near, np.inf).astype(np.float32)

    def normals(self, points: Array) -> Array:
        """See `Shape.normals`."""
        return points

    def contains(self, points: Array) -> NDArray[np.bool_]:
        """See `Shape.contains`."""
        inside: NDArray[np.bool_] = np.einsum("in,in->n", points, points) < 1.0 - 1e-4
        return inside

    def sample(self, count: int, rng: np.random.Generator) -> SurfaceSamples:
        """See `Shape.sample`."""
        raw = rng.standard_normal((count, 3))
        points = (raw / np.linalg.norm(raw, axis=1, keepdims=True)).astype(np.float32)
        areas = np.full(count, 4.0 * math.pi / count, np.float32)
        return SurfaceSamples(points=points, normals=points, areas=areas)


@dataclass(frozen=True, kw_only=True)
class Frustum:
    """Capped cone along z with radius 1 at z = -1 and radius `taper` at z = 1."""

    taper: float = 1.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.taper <= 1.0:
            raise ConfigError(
                f"taper must be between 0 and 1, got {self.taper}; turn the part over instead"
            )

    @property
    def _slope(self) -> float:
        return (self.taper - 1.0) / 2.0

    @property
    def _middle(self) -> float:
        return (self.taper + 1.0) / 2.0

    def reach(self, direction: Array) -> float:
        """See `Shape.reach`."""
        x, y, z = (float(v) for v in direction)
        flat = math.hypot(x, y)
        return max(flat - z, self.taper * flat + z)

    def hit(self, origins: Array, direction: Array) -> Array:
        """See `Shape.hit`."""
        x, y, z = origins
        dx, dy, dz = (float(v) for v in direction)
        slope = self._slope
        radius = slope * z + self._middle
        square = dx * dx + dy * dy - (slope * dz) ** 2
        square = square if abs(square) > _TINY else _TINY
        along = dx * x + dy * y - (slope * dz) * radius
        disc = along * along - square * (x * x + y * y - radius * radius)
        root = np.sqrt(np.maximum(disc, 0.0))
        best = self._cap(origins, dx, dy, dz)
        # A ray steeper than the cone's side enters through the far root instead of the near one.
        signs = (-1.0,) if square > 0.0 else (-1.0, 1.0)
        for sign in signs:
            t = (sign * root - along) / square
            height = z + t * dz
            valid = (disc >= 0.0) & (np.abs(height) <= 1.0)
            best = np.where(valid & (t < best), t, best)
        return best.astype(np.float32)

    def _cap(self, origins: Array, dx: float, dy: float, dz: float) -> Array:
        """Hit with the one end disc that faces the rays."""
        x, y, z = origins
        if abs(dz) < _TINY:
            return np.full(x.shape, np.inf, np.float32)
        end, radius = (1.0, self.taper) if dz < 0.0 else (-1.0, 1.0)
        t = (end - z) / dz
        inside = (x + t * dx) ** 2 + (y + t * dy) ** 2 <= radius * radius
        return np.where(inside, t, np.inf).astype(np.float32)

    def normals(self, points: Array) -> Array:
        """See `Shape.normals`."""
        x, y, z = points
        out = np.stack((x, y, -self._slope * (self._slope * z + self._middle)))
        on_cap = np.abs(z) > 1.0 - 1e-3
        out[:, on_cap] = 0.0
        out[2, on_cap] = np.sign(z[on_cap])
        return out

    def contains(self, points: Array) -> NDArray[np.bool_]:
        """See `Shape.contains`."""
        x, y, z = points
        radius = self._slope * z + self._middle
        return np.asarray((np.abs(z) < 1.0 - 1e-4) & (np.hypot(x, y) < radius - 1e-4))

    def sample(self, count: int, rng: np.random.Generator) -> SurfaceSamples:
        """See `Shape.sample`."""
        side = count // 2
        bottom = (count - side) // 2
        height = rng.uniform(-1.0, 1.0, side)
        radii = self._slope * height + self._middle
        parts = [_on_circle(radii, height, rng)]
        for number, end, radius in ((bottom, -1.0, 1.0), (count - side - bottom, 1.0, self.taper)):
            parts.append(_on_circle(radius * np.sqrt(rng.random(number)), end, rng))
        points = np.concatenate(parts).astype(np.float32)
        slant = 2.0 * math.sqrt(1.0 + self._slope**2)
        areas = np.concatenate(
            (
                2.0 * math.pi * radii * slant / max(side, 1),
                np.full(bottom, math.pi / max(bottom, 1)),
                np.full(count - side - bottom, math.pi * self.taper**2 / (count - side - bottom)),
            )
        )
        normals = self.normals(points.T).T
        return SurfaceSamples(points=points, normals=normals, areas=areas.astype(np.float32))


def _on_circle(
    radii: NDArray[np.float64], height: NDArray[np.float64] | float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Points (N, 3) at random angles around the z axis."""
    angle = rng.uniform(0.0, 2.0 * math.pi, radii.shape)
    return np.stack(
        (radii * np.cos(angle), radii * np.sin(angle), np.broadcast_to(height, radii.shape)), axis=1
    )


@dataclass(frozen=True, kw_only=True)
class Torus:
    """Ring around z with outer radius 1 and tube radius `tube`."""

    tube: float = 0.2

    def __post_init__(self) -> None:
        if not 0.0 < self.tube <= 0.5:
            raise ConfigError(f"tube must be in (0, 0.5], got {self.tube}; use a thinner ring")

    def reach(self, direction: Array) -> float:
        """See `Shape.reach`."""
        x, y, z = (float(v) for v in direction)
        return math.hypot(x, y) + self.tube * abs(z)

    def hit(self, origins: Array, direction: Array) -> Array:
        """See `Shape.hit`."""
        square = float(direction @ direction)
        length = math.sqrt(square)
        along = np.tensordot(direction, origins, 1)
        disc = along * along - square * (np.einsum("i...,i...->...", origins, origins) - 1.0)
        out = np.full(disc.shape, np.inf, np.float32)
        live = disc > 0.0
        if not live.any():
            return out
        start = origins[:, live]
        t = (-along[live] - np.sqrt(disc[live])) / square
        for _ in range(_TORUS_STEPS):
            gap = self._distance(start + t * direction[:, None])
            t = t + gap / length
        out[live] = np.where(np.abs(gap) < _TORUS_HIT, t, np.inf)
        return out

    def _distance(self, points: Array) -> Array:
        x, y, z = points
        radial = np.sqrt(x * x + y * y) - (1.0 - self.tube)
        return np.asarray(np.sqrt(radial * radial + z * z) - self.tube, np.float32)

    def normals(self, points: Array) -> Array:
        """See `Shape.normals`."""
        x, y, z = points
        scale = 1.0 - (1.0 - self.tube) / np.maximum(np.sqrt(x * x + y * y), _TINY)
        return np.stack((x * scale, y * scale, z))

    def contains(self, points: Array) -> NDArray[np.bool_]:
        """See `Shape.contains`."""
        return self._distance(points) < -1e-4

    def sample(self, count: int, rng: np.random.Generator) -> SurfaceSamples:
        """See `Shape.sample`."""
        ring = 1.0 - self.tube
        angle = rng.uniform(0.0, 2.0 * math.pi, count)
        radii = ring + self.tube * np.cos(angle)
        points = _on_circle(radii, self.tube * np.sin(angle), rng).astype(np.float32)
        areas = (4.0 * math.pi**2 * self.tube / count * radii).astype(np.float32)
        return SurfaceSamples(points=points, normals=self.normals(points.T).T, areas=areas)


@dataclass(frozen=True, kw_only=True)
class Polyhedron:
    """Convex solid given by its corners and its faces (corner indices in order)."""

    corners: tuple[tuple[float, float, float], ...]
    faces: tuple[tuple[int, ...], ...]

    @cached_property
    def _planes(self) -> tuple[Array, Array]:
        """Outward unit normals (F, 3) and offsets (F,)."""
        corners = np.array(self.corners, np.float64)
        middle = corners.mean(axis=0)
        normals, offsets = [], []
        for face in self.faces:
            a, b, c = corners[face[0]], corners[face[1]], corners[face[2]]
            normal = np.cross(b - a, c - a)
            normal = normal / np.linalg.norm(normal)
            normal = normal if normal @ (a - middle) > 0.0 else -normal
            normals.append(normal)
            offsets.append(normal @ a)
        return np.array(normals, np.float32), np.array(offsets, np.float32)

    def reach(self, direction: Array) -> float:
        """See `Shape.reach`."""
        x, y, z = (float(v) for v in direction)
        return max(x * cx + y * cy + z * cz for cx, cy, cz in self.corners)

    def hit(self, origins: Array, direction: Array) -> Array:
        """See `Shape.hit`."""
        normals, offsets = self._planes
        near = np.full(origins.shape[1:], -np.inf, np.float32)
        far = np.full(origins.shape[1:], np.inf, np.float32)
        slack = np.tensordot(-normals, origins, 1)
        slack += offsets.reshape(-1, *(1,) * (origins.ndim - 1))
        for room, speed in zip(slack, normals @ direction, strict=True):
            if abs(speed) < _TINY:
                far[room < 0.0] = -np.inf
            elif speed < 0.0:
                np.maximum(near, room / speed, out=near)
            else:
                np.minimum(far, room / speed, out=far)
        return np.where(near <= far, near, np.inf).astype(np.float32)

    def normals(self, points: Array) -> Array:
        """See `Shape.normals`."""
        normals, offsets = self._planes
        face = np.argmax(normals @ points - offsets[:, None], axis=0)
        return np.ascontiguousarray(normals[face].T)

    def contains(self, points: Array) -> NDArray[np.bool_]:
        """See `Shape.contains`."""
        normals, offsets = self._planes
        inside: NDArray[np.bool_] = np.all(normals @ points < offsets[:, None] - 1e-4, axis=0)
        return inside

    def sample(self, count: int, rng: np.random.Generator) -> SurfaceSamples:
        """See `Shape.sample`."""
        corners = np.array(self.corners, np.float32)
        fans = [
            (index, face[0], face[i], face[i + 1])
            for index, face in enumerate(self.faces)
            for i in range(1, len(face) - 1)
        ]
        fan = np.array(fans)[rng.integers(0, len(fans), count)]
        a, b, c = corners[fan[:, 1]], corners[fan[:, 2]], corners[fan[:, 3]]
        u, v = np.sqrt(rng.random((count, 1))), rng.random((count, 1))
        points = (1.0 - u) * a + u * (1.0 - v) * b + u * v * c
        area = 0.5 * np.linalg.norm(np.cross(b - a, c - a), axis=1) * len(fans) / count
        return SurfaceSamples(
            points=points.astype(np.float32),
            normals=self._planes[0][fan[:, 0]],
            areas=area.astype(np.float32),
        )


_CUBE_CORNERS = tuple((x, y, z) for x in (-1.0, 1.0) for y in (-1.0, 1.0) for z in (-1.0, 1.0))
_CUBE_FACES = (
    (0, 1, 3, 2),
    (4, 5, 7, 6),
    (0, 1, 5, 4),
    (2, 3, 7, 6),
    (0, 2, 6, 4),
    (1, 3, 7, 5),
)

BOX = Polyhedron(corners=_CUBE_CORNERS, faces=_CUBE_FACES)
"""The cube itself."""

ROOF = Polyhedron(
    corners=((-1, -1, -1), (1, -1, -1), (1, 1, -1), (-1, 1, -1), (-1, 0, 1), (1, 0, 1)),
    faces=((0, 1, 2, 3), (0, 1, 5, 4), (2, 3, 4, 5), (0, 3, 4), (1, 2, 5)),
)
"""Triangular prism with its ridge along x at the top."""

WEDGE = Polyhedron(
    corners=((-1, -1, -1), (1, -1, -1), (1, 1, -1), (-1, 1, -1), (-1, -1, 1), (-1, 1, 1)),
    faces=((0, 1, 2, 3), (0, 3, 5, 4), (1, 2, 5, 4), (0, 1, 4), (2, 3, 5)),
)
"""Ramp: full height at x = -1 falling to nothing at x = 1."""

HULL = Polyhedron(
    corners=(
        *((-1, -1, 1), (0.35, -1, 1), (1, 0, 1), (0.35, 1, 1), (-1, 1, 1)),
        *((-0.85, -0.6, -1), (0.2, -0.6, -1), (0.55, 0, -1), (0.2, 0.6, -1), (-0.85, 0.6, -1)),
    ),
    faces=(
        *((0, 1, 2, 3, 4), (5, 6, 7, 8, 9), (0, 4, 9, 5)),
        *((0, 1, 6, 5), (3, 4, 9, 8), (1, 2, 7), (1, 7, 6), (2, 3, 7), (3, 8, 7)),
    ),
)
"""Boat hull: flat deck at the top, pointed bow at x = 1, narrower keel."""
