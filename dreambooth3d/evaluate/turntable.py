"""A generated turntable against the true object: which view does each frame show?"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dreambooth3d.errors import InputError
from dreambooth3d.scenes import Camera, Subject, render_view
from dreambooth3d.vision.object_embedding import cut_to_object

Frames = NDArray[np.uint8]
Angles = NDArray[np.float64]

_SIDE = 48
_LEAST_FRAMES = 2
# A frame may show the view before it: angles come in steps.
_STANDS_STEPS = 0.5


@dataclass(frozen=True, kw_only=True, eq=False)
class TrueViews:
    """Views of the true object all around, cut to it on white.

    Attributes:
        azimuths_deg: (V,), even steps.
        views_VHWC: 0 to 1.
    """

    azimuths_deg: Angles
    views_VHWC: NDArray[np.float32]

    @property
    def step_deg(self) -> float:
        """Angle from one view to the next."""
        return 360 / len(self.azimuths_deg)


@dataclass(frozen=True, kw_only=True, eq=False)
class TurntableScore:
    """How a clip turns.

    Attributes:
        residual: mean root mean square difference from the nearest true view, 0..1.
        monotonicity: share of frame-to-frame turns that go the way the whole clip goes, 0..1;
            frames that stand are on no way.
        turned_deg: from the first frame to the last, signed.
        azimuths_deg: of the nearest view of each frame, without jumps at 360.
    """

    residual: float
    monotonicity: float
    turned_deg: float
    azimuths_deg: Angles


def true_views(
    subject: Subject, *, elevation_deg: float, num_views: int = 72, size: int = 64
) -> TrueViews:
    """Render a subject all around."""
    azimuths = np.arange(num_views, dtype=np.float64) * (360.0 / num_views)
    views = [
        render_view(
            subject, Camera(azimuth_deg=float(angle), elevation_deg=elevation_deg), size=size
        ).rgb
        for angle in azimuths
    ]
    return TrueViews(azimuths_deg=azimuths, views_VHWC=_shrunk(views))


def score_turntable(cut_frames: Sequence[Frames], views: TrueViews) -> TurntableScore:
    """Compare frames, cut out on white, with the true views.

    Each frame is given the view that explains it best, near the view of the frame before: the path
    with the least sum of residuals and leaps (dynamic programming), for a subject whose front and
    back look alike would flicker between them otherwise.

    Raises:
        InputError: fewer than two frames.
    """
    if len(cut_frames) < _LEAST_FRAMES:
        raise InputError(
            f"turntable must have at least {_LEAST_FRAMES} frames, got {len(cut_frames)}; "
            "score a clip"
        )
    ours_FP = _shrunk(cut_frames).reshape(len(cut_frames), -1)
    theirs_VP = views.views_VHWC.reshape(len(views.azimuths_deg), -1)
    residual_FV = np.stack([np.sqrt(((theirs_VP - our) ** 2).mean(axis=1)) for our in ours_FP])
    path = _smooth_path(residual_FV)
    turns = _turns(views.azimuths_deg[path])
    way = np.sign(turns.sum())
    moves = np.abs(turns) > _STANDS_STEPS * views.step_deg
    share = float((np.sign(turns[moves]) == way).mean()) if moves.any() and way else 0.0
    return TurntableScore(
        residual=float(residual_FV[np.arange(len(path)), path].mean()),
        monotonicity=share,
        turned_deg=float(turns.sum()),
        azimuths_deg=views.azimuths_deg[path[0]] + np.concatenate([[0.0], np.cumsum(turns)]),
    )


def _shrunk(pictures: Sequence[Frames]) -> NDArray[np.float32]:
    """Cut to the object and bring to one size, (N, H, W, 3), 0 to 1."""
    squares = [Image.fromarray(cut_to_object(Image.fromarray(view))) for view in pictures]
    small = [square.resize((_SIDE, _SIDE), Image.Resampling.BOX) for square in squares]
    return np.stack([np.asarray(view, dtype=np.float32) for view in small]) / np.float32(255)


def _turns(azimuths_F: Angles) -> Angles:
    """Signed angle from each frame to the next, within half a turn."""
    return np.asarray((np.diff(azimuths_F) + 180) % 360 - 180, dtype=np.float64)


def _smooth_path(residual_FV: NDArray[np.float32]) -> NDArray[np.int64]:
    num_frames, num_views = residual_FV.shape
    places = np.arange(num_views)
    apart = np.abs(places[:, None] - places)
    apart = np.minimum(apart, num_views - apart) / num_views
    # Half a turn costs as much as the clip's own spread of residuals.
    leap_VV = 2 * float(residual_FV.std()) * apart
    cost_V, steps = residual_FV[0].astype(np.float64), []
    for frame in range(1, num_frames):
        reached_VV = cost_V[:, None] + leap_VV
        steps.append(reached_VV.argmin(axis=0))
        cost_V = reached_VV.min(axis=0) + residual_FV[frame]
    path = [int(cost_V.argmin())]
    for step_V in reversed(steps):
        path.append(int(step_V[path[-1]]))
    return np.array(path[::-1], dtype=np.int64)
