"""COLMAP on frames of a textured box, whose surface is known."""

import cv2
import numpy as np
import pytest

from dreambooth3d.errors import ConfigError, InputError
from dreambooth3d.evaluate.chamfer import aligned_chamfer
from dreambooth3d.evaluate.structure_from_motion import StructureFromMotion

SIDE, FOCAL, FAR = 320, 400.0, 4.0
EXTENT = np.array([1.0, 0.7, 0.5])
# Corners of the faces that a camera above the front sees, counter-clockwise, in half extents.
FACES = (
    ((-1, -1, -1), (1, -1, -1), (1, -1, 1), (-1, -1, 1)),
    ((1, -1, -1), (1, 1, -1), (1, 1, 1), (1, -1, 1)),
    ((-1, -1, 1), (1, -1, 1), (1, 1, 1), (-1, 1, 1)),
)


def textures() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    coarse = [rng.integers(0, 256, (48, 48, 3), dtype=np.uint8) for _ in FACES]
    return [cv2.resize(each, (192, 192), interpolation=cv2.INTER_CUBIC) for each in coarse]


def frame(azimuth_deg: float, elevation_deg: float) -> tuple[np.ndarray, np.ndarray]:
    a, e = np.radians([azimuth_deg, elevation_deg])
    back = np.array([np.cos(e) * np.cos(a), np.cos(e) * np.sin(a), np.sin(e)])
    right = np.array([-np.sin(a), np.cos(a), 0.0])
    down = np.cross(-back, right)
    pixels, mask = np.full((SIDE, SIDE, 3), 200, np.uint8), np.zeros((SIDE, SIDE), np.uint8)
    for face, texture in zip(FACES, textures(), strict=True):
        corners = np.array(face) * EXTENT
        axes = np.stack([corners @ right, corners @ down, FAR - corners @ back])
        flat = (FOCAL * axes[:2] / axes[2] + SIDE / 2).T.astype(np.float32)
        edge = texture.shape[0] - 1
        source = np.array([[0, 0], [edge, 0], [edge, edge], [0, edge]], np.float32)
        move = cv2.getPerspectiveTransform(source, flat)
        drawn = cv2.warpPerspective(texture, move, (SIDE, SIDE))
        inside = cv2.fillConvexPoly(np.zeros((SIDE, SIDE), np.uint8), flat.round().astype(int), 1)
        pixels[inside > 0], mask = drawn[inside > 0], mask | inside
    return pixels, mask > 0


def surface() -> np.ndarray:
    rng = np.random.default_rng(1)
    found = []
    for face in FACES:
        corners = np.array(face) * EXTENT
        u, v = rng.uniform(size=(2, 2000, 1))
        found.append(corners[0] + u * (corners[1] - corners[0]) + v * (corners[3] - corners[0]))
    return np.concatenate(found)


def test_a_textured_box_is_reconstructed_to_its_surface() -> None:
    views = [frame(a, e) for e in (25.0, 45.0) for a in np.arange(-72, -14, 7.0)]
    frames, masks = [v[0] for v in views], [v[1] for v in views]
    found = StructureFromMotion()(frames, masks)
    assert len(found) > 100
    apart = aligned_chamfer(found, surface())
    assert apart.accuracy < 0.03
    assert apart.distance < 0.08


def test_frames_without_texture_and_too_few_are_refused() -> None:
    plain = [np.full((96, 96, 3), 90, np.uint8)] * 5
    with pytest.raises(InputError, match="0 of 5 that find their camera"):
        StructureFromMotion()(plain, [np.ones((96, 96), np.bool_)] * 5)
    with pytest.raises(InputError, match="at least 4 frames"):
        StructureFromMotion()(plain[:3], [np.ones((96, 96), np.bool_)] * 3)
    with pytest.raises(ConfigError, match="max_side must be at least 64"):
        StructureFromMotion(max_side=32)
