"""Photograph a procedural subject: the folder a user would bring, with known truth."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from dreambooth3d.artifacts.subject import Subject, write_subject
from dreambooth3d.scenes import (
    BACKGROUNDS,
    make_scene,
    make_subject,
    reference_cameras,
    render_scene,
    render_view,
)


def photograph(
    folder: Path,
    seed: int,
    *,
    id: str,
    num_images: int = 12,
    num_references: int = 4,
    size: int = 128,
) -> Subject:
    """Write `images/` all around the subject and `references/` on white.

    Args:
        folder: fresh; gets the benchmark layout.
        id: subject id.
        seed: of the subject; from `FIRST_HELD_OUT_SEED` on it is unseen by every training.
        num_images, num_references: captures and background-free views, evenly spaced.
        size: side of the pictures, in pixels.
    """
    subject = make_subject(seed)
    background = BACKGROUNDS[seed % len(BACKGROUNDS)]
    captures = []
    for index, camera in enumerate(reference_cameras(num_images)):
        scene = make_scene(subject, seed * 1000 + index, num_frames=1, background=background)
        posed = replace(scene, azimuth_deg=camera.azimuth_deg)
        captures.append(Image.fromarray(render_scene(posed, size=size)[0][0]))
    views = [
        Image.fromarray(np.ascontiguousarray(render_view(subject, camera, size=size).rgb))
        for camera in reference_cameras(num_references)
    ]
    return write_subject(
        folder,
        id=id,
        class_noun=subject.class_noun,
        images=captures,
        references=views,
        prompts=(f"a video of a [sks {subject.class_noun}] on a beach",),
        notes={"source": f"scenes, subject seed {seed}", "licence": "Apache-2.0"},
    )
