"""The embedded world: an endless family of procedural subjects with exact geometry and captions."""

from dreambooth3d.scenes.backgrounds import BACKGROUNDS
from dreambooth3d.scenes.cameras import Camera, camera_axes, reference_cameras
from dreambooth3d.scenes.captions import describe
from dreambooth3d.scenes.geometry import point_cloud
from dreambooth3d.scenes.palette import COLORS
from dreambooth3d.scenes.parts import Part
from dreambooth3d.scenes.patterns import PATTERNS
from dreambooth3d.scenes.scene import (
    MOTIONS,
    Pose,
    Scene,
    make_scene,
    render_scene,
    scene_poses,
)
from dreambooth3d.scenes.seeds import FIRST_HELD_OUT_SEED, SEED_RANGES, WORLD_REVISION
from dreambooth3d.scenes.subjects import (
    CLASSES,
    Frame,
    Subject,
    is_held_out,
    make_subject,
    render_view,
)

__all__ = [
    "BACKGROUNDS",
    "CLASSES",
    "COLORS",
    "FIRST_HELD_OUT_SEED",
    "MOTIONS",
    "PATTERNS",
    "SEED_RANGES",
    "WORLD_REVISION",
    "Camera",
    "Frame",
    "Part",
    "Pose",
    "Scene",
    "Subject",
    "camera_axes",
    "describe",
    "is_held_out",
    "make_scene",
    "make_subject",
    "point_cloud",
    "reference_cameras",
    "render_scene",
    "render_view",
    "scene_poses",
]
