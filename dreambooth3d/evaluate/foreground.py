"""Cut the subject out of frames of the embedded world, as its views on white show it."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dreambooth3d.evaluate.probe import Probe, subject_masks
from dreambooth3d.vision.object_embedding import cut_to_object

Frames = NDArray[np.uint8]


def cut_out(probe: Probe, frames_FHWC: Frames) -> list[Frames]:
    """Squares around the subject on white, one a frame; a frame without a subject stays whole."""
    return cut_by_masks(frames_FHWC, subject_masks(probe, frames_FHWC))


def cut_by_masks(frames_FHWC: Frames, masks_FHW: NDArray[np.bool_]) -> list[Frames]:
    """The same where the masks, of any size, are known."""
    return [_cut(frame, mask) for frame, mask in zip(frames_FHWC, masks_FHW, strict=True)]


def _cut(frame: Frames, mask: NDArray[np.bool_]) -> Frames:
    if not mask.any():
        return frame
    size = (frame.shape[1], frame.shape[0])
    share = Image.fromarray((mask * 255).astype(np.uint8)).resize(size, Image.Resampling.BILINEAR)
    inside = np.asarray(share)[..., None] >= 128
    return cut_to_object(Image.fromarray(np.where(inside, frame, 255).astype(np.uint8)))
