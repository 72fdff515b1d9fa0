"""Which pixels are the object: a choice of name.

| name       | takes                                                 | needs                |
|------------|-------------------------------------------------------|----------------------|
| `auto`     | the first of `alpha`, `plain`, `grabcut` that applies | nothing more         |
| `alpha`    | the alpha channel                                     | nothing more         |
| `plain`    | what differs from a backdrop of one colour            | nothing more         |
| `grabcut`  | what surely stands out from its surroundings          | nothing more         |
| `birefnet` | what a network trained on masks says                  | onnxruntime, weights |

Whatever the name, a picture that comes with an alpha channel keeps it: somebody knew better.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dreambooth3d.errors import ConfigError
from dreambooth3d.vision.refusal import RefusedError

SegmenterName: TypeAlias = Literal["auto", "alpha", "plain", "grabcut", "birefnet"]
Cut: TypeAlias = Callable[[Image.Image], NDArray[np.float32]]
# An alpha channel that leaves out less than this share of the picture says nothing.
_LEAST_CLEAR = 0.005


class Segmenter(Protocol):
    """Finds the object of a picture; picklable, and the same bytes for the same picture."""

    def __call__(self, image: Image.Image) -> NDArray[np.float32]:
        """Return the object's alpha (H, W), 0 to 1, of an RGB or RGBA picture.

        Raises:
            RefusedError: `no_object`, or `uncertain_cut` of `auto` and `grabcut`.
        """


def build_segmenter(name: SegmenterName, *, weights: Path | None = None) -> Segmenter:
    """Make the segmenter of a name.

    Args:
        name: see the table above.
        weights: ONNX file for `birefnet`; the pinned one from the hub when None.

    Raises:
        ConfigError: the name is unknown, or what `birefnet` needs is not here.
    """
    if name not in get_args(SegmenterName):
        known = ", ".join(get_args(SegmenterName))
        raise ConfigError(f"segmentation must be one of {known}, got {name!r}; choose one")
    if weights is not None and name != "birefnet":
        raise ConfigError(f"weights must come with birefnet, got them with {name}; leave them out")
    if name == "birefnet":
        # Each cutter brings a library along; only the chosen one is loaded.
        from dreambooth3d.vision.birefnet import BiRefNet, find_weights

        return _KeepsAlpha(cut=BiRefNet(weights=find_weights(weights)))
    return _KeepsAlpha(cut=_CUTS[name])


def has_alpha(image: Image.Image) -> bool:
    """Say whether transparency leaves out a part of the picture."""
    if "A" not in image.getbands():
        return False
    alpha = np.asarray(image.getchannel("A"))
    return bool((alpha < 128).mean() >= _LEAST_CLEAR)


def cut_by_alpha(image: Image.Image) -> NDArray[np.float32]:
    """Return the alpha channel, (H, W), 0 to 1.

    Raises:
        RefusedError: `no_object`: there is none, or it says nothing.
    """
    if not has_alpha(image):
        raise RefusedError(
            "no_object",
            "picture must have a transparent background, got none; choose another segmentation",
        )
    alpha = (np.asarray(image.getchannel("A"), dtype=np.float32) / 255).astype(np.float32)
    if alpha.max() < 0.5:
        raise RefusedError(
            "no_object", "picture must show an object, got only transparency; export it again"
        )
    return alpha


def _cut_by_grabcut(image: Image.Image) -> NDArray[np.float32]:
    from dreambooth3d.vision.grabcut import cut_by_grabcut

    return cut_by_grabcut(image)


def _cut_from_backdrop(image: Image.Image) -> NDArray[np.float32]:
    from dreambooth3d.vision.backdrop import cut_from_backdrop

    return cut_from_backdrop(image)


def _cut_by_first_that_applies(image: Image.Image) -> NDArray[np.float32]:
    from dreambooth3d.vision.backdrop import has_plain_backdrop

    return _cut_from_backdrop(image) if has_plain_backdrop(image) else _cut_by_grabcut(image)


@dataclass(frozen=True, kw_only=True)
class _KeepsAlpha:
    """Trust the alpha channel where it says anything, else cut."""

    cut: Cut

    def __call__(self, image: Image.Image) -> NDArray[np.float32]:
        """Return the object's alpha, (H, W)."""
        return cut_by_alpha(image) if has_alpha(image) else self.cut(image)


_CUTS: dict[str, Cut] = {
    "auto": _cut_by_first_that_applies,
    "alpha": cut_by_alpha,
    "plain": _cut_from_backdrop,
    "grabcut": _cut_by_grabcut,
}
