"""Parts: a unit solid placed in the subject's frame, and short builders for them.

Subject frame: x points to the front, y to the subject's left as seen from behind (image right in a
front view), z up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from dreambooth3d.errors import ConfigError
from dreambooth3d.scenes.shapes import BOX, HULL, ROOF, WEDGE, Ellipsoid, Frustum, Shape, Torus

__all__ = [
    "Part",
    "Vec",
    "ball",
    "box",
    "cone",
    "disc",
    "hull",
    "move_and_scale",
    "ring",
    "rod",
    "roof",
    "rotation_matrix",
    "wedge",
]

Vec = tuple[float, float, float]

_BALL = Ellipsoid()
_CYLINDER = Frustum()
_ZERO: Vec = (0.0, 0.0, 0.0)
_TURNS: dict[str, Vec] = {"x": (0.0, 90.0, 0.0), "y": (-90.0, 0.0, 0.0), "z": _ZERO}


@dataclass(frozen=True, kw_only=True)
class Part:
    """One solid: `size` are half-sizes, `turn` degrees about x, then y, then z."""

    shape: Shape
    center: Vec
    size: Vec
    paint: str
    turn: Vec = _ZERO

    def __post_init__(self) -> None:
        if min(self.size) <= 0.0:
            raise ConfigError(f"part size must be positive, got {self.size}; give half-sizes > 0")

    @property
    def is_upright_round(self) -> bool:
        """Whether a pattern can wrap around the part's vertical axis."""
        width, depth, _ = self.size
        is_round = isinstance(self.shape, (Ellipsoid, Frustum))
        return is_round and self.turn == _ZERO and max(width, depth) < 1.25 * min(width, depth)


def rotation_matrix(turn: Vec) -> NDArray[np.float64]:
    """Rotation (3, 3) that takes local axes to subject axes for `turn` in degrees."""
    (cx, sx), (cy, sy), (cz, sz) = (
        (math.cos(math.radians(angle)), math.sin(math.radians(angle))) for angle in turn
    )
    about_x = np.array([[1.0, 0.0, 0.0], [0.0, cx, -sx], [0.0, sx, cx]])
    about_y = np.array([[cy, 0.0, sy], [0.0, 1.0, 0.0], [-sy, 0.0, cy]])
    about_z = np.array([[cz, -sz, 0.0], [sz, cz, 0.0], [0.0, 0.0, 1.0]])
    rotation: NDArray[np.float64] = about_z @ about_y @ about_x
    return rotation


def move_and_scale(part: Part, shift: Vec, factor: float) -> Part:
    """The part after adding `shift` and then multiplying everything by `factor`."""
    x, y, z = ((c + s) * factor for c, s in zip(part.center, shift, strict=True))
    width, depth, height = (s * factor for s in part.size)
    return replace(part, center=(x, y, z), size=(width, depth, height))


def ball(center: Vec, size: Vec | float, paint: str, turn: Vec = _ZERO) -> Part:
    """Ellipsoid with half-sizes `size`."""
    half = size if isinstance(size, tuple) else (size, size, size)
    return Part(shape=_BALL, center=center, size=half, paint=paint, turn=turn)


def box(center: Vec, size: Vec, paint: str, turn: Vec = _ZERO) -> Part:
    """Cuboid with half-sizes `size`."""
    return Part(shape=BOX, center=center, size=size, paint=paint, turn=turn)


def roof(center: Vec, size: Vec, paint: str, turn: Vec = _ZERO) -> Part:
    """Gable roof with its ridge along x."""
    return Part(shape=ROOF, center=center, size=size, paint=paint, turn=turn)


def wedge(center: Vec, size: Vec, paint: str, turn: Vec = _ZERO) -> Part:
    """Ramp that falls towards +x."""
    return Part(shape=WEDGE, center=center, size=size, paint=paint, turn=turn)


def hull(center: Vec, size: Vec, paint: str) -> Part:
    """Boat hull with its bow at +x."""
    return Part(shape=HULL, center=center, size=size, paint=paint)


def rod(center: Vec, radius: float, half_length: float, paint: str, turn: Vec | str = "z") -> Part:
    """Cylinder along the named axis, or along z after `turn`."""
    angles = _TURNS[turn] if isinstance(turn, str) else turn
    size = (radius, radius, half_length)
    return Part(shape=_CYLINDER, center=center, size=size, paint=paint, turn=angles)


def cone(
    center: Vec,
    radius: float,
    half_length: float,
    paint: str,
    *,
    taper: float = 0.0,
    turn: Vec | str = "z",
) -> Part:
    """Cone that narrows along the named axis to `taper` times its base radius."""
    angles = _TURNS[turn] if isinstance(turn, str) else turn
    size = (radius, radius, half_length)
    shape = Frustum(taper=taper)
    return Part(shape=shape, center=center, size=size, paint=paint, turn=angles)


def disc(center: Vec, radius: float, axis: str, paint: str, thickness: float = 0.04) -> Part:
    """Flat round badge that faces along `axis`."""
    return rod(center, radius, thickness, paint, axis)


def ring(center: Vec, radius: float, tube: float, paint: str, turn: Vec | str = "z") -> Part:
    """Torus around the named axis; `tube` is the tube radius as a share of `radius`."""
    angles = _TURNS[turn] if isinstance(turn, str) else turn
    size = (radius, radius, radius)
    return Part(shape=Torus(tube=tube), center=center, size=size, paint=paint, turn=angles)
