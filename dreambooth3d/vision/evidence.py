"""Two witnesses that say of each pixel whether it is like the object or like the background.

Both learn from a first mask of the same picture. One knows colours alone, the other shapes and
textures alone: where the object has the background's colours, only the second can see it, and
where a border runs, only the first knows exactly.
"""

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from dreambooth3d.vision.pieces import Mask
from dreambooth3d.vision.threads import one_thread

Map = NDArray[np.float32]
Pixels = NDArray[np.uint8]

# Of the features' variance: what a direction has less than that is not listened to.
_RIDGE = 0.02
# Log likelihood ratio of colours at which a pixel is as sure as it gets.
_SURE_RATIO = 4.0
# Added to the variance of colour clusters, in squared steps of 255, and to their density.
_CLUSTER_NOISE, _LEAST_DENSITY = 4.0, 1e-9
_CLUSTERS = 5
_SEED = 1


@one_thread()
def feature_evidence(features_CHW: Tensor, mask_HW: Mask, is_unknown_HW: Mask) -> Map:
    """Tell object from background by a network's features and by place, (H, W), about -1 to 1.

    Ridge regression on the sides of the mask, each with the same weight.

    Args:
        features_CHW: on a grid coarser than the mask.
        mask_HW: the object, as far as it is known.
        is_unknown_HW: what may be either and teaches nothing.
    """
    channels, height, width = features_CHW.shape
    is_object = _averaged(mask_HW & ~is_unknown_HW, width, height)
    is_other = _averaged(~mask_HW & ~is_unknown_HW, width, height)
    sides = [torch.from_numpy(side.ravel()).double() for side in (is_object, is_other)]
    weights = [side / side.sum().clamp(min=1e-6) for side in sides]
    x_PC = torch.cat([features_CHW.double().view(channels, -1).T, _places(height, width)], dim=1)
    weight_P = weights[0] + weights[1]
    gram_CC = x_PC.T @ (x_PC * weight_P[:, None])
    gram_CC += _RIDGE * weight_P.sum() * torch.eye(len(gram_CC), dtype=torch.float64)
    slope_C = torch.linalg.solve(gram_CC, x_PC.T @ (weights[0] - weights[1]))
    coarse_HW = (x_PC @ slope_C).view(1, 1, height, width).float()
    size = mask_HW.shape
    fine = F.interpolate(coarse_HW, size=size, mode="bilinear", align_corners=False)
    return np.asarray(fine[0, 0].clamp(-1, 1).numpy(), dtype=np.float32)


def colour_evidence(pixels_HWC: Pixels, mask_HW: Mask) -> Map:
    """Tell object from background by the colours on the two sides of a mask, (H, W), -1 to 1."""
    if not mask_HW.any() or mask_HW.all():
        return np.where(mask_HW, 1, -1).astype(np.float32)
    labels = np.where(mask_HW, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    behind, front = np.zeros((1, 65)), np.zeros((1, 65))
    # The colour clusters start at random.
    cv2.setRNGSeed(_SEED)
    mode = cv2.GC_INIT_WITH_MASK
    cv2.grabCut(pixels_HWC, labels, (0, 0, 0, 0), behind, front, 1, mode)
    ratio_HW = _log_density(front[0], pixels_HWC) - _log_density(behind[0], pixels_HWC)
    return (np.clip(ratio_HW, -_SURE_RATIO, _SURE_RATIO) / _SURE_RATIO).astype(np.float32)


def _averaged(mask_HW: Mask, width: int, height: int) -> Map:
    size = (width, height)
    return np.asarray(cv2.resize(mask_HW.astype(np.float32), size, interpolation=cv2.INTER_AREA))


def _places(height: int, width: int) -> Tensor:
    """Place and its square, about as spread as the features, and 1: (P, 6)."""
    y = torch.linspace(-1.5, 1.5, height, dtype=torch.float64)[:, None].expand(height, width)
    x = torch.linspace(-1.5, 1.5, width, dtype=torch.float64)[None].expand(height, width)
    columns = (x, y, x * x, y * y, x * y, torch.ones_like(x))
    return torch.stack([column.reshape(-1) for column in columns], dim=1)


def _log_density(model_N: NDArray[np.float64], pixels_HWC: Pixels) -> NDArray[np.float64]:
    """Log density of each pixel in GrabCut's mixture of five normal distributions."""
    shares, middles = model_N[:_CLUSTERS], model_N[_CLUSTERS : 4 * _CLUSTERS].reshape(-1, 3)
    covariances = model_N[4 * _CLUSTERS :].reshape(-1, 3, 3)
    density_HW = np.full(pixels_HWC.shape[:2], _LEAST_DENSITY)
    for share, middle, covariance in zip(shares, middles, covariances, strict=True):
        wide = covariance + np.eye(3) * _CLUSTER_NOISE
        apart = pixels_HWC - middle
        inverse = np.linalg.inv(wide)
        far_HW = sum(
            apart[..., i] * apart[..., j] * inverse[i, j] for i in range(3) for j in range(3)
        )
        density_HW += share / np.sqrt(np.linalg.det(wide)) * np.exp(-0.5 * np.asarray(far_HW))
    return np.asarray(np.log(density_HW), dtype=np.float64)
