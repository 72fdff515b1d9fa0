"""Named colours and the set of paints that one subject wears."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["COLORS", "RGB", "Paints", "draw_paints"]

RGB = tuple[float, float, float]

_MAIN: dict[str, RGB] = {
    "red": (222, 34, 38),
    "orange": (250, 132, 16),
    "yellow": (246, 216, 32),
    "green": (38, 168, 58),
    "cyan": (40, 208, 216),
    "blue": (36, 74, 222),
    "purple": (132, 42, 186),
    "pink": (248, 124, 186),
}
# Trim colours may also be near-white or near-black; a main colour may not, because it has to stand
# out on every background and on the pure white of reference views.
_TRIM: dict[str, RGB] = {**_MAIN, "white": (240, 238, 228), "black": (44, 44, 52)}

COLORS: tuple[str, ...] = tuple(_MAIN)

_JITTER = 10.0
_MIN_DISTANCE = 150.0


@dataclass(frozen=True, kw_only=True)
class Paints:
    """RGB colours (0..255) of a subject by role; `second_name` names the secondary colour."""

    main: RGB
    second: RGB
    front: RGB
    side: RGB
    back: RGB
    second_name: str
    dark: RGB = (46, 46, 54)
    light: RGB = (240, 238, 230)
    glass: RGB = (164, 214, 240)
    wood: RGB = (150, 102, 60)


def _jitter(rgb: RGB, rng: np.random.Generator) -> RGB:
    red, green, blue = np.clip(np.array(rgb) + rng.uniform(-_JITTER, _JITTER, 3), 16.0, 245.0)
    return float(red), float(green), float(blue)


def _is_clear_of(name: str, others: list[str]) -> bool:
    rgb = np.array(_TRIM[name])
    gaps = [float(np.linalg.norm(rgb - np.array(_TRIM[other]))) for other in others]
    return min(gaps) > _MIN_DISTANCE


def draw_paints(color: str, rng: np.random.Generator) -> Paints:
    """Paints around the main colour called `color`; trim colours contrast with main and second."""
    main = _jitter(_MAIN[color], rng)
    order = [str(name) for name in rng.permutation(list(_TRIM))]
    second = next(name for name in order if _is_clear_of(name, [color]))
    trims = [name for name in order if _is_clear_of(name, [color, second])]
    trims += [name for name in order if name not in (*trims, color, second)]
    front, side, back = (_jitter(_TRIM[name], rng) for name in trims[:3])
    return Paints(
        main=main,
        second=_jitter(_TRIM[second], rng),
        front=front,
        side=side,
        back=back,
        second_name=second,
    )
