"""The published clips under the offline ruler: order, wrong subjects, samplings, time, memory."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import psutil
from numpy.typing import NDArray

from benchmarks.rows import RowSkippedError
from dreambooth3d.artifacts.clip import stream_clip
from dreambooth3d.artifacts.image import list_images, read_image
from dreambooth3d.evaluate.clip_scoring import Subjects, score_clip
from dreambooth3d.evaluate.config import BenchmarkConfig
from dreambooth3d.evaluate.instruments import Instruments
from dreambooth3d.evaluate.subject_ruler import SubjectRuler, build_ruler

SHARED = Path(__file__).resolve().parents[2] / "shared"
# From the best to the worst, as published: full method at 400 steps, 3DreamBooth at 1600 and 400.
CLIPS = (
    "ablation_moose_3dapter_3db_400",
    "ablation_moose_3db_1600",
    "ablation_moose_3db_400",
)
# Of the same object, at a place in the order that is not published.
_UNORDERED = "ablation_moose_3dapter"
OWN = "moose_plush"
# Every so many frames are scored against each wrong subject.
_WRONG_EVERY = 10
_SAMPLES = (3, 5, 9, 27, 81)
_DRAWS = 5000
# Frames after which everything that is loaded once is loaded.
_WARM_FRAMES = 20

Scores = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Measured:
    """One clip: identity of every frame against its own subject, and of some against others."""

    own_F: Scores
    wrong: Mapping[str, Scores]


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What scoring one clip takes.

    Attributes:
        seconds: of the suite's offline numbers, all frames; without loading Python.
        growth_mb: resident memory at the last frame above that at the twentieth.
    """

    seconds: float
    growth_mb: float


def need(folder: Path) -> Path:
    """Return a folder of shared inputs, or skip the row."""
    if not folder.is_dir():
        raise RowSkippedError(f"needs {folder.parent.name}/{folder.name}, which is not here")
    return folder


@lru_cache(maxsize=1)
def rulers() -> Mapping[str, SubjectRuler]:
    """Of the shared subjects, by id."""
    folders = sorted(need(SHARED / "subjects").iterdir())
    return {
        folder.name: build_ruler([read_image(p) for p in list_images(folder / "references")])
        for folder in folders
    }


@lru_cache(maxsize=1)
def measured() -> tuple[Measured, ...]:
    """Score the three clips once; rows share the scores."""
    folder = need(SHARED / "clips")
    return tuple(_measure(folder / f"{name}.mp4") for name in CLIPS)


def least_margin(_: int) -> float:
    """Least difference of neighbours in the published order over 3 to 81 evenly spaced frames.

    From every offset; the clips are sampled alike.
    """
    found, length = measured(), _length()
    margins = [
        float(better.own_F[sample].mean() - worse.own_F[sample].mean())
        for wanted in _SAMPLES
        for sample in _even(length, wanted)
        for better, worse in pairwise(found)
    ]
    return min(margins)


def drawn_in_order(seed: int) -> float:
    """Share of draws of frames in which all clips are in order, of the size with the least share.

    Sizes as above. Three frames may all be a good clip's worst ones: this is not 1.
    """
    found, length = measured(), _length()
    shares = []
    for wanted in _SAMPLES:
        rng = np.random.default_rng([seed, wanted])
        draws = [rng.choice(length, wanted, replace=False) for _ in range(_DRAWS)]
        means = np.array([[clip.own_F[draw].mean() for clip in found] for draw in draws])
        shares.append(float((np.diff(means, axis=1) < 0).all(axis=1).mean()))
    return min(shares)


def single_frames(_: int) -> float:
    """Share of single frames, the same place in both clips, that order neighbours as published."""
    found, length = measured(), _length()
    right = [better.own_F[:length] > worse.own_F[:length] for better, worse in pairwise(found)]
    return float(np.mean(right))


@lru_cache(maxsize=1)
def measured_all() -> tuple[Measured, ...]:
    """The three, and the clip that has no place among them."""
    return (*measured(), _measure(need(SHARED / "clips") / f"{_UNORDERED}.mp4"))


def above_wrong(_: int) -> float:
    """Least, over all four clips, of the own subject's mean above the best wrong subject's."""
    margins = []
    for clip in measured_all():
        own = float(clip.own_F[::_WRONG_EVERY].mean())
        margins.append(own - max(float(wrong.mean()) for wrong in clip.wrong.values()))
    return min(margins)


def above_wrong_frames(_: int) -> float:
    """Share of frames in which the own subject scores above a wrong one, all pairs."""
    pairs = [
        clip.own_F[::_WRONG_EVERY] > wrong
        for clip in measured_all()
        for wrong in clip.wrong.values()
    ]
    return float(np.mean(pairs))


@lru_cache(maxsize=1)
def cost() -> Cost:
    """Score one clip of 81 frames at 720p as the suite does, and watch clock and memory."""
    clip = need(SHARED / "clips") / f"{CLIPS[0]}.mp4"
    names = sorted(rulers())
    own = rulers()[OWN]
    others = {name: rulers()[name] for name in names if name != OWN}
    config = BenchmarkConfig(hub=False)
    chosen = dict(list(others.items())[: config.wrong_subjects])
    views = [read_image(p) for p in list_images(SHARED / "subjects" / OWN / "references")]
    subjects = Subjects(own=own, others=chosen, references=views)
    process, sizes = psutil.Process(), []
    started = time.monotonic()
    score_clip(
        clip, subjects, Instruments(), config, lambda *_: sizes.append(process.memory_info().rss)
    )
    seconds = time.monotonic() - started
    return Cost(seconds=seconds, growth_mb=(max(sizes) - sizes[_WARM_FRAMES]) / 2**20)


def _measure(path: Path) -> Measured:
    own: list[float] = []
    wrong: dict[str, list[float]] = {name: [] for name in rulers() if name != OWN}
    for place, frame in enumerate(stream_clip(path)):
        own.append(rulers()[OWN].measure(frame).identity)
        if place % _WRONG_EVERY == 0:
            for name, values in wrong.items():
                values.append(rulers()[name].measure(frame).identity)
    return Measured(
        own_F=np.array(own), wrong={name: np.array(values) for name, values in wrong.items()}
    )


def _length() -> int:
    return min(len(clip.own_F) for clip in measured())


def _even(length: int, wanted: int) -> list[NDArray[np.int64]]:
    step = length / wanted
    places = step * np.arange(wanted)
    return [np.floor((offset + places) % length).astype(np.int64) for offset in range(length)]
