"""Clips and thumbnails on disk: `<root>/<job id>-<claim>/clip.mp4` and `thumbnail.png`.

Each claim of a job has a folder of its own, named by its lease token, so an engine that lost its
lease can neither overwrite nor delete what its successor made.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dreambooth3d.artifacts.clip import write_clip
from dreambooth3d.artifacts.jsonfile import JsonValue
from dreambooth3d.artifacts.key import publish_file

CLIP_NAME = "clip.mp4"
THUMBNAIL_NAME = "thumbnail.png"


class ResultStore:
    """The folder of finished clips; the job table holds paths relative to it."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def write(
        self,
        job_id: str,
        token: str,
        frames: NDArray[np.uint8],
        *,
        fps: int,
        metadata: Mapping[str, JsonValue],
    ) -> str:
        """Write clip and thumbnail and return their folder's name.

        Args:
            job_id: whose clip it is.
            token: of the claim that made it.
            frames: (F, H, W, 3) uint8.
            fps: frames a second.
            metadata: provenance, also stored in the container.
        """
        name = f"{job_id}-{token}"
        write_clip(self._root / name / CLIP_NAME, frames, fps=fps, metadata=metadata)
        with publish_file(self._root / name / THUMBNAIL_NAME) as aside:
            Image.fromarray(frames[len(frames) // 2]).save(aside, format="PNG")
        return name

    def path(self, folder: str, name: str) -> Path:
        """Return where a file of a finished job is."""
        return self._root / folder / name

    def folders(self) -> tuple[str, ...]:
        """Name every attempt that has files."""
        if not self._root.is_dir():
            return ()
        return tuple(sorted(path.name for path in self._root.iterdir() if path.is_dir()))

    def keep_only(self, folder: str) -> None:
        """Remove what earlier attempts of the same job left."""
        job_id = folder.rpartition("-")[0]
        for other in self._root.glob(f"{job_id}-*"):
            if other.name != folder:
                shutil.rmtree(other, ignore_errors=True)

    def remove(self, folder: str) -> None:
        """Remove one attempt's files, if any."""
        shutil.rmtree(self._root / folder, ignore_errors=True)
