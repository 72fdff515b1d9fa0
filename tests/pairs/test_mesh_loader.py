import base64
import json
import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from PIL import Image

from dreambooth3d.artifacts.place import Place
from dreambooth3d.errors import ConfigError
from dreambooth3d.pairs.mesh_files import list_models, open_files, require_safe_name
from dreambooth3d.pairs.mesh_loader import MeshLimits, load_mesh
from dreambooth3d.pairs.mesh_model import Mesh
from dreambooth3d.vision.refusal import RefusedError
from tests.pairs.mesh_samples import MTL, SQUARE, box_glb, png, quarters, write_square, write_zip

Change = Callable[[dict[str, Any]], object]


def load(folder: Path, name: str, container: str = "", **options: Any) -> Mesh:
    with open_files(Place.parse(str(folder)), container) as files:
        require_safe_name(name)
        return load_mesh(files, name, **options)


def refusal(folder: Path, name: str = "square.obj", container: str = "", **options: Any) -> str:
    with pytest.raises(RefusedError) as caught:
        load(folder, name, container, **options)
    assert caught.value.reason == "bad_mesh"
    return str(caught.value)


def corners(mesh: Mesh) -> np.ndarray:
    return np.concatenate([part.positions_T33 for part in mesh.parts]).reshape(-1, 3)


def square(folder: Path, **files: str) -> Mesh:
    write_square(folder, **files)
    return load(folder, "square.obj")


def edit_glb(data: bytes, change: Change) -> bytes:
    """Change the document of a GLB, and leave its binary part."""
    (length,) = struct.unpack_from("<I", data, 12)
    document = json.loads(data[20 : 20 + length])
    change(document)
    text = json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    rest = data[20 + length :]
    head = struct.pack("<4sIIII", b"glTF", 2, 20 + len(text) + len(rest), len(text), 0x4E4F534A)
    return head + text + rest


# --- OBJ


def test_a_square_is_centred_and_of_radius_1(tmp_path: Path) -> None:
    mesh = square(tmp_path, obj=SQUARE.replace("v 1 ", "v 5 ").replace("v -1 ", "v 3 "))
    assert np.linalg.norm(corners(mesh), axis=1) == pytest.approx(1.0)
    assert mesh.num_triangles == 2
    assert mesh.parts[0].material.texture is not None
    assert mesh.parts[0].normals_T33 == pytest.approx(np.broadcast_to([0, 0, 1.0], (2, 3, 3)))


@pytest.mark.parametrize(
    "face",
    [
        "f 1/1 2/2 3/3 4/4",
        "f -4/-4 -3/-3 -2/-2 -1/-1",
        "f 1/1 2/2 \\\n 3/3 4/4",
        "f 1/1 2/2 3/3 4/4 # c",
    ],
)
def test_corners_may_be_counted_both_ways(tmp_path: Path, face: str) -> None:
    mesh = square(tmp_path, obj=SQUARE.replace("f 1/1 2/2 3/3 4/4", face))
    assert mesh.parts[0].uv_T32[0].tolist() == [[0, 1], [1, 1], [1, 0]]


def test_polygons_of_all_kinds_mix_in_one_material(tmp_path: Path) -> None:
    more = "vn 0 0 -1\nf 1//1 2//1 3//1\nf 1/1/1 2/2/1 3/3/1\nf 1 2 3\n"
    mesh = square(tmp_path, obj=SQUARE + more)
    assert mesh.num_triangles == 5
    # Faces without coordinates show the mean of the texture.
    textured, bare = mesh.parts
    assert (len(textured.positions_T33), len(bare.positions_T33)) == (3, 2)
    assert bare.material.texture is None
    assert bare.material.color == pytest.approx([0.5, 0.5, 0.25], abs=0.01)


def test_up_and_rotation_turn_a_model(tmp_path: Path) -> None:
    write_square(tmp_path, obj=SQUARE.replace(" 0\n", " 0\n", 1))
    standing = load(tmp_path, "square.obj", up="z")
    assert np.ptp(corners(standing), axis=0) == pytest.approx([2**0.5, 0, 2**0.5], abs=1e-6)
    assert standing.parts[0].normals_T33[0, 0] == pytest.approx([0, 1, 0])
    turned = load(tmp_path, "square.obj", rotation=(0, 0, 1, 0, 1, 0, -1, 0, 0))
    assert turned.parts[0].normals_T33[0, 0] == pytest.approx([1, 0, 0])
    assert "rotation must be 9 finite numbers, got [0.0]" in refusal(tmp_path, rotation=(0.0,))


