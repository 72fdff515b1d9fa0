"""Painters of outdoor backgrounds: each fills a far and a near panorama."""

from __future__ import annotations

import numpy as np

from dreambooth3d.scenes.canvas import Canvas
from dreambooth3d.scenes.palette import RGB

__all__ = [
    "HORIZON",
    "beach",
    "desert",
    "forest",
    "meadow",
    "moon",
    "night",
    "places",
    "snow",
    "sunset",
    "under_water",
]

HORIZON = 0.52
"""Height of the horizon in every background, as a share of the frame from the top."""


def places(count: int, rng: np.random.Generator) -> list[float]:
    """`count` positions along the panorama, evenly spread with jitter."""
    step = 2.0 / count
    start = rng.uniform(0.0, 2.0)
    return [float(start + step * (i + rng.uniform(-0.3, 0.3))) % 2.0 for i in range(count)]


def _clouds(canvas: Canvas, rng: np.random.Generator, color: RGB) -> None:
    for x in places(5, rng):
        y, scale = rng.uniform(0.1, 0.28), rng.uniform(0.8, 1.2)
        for dx, dy, radius in ((-0.09, 0.015, 0.05), (0.0, -0.01, 0.07), (0.09, 0.015, 0.05)):
            half = (1.4 * radius * scale, 0.75 * radius * scale)
            canvas.ellipse(x + dx * scale, y + dy, half, color, 0.9)


def _pine(canvas: Canvas, x: float, base: float, height: float, leaf: RGB, snow: RGB) -> None:
    canvas.rectangle(x, base - 0.05, (0.018, 0.06), (104, 76, 54))
    for level in range(3):
        bottom = base - 0.06 - 0.26 * height * level
        half_width = 0.24 * height * (1.0 - 0.22 * level)
        canvas.peak(x, bottom - 0.46 * height, bottom, half_width, leaf)
        canvas.peak(x, bottom - 0.46 * height, bottom - 0.24 * height, 0.48 * half_width, snow)


def beach(far: Canvas, near: Canvas, rng: np.random.Generator) -> None:
    """Light sky, a band of sea, sand and palms."""
    far.gradient(0.0, HORIZON, (126, 200, 244), (206, 236, 250))
    far.ellipse(rng.uniform(0, 2), rng.uniform(0.1, 0.18), (0.075, 0.075), (255, 246, 190))
    far.gradient(HORIZON - 0.1, HORIZON + 0.02, (24, 128, 178), (78, 196, 206))
    far.hills(HORIZON + 0.03, 0.008, 5, rng.uniform(0, 6), (244, 250, 248))
    far.hills(HORIZON + 0.05, 0.008, 5, rng.uniform(0, 6), (240, 216, 160))
    far.gradient(HORIZON + 0.08, 1.0, (240, 216, 160), (224, 192, 128))
    for x in places(3, rng):
        top = rng.uniform(0.2, 0.28)
        near.blade(x, HORIZON + 0.08, HORIZON + 0.08 - top, 0.02, 0.015, (132, 98, 66))
        for dx, dy in ((-0.1, 0.02), (0.1, 0.02), (-0.06, -0.035), (0.06, -0.035)):
            near.ellipse(x + dx, top + dy, (0.1, 0.026), (52, 136, 84))


def forest(far: Canvas, near: Canvas, rng: np.random.Generator) -> None:
    """Dim green light between tall trunks."""
    far.gradient(0.0, HORIZON, (64, 104, 74), (152, 186, 132))
    for x in places(11, rng):
        far.rectangle(x, 0.25, (0.018, 0.3), (86, 104, 76))
    far.gradient(HORIZON, 1.0, (92, 112, 62), (62, 82, 44))
    for x in places(6, rng):
        width = rng.uniform(0.032, 0.05)
        near.rectangle(x, 0.28, (width, 0.31), (84, 62, 46))
        near.rectangle(x + 0.5 * width, 0.28, (0.35 * width, 0.31), (112, 84, 60))
        near.ellipse(x, 0.02, (0.19, 0.13), (40, 84, 52))
        near.ellipse(x + 0.12, 0.58, (0.09, 0.05), (50, 96, 56))


