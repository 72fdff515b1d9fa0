"""glTF and GLB before a loader sees them: checked, with buffers and pictures fetched by us.

The loader swallows broken pictures and trusts counts, so it gets a document of plain geometry in
which every primitive is a mesh of its own, and the materials stay here.
"""

import base64
import binascii
import json
import struct
import urllib.parse
from dataclasses import dataclass
from typing import Any

from dreambooth3d.pairs.mesh_materials import (
    IDENTITY,
    Affine,
    AlphaMode,
    Color,
    Material,
    ReadFile,
    read_texture,
)
from dreambooth3d.pairs.sources.origin import printable
from dreambooth3d.vision.refusal import RefusedError

_MAGIC, _JSON_CHUNK, _BINARY_CHUNK = b"glTF", 0x4E4F534A, 0x004E4942
_MAX_ITEMS = 100_000
_MAX_VALUES = 60_000_000
_MAX_DEPTH = 64
_FLOAT = 5126
_TRIANGLES = 4
# Extensions that change nothing we draw, or that are drawn here.
_UNDERSTOOD_PREFIXES = ("KHR_materials_", "KHR_lights_", "KHR_xmp", "KHR_animation_")
_UNDERSTOOD = frozenset({"KHR_texture_transform", "EXT_texture_webp"})

# A glTF document is JSON of any shape until it is checked; what fails on the way is in _FAILURES.
Json = dict[str, Any]
_FAILURES = (ValueError, KeyError, IndexError, TypeError, AttributeError, OverflowError)


@dataclass(frozen=True, kw_only=True)
class GltfModel:
    """A checked document.

    Attributes:
        document: what a loader needs of it: geometry and nodes, its buffers named `0`, `1`, ...
        buffers: their bytes.
        materials: by the name of the mesh in `document`.
        copyright: what the document says about itself, or empty.
    """

    document: Json
    buffers: tuple[bytes, ...]
    materials: dict[str, Material]
    copyright: str


def parse_gltf(data: bytes, *, read: ReadFile) -> GltfModel:
    """Check a `.gltf` or `.glb` file and fetch what belongs to it.

    Raises:
        RefusedError: it is damaged, needs an unknown extension, or would take absurd memory.
    """
    try:
        document, binary = _split(data)
        _require_extensions(document)
        buffers = _buffers(document, binary, read)
        _require_sizes(document, buffers)
        _require_tree(document)
        materials = _materials(document, buffers, read)
        return _plain(document, buffers, materials)
    except _FAILURES as error:
        if isinstance(error, RefusedError):
            raise
        raise RefusedError(
            "bad_mesh",
            f"glTF must follow its specification, got {printable(repr(error))}; export again",
        ) from error
    except RecursionError as error:
        raise RefusedError("bad_mesh", "glTF must be flat, got deep nesting; export it") from error


def _split(data: bytes) -> tuple[Json, bytes | None]:
    """Return the document and the binary chunk of a GLB."""
    if data[:4] != _MAGIC:
        return _document(data), None
    if len(data) < 20:
        raise RefusedError("bad_mesh", f"GLB must have a header, got {len(data)} bytes; copy it")
    _, version, _, length, kind = struct.unpack_from("<4sIIII", data)
    if version != 2 or kind != _JSON_CHUNK or 20 + length > len(data):
        raise RefusedError(
            "bad_mesh", f"GLB must be whole and of version 2, got version {version} in "
            f"{len(data)} bytes; export again"
        )  # fmt: skip
    start = 20 + length
    binary = None
    if start + 8 <= len(data):
        size, kind = struct.unpack_from("<II", data, start)
        if kind == _BINARY_CHUNK:
            binary = data[start + 8 : start + 8 + size]
    return _document(data[20 : 20 + length]), binary


def _document(data: bytes) -> Json:
    document = json.loads(data.decode("utf-8-sig"))
    if not isinstance(document, dict) or not str(document["asset"]["version"]).startswith("2"):
        raise RefusedError("bad_mesh", "glTF must be of version 2, got another; convert it")
    return document


def _require_extensions(document: Json) -> None:
    for name in document.get("extensionsRequired", []):
        if name not in _UNDERSTOOD and not name.startswith(_UNDERSTOOD_PREFIXES):
            raise RefusedError(
                "bad_mesh",
                f"glTF must not need extensions, got {printable(str(name))}; export without it",
            )


def _buffers(document: Json, binary: bytes | None, read: ReadFile) -> tuple[bytes, ...]:
    buffers = []
    for index, buffer in enumerate(document.get("buffers", [])):
        uri = buffer.get("uri")
        data = binary if uri is None and index == 0 else _fetch(uri, read)
        if data is None or len(data) < buffer["byteLength"]:
            raise RefusedError(
                "bad_mesh",
                f"buffer {index} must have {buffer['byteLength']} bytes, "
                f"got {0 if data is None else len(data)}; copy the file again",
            )
        buffers.append(data)
    return tuple(buffers)