def test_vertex_colours_are_read(tmp_path: Path) -> None:
    obj = "v 0 0 0 1 0 0\nv 1 0 0 0 1 0\nv 1 1 0 0 0 1\nf 1 2 3\n"
    assert square(tmp_path, obj=obj).parts[0].colors_T34[0, :, :3].tolist() == np.eye(3).tolist()


def test_materials_are_read(tmp_path: Path) -> None:
    mtl = "newmtl  paint\n\tKd 1 0.5 0\n\tKs 1 1 1\n\tNs 500\n\tTr 0.75\n"
    material = square(tmp_path, mtl=mtl).parts[0].material
    assert material.color == pytest.approx((1.0, 0.2140, 0.0), abs=1e-4)
    assert (material.opacity, material.alpha_mode) == (0.25, "blend")
    assert (material.gloss, material.shininess) == (0.5, 128.0)


def test_options_of_a_texture_move_it(tmp_path: Path) -> None:
    mtl = MTL.replace("map_Kd", "map_Kd -clamp on -s 0.5 0.5 1 -o 0.25 0.25 0 -bm 1")
    uv = square(tmp_path, mtl=mtl).parts[0].uv_T32
    assert uv.reshape(-1, 2).min(axis=0) == pytest.approx([0.25, 0.25])
    assert uv.reshape(-1, 2).max(axis=0) == pytest.approx([0.75, 0.75])
    assert "option of a texture must be known" in bad_square(
        tmp_path, mtl=MTL.replace("map_Kd", "map_Kd -odd 1")
    )


def bad_square(folder: Path, **files: str) -> str:
    write_square(folder, **files)
    return refusal(folder)


def test_exporters_names_for_no_material_are_grey(tmp_path: Path) -> None:
    mesh = square(tmp_path, obj=SQUARE.replace("usemtl paint", "usemtl (null)"))
    assert mesh.parts[0].material.texture is None


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({"obj": SQUARE.replace("v 1 1 0", "v nan 1 0")}, "vertices must be finite numbers"),
        ({"obj": SQUARE.replace("v 1 1 0", "v 1e999 1 0")}, "vertices must be finite numbers"),
        ({"obj": SQUARE.replace("v 1 1 0", "v 1 x 0")}, "model must be sound"),
        ({"obj": SQUARE.replace("v 1 1 0", "v 1 1")}, "vertices must have 3 numbers, got 2"),
        ({"obj": SQUARE.replace("vt 1 1", "vt nan 1")}, "texture coordinates must be finite"),
        ({"obj": SQUARE.replace("3/3", "9/3")}, "faces must name one of 4 lines, got 1 to 9"),
        ({"obj": SQUARE.replace("3/3", "0/3")}, "faces must name one of 4 lines, got 0 to 4"),
        ({"obj": SQUARE.replace("3/3", "3/9")}, "faces must name one of 4 lines"),
        ({"obj": SQUARE.replace("3/3", "3")}, "corners of a face must be written alike"),
        ({"obj": SQUARE.replace("3/3", "a/b")}, "model must be sound"),
        (
            {"obj": SQUARE.replace("v 1 1 0", "v 1 -1 0").replace("v -1 1 0", "v 1 -1 0")},
            "zero area",
        ),
        ({"obj": "v 1 1 1\nv 1 1 1\nv 1 1 1\nf 1 2 3\n"}, "model must have an extent, got 0.0"),
        ({"obj": "v 0 0 0\nl 1 1\n"}, "model must have 1 to 2000000 triangles, got 0"),
        ({"obj": ""}, "triangles, got 0"),
        ({"obj": "\0\x01\x02"}, "triangles, got 0"),
        (
            {"obj": SQUARE.replace("square.mtl", "other.mtl")},
            "file must be there, got nothing at other.mtl",
        ),
        ({"obj": SQUARE.replace("mtllib square.mtl", "")}, "got no paint in none"),
        ({"obj": SQUARE.replace("usemtl paint", "usemtl rust")}, "got no rust in square.mtl"),
        (
            {"obj": SQUARE.replace("square.mtl", "../square.mtl")},
            "must be relative and inside the source",
        ),
        (
            {"mtl": MTL.replace("paint.png", "../../etc/passwd")},
            "inside the source, got ../../etc/passwd",
        ),
        ({"mtl": MTL.replace("paint.png", "/etc/passwd")}, "inside the source, got /etc/passwd"),
        ({"mtl": MTL.replace("paint.png", "C:\\a.png")}, "must be relative and inside the source"),
        ({"mtl": MTL.replace("paint.png", "file:///etc/passwd")}, "must be relative and inside"),
        (
            {"mtl": MTL.replace("paint.png", "none.png")},
            "file must be there, got nothing at none.png",
        ),
        ({"mtl": MTL.replace("paint.png", "square.obj")}, "texture: image must be"),
        ({"mtl": MTL.replace("paint.png", ".")}, "must be relative and inside"),
        ({"mtl": MTL.replace("0.8 0.8 0.8", "red")}, "kd of a material must be numbers, got red"),
        ({"mtl": MTL.replace("d 1.0", "d nan")}, "numbers of a material must be finite"),
    ],
)
def test_a_broken_obj_is_refused_in_one_sentence(
    tmp_path: Path, files: dict[str, str], sentence: str
) -> None:
    assert sentence in bad_square(tmp_path / "inner", **files)


