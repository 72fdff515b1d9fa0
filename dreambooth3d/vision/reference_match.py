"""Find in a frame what references show, by the classifier's middle features and without a detector.

Places of a frame that look like places of the references, at some scale, are where the subject
probably is: hands that hold it and tables below it are no part of it, however salient. The box
around them is looked at again, larger, and the outline is a minimum cut between what has places and
colours of the references and what has those of the surroundings. Another subject's references get
the same chance: they find what is most like them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torch.nn import functional as F

from dreambooth3d.vision.efficientnet import load_efficientnet
from dreambooth3d.vision.mincut import divide
from dreambooth3d.vision.pieces import Mask, label_pieces, sums_by_piece
from dreambooth3d.vision.threads import one_thread
from dreambooth3d.vision.tidy import otsu, tidied

Pixels = NDArray[np.uint8]
Map = NDArray[np.float32]

GREY = 127
# Sides to which references are brought: a subject in a frame may be small or fill it.
_REFERENCE_SIDES = (96, 160, 256, 400)
# Long side of the first look, side of the second one, and what is around the subject there.
_FAR_SIDE, _NEAR_SIDE, _SURROUNDINGS = 640, 320, 1.5
_STRIDE = 16
# A place belongs to the subject with this share of its pixels in the mask.
_INSIDE = 0.6
# Reference places a frame place is compared with, and frame places that count as the best ones.
_NEIGHBOURS, _FAR_BEST, _NEAR_BEST = 5, 8, 16
# Of the similarities: below this quantile there is background.
_FAR_BASE, _NEAR_BASE = 0.5, 0.4
_SMOOTHING = 0.8
# Of Otsu's threshold: below this share there is surely background.
_NOTHING_BELOW = 0.55
# Of 255: below that no place is probably the subject.
_LEAST_LIKELY = 120.0
# What a border costs, what colours say beside places, and log ratios at which they are sure.
_STIFFNESS, _COLOUR_WEIGHT, _SURE_RATIO = 1.0, 1.0, 3.0
# Cells of Lab colour along each axis, their first value and width, and how far they reach.
_CELLS, _FIRST, _WIDTH, _SPREAD = (12, 24, 24), (0.0, -102.0, -102.0), (9.0, 8.5, 8.5), 0.8
_LEAST_DENSITY = 1e-5
# Prior that the box leaves out at each side, and its least side in pixels.
_BOX_TAIL, _LEAST_BOX = 0.01, 48
# Share of the near view below which a mask is no mask.
_LEAST_SHARE = 0.006
# What no evidence outweighs.
_NEVER = -5.0
_MARGIN = 0.02


@dataclass(frozen=True, kw_only=True, eq=False)
class Cutout:
    """A picture and what of it is the object.

    Attributes:
        pixels_HWC: square, `GREY` outside the mask.
        mask_HW: the object.
        share: of the frame's area that the object covers.
    """

    pixels_HWC: Pixels
    mask_HW: Mask
    share: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Look:
    """What references teach about places of the subject.

    Attributes:
        places_NC: unit vectors, of all references at all scales.
        colours: log density of the subject's Lab colours in cells.
    """

    places_NC: Tensor
    colours: NDArray[np.float64]


def cut_square(pixels_HWC: Pixels, mask_HW: Mask) -> Cutout:
    """Cut to the mask's box, squared, grey outside; an empty mask keeps the whole picture."""
    if not mask_HW.any():
        mask_HW = np.ones(pixels_HWC.shape[:2], dtype=np.bool_)
    rows, columns = np.flatnonzero(mask_HW.any(axis=1)), np.flatnonzero(mask_HW.any(axis=0))
    window = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    inside_HW = mask_HW[window]
    height, width = inside_HW.shape
    side = max(round(max(height, width) * (1 + 2 * _MARGIN)), height, width)
    top, left = (side - height) // 2, (side - width) // 2
    square = np.full((side, side, 3), GREY, dtype=np.uint8)
    mask = np.zeros((side, side), dtype=np.bool_)
    place = (slice(top, top + height), slice(left, left + width))
    square[place] = np.where(inside_HW[..., None], pixels_HWC[window], GREY)
    mask[place] = inside_HW
    return Cutout(pixels_HWC=square, mask_HW=mask, share=float(mask_HW.mean()))


@one_thread()
@torch.no_grad()
def learn_look(references: Sequence[Cutout]) -> Look:
    """Collect the places of references, at several scales."""
    found = []
    for cutout in references:
        for side in _REFERENCE_SIDES:
            middle_CHW = middle_map(resized(cutout.pixels_HWC, side, side))
            covered = covered_places(cutout.mask_HW, middle_CHW.shape[1], middle_CHW.shape[2])
            found.append(middle_CHW.flatten(1).T[covered])
    colours = [cells_of(cutout.pixels_HWC)[cutout.mask_HW] for cutout in references]
    return Look(places_NC=apart(torch.cat(found)), colours=_log_density(np.concatenate(colours)))


