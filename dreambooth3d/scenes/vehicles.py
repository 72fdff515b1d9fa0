"""Vehicle classes: each function draws proportions and returns parts in free units."""

from __future__ import annotations

import numpy as np

from dreambooth3d.scenes.parts import (
    Part,
    ball,
    box,
    cone,
    disc,
    hull,
    rod,
    wedge,
)

__all__ = ["airplane", "boat", "car", "rocket", "train"]


def car(rng: np.random.Generator) -> list[Part]:
    """Body on four wheels with a cabin; round badge on one door, spoiler at the rear."""
    length, width = rng.uniform(0.85, 1.0), rng.uniform(0.46, 0.54)
    body, cabin = rng.uniform(0.2, 0.26), rng.uniform(0.2, 0.28)
    wheel, back_shift = rng.uniform(0.2, 0.26), rng.uniform(-0.3, 0.05)
    floor = wheel + 0.05
    deck, half_cabin = floor + 2 * body, rng.uniform(0.4, 0.55) * length
    middle = deck + cabin
    parts = [
        box((0, 0, floor + body), (length, width, body), "main"),
        box((back_shift, 0, middle), (half_cabin, 0.86 * width, cabin), "main"),
        box(
            (back_shift, 0, middle - 0.02), (1.03 * half_cabin, 0.7 * width, 0.62 * cabin), "glass"
        ),
        box((back_shift, 0, middle - 0.02), (0.75 * half_cabin, 0.9 * width, 0.6 * cabin), "glass"),
        box((length, 0, floor + 0.4 * body), (0.05, 0.95 * width, 0.07), "dark"),
        disc((-0.1, width, floor + body), 0.85 * body, "y", "side", 0.05),
        box((-0.92 * length, 0, deck + 0.14), (0.1, width, 0.05), "back"),
        box((-length, 0, floor + body), (0.05, 0.7 * width, 0.6 * body), "back"),
    ]
    for side in (-1, 1):
        parts.append(ball((length, 0.62 * width * side, floor + 1.3 * body), 0.13, "front"))
        for x in (-0.58 * length, 0.6 * length):
            parts.append(rod((x, side * width, wheel), wheel, 0.1, "dark", "y"))
            parts.append(rod((x, side * width, wheel), 0.45 * wheel, 0.13, "light", "y"))
    return parts


def train(rng: np.random.Generator) -> list[Part]:
    """Steam engine: boiler, chimney, cab at the rear."""
    length, radius = rng.uniform(0.55, 0.7), rng.uniform(0.34, 0.4)
    wheel, chimney = rng.uniform(0.14, 0.18), rng.uniform(0.14, 0.22)
    axis, cab = 2 * wheel + radius, rng.uniform(0.5, 0.62)
    top = axis + radius
    parts = [
        rod((0.25, 0, axis), radius, length, "main", "x"),
        box((-0.55, 0, 2 * wheel + cab), (0.3, 0.42, cab), "main"),
        box((-0.55, 0, 2 * wheel + 2 * cab), (0.38, 0.5, 0.06), "second"),
        box((-0.55, 0, 2 * wheel + 1.45 * cab), (0.15, 0.45, 0.22 * cab), "glass"),
        cone((0.62, 0, top + chimney), 0.17, chimney, "second", taper=0.6, turn=(180.0, 0.0, 0.0)),
        ball((0.15, 0, top), 0.16, "second"),
        disc((0.27 + length, 0, axis), 0.6 * radius, "x", "front"),
        wedge((0.32 + length, 0, wheel), (0.2, 0.36, 0.16), "dark"),
        box((0, 0, 1.8 * wheel), (0.88, 0.34, 0.07), "dark"),
        disc((0.3, radius, axis), 0.17, "y", "side", 0.06),
        box((-0.9, 0, 2 * wheel + 0.6 * cab), (0.06, 0.24, 0.3 * cab), "back"),
    ]
    for side in (-1, 1):
        for x in (-0.55, 0.02, 0.55):
            parts.append(rod((x, 0.37 * side, wheel), wheel, 0.07, "dark", "y"))
            parts.append(rod((x, 0.37 * side, wheel), 0.5 * wheel, 0.09, "light", "y"))
    return parts


