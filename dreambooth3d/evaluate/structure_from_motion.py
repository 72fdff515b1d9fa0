"""A point cloud of the object in a clip, from how its places move: COLMAP's incremental pipeline.

Schönberger and Frahm 2016, through `pycolmap`, on the processor and without any weights. Places
are looked for on the object alone: an object that is turned before a still background is
reconstructed like one that a camera goes around. It must have texture, and the frames must show it
from sides that overlap. The cloud is sparse; its unit, origin and axes are arbitrary.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dreambooth3d.errors import ArtifactError, ConfigError, InputError

if TYPE_CHECKING:
    import pycolmap

Cloud = NDArray[np.float64]

_LEAST_FRAMES = 4
# A place that fewer frames show, or that lies further beside its rays, in pixels, is no evidence.
_LEAST_TRACK, _MOST_ERROR = 3, 2.0
# Share of the frames that must find their camera, and points below which there is no shape.
_LEAST_REGISTERED, _LEAST_POINTS = 0.5, 50
# Of the frame's long side: outlines are inexact, and places on them are the best ones.
_BORDER = 0.006


@dataclass(frozen=True, kw_only=True)
class StructureFromMotion:
    """COLMAP on the processor.

    Attributes:
        max_side: larger frames are scaled down to it.
        seed: of its random draws.
    """

    max_side: int = 1280
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the size."""
        if self.max_side < 64:
            raise ConfigError(f"max_side must be at least 64 pixels, got {self.max_side}; raise it")

    @property
    def name(self) -> str:
        """With its version and what decides a cloud."""
        return f"pycolmap {version('pycolmap')} {self.max_side} {self.seed}"

    def __call__(
        self, frames: Sequence[NDArray[np.uint8]], masks: Sequence[NDArray[np.bool_]]
    ) -> Cloud:
        """Return places of the object, (N, 3).

        Args:
            frames: RGB, (H, W, 3) each, in any order.
            masks: the object in each, (H, W).

        Raises:
            InputError: too few frames find their camera, or too few places are left.
            ArtifactError: COLMAP fails.
        """
        if len(frames) != len(masks) or len(frames) < _LEAST_FRAMES:
            raise InputError(
                f"structure from motion must have at least {_LEAST_FRAMES} frames and a mask for "
                f"each, got {len(frames)} and {len(masks)}; take more frames"
            )
        with tempfile.TemporaryDirectory(prefix="sfm-") as name:
            home = Path(name)
            self._lay_out(home, frames, masks)
            try:
                model = self._reconstruct(home)
            except RuntimeError as error:
                raise ArtifactError(
                    f"frames must be what COLMAP can compute with, got its error {error}; "
                    "try once more"
                ) from error
        registered = 0 if model is None else model.num_reg_images()
        if model is None or registered < max(_LEAST_FRAMES, _LEAST_REGISTERED * len(frames)):
            raise InputError(
                f"frames must show overlapping sides of a textured object, got {registered} of "
                f"{len(frames)} that find their camera; use more frames, or larger ones"
            )
        points_N3 = _evident(model)
        if len(points_N3) < _LEAST_POINTS:
            raise InputError(
                f"object must have texture, got {len(points_N3)} places that several frames show "
                f"(at least {_LEAST_POINTS} make a shape); use larger frames"
            )
        return points_N3

    def _lay_out(
        self,
        home: Path,
        frames: Sequence[NDArray[np.uint8]],
        masks: Sequence[NDArray[np.bool_]],
    ) -> None:
        """Write frames and masks as COLMAP reads them; what is black in a mask has no places."""
        for folder in ("frames", "masks"):
            (home / folder).mkdir()
        for place, (frame_HWC, mask_HW) in enumerate(zip(frames, masks, strict=True)):
            name, scale = f"{place:04d}.png", min(1.0, self.max_side / max(frame_HWC.shape))
            size = tuple(max(1, round(side * scale)) for side in reversed(frame_HWC.shape[:2]))
            reach = 2 * max(1, round(_BORDER * max(size))) + 1
            wide_HW = cv2.dilate(mask_HW.astype(np.uint8) * 255, np.ones((reach, reach), np.uint8))
            small = cv2.resize(frame_HWC, size, interpolation=cv2.INTER_AREA)
            near = cv2.resize(wide_HW, size, interpolation=cv2.INTER_NEAREST)
            Image.fromarray(np.asarray(small, dtype=np.uint8)).save(home / "frames" / name)
            Image.fromarray(np.asarray(near, dtype=np.uint8)).save(home / "masks" / f"{name}.png")

    def _reconstruct(self, home: Path) -> "pycolmap.Reconstruction | None":
        """Return the largest model, if any."""
        import pycolmap

        # It tells every step otherwise.
        pycolmap.logging.minloglevel = pycolmap.logging.Level.ERROR.value
        pycolmap.set_random_seed(self.seed)
        database, frames = home / "places.db", home / "frames"
        cpu = pycolmap.Device.cpu
        pycolmap.extract_features(
            database,
            frames,
            camera_mode=_camera_mode(pycolmap, frames),
            reader_options=pycolmap.ImageReaderOptions(mask_path=home / "masks"),
            device=cpu,
        )
        pycolmap.match_exhaustive(database, device=cpu)
        options = pycolmap.IncrementalPipelineOptions(random_seed=self.seed, extract_colors=False)
        found = pycolmap.incremental_mapping(database, frames, home / "models", options)
        return max(found.values(), key=lambda model: model.num_reg_images(), default=None)


def _camera_mode(pycolmap: Any, frames: Path) -> Any:
    """One camera where all frames have one size, as those of a clip do."""
    sizes = {Image.open(path).size for path in frames.iterdir()}
    return pycolmap.CameraMode.SINGLE if len(sizes) == 1 else pycolmap.CameraMode.AUTO


def _evident(model: "pycolmap.Reconstruction") -> Cloud:
    """Places that several frames agree on, (N, 3)."""
    kept = [
        point.xyz
        for point in model.points3D.values()
        if point.track.length() >= _LEAST_TRACK and point.error <= _MOST_ERROR
    ]
    return np.asarray(kept, dtype=np.float64).reshape(-1, 3)
