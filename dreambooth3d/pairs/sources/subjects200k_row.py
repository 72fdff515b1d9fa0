"""One row of Subjects200K: two pairs, or why not."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from reprlib import repr as shown
from typing import Any, TypeAlias

from PIL import Image

from dreambooth3d.artifacts.image import flatten
from dreambooth3d.artifacts.jsonfile import JsonValue
from dreambooth3d.pairs.decoding import decode_or_refuse
from dreambooth3d.pairs.records import RawPair, Record, Rejected
from dreambooth3d.pairs.sources.composite import split_panels
from dreambooth3d.pairs.sources.origin import printable, subject_name
from dreambooth3d.vision.refusal import RefusedError

SCORES = ("compositeStructure", "objectConsistency", "imageQuality")
SIDES = ("left", "right")
BEST_SCORE = 5
_MAX_PIXELS = 40_000_000
# What is longer is no name; where it begins alike it is one.
_MOST_LETTERS = 160

Panels: TypeAlias = tuple[Image.Image, Image.Image]
_LOOK_SIZE = (256, 256)


@dataclass(frozen=True, kw_only=True)
class RowRules:
    """How rows are read; see `Subjects200KSource`."""

    min_quality: int
    padding: int | None
    inset: int
    licence: str
    attribution: str


def read_row(
    cells: Mapping[str, Any], rules: RowRules, *, key: str, origin: str, meta: dict[str, JsonValue]
) -> Iterator[Record]:
    """Yield the pair with the left panel as its target, then that with the right one.

    Args:
        cells: value of every column; nothing is expected of it.
        rules: of the source.
        key: of the row.
        origin: of the row, for people.
        meta: what both pairs share.
    """
    panels = _panels(cells.get("image"), rules)
    for target, side in enumerate(SIDES):
        row = _Row(
            cells=cells,
            rules=rules,
            key=key,
            origin=f"{origin}, {SIDES[1 - target]} to {side}",
            meta=meta,
        )
        try:
            yield _pair(row, panels, target)
        except RefusedError as error:
            yield Rejected(
                key=f"{key}-{side}",
                origin=row.origin,
                reason=error.reason,
                sentence=str(error),
                picture=_small(panels[target]) if isinstance(panels, tuple) else None,
            )


def check_quality(scores: object, min_quality: int) -> int | None:
    """Return the least of the scores, None for a pair that nobody rated.

    Raises:
        RefusedError: a score is no number of 0 to 5, or the least one is below `min_quality`.
    """
    given = scores if isinstance(scores, Mapping) else {}
    values = [given.get(name) for name in SCORES]
    for name, value in zip(SCORES, values, strict=True):
        if value is not None and not _is_score(value):
            raise RefusedError(
                "bad_row", f"{name} must be a number of 0 to {BEST_SCORE}, got {shown(value)}"
            )
    least = None if None in values else min(int(value) for value in values if value is not None)
    if min_quality > 0 and (least is None or least < min_quality):
        found = ", ".join(f"{name} {value}" for name, value in zip(SCORES, values, strict=True))
        raise RefusedError(
            "failed_source_quality", f"scores must all be at least {min_quality}, got {found}"
        )
    return least


def open_composite(data: object) -> Image.Image:
    """Decode the picture of a row to RGB.

    Raises:
        RefusedError: no bytes, no picture, a damaged one, or too many pixels.
    """
    if isinstance(data, Mapping):
        data = data.get("bytes")
    if not isinstance(data, bytes) or not data:
        raise RefusedError("bad_row", "image must hold the bytes of a picture, got none")
    return flatten(decode_or_refuse(data, name="the row", max_pixels=_MAX_PIXELS))


@dataclass(frozen=True, kw_only=True)
class _Row:
    """One direction of a row; see `read_row`."""

    cells: Mapping[str, Any]
    rules: RowRules
    key: str
    origin: str
    meta: dict[str, JsonValue]


def _pair(row: _Row, panels: Panels | RefusedError, target: int) -> RawPair:
    score = check_quality(row.cells.get("quality_assessment"), row.rules.min_quality)
    described = _described(row.cells.get("description"), row.rules.min_quality)
    if isinstance(panels, RefusedError):
        raise panels
    item = subject_name(str(described.get("item") or ""))[:_MOST_LETTERS].rstrip()
    return RawPair(
        key=f"{row.key}-{SIDES[target]}",
        reference=panels[1 - target],
        target=panels[target],
        # Rows that show things of one name stay on one side of a split.
        subject=item.casefold() or row.key,
        origin=row.origin,
        caption=_caption(described, target),
        class_noun=item,
        meta=row.meta | _meta_of(row.cells, described, SIDES[target], score),
        licence=row.rules.licence,
        attribution=row.rules.attribution,
    )


def _panels(image: object, rules: RowRules) -> Panels | RefusedError:
    """Cut both panels once for both pairs."""
    try:
        return split_panels(open_composite(image), padding=rules.padding, inset=rules.inset)
    except RefusedError as error:
        return error


def _small(panel: Image.Image) -> Image.Image:
    """A copy to look at: a chunk may have many."""
    copy = panel.copy()
    copy.thumbnail(_LOOK_SIZE)
    return copy


def _described(description: object, min_quality: int) -> Mapping[str, Any]:
    if not isinstance(description, Mapping):
        raise RefusedError("bad_caption", f"description must be a record, got {shown(description)}")
    if min_quality > 0 and description.get("description_valid") is False:
        raise RefusedError(
            "failed_source_quality", "description_valid must not be false, got false"
        )
    return description


def _caption(described: Mapping[str, Any], panel: int) -> str:
    text = described.get(f"description_{panel}")
    if not isinstance(text, str) or not text.strip():
        raise RefusedError("bad_caption", f"description_{panel} must be text, got {shown(text)}")
    return text.strip()


def _meta_of(
    cells: Mapping[str, Any], described: Mapping[str, Any], side: str, score: int | None
) -> dict[str, JsonValue]:
    collection, category = cells.get("collection"), described.get("category")
    return {
        "target_panel": side,
        "least_score": score,
        "collection": printable(collection) if isinstance(collection, str) else None,
        "category": printable(category) if isinstance(category, str) else None,
    }


def _is_score(value: object) -> bool:
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and math.isfinite(value)
        and 0 <= value <= BEST_SCORE
    )
