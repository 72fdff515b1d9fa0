"""Scenes: a subject in front of a background with a motion, rendered to a clip."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dreambooth3d.errors import ConfigError
from dreambooth3d.scenes.backgrounds import BACKGROUNDS, VARIANTS, Backdrop, backdrop
from dreambooth3d.scenes.cameras import Camera
from dreambooth3d.scenes.lens import soften
from dreambooth3d.scenes.raster import cast
from dreambooth3d.scenes.shapes import Array
from dreambooth3d.scenes.subjects import Subject, check_name, check_size, seeded

__all__ = ["MOTIONS", "Pose", "Scene", "make_scene", "render_scene", "scene_poses"]

MOTIONS: tuple[str, ...] = (
    "still",
    "turntable left",
    "turntable right",
    "slide left",
    "slide right",
    "camera orbit",
)

_LAYOUT, _SWEEP = 3, 4
_TURN_DEG = (100.0, 180.0)
_SLIDE = (0.5, 0.75)
_FRONT_SHARE, _FRONT_SPREAD_DEG = 0.65, 40.0
# An orbiting camera sees distant things pass quickly and things close behind the subject slowly.
_FAR_PAN_PER_DEG, _NEAR_PAN_PER_DEG = 1.0 / 150.0, 1.0 / 300.0
_SHADOW = 0.5


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One clip: `azimuth_deg` is the view of the first frame, `center` (right, up) in half-frames.

    `center` is the middle of the subject's path; `scale` 1 shows the subject as in `render_view`.
    """

    subject: Subject
    background: str
    motion: str
    num_frames: int
    azimuth_deg: float
    elevation_deg: float
    center: tuple[float, float]
    scale: float
    seed: int

    def __post_init__(self) -> None:
        check_name("background", self.background, BACKGROUNDS)
        check_name("motion", self.motion, MOTIONS)
        if self.num_frames < 1:
            raise ConfigError(
                f"num_frames must be at least 1, got {self.num_frames}; use 1 for a photo"
            )
        if not self.scale > 0.0:
            raise ConfigError(f"scale must be positive, got {self.scale}; 1.0 fits the frame")


@dataclass(frozen=True, kw_only=True)
class Pose:
    """One frame's camera, the subject's place in the image, and how far the camera has orbited."""

    camera: Camera
    center: tuple[float, float]
    orbit_deg: float


def make_scene(
    subject: Subject,
    seed: int,
    *,
    num_frames: int = 17,
    background: str | None = None,
    motion: str | None = None,
) -> Scene:
    """The scene of `seed`; a single frame is always "still"."""
    rng = seeded(seed, _LAYOUT)
    drawn_background = BACKGROUNDS[int(rng.integers(len(BACKGROUNDS)))]
    drawn_motion = MOTIONS[int(rng.integers(len(MOTIONS)))]
    faces_front = rng.random() < _FRONT_SHARE
    front, anywhere = rng.normal(0.0, _FRONT_SPREAD_DEG), rng.uniform(-180.0, 180.0)
    return Scene(
        subject=subject,
        background=drawn_background if background is None else background,
        motion="still" if num_frames == 1 else drawn_motion if motion is None else motion,
        num_frames=num_frames,
        azimuth_deg=float(front if faces_front else anywhere) % 360.0,
        elevation_deg=float(rng.uniform(8.0, 24.0)),
        center=(float(rng.uniform(-0.1, 0.1)), float(rng.uniform(-0.2, -0.08))),
        scale=float(rng.uniform(0.9, 1.06)),
        seed=seed,
    )


def scene_poses(scene: Scene) -> tuple[Pose, ...]:
    """One pose per frame; a motion spans the same way for any number of frames."""
    rng = seeded(scene.seed, _SWEEP)
    turn, slide = float(rng.uniform(*_TURN_DEG)), float(rng.uniform(*_SLIDE))
    steps = [index / max(scene.num_frames - 1, 1) for index in range(scene.num_frames)]
    return tuple(_pose(scene, step, turn, slide) for step in steps)


def _pose(scene: Scene, step: float, turn: float, slide: float) -> Pose:
    """The pose after the share `step` of the motion."""
    kind, _, direction = scene.motion.partition(" ")
    sign = -1.0 if direction == "right" else 1.0
    azimuth, (x, y) = scene.azimuth_deg, scene.center
    if kind in ("turntable", "camera"):
        azimuth += sign * turn * step
    if kind == "slide":
        x += sign * slide * (0.5 - step)
    return Pose(
        camera=Camera(
            azimuth_deg=azimuth % 360.0, elevation_deg=scene.elevation_deg, zoom=scene.scale
        ),
        center=(x, y),
        orbit_deg=turn * step if kind == "camera" else 0.0,
    )


def render_scene(scene: Scene, *, size: int = 64) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Clip (T, H, W, 3) and subject mask (T, H, W); the shadow is not part of the mask."""
    check_size(size)
    scenery = backdrop(scene.background, scene.seed % VARIANTS, size)
    clip = np.empty((scene.num_frames, size, size, 3), np.uint8)
    masks = np.empty((scene.num_frames, size, size), np.bool_)
    for index, pose in enumerate(scene_poses(scene)):
        coverage = cast(scene.subject.stack, pose.camera, size=size, center=pose.center)
        ground = _ground(scene.subject, scenery, pose, size)
        rgb = coverage.rgb + ground * (1.0 - coverage.alpha[..., None])
        clip[index] = np.rint(soften(rgb))
        masks[index] = coverage.alpha >= 0.5
    return clip, masks


def _ground(subject: Subject, scenery: Backdrop, pose: Pose, size: int) -> Array:
    """Background RGB (H, W, 3) with the subject's soft contact shadow."""
    # The camera moves right around the subject, so what lies behind it drifts right in the image.
    view = scenery.view(-pose.orbit_deg * _FAR_PAN_PER_DEG, -pose.orbit_deg * _NEAR_PAN_PER_DEG)
    elevation, scale = math.radians(pose.camera.elevation_deg), pose.camera.zoom
    foot = pose.center[1] - 0.5 * subject.height * math.cos(elevation) * scale
    half_width = 0.72 * subject.radius * scale
    half_depth = half_width * max(math.sin(elevation), 0.2)
    axis = (np.arange(size, dtype=np.float32) + 0.5) * np.float32(2.0 / size) - 1.0
    across = ((axis - pose.center[0]) / half_width) ** 2
    up = ((-axis - foot) / half_depth) ** 2
    shade = np.exp(-0.9 * np.square(across[None, :] + up[:, None]))
    return np.asarray(view * (1.0 - _SHADOW * shade)[..., None], np.float32)
