"""Painters of indoor and street backgrounds: each fills a far and a near panorama."""

from __future__ import annotations

import numpy as np

from dreambooth3d.scenes.canvas import Canvas
from dreambooth3d.scenes.outdoors import HORIZON, places
from dreambooth3d.scenes.palette import RGB

__all__ = ["city_street", "kitchen", "living_room", "wooden_desk"]


def wooden_desk(far: Canvas, near: Canvas, rng: np.random.Generator) -> None:
    """Cream wall with paper notes, rows of books, a desk of brown planks."""
    far.gradient(0.0, HORIZON, (226, 216, 196), (240, 232, 216))
    far.gradient(HORIZON + 0.02, 1.0, (156, 104, 62), (182, 126, 78))
    for y in (0.62, 0.76, 0.9):
        far.rectangle(0.0, y, (2.0, 0.006), (122, 78, 44))
    for x in places(9, rng):
        far.rectangle(x, rng.choice([0.69, 0.83, 0.96]), (0.1, 0.004), (134, 88, 52))
    notes: tuple[RGB, ...] = ((250, 226, 130), (178, 214, 226), (240, 184, 170))
    for index, x in enumerate(places(6, rng)):
        near.rectangle(x, rng.uniform(0.1, 0.22), (0.055, 0.055), notes[index % 3])
    covers: tuple[RGB, ...] = ((70, 96, 120), (150, 84, 72), (96, 120, 88), (196, 172, 120))
    for start in places(3, rng):
        for book in range(5):
            height = rng.uniform(0.1, 0.15)
            x = start + 0.056 * book
            near.rectangle(x, HORIZON + 0.02 - height, (0.025, height), covers[rng.integers(4)])


def living_room(far: Canvas, near: Canvas, rng: np.random.Generator) -> None:
    """Papered wall with pictures and windows, a skirting board, a carpet."""
    far.gradient(0.0, HORIZON, (186, 204, 196), (204, 218, 210))
    for stripe in range(16):
        far.rectangle(0.125 * stripe, 0.25, (0.022, 0.3), (174, 194, 186))
    far.gradient(HORIZON, HORIZON + 0.06, (250, 248, 242), (236, 232, 224))
    far.gradient(HORIZON + 0.06, 1.0, (188, 148, 128), (206, 168, 146))
    for stripe in range(4):
        far.rectangle(0.0, 0.66 + 0.1 * stripe, (2.0, 0.012), (224, 194, 172))
    for x in places(2, rng):
        near.rectangle(x, 0.24, (0.16, 0.17), (250, 248, 240))
        near.rectangle(x, 0.24, (0.135, 0.145), (150, 206, 240))
        near.rectangle(x, 0.24, (0.135, 0.01), (250, 248, 240))
        near.rectangle(x, 0.24, (0.01, 0.145), (250, 248, 240))
        near.rectangle(x + 0.5, 0.24, (0.13, 0.11), (112, 78, 54))
        near.rectangle(x + 0.5, 0.24, (0.105, 0.085), (236, 222, 190))
        near.ellipse(x + 0.5, 0.26, (0.06, 0.045), (112, 150, 110))


def kitchen(far: Canvas, near: Canvas, rng: np.random.Generator) -> None:
    """Tiled wall, hanging cupboards, a pale counter."""
    far.gradient(0.0, HORIZON, (238, 240, 240), (244, 246, 246))
    for row in range(6):
        far.rectangle(0.0, 0.1 * row, (2.0, 0.005), (190, 204, 210))
    for column in range(20):
        far.rectangle(0.1 * column, 0.26, (0.005, 0.28), (190, 204, 210))
    far.gradient(HORIZON + 0.02, HORIZON + 0.05, (104, 112, 120), (104, 112, 120))
    far.gradient(HORIZON + 0.05, 1.0, (168, 178, 184), (196, 204, 208))
    shift = rng.uniform(0, 2)
    for door in range(6):
        x = shift + door / 3.0
        near.rectangle(x, 0.08, (0.155, 0.12), (96, 140, 150))
        near.rectangle(x, 0.08, (0.12, 0.085), (116, 160, 168))
        near.ellipse(x + 0.09, 0.16, (0.014, 0.014), (240, 240, 236))


def city_street(far: Canvas, near: Canvas, rng: np.random.Generator) -> None:
    """Rows of buildings with lit windows, a pavement and a road with a broken line."""
    far.gradient(0.0, HORIZON, (176, 202, 224), (224, 230, 234))
    for x in places(9, rng):
        top = rng.uniform(0.12, 0.3)
        far.rectangle(x, 0.5 * (top + 0.6), (0.1, 0.5 * (0.6 - top)), (172, 184, 198))
    walls: tuple[RGB, ...] = ((142, 112, 102), (122, 128, 142), (164, 148, 128))
    for index, x in enumerate(places(6, rng)):
        _building(near, x, rng.uniform(0.06, 0.24), walls[index % 3])
    far.gradient(HORIZON + 0.02, HORIZON + 0.1, (192, 190, 186), (176, 174, 170))
    far.gradient(HORIZON + 0.1, 1.0, (98, 100, 106), (116, 118, 124))
    for dash in range(8):
        far.rectangle(0.25 * dash, 0.84, (0.07, 0.014), (240, 238, 224))


def _building(canvas: Canvas, x: float, top: float, wall: RGB) -> None:
    bottom = HORIZON + 0.04
    canvas.rectangle(x, 0.5 * (top + bottom), (0.125, 0.5 * (bottom - top)), wall)
    for row in range(int((bottom - top) / 0.1)):
        for column in (-0.075, 0.0, 0.075):
            canvas.rectangle(x + column, top + 0.06 + 0.1 * row, (0.022, 0.03), (244, 232, 170))
