"""Identity: is the thing in the clip the thing in the photos?

A first, honest ruler (`identity_efficientnet`): EfficientNet-Lite0 embeddings of a few crops of
each frame against each reference view, cut to the object and measured from the mean object; the
best view counts for a frame, the mean over frames for a clip. 1 is the same picture; unrelated
objects may score above 0, so compare a score with that of a wrong subject, never with 1.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from dreambooth3d.errors import InputError
from dreambooth3d.evaluate.config import EvaluateConfig
from dreambooth3d.vision.object_embedding import cut_to_object, embed_objects, likeness

Frames = NDArray[np.uint8]


def identity_score(frames: Frames, views: Sequence[Image.Image], config: EvaluateConfig) -> float:
    """Score a clip (F, H, W, 3) against background-free views; cosine in -1..1."""
    if len(views) == 0:
        raise InputError("identity must have at least one reference view, got none; add views")
    picked = frames[_spread(len(frames), config.frames)]
    found = likeness(list(picked), views, batch_size=config.batch_size)
    return float(found.amax(dim=1).mean())


def view_similarity(
    crops: Sequence[Frames], views: Sequence[Frames], config: EvaluateConfig
) -> float:
    """Score crops of the subject on white against views on white; best view, mean over crops."""
    ours = embed_objects(crops, batch_size=config.batch_size)
    cut = [cut_to_object(Image.fromarray(view)) for view in views]
    similarity = ours @ embed_objects(cut, batch_size=config.batch_size).T
    return float(similarity.amax(dim=1).mean())


def identity_table(
    clips: Sequence[Frames], views: Sequence[Sequence[Image.Image]], config: EvaluateConfig
) -> NDArray[np.float64]:
    """Score every clip against every subject: row clip, column subject."""
    rows = [[identity_score(clip, own, config) for own in views] for clip in clips]
    return np.array(rows, dtype=np.float64)


def _spread(available: int, wanted: int) -> NDArray[np.int64]:
    if wanted == 0 or available <= wanted:
        return np.arange(available)
    return torch.linspace(0, available - 1, wanted).round().long().numpy()
