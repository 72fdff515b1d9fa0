"""Why a picture is not used: a reason that can be counted, and a sentence that can be read."""

from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from dreambooth3d.errors import InputError

# Bad input: the file or row itself is broken. Too many of them make a source unusable.
BadReason: TypeAlias = Literal[
    "unreadable_picture",
    "too_many_pixels",
    "unsupported_picture",
    "bad_row",
    "bad_caption",
    "bad_mesh",
    "bad_member",
    "missing_member",
]
# A sound picture that would teach little or the wrong thing.
GateReason: TypeAlias = Literal[
    "too_small",
    "bad_aspect",
    "no_object",
    "uncertain_cut",
    "object_too_small",
    "object_too_large",
    "object_cut",
    "object_in_pieces",
    "blurred",
    "too_dark",
    "too_bright",
    "flat_colours",
    "failed_source_quality",
    "not_same_object",
    "same_picture",
    "near_duplicate",
    "blocklisted",
    "unsafe",
]
Reason: TypeAlias = BadReason | GateReason
BAD_REASONS: frozenset[str] = frozenset(get_args(BadReason))
GATE_REASONS: frozenset[str] = frozenset(get_args(GateReason))


class RefusedError(InputError):
    """A picture or record is left out, and is counted.

    Attributes:
        reason: what it is counted as.
    """

    def __init__(self, reason: Reason, sentence: str) -> None:
        super().__init__(sentence)
        self.reason: Reason = reason


class UncertainCutError(RefusedError):
    """Where the object of a photo ends is uncertain.

    Attributes:
        alpha_HW: what was found, for those whom its rough place is enough.
    """

    def __init__(self, sentence: str, alpha_HW: NDArray[np.float32]) -> None:
        super().__init__("uncertain_cut", sentence)
        self.alpha_HW = alpha_HW
