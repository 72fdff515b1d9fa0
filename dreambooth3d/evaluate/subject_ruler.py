"""Is the thing in the frame the thing in the references? Offline, by three witnesses.

The subject is found by what the references look like, cut out and laid on grey. Then

* `identity_efficientnet`: cosine of the pooled classifier features of cutout and reference,
  measured from the mean object; the best view counts, as in CLIP-I and DINO-I;
* `identity_local`: the mean over a reference's places of the most similar place of the cutout, so
  that a print or a horn that is missing costs what it covers; the best view counts;
* `colour_distance`: of the Lab colours, whatever their places; the nearest view counts.

`identity` is the mean of the three, each 1 for the same picture: the first and the last are taken
from the nearest point *between* two views there, because a turning subject spends most frames
between them, and colours cost nothing up to what the references differ among themselves: light and
the side that is seen do that much. Equal weights, nothing fitted. None is CLIP-I or DINO-I: compare
a score with those of other clips and of wrong subjects, never with published tables.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from dreambooth3d.artifacts.image import flatten
from dreambooth3d.errors import InputError
from dreambooth3d.vision.backdrop import cut_from_backdrop
from dreambooth3d.vision.colour_distance import Quantiles, colour_quantiles, sliced_wasserstein
from dreambooth3d.vision.efficientnet import load_efficientnet
from dreambooth3d.vision.object_embedding import load_mean_object
from dreambooth3d.vision.reference_match import (
    Cutout,
    Look,
    apart,
    covered_places,
    cut_square,
    find_subject,
    learn_look,
    prepared,
    resized,
)
from dreambooth3d.vision.refusal import RefusedError
from dreambooth3d.vision.threads import one_thread

# Side on which cutouts are compared, and sides of the references for places.
_SIDE, _PLACE_SIDES = 224, (160, 224, 288)
# Lab distance, beyond the tolerance, at which colours count e times less than the same ones.
_COLOUR_SCALE = 12.0
_BETWEEN = 11


@dataclass(frozen=True, kw_only=True, eq=False)
class Impression:
    """What is kept of a cutout.

    Attributes:
        pooled_C: unit vector from the mean object.
        places_NC: unit vectors of the object's places.
        colours: see `colour_quantiles`.
    """

    pooled_C: Tensor
    places_NC: Tensor
    colours: Quantiles


@dataclass(frozen=True, kw_only=True, eq=False)
class FrameScore:
    """One frame against one subject.

    Attributes:
        identity: mean of three witnesses, at most 1.
        identity_efficientnet, identity_local: cosines, best view.
        identity_colours: likeness of colours, 1 for the same.
        colour_distance: Lab units, nearest view.
        cutout: what was found.
        embedding: pooled unit vector of it, (1280,).
    """

    identity: float
    identity_efficientnet: float
    identity_local: float
    identity_colours: float
    colour_distance: float
    cutout: Cutout
    embedding: NDArray[np.float32]

    def numbers(self) -> dict[str, float]:
        """Return what is reported."""
        return {
            "identity": self.identity,
            "identity_efficientnet": self.identity_efficientnet,
            "identity_local": self.identity_local,
            "identity_colours": self.identity_colours,
            "colour_distance": self.colour_distance,
            "subject_share": self.cutout.share,
        }


class SubjectRuler:
    """Measures frames against one subject's references."""

    def __init__(self, references: Sequence[Cutout]) -> None:
        if not references:
            raise InputError("identity must have at least one reference view, got none; add views")
        self.references = tuple(references)
        self._views = [impression(reference) for reference in references]
        self._tolerance = _spread([view.colours for view in self._views])
        self._scaled = [
            [impression(reference, side=side).places_NC for side in _PLACE_SIDES]
            for reference in references
        ]

    @cached_property
    def look(self) -> Look:
        """What the subject is found by."""
        return learn_look(self.references)

    def measure(self, frame_HWC: NDArray[np.uint8]) -> FrameScore:
        """Find the subject in a frame (H, W, 3) and score it."""
        return self.compare(find_subject(frame_HWC, self.look))

    def compare(self, cutout: Cutout) -> FrameScore:
        """Score an object that is cut out already."""
        ours = impression(cutout)
        pooled_V = torch.stack([view.pooled_C @ ours.pooled_C for view in self._views])
        local_V = [
            max(float((ours.places_NC @ places_NC.T).amax(dim=0).mean()) for places_NC in scales)
            for scales in self._scaled
        ]
        apart_V = [sliced_wasserstein(ours.colours, view.colours) for view in self._views]
        pooled, colours = self._between(ours)
        beyond = max(colours - self._tolerance, 0.0)
        witnesses = (pooled, max(local_V), float(np.exp(-beyond / _COLOUR_SCALE)))
        return FrameScore(
            identity=float(np.mean(witnesses)),
            identity_efficientnet=float(pooled_V.max()),
            identity_local=witnesses[1],
            identity_colours=witnesses[2],
            colour_distance=min(apart_V),
            cutout=cutout,
            embedding=np.asarray(ours.pooled_C.numpy(), dtype=np.float32),
        )

    def _between(self, ours: Impression) -> tuple[float, float]:
        """Best cosine and least colour distance on the ways from view to view."""
        shares = torch.linspace(0, 1, _BETWEEN)
        cosines, distances = [], []
        pairs = list(combinations(self._views, 2)) or [(self._views[0], self._views[0])]
        for one, other in pairs:
            way_KC = shares[:, None] * one.pooled_C + (1 - shares[:, None]) * other.pooled_C
            cosines.append(float((F.normalize(way_KC, dim=1) @ ours.pooled_C).max()))
            mixed = (share * one.colours + (1 - share) * other.colours for share in shares.numpy())
            distances.append(min(sliced_wasserstein(ours.colours, each) for each in mixed))
        return max(cosines), min(distances)


