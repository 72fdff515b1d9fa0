"""Objects on white as embeddings: cut to the object, and measured from the mean object.

The mean object is what pictures of objects on white have in common. Measured from it, views of one
object and views of different ones lie further apart: 4.4 standard deviations instead of 3.9 on
eight captured subjects of four views each. Unrelated objects score 0.04 in the embedded world and
0.32 among the captured ones. The file is made by
`python -m dreambooth3d.evaluate.object_embedding`.
"""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from dreambooth3d.artifacts.image import flatten
from dreambooth3d.errors import ArtifactError
from dreambooth3d.scenes import Camera, make_subject, render_view
from dreambooth3d.vision.efficientnet import embed

MEAN_OBJECT = Path(__file__).parent / "weights" / "mean_object.safetensors"
_NAME = "embedding"
_NUM_OBJECTS, _SIDE, _ELEVATION_DEG = 192, 64, 15.0
_WHITE = 245


def embed_objects(crops: Sequence[NDArray[np.uint8]], *, batch_size: int) -> Tensor:
    """Embed pictures of objects on white to unit vectors that lead away from the mean object.

    Args:
        crops: RGB (H, W, 3) each.
        batch_size: crops at a time.
    """
    found = embed(list(crops), batch_size=batch_size)
    return F.normalize(found - load_mean_object(), dim=1)


def cut_to_object(view: Image.Image) -> NDArray[np.uint8]:
    """Cut a view on white to the square around what is not white."""
    pixels = np.asarray(flatten(view))
    rows, columns = np.nonzero((pixels < _WHITE).any(axis=2))
    if len(rows) == 0:
        return pixels
    side = max(np.ptp(rows), np.ptp(columns)) + 1
    square = np.full((side, side, 3), 255, dtype=np.uint8)
    found = pixels[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    top, left = (side - found.shape[0]) // 2, (side - found.shape[1]) // 2
    square[top : top + found.shape[0], left : left + found.shape[1]] = found
    return square


@lru_cache(maxsize=1)
def load_mean_object() -> Tensor:
    """Load the packaged mean object, (1280,).

    Raises:
        ArtifactError: the file is absent.
    """
    if not MEAN_OBJECT.is_file():
        raise ArtifactError(
            f"the mean object must be at {MEAN_OBJECT}, got no file; "
            "make it with python -m dreambooth3d.evaluate.object_embedding"
        )
    tensors: dict[str, Tensor] = load_file(MEAN_OBJECT)
    return tensors[_NAME]


def measure_mean_object(num_objects: int = _NUM_OBJECTS) -> Tensor:
    """Average the embeddings of procedural objects that trainings may see, (1280,)."""
    rng = np.random.default_rng(0)
    views = []
    for seed in range(num_objects):
        camera = Camera(azimuth_deg=float(rng.uniform(0, 360)), elevation_deg=_ELEVATION_DEG)
        frame = render_view(make_subject(seed), camera, size=_SIDE)
        views.append(cut_to_object(Image.fromarray(frame.rgb)))
    return embed(views).mean(dim=0)


if __name__ == "__main__":
    save_file({_NAME: measure_mean_object()}, MEAN_OBJECT)
