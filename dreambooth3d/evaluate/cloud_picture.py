"""Two clouds laid on each other, as a picture: from their widest side, and from another one."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dreambooth3d.artifacts.key import publish_file
from dreambooth3d.evaluate.alignment import unit_frame

Cloud = NDArray[np.float64]

_SIDE, _REACH = 360, 2.6
_TRUE, _MADE = (165, 165, 165), (31, 91, 190)
# Axes of a frame go from the narrowest to the widest.
_LOOKS = ((2, 1), (2, 0))


def draw_clouds(path: Path, made_N3: Cloud, true_M3: Cloud) -> None:
    """Draw the truth in grey and what was made, laid on it, in blue."""
    frame = unit_frame(true_M3)
    pixels = np.full((_SIDE, _SIDE * len(_LOOKS), 3), 255, dtype=np.uint8)
    for place, axes in enumerate(_LOOKS):
        part = pixels[:, place * _SIDE : (place + 1) * _SIDE]
        for points, colour in ((frame(true_M3), _TRUE), (frame(made_N3), _MADE)):
            _dot(part, points[:, axes], colour)
    with publish_file(path) as aside:
        Image.fromarray(pixels).save(aside, format="PNG")


def _dot(part_HWC: NDArray[np.uint8], plane_N2: Cloud, colour: tuple[int, int, int]) -> None:
    """Two pixels wide and high for every point that is on the picture."""
    spots = np.round((plane_N2 / _REACH + 1) * _SIDE / 2).astype(np.int64)
    for shift in ((0, 0), (0, 1), (1, 0), (1, 1)):
        columns, rows = (spots + shift).T
        is_on = (columns >= 0) & (columns < _SIDE) & (rows >= 0) & (rows < _SIDE)
        part_HWC[rows[is_on], columns[is_on]] = colour
