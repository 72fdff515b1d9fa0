"""Has the object in a clip the shape of the true one? Chamfer numbers of the benchmark.

The cloud of a clip's object is laid on the subject's, whose cloud is the first there is of

1. ``cloud.ply`` in the subject's folder: a scan, as points or as a mesh;
2. what the same reconstructor makes of the captures in ``images/``.

Clouds are kept by content beside the scores, as PLY files, and so is why there is none.
"""

import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dreambooth3d.artifacts.clip import count_frames, stream_clip
from dreambooth3d.artifacts.image import flatten, read_image
from dreambooth3d.artifacts.jsonfile import read_json, write_json
from dreambooth3d.artifacts.key import artifact_key, content_hash, publish
from dreambooth3d.artifacts.subject import Subject
from dreambooth3d.errors import ArtifactError, InputError
from dreambooth3d.evaluate.alignment import Similarity, align
from dreambooth3d.evaluate.chamfer import Chamfer, chamfer_after, even_clouds, without_strays
from dreambooth3d.evaluate.clip_scoring import spread
from dreambooth3d.evaluate.cloud_picture import draw_clouds
from dreambooth3d.evaluate.config import BenchmarkConfig
from dreambooth3d.evaluate.instruments import Instruments
from dreambooth3d.evaluate.point_file import read_points, write_points
from dreambooth3d.evaluate.reconstruct import HULL, Reconstructor
from dreambooth3d.evaluate.skipping import Skipped
from dreambooth3d.evaluate.told_turntable import find_hull
from dreambooth3d.vision.backdrop import cut_from_backdrop
from dreambooth3d.vision.reference_match import Look, mask_subject, resized
from dreambooth3d.vision.refusal import RefusedError

Cloud = NDArray[np.float64]
Pixels = NDArray[np.uint8]

SCAN = "cloud.ply"
# Raised by hand when a cloud is made in another way.
_REVISION = 1
_LONG_SIDE = 1280
# Of a pixel that a soft outline goes through.
_COVERED = 0.5
# Points of a cloud that are compared.
_POINTS = 1000
_CLOUD, _REFUSED = "cloud.ply", "refused.json"


@dataclass(frozen=True, kw_only=True)
class Shape:
    """How near a clip's object is to the true one.

    Attributes:
        chamfer: in radii of the clouds.
        kind: of the reconstructor.
        picture: of both clouds.
    """

    chamfer: Chamfer
    kind: str
    picture: Path

    def numbers(self) -> dict[str, float]:
        """Return what is reported."""
        return {
            f"chamfer_accuracy_{self.kind}": self.chamfer.accuracy,
            f"chamfer_completeness_{self.kind}": self.chamfer.completeness,
            f"chamfer_distance_{self.kind}": self.chamfer.distance,
        }


class Geometer:
    """Measures clips against subjects, with one kind of reconstructor.

    Args:
        kind: of the numbers' names.
        reconstructor: None for `visual_hull`, which is made for every clip.
        num_frames: of a clip, evenly spaced; 0 takes all.
        home: folder in which clouds are kept.
        report: told when a cloud is made, which takes a minute.
    """

    def __init__(
        self,
        kind: str,
        reconstructor: Reconstructor | None,
        *,
        num_frames: int,
        home: Path,
        report: Callable[[str], None],
    ) -> None:
        self.kind, self._reconstructor = kind, reconstructor
        self._num_frames, self._home, self._report = num_frames, home, report

    def measure(self, clip: Path, subject: Subject, look: Look) -> Shape | Skipped:
        """The shape in a clip, or why there is none.

        Args:
            clip: of the object.
            subject: the true one.
            look: by which it is found in frames.
        """
        try:
            return self._compared(clip, subject, look)
        except (ArtifactError, InputError) as error:
            # A scan, a capture or a description that cannot be used costs this number alone.
            return Skipped(name=f"chamfer_{self.kind}", reason=str(error))

    def _compared(self, clip: Path, subject: Subject, look: Look) -> Shape:
        truth = self.true_cloud(subject, look)
        made = self.clip_cloud(clip, subject, look)
        move, chamfer = compare(made, truth)
        name = f"{content_hash(clip)[:16]}-{subject.id}-{self.kind}.png"
        picture = self._home / "pictures" / name
        draw_clouds(picture, move(without_strays(made)), without_strays(truth))
        return Shape(chamfer=chamfer, kind=self.kind, picture=picture)

    def clip_cloud(self, clip: Path, subject: Subject, look: Look) -> Cloud:
        """The cloud of a clip's object.

        Raises:
            InputError: none can be made, also not when it was tried before.
            ArtifactError: the clip, or what tells how it turns, cannot be read.
        """
        total = count_frames(clip)
        places = spread(total, self._num_frames)
        reconstructor = self._reconstructor or find_hull(clip, places, total)
        if reconstructor is None:
            raise InputError(
                'clip must have {"turntable": {}} in the JSON file beside it, got none; say how it '
                "turns"
            )
        versioned = {"frames": places}
        folder = self._folder(reconstructor, [clip], subject, versioned)
        if (kept := _found(folder, whose="clip")) is not None:
            return kept
        chosen = set(places)
        frames = (f for i, f in enumerate(stream_clip(clip)) if i in chosen)
        self._report(f"evaluate: shape of {clip.name} from {len(places)} frames ...")
        _publish(folder, reconstructor, frames, look)
        return _kept(folder, whose="clip")

    def true_cloud(self, subject: Subject, look: Look) -> Cloud:
        """The cloud of the subject itself.

        Raises:
            InputError: none can be made, also not when it was tried before.
            ArtifactError: the scan cannot be read.
        """
        scan = subject.references[0].parent.parent / SCAN
        if scan.is_file():
            return read_points(scan)
        if self._reconstructor is None or subject.images == subject.references:
            raise InputError(
                f"{subject.id} must have {SCAN} or captures in images/, got neither; add one"
            )
        folder = self._folder(self._reconstructor, subject.images, subject, {})
        whose = f"captures of {subject.id}"
        if (kept := _found(folder, whose=whose)) is not None:
            return kept
        frames = (np.asarray(flatten(read_image(path))) for path in subject.images)
        count = len(subject.images)
        self._report(f"evaluate: shape of {subject.id} from {count} captures ...")
        _publish(folder, self._reconstructor, frames, look)
        return _kept(folder, whose=whose)

    def _folder(
        self,
        reconstructor: Reconstructor,
        pictures: Sequence[Path],
        subject: Subject,
        versioned: Mapping[str, object],
    ) -> Path:
        """Where a cloud is; references decide what the object is taken to be."""
        references = [content_hash(path) for path in subject.references]
        more = {"by": reconstructor.name, "references": references}
        hashes = [content_hash(path) for path in pictures]
        return self._home / artifact_key("cloud", _REVISION, {**versioned, **more}, hashes)


