"""Raw photos become reference views: the object alone, on white, whole."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from PIL import Image

from dreambooth3d.errors import InputError
from dreambooth3d.personalize.config import Segmentation
from dreambooth3d.vision.framing import frame_object
from dreambooth3d.vision.refusal import RefusedError
from dreambooth3d.vision.segment import build_segmenter

# Free share of the side around the object, as on the reference views of the benchmark.
_MARGIN = 0.08
# Of more photos, so many are cut, evenly spread: coverage does not gain by more.
_MOST = 24
# Views are stored at most so large, in pixels.
_MOST_SIDE = 1024


@dataclass(frozen=True, kw_only=True, eq=False)
class CutViews:
    """Photos cut out, and why others could not be; both by the photo's index."""

    views: Mapping[int, Image.Image]
    refused: Mapping[int, str] = field(default_factory=dict)


def cut_views(photos: Sequence[Image.Image], segmentation: Segmentation) -> CutViews:
    """Cut the object out of photos; those without an object are left out.

    Raises:
        InputError: there is none in any of them.
    """
    if segmentation == "none":
        return CutViews(views=dict(enumerate(photos)))
    segmenter = build_segmenter(segmentation)
    views: dict[int, Image.Image] = {}
    refused: dict[int, str] = {}
    for index in _spread(len(photos)):
        photo = photos[index].copy()
        # A photo of a phone is larger than any view is used.
        photo.thumbnail((_MOST_SIDE, _MOST_SIDE))
        try:
            alpha_HW = segmenter(photo)
            views[index] = frame_object(photo, alpha_HW, max(photo.size), _MARGIN).image
        except RefusedError as error:
            refused[index] = str(error)
    if not views:
        raise InputError(
            f"photos must show an object apart from its background, got none that does "
            f"({next(reversed(refused.values()))}); "
            "give references on white, or keep the background with --set segmentation=none"
        )
    return CutViews(views=views, refused=refused)


def _spread(count: int) -> tuple[int, ...]:
    wanted = min(count, _MOST)
    return tuple(k * count // wanted for k in range(wanted))