def snow(far: Canvas, near: Canvas, rng: np.random.Generator) -> None:
    """Pale sky, white ground, snowy pines and flakes."""
    far.gradient(0.0, HORIZON, (164, 190, 214), (216, 228, 238))
    far.hills(HORIZON - 0.06, 0.035, 3, rng.uniform(0, 6), (190, 206, 224))
    far.gradient(HORIZON, 1.0, (226, 234, 244), (246, 249, 252))
    for x in places(5, rng):
        _pine(near, x, HORIZON + 0.05, rng.uniform(0.36, 0.5), (74, 116, 108), (242, 247, 250))
    for x in places(26, rng):
        near.ellipse(x, rng.uniform(0.02, 0.95), (0.011, 0.011), (255, 255, 255), 0.9)


def night(far: Canvas, near: Canvas, rng: np.random.Generator) -> None:
    """Dark blue sky with a moon and stars over dim hills."""
    far.gradient(0.0, HORIZON, (14, 18, 54), (44, 54, 104))
    for x in places(26, rng):
        far.ellipse(x, rng.uniform(0.02, 0.42), (0.009, 0.009), (240, 240, 214))
    moon_x, moon_y = rng.uniform(0, 2), rng.uniform(0.12, 0.18)
    far.glow(moon_x, moon_y, 0.17, (150, 160, 210), 0.5)
    far.ellipse(moon_x, moon_y, (0.08, 0.08), (246, 242, 214))
    far.ellipse(moon_x + 0.035, moon_y - 0.015, (0.065, 0.065), (36, 42, 88))
    far.hills(HORIZON - 0.05, 0.03, 3, rng.uniform(0, 6), (34, 42, 80))
    far.gradient(HORIZON, 1.0, (56, 68, 112), (92, 104, 148))
    for tree_x in places(4, rng):
        _pine(near, tree_x, HORIZON + 0.04, rng.uniform(0.22, 0.32), (22, 30, 60), (26, 36, 70))


def desert(far: Canvas, near: Canvas, rng: np.random.Generator) -> None:
    """Hazy sky, flat-topped rocks, wavy dunes and dry scrub."""
    far.gradient(0.0, HORIZON, (112, 182, 226), (252, 232, 192))
    far.ellipse(rng.uniform(0, 2), rng.uniform(0.1, 0.16), (0.08, 0.08), (255, 250, 210))
    for x in places(5, rng):
        height = rng.uniform(0.08, 0.16)
        near.rectangle(x, HORIZON, (rng.uniform(0.08, 0.14), height), (186, 112, 78))
        near.rectangle(x + 0.1, HORIZON, (0.09, 0.55 * height), (204, 132, 92))
    near.hills(HORIZON + 0.02, 0.03, 2, rng.uniform(0, 6), (226, 172, 108))
    near.hills(HORIZON + 0.12, 0.025, 3, rng.uniform(0, 6), (238, 190, 124))
    near.hills(HORIZON + 0.26, 0.02, 2, rng.uniform(0, 6), (230, 178, 110))
    for x in places(12, rng):
        y = rng.uniform(HORIZON + 0.08, 0.96)
        half = (0.025 + 0.06 * (y - HORIZON), 0.012 + 0.03 * (y - HORIZON))
        near.ellipse(x, y, half, (150, 126, 74))


def meadow(far: Canvas, near: Canvas, rng: np.random.Generator) -> None:
    """Blue sky with clouds, rolling grass and small flowers."""
    far.gradient(0.0, HORIZON, (98, 176, 244), (198, 230, 250))
    _clouds(far, rng, (255, 255, 255))
    far.hills(HORIZON - 0.04, 0.035, 3, rng.uniform(0, 6), (124, 186, 110))
    far.gradient(HORIZON + 0.03, 1.0, (150, 206, 106), (112, 176, 78))
    flowers: tuple[RGB, ...] = ((255, 255, 255), (255, 232, 90), (250, 160, 190))
    for index, x in enumerate(places(30, rng)):
        y = rng.uniform(HORIZON + 0.1, 0.98)
        radius = 0.008 + 0.018 * (y - HORIZON)
        far.ellipse(x, y, (radius, radius), flowers[index % 3])


