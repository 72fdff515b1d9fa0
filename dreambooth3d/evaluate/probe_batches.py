"""Batches the probe learns from: clip windows and single frames, mildly disturbed.

Everything drawn is a function of seed and step, so a stopped training goes on as it would have.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from dreambooth3d.evaluate.config import ProbeConfig
from dreambooth3d.evaluate.probe import MASK_SIDE, OPPOSITE, to_pictures
from dreambooth3d.evaluate.probe_pool import LABELS, MASK_FULL, Bytes, Kind, ProbePool

_MOTION_COLUMN = LABELS.index("motion")
_ORDER, _DRAWS = 1, 2
_NOISE, _BLUR, _BRIGHTNESS, _CONTRAST = 0.06, 0.9, 0.08, 0.1
_BLUR_KERNEL = (0.25, 0.5, 0.25)


@dataclass(frozen=True, kw_only=True, eq=False)
class ProbeBatch:
    """One update's data: the pictures of N clip windows, frame by frame, then single pictures.

    Attributes:
        pictures_BCHW: B = N x window + images, in -1..1.
        masks_BHW: share of each cell that shows the subject, (B, 32, 32).
        labels_BL: places of class, colour and background in the lists of names, (B, 3).
        motions_N: motions of the windows.
    """

    pictures_BCHW: Tensor
    masks_BHW: Tensor
    labels_BL: Tensor
    motions_N: Tensor


@dataclass(frozen=True, kw_only=True)
class Windows:
    """Windows of clips: pixels (N, F, H, W, 3), masks (N, F, H/2, W/2), motions (N,)."""

    pixels: Bytes
    masks: Bytes
    motions: NDArray[np.int64]


def turn_over(
    windows: Windows, *, is_mirrored: NDArray[np.bool_], is_reversed: NDArray[np.bool_]
) -> Windows:
    """Mirror and reverse some clips; one of the two alone swaps left and right."""
    pixels, masks = windows.pixels.copy(), windows.masks.copy()
    for content in (pixels, masks):
        content[is_mirrored] = content[is_mirrored][:, :, :, ::-1]
        content[is_reversed] = content[is_reversed][:, ::-1]
    is_swapped = is_mirrored != is_reversed
    motions = np.where(is_swapped, np.array(OPPOSITE)[windows.motions], windows.motions)
    return Windows(pixels=pixels, masks=masks, motions=motions)


def draw_batch(pool: ProbePool, config: ProbeConfig, step: int) -> ProbeBatch:
    """Draw the batch of one step."""
    rng = np.random.default_rng((config.seed, _DRAWS, step))
    clips, clip_labels = _draw(pool, config, "clip", step, rng)
    images, image_labels = _draw(pool, config, "image", step, rng)
    pixels = [part.pixels.reshape(-1, *part.pixels.shape[2:]) for part in (clips, images)]
    masks = [part.masks.reshape(-1, *part.masks.shape[2:]) for part in (clips, images)]
    labels = np.concatenate((clip_labels.repeat(config.window, axis=0), image_labels))
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    lengths = torch.tensor([config.window] * len(clip_labels) + [1] * len(image_labels))
    pictures = to_pictures(np.concatenate(pixels))
    return ProbeBatch(
        pictures_BCHW=disturb(pictures, lengths, generator),
        masks_BHW=_mask_targets(np.concatenate(masks)),
        labels_BL=torch.from_numpy(labels[:, :_MOTION_COLUMN]),
        motions_N=torch.from_numpy(clips.motions),
    )


def _draw(
    pool: ProbePool, config: ProbeConfig, kind: Kind, step: int, rng: np.random.Generator
) -> tuple[Windows, NDArray[np.int64]]:
    is_clip = kind == "clip"
    count = config.batch_clips if is_clip else config.batch_images
    length = config.window if is_clip else 1
    rows = _rows(pool.size_of(kind), step * count, count, (config.seed, _ORDER, is_clip))
    starts = rng.integers(config.num_frames - length + 1 if is_clip else 1, size=count)
    pixels, masks, labels = pool.take(kind, rows, starts, length)
    windows = Windows(pixels=pixels, masks=masks, motions=labels[:, _MOTION_COLUMN])
    turned = turn_over(
        windows,
        is_mirrored=rng.random(count) < 0.5,
        is_reversed=(rng.random(count) < 0.5) & is_clip,
    )
    return turned, labels


def _rows(size: int, first: int, count: int, key: tuple[int, ...]) -> NDArray[np.int64]:
    """Rows at places `first`... of an endless row of permutations: each scene once an epoch."""
    places = np.arange(first, first + count)
    orders = {
        int(epoch): np.random.default_rng((*key, int(epoch))).permutation(size)
        for epoch in np.unique(places // size)
    }
    return np.array([orders[place // size][place % size] for place in places.tolist()])


def disturb(pictures_BCHW: Tensor, lengths_N: Tensor, generator: torch.Generator) -> Tensor:
    """Blur, noise, brightness and contrast, the same for all frames of a sample.

    Args:
        pictures_BCHW: in -1..1.
        lengths_N: frames of each sample, which sum to B.
        generator: of the draws.
    """

    def draw(low: float, high: float) -> Tensor:
        values = torch.rand(len(lengths_N), generator=generator) * (high - low) + low
        return values.repeat_interleave(lengths_N).view(-1, 1, 1, 1)

    # Half of the samples stay sharp.
    blur = draw(-_BLUR, _BLUR).clamp(min=0)
    kernel = torch.tensor(_BLUR_KERNEL)
    weight = (kernel[:, None] * kernel).expand(3, 1, 3, 3)
    padded = F.pad(pictures_BCHW, (1, 1, 1, 1), mode="replicate")
    x = torch.lerp(pictures_BCHW, F.conv2d(padded, weight, groups=3), blur)
    x = x * draw(1 - _CONTRAST, 1 + _CONTRAST) + draw(-_BRIGHTNESS, _BRIGHTNESS)
    noise = torch.randn(x.shape, generator=generator)
    return (x + noise * draw(-_NOISE, _NOISE).clamp(min=0)).clamp(-1, 1)


def _mask_targets(masks_BHW: Bytes) -> Tensor:
    targets = torch.from_numpy(masks_BHW).float()[:, None] / MASK_FULL
    return F.interpolate(targets, size=(MASK_SIDE, MASK_SIDE), mode="area")[:, 0]
