import hashlib
import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dreambooth3d.artifacts.place import Place
from dreambooth3d.errors import ConfigError
from dreambooth3d.pairs.mesh_camera import Shot
from dreambooth3d.pairs.mesh_files import PlaceFiles
from dreambooth3d.pairs.mesh_geometry import Floats
from dreambooth3d.pairs.mesh_light import Light, cut_out, encode, mask_of, studio_light
from dreambooth3d.pairs.mesh_loader import load_mesh
from dreambooth3d.pairs.mesh_materials import Material
from dreambooth3d.pairs.mesh_model import Mesh, Piece, assemble
from dreambooth3d.pairs.mesh_renderer import Renderer, renderer
from tests.pairs.mesh_samples import QUARTERS, box_glb, write_square

FRONT = Shot(azimuth_deg=0.0, elevation_deg=0.0, size=64)
# Light from everywhere alike shows a surface in its own colour.
EVEN = Light(sky=(1, 1, 1), floor=(1, 1, 1), key=(0, 0, 0), key_direction=(0, 1, 0))


@pytest.fixture(scope="module")
def studio() -> Renderer:
    try:
        return renderer()
    except ConfigError as error:
        pytest.skip(f"needs EGL: {error}")


def sheet(z: float, half: float, material: Material) -> Piece:
    """A square that faces +z."""
    corners = np.array([[-half, -half, z], [half, -half, z], [half, half, z], [-half, half, z]])
    return Piece(
        positions_T33=corners[[[0, 1, 2], [0, 2, 3]]],
        normals_T33=None,
        uv_T32=np.array([[0, 1], [1, 1], [1, 0], [0, 0.0]])[[[0, 1, 2], [0, 2, 3]]],
        colors_T34=None,
        material=material,
    )


def paint(*color: float, opacity: float = 1.0) -> Material:
    red, green, blue = color
    mode = "blend" if opacity < 1.0 else "opaque"
    return Material(color=(red, green, blue), opacity=opacity, alpha_mode=mode)  # type: ignore[arg-type]


def mesh_of(*pieces: Piece) -> Mesh:
    return Mesh(parts=assemble(pieces, np.eye(3)))


def shoot(studio: Renderer, mesh: Mesh, shot: Shot = FRONT, light: Light = EVEN) -> Floats:
    with studio.stage(mesh) as stage:
        return stage.photograph(shot, light)


def box_of(mask: np.ndarray) -> tuple[int, int, int, int]:
    rows, columns = np.nonzero(mask.any(axis=1))[0], np.nonzero(mask.any(axis=0))[0]
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def box_mesh(tmp_path: Path) -> Mesh:
    (tmp_path / "box.glb").write_bytes(box_glb())
    return load_mesh(PlaceFiles(place=Place.parse(str(tmp_path))), "box.glb")


@pytest.mark.parametrize(("extent", "center"), [(0.84, (0.5, 0.5)), (0.4, (0.3, 0.7))])
@pytest.mark.parametrize("azimuth", [0.0, 33.0, 200.0])
def test_the_object_fills_its_box(
    studio: Renderer, tmp_path: Path, extent: float, center: tuple[float, float], azimuth: float
) -> None:
    shot = Shot(azimuth_deg=azimuth, elevation_deg=20.0, size=128, extent=extent, center=center)
    left, top, right, bottom = box_of(mask_of(shoot(studio, box_mesh(tmp_path), shot)))
    assert max(right - left, bottom - top) == pytest.approx(extent * 128, abs=2)
    assert ((left + right) / 256, (top + bottom) / 256) == pytest.approx(center, abs=0.012)


def test_a_texture_is_upright_and_in_its_own_colours(studio: Renderer, tmp_path: Path) -> None:
    write_square(tmp_path)
    mesh = load_mesh(PlaceFiles(place=Place.parse(str(tmp_path))), "square.obj")
    seen = encode(shoot(studio, mesh)[..., :3])
    places = [(20, 20), (20, 44), (44, 20), (44, 44)]
    for (row, column), color in zip(places, QUARTERS, strict=True):
        assert np.abs(seen[row, column].astype(int) - color).max() <= 1