def test_files_above_the_model_are_found_inside_the_source(tmp_path: Path) -> None:
    write_square(tmp_path / "deep")
    (tmp_path / "deep" / "paint.png").rename(tmp_path / "paint.png")
    (tmp_path / "deep" / "square.mtl").write_text(MTL.replace("paint.png", "..\\paint.png"))
    assert load(tmp_path, "deep/square.obj").parts[0].material.texture is not None


def test_links_that_lead_out_are_refused(tmp_path: Path) -> None:
    write_square(tmp_path / "inside")
    (tmp_path / "secret.png").write_bytes(png(quarters()))
    (tmp_path / "inside" / "paint.png").unlink()
    (tmp_path / "inside" / "paint.png").symlink_to(tmp_path / "secret.png")
    assert "got a link or a device at paint.png" in refusal(tmp_path / "inside")
    (tmp_path / "inside" / "paint.png").unlink()
    os.mkfifo(tmp_path / "inside" / "paint.png")
    assert "got a link or a device at paint.png" in refusal(tmp_path / "inside")


def test_absurd_sizes_are_refused(tmp_path: Path) -> None:
    write_square(tmp_path)
    assert "at most 10 bytes" in refusal(tmp_path, limits=MeshLimits(max_bytes=10))
    assert "1 to 1 triangles, got 2" in refusal(tmp_path, limits=MeshLimits(max_triangles=1))
    with pytest.raises(ConfigError, match="max_triangles must be at least 1"):
        MeshLimits(max_triangles=0)


def test_a_texture_with_a_gigapixel_header_is_refused(tmp_path: Path) -> None:
    write_square(tmp_path)
    head = bytearray(png(Image.new("L", (8, 8))))
    head[16:24] = struct.pack(">II", 60_000, 60_000)
    (tmp_path / "paint.png").write_bytes(head)
    assert "texture: " in refusal(tmp_path)


# --- zips


def test_a_model_in_a_zip_equals_the_one_in_a_folder(tmp_path: Path) -> None:
    write_square(tmp_path / "plain")
    members = {f"m/{p.name}": p.read_bytes() for p in (tmp_path / "plain").iterdir()}
    write_zip(tmp_path / "all.zip", {**members, "__MACOSX/m/._square.obj": b""})
    (model,) = list_models(Place.parse(str(tmp_path)))[:1]
    assert model.origin == "all.zip/m/square.obj"
    packed = load(tmp_path, model.name, model.container)
    assert corners(packed).tobytes() == corners(load(tmp_path, "plain/square.obj")).tobytes()


