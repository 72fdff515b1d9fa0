"""Score one clip against its subject, frame by frame; nothing grows with its length but numbers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dreambooth3d.artifacts.clip import count_frames, stream_clip
from dreambooth3d.errors import ArtifactError
from dreambooth3d.evaluate.config import BenchmarkConfig
from dreambooth3d.evaluate.instruments import Instruments, PromptNumber, ReferenceNumbers
from dreambooth3d.evaluate.subject_ruler import SubjectRuler
from dreambooth3d.evaluate.video import MotionMeter, consistency

Frame = NDArray[np.uint8]

_PICTURES, _PICTURE_WIDTH = 6, 320
# A place of the classifier's middle features.
_LEAST_SIDE = 16


@dataclass(frozen=True, kw_only=True)
class ClipNumbers:
    """What one clip scores.

    Attributes:
        numbers: by name; a mean over frames where each frame has one.
        wrong: identity against other subjects, by id, on fewer frames.
        frames: places of the scored frames.
        identity: of each of them.
        num_frames: in the clip.
    """

    numbers: Mapping[str, float]
    wrong: Mapping[str, float]
    frames: tuple[int, ...]
    identity: tuple[float, ...]
    num_frames: int

    def with_more(self, numbers: Mapping[str, float]) -> "ClipNumbers":
        """Add numbers that were measured elsewhere."""
        return replace(self, numbers={**self.numbers, **numbers})


@dataclass(frozen=True, kw_only=True, eq=False)
class ClipPictures:
    """A few frames, small, and what was cut out of them."""

    frames: list[Image.Image] = field(default_factory=list)
    cutouts: list[Image.Image] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True, eq=False)
class Subjects:
    """Whom a clip is compared with.

    Attributes:
        own: ruler of the subject that it should show.
        others: rulers of wrong subjects, by id.
        references: the subject's views.
    """

    own: SubjectRuler
    others: Mapping[str, SubjectRuler]
    references: Sequence[Image.Image]


def score_clip(
    path: Path,
    subjects: Subjects,
    instruments: Instruments,
    config: BenchmarkConfig,
    on_frame: Callable[[int, int], None],
    *,
    prompt: str | None = None,
) -> tuple[ClipNumbers, ClipPictures]:
    """Stream a clip through every number.

    Args:
        path: of the clip.
        subjects: see there.
        instruments: see there.
        config: how many frames.
        on_frame: told (frames done, frames in all).
        prompt: plain text that its frames are compared with; None compares with none.

    Raises:
        ArtifactError: the clip cannot be read.
        RunError: the judge does not answer.
    """
    total = count_frames(path)
    if total == 0:
        raise ArtifactError(f"clip must have frames, got none in {path}; make it again")
    places, wrong = spread(total, config.frames), set(spread(total, config.wrong_frames))
    chosen, kept = set(places), {places[i] for i in spread(len(places), _PICTURES)}
    judged = set(spread(total, config.judge_frames)) if instruments.judge else set()
    tally = _Tally(subjects, instruments, prompt)
    for place, frame in enumerate(stream_clip(path)):
        if min(frame.shape[:2]) < _LEAST_SIDE:
            raise ArtifactError(
                f"clip must have at least {_LEAST_SIDE} pixels a side, got "
                f"{frame.shape[1]}x{frame.shape[0]} in {path}; make a larger one"
            )
        tally.motion.add(frame)
        if place in chosen:
            tally.add_own(place, frame, is_kept=place in kept)
        if place in wrong:
            tally.add_wrong(frame)
        if place in judged:
            tally.judged.append(_small(frame))
        on_frame(place + 1, total)
    return tally.result(total), tally.pictures


def spread(available: int, wanted: int) -> list[int]:
    """Return evenly spaced places, the first and the last among them; 0 wants all."""
    if wanted == 0 or available <= wanted:
        return list(range(available))
    places = np.linspace(0, available - 1, wanted).round()
    return [int(place) for place in places]


class _Tally:
    """Numbers of the frames so far."""

    def __init__(self, subjects: Subjects, instruments: Instruments, prompt: str | None) -> None:
        self.motion, self.pictures = MotionMeter(), ClipPictures()
        self.judged: list[Frame] = []
        self._subjects, self._instruments = subjects, instruments
        self._more = ReferenceNumbers(instruments, subjects.own.references)
        self._text = PromptNumber(instruments, prompt)
        self._places: list[int] = []
        self._numbers: dict[str, list[float]] = {}
        self._wrong: dict[str, list[float]] = {name: [] for name in subjects.others}
        self._embeddings: list[NDArray[np.float32]] = []

    def add_own(self, place: int, frame: Frame, *, is_kept: bool) -> None:
        found = self._subjects.own.measure(frame)
        self._places.append(place)
        self._embeddings.append(found.embedding)
        more = self._more.measure(found.cutout) | self._text.measure(frame)
        for name, value in (found.numbers() | more).items():
            self._numbers.setdefault(name, []).append(value)
        if is_kept:
            self.pictures.frames.append(Image.fromarray(_small(frame)))
            self.pictures.cutouts.append(Image.fromarray(found.cutout.pixels_HWC))

    def add_wrong(self, frame: Frame) -> None:
        for name, ruler in self._subjects.others.items():
            self._wrong[name].append(ruler.measure(frame).identity)

    def result(self, total: int) -> ClipNumbers:
        numbers = {name: float(np.mean(values)) for name, values in self._numbers.items()}
        if total > 1:
            numbers |= asdict(self.motion.result())
        if len(self._embeddings) > 1:
            same = consistency(np.stack(self._embeddings))
            numbers["subject_consistency_efficientnet"] = same
        if self._instruments.judge is not None:
            verdict = self._instruments.judge(self.judged, self._subjects.references)
            numbers |= {f"judge_{axis}": grade for axis, grade in asdict(verdict).items()}
        return ClipNumbers(
            numbers={name: value for name, value in numbers.items() if np.isfinite(value)},
            wrong={name: float(np.mean(values)) for name, values in self._wrong.items()},
            frames=tuple(self._places),
            identity=tuple(self._numbers["identity"]),
            num_frames=total,
        )


def _small(frame: Frame) -> Frame:
    height = max(1, round(_PICTURE_WIDTH * frame.shape[0] / frame.shape[1]))
    size = (_PICTURE_WIDTH, height)
    return np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
