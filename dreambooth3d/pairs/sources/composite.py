"""Two panels side by side in one picture: where they are, without the strips around them."""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dreambooth3d.vision.refusal import RefusedError

# Left and upper edge, right and lower edge.
Box: TypeAlias = tuple[int, int, int, int]

# Sides of the published panels, and the widths of strips that were used around them.
_PUBLISHED_SIDES, _PUBLISHED_PADDINGS = (512, 1024), (8, 16, 0)
_USUAL_PADDING = 8
_LEAST_SIDE = 16
# A strip of more than an eighth of the height is no strip.
_WIDEST_SHARE = 8
# Of 255; JPEG moves colours of a flat strip by less.
_SAME_COLOUR = 24
_MOST_STRAY = 0.02


def split_panels(
    composite: Image.Image, *, padding: int | None = None, inset: int = 1
) -> tuple[Image.Image, Image.Image]:
    """Cut out the left and the right panel.

    Args:
        composite: RGB.
        padding: width of the strips, pixels; None finds it from the size of the picture.
        inset: pixels left out at each edge of a panel: JPEG mixes the colours at a seam.

    Raises:
        RefusedError: the picture is not two square panels side by side.
    """
    left, *rights = panel_boxes(*composite.size, padding=padding)
    right = rights[0] if len(rights) == 1 else _without_strips(composite, left, rights)
    cut = [_shrink(box, inset) for box in (left, right)]
    return composite.crop(cut[0]), composite.crop(cut[1])


def panel_boxes(width: int, height: int, *, padding: int | None = None) -> tuple[Box, ...]:
    """Return the left panel's box and the places the right panel can have, the likelier first.

    Published composites are 1056x528: a strip of 8 pixels, a panel of 512, a strip of 8, a panel,
    and the rest. Others put a strip around each panel, which moves the right one by a strip.
    """
    strip = _padding(width, height) if padding is None else padding
    side = height - 2 * strip
    spare = width - 2 * side
    # Up to two strips beside each panel; without strips above and below, one strip between them.
    most_spare = 4 * strip if strip else height // _WIDEST_SHARE
    if side < _LEAST_SIDE or not 0 <= spare <= most_spare or strip * _WIDEST_SHARE > height:
        raise RefusedError(
            "bad_row",
            "composite must be two square panels side by side, with narrow strips around them, "
            f"got a picture of {width}x{height} pixels",
        )
    close = width - side if strip == 0 else min(side + 2 * strip, width - side)
    apart = width - strip - side
    starts = dict.fromkeys((close, max(apart, close)))
    boxes = [(start, strip, start + side, strip + side) for start in (strip, *starts)]
    return tuple(boxes)


def _padding(width: int, height: int) -> int:
    """Find the strips' width: two strips beside each panel, or three for both."""
    if width >= 2 * height:
        for padding in _PUBLISHED_PADDINGS:
            if height - 2 * padding in _PUBLISHED_SIDES:
                return padding
        return _USUAL_PADDING if width == 2 * height else 0
    return 2 * height - width


def _without_strips(composite: Image.Image, left: Box, rights: list[Box]) -> Box:
    """Choose the box with fewer columns of the frame's colour at its edges, else the first."""
    strip = left[1]
    colour = _frame_colour(_pixels(composite, (0, 0, composite.width, max(1, strip // 2))))
    if colour is None:
        return rights[0]

    def num_strips(box: Box) -> int:
        edges = ((box[0], box[0] + strip), (box[2] - strip, box[2]))
        columns = [_stray(_pixels(composite, (x0, box[1], x1, box[3])), colour) for x0, x1 in edges]
        return sum(int((stray_HW.mean(axis=0) <= _MOST_STRAY).sum()) for stray_HW in columns)

    return min(rights, key=num_strips)


def _frame_colour(rows_HWC: NDArray[np.int16]) -> NDArray[np.int16] | None:
    """Return the colour of the uppermost rows, None when they show something."""
    colour = np.median(rows_HWC, axis=(0, 1)).astype(np.int16)
    return colour if _stray(rows_HWC, colour).mean() <= _MOST_STRAY else None


def _stray(rgb_HWC: NDArray[np.int16], colour: NDArray[np.int16]) -> NDArray[np.bool_]:
    """Say of each pixel whether it has another colour."""
    is_other_HW: NDArray[np.bool_] = (np.abs(rgb_HWC - colour) > _SAME_COLOUR).any(axis=2)
    return is_other_HW


def _pixels(composite: Image.Image, box: Box) -> NDArray[np.int16]:
    return np.asarray(composite.crop(box).convert("RGB")).astype(np.int16)


def _shrink(box: Box, inset: int) -> Box:
    return (box[0] + inset, box[1] + inset, box[2] - inset, box[3] - inset)
