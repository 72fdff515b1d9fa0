"""Where the object is in a reference and in a target, and both pictures as squares."""

import hashlib
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dreambooth3d.artifacts.image import flatten
from dreambooth3d.vision.backdrop import cut_from_backdrop, has_plain_backdrop
from dreambooth3d.vision.framing import SquareTarget, frame_object, square_target
from dreambooth3d.vision.refusal import UncertainCutError
from dreambooth3d.vision.segment import Segmenter, cut_by_alpha, has_alpha

Alpha = NDArray[np.float32]
Mask = NDArray[np.bool_]

# Five photos of 12 million pixels, or hundreds of small ones.
_CUT_BYTES = 256 * 2**20


@dataclass(frozen=True, kw_only=True, eq=False)
class CutPicture:
    """A picture and where its object is.

    Attributes:
        image: RGB, or RGBA with the object's own colours.
        alpha_HW: of the object, 0 to 1; None where nobody knows.
        is_ready: it is a clean square of the corpus's size and stays as it is.
        is_certain: the alpha is good enough to be shown.
    """

    image: Image.Image
    alpha_HW: Alpha | None
    is_ready: bool = False
    is_certain: bool = True

    @property
    def mask_HW(self) -> Mask | None:
        """Pixels of the object."""
        return None if self.alpha_HW is None else self.alpha_HW >= 0.5


class RememberingSegmenter:
    """Keeps the latest cuts: a photo is the reference of one pair and the target of another.

    Args:
        cut: finds the objects.
        budget_bytes: of all cuts that are kept.
    """

    def __init__(self, cut: Segmenter, *, budget_bytes: int = _CUT_BYTES) -> None:
        self._cut = cut
        self._budget = budget_bytes
        self._kept: OrderedDict[bytes, tuple[Alpha, str]] = OrderedDict()

    def __call__(self, image: Image.Image) -> Alpha:
        """Return the object's alpha, (H, W).

        Raises:
            UncertainCutError: again each time.
        """
        head = f"{image.mode} {image.size}".encode()
        key = hashlib.blake2b(head + image.tobytes()).digest()
        if key not in self._kept:
            self._kept[key] = self._cut_once(image)
        self._kept.move_to_end(key)
        alpha_HW, doubt = self._kept[key]
        while sum(alpha.nbytes for alpha, _ in self._kept.values()) > self._budget:
            self._kept.popitem(last=False)
        if doubt:
            raise UncertainCutError(doubt, alpha_HW)
        return alpha_HW

    def _cut_once(self, image: Image.Image) -> tuple[Alpha, str]:
        # The sentence alone: an error that is kept keeps everything that was at hand.
        doubt = ""
        try:
            alpha_HW = self._cut(image)
        except UncertainCutError as error:
            alpha_HW, doubt = error.alpha_HW, str(error)
        # Several pairs are given the same array.
        alpha_HW.flags.writeable = False
        return alpha_HW, doubt


def cut_photographed_reference(
    image: Image.Image, mask_HW: Mask | None, cut: Segmenter
) -> CutPicture:
    """Cut the object out of a photo, unless its source knows where it is.

    Raises:
        RefusedError: `no_object` or `uncertain_cut`.
    """
    return CutPicture(image=image, alpha_HW=cut(image) if mask_HW is None else _alpha(mask_HW))


def cut_clean_reference(image: Image.Image, mask_HW: Mask | None, size: int) -> CutPicture:
    """Find the object of a reference that comes without a background.

    A square of `size` pixels stays as it is: another resampling would only blur it.

    Raises:
        RefusedError: `no_object`: there is no mask, no alpha, and no backdrop of one colour.
    """
    is_ready = image.size == (size, size) and "A" not in image.getbands()
    if mask_HW is not None:
        return CutPicture(image=image, alpha_HW=_alpha(mask_HW), is_ready=is_ready)
    if has_alpha(image):
        return CutPicture(image=image, alpha_HW=cut_by_alpha(image))
    if is_ready and not has_plain_backdrop(image):
        return CutPicture(image=image, alpha_HW=None, is_ready=True)
    return CutPicture(image=image, alpha_HW=cut_from_backdrop(image), is_ready=is_ready)


def cut_target(
    image: Image.Image, mask_HW: Mask | None, cut: Segmenter, *, is_mask_needed: bool
) -> CutPicture:
    """Find the object of a target, where a step needs to know or a square must not cut it.

    Nothing is cut out of a target, so that its rough place is enough.

    Raises:
        RefusedError: `no_object`.
    """
    if mask_HW is not None:
        return CutPicture(image=image, alpha_HW=_alpha(mask_HW))
    if is_mask_needed or image.width != image.height:
        try:
            return CutPicture(image=image, alpha_HW=cut(image))
        except UncertainCutError as found:
            return CutPicture(image=image, alpha_HW=found.alpha_HW, is_certain=False)
    return CutPicture(image=image, alpha_HW=None)


def frame_reference(found: CutPicture, size: int, margin: float) -> Image.Image:
    """Show the object alone on white in a square."""
    if found.is_ready or found.alpha_HW is None:
        return flatten(found.image)
    return frame_object(found.image, found.alpha_HW, size, margin).image


def frame_target(found: CutPicture, size: int) -> SquareTarget:
    """Show the scene in a square that holds the whole object."""
    return square_target(found.image, size, found.mask_HW)


def _alpha(mask_HW: Mask) -> Alpha:
    return np.asarray(mask_HW, dtype=np.float32)
