"""Malformed tables, photos and models, and what each has to be counted as.

With one pair of an object (`pairs_per_subject=1`), a row of a table is two records, and a folder of
photos or a model is one.
"""

import io
import json
import math
from collections import Counter
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from benchmarks.damaged_pictures import cut, gigapixel, picture

_NAMES = ("mug", "-rf mug", "mug \n", "кружка", "%2e")
_ROWS, _ALBUMS, _MODELS = 25, 50, 50
NUM_SOURCE_RECORDS = 2 * _ROWS + _ALBUMS + _MODELS

_SCORES = ("compositeStructure", "objectConsistency", "imageQuality")
_SCHEMA = pa.schema(
    [
        ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        ("collection", pa.string()),
        ("quality_assessment", pa.struct([(name, pa.float64()) for name in _SCORES])),
        (
            "description",
            pa.struct(
                [
                    *(
                        (n, pa.string())
                        for n in ("item", "category", "description_0", "description_1")
                    ),
                    ("description_valid", pa.bool_()),
                ]
            ),
        ),
    ]
)


def _scored(score: float) -> dict[str, Any]:
    return {"quality_assessment": dict.fromkeys(_SCORES, score)}


def _shown(data: bytes | None) -> dict[str, Any]:
    return {"image": {"bytes": data, "path": None}}


def _described(row: dict[str, Any], **changes: object) -> dict[str, Any]:
    return {"description": row["description"] | changes}


# What is changed in a good row, and what its two records are counted as.
_ROW_DAMAGES: tuple[tuple[tuple[str, str], Callable[[Random, dict[str, Any]], Any]], ...] = (
    (("kept", "kept"), lambda rng, row: {}),
    (("bad_row",) * 2, lambda rng, row: _shown(None)),
    (("bad_row",) * 2, lambda rng, row: _shown(b"")),
    (("unreadable_picture",) * 2, lambda rng, row: _shown(cut(rng))),
    (("unsupported_picture",) * 2, lambda rng, row: _shown(b"<svg></svg>")),
    (("too_many_pixels",) * 2, lambda rng, row: _shown(gigapixel(rng))),
    (("bad_row",) * 2, lambda rng, row: _scored(math.nan)),
    (("bad_row",) * 2, lambda rng, row: _scored(9.0)),
    (("failed_source_quality",) * 2, lambda rng, row: _scored(2.0)),
    (("bad_caption",) * 2, lambda rng, row: {"description": None}),
    (("bad_caption", "kept"), lambda rng, row: _described(row, description_0=" \n")),
)


def write_table(folder: Path, rng: Random) -> Counter[str]:
    """Write rows in the published schema; how many records are to end as what."""
    expected: Counter[str] = Counter()
    rows = []
    for number in range(_ROWS):
        reasons, damage = _ROW_DAMAGES[rng.randrange(len(_ROW_DAMAGES))]
        expected.update(reasons)
        row = _good_row(number, rng)
        rows.append(row | damage(rng, row))
    folder.mkdir(parents=True)
    table = pa.Table.from_pylist(rows, schema=_SCHEMA)
    pq.write_table(table, folder / "rows é.parquet", row_group_size=10)
    return expected


def _good_row(number: int, rng: Random) -> dict[str, Any]:
    composite = Image.new("RGB", (2 * 64 + 32, 64 + 16), "green")
    for left in (8, 64 + 16):
        composite.paste(_boxed(rng, (64, 64)), (left, 8))
    buffer = io.BytesIO()
    composite.save(buffer, "PNG")
    return {
        **_shown(buffer.getvalue()),
        **_scored(5.0),
        "collection": "one",
        "description": {
            "item": f"thing {number}",
            "category": "things",
            "description_0": f"thing {number} on the left",
            "description_1": f"thing {number} on the right",
            "description_valid": True,
        },
    }