def boat(rng: np.random.Generator) -> list[Part]:
    """Sailing boat: pointed hull, one triangular sail, cabin, engine at the stern."""
    length, width = rng.uniform(0.85, 0.98), rng.uniform(0.44, 0.52)
    height, mast = rng.uniform(0.27, 0.33), rng.uniform(0.52, 0.64)
    sail, step = rng.uniform(0.36, 0.46), rng.uniform(0.05, 0.15)
    deck = 2 * height
    return [
        hull((0, 0, height), (length, width, height), "main"),
        rod((step, 0, deck + mast), 0.05, mast, "wood"),
        wedge((step + 0.06 + sail, 0, deck + 1.1 * mast), (sail, 0.04, 0.8 * mast), "main"),
        wedge(
            (step - 0.06 - 0.8 * sail, 0, deck + 1.0 * mast),
            (0.8 * sail, 0.04, 0.7 * mast),
            "second",
            (0.0, 0.0, 180.0),
        ),
        box((-0.2 * length, 0, deck + 0.12), (0.28, 0.26, 0.13), "light"),
        disc((0.1, 0, deck + 0.12), 0.1, "x", "glass"),
        ball((0.86 * length, 0, deck), 0.12, "front"),
        box((step - 0.17, 0, deck + 2 * mast), (0.16, 0.03, 0.1), "front"),
        disc((-0.1, 0.88 * width, 1.25 * height), 0.18, "y", "side", 0.08),
        box((-length, 0, height), (0.1, 0.18, 0.6 * height), "back"),
    ]


def airplane(rng: np.random.Generator) -> list[Part]:
    """Propeller plane with one wing tip in its own colour."""
    length, radius = rng.uniform(0.84, 0.92), rng.uniform(0.28, 0.34)
    span, chord = rng.uniform(0.74, 0.86), rng.uniform(0.24, 0.3)
    fin, middle = rng.uniform(0.28, 0.36), 0.5
    tail = -0.82 * length
    parts = [
        ball((0, 0, middle), (length, radius, 1.1 * radius), "main"),
        box((0.12, 0, middle - 0.02), (chord, span, 0.06), "main"),
        box((0.12, span, middle - 0.02), (1.02 * chord, 0.16, 0.08), "side"),
        box((tail, 0, middle + 0.05), (0.13, 0.4 * span, 0.045), "second"),
        wedge((tail, 0, middle + fin), (0.2, 0.05, fin), "back"),
        ball((tail - 0.1, 0, middle), 0.12, "back"),
        ball((0.3, 0, middle + 0.8 * radius), (0.24, 0.16, 0.17), "glass"),
        cone((length, 0, middle), 0.13, 0.12, "front", turn="x"),
        box((length + 0.03, 0, middle), (0.03, 0.06, 0.36), "dark", (rng.uniform(15, 75), 0, 0)),
    ]
    for side in (-1, 1):
        parts.append(rod((0.25, 0.26 * side, 0.25), 0.035, 0.13, "dark"))
        parts.append(rod((0.25, 0.26 * side, 0.13), 0.13, 0.06, "dark", "y"))
    return parts


def rocket(rng: np.random.Generator) -> list[Part]:
    """Upright rocket: nose cone, three fins of which one is marked, porthole on the front."""
    radius, height = rng.uniform(0.36, 0.43), rng.uniform(0.52, 0.64)
    nose, fin = rng.uniform(0.24, 0.32), rng.uniform(0.18, 0.24)
    base = 0.22
    middle = base + height
    parts = [
        rod((0, 0, middle), radius, height, "main"),
        cone((0, 0, middle + height + nose), radius, nose, "second"),
        cone((0, 0, 0.6 * base), 0.75 * radius, 0.5 * base, "dark", taper=0.7),
        disc((radius, 0, middle + 0.45 * height), 0.52 * radius, "x", "front", 0.07),
        disc((radius + 0.02, 0, middle + 0.45 * height), 0.32 * radius, "x", "glass", 0.08),
        box((-radius, 0, middle), (0.1, 0.45 * radius, 0.38 * height), "back"),
        disc((0, radius, middle + 0.35 * height), 0.42 * radius, "y", "side", 0.06),
    ]
    for angle, paint in ((90.0, "side"), (-90.0, "second"), (180.0, "back")):
        reach = radius + 0.8 * fin
        x, y = (reach * np.cos(np.radians(angle)), reach * np.sin(np.radians(angle)))
        center = (float(x), float(y), base + 0.1)
        parts.append(wedge(center, (fin, 0.06, 0.28), paint, (0.0, 0.0, angle)))
    return parts
