"""Square pictures that never cut the object."""

import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dreambooth3d.errors import ConfigError
from dreambooth3d.vision.matting import foreground_colours, lay_on
from dreambooth3d.vision.refusal import RefusedError

Colour: TypeAlias = tuple[int, int, int]
WHITE: Colour = (255, 255, 255)
# Alpha from which a pixel belongs to the object's box: soft edges must not be cut either.
_IN_BOX = 0.05
# Larger windows are first averaged down to this many times the wanted side.
_OVERSIZE = 2
_MOST_MARGIN = 0.45


@dataclass(frozen=True, kw_only=True)
class Box:
    """Pixels of a picture, `right` and `bottom` excluded; a window may reach beyond the picture."""

    left: int
    top: int
    right: int
    bottom: int

    def __post_init__(self) -> None:
        """Check that it holds a pixel."""
        if self.right <= self.left or self.bottom <= self.top:
            raise ConfigError(f"box must hold a pixel, got {self}; swap its corners")

    @property
    def width(self) -> int:
        """Columns."""
        return self.right - self.left

    @property
    def height(self) -> int:
        """Rows."""
        return self.bottom - self.top

    def holds(self, other: "Box") -> bool:
        """Say whether every pixel of `other` is in this box."""
        return (
            self.left <= other.left
            and self.top <= other.top
            and self.right >= other.right
            and self.bottom >= other.bottom
        )


@dataclass(frozen=True, kw_only=True)
class FramedObject:
    """An object alone in a square.

    Attributes:
        image: RGB (side, side).
        alpha_HW: of the object in `image`, 0 to 1.
        window: what of the source picture is shown.
    """

    image: Image.Image
    alpha_HW: NDArray[np.float32]
    window: Box


@dataclass(frozen=True, kw_only=True)
class SquareTarget:
    """A scene in a square.

    Attributes:
        image: RGB (side, side).
        mask_HW: of the object in `image`; None where it was not known.
        window: what of the source picture is shown.
    """

    image: Image.Image
    mask_HW: NDArray[np.bool_] | None
    window: Box


def object_box(alpha_HW: NDArray[np.float32] | NDArray[np.bool_]) -> Box:
    """Return the smallest box around an object, soft edges included.

    Raises:
        RefusedError: `no_object`: alpha is nowhere above 0.05.
    """
    is_inside = np.asarray(alpha_HW, dtype=np.float32) > _IN_BOX
    rows, columns = np.flatnonzero(is_inside.any(axis=1)), np.flatnonzero(is_inside.any(axis=0))
    if len(rows) == 0:
        raise RefusedError(
            "no_object", "mask must show an object, got an empty one; give another mask"
        )
    return Box(
        left=int(columns[0]), top=int(rows[0]), right=int(columns[-1]) + 1, bottom=int(rows[-1]) + 1
    )


def frame_object(
    image: Image.Image,
    alpha_HW: NDArray[np.float32],
    side: int,
    margin: float,
    background: Colour = WHITE,
) -> FramedObject:
    """Put the object alone in the middle of a square; what the picture lacks is background.

    Args:
        image: RGB: what shows through at the object's edge is taken out of its colours. RGBA:
            colours are the object's own already.
        alpha_HW: of the object, 0 to 1, of the picture's size.
        side: of the result, in pixels.
        margin: free share of the side on each of the two sides the object comes closest to.
        background: RGB.

    Raises:
        RefusedError: `no_object`: the mask is empty.
    """
    _require_size(image, alpha_HW, side)
    if not 0 <= margin <= _MOST_MARGIN:
        raise ConfigError(f"margin must be 0 to {_MOST_MARGIN}, got {margin}; use 0.1")
    window = _window_around(object_box(alpha_HW), margin)
    inner = min(window.width, _OVERSIZE * side)
    alpha = Image.fromarray(np.asarray(alpha_HW, dtype=np.float32))
    near_alpha = _alpha_of(_shown(alpha, window, inner, 0, Image.Resampling.BOX))
    near = _shown(image.convert("RGB"), window, inner, background, Image.Resampling.BOX)
    colours = np.asarray(near)
    if "A" not in image.getbands():
        colours = foreground_colours(colours, near_alpha)
    laid = Image.fromarray(lay_on(colours, near_alpha, background))
    last = (side, side)
    return FramedObject(
        image=laid.resize(last, Image.Resampling.LANCZOS),
        alpha_HW=_alpha_of(Image.fromarray(near_alpha).resize(last, Image.Resampling.LANCZOS)),
        window=window,
    )


