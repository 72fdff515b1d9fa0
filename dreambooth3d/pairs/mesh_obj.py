"""Wavefront OBJ: text of vertices and polygons, with materials in MTL files beside it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from dreambooth3d.pairs.mesh_geometry import Doubles, Integers
from dreambooth3d.pairs.mesh_materials import Material, ReadFile, linear_light, parse_mtl
from dreambooth3d.pairs.mesh_model import Piece, require_finite
from dreambooth3d.pairs.mesh_polygons import triangulate
from dreambooth3d.pairs.sources.origin import printable
from dreambooth3d.vision.refusal import RefusedError

# Names that exporters write for "no material".
_NO_MATERIAL = frozenset({"", "(null)", "None", "none", "default", "Default"})
# Material, corners of a polygon, and how its corners are written: `v`, `v/t`, `v//n` or `v/t/n`.
_Kind: TypeAlias = tuple[str, int, str]
_FORMS = {"v": (0,), "v/t": (0, 1), "v//n": (0, 2), "v/t/n": (0, 1, 2)}


@dataclass(kw_only=True)
class _Lines:
    """The lines of an OBJ, sorted by what they say."""

    vertices: list[str] = field(default_factory=list)
    textures: list[str] = field(default_factory=list)
    normals: list[str] = field(default_factory=list)
    faces: dict[_Kind, list[str]] = field(default_factory=dict)
    libraries: list[str] = field(default_factory=list)

    def counts(self) -> tuple[int, int, int]:
        """Count what faces can refer to so far."""
        return len(self.vertices), len(self.textures), len(self.normals)


def read_obj(data: bytes, *, read: ReadFile, max_triangles: int) -> list[Piece]:
    """Read the triangles of an OBJ by material.

    Raises:
        RefusedError: bad_mesh: damaged, too large, or a material or texture is missing.
        ValueError: a number cannot be read.
    """
    lines = _sorted_lines(decode_text(data))
    count = sum((kind[1] - 2) * len(found) for kind, found in lines.faces.items())
    if not 0 < count <= max_triangles:
        raise RefusedError(
            "bad_mesh", f"model must have 1 to {max_triangles} triangles, got {count}; simplify it"
        )
    used = list(dict.fromkeys(kind[0] for kind in lines.faces))
    materials = _materials(lines.libraries, used, read)
    vertices = _table(lines.vertices, "vertices", 3)
    tables = {1: _table(lines.textures, "texture coordinates", 2)[:, :2]}
    tables[2] = _table(lines.normals, "normals", 3)
    return [
        _piece(kind, found, vertices, tables, materials[kind[0]])
        for kind, found in lines.faces.items()
    ]


def decode_text(data: bytes) -> str:
    """Decode a text of any age; the names in it need only agree with each other."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _sorted_lines(text: str) -> _Lines:
    lines, material = _Lines(), ""
    tables = {"v": lines.vertices, "vt": lines.textures, "vn": lines.normals}
    for line in text.replace("\\\r\n", " ").replace("\\\n", " ").splitlines():
        keyword, rest = [*line.split(maxsplit=1), "", ""][:2]
        if keyword in tables:
            tables[keyword].append(rest)
        elif keyword == "f":
            _add_face(lines, material, rest)
        elif keyword == "usemtl":
            material = " ".join(rest.split())
        elif keyword == "mtllib":
            lines.libraries.append(rest.strip().strip('"'))
    return lines


def _add_face(lines: _Lines, material: str, rest: str) -> None:
    words = rest.partition("#")[0].split()
    form = re.sub(r"-?\d+", "v", words[0]) if words else ""
    form = {"v": "v", "v/v": "v/t", "v/": "v", "v//v": "v//n", "v/v/v": "v/t/n"}.get(form, "")
    slashes = words[0].count("/") if words else 0
    if len(words) < 3:
        # Points and lines that some exporters write as faces show nothing.
        return
    if not form or any(word.count("/") != slashes for word in words):
        raise RefusedError(
            "bad_mesh",
            f"corners of a face must be written alike, got {printable(rest)}; export again",
        )
    if "-" in rest:
        words = [_counted_from_start(word, lines.counts()) for word in words]
    found = lines.faces.setdefault((material, len(words), form), [])
    found.append(" ".join(words).replace("/", " "))