def under_water(far: Canvas, near: Canvas, rng: np.random.Generator) -> None:
    """Blue depth with light beams, seaweed, bubbles and a sandy floor."""
    far.gradient(0.0, 0.72, (70, 186, 216), (14, 84, 140))
    for x in places(6, rng):
        far.peak(x, -0.25, 0.72, rng.uniform(0.05, 0.09), (84, 180, 210))
    far.hills(0.66, 0.025, 3, rng.uniform(0, 6), (82, 142, 150))
    far.gradient(0.72, 1.0, (120, 164, 152), (168, 188, 160))
    for x in places(9, rng):
        height = rng.uniform(0.22, 0.42)
        near.blade(x, 0.72, height, 0.03, 0.025, (30, 122, 92))
    for x in places(16, rng):
        y, radius = rng.uniform(0.05, 0.6), rng.uniform(0.01, 0.02)
        near.ellipse(x, y, (radius, radius), (204, 240, 250), 0.75)


def sunset(far: Canvas, near: Canvas, rng: np.random.Generator) -> None:
    """Orange sky with streaks of cloud, a big low sun mirrored in dark water, black rocks."""
    far.gradient(0.0, 0.6 * HORIZON, (92, 52, 122), (232, 92, 92))
    far.gradient(0.6 * HORIZON, HORIZON, (232, 92, 92), (254, 196, 96))
    for cloud_x in places(7, rng):
        half = (rng.uniform(0.1, 0.18), rng.uniform(0.014, 0.026))
        far.ellipse(cloud_x, rng.uniform(0.06, 0.3), half, (255, 172, 128), 0.85)
    x = rng.uniform(0, 2)
    far.glow(x, HORIZON - 0.08, 0.22, (255, 220, 130), 0.7)
    far.ellipse(x, HORIZON - 0.08, (0.12, 0.12), (255, 240, 176))
    far.gradient(HORIZON, 1.0, (196, 104, 108), (104, 66, 112))
    for line in range(6):
        y = HORIZON + 0.04 + 0.07 * line
        far.rectangle(
            x + rng.uniform(-0.02, 0.02), y, (0.13 - 0.012 * line, 0.012), (250, 178, 112)
        )
    for rock_x in places(5, rng):
        half = (rng.uniform(0.07, 0.12), rng.uniform(0.04, 0.07))
        near.ellipse(rock_x, HORIZON + 0.02, half, (74, 42, 84))
        near.ellipse(rock_x + 0.08, HORIZON + 0.03, (0.08, 0.025), (88, 50, 92))


def moon(far: Canvas, near: Canvas, rng: np.random.Generator) -> None:
    """Black sky with stars and a blue planet over grey craters."""
    far.gradient(0.0, HORIZON, (8, 8, 16), (22, 22, 34))
    for x in places(30, rng):
        far.ellipse(x, rng.uniform(0.02, 0.42), (0.008, 0.008), (250, 250, 250))
    x, y = rng.uniform(0, 2), rng.uniform(0.14, 0.2)
    far.ellipse(x, y, (0.1, 0.1), (70, 130, 220))
    far.ellipse(x - 0.02, y - 0.02, (0.045, 0.05), (110, 190, 130))
    far.ellipse(x + 0.035, y + 0.045, (0.05, 0.02), (244, 248, 250), 0.9)
    far.hills(HORIZON - 0.01, 0.02, 4, rng.uniform(0, 6), (132, 132, 138))
    far.gradient(HORIZON + 0.02, 1.0, (150, 150, 156), (184, 184, 188))
    for x in places(10, rng):
        y = rng.uniform(HORIZON + 0.1, 0.95)
        half = (0.05 + 0.12 * (y - HORIZON), 0.014 + 0.05 * (y - HORIZON))
        far.ellipse(x, y, half, (112, 112, 120))
        far.ellipse(x, y + 0.25 * half[1], (0.85 * half[0], 0.72 * half[1]), (138, 138, 146))