def _fetch(uri: object, read: ReadFile) -> bytes:
    if not isinstance(uri, str):
        raise RefusedError("bad_mesh", "buffer must have a place, got none; export as GLB")
    if uri.startswith("data:"):
        try:
            return base64.b64decode(uri.partition("base64,")[2], validate=True)
        except binascii.Error as error:
            raise RefusedError(
                "bad_mesh", f"data in a glTF must be base64, got {error}; export again"
            ) from error
    return read(urllib.parse.unquote(uri))


def _require_sizes(document: Json, buffers: tuple[bytes, ...]) -> None:
    """Keep counts that lie from taking memory; every value must be backed by a buffer."""
    views, accessors = document.get("bufferViews", []), document.get("accessors", [])
    total = sum(len(buffer) for buffer in buffers)
    for name in ("bufferViews", "accessors", "meshes", "nodes", "materials", "images", "textures"):
        if len(document.get(name, [])) > _MAX_ITEMS:
            raise RefusedError(
                "bad_mesh",
                f"glTF must have at most {_MAX_ITEMS} {name}, got {len(document[name])}; merge",
            )
    if sum(view["byteLength"] for view in views) > 4 * total + 1:
        raise RefusedError("bad_mesh", "glTF must not share bytes between many views; export again")
    # Primitives may share an accessor, but each gets its own copy of what it holds.
    drawn = [
        accessors[index]["count"]
        for mesh in document.get("meshes", [])
        for primitive in mesh["primitives"]
        for index in (*primitive["attributes"].values(), primitive.get("indices"))
        if index is not None
    ]
    if sum(accessor["count"] for accessor in accessors) + sum(drawn) > _MAX_VALUES:
        raise RefusedError(
            "bad_mesh", f"glTF must have at most {_MAX_VALUES} vertices and indices; simplify it"
        )
    for accessor in accessors:
        if accessor["count"] < 1 or "bufferView" not in accessor or "sparse" in accessor:
            raise RefusedError(
                "bad_mesh", "geometry must be plain, got a sparse or empty accessor; export again"
            )


def _require_tree(document: Json) -> None:
    """Refuse cycles and second parents: nodes must be a forest."""
    nodes = document.get("nodes", [])
    parents = [0] * len(nodes)
    for node in nodes:
        for child in node.get("children", []):
            parents[child] += 1
    depth, level = 0, [index for index, count in enumerate(parents) if count == 0]
    seen = 0
    while level:
        seen, depth = seen + len(level), depth + 1
        level = [child for index in level for child in nodes[index].get("children", [])]
        if max(parents, default=0) > 1 or depth > _MAX_DEPTH:
            break
    if seen != len(nodes):
        raise RefusedError(
            "bad_mesh", "nodes must be a tree, got a cycle or shared children; export again"
        )


def _materials(document: Json, buffers: tuple[bytes, ...], read: ReadFile) -> list[Material]:
    """Read the materials that some primitive uses; the others stay plain."""
    used = {
        primitive["material"]
        for mesh in document.get("meshes", [])
        for primitive in mesh["primitives"]
        if "material" in primitive
    }
    return [
        _material(document, material, buffers, read) if index in used else Material()
        for index, material in enumerate(document.get("materials", []))
    ]


def _material(
    document: Json, material: Json, buffers: tuple[bytes, ...], read: ReadFile
) -> Material:
    pbr, slot = material.get("pbrMetallicRoughness", {}), "baseColor"
    if specular := material.get("extensions", {}).get("KHR_materials_pbrSpecularGlossiness"):
        pbr, slot = specular, "diffuse"
    factor = [float(value) for value in pbr.get(f"{slot}Factor", (1.0, 1.0, 1.0, 1.0))]
    reference = pbr.get(f"{slot}Texture")
    roughness = float(pbr.get("roughnessFactor", 1.0 - float(pbr.get("glossinessFactor", 0.0))))
    mode: dict[str, AlphaMode] = {"OPAQUE": "opaque", "MASK": "mask", "BLEND": "blend"}
    color: Color = (factor[0], factor[1], factor[2])
    return Material(
        color=color,
        opacity=factor[3],
        texture=None if reference is None else _texture(document, reference, buffers, read),
        uv_transform=IDENTITY if reference is None else _transform(reference),
        alpha_mode=mode[material.get("alphaMode", "OPAQUE")],
        gloss=0.6 * (1.0 - min(max(roughness, 0.0), 1.0)),
        shininess=8.0 + 120.0 * (1.0 - min(max(roughness, 0.0), 1.0)) ** 2,
    )


