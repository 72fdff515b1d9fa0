"""Ray casting of a subject's parts into colour and coverage."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dreambooth3d.scenes.cameras import Camera, camera_axes
from dreambooth3d.scenes.palette import Paints
from dreambooth3d.scenes.parts import Part, rotation_matrix
from dreambooth3d.scenes.patterns import LOWER_SHARE, PERIOD, accent_mask
from dreambooth3d.scenes.shapes import Array

__all__ = ["Coverage", "PartStack", "cast"]

_SAMPLES = 2
# The light turns with the subject: a surface point keeps its colour in every view, so all views of
# one subject agree with a single coloured 3-D model.
_LIGHT = np.array([0.42, -0.34, 0.84], np.float32) / np.float32(np.linalg.norm([0.42, -0.34, 0.84]))
_AMBIENT, _DIFFUSE = 0.76, 0.30


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """`rgb` (H, W, 3) in 0..255, premultiplied by `alpha` (H, W) in 0..1."""

    rgb: Array
    alpha: Array


@dataclass(frozen=True, kw_only=True)
class _Placed:
    """A part with everything that does not depend on the view."""

    part: Part
    rotation: Array
    to_local: Array
    center: Array
    light: Array
    inverse_size: Array
    main: Array
    accent: Array | None
    periods_around: float
    height: float


class PartStack:
    """The parts of one subject, prepared for repeated views."""

    def __init__(self, parts: tuple[Part, ...], paints: Paints, pattern: str) -> None:
        main = [part for part in parts if part.paint == "main"]
        self.pattern = pattern
        self.pattern_origin = _origin(main, pattern) if main else 0.0
        self.placed = tuple(_place(part, paints, pattern) for part in parts)


def _origin(main: list[Part], pattern: str) -> float:
    """Height at which the pattern of the `main` parts starts to count."""
    if pattern == "two-tone":
        return _height_of_share(main, LOWER_SHARE)
    heights = [part.center[2] for part in main]
    return 0.5 * (min(heights) + max(heights))


def _height_of_share(parts: list[Part], share: float) -> float:
    """Height below which `share` of the parts' surface lies, taking all sides as upright."""
    extents = np.array([_half_extents(part) for part in parts])
    middle, half = np.array([part.center[2] for part in parts]), extents[:, 2]
    girth = extents[:, 0] + extents[:, 1]
    heights = np.sort(np.concatenate([middle - half, middle + half]))
    reached = np.clip(heights[:, None], middle - half, middle + half) - (middle - half)
    below = reached @ girth
    return float(np.interp(share * below[-1], below, heights))


def _half_extents(part: Part) -> NDArray[np.float64]:
    """Half-sizes (3,) of the part's box along the subject's axes."""
    rows = (rotation_matrix(part.turn) * np.array(part.size)).astype(np.float32)
    return np.array([0.5 * (part.shape.reach(row) + part.shape.reach(-row)) for row in rows])


def _place(part: Part, paints: Paints, pattern: str) -> _Placed:
    rotation = rotation_matrix(part.turn).astype(np.float32)
    inverse_size = (1.0 / np.array(part.size)).astype(np.float32)
    is_patterned = part.paint == "main" and pattern != "plain"
    turns = 2.0 * math.pi * max(part.size[:2]) / PERIOD
    return _Placed(
        part=part,
        rotation=rotation,
        to_local=inverse_size[:, None] * rotation.T,
        center=np.array(part.center, np.float32),
        light=np.asarray(_LIGHT @ rotation, np.float32),
        inverse_size=inverse_size[:, None],
        main=np.array(getattr(paints, part.paint), np.float32),
        accent=np.array(paints.second, np.float32) if is_patterned else None,
        periods_around=max(4.0, round(turns)) if part.is_upright_round else 0.0,
        height=2.0 * float(_half_extents(part)[2]),
    )


@dataclass(frozen=True, kw_only=True)
class _Film:
    """Supersampled image plane: sample positions and what has been hit so far."""

    axes: Array
    x: Array
    y: Array
    depth: Array
    rgb: Array


def _span(samples: Array, middle: float, reach: float) -> slice:
    """Index range of the ascending `samples` that lie within `reach` of `middle`."""
    low, high = np.searchsorted(samples, (middle - reach, middle + reach))
    return slice(int(low), int(high))