def test_a_camera_further_right_sees_the_right_side(studio: Renderer) -> None:
    left, right = paint(1, 0, 0), paint(0, 1, 0)
    turned = np.array([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]])
    front = sheet(1.0, 1.0, left)
    side = sheet(1.0, 1.0, right)
    side = replace(side, positions_T33=side.positions_T33 @ turned.T)
    seen = shoot(studio, mesh_of(front, side), replace(FRONT, azimuth_deg=90.0))
    assert seen[32, 32, :3] == pytest.approx([0, 1, 0], abs=0.01)


def test_faces_that_look_inwards_are_lit_the_same(studio: Renderer, tmp_path: Path) -> None:
    mesh = box_mesh(tmp_path)
    part = mesh.parts[0]
    inside_out = replace(
        part, positions_T33=part.positions_T33[:, ::-1], normals_T33=-part.normals_T33[:, ::-1],
        uv_T32=part.uv_T32[:, ::-1],
    )  # fmt: skip
    shot, light = replace(FRONT, azimuth_deg=30.0, elevation_deg=25.0), studio_light(60.0)
    first = shoot(studio, mesh, shot, light)
    second = shoot(studio, replace(mesh, parts=(inside_out,)), shot, light)
    assert np.abs(encode(first).astype(int) - encode(second)).max() <= 1


def test_what_is_near_hides_what_is_far(studio: Renderer) -> None:
    near, far = sheet(0.5, 0.5, paint(1, 0, 0)), sheet(-0.5, 1.0, paint(0, 0, 1))
    for pieces in ((near, far), (far, near)):
        seen = shoot(studio, mesh_of(*pieces))
        assert seen[32, 32] == pytest.approx([1, 0, 0, 1], abs=0.01)
        assert seen[10, 10] == pytest.approx([0, 0, 1, 1], abs=0.01)


def test_glass_lets_light_through_in_any_order(studio: Renderer) -> None:
    glass, wall = sheet(0.5, 0.5, paint(1, 1, 1, opacity=0.25)), sheet(-0.5, 0.4, paint(0, 0, 1))
    for pieces in ((glass, wall), (wall, glass)):
        seen = shoot(studio, mesh_of(*pieces))
        assert seen[32, 32] == pytest.approx([0.25, 0.25, 1.0, 1.0], abs=0.01)
        assert seen[32, 9, 3] == pytest.approx(0.25, abs=0.01)


def test_a_texture_with_holes_is_cut_and_its_edge_is_clean(studio: Renderer) -> None:
    leaf = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    leaf.paste((250, 250, 250, 255), (0, 0, 32, 64))
    material = Material(color=(1, 1, 1), texture=leaf, alpha_mode="mask")
    seen = shoot(studio, mesh_of(sheet(0.0, 1.0, material)))
    assert seen[32, 20, 3] == 1.0
    assert seen[32, 44, 3] == 0.0
    pixels = np.asarray(cut_out(seen))
    assert pixels[pixels[..., 3] > 0][:, :3].min() >= 245


def test_edges_have_no_dark_fringe(studio: Renderer, tmp_path: Path) -> None:
    mesh = mesh_of(sheet(0.0, 1.0, paint(0.9, 0.9, 0.9)))
    seen = shoot(studio, mesh, replace(FRONT, azimuth_deg=31.0, elevation_deg=17.0))
    assert np.unique(seen[..., 3]).size > 2, "edges are smoothed"
    pixels = np.asarray(cut_out(seen)).astype(int)
    drawn = pixels[pixels[..., 3] > 0]
    assert np.ptp(drawn[:, :3]) <= 2
    # Beyond the edge the colour goes on, so that scaling mixes no black in.
    small = cut_out(seen).convert("RGB").resize((24, 24), Image.Resampling.BILINEAR)
    assert np.asarray(small).min() >= drawn[:, :3].min() - 1


def test_light_comes_from_the_lamp(studio: Renderer) -> None:
    white = mesh_of(sheet(0.0, 1.0, paint(0.5, 0.5, 0.5)))
    before, behind = studio_light(0.0), studio_light(180.0)
    assert (
        shoot(studio, white, light=before)[32, 32, 0]
        > shoot(studio, white, light=behind)[32, 32, 0]
    )


def test_shadows_lie_on_the_floor_away_from_the_lamp(studio: Renderer, tmp_path: Path) -> None:
    shot = Shot(azimuth_deg=0.0, elevation_deg=20.0, size=96, extent=0.4)
    with studio.stage(box_mesh(tmp_path)) as stage:
        seen = mask_of(stage.photograph(shot, EVEN))
        contact, cast = np.moveaxis(stage.shadows(shot, studio_light(90.0)), -1, 0)
    _, top, _, bottom = box_of(seen)
    left, shadow_top, right, _ = box_of(cast > 0.1)
    assert shadow_top > top + 0.5 * (bottom - top)
    object_left, _, object_right, _ = box_of(seen)
    assert object_left - left > right - object_right
    assert 0.5 < contact.max() <= 1.0


