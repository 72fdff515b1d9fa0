"""Pieces and holes of a mask that are the object's, judged by where it was expected."""

import cv2
import numpy as np
from numpy.typing import NDArray

from dreambooth3d.vision.pieces import Mask, holes_of, label_pieces, sums_by_piece

Prior = NDArray[np.uint8]

# Of the picture's side: never the object.
_FRAME_SHARE = 0.03
# Pieces with less than this share of the largest one's prior are dropped.
_PIECE_SHARE = 0.15
# Holes are filled that are tiny beside the object, or that the prior takes for the object.
_HOLE_SHARE, _HOLE_PRIOR = 0.005, 0.6


def tidied(mask_HW: Mask, prior_HW: Prior) -> Mask:
    """Keep the pieces that carry much of the prior, and fill holes that are no holes."""
    return _filled(_significant(mask_HW, prior_HW), prior_HW)


def otsu(prior_HW: Prior) -> float:
    """Return Otsu's threshold of a prior."""
    threshold, _ = cv2.threshold(prior_HW, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    return float(threshold)


def frame_of(height: int, width: int) -> Mask:
    """Return the outermost pixels, (H, W), which are never the object."""
    deep = max(1, round(_FRAME_SHARE * max(height, width)))
    frame_HW = np.ones((height, width), dtype=np.bool_)
    frame_HW[deep:-deep, deep:-deep] = False
    return frame_HW


def _significant(mask_HW: Mask, prior_HW: Prior) -> Mask:
    """Keep the pieces that carry much of the prior."""
    labels_HW, areas = label_pieces(mask_HW)
    weights = sums_by_piece(labels_HW, prior_HW, len(areas))
    weights[0] = 0
    return np.asarray((weights > _PIECE_SHARE * weights.max())[labels_HW], dtype=np.bool_)


def _filled(mask_HW: Mask, prior_HW: Prior) -> Mask:
    """Fill holes that are no holes of the object."""
    labels_HW, areas = label_pieces(holes_of(mask_HW), connectivity=4)
    means = sums_by_piece(labels_HW, prior_HW, len(areas)) / np.maximum(areas, 1)
    is_filled = areas < _HOLE_SHARE * mask_HW.sum()
    is_filled |= means > _HOLE_PRIOR * otsu(prior_HW)
    is_filled[0] = False
    return np.asarray(mask_HW | is_filled[labels_HW], dtype=np.bool_)
