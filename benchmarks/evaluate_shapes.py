"""Shapes in published clips: COLMAP on frames that a network has made, without any weights."""

from pathlib import Path

import numpy as np

from benchmarks.evaluate_clips import CLIPS, OWN, SHARED, need, rulers
from benchmarks.rows import RowSkippedError
from dreambooth3d.artifacts.clip import read_clip
from dreambooth3d.evaluate.geometry import compare, outline
from dreambooth3d.evaluate.reconstruct import Cloud, find_reconstructor
from dreambooth3d.evaluate.skipping import Skipped


def shapes_apart(_: int) -> float:
    """How much nearer a clip's shape is to itself, from every other frame, than other clips' are.

    The clip of the full method; distances in radii of the clouds.
    """
    best, *others = (need(SHARED / "clips") / f"{name}.mp4" for name in CLIPS)
    truth = _cloud(best)
    own = compare(_cloud(best, every=2), truth)[1].distance
    apart = [compare(_cloud(clip), truth)[1].distance for clip in others]
    return min(apart) - own


def _cloud(clip: Path, every: int = 1) -> Cloud:
    reconstruct = find_reconstructor("pycolmap")
    if isinstance(reconstruct, Skipped):
        raise RowSkippedError(reconstruct.reason)
    frames = [np.asarray(frame) for frame in read_clip(clip)[0][::every]]
    look = rulers()[OWN].look
    return reconstruct(frames, [outline(frame, look) for frame in frames])
