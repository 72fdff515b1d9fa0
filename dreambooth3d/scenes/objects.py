"""Household classes: each function draws proportions and returns parts in free units."""

from __future__ import annotations

import numpy as np

from dreambooth3d.scenes.parts import Part, ball, box, cone, disc, ring, rod

__all__ = ["backpack", "chair", "guitar", "lamp", "mug", "teapot"]


def mug(rng: np.random.Generator) -> list[Part]:
    """Mug with its handle on one side and a big badge on the front."""
    radius, height = rng.uniform(0.46, 0.56), rng.uniform(0.52, 0.64)
    grip, badge = rng.uniform(0.32, 0.4), rng.uniform(0.2, 0.26)
    return [
        rod((0, 0, height), radius, height, "main"),
        ring((0, 0, 2 * height), radius + 0.05, 0.12, "second"),
        disc((0, 0, 2 * height), 0.84 * radius, "z", "dark", 0.02),
        ring((0, -radius - 0.12, height), grip, 0.24, "second", (0.0, 90.0, 0.0)),
        disc((radius, 0, height), badge, "x", "front", 0.07),
        box((0, radius, 0.9 * height), (0.2, 0.06, 0.3), "side"),
        box((-radius, 0, height), (0.06, 0.2, 0.2), "back", (45.0, 0.0, 0.0)),
    ]


def teapot(rng: np.random.Generator) -> list[Part]:
    """Round pot; spout on one side, handle on the other, knob on the lid."""
    radius, height = rng.uniform(0.5, 0.56), rng.uniform(0.4, 0.48)
    grip, spout = rng.uniform(0.26, 0.32), rng.uniform(0.3, 0.38)
    top = 2 * height
    return [
        ball((0, 0, height + 0.05), (radius, radius, height), "main"),
        rod((0, 0, 0.05), 0.6 * radius, 0.06, "second"),
        ball((0, 0, top - 0.02), (0.56 * radius, 0.56 * radius, 0.14), "second"),
        ball((0, 0, top + 0.16), 0.11, "front"),
        cone(
            (0, radius + 0.6 * spout, height + 0.22),
            0.17,
            spout,
            "main",
            taper=0.55,
            turn=(-48.0, 0.0, 0.0),
        ),
        rod(
            (0, radius + 1.28 * spout, height + 0.84 * spout + 0.2), 0.13, 0.07, "side", (-48, 0, 0)
        ),
        ring((0, -radius - 0.1, height + 0.08), grip, 0.24, "second", (0.0, 90.0, 0.0)),
        ball((0.92 * radius, 0, height + 0.05), (0.12, 0.24, 0.24), "front"),
        ball((-0.92 * radius, 0, height + 0.05), (0.12, 0.3, 0.2), "back"),
    ]


def chair(rng: np.random.Generator) -> list[Part]:
    """Chair facing the front: cushion, one coloured armrest, panel behind the backrest."""
    width, depth = rng.uniform(0.42, 0.5), rng.uniform(0.4, 0.46)
    leg, back = rng.uniform(0.28, 0.36), rng.uniform(0.4, 0.5)
    seat = 2 * leg
    behind = -depth + 0.08
    parts = [
        box((0, 0, seat), (depth, width, 0.09), "main"),
        box((behind, 0, seat + back), (0.09, width, back), "main"),
        box((0.08, 0, seat + 0.12), (0.72 * depth, 0.74 * width, 0.06), "front"),
        box((behind - 0.08, 0, seat + 1.15 * back), (0.05, 0.6 * width, 0.5 * back), "back"),
        box((0.05, width, seat + 0.34), (0.8 * depth, 0.08, 0.06), "side"),
        box((0.05, width, seat + 0.2), (0.5 * depth, 0.05, 0.12), "side"),
    ]
    for x in (-depth + 0.08, depth - 0.08):
        for side in (-1, 1):
            parts.append(box((x, (width - 0.08) * side, leg), (0.075, 0.075, leg), "second"))
    return parts


