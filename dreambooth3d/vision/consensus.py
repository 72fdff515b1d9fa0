"""A second look at a first mask by two witnesses, and a refusal where they contradict each other.

A wrong reference is worse than a missing one: what one witness takes for the object and the other
for background is a wheel in its shadow as often as a shadow beside a wheel.
"""

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from dreambooth3d.vision.evidence import Pixels, colour_evidence, feature_evidence
from dreambooth3d.vision.mincut import divide
from dreambooth3d.vision.pieces import Mask, grown
from dreambooth3d.vision.tidy import frame_of, otsu, tidied

# How much colours say beside features, and what a border costs beside both.
_COLOUR_WEIGHT, _STIFFNESS = 0.5, 4.0
# The features' weight where colours lead, and how far timid and bold masks lean.
_FEATURE_WEIGHT, _LEAN = 0.3, 0.3
# Around the first mask nobody knows, in pixels of the working copy: as far as a black wheel
# reaches out of its car. Neither where the prior is above this share of its threshold.
_UNKNOWN_RADIUS, _UNKNOWN_PRIOR = 12, 0.5
# What no evidence outweighs.
_NEVER = -3.0
# Overlap of contradicting masks. Of 27 photos, the 13 with more overlap with good masks by 0.92 at
# least (0.98 in the middle); the other 14 with less are three whole objects and eleven with parts
# missing or added, at worst 0.69.
LEAST_AGREEMENT = 0.9


@dataclass(frozen=True, kw_only=True, eq=False)
class Consensus:
    """What two witnesses say together.

    Attributes:
        mask_HW: the object.
        agreement: least overlap of masks that lean to one side or the other, 0 to 1.
    """

    mask_HW: Mask
    agreement: float

    @property
    def is_certain(self) -> bool:
        """Whether the mask may be shown as the object."""
        return self.agreement >= LEAST_AGREEMENT


def agree(first_HW: Mask, prior_HW: Pixels, pixels_HWC: Pixels, features_CHW: Tensor) -> Consensus:
    """Correct a mask by what its own picture teaches two witnesses.

    Args:
        first_HW: the object, roughly; not empty.
        prior_HW: where the object was expected, 0 to 255.
        pixels_HWC: RGB, about 224 pixels a side: distances hold for that.
        features_CHW: of shapes and textures.
    """
    is_likely = prior_HW > _UNKNOWN_PRIOR * otsu(prior_HW)
    is_unknown = (grown(first_HW, _UNKNOWN_RADIUS) | is_likely) & ~first_HW
    features = feature_evidence(features_CHW, first_HW, is_unknown)
    colours = colour_evidence(pixels_HWC, first_HW)
    both = features + _COLOUR_WEIGHT * colours
    evidence = (both, features, _FEATURE_WEIGHT * features + colours, both - _LEAN, both + _LEAN)
    frame = frame_of(*first_HW.shape)
    mask, by_features, by_colours, timid, bold = (
        tidied(divide(np.where(frame, _NEVER, each), pixels_HWC, _STIFFNESS), prior_HW)
        for each in evidence
    )
    agreement = min(overlap(by_features, by_colours), overlap(timid, bold))
    return Consensus(mask_HW=mask, agreement=agreement)


def overlap(first_HW: Mask, second_HW: Mask) -> float:
    """Intersection over union; 0 where both are empty."""
    return float((first_HW & second_HW).sum() / max(int((first_HW | second_HW).sum()), 1))