def test_the_same_shot_gives_the_same_bytes(studio: Renderer, tmp_path: Path) -> None:
    mesh = box_mesh(tmp_path)
    shot, light = Shot(azimuth_deg=40.0, elevation_deg=20.0, size=96), studio_light(10.0)
    first = shoot(studio, mesh, shot, light).tobytes()
    shoot(studio, mesh_of(sheet(0.0, 1.0, paint(1, 0, 0, opacity=0.5))), FRONT)
    found: list[bytes] = []
    thread = threading.Thread(
        target=lambda: found.append(shoot(studio, mesh, shot, light).tobytes())
    )
    thread.start()
    thread.join()
    assert [first, first] == [shoot(studio, mesh, shot, light).tobytes(), *found]


def test_several_meshes_are_held_and_left_in_any_order(studio: Renderer) -> None:
    red, blue = mesh_of(sheet(0.0, 1.0, paint(1, 0, 0))), mesh_of(sheet(0.0, 1.0, paint(0, 0, 1)))
    first, second = studio.stage(red), studio.stage(blue)
    one, two = first.__enter__(), second.__enter__()
    assert one.photograph(FRONT, EVEN)[32, 32, :3].tolist() == [1, 0, 0]
    first.__exit__(None, None, None)
    found: list[list[float]] = []
    thread = threading.Thread(
        target=lambda: found.append(two.photograph(FRONT, EVEN)[32, 32, :3].tolist())
    )
    thread.start()
    thread.join()
    assert [two.photograph(FRONT, EVEN)[32, 32, :3].tolist(), *found] == [[0, 0, 1], [0, 0, 1]]
    second.__exit__(None, None, None)


OTHER_PROCESS = """
import hashlib, sys
from dreambooth3d.artifacts.place import Place
from dreambooth3d.pairs.mesh_camera import Shot
from dreambooth3d.pairs.mesh_files import PlaceFiles
from dreambooth3d.pairs.mesh_light import studio_light
from dreambooth3d.pairs.mesh_loader import load_mesh
from dreambooth3d.pairs.mesh_renderer import renderer
mesh = load_mesh(PlaceFiles(place=Place.parse(sys.argv[1])), "box.glb")
with renderer().stage(mesh) as stage:
    shot = Shot(azimuth_deg=40.0, elevation_deg=20.0, size=96)
    print(hashlib.sha256(stage.photograph(shot, studio_light(10.0)).tobytes()).hexdigest())
"""


def test_another_process_with_other_threads_gives_the_same_bytes(
    studio: Renderer, tmp_path: Path
) -> None:
    mesh = box_mesh(tmp_path)
    shot = Shot(azimuth_deg=40.0, elevation_deg=20.0, size=96)
    here = hashlib.sha256(shoot(studio, mesh, shot, studio_light(10.0)).tobytes()).hexdigest()
    there = run(OTHER_PROCESS, str(tmp_path), LP_NUM_THREADS="2", OMP_NUM_THREADS="2")
    assert there.stdout.strip() == here, there.stderr


def test_a_machine_without_egl_is_told_what_to_install(tmp_path: Path) -> None:
    code = "from dreambooth3d.pairs.mesh_renderer import renderer; renderer()"
    # The dispatcher finds no driver at all.
    done = run(code, __EGL_VENDOR_LIBRARY_FILENAMES=str(tmp_path / "none.json"))
    assert "ConfigError: the `meshes` source must have OpenGL 4.0 by EGL, got none" in done.stderr
    assert "libegl1" in done.stderr


def run(code: str, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, "PYTHONHASHSEED": "7", **environment},
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_shot_is_checked() -> None:
    with pytest.raises(ConfigError, match="elevation_deg must be"):
        replace(FRONT, elevation_deg=90.0)
    with pytest.raises(ConfigError, match="extent must be"):
        replace(FRONT, extent=0.0)
    with pytest.raises(ConfigError, match="key_direction must rise"):
        replace(EVEN, key_direction=(1.0, 0.0, 0.0))