def cut_reference(view: Image.Image) -> Cutout:
    """Cut a view on white to its object.

    Where nothing stands out from the backdrop the whole picture is the object.
    """
    flat = flatten(view)
    try:
        mask_HW = cut_from_backdrop(flat) > 0.5
    except RefusedError:
        mask_HW = np.ones((flat.height, flat.width), dtype=np.bool_)
    return cut_square(np.asarray(flat), np.asarray(mask_HW, dtype=np.bool_))


def build_ruler(views: Sequence[Image.Image]) -> SubjectRuler:
    """Make the ruler of a subject from its views on white.

    Raises:
        InputError: there are none.
    """
    return SubjectRuler([cut_reference(view) for view in views])


@one_thread()
@torch.no_grad()
def impression(cutout: Cutout, *, side: int = _SIDE) -> Impression:
    """Look at a cutout once."""
    pixels_HWC = resized(cutout.pixels_HWC, side, side)
    _, middle_BCHW, last_BCHW = load_efficientnet().feature_maps(prepared(pixels_HWC))
    pooled_C = _mean_inside(last_BCHW[0], cutout)
    covered = covered_places(cutout.mask_HW, *middle_BCHW.shape[2:])
    return Impression(
        pooled_C=F.normalize(F.normalize(pooled_C, dim=0) - load_mean_object(), dim=0),
        places_NC=apart(middle_BCHW[0].flatten(1).T[covered]),
        colours=colour_quantiles(cutout.pixels_HWC, cutout.mask_HW),
    )


def _spread(colours: Sequence[Quantiles]) -> float:
    """Mean distance of a view's colours from those of the view nearest to it; 0 of one view."""
    if len(colours) < 2:
        return 0.0
    nearest = [
        min(sliced_wasserstein(one, other) for other in colours if other is not one)
        for one in colours
    ]
    return float(np.mean(nearest))


def _mean_inside(h_CHW: Tensor, cutout: Cutout) -> Tensor:
    """Mean of a map over the object, (C,)."""
    size = h_CHW.shape[1:]
    mask = torch.from_numpy(cutout.mask_HW.astype(np.float32))[None, None]
    share_HW = F.interpolate(mask, size=size, mode="area")[0, 0]
    return (h_CHW * share_HW).sum(dim=(1, 2)) / share_HW.sum().clamp(min=1e-6)
