"""How a clip moves, in plain arithmetic under its own names; one frame at a time.

Temporal flickering is the published arithmetic of VBench (Huang et al. 2024), which needs no
network. The others are no numbers of VBench: they answer its questions with less, on small grey
frames. All grow with what their name says, but that one is 1 where nothing flickers.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from dreambooth3d.errors import ArtifactError, InputError

Frame = NDArray[np.uint8]
Map = NDArray[np.float32]

_WIDTH = 160
_FASTEST_SHARE = 0.05
# Farneback's: pyramid scale and levels, window, iterations, neighbourhood and its spread, flags.
_FLOW = (0.5, 3, 15, 3, 5, 1.2, 0)


@dataclass(frozen=True, kw_only=True)
class Motion:
    """What two or more frames say.

    Attributes:
        midframe_smoothness: 1 - mean |frame - mean of its neighbours| / 255; 1 is even motion or
            none. Not a number with two frames.
        temporal_flickering: 1 - mean |frame - next frame| / 255 over pixels and channels of whole
            frames, as in VBench; 1 is a still picture.
        brightness_flicker: mean |second difference of the frames' mean brightness| / 255; 0 where
            light is constant or changes evenly. Not a number with two frames.
        dynamic_degree_farneback: mean over frames of the fastest 5 % of Farneback's flow, in
            frame widths per frame; below 0.001 is still.
    """

    midframe_smoothness: float
    temporal_flickering: float
    brightness_flicker: float
    dynamic_degree_farneback: float


class MotionMeter:
    """Measures frames as they come; remembers the last one, and two small ones."""

    def __init__(self) -> None:
        self._whole: Frame | None = None
        self._last: list[Map] = []
        self._steps: list[float] = []
        self._middles: list[float] = []
        self._flickers: list[float] = []
        self._flows: list[float] = []

    def add(self, frame_HWC: Frame) -> None:
        """Take the next frame, RGB.

        Raises:
            ArtifactError: it is of another size than the last one.
        """
        small = _small(frame_HWC)
        if self._whole is not None:
            self._steps.append(_difference(self._whole, frame_HWC))
            self._flows.append(_fastest(self._last[-1], small))
        if len(self._last) == 2:
            bend = self._last[1] - (self._last[0] + small) / 2
            self._middles.append(float(np.abs(bend).mean()) / 255)
            self._flickers.append(abs(2 * float(bend.mean())) / 255)
        self._last, self._whole = [*self._last[-1:], small], frame_HWC

    def result(self) -> Motion:
        """Return the numbers of all frames so far.

        Raises:
            InputError: fewer than two frames.
        """
        if not self._steps:
            raise InputError(
                f"motion must be read from at least 2 frames, got {len(self._last)}; score a clip"
            )
        return Motion(
            midframe_smoothness=1 - _mean(self._middles),
            temporal_flickering=1 - _mean(self._steps),
            brightness_flicker=_mean(self._flickers),
            dynamic_degree_farneback=_mean(self._flows),
        )


def consistency(embeddings_FC: Map) -> float:
    """Mean cosine of each frame's subject with the first one's and the one before, -1..1.

    The arithmetic of VBench's subject consistency, on the embeddings that are given.

    Args:
        embeddings_FC: unit vectors, at least two.
    """
    with_first = embeddings_FC[1:] @ embeddings_FC[0]
    with_last = (embeddings_FC[1:] * embeddings_FC[:-1]).sum(axis=1)
    return float((with_first + with_last).mean() / 2)


def _difference(before_HWC: Frame, after_HWC: Frame) -> float:
    if before_HWC.shape != after_HWC.shape:
        raise ArtifactError(
            f"frames of a clip must have one size, got {before_HWC.shape[:2]} and "
            f"{after_HWC.shape[:2]}; make it again"
        )
    return float(np.asarray(cv2.absdiff(before_HWC, after_HWC)).mean()) / 255


def _small(frame_HWC: Frame) -> Map:
    height = max(8, round(_WIDTH * frame_HWC.shape[0] / frame_HWC.shape[1]))
    small = cv2.resize(frame_HWC, (_WIDTH, height), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), dtype=np.float32)


def _fastest(before_HW: Map, after_HW: Map) -> float:
    """Mean length of the longest steps between two frames, in widths."""
    flow_HW2 = cv2.calcOpticalFlowFarneback(before_HW, after_HW, np.empty(0), *_FLOW)
    lengths = np.sort(np.sqrt((np.asarray(flow_HW2) ** 2).sum(axis=2)).ravel())
    fastest = lengths[-max(1, round(_FASTEST_SHARE * lengths.size)) :]
    return float(fastest.mean()) / _WIDTH


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else float("nan")