def square_target(image: Image.Image, side: int, mask_HW: NDArray[np.bool_] | None) -> SquareTarget:
    """Make a scene square: cropped where a square holds the object, else on a white square.

    Args:
        image: RGB; transparency is laid on white.
        side: of the result, in pixels.
        mask_HW: of the object, of the picture's size; None where it is not known: then nothing
            is cropped, for the object might be.
    """
    if mask_HW is not None:
        _require_size(image, mask_HW, side)
    window = _target_window(image.width, image.height, mask_HW)
    shown = _shown(on_white(image), window, side, WHITE, Image.Resampling.LANCZOS)
    if mask_HW is None:
        return SquareTarget(image=shown, mask_HW=None, window=window)
    mask = Image.fromarray(mask_HW.astype(np.float32))
    share = _alpha_of(_shown(mask, window, side, 0, Image.Resampling.BOX))
    return SquareTarget(image=shown, mask_HW=share >= 0.5, window=window)


def _window_around(box: Box, margin: float) -> Box:
    side = math.ceil(max(box.width, box.height) / (1 - 2 * margin))
    left = box.left - (side - box.width) // 2
    top = box.top - (side - box.height) // 2
    return Box(left=left, top=top, right=left + side, bottom=top + side)


def _target_window(width: int, height: int, mask_HW: NDArray[np.bool_] | None) -> Box:
    if mask_HW is not None and mask_HW.any():
        side, box = min(width, height), object_box(mask_HW)
        left = min(max((box.left + box.right - side) // 2, 0), width - side)
        top = min(max((box.top + box.bottom - side) // 2, 0), height - side)
        window = Box(left=left, top=top, right=left + side, bottom=top + side)
        if window.holds(box):
            return window
    side = max(width, height)
    left, top = -((side - width) // 2), -((side - height) // 2)
    return Box(left=left, top=top, right=left + side, bottom=top + side)


def _shown(
    image: Image.Image, window: Box, side: int, fill: Colour | int, resample: Image.Resampling
) -> Image.Image:
    """Show a window on a square of `side` pixels; beyond the picture lies `fill`."""
    canvas = Image.new(image.mode, (side, side), fill)
    seen = Box(
        left=max(window.left, 0),
        top=max(window.top, 0),
        right=min(window.right, image.width),
        bottom=min(window.bottom, image.height),
    )
    scale = side / window.width
    left, right = _scaled(seen.left - window.left, seen.right - window.left, scale)
    top, bottom = _scaled(seen.top - window.top, seen.bottom - window.top, scale)
    box = (seen.left, seen.top, seen.right, seen.bottom)
    canvas.paste(image.resize((right - left, bottom - top), resample, box=box), (left, top))
    return canvas


def _scaled(start: int, end: int, scale: float) -> tuple[int, int]:
    first, last = round(start * scale), round(end * scale)
    # A sliver keeps one pixel, inside the square.
    return (first, last) if last > first else (max(last - 1, 0), max(last, 1))


def _alpha_of(image: Image.Image) -> NDArray[np.float32]:
    # Lanczos overshoots.
    return np.clip(np.asarray(image, dtype=np.float32), 0, 1)


def on_white(image: Image.Image) -> Image.Image:
    """Return the picture in RGB, with transparency laid on white."""
    if "A" not in image.getbands():
        return image.convert("RGB")
    page = Image.new("RGB", image.size, WHITE)
    page.paste(image, mask=image.getchannel("A"))
    return page


def _require_size(
    image: Image.Image, mask_HW: NDArray[np.float32] | NDArray[np.bool_], side: int
) -> None:
    if side < 1:
        raise ConfigError(f"side must be at least 1 pixel, got {side}; use 512")
    if mask_HW.shape != (image.height, image.width):
        raise ConfigError(
            f"mask must have the picture's size {(image.height, image.width)}, "
            f"got {mask_HW.shape}; resize it"
        )