def find_subject(frame_HWC: Pixels, look: Look) -> Cutout:
    """Cut out of a frame what is most like the references."""
    square, mask_HW, _ = _found(frame_HWC, look)
    found = cut_square(square.pixels_HWC, mask_HW)
    share = float(mask_HW.sum()) / (frame_HWC.shape[0] * frame_HWC.shape[1])
    return Cutout(pixels_HWC=found.pixels_HWC, mask_HW=found.mask_HW, share=share)


def mask_subject(frame_HWC: Pixels, look: Look) -> Mask:
    """Say where in a frame is what is most like the references, (H, W)."""
    square, mask_HW, (top, left) = _found(frame_HWC, look)
    whole_HW = np.zeros(frame_HWC.shape[:2], dtype=np.bool_)
    rows, columns = np.nonzero(mask_HW & square.mask_HW)
    whole_HW[rows + top, columns + left] = True
    return whole_HW


@one_thread()
@torch.no_grad()
def _found(frame_HWC: Pixels, look: Look) -> tuple[Cutout, Mask, tuple[int, int]]:
    """Return a square around the subject, the subject in it, and the square's top and left."""
    square, corner = _near_square(frame_HWC, _far_box(frame_HWC, look))
    near = resized(square.pixels_HWC, _NEAR_SIDE, _NEAR_SIDE)
    similar_HW = similarity(near, look)
    is_frame_HW = _shrunk(square.mask_HW, *similar_HW.shape)
    similar_HW = np.where(is_frame_HW, similar_HW, similar_HW[is_frame_HW].min())
    half = _NEAR_SIDE // 2
    prior_HW = _prior(similar_HW, (half, half), _NEAR_BASE, _NEAR_BEST)
    is_outside_HW = ~_shrunk(square.mask_HW, half, half)
    small_HW = _outlined(resized(near, half, half), prior_HW, is_outside_HW, look)
    side = len(square.mask_HW)
    return square, resized(small_HW.astype(np.uint8), side, side) > 0, corner


def similarity(pixels_HWC: Pixels, look: Look) -> Map:
    """How like the subject each place is, (H / 16, W / 16), a cosine."""
    middle_CHW = middle_map(pixels_HWC)
    similar_PN = apart(middle_CHW.flatten(1).T) @ look.places_NC.T
    nearest = similar_PN.topk(min(_NEIGHBOURS, similar_PN.shape[1]), dim=1).values.mean(dim=1)
    return np.asarray(nearest.view(middle_CHW.shape[1:]).numpy(), dtype=np.float32)


def middle_map(pixels_HWC: Pixels) -> Tensor:
    """The classifier's map of 16 pixels a place, (112, H, W)."""
    return load_efficientnet().feature_maps(prepared(pixels_HWC))[1][0]


def prepared(pixels_HWC: Pixels) -> Tensor:
    """Pixels as the classifier takes them, (1, 3, H, W)."""
    x_BCHW = torch.from_numpy(np.ascontiguousarray(pixels_HWC)).permute(2, 0, 1)[None].float()
    return (x_BCHW - 127) / 128


def covered_places(mask_HW: Mask, height: int, width: int) -> Tensor:
    """Which places of a map are mostly the object, (height * width,); never none."""
    share = cv2.resize(
        mask_HW.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA
    ).ravel()
    limit = min(_INSIDE, float(share.max()))
    return torch.from_numpy(np.asarray(share >= limit))


def resized(pixels: Pixels, height: int, width: int) -> Pixels:
    """Scale a picture, by areas where it shrinks."""
    is_smaller = height * width < pixels.shape[0] * pixels.shape[1]
    mode = cv2.INTER_AREA if is_smaller else cv2.INTER_CUBIC
    if pixels.ndim == 2:
        mode = cv2.INTER_NEAREST
    return np.asarray(cv2.resize(pixels, (width, height), interpolation=mode), dtype=np.uint8)


def apart(places_NC: Tensor) -> Tensor:
    """Unit vectors of places, measured from ImageNet's mean place."""
    return F.normalize(places_NC - load_efficientnet().middle_mean(), dim=1)


