"""Where the object probably is: a prior for cutting it out, from four independent cues.

An object differs in colour from all four borders, is walled off from them, makes an image
classifier answer, and is seldom in a corner. Each cue alone fails on ordinary photos (a house on
the horizon is walled off, too); their product seldom does.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from dreambooth3d.vision.efficientnet import load_efficientnet
from dreambooth3d.vision.threads import one_thread

Pixels = NDArray[np.uint8]
Map = NDArray[np.float32]

# Long side on which colours are compared; finer grids find texture, not objects.
_GRID = 64
_BORDER_SHARE = 0.1
# Added to a border's colour covariance (L in 0..100, a and b): below that all is the same colour.
_COLOUR_NOISE = 20.0
_SWEEPS = 3
_CENTRE_SPREAD = 0.3
# What a map's top 2 % reach counts as certain.
_TOP = 0.98
# A cue that says no at all leaves this share to the others.
_SEMANTIC_FLOOR, _COLOUR_FLOOR = 0.15, 0.1
# Border places a place is compared with: the most alike, for a background has several parts.
_NEIGHBOURS = 8


@dataclass(frozen=True, kw_only=True, eq=False)
class Sight:
    """What is seen of a picture at first.

    Attributes:
        prior_HW: how likely each pixel of the halved picture is part of the object, 0 to 255.
        features_CHW: the classifier's, of shapes and textures, a place for 8 x 8 pixels; each of
            its two maps has mean 0 and variance 1 in all.
    """

    prior_HW: Pixels
    features_CHW: Tensor


def look_at(pixels_HWC: Pixels) -> Sight:
    """Guess where the object is.

    Args:
        pixels_HWC: RGB; about 576 pixels a side. The classifier sees them all, and half of them:
            parts of things in the large picture, whole things in the small one.
    """
    height, width = pixels_HWC.shape[0] // 2, pixels_HWC.shape[1] // 2
    halved = cv2.resize(pixels_HWC, (width, height), interpolation=cv2.INTER_AREA).astype(np.uint8)
    grid = _on_grid(halved)
    colour = _normalised(_enlarged(barrier_distance(grid) + border_contrast(grid), height, width))
    large_maps = _feature_maps(pixels_HWC)
    cues = [*_semantic_cues(_feature_maps(halved)[-1]), *_semantic_cues(large_maps[-1])]
    semantic = _normalised(np.stack([_enlarged(cue, height, width) for cue in cues]).sum(axis=0))
    centre = centre_weight(height, width)
    product = (semantic + _SEMANTIC_FLOOR) * (colour + _COLOUR_FLOOR) * centre
    # Eight bits: what libraries round differently in the last digit is the same afterwards.
    prior_HW = np.rint(_normalised(product) * 255).astype(np.uint8)
    return Sight(prior_HW=prior_HW, features_CHW=_joined(*large_maps[:2]))


def barrier_distance(lab_HWC: Map) -> Map:
    """Measure the least colour range on any path from the border, (H, W), largest 1.

    The minimum barrier distance (Zhang et al. 2015, "Minimum barrier salient object detection at
    80 FPS"), its channels added; each sweep moves a whole row or column at a time.
    """
    high, low = lab_HWC.copy(), lab_HWC.copy()
    distance = np.full_like(lab_HWC, np.inf)
    distance[[0, -1]] = 0
    distance[:, [0, -1]] = 0
    layers = (lab_HWC, distance, high, low)
    flipped = tuple(layer.transpose(1, 0, 2) for layer in layers)
    for _ in range(_SWEEPS):
        for state in (layers, flipped):
            rows = len(state[0])
            _sweep(state, range(1, rows - 1), -1)
            _sweep(state, range(rows - 2, 0, -1), 1)
    total = distance.sum(axis=2)
    return np.asarray(total / max(float(total.max()), 1e-6), dtype=np.float32)


def border_contrast(lab_HWC: Map) -> Map:
    """Measure how far each colour is from those of the borders, (H, W), largest 1.

    Mahalanobis distances to four strips; the most distant strip is left out, so that an object
    that reaches one side still differs from the others.
    """
    distances = np.stack([_strip_distance(lab_HWC, strip) for strip in _strips(lab_HWC)])
    distances /= np.maximum(distances.max(axis=(1, 2), keepdims=True), 1e-6)
    total = distances.sum(axis=0) - distances.max(axis=0)
    return np.asarray(total / max(float(total.max()), 1e-6), dtype=np.float32)


def centre_weight(height: int, width: int) -> Map:
    """Return a bell over the middle, (H, W), largest 1."""
    y = (np.arange(height) + 0.5) / height - 0.5
    x = (np.arange(width) + 0.5) / width - 0.5
    squared = (y**2)[:, None] + (x**2)[None]
    return np.exp(-squared / (2 * _CENTRE_SPREAD**2)).astype(np.float32)


def _on_grid(pixels_HWC: Pixels) -> Map:
    height, width = pixels_HWC.shape[:2]
    scale = _GRID / max(height, width)
    size = (max(8, round(width * scale)), max(8, round(height * scale)))
    small = cv2.resize(pixels_HWC, size, interpolation=cv2.INTER_AREA)
    lab = cv2.cvtColor(small.astype(np.float32) / 255, cv2.COLOR_RGB2Lab)
    return np.asarray(lab, dtype=np.float32)


def _sweep(state: tuple[Map, ...], order: range, step: int) -> None:
    """Let paths grow by one row, from the neighbour at `step`, all columns at once."""
    colour, distance, high, low = state
    for row in order:
        raised = np.maximum(high[row + step], colour[row])
        lowered = np.minimum(low[row + step], colour[row])
        barrier = raised - lowered
        is_better = barrier < distance[row]
        # The border itself stays the start of all paths.
        is_better[[0, -1]] = False
        np.copyto(distance[row], barrier, where=is_better)
        np.copyto(high[row], raised, where=is_better)
        np.copyto(low[row], lowered, where=is_better)


def _strips(lab_HWC: Map) -> tuple[Map, ...]:
    height, width = lab_HWC.shape[:2]
    deep = max(2, round(_BORDER_SHARE * height))
    wide = max(2, round(_BORDER_SHARE * width))
    strips = (lab_HWC[:deep], lab_HWC[-deep:], lab_HWC[:, :wide], lab_HWC[:, -wide:])
    return tuple(strip.reshape(-1, 3) for strip in strips)


def _strip_distance(lab_HWC: Map, strip_NC: Map) -> Map:
    middle = strip_NC.mean(axis=0)
    apart = strip_NC - middle
    # Written out: a matrix product may add in another order with another number of threads.
    covariance = (apart[:, :, None] * apart[:, None, :]).mean(axis=0) + np.eye(3) * _COLOUR_NOISE
    inverse = np.linalg.inv(covariance)
    delta = lab_HWC - middle
    squared = sum(delta[..., i] * delta[..., j] * inverse[i, j] for i in range(3) for j in range(3))
    return np.asarray(np.sqrt(np.maximum(squared, 0)), dtype=np.float32)


@one_thread()
@torch.no_grad()
def _feature_maps(pixels_HWC: Pixels) -> tuple[Tensor, Tensor, Tensor]:
    x_BCHW = torch.from_numpy(pixels_HWC.copy()).permute(2, 0, 1)[None].float()
    return load_efficientnet().feature_maps((x_BCHW - 127) / 128)


@one_thread()
@torch.no_grad()
def _semantic_cues(h_BCHW: Tensor) -> list[Map]:
    """Ask the classifier: class evidence, activity, and unlikeness to the border, (h, w) each."""
    activity = h_BCHW.sum(dim=1)[0]
    evidence = load_efficientnet().class_evidence(h_BCHW)[0]
    cues = (evidence, activity - activity.min(), _unlike_border(h_BCHW))
    return [cue.clamp(min=0).numpy() for cue in cues]


def _joined(fine_BCHW: Tensor, coarse_BCHW: Tensor) -> Tensor:
    """Put two maps on the finer one's grid, both equally loud."""
    size = fine_BCHW.shape[2:]
    coarse_BCHW = F.interpolate(coarse_BCHW, size=size, mode="bilinear", align_corners=False)
    maps = []
    for h_BCHW in (fine_BCHW, coarse_BCHW):
        apart = h_BCHW[0] - h_BCHW[0].mean(dim=(1, 2), keepdim=True)
        maps.append(apart / apart.square().mean(dim=(1, 2)).sum().clamp(min=1e-12).sqrt())
    return torch.cat(maps)


def _unlike_border(h_BCHW: Tensor) -> Tensor:
    """Compare each place with those at the border, (h, w): 0 where there are eight like it."""
    height, width = h_BCHW.shape[2:]
    h_CP = h_BCHW[0].flatten(1)
    h_CP = F.normalize(h_CP - h_CP.mean(dim=1, keepdim=True), dim=0)
    is_border = torch.ones(height, width, dtype=torch.bool)
    is_border[1:-1, 1:-1] = False
    alike = h_CP.T @ h_CP[:, is_border.flatten()]
    nearest = alike.topk(min(_NEIGHBOURS, alike.shape[1]), dim=1).values.mean(dim=1)
    return (nearest.max() - nearest).view(height, width)


def _enlarged(cue: Map, height: int, width: int) -> Map:
    large = cv2.resize(cue, (width, height), interpolation=cv2.INTER_CUBIC)
    return _normalised(np.maximum(np.asarray(large, dtype=np.float32), 0))


def _normalised(values: Map) -> Map:
    """Scale so that the top 2 % are 1; all zero stays zero."""
    top = max(float(np.quantile(values, _TOP)), 1e-6)
    return np.asarray(np.clip(values / np.float32(top), 0, 1), dtype=np.float32)