def _boxed(rng: Random, size: tuple[int, int]) -> Image.Image:
    """A patterned box on white."""
    photo = Image.new("RGB", size, "white")
    box = Image.open(io.BytesIO(picture(rng)))
    photo.paste(box, ((size[0] - box.width) // 2, (size[1] - box.height) // 2))
    return photo


def _photo(rng: Random) -> bytes:
    buffer = io.BytesIO()
    _boxed(rng, (96, 72)).save(buffer, "PNG")
    return buffer.getvalue()


def _both(data: Callable[[Random], bytes]) -> Callable[[Random], dict[str, bytes]]:
    return lambda rng: {"1.png": data(rng), "2.png": data(rng)}


# Files that are added to, or put in the place of, two good photos.
_ALBUM_DAMAGES: tuple[tuple[str, Callable[[Random], dict[str, bytes]]], ...] = (
    ("kept", lambda rng: {}),
    ("unreadable_picture", _both(cut)),
    ("unreadable_picture", _both(lambda rng: b"")),
    ("unsupported_picture", _both(lambda rng: b"<svg></svg>")),
    ("too_many_pixels", _both(gigapixel)),
    ("bad_row", lambda rng: {"metadata.json": b'{"class_noun": NaN'}),
    ("bad_row", lambda rng: {"metadata.json": b'{"class_noun": 7}'}),
    ("bad_caption", lambda rng: {"1.txt": b"\xff\xfe\x00", "2.txt": b"\xff\xfe\x00"}),
    ("bad_caption", lambda rng: {"1.txt": b" \n", "2.txt": b" \n"}),
    ("bad_caption", lambda rng: {"metadata.json": b"{}"}),
)


def write_albums(folder: Path, rng: Random) -> Counter[str]:
    """Write folders of two photos under hostile names; how many are to end as what."""
    expected: Counter[str] = Counter()
    for number in range(_ALBUMS):
        reason, damage = _ALBUM_DAMAGES[rng.randrange(len(_ALBUM_DAMAGES))]
        expected[reason] += 1
        changes = damage(rng)
        # A name that says nothing: what the object is, metadata alone tells.
        home = folder / f"IMG_{number:04d}"
        if reason != "bad_caption":
            home = folder / f"{rng.choice(_NAMES)} {number}"
        good = {"1.png": _photo(rng), "2.png": _photo(rng)}
        home.mkdir(parents=True)
        notes = {"class_noun": "mug", "licence": "CC0-1.0"}
        good["metadata.json"] = json.dumps(notes).encode()
        for name, data in (good | changes).items():
            (home / name).write_bytes(data)
    return expected


def box_glb(rng: Random) -> bytes:
    """A box whose sides show a picture."""
    # Its stubs leave most of it untyped.
    trimesh: Any = import_module("trimesh")
    box = trimesh.creation.box(extents=(1.0, 2.0, 1.0))
    box = trimesh.Trimesh(
        box.vertices[box.faces].reshape(-1, 3), np.arange(36).reshape(-1, 3), process=False
    )
    uv = np.tile([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]], (12, 1))
    material = trimesh.visual.material.PBRMaterial(
        baseColorTexture=Image.open(io.BytesIO(picture(rng))), roughnessFactor=1.0
    )
    box.visual = trimesh.visual.TextureVisuals(uv=uv, material=material)
    return bytes(trimesh.Scene(box).export(file_type="glb"))


def _shortened(rng: Random) -> bytes:
    whole = box_glb(rng)
    return whole[: rng.randint(12, len(whole) - 1)]


def _boastful(rng: Random) -> bytes:
    """A header that speaks of two gigabytes of JSON."""
    whole = bytearray(box_glb(rng))
    whole[12:16] = (2**31).to_bytes(4, "little")
    return bytes(whole)


# The ending of a model's file, and what is in it.
_MODEL_DAMAGES: tuple[tuple[str, str, Callable[[Random], bytes]], ...] = (
    ("kept", "glb", box_glb),
    ("bad_mesh", "glb", _shortened),
    ("bad_mesh", "glb", _boastful),
    ("bad_mesh", "glb", lambda rng: b""),
    ("bad_mesh", "glb", lambda rng: b"not a model"),
    ("bad_mesh", "obj", lambda rng: b"v nan 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n"),
    ("bad_mesh", "obj", lambda rng: b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 9\n"),
    ("bad_mesh", "obj", lambda rng: b"# a chair without a face\nv 0 0 0\n"),
    ("bad_caption", "glb", box_glb),
)


def write_models(folder: Path, rng: Random) -> Counter[str]:
    """Write models; how many are to end as what."""
    expected: Counter[str] = Counter()
    folder.mkdir(parents=True)
    for number in range(_MODELS):
        reason, ending, content = _MODEL_DAMAGES[rng.randrange(len(_MODEL_DAMAGES))]
        expected[reason] += 1
        # A number is no name, so nothing can be said of the model.
        name = f"{number:04d}" if reason == "bad_caption" else f"red chair é {number}"
        (folder / f"{name}.{ending}").write_bytes(content(rng))
    return expected
