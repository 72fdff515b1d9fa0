"""Small models made in the test: a box with a picture on it, in every format."""

import io
import zipfile
from pathlib import Path

import numpy as np
import trimesh
from PIL import Image
from trimesh.visual.material import PBRMaterial

# Quarters of the picture: red and green above, blue and yellow below.
QUARTERS = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0))

MTL = "newmtl paint\nKd 0.8 0.8 0.8\nKs 0 0 0\nd 1.0\nmap_Kd paint.png\n"

# A square in the plane z = 0, one side up, seen from +z; `vt` counts from below.
SQUARE = """mtllib square.mtl
v -1 -1 0
v 1 -1 0
v 1 1 0
v -1 1 0
vt 0 0
vt 1 0
vt 1 1
vt 0 1
usemtl paint
f 1/1 2/2 3/3 4/4
"""


def quarters(size: int = 64) -> Image.Image:
    picture = Image.new("RGB", (size, size))
    half = size // 2
    for index, color in enumerate(QUARTERS):
        picture.paste(color, (index % 2 * half, index // 2 * half, size, size))
        if index % 2 == 0:
            picture.paste(color, (0, index // 2 * half, half, size))
    return picture


def png(picture: Image.Image) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return stream.getvalue()


def box_glb(picture: Image.Image | None = None) -> bytes:
    """A box of 1 x 2 x 1 whose sides show the picture, y up."""
    box = trimesh.creation.box(extents=(1.0, 2.0, 1.0))
    box = trimesh.Trimesh(
        box.vertices[box.faces].reshape(-1, 3), np.arange(36).reshape(-1, 3), process=False
    )
    # Every triangle is half the picture.
    uv = np.tile([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]], (12, 1))
    material = PBRMaterial(baseColorTexture=picture or quarters(), roughnessFactor=1.0)
    box.visual = trimesh.visual.TextureVisuals(uv=uv, material=material)
    return bytes(trimesh.Scene(box).export(file_type="glb"))


def write_square(folder: Path, *, obj: str = SQUARE, mtl: str = MTL) -> Path:
    """Write an OBJ with its MTL and picture; return the OBJ."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "square.obj").write_text(obj, encoding="utf-8")
    (folder / "square.mtl").write_text(mtl, encoding="utf-8")
    (folder / "paint.png").write_bytes(png(quarters()))
    return folder / "square.obj"


def write_zip(path: Path, members: dict[str, bytes | str]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as container:
        for name, data in members.items():
            container.writestr(name, data)
    return path