def _draw(film: _Film, placed: _Placed, stack: PartStack) -> None:
    """Z-buffer one part over the rectangle of samples that it can cover."""
    axes, part = film.axes, placed.part
    middle = axes @ placed.center
    spread = (axes @ placed.rotation) * np.array(part.size, np.float32)
    shape = part.shape
    columns = _span(film.x, middle[0], max(shape.reach(spread[0]), shape.reach(-spread[0])))
    rows = _span(film.y, middle[1], max(shape.reach(spread[1]), shape.reach(-spread[1])))
    if columns.start >= columns.stop or rows.start >= rows.stop:
        return
    right, up, forward = axes @ placed.to_local.T
    base = -placed.to_local @ placed.center
    across = base[:, None] + right[:, None] * film.x[columns]
    origins = (up[:, None] * film.y[rows])[:, :, None] + across[:, None, :]
    t = shape.hit(origins, forward)
    depth = film.depth[rows, columns]
    closer = t < depth
    found = np.flatnonzero(closer)
    if found.size == 0:
        return
    distance = t.reshape(-1)[found]
    points = origins.reshape(3, -1)[:, found] + forward[:, None] * distance
    np.copyto(depth, t, where=closer)
    film.rgb[rows, columns][closer] = _shade(placed, stack, points)


def _shade(placed: _Placed, stack: PartStack, points: Array) -> Array:
    """Colours (N, 3) at surface points (3, N) in the part's local frame."""
    normals = placed.part.shape.normals(points) * placed.inverse_size
    length = np.sqrt(np.einsum("in,in->n", normals, normals)) + 1e-9
    light = np.minimum(_AMBIENT + _DIFFUSE * ((placed.light @ normals) / length), 1.0)
    color = placed.main
    if placed.accent is not None:
        mask = accent_mask(stack.pattern, *_pattern_coordinates(placed, stack, points))
        color = np.where(mask[:, None], placed.accent, placed.main)
    return np.asarray(color * light[:, None], np.float32)


def _pattern_coordinates(placed: _Placed, stack: PartStack, points: Array) -> tuple[Array, Array]:
    """Pattern periods around (N,) and up (N,) in the subject frame.

    Bands count from the bottom of each part and come whole: a thin part has none, so that no view
    meets bands alone.
    """
    x, y, z = placed.rotation @ (points / placed.inverse_size)
    center = placed.center
    if stack.pattern == "banded":
        up = (z / placed.height + 0.5) * round(placed.height / PERIOD)
    else:
        up = (z + center[2] - stack.pattern_origin) / PERIOD
    if placed.periods_around:
        across = np.arctan2(y, x) * (placed.periods_around / (2.0 * math.pi))
    else:
        across = (x + y + center[0] + center[1]) / PERIOD
    return across.astype(np.float32), up.astype(np.float32)


def cast(
    stack: PartStack,
    camera: Camera,
    *,
    size: int,
    center: tuple[float, float] = (0.0, 0.0),
) -> Coverage:
    """Colour and coverage of the subject, moved by `center` (right, up) in half-frames."""
    count = size * _SAMPLES
    grid = (np.arange(count, dtype=np.float32) + 0.5) * np.float32(2.0 / count) - 1.0
    film = _Film(
        axes=camera_axes(camera),
        x=(grid - np.float32(center[0])) / np.float32(camera.zoom),
        y=(grid - np.float32(center[1])) / np.float32(camera.zoom),
        depth=np.full((count, count), np.inf, np.float32),
        rgb=np.zeros((count, count, 3), np.float32),
    )
    for placed in stack.placed:
        _draw(film, placed, stack)
    # Rows of the film run upwards, rows of an image run downwards.
    rgb = film.rgb[::-1].reshape(size, _SAMPLES, size, _SAMPLES, 3)
    hit = np.isfinite(film.depth)[::-1].reshape(size, _SAMPLES, size, _SAMPLES)
    weight = np.float32(1.0 / _SAMPLES**2)
    return Coverage(rgb=_pool(rgb) * weight, alpha=_pool(hit.astype(np.float32)) * weight)


def _pool(blocks: Array) -> Array:
    """Sum over the sample axes 1 and 3."""
    rows = blocks[:, 0] + blocks[:, 1]
    pooled: Array = rows[:, :, 0] + rows[:, :, 1]
    return pooled
