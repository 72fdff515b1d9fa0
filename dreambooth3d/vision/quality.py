"""Is a picture worth learning from? Measures, and the rules they are held against.

Measures are pure numbers of the picture and of the object's mask; gates compare them with
`QualityRules` and refuse with a reason that can be counted.
"""

from dataclasses import dataclass, fields

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dreambooth3d.errors import ConfigError
from dreambooth3d.vision.pieces import Mask, grown, holes_of, label_pieces
from dreambooth3d.vision.refusal import Reason, RefusedError

# Long side on which light and sharpness are measured; smaller pictures are not enlarged.
WORKING_SIDE = 256
_DARK, _BRIGHT = 20, 250
# Pieces below this share of the largest are crumbs of cutting out.
_PIECE_SHARE = 0.05
# Around the object's mask, in working pixels: its outline says most about the focus.
_OUTLINE = 2


@dataclass(frozen=True, kw_only=True)
class QualityRules:
    """What a picture must have; defaults refuse what is plainly useless.

    Attributes:
        min_side: shorter side, pixels.
        max_aspect: longer side by shorter side.
        min_sharpness: variance of the Laplacian, in squared steps of 255.
        max_dark_share: of pixels that are nearly black.
        max_bright_share: of pixels that are nearly white.
        min_colour_spread: standard deviation of colour, in Lab units.
        min_object_side: longer side of the object's box, pixels.
        min_coverage: of the picture by the object.
        max_coverage: of the picture by the object.
        max_pieces: that matter, of the object.
        max_hole_share: of the object's outline that is holes.
        max_cut_share: of the object's longer side that lies on the picture's border; 0.05 suits
            references, which have to be whole.
    """

    min_side: int = 64
    max_aspect: float = 3.0
    min_sharpness: float = 50.0
    max_dark_share: float = 0.9
    max_bright_share: float = 0.9
    min_colour_spread: float = 3.0
    min_object_side: int = 24
    min_coverage: float = 0.005
    max_coverage: float = 0.9
    max_pieces: int = 3
    max_hole_share: float = 0.5
    max_cut_share: float = 0.4

    def __post_init__(self) -> None:
        """Check ranges."""
        for field in fields(self):
            low, high = _RANGES[field.name]
            value = getattr(self, field.name)
            if not low <= value <= high:
                raise ConfigError(
                    f"{field.name} must be {low} to {high}, got {value}; "
                    "leave it out for the default"
                )
        if self.min_coverage >= self.max_coverage:
            raise ConfigError(
                f"min_coverage must be below max_coverage, got {self.min_coverage} and "
                f"{self.max_coverage}; leave them out for the defaults"
            )


@dataclass(frozen=True, kw_only=True)
class PictureMeasures:
    """Light and focus, of the whole picture or of its object alone.

    Attributes:
        sharpness: variance of the Laplacian of brightness, in squared steps of 255.
        dark_share: of pixels below 20 of 255.
        bright_share: of pixels above 250 of 255.
        brightness: mean, 0 to 255.
        colour_spread: standard deviation of colour, in Lab units.
    """

    sharpness: float
    dark_share: float
    bright_share: float
    brightness: float
    colour_spread: float


@dataclass(frozen=True, kw_only=True)
class ObjectMeasures:
    """Size and shape of the object's mask.

    Attributes:
        long_side: of its box, pixels.
        coverage: share of the picture.
        num_pieces: without crumbs.
        hole_share: holes by object and holes together.
        cut_share: pixels on the picture's border by `long_side`.
    """

    long_side: int
    coverage: float
    num_pieces: int
    hole_share: float
    cut_share: float


def measure_picture(image: Image.Image, mask_HW: Mask | None = None) -> PictureMeasures:
    """Measure light and focus.

    Args:
        image: RGB, or RGBA whose transparency hides nothing of interest.
        mask_HW: of the object, of the picture's size; all counts when None or empty.
    """
    pixels_HWC, inside_HW = _working_copy(image.convert("RGB"), mask_HW)
    outlined_HW = grown(inside_HW, _OUTLINE)
    gray_HW = np.asarray(cv2.cvtColor(pixels_HWC, cv2.COLOR_RGB2GRAY))
    laplacian_HW = np.asarray(cv2.Laplacian(gray_HW, cv2.CV_32F), dtype=np.float64)
    gray_N = gray_HW[inside_HW]
    lab_HWC = cv2.cvtColor(pixels_HWC.astype(np.float32) / 255, cv2.COLOR_RGB2Lab)
    lab_NC = np.asarray(lab_HWC, dtype=np.float64)[inside_HW]
    return PictureMeasures(
        sharpness=float(laplacian_HW[outlined_HW].var()),
        dark_share=float((gray_N < _DARK).mean()),
        bright_share=float((gray_N > _BRIGHT).mean()),
        brightness=float(gray_N.mean()),
        colour_spread=float(np.sqrt(lab_NC.var(axis=0).sum())),
    )