def lamp(rng: np.random.Generator) -> list[Part]:
    """Table lamp: wide shade on a pole, with badges on the shade."""
    shade, height = rng.uniform(0.56, 0.64), rng.uniform(0.32, 0.4)
    pole, taper = rng.uniform(0.36, 0.46), rng.uniform(0.5, 0.7)
    foot, middle = rng.uniform(0.34, 0.42), 0.1 + 2 * pole + 0.7 * height
    wall = 0.5 * (1 + taper) * shade
    return [
        cone((0, 0, middle), shade, height, "main", taper=taper),
        rod((0, 0, 0.1 + pole), 0.07, pole, "dark"),
        ball((0, 0, 0.1 + 0.8 * pole), 0.17, "second"),
        cone((0, 0, 0.1), foot, 0.1, "second", taper=0.6),
        ball((0, 0, middle + height + 0.05), 0.1, "second"),
        disc((wall - 0.02, 0, middle), 0.2, "x", "front", 0.12),
        rod((0.7 * shade, 0, middle - height - 0.12), 0.03, 0.16, "dark"),
        ball((0.7 * shade, 0, middle - height - 0.28), 0.1, "front"),
        box((0, wall - 0.02, middle - 0.02), (0.22, 0.12, 0.16), "side"),
        box((-wall + 0.02, 0, middle), (0.12, 0.12, 0.24), "back"),
    ]


def guitar(rng: np.random.Generator) -> list[Part]:
    """Upright guitar: two-lobed body, dark neck, pick guard and a patch behind."""
    lower, upper = rng.uniform(0.52, 0.58), rng.uniform(0.38, 0.43)
    depth, neck = rng.uniform(0.16, 0.21), rng.uniform(0.26, 0.35)
    waist = 1.5 * lower + 0.4 * upper
    z_upper = lower + 0.55 * lower + 0.75 * upper
    shoulder = z_upper + upper
    head = shoulder + 2 * neck
    parts = [
        rod((0, 0, lower), lower, depth, "main", "x"),
        rod((0, 0, z_upper), upper, depth, "main", "x"),
        box((0.06, 0, shoulder + neck - 0.2), (0.06, 0.085, neck + 0.2), "wood"),
        box((0.02, 0, head), (0.06, 0.15, 0.16), "second"),
        disc((depth, 0, waist), 0.19, "x", "dark", 0.03),
        box((depth, 0, 0.55 * lower), (0.06, 0.22, 0.06), "dark"),
        ball((depth, 0.26, 0.95 * lower), (0.05, 0.13, 0.24), "front", (25.0, 0.0, 0.0)),
        disc((-depth, 0, lower), 0.62 * lower, "x", "back"),
        box((0, lower, lower), (0.1, 0.07, 0.2), "side"),
        box((0, upper, z_upper), (0.1, 0.06, 0.12), "side"),
    ]
    for side in (-1, 1):
        for lift in (-0.08, 0.08):
            parts.append(ball((0.02, 0.2 * side, head + lift), 0.06, "light"))
    return parts


def backpack(rng: np.random.Generator) -> list[Part]:
    """Rucksack: front pocket, bottle on one side, straps behind."""
    width, depth = rng.uniform(0.46, 0.54), rng.uniform(0.26, 0.32)
    height, pocket = rng.uniform(0.5, 0.6), rng.uniform(0.24, 0.3)
    top = 2 * height
    parts = [
        box((0, 0, height), (depth, width, height), "main"),
        rod((0, 0, top), depth, width, "main", "y"),
        box((depth + 0.08, 0, 0.12 + pocket), (0.12, 0.72 * width, pocket), "front"),
        box((depth + 0.1, 0, 0.1 + 1.8 * pocket), (0.13, 0.76 * width, 0.06), "dark"),
        box((depth, 0, 1.75 * height), (0.04, 0.85 * width, 0.05), "second"),
        ring((0, 0, top + depth + 0.04), 0.2, 0.24, "second", "x"),
        rod((0.04, width + 0.1, 0.3), 0.14, 0.3, "side"),
        rod((0.04, width + 0.1, 0.64), 0.08, 0.08, "light"),
        box((0, -width - 0.04, 0.32), (0.2, 0.07, 0.22), "second"),
    ]
    for side in (-1, 1):
        strap = (-depth - 0.05, 0.5 * width * side, height)
        parts.append(ring(strap, 0.85 * height, 0.16, "back", (90.0, 0.0, 0.0)))
    return parts
