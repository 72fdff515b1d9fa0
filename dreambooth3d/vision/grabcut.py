"""Cut out the object of a photo without asking anyone: GrabCut started from a prior.

Rother et al. 2004, "GrabCut", as OpenCV has it. A person's rectangle is replaced by where the
object probably is (`saliency`). Parts in the background's own colours (black wheels in their
shadow, a steel lid before gray) are lost at first; a network's features bring many of them back
(`evidence`), and where they contradict the colours the photo is refused (`consensus`).
"""

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dreambooth3d.vision.consensus import LEAST_AGREEMENT, agree
from dreambooth3d.vision.matting import soften
from dreambooth3d.vision.pieces import Mask
from dreambooth3d.vision.refusal import UncertainCutError
from dreambooth3d.vision.saliency import Pixels, look_at
from dreambooth3d.vision.standout import require_standout
from dreambooth3d.vision.tidy import frame_of, otsu, tidied

# Long sides: on which the prior is made, the object is found, and its outline is drawn. Found on
# more pixels, texture takes over (mean overlap with good masks 0.91 at 224, 0.90 at 320).
_PRIOR_SIDE, _COARSE_SIDE, _FINE_SIDE = 576, 224, 416
_COARSE_ITERATIONS, _FINE_ITERATIONS = 2, 1
_SEED = 1
# Of Otsu's threshold of the prior: above the first an object is assumed, below the second none.
_OBJECT_FROM, _NOTHING_BELOW = 0.8, 0.24
# How far, in coarse pixels, the outline may still move, and what is looked at around it.
_BAND, _BAND_MARGIN = 3, 6


def cut_by_grabcut(image: Image.Image) -> NDArray[np.float32]:
    """Return the alpha of the object, (H, W), 0 to 1.

    Raises:
        RefusedError: `no_object`: nothing stands out from its surroundings.
        UncertainCutError: something does, but where it ends is uncertain.
    """
    cv2.setNumThreads(1)
    opaque = image.convert("RGB")
    sight = look_at(_copy(opaque, _PRIOR_SIDE))
    pixels = _copy(opaque, _COARSE_SIDE)
    size = (pixels.shape[1], pixels.shape[0])
    prior = np.asarray(cv2.resize(sight.prior_HW, size, interpolation=cv2.INTER_AREA), np.uint8)
    first = tidied(cut_from_labels(pixels, _first_labels(prior), _COARSE_ITERATIONS), prior)
    require_standout(first, pixels, prior)
    found = agree(first, prior, pixels, sight.features_CHW)
    require_standout(found.mask_HW, pixels, prior)
    alpha_HW = soften(_redrawn(found.mask_HW, _copy(opaque, _FINE_SIDE)), opaque)
    if not found.is_certain:
        raise UncertainCutError(_doubt(found.agreement), alpha_HW)
    return alpha_HW


def _doubt(agreement: float) -> str:
    return (
        "photo must show which pixels are the object: its colours and its shapes must agree on "
        f"{LEAST_AGREEMENT} of it, got {agreement:.2f}; take it on a plain ground, give its mask "
        "or alpha, or choose birefnet"
    )


def _copy(image: Image.Image, side: int) -> Pixels:
    """Scale to a long side, (H, W, 3)."""
    scale = side / max(image.size)
    size = (max(32, round(image.width * scale)), max(32, round(image.height * scale)))
    resample = Image.Resampling.BOX if scale < 1 else Image.Resampling.BICUBIC
    return np.asarray(image.resize(size, resample))


def cut_from_labels(pixels_HWC: Pixels, labels_HW: Pixels, iterations: int) -> Mask:
    """Run GrabCut from labels of every pixel; no object where none is assumed."""
    labels = labels_HW.copy()
    if not (labels == cv2.GC_PR_FGD).any():
        return np.zeros(labels.shape, dtype=np.bool_)
    # The colour clusters start at random.
    cv2.setRNGSeed(_SEED)
    background, foreground = np.zeros((1, 65)), np.zeros((1, 65))
    nowhere = (0, 0, 0, 0)
    mode = cv2.GC_INIT_WITH_MASK
    cv2.grabCut(pixels_HWC, labels, nowhere, background, foreground, iterations, mode)
    return np.asarray((labels == cv2.GC_PR_FGD) | (labels == cv2.GC_FGD), dtype=np.bool_)


def _first_labels(prior_HW: Pixels) -> Pixels:
    threshold = otsu(prior_HW)
    labels = np.full(prior_HW.shape, cv2.GC_PR_BGD, dtype=np.uint8)
    labels[prior_HW > threshold * _OBJECT_FROM] = cv2.GC_PR_FGD
    labels[prior_HW < threshold * _NOTHING_BELOW] = cv2.GC_BGD
    labels[frame_of(*prior_HW.shape)] = cv2.GC_BGD
    return labels


def _redrawn(mask_HW: Mask, pixels_HWC: Pixels) -> Mask:
    """Draw the outline again on more pixels, near the old one."""
    size = (pixels_HWC.shape[1], pixels_HWC.shape[0])
    labels = np.where(_scaled(mask_HW, size), cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * _BAND + 1, 2 * _BAND + 1))
    whole = mask_HW.astype(np.uint8)
    labels[_scaled(cv2.erode(whole, disc) > 0, size)] = cv2.GC_FGD
    near = _scaled(cv2.dilate(whole, disc) > 0, size)
    labels[~near] = cv2.GC_BGD
    window = _window(near, round(_BAND_MARGIN * _FINE_SIDE / _COARSE_SIDE))
    drawn = np.zeros(labels.shape, dtype=np.bool_)
    drawn[window] = cut_from_labels(
        np.ascontiguousarray(pixels_HWC[window]), labels[window], _FINE_ITERATIONS
    )
    return drawn


def _scaled(mask_HW: Mask, size: tuple[int, int]) -> Mask:
    large = cv2.resize(mask_HW.astype(np.float32), size, interpolation=cv2.INTER_LINEAR)
    return np.asarray(large > 0.5, dtype=np.bool_)


def _window(mask_HW: Mask, margin: int) -> tuple[slice, slice]:
    """Return the rows and columns of the mask, and some around it."""
    rows, columns = np.nonzero(mask_HW)
    top, left = max(0, rows.min() - margin), max(0, columns.min() - margin)
    return slice(top, rows.max() + 1 + margin), slice(left, columns.max() + 1 + margin)