def measure_object(mask_HW: Mask) -> ObjectMeasures:
    """Measure a mask; an empty one has no side, no pieces and covers nothing."""
    area = int(mask_HW.sum())
    if area == 0:
        return ObjectMeasures(
            long_side=0, coverage=0.0, num_pieces=0, hole_share=0.0, cut_share=0.0
        )
    _, areas = label_pieces(mask_HW)
    holes = int(holes_of(mask_HW).sum())
    border_N = np.concatenate([mask_HW[0], mask_HW[-1], mask_HW[1:-1, 0], mask_HW[1:-1, -1]])
    rows, columns = np.flatnonzero(mask_HW.any(axis=1)), np.flatnonzero(mask_HW.any(axis=0))
    long_side = int(max(np.ptp(rows), np.ptp(columns))) + 1
    return ObjectMeasures(
        long_side=long_side,
        coverage=area / mask_HW.size,
        num_pieces=int((areas[1:] >= _PIECE_SHARE * areas[1:].max()).sum()),
        hole_share=holes / (area + holes),
        cut_share=float(border_N.sum()) / long_side,
    )


def require_size(width: int, height: int, rules: QualityRules) -> None:
    """Refuse pictures that are too small or too long (`too_small`, `bad_aspect`)."""
    short, long = min(width, height), max(width, height)
    _at_least("too_small", "shorter side", short, rules.min_side)
    _at_most("bad_aspect", "longer by shorter side", long / short, rules.max_aspect)


def require_picture(measures: PictureMeasures, rules: QualityRules) -> None:
    """Refuse bad light and bad focus.

    Raises:
        RefusedError: `too_dark`, `too_bright`, `flat_colours` or `blurred`, the first that holds.
    """
    found = measures
    _at_most("too_dark", "share of black", found.dark_share, rules.max_dark_share)
    _at_most("too_bright", "share of white", found.bright_share, rules.max_bright_share)
    _at_least("flat_colours", "spread of colours", found.colour_spread, rules.min_colour_spread)
    _at_least("blurred", "sharpness", found.sharpness, rules.min_sharpness)


def require_object(measures: ObjectMeasures, rules: QualityRules) -> None:
    """Refuse objects that are absent, of the wrong size, cut by the border or in pieces.

    Raises:
        RefusedError: `no_object`, `object_too_small`, `object_too_large`, `object_cut` or
            `object_in_pieces`, the first that holds.
    """
    found = measures
    _at_least("no_object", "object's longer side", found.long_side, 1)
    _at_least("object_too_small", "object's longer side", found.long_side, rules.min_object_side)
    _at_least("object_too_small", "object's share", found.coverage, rules.min_coverage)
    _at_most("object_too_large", "object's share", found.coverage, rules.max_coverage)
    _at_most("object_cut", "object's share on the border", found.cut_share, rules.max_cut_share)
    _at_most("object_in_pieces", "object's pieces", found.num_pieces, rules.max_pieces)
    _at_most("object_in_pieces", "object's share of holes", found.hole_share, rules.max_hole_share)


def _at_least(reason: Reason, what: str, value: float, limit: float) -> None:
    # Not the negation of `<`: NaN passes no gate.
    if not value >= limit:
        raise RefusedError(
            reason, f"{what} must be at least {limit:g}, got {value:.4g}; take another picture"
        )


def _at_most(reason: Reason, what: str, value: float, limit: float) -> None:
    if not value <= limit:
        raise RefusedError(
            reason, f"{what} must be at most {limit:g}, got {value:.4g}; take another picture"
        )


def _working_copy(image: Image.Image, mask_HW: Mask | None) -> tuple[NDArray[np.uint8], Mask]:
    scale = min(1.0, WORKING_SIDE / max(image.size))
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    pixels_HWC = np.asarray(image.resize(size, Image.Resampling.BOX))
    if mask_HW is None:
        return pixels_HWC, np.ones(pixels_HWC.shape[:2], dtype=np.bool_)
    share = Image.fromarray(mask_HW.astype(np.float32)).resize(size, Image.Resampling.BOX)
    inside_HW = np.asarray(share) >= 0.5
    return pixels_HWC, inside_HW if inside_HW.any() else np.ones_like(inside_HW)


_RANGES: dict[str, tuple[float, float]] = {
    "min_side": (1, 100_000),
    "max_aspect": (1, 1000),
    "min_sharpness": (0, 1e6),
    "max_dark_share": (0, 1),
    "max_bright_share": (0, 1),
    "min_colour_spread": (0, 300),
    "min_object_side": (1, 100_000),
    "min_coverage": (0, 1),
    "max_coverage": (0, 1),
    "max_pieces": (1, 1000),
    "max_hole_share": (0, 1),
    "max_cut_share": (0, 4),
}
