"""Creature classes: each function draws proportions and returns parts in free units."""

from __future__ import annotations

import numpy as np

from dreambooth3d.scenes.parts import Part, ball, box, cone, disc, ring, rod, wedge

__all__ = ["bear", "dog", "duck", "fish", "robot", "snowman"]


def _eyes(x: float, half_gap: float, z: float, radius: float) -> list[Part]:
    """Two dark eyes that look to the front."""
    return [ball((x, side * half_gap, z), radius, "dark") for side in (-1, 1)]


def duck(rng: np.random.Generator) -> list[Part]:
    """Sitting duck: one wing in its own colour, cocked tail."""
    length, width = rng.uniform(0.66, 0.8), rng.uniform(0.44, 0.54)
    height, head = rng.uniform(0.38, 0.46), rng.uniform(0.3, 0.37)
    x, z = 0.42 * length + 0.1, 2 * height + 0.72 * head
    bill = rng.uniform(0.2, 0.28)
    return [
        ball((0, 0, height), (length, width, height), "main"),
        ball((x, 0, z), head, "main"),
        ball((x + head, 0, z - 0.08), (bill, 0.2, 0.08), "front"),
        *_eyes(x + 0.7 * head, 0.58 * head, z + 0.22 * head, 0.085),
        ball((-0.08, width, height + 0.04), (0.42, 0.12, 0.24), "side", (0.0, 12.0, 0.0)),
        ball((-0.08, -width, height + 0.04), (0.42, 0.12, 0.24), "second", (0.0, 12.0, 0.0)),
        cone((-0.95 * length, 0, 1.4 * height), 0.22, 0.28, "back", turn=(0.0, -50.0, 0.0)),
        ball((0.35, -0.2, 0.02), (0.22, 0.14, 0.06), "front"),
        ball((0.35, 0.2, 0.02), (0.22, 0.14, 0.06), "front"),
    ]


def fish(rng: np.random.Generator) -> list[Part]:
    """Fish with a forked tail, a tall back fin and different side fins."""
    length, width = rng.uniform(0.7, 0.85), rng.uniform(0.3, 0.38)
    height, tail = rng.uniform(0.42, 0.54), rng.uniform(0.28, 0.36)
    z = height + 0.12
    parts = [
        ball((0, 0, z), (length, width, height), "main"),
        wedge((-0.12, 0, z + height), (0.36, 0.05, 0.22), "second"),
        box((-0.05, 0, 0.1), (0.16, 0.05, 0.14), "second", (0.0, 35.0, 0.0)),
        ball((0.25, width, z - 0.1), (0.26, 0.07, 0.13), "side", (0.0, 20.0, 25.0)),
        ball((0.25, -width, z - 0.1), (0.26, 0.07, 0.13), "second", (0.0, 20.0, -25.0)),
        ball((0.95 * length, 0, z - 0.1), (0.12, 0.2, 0.1), "front"),
    ]
    for side in (-1, 1):
        angle = 42.0 * side
        center = (-length - 0.55 * tail, 0.0, z + 0.6 * tail * side)
        parts.append(ball(center, (1.1 * tail, 0.07, 0.42 * tail), "back", (0.0, angle, 0.0)))
        eye = (0.62 * length, 0.62 * width * side, z + 0.3 * height)
        parts.append(ball(eye, 0.14, "light"))
        parts.append(ball((eye[0] + 0.07, eye[1] + 0.06 * side, eye[2]), 0.085, "dark"))
    return parts