def test_hostile_zips_are_refused(tmp_path: Path) -> None:
    bomb = {"bomb.obj": b"v 0 0 0\n" * 2_000_000}
    write_zip(tmp_path / "bomb.zip", bomb)
    limits = MeshLimits(max_bytes=1_000_000)
    assert "at most 1000000 bytes" in refusal(tmp_path, "bomb.obj", "bomb.zip", limits=limits)
    write_zip(tmp_path / "climb.zip", {"../up.obj": SQUARE, "/abs.obj": SQUARE})
    for name in ("../up.obj", "/abs.obj"):
        refusal(tmp_path, name, "climb.zip")
    climbing = MTL.replace("paint.png", "../../x")
    write_zip(tmp_path / "out.zip", {"square.obj": SQUARE, "square.mtl": climbing})
    assert "inside the source" in refusal(tmp_path, "square.obj", "out.zip")
    assert "got none named square.obj" in refusal(tmp_path, "square.obj", "bomb.zip")


def test_broken_zips_are_refused(tmp_path: Path) -> None:
    whole = write_zip(tmp_path / "whole.zip", {"square.obj": SQUARE}).read_bytes()
    (tmp_path / "cut.zip").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.zip").write_text("no zip")
    damaged = bytearray(whole)
    damaged[60:90] = bytes(30)
    (tmp_path / "bits.zip").write_bytes(damaged)
    locked = bytearray(whole)
    for start, offset in ((whole.find(b"PK\x03\x04"), 6), (whole.find(b"PK\x01\x02"), 8)):
        locked[start + offset] |= 1
    (tmp_path / "lock.zip").write_bytes(locked)
    for name in ("cut.zip", "text.zip", "none.zip"):
        refusal(tmp_path, "square.obj", name)
    for name in ("bits.zip", "lock.zip"):
        assert "damaged or locked square.obj" in refusal(tmp_path, "square.obj", name)
    listed = {model.origin for model in list_models(Place.parse(str(tmp_path)))}
    assert {"cut.zip", "text.zip", "whole.zip/square.obj"} <= listed


# --- glTF


def glb(folder: Path, change: Change | None = None) -> Path:
    data = box_glb()
    folder.mkdir(exist_ok=True)
    (folder / "box.glb").write_bytes(edit_glb(data, change) if change else data)
    return folder


def test_a_glb_is_loaded_with_its_texture(tmp_path: Path) -> None:
    mesh = load(glb(tmp_path), "box.glb")
    assert mesh.num_triangles == 12
    assert np.ptp(corners(mesh), axis=0) == pytest.approx(np.array([1, 2, 1]) / 1.5**0.5, abs=1e-5)
    (part,) = mesh.parts
    assert part.material.texture is not None
    assert part.material.texture.size == (64, 64)
    # Coordinates count from above, as the file has them.
    assert part.uv_T32[0] == pytest.approx(np.array([[0, 1], [1, 1], [1, 0]]), abs=1e-6)


def test_gltf_finds_its_files_beside_it(tmp_path: Path) -> None:
    box = trimesh.load_scene(trimesh.util.wrap_as_stream(box_glb()), file_type="glb")
    for name, data in box.export(file_type="gltf").items():
        (tmp_path / name).write_bytes(data)
    assert load(tmp_path, "model.gltf").num_triangles == 12
    text = (tmp_path / "model.gltf").read_text()
    document = json.loads(text)
    uri = document["buffers"][0]["uri"]
    inline = base64.b64encode((tmp_path / uri).read_bytes()).decode()
    document["buffers"][0]["uri"] = f"data:application/octet-stream;base64,{inline}"
    (tmp_path / "inline.gltf").write_text(json.dumps(document))
    assert load(tmp_path, "inline.gltf").num_triangles == 12
    (tmp_path / "climbs.gltf").write_text(text.replace(uri, "../../etc/passwd"))
    assert "inside the source" in refusal(tmp_path, "climbs.gltf")


def test_nodes_place_their_meshes(tmp_path: Path) -> None:
    def twice(document: dict[str, Any]) -> None:
        document["nodes"] = [
            {"children": [1, 2]},
            {"mesh": 0, "translation": [-3, 0, 0]},
            {"mesh": 0, "translation": [3, 0, 0], "scale": [1, -1, 1]},
        ]
        document["scenes"], document["scene"] = [{"nodes": [0]}], 0

    mesh = load(glb(tmp_path, twice), "box.glb")
    assert mesh.num_triangles == 24
    assert np.ptp(corners(mesh), axis=0) == pytest.approx(np.array([7, 2, 1]) / 13.5**0.5, abs=1e-5)
    sides = corners(mesh)[:, 0]
    assert ((sides < -0.5) | (sides > 0.5)).all()
    limits = MeshLimits(max_triangles=23)
    assert "got 24" in refusal(tmp_path, "box.glb", limits=limits)


