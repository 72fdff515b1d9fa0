"""Parquet files in the published schema of Subjects200K, of rendered scenes."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from dreambooth3d.pairs.sources.scenes import ScenesSource

GREEN = (0, 255, 0)
SCHEMA = pa.schema(
    [
        ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        ("collection", pa.string()),
        (
            "quality_assessment",
            pa.struct(
                [
                    ("compositeStructure", pa.int64()),
                    ("objectConsistency", pa.int64()),
                    ("imageQuality", pa.int64()),
                ]
            ),
        ),
        (
            "description",
            pa.struct(
                [
                    ("item", pa.string()),
                    ("description_0", pa.string()),
                    ("description_1", pa.string()),
                    ("category", pa.string()),
                    ("description_valid", pa.bool_()),
                ]
            ),
        ),
    ]
)


def two_panels(index: int, *, size: int = 64) -> tuple[Image.Image, Image.Image]:
    """Two scenes of one object."""
    source = ScenesSource(pairs_per_subject=2, size=size)
    found = [source.render(2 * index + panel).target for panel in range(2)]
    assert isinstance(found[0], Image.Image)
    assert isinstance(found[1], Image.Image)
    return found[0], found[1]


def composite(
    left: Image.Image,
    right: Image.Image,
    *,
    padding: int = 8,
    is_framed: bool = False,
    strip: tuple[int, int, int] = GREEN,
) -> Image.Image:
    """Put two panels side by side, twice as wide as high.

    As published, one strip parts the panels and two are on the right; framed, each panel has its
    own four strips.
    """
    side = left.width
    canvas = Image.new("RGB", (2 * side + 4 * padding, side + 2 * padding), strip)
    canvas.paste(left, (padding, padding))
    canvas.paste(right, (side + (3 if is_framed else 2) * padding, padding))
    return canvas


def encoded(image: Image.Image, form: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=form, **({"quality": 95} if form == "JPEG" else {}))
    return buffer.getvalue()


def good_row(index: int, *, size: int = 64) -> dict[str, Any]:
    return {
        "image": {"bytes": encoded(composite(*two_panels(index, size=size))), "path": None},
        "collection": f"collection_{1 + index % 2}",
        "quality_assessment": {
            "compositeStructure": 5,
            "objectConsistency": 5,
            "imageQuality": 5,
        },
        "description": {
            "item": f"Thing {index}",
            "description_0": f"Thing {index} on the left.",
            "description_1": f"Thing {index} on the right.",
            "category": "Things",
            "description_valid": True,
        },
    }


def write_rows(
    path: Path,
    rows: Sequence[dict[str, Any]],
    *,
    row_group_size: int = 100,
    schema: pa.Schema = SCHEMA,
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist(list(rows), schema=schema)
    pq.write_table(table, path, row_group_size=row_group_size)
    return path
