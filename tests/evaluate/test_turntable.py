import numpy as np
import pytest

from dreambooth3d.errors import ConfigError, InputError
from dreambooth3d.evaluate.chamfer import aligned_chamfer, chamfer
from dreambooth3d.evaluate.reconstruct import find_reconstructor
from dreambooth3d.evaluate.skipping import Skipped
from dreambooth3d.evaluate.turntable import score_turntable, true_views
from dreambooth3d.evaluate.visual_hull import VisualHull
from dreambooth3d.scenes import Camera, make_subject, point_cloud, reference_cameras, render_view

SUBJECT = make_subject(1_000_003)


def views(azimuths: list[float], seed: int = 1_000_003) -> list[np.ndarray]:
    cameras = [Camera(azimuth_deg=a, elevation_deg=15.0) for a in azimuths]
    return [render_view(make_subject(seed), camera, size=64).rgb for camera in cameras]


def turntable(num_views: int) -> tuple[tuple[Camera, ...], np.ndarray]:
    low = reference_cameras(num_views)
    high = [Camera(azimuth_deg=c.azimuth_deg, elevation_deg=50.0) for c in low]
    cameras = (*low, *high)
    masks = [render_view(SUBJECT, camera, size=96).mask for camera in cameras]
    return cameras, np.stack(masks)


def test_a_true_turntable_turns_one_way_by_the_true_angle() -> None:
    true = true_views(SUBJECT, elevation_deg=15.0)
    angles = list(np.linspace(300, 450, 13) % 360)
    found = score_turntable(views(angles), true)
    assert found.residual < 0.03
    assert found.monotonicity == 1.0
    assert found.turned_deg == pytest.approx(150, abs=6)
    back = score_turntable(views(angles[::-1]), true)
    assert back.turned_deg == pytest.approx(-150, abs=6)


def test_a_clip_that_shakes_or_stands_does_not_turn() -> None:
    true = true_views(SUBJECT, elevation_deg=15.0)
    shaken = [30.0, 60.0, 35.0, 70.0, 40.0, 75.0, 50.0]
    assert score_turntable(views(shaken), true).monotonicity < 0.7
    still = score_turntable(views([40.0] * 5), true)
    assert (still.monotonicity, still.turned_deg) == (0.0, 0.0)


def test_another_subject_leaves_a_larger_residual() -> None:
    true = true_views(SUBJECT, elevation_deg=15.0)
    angles = [0.0, 20.0, 40.0, 60.0]
    own, other = views(angles), views(angles, seed=1_000_016)
    assert score_turntable(other, true).residual > 3 * score_turntable(own, true).residual


def test_one_frame_is_no_turntable() -> None:
    with pytest.raises(InputError, match="at least 2 frames"):
        score_turntable(views([0.0]), true_views(SUBJECT, elevation_deg=15.0, num_views=4))


def test_the_hull_of_true_masks_encloses_the_true_surface() -> None:
    cameras, masks = turntable(12)
    hull = VisualHull(cameras=cameras)(np.zeros(0, np.uint8), masks)
    truth = point_cloud(SUBJECT, 4000).astype(np.float64)
    found = chamfer(hull, truth)
    assert found.completeness < 0.04
    assert found.accuracy < 0.06
    other = point_cloud(make_subject(1_000_016), 4000).astype(np.float64)
    assert aligned_chamfer(hull, other).distance > 1.3 * aligned_chamfer(hull, truth).distance


def test_more_views_carve_closer() -> None:
    truth = point_cloud(SUBJECT, 4000).astype(np.float64)
    few, many = (
        chamfer(VisualHull(cameras=c)(np.zeros(0, np.uint8), m), truth).accuracy
        for c, m in (turntable(3), turntable(12))
    )
    assert many < few


def test_a_subject_beside_the_middle_gives_the_same_hull_when_its_place_is_told() -> None:
    cameras, masks = turntable(6)
    pixels = 6
    aside = np.roll(masks, (-pixels, pixels), axis=(1, 2))
    center = (2 * pixels / masks.shape[2], 2 * pixels / masks.shape[1])
    told = VisualHull(cameras=cameras, centers=(center,) * len(cameras))
    still = VisualHull(cameras=cameras)(np.zeros(0, np.uint8), masks)
    assert np.array_equal(told(np.zeros(0, np.uint8), aside), still)
    with pytest.raises(ConfigError, match="one for each of 12 cameras, got 1"):
        VisualHull(cameras=cameras, centers=(center,))


def test_few_wrong_masks_carve_nothing_away_where_most_are_enough() -> None:
    cameras, masks = turntable(12)
    masks[::8] = False
    found = VisualHull(cameras=cameras, agreeing=0.8)(np.zeros(0, np.uint8), masks)
    truth = point_cloud(SUBJECT, 4000).astype(np.float64)
    assert chamfer(found, truth).distance < 0.06
    with pytest.raises(InputError, match="none left after carving"):
        VisualHull(cameras=cameras)(np.zeros(0, np.uint8), masks)
    cameras, masks = turntable(20)
    masks[:9] = False
    VisualHull(cameras=cameras, agreeing=0.55)(np.zeros(0, np.uint8), masks)
    with pytest.raises(ConfigError, match="agreeing must be above 0"):
        VisualHull(cameras=cameras, agreeing=0.0)


def test_masks_that_contradict_each_other_and_missing_ones_are_refused() -> None:
    cameras, masks = turntable(3)
    with pytest.raises(InputError, match="one mask for each of 6 cameras"):
        VisualHull(cameras=cameras)(np.zeros(0, np.uint8), masks[:2])
    with pytest.raises(InputError, match="none left after carving"):
        VisualHull(cameras=cameras)(np.zeros(0, np.uint8), np.zeros_like(masks))


def test_reconstructors_that_are_not_here_are_named() -> None:
    found = find_reconstructor("vggt")
    assert isinstance(found, Skipped)
    assert found.name == "chamfer_vggt"
    assert "is not installed" in found.reason


def test_a_wide_frame_gives_the_hull_of_a_square_one() -> None:
    cameras, masks = turntable(6)
    wide = np.pad(masks, ((0, 0), (0, 0), (16, 16)))
    whole = np.pad(masks, ((0, 0), (16, 16), (16, 16)))
    hull = VisualHull(cameras=cameras)
    assert np.array_equal(hull(np.zeros(0, np.uint8), wide), hull(np.zeros(0, np.uint8), whole))
