import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dreambooth3d.pairs.mesh_geometry import crease_normals, face_normals
from dreambooth3d.pairs.mesh_polygons import triangulate
from dreambooth3d.vision.refusal import RefusedError

# A window frame drawn as one polygon: around, over a bridge into the pane, back over the bridge.
FRAME = [(0, 0), (4, 0), (4, 4), (0, 4), (0, 0), (1, 1), (1, 3), (3, 3), (3, 1), (1, 1)]


def flat(points: list[tuple[float, float]]) -> np.ndarray:
    return np.array([[(x, y, 0.0) for x, y in points]], np.float64)


def area_of(polygons: np.ndarray) -> float:
    owner, corners = triangulate(polygons)
    _, areas = face_normals(polygons[owner[:, None], corners].astype(np.float32))
    return float(areas.sum())


def covers(polygons: np.ndarray, x: float, y: float) -> bool:
    owner, corners = triangulate(polygons)
    a, b, c = np.moveaxis(polygons[owner[:, None], corners][..., :2], 1, 0)
    point = np.array([x, y])

    def side(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        return (v - u)[:, 0] * (point - u)[:, 1] - (v - u)[:, 1] * (point - u)[:, 0]

    sides = np.stack([side(a, b), side(b, c), side(c, a)])
    return bool(((sides > 0).all(axis=0) | (sides < 0).all(axis=0)).any())


def test_a_hole_stays_open() -> None:
    frame = flat(FRAME)  # type: ignore[arg-type]
    assert area_of(frame) == pytest.approx(12.0)
    assert not covers(frame, 2.1, 1.9)
    assert covers(frame, 0.4, 2.1)


def test_a_notched_quad_keeps_its_notch() -> None:
    for start in range(4):
        dart = [(0.0, 0.0), (4.0, 2.0), (0.0, 4.0), (1.0, 2.0)]
        turned = flat([*dart[start:], *dart[:start]])
        assert area_of(turned) == pytest.approx(6.0)
        assert not covers(turned, 0.4, 2.1)


@settings(max_examples=60, deadline=None)
@given(
    radii=st.lists(st.floats(0.2, 3.0), min_size=5, max_size=24),
    turn=st.integers(0, 23),
    is_mirrored=st.booleans(),
)
def test_any_star_is_covered_once(radii: list[float], turn: int, is_mirrored: bool) -> None:
    angles = np.linspace(0.0, 2.0 * np.pi, len(radii), endpoint=False)
    ring = np.stack([np.array(radii) * np.cos(angles), np.array(radii) * np.sin(angles)], axis=1)
    ring = np.roll(ring[::-1] if is_mirrored else ring, turn, axis=0)
    after = np.roll(ring, -1, axis=0)
    wanted = 0.5 * abs(float((ring[:, 0] * after[:, 1] - ring[:, 1] * after[:, 0]).sum()))
    # In a plane of its own, far from the origin.
    across, along = np.array([0.6, 0.0, 0.8]), np.array([0.0, 1.0, 0.0])
    polygon = (ring[:, :1] * across + ring[:, 1:] * along + 5.0)[None]
    _, corners = triangulate(polygon)
    assert len(corners) == len(radii) - 2
    assert area_of(polygon) == pytest.approx(wanted, rel=1e-4)


def test_polygons_of_a_batch_do_not_mix() -> None:
    square = [(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)]
    owner, corners = triangulate(np.concatenate([flat(square), flat(square) + 3.0]))
    assert owner.tolist() == [0, 0, 1, 1]
    assert corners.shape == (4, 3)


def test_absurd_polygons_are_refused() -> None:
    angles = np.linspace(0.0, 2.0 * np.pi, 3000, endpoint=False)
    radii = np.where(np.arange(3000) % 2, 1.0, 0.5)
    spiky = np.stack([radii * np.cos(angles), radii * np.sin(angles), 0 * angles], axis=1)[None]
    with pytest.raises(RefusedError, match="concave polygons must have at most 2000 corners"):
        triangulate(spiky)


def test_degenerate_polygons_give_triangles_all_the_same() -> None:
    line = np.zeros((1, 7, 3))
    line[0, :, 0] = range(7)
    owner, corners = triangulate(line)
    assert len(owner) == len(corners) == 5


def test_a_box_has_edges_and_a_ball_has_none() -> None:
    corner = np.array([[[0, 0, 0], [1, 0, 0], [1, 1, 0]], [[1, 0, 0], [1, 0, 1], [1, 1, 0]]])
    flat_T3, _ = face_normals(corner.astype(np.float32))
    assert crease_normals(corner.astype(np.float32)) == pytest.approx(
        np.repeat(flat_T3[:, None], 3, axis=1)
    )
    angles = np.radians([0.0, 20.0, 40.0])
    rim = np.stack([np.cos(angles), np.sin(angles), 0 * angles], axis=1)
    strip = np.array(
        [[rim[i], rim[i + 1], rim[i] + (0, 0, 1)] for i in (0, 1)]
        + [[rim[i + 1], rim[i + 1] + (0, 0, 1), rim[i] + (0, 0, 1)] for i in (0, 1)]
    )
    normals = crease_normals(strip.astype(np.float32)).reshape(-1, 3)
    at_middle = np.isclose(strip.reshape(-1, 3)[:, :2], rim[1][:2]).all(axis=1)
    assert np.ptp(normals[at_middle], axis=0).max() < 0.2
    assert normals[at_middle].mean(axis=0)[:2] == pytest.approx(rim[1][:2], abs=0.05)
