"""Make the mean object that embeddings of objects are measured from."""

import numpy as np
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from dreambooth3d.scenes import Camera, make_subject, render_view
from dreambooth3d.vision.efficientnet import embed
from dreambooth3d.vision.object_embedding import EMBEDDING, MEAN_OBJECT, cut_to_object

_NUM_OBJECTS, _SIDE, _ELEVATION_DEG = 192, 64, 15.0


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
    save_file({EMBEDDING: measure_mean_object()}, MEAN_OBJECT)