def dog(rng: np.random.Generator) -> list[Part]:
    """Standing dog: one coloured ear, saddle patch on one flank, raised tail."""
    length, width = rng.uniform(0.5, 0.62), rng.uniform(0.27, 0.33)
    leg, head = rng.uniform(0.22, 0.3), rng.uniform(0.3, 0.36)
    body, ear = rng.uniform(0.25, 0.3), rng.uniform(0.2, 0.28)
    z, top = 2 * leg + 0.8 * body, 2 * leg + 2 * body + 0.55 * head
    x = length + 0.12
    parts = [
        rod((0, 0, z), body, length, "main", "x"),
        ball((-length, 0, z), body, "main"),
        ball((length, 0, z), (0.8 * body, body, body), "main"),
        ball((x, 0, top), (head, 1.02 * head, head), "main"),
        ball((x + head, 0, top - 0.1), (0.2, 0.18, 0.14), "front"),
        ball((x + head + 0.17, 0, top - 0.04), 0.08, "dark"),
        *_eyes(x + 0.78 * head, 0.52 * head, top + 0.26 * head, 0.08),
        ball((x - 0.05, head, top + 0.05), (0.16, 0.1, 1.2 * ear), "side", (22.0, 0.0, 0.0)),
        ball((x - 0.05, -head, top + 0.05), (0.16, 0.1, 1.2 * ear), "second", (-22.0, 0.0, 0.0)),
        ring((length - 0.02, 0, z + 0.8 * body), 0.3, 0.2, "front", (0.0, 35.0, 0.0)),
        ball((-0.1, 0.8 * body, z + 0.05), (0.28, 0.1, 0.2), "side"),
        rod((-length - 0.32, 0, z + 0.28), 0.08, 0.3, "back", (0.0, -50.0, 0.0)),
        ball((-length - 0.56, 0, z + 0.48), 0.13, "back"),
    ]
    for x_leg in (-0.85 * length, 0.8 * length):
        for side in (-1, 1):
            parts.append(rod((x_leg, 0.65 * width * side, leg), 0.1, leg, "main"))
            parts.append(
                ball((x_leg + 0.03, 0.65 * width * side, 0.06), (0.14, 0.11, 0.08), "second")
            )
    return parts


def bear(rng: np.random.Generator) -> list[Part]:
    """Sitting toy bear with a belly patch, an arm badge and a small pack on its back."""
    belly, head = rng.uniform(0.42, 0.5), rng.uniform(0.36, 0.43)
    ear, limb = rng.uniform(0.13, 0.18), rng.uniform(0.15, 0.19)
    z, top = 1.02 * belly, 2.0 * belly + 0.72 * head
    parts = [
        ball((0, 0, z), (0.9 * belly, belly, 1.05 * belly), "main"),
        ball((0.05, 0, top), (0.95 * head, 1.05 * head, head), "main"),
        ball((0.62 * belly, 0, z + 0.02), (0.3 * belly, 0.6 * belly, 0.68 * belly), "front"),
        ball((0.9 * head, 0, top - 0.25 * head), (0.17, 0.19, 0.14), "light"),
        ball((0.9 * head + 0.16, 0, top - 0.15 * head), (0.07, 0.09, 0.06), "dark"),
        *_eyes(0.95 * head, 0.42 * head, top + 0.2 * head, 0.075),
        box((-0.9 * belly, 0, z + 0.1), (0.16, 0.55 * belly, 0.6 * belly), "back"),
        ball((0.1, 1.22 * belly, z + 0.25), (0.16, 0.16, 0.2), "side"),
    ]
    for side in (-1, 1):
        parts.append(ball((0, 0.78 * head * side, top + 0.78 * head), (0.1, ear, ear), "main"))
        parts.append(ball((0.07, 0.78 * head * side, top + 0.78 * head), 0.6 * ear, "second"))
        arm = (0.12, 1.02 * belly * side, z + 0.14)
        parts.append(ball(arm, (limb, limb, 0.36), "main", (38.0 * side, 0.0, 0.0)))
        leg = (0.62 * belly, 0.62 * belly * side, 0.17)
        parts.append(ball(leg, (0.34, limb, limb), "main", (0.0, 0.0, 16.0 * side)))
        foot = (0.62 * belly + 0.32, (0.62 * belly + 0.09) * side, 0.19)
        parts.append(ball(foot, (0.06, 0.15, 0.17), "second"))
    return parts


