"""Connected pieces and holes of a mask, and its surroundings."""

import cv2
import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Labels = NDArray[np.int32]


def label_pieces(mask_HW: Mask, *, connectivity: int = 8) -> tuple[Labels, NDArray[np.int64]]:
    """Number the pieces from 1, in an order that depends on the mask alone.

    Returns:
        The number of each pixel's piece (0 is background), and areas in pixels by number.
    """
    count, labels = cv2.connectedComponents(mask_HW.astype(np.uint8), connectivity=connectivity)
    labels_HW = np.asarray(labels, dtype=np.int32)
    return labels_HW, np.bincount(labels_HW.ravel(), minlength=count)


def holes_of(mask_HW: Mask) -> Mask:
    """Return the background that the mask encloses, (H, W); what reaches the border is none."""
    labels_HW, areas = label_pieces(~mask_HW, connectivity=4)
    is_open = np.zeros(len(areas), dtype=np.bool_)
    for edge in (labels_HW[0], labels_HW[-1], labels_HW[:, 0], labels_HW[:, -1]):
        is_open[edge] = True
    is_open[0] = True
    return ~is_open[labels_HW]


def sums_by_piece(
    labels_HW: Labels, values_HW: NDArray[np.generic], count: int
) -> NDArray[np.float64]:
    """Add up values over each piece, (count,)."""
    weights = values_HW.ravel().astype(np.float64)
    return np.bincount(labels_HW.ravel(), weights=weights, minlength=count).astype(np.float64)


def grown(mask_HW: Mask, radius: int) -> Mask:
    """Grow a mask by a square of `radius` pixels on each side."""
    square = np.ones((2 * radius + 1, 2 * radius + 1), dtype=np.uint8)
    return np.asarray(cv2.dilate(mask_HW.astype(np.uint8), square), dtype=np.bool_)
