"""Which views are referred to, and which captures judge: by what they show, as cameras are unknown.

Farthest-point sampling (Gonzalez 1985) in the space of object embeddings: every picture that is
left out is close to one that is in. On a closed turntable the last view is close to the first, so
the two are never both taken.
"""

from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

from dreambooth3d.vision.object_embedding import cut_to_object, embed_objects

NEAR_DUPLICATE = 0.02
"""Cosine distance below which two pictures show the same; a turn by 30 degrees is .1 and more."""
FEWEST_TO_SHARE = 6
"""Captures that a subject must have before some are held out."""
_BATCH = 32


def embed_views(pictures: Sequence[Image.Image]) -> Tensor:
    """Embed pictures, cut to the object where the ground is white, (N, E), unit vectors."""
    return embed_objects([cut_to_object(picture) for picture in pictures], batch_size=_BATCH)


def choose_views(views_NE: Tensor, count: int) -> tuple[int, ...]:
    """Choose at most `count` views that cover all of them, in their own order.

    Fewer where the others would be near duplicates; always at least one.

    Args:
        views_NE: unit vectors.
        count: at least 1.
    """
    distance_NN = 1 - views_NE @ views_NE.T
    # The view that is least like the rest is at an end, wherever the pictures begin.
    chosen = [int(distance_NN.sum(dim=1).argmax())]
    while len(chosen) < min(count, len(views_NE)):
        nearest_N = distance_NN[:, chosen].amin(dim=1)
        farthest = int(nearest_N.argmax())
        if float(nearest_N[farthest]) < NEAR_DUPLICATE:
            break
        chosen.append(farthest)
    return tuple(sorted(chosen))


def choose_held_out(
    num_captures: int, share: float, *, referred: Sequence[int] = ()
) -> tuple[int, ...]:
    """Choose captures that judge and are never trained on, evenly among the others.

    Args:
        num_captures: in the order they were taken.
        share: of them, 0 to below 1, rounded down; none of fewer than `FEWEST_TO_SHARE`.
        referred: captures that serve as reference views, which would give the answer away.
    """
    count = int(share * num_captures) if num_captures >= FEWEST_TO_SHARE else 0
    free = [index for index in range(num_captures) if index not in set(referred)]
    count = min(count, len(free))
    return tuple(free[(2 * k + 1) * len(free) // (2 * count)] for k in range(count))


def same_pictures(captures_NE: Tensor, views_VE: Tensor) -> tuple[int, ...]:
    """Tell which captures one of the views was cut from, or as good as: near duplicates of it."""
    if len(views_VE) == 0:
        return ()
    nearest_N = (1 - captures_NE @ views_VE.T).amin(dim=1)
    return tuple(torch.nonzero(nearest_N < NEAR_DUPLICATE)[:, 0].tolist())
