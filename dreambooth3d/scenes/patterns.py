"""Solid patterns: which surface points take the secondary colour."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from dreambooth3d.scenes.shapes import Array

__all__ = ["LOWER_SHARE", "PATTERNS", "PERIOD", "accent_mask"]

PERIOD = 0.36
"""Length of one pattern period in subject units (a frame is 2 units wide)."""

# The main colour keeps the larger share, so that it stays the colour one would name. Checks are
# half of all cells, so each leaves a rim of the main colour. A stripe lies in the middle between
# two whole numbers: what shows whole periods shows exactly this share of it.
_ACCENT_SHARE = 0.28
_CHECK_HALF_SIDE = 0.39
_SPOT_RADIUS_SQUARE = 0.3**2

LOWER_SHARE = 0.25
"""Share of the main surface that the lower tone of a two-tone subject covers."""

_Mask = NDArray[np.bool_]


def _stripe(coordinate: Array) -> _Mask:
    return np.asarray(np.abs(coordinate - np.floor(coordinate) - 0.5) < 0.5 * _ACCENT_SHARE)


def _plain(u: Array, v: Array) -> _Mask:
    return np.zeros(u.shape, np.bool_)


def _striped(u: Array, v: Array) -> _Mask:
    return _stripe(u)


def _banded(u: Array, v: Array) -> _Mask:
    return _stripe(v)


def _checkered(u: Array, v: Array) -> _Mask:
    cell_u, cell_v = np.floor(2.0 * u), np.floor(2.0 * v)
    du, dv = np.abs(2.0 * u - cell_u - 0.5), np.abs(2.0 * v - cell_v - 0.5)
    return np.asarray(
        (np.mod(cell_u + cell_v, 2.0) == 0.0) & (np.maximum(du, dv) < _CHECK_HALF_SIDE)
    )


def _spotted(u: Array, v: Array) -> _Mask:
    row = np.floor(v + 0.5)
    across = u + 0.5 * np.mod(row, 2.0)
    du = across - np.floor(across) - 0.5
    dv = v - row
    return np.asarray(du * du + dv * dv < _SPOT_RADIUS_SQUARE)


def _two_tone(u: Array, v: Array) -> _Mask:
    return np.asarray(v < 0.0)


_MASKS: dict[str, Callable[[Array, Array], _Mask]] = {
    "plain": _plain,
    "striped": _striped,
    "banded": _banded,
    "checkered": _checkered,
    "spotted": _spotted,
    "two-tone": _two_tone,
}

PATTERNS: tuple[str, ...] = tuple(_MASKS)


def accent_mask(pattern: str, across: Array, up: Array) -> NDArray[np.bool_]:
    """True (N,) where the secondary colour shows.

    `across` (N,) runs around the subject and `up` (N,) is height; both count pattern periods. The
    lower tone of a two-tone subject is below height 0.
    """
    return _MASKS[pattern](across, up)
