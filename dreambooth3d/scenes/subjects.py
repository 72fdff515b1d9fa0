"""Subjects: one seed gives one object with a class, colours, a pattern and fixed geometry."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from dreambooth3d.errors import ConfigError
from dreambooth3d.scenes import creatures, landmarks, objects, vehicles
from dreambooth3d.scenes.cameras import Camera
from dreambooth3d.scenes.lens import soften
from dreambooth3d.scenes.palette import COLORS, Paints, draw_paints
from dreambooth3d.scenes.parts import Part, move_and_scale, rotation_matrix
from dreambooth3d.scenes.patterns import PATTERNS
from dreambooth3d.scenes.raster import PartStack, cast
from dreambooth3d.scenes.seeds import FIRST_HELD_OUT_SEED

__all__ = [
    "CLASSES",
    "Frame",
    "Subject",
    "check_name",
    "check_size",
    "is_held_out",
    "make_subject",
    "render_view",
    "seeded",
]

_BUILDERS: dict[str, Callable[[np.random.Generator], list[Part]]] = {
    "airplane": vehicles.airplane,
    "backpack": objects.backpack,
    "bear": creatures.bear,
    "boat": vehicles.boat,
    "cactus": landmarks.cactus,
    "car": vehicles.car,
    "castle": landmarks.castle,
    "chair": objects.chair,
    "dog": creatures.dog,
    "duck": creatures.duck,
    "fish": creatures.fish,
    "guitar": objects.guitar,
    "house": landmarks.house,
    "lamp": objects.lamp,
    "mug": objects.mug,
    "mushroom": landmarks.mushroom,
    "robot": creatures.robot,
    "rocket": vehicles.rocket,
    "snowman": creatures.snowman,
    "teapot": objects.teapot,
    "train": vehicles.train,
}

CLASSES: tuple[str, ...] = tuple(_BUILDERS)

_HEIGHT = 1.32
_DIAMETER = 1.62
_SIZES = range(8, 1025)
# Separate streams keep geometry and paints the same when an attribute is pinned.
_NAMES, _GEOMETRY, _PAINTS = 0, 1, 2


@dataclass(frozen=True, kw_only=True)
class Subject:
    """An object in its own frame: x to the front, z up, bounding box centred on the origin.

    It fits a cylinder about z of diameter 1.62 and height 1.32; a view at zoom 1 shows 2 units.
    """

    seed: int
    class_noun: str
    color: str
    pattern: str
    paints: Paints
    parts: tuple[Part, ...]
    height: float
    radius: float

    def __post_init__(self) -> None:
        check_name("class_noun", self.class_noun, CLASSES)
        check_name("color", self.color, COLORS)
        check_name("pattern", self.pattern, PATTERNS)

    @cached_property
    def stack(self) -> PartStack:
        """The parts prepared for rendering."""
        return PartStack(self.parts, self.paints, self.pattern)


@dataclass(frozen=True)
class Frame:
    """An image `rgb` (H, W, 3) uint8 and the subject's `mask` (H, W) bool."""

    rgb: NDArray[np.uint8]
    mask: NDArray[np.bool_]


def is_held_out(class_noun: str, color: str, pattern: str) -> bool:
    """Whether a combination is kept from training: one in eleven, at most one pattern of each.

    No subject below `FIRST_HELD_OUT_SEED` has such a combination unless its pattern is pinned, so
    every class, colour and pattern is known to a model that still has to put these together.
    """
    place = CLASSES.index(class_noun) + 3 * COLORS.index(color) + 5 * PATTERNS.index(pattern)
    return place % 11 == 0


def check_name(what: str, value: str, known: tuple[str, ...]) -> None:
    """Raise `ConfigError` unless `value` is one of `known`."""
    if value not in known:
        raise ConfigError(
            f"{what} must be one of {', '.join(known)}, got {value!r}; pick a listed name"
        )


def check_size(size: int) -> None:
    """Raise `ConfigError` unless `size` is an image size this renderer supports."""
    if size not in _SIZES:
        raise ConfigError(
            f"size must be between {_SIZES[0]} and {_SIZES[-1]} pixels, got {size}; "
            "render at a supported size and resize"
        )


def seeded(seed: int, *stream: int) -> np.random.Generator:
    """Generator that depends on `seed` and the stream numbers only."""
    if seed < 0:
        raise ConfigError(f"seed must not be negative, got {seed}; use 0 or a positive integer")
    return np.random.Generator(np.random.PCG64((seed, *stream)))


def _pick(rng: np.random.Generator, names: tuple[str, ...]) -> str:
    return names[int(rng.integers(len(names)))]


def make_subject(
    seed: int,
    *,
    class_noun: str | None = None,
    color: str | None = None,
    pattern: str | None = None,
) -> Subject:
    """The subject of `seed`; a named attribute is pinned and the others still follow the seed.

    Below `FIRST_HELD_OUT_SEED` a pattern that would complete a held-out combination gives way to
    the next one.
    """
    rng = seeded(seed, _NAMES)
    drawn = (_pick(rng, CLASSES), _pick(rng, COLORS), _pick(rng, PATTERNS))
    class_noun = drawn[0] if class_noun is None else class_noun
    color = drawn[1] if color is None else color
    is_pinned = pattern is not None
    pattern = drawn[2] if pattern is None else pattern
    check_name("class_noun", class_noun, CLASSES)
    check_name("color", color, COLORS)
    if seed < FIRST_HELD_OUT_SEED and not is_pinned and is_held_out(class_noun, color, pattern):
        pattern = PATTERNS[(PATTERNS.index(pattern) + 1) % len(PATTERNS)]
    parts = _BUILDERS[class_noun](seeded(seed, _GEOMETRY))
    parts, height, radius = _normalise(parts)
    return Subject(
        seed=seed,
        class_noun=class_noun,
        color=color,
        pattern=pattern,
        paints=draw_paints(color, seeded(seed, _PAINTS)),
        parts=tuple(parts),
        height=height,
        radius=radius,
    )


def _normalise(parts: list[Part]) -> tuple[list[Part], float, float]:
    """Centre the parts and scale them to the frame; also the new height and radius."""
    low, high = np.full(3, np.inf), np.full(3, -np.inf)
    for part in parts:
        rows = (rotation_matrix(part.turn) * np.array(part.size)).astype(np.float32)
        ahead = np.array([part.shape.reach(row) for row in rows])
        behind = np.array([part.shape.reach(-row) for row in rows])
        high = np.maximum(high, part.center + ahead)
        low = np.minimum(low, part.center - behind)
    shift = -0.5 * (low + high)
    extent = high - low
    radius = 0.5 * math.hypot(extent[0], extent[1])
    # Nothing fills the corners of its own bounding rectangle, hence the smaller effective radius.
    radius = max(0.5 * float(extent.max(initial=0.0, where=[True, True, False])), 0.9 * radius)
    factor = min(_HEIGHT / float(extent[2]), _DIAMETER / (2.0 * radius))
    offset = (float(shift[0]), float(shift[1]), float(shift[2]))
    moved = [move_and_scale(part, offset, factor) for part in parts]
    return moved, float(extent[2]) * factor, radius * factor


def render_view(subject: Subject, camera: Camera, *, size: int = 64) -> Frame:
    """Render on pure white without a shadow; the mask marks pixels at least half covered."""
    check_size(size)
    coverage = cast(subject.stack, camera, size=size)
    rgb = coverage.rgb + 255.0 * (1.0 - coverage.alpha[..., None])
    return Frame(rgb=np.rint(soften(rgb)).astype(np.uint8), mask=coverage.alpha >= 0.5)
