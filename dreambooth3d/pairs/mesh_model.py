"""A model in memory: parts with triangles and a surface, centred, upright, of radius 1."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from dreambooth3d.pairs.mesh_geometry import (
    Doubles,
    Floats,
    crease_normals,
    face_normals,
    turned,
    unit,
)
from dreambooth3d.pairs.mesh_materials import Material
from dreambooth3d.vision.refusal import RefusedError

_MIN_AREA = 1e-12


@dataclass(frozen=True, kw_only=True, eq=False)
class Piece:
    """Triangles as a file has them.

    Attributes:
        positions_T33: corners, in the file's units.
        normals_T33: of the corners, of any length; None where the file has none.
        uv_T32: texture coordinates, v from above; None where the file has none.
        colors_T34: linear RGBA that multiplies the surface; None for white.
        material: the surface.
    """

    positions_T33: Doubles
    normals_T33: Doubles | None
    uv_T32: Doubles | None
    colors_T34: Doubles | None
    material: Material


@dataclass(frozen=True, kw_only=True, eq=False)
class MeshPart:
    """Triangles of one surface, ready to be drawn; fields as in `Piece`, all there."""

    positions_T33: Floats
    normals_T33: Floats
    uv_T32: Floats
    colors_T34: Floats
    material: Material


@dataclass(frozen=True, kw_only=True, eq=False)
class Mesh:
    """An object inside the unit sphere around the origin, y up.

    Attributes:
        parts: in a fixed order.
        copyright: what the file says of itself, or empty.
    """

    parts: tuple[MeshPart, ...]
    copyright: str = ""

    @property
    def num_triangles(self) -> int:
        """Triangles of all parts."""
        return sum(len(part.positions_T33) for part in self.parts)


def assemble(pieces: Sequence[Piece], upright_33: Doubles) -> tuple[MeshPart, ...]:
    """Turn pieces upright and move the middle of their box to the origin, at radius 1.

    Raises:
        RefusedError: bad_mesh: positions that are not finite, no extent, no area.
    """
    placed = [_turned(piece, upright_33) for piece in pieces]
    for piece in placed:
        require_finite(piece.positions_T33)
    low = np.min([piece.positions_T33.min(axis=(0, 1)) for piece in placed], axis=0)
    high = np.max([piece.positions_T33.max(axis=(0, 1)) for piece in placed], axis=0)
    middle = 0.5 * low + 0.5 * high
    radius = max(float(np.linalg.norm(p.positions_T33 - middle, axis=2).max()) for p in placed)
    if not (math.isfinite(radius) and radius > 0.0):
        raise RefusedError("bad_mesh", f"model must have an extent, got {radius}; repair it")
    scaled = [(piece, (piece.positions_T33 - middle) / radius) for piece in placed]
    finished = [_finished(piece, positions.astype(np.float32)) for piece, positions in scaled]
    parts = [part for part in finished if len(part.positions_T33)]
    if not parts:
        raise RefusedError("bad_mesh", "model must have a surface, got zero area; repair it")
    return _merged(parts)


def require_finite(positions: Doubles) -> None:
    """Refuse vertices that are nowhere."""
    if not np.isfinite(positions).all():
        raise RefusedError(
            "bad_mesh", "vertices must be finite numbers, got NaN or infinity; repair the model"
        )


def _turned(piece: Piece, upright_33: Doubles) -> Piece:
    normals = piece.normals_T33
    return replace(
        piece,
        positions_T33=turned(piece.positions_T33, upright_33),
        normals_T33=None if normals is None else turned(normals, upright_33),
    )


def _finished(piece: Piece, positions_T33: Floats) -> MeshPart:
    """Drop triangles without area; give the others all that drawing needs."""
    flat_T3, area_T = face_normals(positions_T33)
    kept = area_T > _MIN_AREA
    count = int(kept.sum())
    if piece.normals_T33 is None:
        normals = crease_normals(positions_T33[kept])
    else:
        given = piece.normals_T33[kept].astype(np.float32)
        normals = unit(given, instead=flat_T3[kept][:, None, :])
    colors = np.ones((count, 3, 4)) if piece.colors_T34 is None else piece.colors_T34[kept]
    has_uv = piece.uv_T32 is not None and piece.material.texture is not None
    uv = np.zeros((count, 3, 2)) if piece.uv_T32 is None else piece.uv_T32[kept]
    return MeshPart(
        positions_T33=positions_T33[kept],
        normals_T33=normals,
        uv_T32=_texture_places(uv, piece.material),
        colors_T34=colors.astype(np.float32),
        material=piece.material if has_uv else piece.material.bare,
    )


def _texture_places(uv_T32: Doubles, material: Material) -> Floats:
    """Coordinates after the material's change of them, near the origin."""
    if not np.isfinite(uv_T32).all():
        raise RefusedError(
            "bad_mesh", "texture coordinates must be finite, got NaN or infinity; unwrap again"
        )
    a, b, c, d, e, f = material.uv_transform
    u, v = uv_T32[..., 0], uv_T32[..., 1]
    changed = np.stack([a * u + b * v + c, d * u + e * v + f], axis=-1)
    # Textures repeat: whole turns say nothing and cost digits.
    near: Doubles = changed - np.floor(changed.min(axis=1, keepdims=True))
    return near.astype(np.float32)


def _merged(parts: Sequence[MeshPart]) -> tuple[MeshPart, ...]:
    """Join parts of one surface, in the order of their first."""
    groups: dict[int, list[MeshPart]] = {}
    for part in parts:
        groups.setdefault(id(part.material), []).append(part)
    return tuple(
        MeshPart(
            positions_T33=np.concatenate([part.positions_T33 for part in group]),
            normals_T33=np.concatenate([part.normals_T33 for part in group]),
            uv_T32=np.concatenate([part.uv_T32 for part in group]),
            colors_T34=np.concatenate([part.colors_T34 for part in group]),
            material=group[0].material,
        )
        for group in groups.values()
    )