def _texture(document: Json, reference: Json, buffers: tuple[bytes, ...], read: ReadFile) -> Any:
    if reference.get("texCoord", 0) != 0:
        raise RefusedError(
            "bad_mesh", "colour must use the first texture coordinates, got others; export again"
        )
    texture = document["textures"][reference["index"]]
    webp = texture.get("extensions", {}).get("EXT_texture_webp", {})
    source = webp.get("source", texture.get("source"))
    if source is None:
        raise RefusedError("bad_mesh", "texture must be PNG, JPEG or WebP, got none; export again")
    image = document["images"][source]
    name = str(image.get("uri", f"picture {source}"))[:80]
    if "bufferView" not in image:
        return read_texture(_fetch(image.get("uri"), read), name=name)
    view = document["bufferViews"][image["bufferView"]]
    start = view.get("byteOffset", 0)
    return read_texture(buffers[view["buffer"]][start : start + view["byteLength"]], name=name)


def _transform(reference: Json) -> Affine:
    change = reference.get("extensions", {}).get("KHR_texture_transform", {})
    if change.get("rotation", 0.0) or change.get("texCoord", 0):
        raise RefusedError("bad_mesh", "textures must not be rotated, got a rotation; bake it in")
    (right, down), (across, along) = change.get("offset", (0, 0)), change.get("scale", (1, 1))
    return (float(across), 0.0, float(right), 0.0, float(along), float(down))


def _plain(document: Json, buffers: tuple[bytes, ...], materials: list[Material]) -> GltfModel:
    """Make the document of geometry alone, each primitive a mesh with a name of ours."""
    meshes: list[Json] = []
    by_name: dict[str, Material] = {}
    parts_of: list[list[int]] = []
    for mesh in document.get("meshes", []):
        parts_of.append([])
        for primitive in mesh["primitives"]:
            _require_primitive(document, primitive)
            name = f"part-{len(meshes)}"
            index = primitive.get("material")
            by_name[name] = Material() if index is None else materials[index]
            parts_of[-1].append(len(meshes))
            meshes.append({"name": name, "primitives": [_primitive(primitive)]})
    kept: Json = {key: document[key] for key in ("accessors", "bufferViews") if key in document}
    plain: Json = {
        **kept,
        "asset": {"version": "2.0"},
        "buffers": [{**b, "uri": str(i)} for i, b in enumerate(document.get("buffers", []))],
        # One bare material: the loader keeps texture coordinates only where there is any.
        "materials": [{}],
        "meshes": meshes,
        **_nodes(document, parts_of),
    }
    text = document["asset"].get("copyright", "")
    return GltfModel(
        document=plain, buffers=buffers, materials=by_name, copyright=text if text else ""
    )


def _require_primitive(document: Json, primitive: Json) -> None:
    if primitive.get("mode", _TRIANGLES) not in (_TRIANGLES, 5):
        return
    names = ("POSITION", "NORMAL", "TEXCOORD_0")
    for name in names:
        accessor = primitive["attributes"].get(name)
        if accessor is not None and document["accessors"][accessor]["componentType"] != _FLOAT:
            raise RefusedError(
                "bad_mesh", f"{name} must be 32-bit floats, got integers; export unquantized"
            )


def _primitive(primitive: Json) -> Json:
    wanted = ("POSITION", "NORMAL", "TEXCOORD_0", "COLOR_0")
    attributes = primitive["attributes"]
    kept: Json = {name: attributes[name] for name in wanted if name in attributes}
    plain: Json = {"attributes": kept, "material": 0}
    return plain | {key: primitive[key] for key in ("indices", "mode") if key in primitive}


def _nodes(document: Json, parts_of: list[list[int]]) -> Json:
    """Copy the node tree; a node whose mesh has many primitives gets a child for each."""
    nodes: list[Json] = []
    wanted = ("children", "matrix", "translation", "rotation", "scale")
    for node in document.get("nodes", []):
        nodes.append({key: node[key] for key in wanted if key in node})
    for index, node in enumerate(document.get("nodes", [])):
        if "mesh" in node:
            first = len(nodes)
            nodes.extend({"mesh": part} for part in parts_of[node["mesh"]])
            if len(nodes) > _MAX_ITEMS:
                raise RefusedError(
                    "bad_mesh", f"glTF must show at most {_MAX_ITEMS} parts, got more; merge them"
                )
            children = [*nodes[index].get("children", []), *range(first, len(nodes))]
            nodes[index]["children"] = children
    scenes = document.get("scenes") or [{"nodes": _roots(document)}]
    return {"nodes": nodes, "scenes": [{"nodes": scenes[document.get("scene", 0)]["nodes"]}]}


def _roots(document: Json) -> list[int]:
    nodes = document.get("nodes", [])
    children = {child for node in nodes for child in node.get("children", [])}
    return [index for index in range(len(nodes)) if index not in children]
