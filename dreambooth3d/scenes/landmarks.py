"""Plant and building classes: each function draws proportions and returns parts in free units."""

from __future__ import annotations

import numpy as np

from dreambooth3d.scenes.parts import Part, ball, box, cone, disc, ring, rod, roof

__all__ = ["cactus", "castle", "house", "mushroom"]


def house(rng: np.random.Generator) -> list[Part]:
    """House with a gable roof, a door, a bay on one side and a chimney at the back."""
    depth, width = rng.uniform(0.5, 0.6), rng.uniform(0.5, 0.6)
    wall, gable = rng.uniform(0.46, 0.54), rng.uniform(0.17, 0.23)
    eaves = 2 * wall
    door = (0.45 if rng.random() < 0.5 else -0.45) * width
    return [
        box((0, 0, wall), (depth, width, wall), "main"),
        roof((0, 0, eaves + gable), (1.06 * depth, 1.16 * width, gable), "second"),
        box((depth, door, 0.28), (0.05, 0.16, 0.28), "front"),
        box((depth, -door, 1.1 * wall), (0.04, 0.16, 0.15), "light"),
        box((depth + 0.02, -door, 1.1 * wall), (0.04, 0.11, 0.1), "glass"),
        disc((1.06 * depth, 0, eaves + 0.7 * gable), 0.12, "x", "front"),
        box((0, width, 0.22), (0.22, 0.12, 0.22), "side"),
        box((0, -width, wall), (0.2, 0.04, 0.16), "glass"),
        box((-0.6 * depth, 0.5 * width, eaves + 1.3 * gable), (0.11, 0.11, 0.28), "back"),
        box((-depth, 0, 0.9 * wall), (0.06, 0.22, 0.18), "back"),
    ]


def castle(rng: np.random.Generator) -> list[Part]:
    """Keep with four towers, a gate, a banner on one side and a taller rear tower."""
    half, wall = rng.uniform(0.4, 0.46), rng.uniform(0.32, 0.4)
    tower, rise = rng.uniform(0.17, 0.21), rng.uniform(0.08, 0.18)
    spire, keep = rng.uniform(0.2, 0.28), rng.uniform(0.62, 0.7)
    parts = [
        box((0, 0, wall), (half, half, wall), "main"),
        box((half, 0, 0.22), (0.06, 0.17, 0.22), "dark"),
        disc((half, 0, 0.44), 0.17, "x", "front", 0.08),
        box((0, half, 0.9 * wall), (0.18, 0.06, 0.26), "side"),
        box((-half, 0, 0.8 * wall), (0.08, 0.2, 0.28), "back"),
        rod((-0.12, 0, keep), 0.22, keep, "main"),
        cone((-0.12, 0, 2 * keep + 0.18), 0.3, 0.2, "back"),
    ]
    height = wall + rise
    for x in (-half, half):
        for y in (-half, half):
            paint = "side" if (x, y) == (half, half) else "second"
            parts.append(rod((x, y, height), tower, height, "main"))
            parts.append(cone((x, y, 2 * height + spire), 1.3 * tower, spire, paint))
    return parts


def mushroom(rng: np.random.Generator) -> list[Part]:
    """Mushroom home: domed cap, door and window in the stem, leaf behind."""
    cap, rise = rng.uniform(0.64, 0.74), rng.uniform(0.36, 0.46)
    stem, height = rng.uniform(0.3, 0.36), rng.uniform(0.3, 0.38)
    brim = 2 * height
    return [
        ball((0, 0, brim), (cap, cap, rise), "main"),
        cone((0, 0, height), stem, height, "light", taper=0.8),
        box((stem, 0, 0.22), (0.08, 0.14, 0.22), "front"),
        ball((stem, 0, 0.44), (0.08, 0.14, 0.1), "front"),
        disc((0, 0.92 * stem, height), 0.13, "y", "side", 0.08),
        ball((0.1, 0.8 * cap, brim + 0.45 * rise), (0.2, 0.14, 0.14), "side"),
        ball((-stem - 0.08, 0, 0.24), (0.1, 0.24, 0.26), "back"),
        ball((-0.82 * cap, 0, brim + 0.42 * rise), (0.14, 0.26, 0.16), "back"),
        ball((0, 0, brim + rise), (0.14, 0.14, 0.1), "front"),
    ]


def cactus(rng: np.random.Generator) -> list[Part]:
    """Cactus in a pot: two arms at different heights, a face, flowers."""
    radius, height = rng.uniform(0.28, 0.34), rng.uniform(0.46, 0.56)
    pot, rim = rng.uniform(0.18, 0.23), rng.uniform(0.38, 0.44)
    base = 2 * pot
    top = base + 2 * height
    parts = [
        cone((0, 0, pot), rim, pot, "second", taper=0.75, turn=(180.0, 0.0, 0.0)),
        ring((0, 0, base), rim + 0.03, 0.16, "second"),
        rod((0, 0, base + height), radius, height, "main"),
        ball((0, 0, top), radius, "main"),
        ball((0, 0, top + radius), (0.16, 0.16, 0.1), "front"),
        ball((radius, 0, top - 0.26), (0.06, 0.12, 0.05), "front"),
        ball((radius - 0.01, -0.1, top - 0.06), 0.065, "dark"),
        ball((radius - 0.01, 0.1, top - 0.06), 0.065, "dark"),
        disc((-radius, 0, base + 1.2 * height), 0.2, "x", "back", 0.1),
    ]
    for side, paint in ((1, "side"), (-1, "second")):
        level = base + rng.uniform(0.5, 1.3) * height
        reach, arm = radius + 0.27, rng.uniform(0.18, 0.28)
        parts.append(rod((0, 0.6 * reach * side, level), 0.14, 0.5 * reach, "main", "y"))
        parts.append(ball((0, reach * side, level), 0.15, "main"))
        parts.append(rod((0, reach * side, level + arm), 0.15, arm, "main"))
        parts.append(ball((0, reach * side, level + 2 * arm), (0.16, 0.16, 0.13), paint))
    return parts
