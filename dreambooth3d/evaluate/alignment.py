"""Lay one point cloud on another: scale, turn and shift, whatever the two started from.

Two reconstructions of one object share no unit, no origin and no axes. Both are brought to their
centre and radius, turned from principal axes to principal axes in every way there is, and refined
by symmetric closest points: pairs are made from both sides, so that neither cloud shrinks into the
other. Nothing starts at random: the same clouds give the same alignment.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import permutations, product

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from dreambooth3d.errors import InputError

Cloud = NDArray[np.float64]

_LEAST_POINTS = 4
# Points, rounds and survivors of the first search, and of the refinement.
_COARSE_POINTS, _COARSE_ROUNDS, _KEPT_STARTS = 300, 12, 4
_FINE_POINTS, _FINE_ROUNDS = 3000, 60
# Relative gain per round below which the refinement has arrived.
_ARRIVED = 1e-6
_TWIST_DEG = 45.0
# Of the squared extents: a cloud that is this much narrower can be turned about itself anyhow.
_LINE = 1e-8


@dataclass(frozen=True, kw_only=True, eq=False)
class Similarity:
    """x to scale * rotation @ x + shift.

    Attributes:
        scale: above 0.
        rotation: (3, 3), determinant 1.
        shift: (3,).
    """

    scale: float
    rotation: Cloud
    shift: Cloud

    def __call__(self, points_N3: Cloud) -> Cloud:
        """Move points, (N, 3)."""
        return np.asarray(self.scale * points_N3 @ self.rotation.T + self.shift)

    def inverse(self) -> "Similarity":
        """Return the way back."""
        back = self.rotation.T / self.scale
        return Similarity(
            scale=1 / self.scale, rotation=self.rotation.T, shift=np.asarray(-back @ self.shift)
        )

    def after(self, first: "Similarity") -> "Similarity":
        """Return this move after another."""
        return Similarity(
            scale=self.scale * first.scale,
            rotation=self.rotation @ first.rotation,
            shift=self(first.shift[None])[0],
        )


def fit_similarity(source_N3: Cloud, target_N3: Cloud) -> Similarity:
    """Fit paired points in least squares (Umeyama 1991, eqs. 40 to 42); never a reflection."""
    from_middle, to_middle = source_N3.mean(axis=0), target_N3.mean(axis=0)
    apart, wanted = source_N3 - from_middle, target_N3 - to_middle
    left, spread, right = np.linalg.svd(wanted.T @ apart)
    signs = np.array([1.0, 1.0, np.sign(np.linalg.det(left) * np.linalg.det(right))])
    rotation = (left * signs) @ right
    scale = float((spread * signs).sum() / max(float((apart**2).sum()), 1e-300))
    return Similarity(
        scale=scale, rotation=rotation, shift=to_middle - scale * rotation @ from_middle
    )


def align(source_N3: Cloud, target_N3: Cloud) -> Similarity:
    """Find the move that lays `source` on `target`.

    Raises:
        InputError: a cloud has too few points, another shape than (N, 3), or no extent.
    """
    inward, outward = unit_frame(source_N3), unit_frame(target_N3)
    source, target = inward(source_N3), outward(target_N3)
    few, wanted = _thinned(source, _COARSE_POINTS), _thinned(target, _COARSE_POINTS)
    found = [_refined(start, few, wanted, _COARSE_ROUNDS) for start in _starts()]
    found.sort(key=lambda pair: pair[0])
    many, wanted = _thinned(source, _FINE_POINTS), _thinned(target, _FINE_POINTS)
    best = [_refined(move, many, wanted, _FINE_ROUNDS) for _, move in found[:_KEPT_STARTS]]
    _, move = min(best, key=lambda pair: pair[0])
    return outward.inverse().after(move.after(inward))


def unit_frame(points_N3: Cloud) -> Similarity:
    """Return the move to centre 0, mean squared radius 1 and principal axes.

    Raises:
        InputError: see `align`.
    """
    if points_N3.ndim != 2 or points_N3.shape[1] != 3 or len(points_N3) < _LEAST_POINTS:
        raise InputError(
            f"point cloud must have shape (N, 3) with N at least {_LEAST_POINTS}, "
            f"got {points_N3.shape}; reconstruct it again"
        )
    if not np.isfinite(points_N3).all():
        raise InputError("point cloud must be finite, got NaN or infinity; reconstruct it again")
    middle = points_N3.mean(axis=0)
    apart = points_N3 - middle
    radius = float(np.sqrt((apart**2).sum(axis=1).mean()))
    if radius <= 1e-12 * max(1.0, float(np.abs(middle).max())):
        raise InputError("point cloud must have an extent, got one place; reconstruct it again")
    spreads, axes = np.linalg.eigh(apart.T @ apart)
    if spreads[1] <= _LINE * spreads[2]:
        raise InputError("point cloud must be no line, got points on one; reconstruct it again")
    rotation = (axes * np.array([1.0, 1.0, np.sign(np.linalg.det(axes))])).T
    return Similarity(scale=1 / radius, rotation=rotation, shift=-rotation @ middle / radius)


def _starts() -> Iterator[Similarity]:
    """Every proper way from axes to axes, and each of them twisted about each axis."""
    twists = [Rotation.identity()]
    twists += [Rotation.from_euler(axis, _TWIST_DEG, degrees=True) for axis in "xyz"]
    for order, signs in product(permutations(range(3)), product((1.0, -1.0), repeat=3)):
        turn = np.eye(3)[list(order)] * np.array(signs)[:, None]
        if np.linalg.det(turn) > 0:
            for twist in twists:
                yield Similarity(scale=1.0, rotation=twist.as_matrix() @ turn, shift=np.zeros(3))


def _refined(
    move: Similarity, source_N3: Cloud, target_N3: Cloud, rounds: int
) -> tuple[float, Similarity]:
    """Iterate closest points from both sides; return the least mean squared distance, and its move.

    Distances are divided by the move's scale, or a cloud that shrinks to a point would win.
    """
    near_source, near_target = cKDTree(source_N3), cKDTree(target_N3)
    best, found = np.inf, move
    for _ in range(rounds):
        moved, back = move(source_N3), move.inverse()(target_N3)
        there, to_target = near_target.query(moved)
        here, to_source = near_source.query(back)
        now = float((there**2).mean() / move.scale + (here**2).mean() * move.scale)
        has_arrived = best - now <= _ARRIVED * now
        if now < best:
            best, found = now, move
        if has_arrived:
            break
        pairs_from = np.concatenate([source_N3, source_N3[to_source]])
        pairs_to = np.concatenate([target_N3[to_target], target_N3])
        move = fit_similarity(pairs_from, pairs_to)
    return best, found


def _thinned(points_N3: Cloud, wanted: int) -> Cloud:
    """Take every so-many-th of the points, ordered by distance from the middle."""
    if len(points_N3) <= wanted:
        return points_N3
    order = np.argsort((points_N3**2).sum(axis=1), kind="stable")
    return points_N3[order[np.linspace(0, len(order) - 1, wanted).round().astype(np.int64)]]