def _counted_from_start(word: str, counts: Sequence[int]) -> str:
    """Turn `-1/-1` into numbers from 1: negative ones count back from the last line so far."""
    numbers = [
        number if not number.startswith("-") else str(count + 1 + int(number))
        for number, count in zip(word.split("/"), counts, strict=False)
    ]
    return "/".join(numbers)


def _table(lines: Sequence[str], what: str, columns: int) -> Doubles:
    """Numbers (N, >= columns) of lines that may be of several lengths."""
    if not lines:
        return np.zeros((0, columns))
    rows = [line.partition("#")[0].split() for line in lines]
    shortest = min(map(len, rows))
    if shortest < columns and not (what == "texture coordinates" and shortest == 1):
        raise RefusedError(
            "bad_mesh", f"{what} must have {columns} numbers, got {shortest}; export again"
        )
    table = np.array([row[:shortest] for row in rows], np.float64)
    return table if shortest >= columns else np.pad(table, ((0, 0), (0, columns - shortest)))


def _materials(
    libraries: Sequence[str], used: Sequence[str], read: ReadFile
) -> dict[str, Material]:
    """Find the material of every name that faces use."""
    found: dict[str, Material] = {}
    for library in dict.fromkeys(libraries):
        missing = [name for name in used if name not in found]
        found |= parse_mtl(decode_text(read(library)), used=missing, read=read)
    missing = [name for name in used if name not in found and name not in _NO_MATERIAL]
    if missing:
        raise RefusedError(
            "bad_mesh",
            f"materials must be in the model's MTL files, got no {printable(missing[0])} in "
            f"{printable(', '.join(libraries)) or 'none'}; add it",
        )
    return {name: found.get(name, Material()) for name in used}


def _piece(
    kind: _Kind,
    lines: Sequence[str],
    vertices: Doubles,
    tables: Mapping[int, Doubles],
    material: Material,
) -> Piece:
    """Triangles of the faces of one kind."""
    _, corners, form = kind
    columns = _FORMS[form]
    numbers = np.array(" ".join(lines).split(), np.int64).reshape(-1, corners, len(columns))
    faces = {column: numbers[..., place] - 1 for place, column in enumerate(columns)}
    for column, table in ((0, vertices), *sorted(tables.items())):
        if column in faces:
            _require_range(faces[column], len(table))
    polygons = vertices[faces[0]][..., :3]
    require_finite(polygons)
    owner_T, corner_T3 = triangulate(polygons)

    def spread(table: Doubles, column: int) -> Doubles:
        result: Doubles = table[faces[column][owner_T[:, None], corner_T3]]
        return result

    uv = spread(tables[1], 1) * (1.0, -1.0) + (0.0, 1.0) if 1 in faces else None
    return Piece(
        positions_T33=spread(vertices[:, :3], 0),
        normals_T33=spread(tables[2][:, :3], 2) if 2 in faces else None,
        uv_T32=uv,
        colors_T34=_colors(spread(vertices[:, 3:6], 0)) if vertices.shape[1] >= 6 else None,
        material=material,
    )


def _require_range(indices: Integers, count: int) -> None:
    if indices.size and not 0 <= indices.min() <= indices.max() < count:
        raise RefusedError(
            "bad_mesh",
            f"faces must name one of {count} lines, got {indices.min() + 1} to "
            f"{indices.max() + 1}; export again",
        )


def _colors(srgb_T33: Doubles) -> Doubles:
    """Linear RGBA (T, 3, 4) of colours written behind the vertices."""
    light = linear_light(np.clip(np.nan_to_num(srgb_T33), 0.0, 1.0))
    return np.concatenate([light, np.ones((*light.shape[:2], 1))], axis=2)