def find_geometer(
    config: BenchmarkConfig, instruments: Instruments, out: Path, report: Callable[[str], None]
) -> Geometer | None:
    """Return what measures shapes, where that was asked for and is here; clouds go below `out`."""
    if not config.reconstructor or (
        instruments.reconstructor is None and config.reconstructor != HULL
    ):
        return None
    return Geometer(
        config.reconstructor,
        instruments.reconstructor,
        num_frames=config.geometry_frames,
        home=out / "clouds",
        report=report,
    )


def compare(made_N3: Cloud, true_M3: Cloud) -> tuple[Similarity, Chamfer]:
    """Lay a cloud on the true one and measure, a thousand points of each.

    Two draws of one surface are not 0 apart but what a thousand points leave between them, some
    0.05; where a cloud has fewer it is more.

    Raises:
        InputError: a cloud has no shape.
    """
    made, truth = even_clouds(made_N3, true_M3, num_points=_POINTS)
    move = align(made, truth)
    return move, chamfer_after(move, made, truth)


def outline(frame_HWC: Pixels, look: Look) -> NDArray[np.bool_]:
    """Where the object is, (H, W): all that stands before one plain colour, else what is found."""
    try:
        alpha_HW = cut_from_backdrop(Image.fromarray(frame_HWC))
    except RefusedError:
        return mask_subject(frame_HWC, look)
    return np.asarray(alpha_HW > _COVERED, dtype=np.bool_)


def _publish(
    folder: Path, reconstructor: Reconstructor, frames: Iterable[Pixels], look: Look
) -> None:
    """Keep a cloud, or why there is none: to try again would take as long, and end alike."""
    small = [_small(frame) for frame in frames]
    with publish(folder) as aside:
        try:
            masks = [outline(frame, look) for frame in small]
            write_points(aside / _CLOUD, reconstructor(small, masks))
        except InputError as refused:
            write_json(aside / _REFUSED, {"why": str(refused)})


def _found(folder: Path, *, whose: str) -> Cloud | None:
    """Return the cloud that is kept; None where there is none, and what is damaged is removed.

    Raises:
        InputError: none could be made when it was tried.
    """
    if not folder.is_dir():
        return None
    try:
        return _kept(folder, whose=whose)
    except ArtifactError:
        shutil.rmtree(folder, ignore_errors=True)
        return None


def _kept(folder: Path, *, whose: str) -> Cloud:
    refused = folder / _REFUSED
    if refused.is_file():
        told = read_json(refused, what="reason without a cloud")
        raise InputError(f"{whose}: {told.get('why')}")
    return read_points(folder / _CLOUD)


def _small(frame_HWC: Pixels) -> Pixels:
    """At most `_LONG_SIDE` pixels wide and high."""
    scale = _LONG_SIDE / max(frame_HWC.shape)
    if scale >= 1:
        return frame_HWC
    return resized(frame_HWC, *(round(side * scale) for side in frame_HWC.shape[:2]))
