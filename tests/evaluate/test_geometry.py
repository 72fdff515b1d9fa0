"""Distances between point clouds: known offsets, similarity transforms, symmetry."""

import numpy as np
import pytest
from numpy.typing import NDArray

from dreambooth3d.errors import InputError
from dreambooth3d.evaluate.alignment import Similarity, align, fit_similarity
from dreambooth3d.evaluate.chamfer import aligned_chamfer, chamfer, without_strays
from dreambooth3d.evaluate.geometry import compare
from dreambooth3d.scenes import make_subject, point_cloud

Cloud = NDArray[np.float64]


def cloud(seed: int, num_points: int = 3000, draw: int = 0) -> Cloud:
    return point_cloud(make_subject(seed), num_points, seed=draw).astype(np.float64)


def rotation(rng: np.random.Generator) -> Cloud:
    found, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    return found * np.sign(np.linalg.det(found))


def moved(points: Cloud, seed: int) -> Cloud:
    rng = np.random.default_rng(seed)
    scale, shift = rng.uniform(0.05, 20), rng.normal(size=3) * 5
    return scale * points @ rotation(rng).T + shift


def sphere(radius: float, num_points: int, seed: int) -> Cloud:
    found = np.random.default_rng(seed).normal(size=(num_points, 3))
    return radius * found / np.linalg.norm(found, axis=1, keepdims=True)


def test_identical_clouds_are_at_distance_zero() -> None:
    points = cloud(1_000_000)
    found = chamfer(points, points)
    assert (found.accuracy, found.completeness, found.distance) == (0, 0, 0)


@pytest.mark.parametrize("offset", [0.05, 0.1, 0.2])
def test_known_offsets_are_recovered_within_two_percent(offset: float) -> None:
    found = chamfer(sphere(1 + offset, 60_000, 0), sphere(1, 60_000, 1))
    assert found.accuracy == pytest.approx(offset, rel=0.02)
    assert found.completeness == pytest.approx(offset, rel=0.02)
    assert found.distance == pytest.approx((found.accuracy + found.completeness) / 2)


def test_what_is_missing_and_what_is_added_are_told_apart() -> None:
    whole = cloud(1_000_001)
    half = whole[whole[:, 2] > np.median(whole[:, 2])]
    assert chamfer(half, whole).accuracy == 0
    assert chamfer(half, whole).completeness > 0.05
    assert chamfer(whole, half).accuracy == chamfer(half, whole).completeness


def test_a_similarity_is_fitted_exactly() -> None:
    points = cloud(1_000_002, 200)
    found = fit_similarity(points, moved(points, 3))
    assert np.allclose(found(points), moved(points, 3), atol=1e-9)
    assert np.linalg.det(found.rotation) == pytest.approx(1)


def test_reflections_are_no_similarity() -> None:
    points = cloud(1_000_002, 200)
    found = fit_similarity(points, points * np.array([-1.0, 1.0, 1.0]))
    assert np.linalg.det(found.rotation) == pytest.approx(1)


@pytest.mark.parametrize("seed", [1_000_000, 1_000_007, 1_000_011])
def test_the_aligned_distance_does_not_change_under_similarity_transforms(seed: int) -> None:
    truth, other = cloud(seed), cloud(seed, draw=1)
    other = other[other[:, 0] < np.quantile(other[:, 0], 0.8)]
    still = aligned_chamfer(other, truth)
    for turn in range(2):
        found = aligned_chamfer(moved(other, turn), moved(truth, 10 + turn))
        assert found.distance == pytest.approx(still.distance, rel=0.02)


def test_alignment_finds_any_turn_of_the_same_object() -> None:
    points = cloud(1_000_004)
    own = aligned_chamfer(moved(cloud(1_000_004, draw=1), 5), points)
    other = aligned_chamfer(moved(cloud(1_000_016), 5), points)
    assert own.distance < 0.06
    assert other.distance > 1.3 * own.distance


def test_alignment_does_not_care_which_cloud_comes_first() -> None:
    one, two = cloud(1_000_000), cloud(1_000_003)
    there, back = aligned_chamfer(one, two), aligned_chamfer(two, one)
    assert there.distance == pytest.approx(back.distance, rel=0.02)
    assert there.accuracy == pytest.approx(back.completeness, rel=0.05)


def test_a_similarity_undoes_itself() -> None:
    rng = np.random.default_rng(0)
    move = Similarity(scale=2.5, rotation=rotation(rng), shift=rng.normal(size=3))
    points = rng.normal(size=(10, 3))
    assert np.allclose(move.inverse()(move(points)), points)


@pytest.mark.parametrize(
    "bad", [np.zeros((2, 3)), np.zeros((5, 2)), np.full((9, 3), np.nan), np.ones((9, 3))]
)
def test_clouds_without_a_shape_are_refused(bad: Cloud) -> None:
    with pytest.raises(InputError, match="point cloud must"):
        align(bad, cloud(1_000_000, 100))


def test_strays_decide_nothing() -> None:
    points, truth = cloud(1_000_001, 2000), cloud(1_000_001, 2000, draw=1)
    rng = np.random.default_rng(2)
    assert np.array_equal(without_strays(points), points)
    still = compare(points, truth)[1].distance
    for share, reach in ((0.05, 5.0), (0.05, 50.0), (0.005, 50.0)):
        strays = reach * rng.normal(size=(int(share * len(points)), 3))
        found = compare(np.concatenate([points, strays]), truth)[1].distance
        assert found == pytest.approx(still, rel=0.2)


def test_how_many_points_a_reconstructor_gives_decides_nothing() -> None:
    truth = cloud(1_000_001, 4000, draw=1)
    found = [compare(cloud(1_000_001, n), truth)[1].distance for n in (1000, 4000, 16_000)]
    assert max(found) < 1.2 * min(found)


def test_points_on_a_line_have_no_shape() -> None:
    line = np.linspace(0, 1, 50)[:, None] * np.ones(3)
    with pytest.raises(InputError, match="must be no line"):
        aligned_chamfer(line, cloud(1_000_001))