def robot(rng: np.random.Generator) -> list[Part]:
    """Boxy robot with unlike arms, a chest panel and a backpack."""
    width, depth = rng.uniform(0.42, 0.52), rng.uniform(0.3, 0.38)
    body, head = rng.uniform(0.34, 0.4), rng.uniform(0.22, 0.28)
    leg, arm = rng.uniform(0.14, 0.2), rng.uniform(0.26, 0.34)
    hip = 2 * leg
    z, top = hip + body, hip + 2 * body + 0.08 + head
    parts = [
        box((0, 0, z), (depth, width, body), "main"),
        box((0, 0, top), (0.9 * depth, 0.72 * width, head), "main"),
        rod((0, 0, hip + 2 * body + 0.04), 0.12, 0.06, "dark"),
        box((depth, 0, z + 0.06), (0.05, 0.62 * width, 0.42 * body), "front"),
        box((0.9 * depth, 0, top - 0.45 * head), (0.04, 0.4 * width, 0.05), "dark"),
        rod((0, 0, top + head + 0.1), 0.04, 0.12, "dark"),
        ball((0, 0, top + head + 0.25), 0.1, "front"),
        box((-depth - 0.08, 0, z + 0.08), (0.14, 0.66 * width, 0.6 * body), "back"),
    ]
    for side, paint in ((1, "side"), (-1, "second")):
        parts.append(ball((0.9 * depth, 0.34 * width * side, top + 0.2 * head), 0.1, "light"))
        parts.append(
            ball((0.9 * depth + 0.07, 0.34 * width * side, top + 0.2 * head), 0.05, "dark")
        )
        shoulder = (width + 0.1) * side
        parts.append(rod((0, shoulder, z + body - 0.1 - arm), 0.1, arm, paint))
        parts.append(ball((0.04, shoulder, z + body - 0.14 - 2 * arm), 0.14, "dark"))
        parts.append(rod((0, 0.5 * width * side, leg), 0.11, leg, "second"))
        parts.append(box((0.06, 0.5 * width * side, 0.06), (0.2, 0.15, 0.08), "dark"))
    return parts


def snowman(rng: np.random.Generator) -> list[Part]:
    """Three stacked balls with a hat, a cone nose, a scarf end on one side and a pack."""
    low, ratio = rng.uniform(0.5, 0.58), rng.uniform(0.74, 0.8)
    middle, head = ratio * low, ratio * ratio * low
    z_middle = 1.6 * low + 0.65 * middle
    z_head = z_middle + 0.65 * middle + 0.7 * head
    brim = z_head + 0.75 * head
    hat = rng.uniform(0.1, 0.16)
    return [
        ball((0, 0, 0.95 * low), low, "main"),
        ball((0, 0, z_middle), middle, "main"),
        ball((0, 0, z_head), head, "main"),
        rod((0, 0, brim), 1.05 * head, 0.04, "second"),
        rod((0, 0, brim + hat), 0.66 * head, hat, "second"),
        cone((1.25 * head, 0, z_head), 0.09, 0.2, "front", turn="x"),
        *_eyes(0.86 * head, 0.4 * head, z_head + 0.3 * head, 0.07),
        ball((0.98 * middle, 0, z_middle + 0.1), 0.08, "front"),
        ball((0.98 * middle, 0, z_middle - 0.16), 0.08, "front"),
        ring((0, 0, z_middle + 0.8 * middle), 0.92 * head, 0.22, "side"),
        box((0.12, 0.92 * middle, z_middle + 0.1), (0.11, 0.07, 0.3), "side", (14.0, 0.0, 0.0)),
        disc((-0.98 * middle, 0, z_middle), 0.55 * middle, "x", "back", 0.12),
        rod((0.05, -1.25 * middle, z_middle + 0.15), 0.045, 0.3, "wood", (55.0, 0.0, 0.0)),
        rod((0.05, 1.25 * middle, z_middle + 0.15), 0.045, 0.3, "wood", (-55.0, 0.0, 0.0)),
    ]
