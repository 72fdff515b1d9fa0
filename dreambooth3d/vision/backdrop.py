"""Objects on one plain colour (a shop's photo, a render): everything else is the object."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dreambooth3d.vision.matting import soften
from dreambooth3d.vision.pieces import Mask, label_pieces
from dreambooth3d.vision.refusal import RefusedError

# Share of the sides that is looked at, and what of it must be within so many steps of 255.
_STRIP_SHARE, _PLAIN_SHARE = 0.02, 0.97
_TOLERANCE = 12
# Pieces below this share of the largest are dust.
_DUST_SHARE = 0.01
# A mask that fills its own box and much of the picture is a photo in a frame, no object.
_FRAMED_FILL, _FRAMED_SHARE = 0.97, 0.3


def cut_from_backdrop(image: Image.Image) -> NDArray[np.float32]:
    """Return the alpha of what differs from the border's colour, (H, W), 0 to 1.

    What the object encloses is part of it, for a white shoe on white has no other way to be whole.

    Raises:
        RefusedError: `no_object`: the border has several colours, or there is nothing inside.
    """
    opaque = image.convert("RGB")
    mask = _different(np.asarray(opaque))
    if mask is None:
        raise RefusedError(
            "no_object",
            "picture must have an object on a backdrop of one colour, got something else; "
            "choose another segmentation",
        )
    return soften(mask, opaque)


def has_plain_backdrop(image: Image.Image) -> bool:
    """Say whether `cut_from_backdrop` finds an object."""
    return _different(np.asarray(image.convert("RGB"))) is not None


def _different(pixels_HWC: NDArray[np.uint8]) -> Mask | None:
    strip_NC = _strip(pixels_HWC)
    colour = np.median(strip_NC, axis=0).astype(np.int16)
    if _is_near(strip_NC, colour).mean() < _PLAIN_SHARE:
        return None
    labels_HW, _ = label_pieces(_is_near(pixels_HWC, colour), connectivity=4)
    edges = (labels_HW[0], labels_HW[-1], labels_HW[:, 0], labels_HW[:, -1])
    reaches_border = np.zeros(labels_HW.max() + 1, dtype=np.bool_)
    reaches_border[np.concatenate(edges)] = True
    reaches_border[0] = False
    mask = _without_dust(~reaches_border[labels_HW])
    return None if not mask.any() or _is_framed_photo(mask) else mask


def _strip(pixels_HWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
    deep = max(2, round(_STRIP_SHARE * max(pixels_HWC.shape[:2])))
    sides = (pixels_HWC[:deep], pixels_HWC[-deep:], pixels_HWC[:, :deep], pixels_HWC[:, -deep:])
    return np.concatenate([side.reshape(-1, 3) for side in sides])


def _is_near(pixels: NDArray[np.uint8], colour: NDArray[np.int16]) -> Mask:
    apart = np.abs(pixels.astype(np.int16) - colour)
    return np.asarray(apart.max(axis=-1) <= _TOLERANCE, dtype=np.bool_)


def _without_dust(mask_HW: Mask) -> Mask:
    labels_HW, areas = label_pieces(mask_HW)
    areas[0] = 0
    return np.asarray((areas > _DUST_SHARE * areas.max())[labels_HW] & mask_HW, dtype=np.bool_)


def _is_framed_photo(mask_HW: Mask) -> bool:
    rows, columns = np.flatnonzero(mask_HW.any(axis=1)), np.flatnonzero(mask_HW.any(axis=0))
    area = int(rows[-1] - rows[0] + 1) * int(columns[-1] - columns[0] + 1)
    return area > _FRAMED_SHARE * mask_HW.size and mask_HW.sum() > _FRAMED_FILL * area
