"""The offline ruler on real pictures: views of one object against views of others."""

from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.evaluate_clips import SHARED, need
from dreambooth3d.artifacts.image import flatten, list_images, read_image
from dreambooth3d.evaluate.subject_ruler import SubjectRuler, cut_reference
from dreambooth3d.vision.reference_match import Cutout, cut_square
from dreambooth3d.vision.refusal import RefusedError, UncertainCutError
from dreambooth3d.vision.segment import build_segmenter

_SIDE = 640


def photo_pairs(_: int) -> float:
    """Share of (photo, wrong object) pairs in which the own object's other photos score higher.

    Every photo is a frame; references are the other photos of an object, cut out by the packaged
    segmentation, with its errors.
    """
    return _share_right(_photos())


def view_pairs(_: int) -> float:
    """The same for the benchmark's background-free views, each left out once."""
    folders = sorted(need(SHARED / "subjects").iterdir())
    sets = [
        [_Picture(path, is_cut=True) for path in list_images(folder / "references")]
        for folder in folders
    ]
    return _share_right(sets)


def most_apart(_: int) -> float:
    """Largest distance from 1 of a view's score against references that hold it."""
    apart = []
    for folder in sorted(need(SHARED / "subjects").iterdir()):
        cutouts = [cut_reference(read_image(path)) for path in list_images(folder / "references")]
        ruler = SubjectRuler(cutouts)
        apart += [abs(1 - ruler.compare(cutout).identity) for cutout in cutouts]
    return max(apart)


class _Picture:
    """A picture as a frame, and as a reference."""

    def __init__(self, path: Path, *, is_cut: bool) -> None:
        image = flatten(read_image(path))
        image.thumbnail((_SIDE, _SIDE))
        self.pixels_HWC = np.asarray(image)
        self.is_cut = is_cut
        self.cutout = cut_reference(image) if is_cut else _cut(image)


@lru_cache(maxsize=1)
def _photos() -> list[list[_Picture]]:
    folders = sorted(need(SHARED / "photos").iterdir())
    return [[_Picture(path, is_cut=False) for path in list_images(folder)] for folder in folders]


def _cut(photo: Image.Image) -> Cutout | None:
    """Cut by the packaged segmentation; None where it finds no object."""
    try:
        alpha_HW = build_segmenter("auto")(photo)
    except UncertainCutError as doubt:
        alpha_HW = doubt.alpha_HW
    except RefusedError:
        return None
    return cut_square(np.asarray(photo), np.asarray(alpha_HW > 0.5, dtype=np.bool_))


def _share_right(sets: list[list[_Picture]]) -> float:
    whole = [_ruler(pictures) for pictures in sets]
    right = []
    for place, pictures in enumerate(sets):
        for left_out in pictures:
            own = _score(_ruler([p for p in pictures if p is not left_out]), left_out)
            others = [ruler for other, ruler in enumerate(whole) if other != place]
            right += [own > _score(ruler, left_out) for ruler in others]
    return float(np.mean(right))


def _ruler(pictures: list[_Picture]) -> SubjectRuler:
    return SubjectRuler([p.cutout for p in pictures if p.cutout is not None])


def _score(ruler: SubjectRuler, picture: _Picture) -> float:
    if picture.is_cut and picture.cutout is not None:
        return ruler.compare(picture.cutout).identity
    return ruler.measure(picture.pixels_HWC).identity
