"""Is it the same object in reference and target, and not the same picture?

EfficientNet-Lite0 embeddings of the two objects, laid on grey where a mask is known and cut to the
mask's box. Copies teach nothing, wrong objects teach the wrong thing. It is an ImageNet classifier:
it tells a duck from a cup with ease, two ducks with little margin, and a front from a back hardly.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dreambooth3d.errors import ConfigError
from dreambooth3d.vision.refusal import RefusedError
from dreambooth3d.vision.threads import one_thread

Mask = NDArray[np.bool_]

_GREY = 128
_DECIMALS = 4


@dataclass(frozen=True, kw_only=True)
class IdentityLimits:
    """Between which similarities a pair is kept, both included.

    Measured with masks. Right pairs: 0.48 to 0.91 on photos of real objects, down to 0.36 for a
    front with a back, 0.60 to 0.97 in scenes. Wrong pairs: below 0.35 for 77 to 94 of 100 photos,
    but 0.34 to 0.90 in scenes, all drawn in one style. Copies: 1, after mild JPEG 0.95 to 0.99.
    So no right pair was lost, most wrong photos were found, and wrong scenes were not.

    Attributes:
        lowest: below it the objects are not the same.
        highest: above it the pictures are.
    """

    lowest: float = 0.35
    highest: float = 0.97

    def __post_init__(self) -> None:
        if not -1 <= self.lowest < self.highest <= 1:
            raise ConfigError(
                "identity limits must be -1 to 1, the lowest below the highest, "
                f"got {self.lowest} and {self.highest}; use 0.35 and 0.97"
            )

    def check(self, similarity: float) -> None:
        """Refuse a pair by its similarity.

        Raises:
            RefusedError: `not_same_object` or `same_picture`.
        """
        if similarity < self.lowest:
            raise RefusedError(
                "not_same_object",
                f"similarity of the object in reference and target must be at least {self.lowest}, "
                f"got {similarity}; check that both show the same object",
            )
        if similarity > self.highest:
            raise RefusedError(
                "same_picture",
                f"similarity of the object in reference and target must be at most {self.highest}, "
                f"got {similarity}; take the reference from another picture",
            )


def pair_similarity(
    reference: Image.Image,
    target: Image.Image,
    *,
    reference_mask: Mask | None = None,
    target_mask: Mask | None = None,
) -> float:
    """Return the cosine of the two objects' embeddings, -1 to 1 in 4 decimals.

    The larger object is made as small as the other first: a copy scores low when it is less sharp.

    Args:
        reference, target: RGB.
        reference_mask, target_mask: (H, W) of the object; None or an empty mask takes the whole
            picture.
    """
    from dreambooth3d.vision.efficientnet import SIDE, embed

    whole = [object_view(reference, reference_mask), object_view(target, target_mask)]
    side = min(SIDE, *(max(view.shape[:2]) for view in whole))
    views = [_shrunk(view, side) for view in whole]
    with one_thread():
        # One at a time: in a batch the sums would be added in another order.
        first, second = embed(views, batch_size=1).double().numpy()
    return round(float(np.dot(first, second)), _DECIMALS)


def object_view(picture: Image.Image, mask: Mask | None) -> NDArray[np.uint8]:
    """Return the object on grey in the square around its box, (S, S, 3)."""
    pixels = np.asarray(picture.convert("RGB"))
    if mask is None or not mask.any():
        return pixels
    if mask.shape != pixels.shape[:2]:
        raise ConfigError(
            f"mask must have the picture's size {pixels.shape[:2]}, got {mask.shape}; resize it"
        )
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    height, width = mask[box].shape
    side = max(height, width)
    view = np.full((side, side, 3), _GREY, dtype=np.uint8)
    top, left = (side - height) // 2, (side - width) // 2
    place = view[top : top + height, left : left + width]
    place[mask[box]] = pixels[box][mask[box]]
    return view


def _shrunk(view: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Make the longer side of a picture at most `side` pixels."""
    height, width = view.shape[:2]
    scale = side / max(height, width)
    if scale >= 1:
        return view
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(Image.fromarray(view).resize(size, Image.Resampling.LANCZOS))
