"""Load a model file: GLB and glTF, or OBJ with its MTL files."""

import io
import json
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from trimesh.exchange.gltf import load_gltf
from trimesh.scene.transforms import SceneGraph

from dreambooth3d.artifacts.settings import require_range
from dreambooth3d.pairs.mesh_files import Files, resolve_reference
from dreambooth3d.pairs.mesh_geometry import Doubles, turned
from dreambooth3d.pairs.mesh_gltf import parse_gltf
from dreambooth3d.pairs.mesh_materials import Material, ReadFile
from dreambooth3d.pairs.mesh_model import Mesh, Piece, assemble, require_finite
from dreambooth3d.pairs.mesh_obj import read_obj
from dreambooth3d.pairs.sources.origin import printable
from dreambooth3d.vision.refusal import RefusedError

UpAxis: TypeAlias = Literal["y", "z"]

# Of the loader on damaged input; it has no exception of its own.
_FAILURES = (
    ValueError,
    KeyError,
    IndexError,
    TypeError,
    AttributeError,
    AssertionError,
    ArithmeticError,
    NotImplementedError,
    RecursionError,
    MemoryError,
    struct.error,
)


@dataclass(frozen=True, kw_only=True)
class MeshLimits:
    """What a model may take.

    Attributes:
        max_bytes: of any one file.
        max_triangles: drawn, instances counted each.
    """

    max_bytes: int = 256_000_000
    max_triangles: int = 2_000_000

    def __post_init__(self) -> None:
        require_range(self, "max_bytes", "max_triangles", least=1)


def load_mesh(
    files: Files,
    name: str,
    *,
    up: UpAxis = "y",
    rotation: Sequence[float] = (),
    limits: MeshLimits | None = None,
) -> Mesh:
    """Load a GLB, glTF or OBJ model with its materials and textures.

    Args:
        files: where it and the files it mentions are.
        name: of the model among `files`.
        up: axis of an OBJ that points up; glTF says y itself.
        rotation: rows (9,) of a matrix that is applied before; empty for none.
        limits: what it may take.

    Raises:
        RefusedError: bad_mesh, with what must hold and what was found.
    """
    allowed = limits or MeshLimits()
    data = files.read(name, allowed.max_bytes)

    def read(reference: str) -> bytes:
        return files.read(resolve_reference(name, reference), allowed.max_bytes)

    try:
        if name.lower().endswith(".obj"):
            found = read_obj(data, read=read, max_triangles=allowed.max_triangles)
            return Mesh(parts=assemble(found, _upright(up, rotation)))
        pieces, copyright = _gltf_pieces(data, read, allowed.max_triangles)
        return Mesh(parts=assemble(pieces, _upright("y", rotation)), copyright=copyright)
    except RefusedError:
        raise
    except _FAILURES as error:
        raise RefusedError(
            "bad_mesh", f"model must be sound, got {printable(repr(error))}; export it again"
        ) from error


def _gltf_pieces(data: bytes, read: ReadFile, max_triangles: int) -> tuple[list[Piece], str]:
    """Load glTF; the library decodes geometry and nodes only."""
    model = parse_gltf(data, read=read)
    buffers: Any = {str(index): data for index, data in enumerate(model.buffers)}
    document = json.dumps(model.document).encode("utf-8")
    loaded: Any = load_gltf(io.BytesIO(document), resolver=buffers)
    graph: Any = SceneGraph()
    for edge in loaded.get("graph", []):
        # The library takes a matrix with NaN for the identity.
        require_finite(np.asarray(edge["matrix"]))
        graph.update(**edge)
    placed = [graph.get(node) for node in sorted(graph.nodes_geometry)]
    shown = [(matrix, str(name)) for matrix, name in placed if "faces" in loaded["geometry"][name]]
    count = sum(len(loaded["geometry"][name]["faces"]) for _, name in shown)
    if not 0 < count <= max_triangles:
        raise RefusedError(
            "bad_mesh", f"model must have 1 to {max_triangles} triangles, got {count}; simplify it"
        )
    pieces = [
        _gltf_piece(loaded["geometry"][name], np.asarray(matrix), model.materials[name])
        for matrix, name in shown
    ]
    return pieces, model.copyright


def _gltf_piece(arrays: Mapping[str, Any], matrix_44: Doubles, material: Material) -> Piece:
    """Bring one geometry of the library to its place in the scene."""
    faces_T3 = np.asarray(arrays["faces"], np.int64)
    vertices_V3 = np.asarray(arrays["vertices"], np.float64)
    if not 0 <= faces_T3.min() <= faces_T3.max() < len(vertices_V3):
        raise RefusedError(
            "bad_mesh", f"indices must be below {len(vertices_V3)}, got {faces_T3.max()}; export"
        )
    matrix_33 = matrix_44[:3, :3]
    visual, normals_V3 = arrays.get("visual"), arrays.get("vertex_normals")
    turned_V3 = None
    # A flattening matrix leaves no normals to turn; they are then those of the triangles.
    if normals_V3 is not None and abs(np.linalg.det(matrix_33)) > 1e-30:
        turned_V3 = turned(np.asarray(normals_V3, np.float64), _inverse(matrix_33).T)
    uv_V2 = getattr(visual, "uv", None)
    colors_VC = getattr(visual, "vertex_attributes", {}).get("color")
    return Piece(
        positions_T33=(turned(vertices_V3, matrix_33) + matrix_44[:3, 3])[faces_T3],
        normals_T33=None if turned_V3 is None else turned_V3[faces_T3],
        # The library counts v from below.
        uv_T32=None if uv_V2 is None else (np.asarray(uv_V2) * (1, -1) + (0, 1))[faces_T3],
        colors_T34=None if colors_VC is None else _linear_rgba(colors_VC)[faces_T3],
        material=material,
    )


def _inverse(matrix_33: Doubles) -> Doubles:
    return np.asarray(np.linalg.inv(matrix_33), np.float64)


def _linear_rgba(colors_VC: NDArray[Any]) -> Doubles:
    """Colours (V, 4), 0 to 1, of integers or floats with or without alpha."""
    is_whole = np.issubdtype(colors_VC.dtype, np.integer)
    scale = float(np.iinfo(colors_VC.dtype).max) if is_whole else 1.0
    rgba_V4 = np.ones((len(colors_VC), 4))
    rgba_V4[:, : colors_VC.shape[1]] = colors_VC / scale
    return np.clip(np.nan_to_num(rgba_V4), 0.0, 1.0)


def _upright(up: UpAxis, rotation: Sequence[float]) -> Doubles:
    """Return the rotation (3, 3) that puts a model on its feet, y up."""
    if len(rotation) not in (0, 9) or not all(math.isfinite(value) for value in rotation):
        raise RefusedError(
            "bad_mesh", f"rotation must be 9 finite numbers, got {list(rotation)}; correct it"
        )
    turn = np.array(rotation, np.float64).reshape(3, 3) if rotation else np.eye(3)
    if up == "z":
        turn = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]]) @ turn
    return turn