def test_a_factor_colours_the_texture(tmp_path: Path) -> None:
    def blue(document: dict[str, Any]) -> None:
        document["materials"][0]["pbrMetallicRoughness"]["baseColorFactor"] = [0, 0, 1, 0.5]
        document["materials"][0]["alphaMode"] = "BLEND"
        document["asset"]["copyright"] = "by Ann"

    mesh = load(glb(tmp_path, blue), "box.glb")
    material = mesh.parts[0].material
    assert (material.color, material.opacity, material.alpha_mode) == ((0, 0, 1), 0.5, "blend")
    assert mesh.copyright == "by Ann"


def set_in(*path: str | int, to: Any) -> Change:
    def change(document: dict[str, Any]) -> None:
        item: Any = document
        for key in path[:-1]:
            item = item[key]
        item[path[-1]] = to

    return change


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            set_in("extensionsRequired", to=["KHR_draco_mesh_compression"]),
            "must not need extensions",
        ),
        (set_in("asset", "version", to="1.0"), "must be of version 2"),
        (set_in("accessors", 0, "count", to=10**12), "at most 60000000 vertices"),
        (set_in("accessors", 0, "count", to=-1), "sparse or empty"),
        (set_in("accessors", 0, "sparse", to={"count": 1}), "sparse or empty"),
        (set_in("accessors", 0, "count", to=5000), "model must be sound"),
        (set_in("bufferViews", to=[{"buffer": 0, "byteLength": 10**9}]), "share bytes"),
        (set_in("buffers", 0, "byteLength", to=10**9), "buffer 0 must have 1000000000 bytes"),
        (set_in("nodes", to=[{"children": [1]}, {"children": [0]}]), "nodes must be a tree"),
        (set_in("nodes", to=[{"children": [1, 1]}, {"mesh": 0}]), "nodes must be a tree"),
        (set_in("nodes", to=[{}]), "triangles, got 0"),
        (set_in("materials", 0, "alphaMode", to="GLOW"), "glTF must follow its specification"),
        (set_in("images", 0, "bufferView", to=0), "texture: image must be"),
        (set_in("images", 0, to={"uri": "../x.png"}), "inside the source"),
        (set_in("textures", 0, to={}), "texture must be PNG, JPEG or WebP"),
        (set_in("meshes", 0, "primitives", 0, "attributes", to={}), "model must be sound"),
        (set_in("meshes", to="many"), "glTF must follow its specification"),
        (set_in("nodes", to=[{"mesh": 0, "matrix": [0] * 16}]), "model must have an extent"),
        (set_in("nodes", to=[{"mesh": 0, "translation": [float("nan")] * 3}]), "must be finite"),
        (
            set_in("nodes", to=[*({"mesh": 0} for _ in range(150_000))]),
            "glTF must have at most 100000 nodes",
        ),
    ],
)
def test_a_broken_glb_is_refused_in_one_sentence(
    tmp_path: Path, change: Change, sentence: str
) -> None:
    assert sentence in refusal(glb(tmp_path, change), "box.glb")


def test_damaged_bytes_never_raise_anything_else(tmp_path: Path) -> None:
    write_square(tmp_path)
    sources = {"box.glb": box_glb(), "square.obj": (tmp_path / "square.obj").read_bytes()}
    rng = np.random.default_rng(5)
    reasons = []
    for name, whole in sources.items():
        for _ in range(60):
            data = bytearray(
                whole[: int(rng.integers(len(whole)))] if rng.random() < 0.3 else whole
            )
            # Most of a GLB is its picture; damage the part that a loader reads.
            for place in rng.integers(min(len(data), 1500) + 1, size=4):
                data[place : place + 1] = bytes([int(rng.integers(256))])
            (tmp_path / name).write_bytes(data)
            try:
                load(tmp_path, name)
            except RefusedError as error:
                reasons.append(error.reason)
    assert set(reasons) == {"bad_mesh"}
    assert len(reasons) > 40


def test_a_zip_is_never_unpacked_to_disk(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as container:
        container.writestr("square.obj", SQUARE)
    before = sorted(tmp_path.rglob("*"))
    refusal(tmp_path, "square.obj", "a.zip")
    assert sorted(tmp_path.rglob("*")) == before