def _far_box(frame_HWC: Pixels, look: Look) -> tuple[float, float, float, float]:
    """Return top, bottom, left and right of what is like the subject, in pixels of the frame."""
    height, width = frame_HWC.shape[:2]
    scale = _FAR_SIDE / max(height, width)
    size = [max(4, round(side * scale / _STRIDE)) * _STRIDE for side in (height, width)]
    similar_HW = similarity(resized(frame_HWC, *size), look)
    prior_HW = _prior(similar_HW, (size[0] // 2, size[1] // 2), _FAR_BASE, _FAR_BEST)
    mask_HW = _heaviest(prior_HW > _threshold(prior_HW), prior_HW)
    weights_HW = np.where(mask_HW, prior_HW, 0).astype(np.float64)
    bounds = []
    for axis, pixels in ((1, height), (0, width)):
        reached = np.cumsum(weights_HW.sum(axis=axis))
        tails = (_BOX_TAIL * reached[-1], (1 - _BOX_TAIL) * reached[-1])
        low, high = np.searchsorted(reached, tails)
        bounds += [low * pixels / len(reached), (high + 1) * pixels / len(reached)]
    return bounds[0], bounds[1], bounds[2], bounds[3]


def _near_square(
    frame_HWC: Pixels, box: tuple[float, float, float, float]
) -> tuple[Cutout, tuple[int, int]]:
    """Cut a square around a box; its mask says where there is a frame. And its top and left."""
    height, width = frame_HWC.shape[:2]
    top, bottom, left, right = box
    side = round(max(bottom - top, right - left, _LEAST_BOX) * _SURROUNDINGS)
    first, start = round((top + bottom - side) / 2), round((left + right - side) / 2)
    pixels = np.full((side, side, 3), GREY, dtype=np.uint8)
    mask = np.zeros((side, side), dtype=np.bool_)
    rows, columns = slice(max(0, first), first + side), slice(max(0, start), start + side)
    part = frame_HWC[rows, columns]
    place = (
        slice(rows.start - first, rows.start - first + part.shape[0]),
        slice(columns.start - start, columns.start - start + part.shape[1]),
    )
    pixels[place], mask[place] = part, True
    cutout = Cutout(pixels_HWC=pixels, mask_HW=mask, share=side * side / (height * width))
    return cutout, (first, start)


def _prior(similar_HW: Map, size: tuple[int, int], base: float, best: int) -> Pixels:
    """Scale similarities to 0..255 between the background's and the best places'."""
    low = float(np.quantile(similar_HW, base))
    high = float(np.sort(similar_HW.ravel())[-best:].mean())
    scaled = np.clip((similar_HW - low) / max(high - low, 1e-6), 0, 1).astype(np.float32)
    smooth = cv2.GaussianBlur(scaled, (0, 0), _SMOOTHING)
    large = cv2.resize(smooth, (size[1], size[0]), interpolation=cv2.INTER_CUBIC)
    top = max(float(np.quantile(large, 0.98)), 1e-6)
    return np.asarray(np.rint(np.clip(large / top, 0, 1) * 255), dtype=np.uint8)


def _outlined(pixels_HWC: Pixels, prior_HW: Pixels, is_outside_HW: Mask, look: Look) -> Mask:
    """Draw the outline along colours, from where the subject probably is."""
    threshold = _threshold(prior_HW)
    places_HW = np.clip(prior_HW / threshold - 1, -1, 1)
    cells_HWC = cells_of(pixels_HWC)
    around_HW = (prior_HW < threshold * _NOTHING_BELOW) & ~is_outside_HW
    behind = _log_density(cells_HWC[around_HW])
    ratio_HW = _looked_up(look.colours, cells_HWC) - _looked_up(behind, cells_HWC)
    colours_HW = np.clip(ratio_HW / _SURE_RATIO, -1, 1)
    evidence_HW = places_HW + _COLOUR_WEIGHT * colours_HW
    evidence_HW[is_outside_HW] = _NEVER
    cut_HW = divide(evidence_HW.astype(np.float32), pixels_HWC, _STIFFNESS)
    mask_HW = tidied(cut_HW, prior_HW)
    likely_HW = np.asarray((prior_HW > threshold) & ~is_outside_HW, dtype=np.bool_)
    return mask_HW if mask_HW.mean() > _LEAST_SHARE else likely_HW


def _threshold(prior_HW: Pixels) -> float:
    """Of what is probably the subject; where all is a little like it Otsu's alone is too low."""
    return max(otsu(prior_HW), _LEAST_LIKELY)


def _heaviest(mask_HW: Mask, prior_HW: Pixels) -> Mask:
    """Keep the piece that carries most of the prior."""
    labels_HW, areas = label_pieces(mask_HW)
    weights = sums_by_piece(labels_HW, prior_HW, len(areas))
    weights[0] = 0
    return np.asarray(labels_HW == int(weights.argmax()), dtype=np.bool_)


def cells_of(pixels_HWC: Pixels) -> NDArray[np.int64]:
    """Cells of Lab colours, (H, W, 3)."""
    lab_HWC = cv2.cvtColor(pixels_HWC.astype(np.float32) / 255, cv2.COLOR_RGB2Lab)
    cells_HWC = np.floor((lab_HWC - np.array(_FIRST)) / np.array(_WIDTH)).astype(np.int64)
    return np.asarray(np.clip(cells_HWC, 0, np.array(_CELLS) - 1))


def _log_density(cells_N3: NDArray[np.int64]) -> NDArray[np.float64]:
    counts = np.zeros(_CELLS)
    np.add.at(counts, tuple(cells_N3.T), 1)
    smooth = gaussian_filter(counts, _SPREAD, mode="constant")
    return np.asarray(np.log(smooth / max(len(cells_N3), 1) + _LEAST_DENSITY))


def _looked_up(density: NDArray[np.float64], cells_HWC: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.asarray(density[tuple(cells_HWC.transpose(2, 0, 1))])


def _shrunk(mask_HW: Mask, height: int, width: int) -> Mask:
    return resized(mask_HW.astype(np.uint8), height, width) > 0
