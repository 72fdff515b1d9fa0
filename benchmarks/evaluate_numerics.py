"""Numbers of the suite against their libraries, and against what is known of a cloud."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional as F
from transformers import (
    BitImageProcessor,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    Dinov2Config,
    Dinov2Model,
)

from benchmarks.rows import RowSkippedError
from dreambooth3d.evaluate.chamfer import aligned_chamfer, chamfer
from dreambooth3d.evaluate.hub_embedding import HubModel, Kind, find_embedder
from dreambooth3d.evaluate.skipping import Skipped
from dreambooth3d.evaluate.visual_hull import VisualHull
from dreambooth3d.scenes import (
    FIRST_HELD_OUT_SEED,
    Camera,
    make_subject,
    point_cloud,
    reference_cameras,
    render_view,
)

Cloud = NDArray[np.float64]

_SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
_SUBJECTS, _POINTS = 6, 3000
# Samples of one surface lie 0.007 apart: offsets far above that are told.
_SPHERE_POINTS, _OFFSETS = 60_000, (0.05, 0.1, 0.2)


def library_difference(seed: int) -> float:
    """Largest difference of CLIP-I and DINO-I from transformers' own, tiny random networks."""
    torch.manual_seed(seed)
    vision = _SMALL | {"intermediate_size": 64, "image_size": 32, "patch_size": 8}
    text = _SMALL | {"intermediate_size": 64, "vocab_size": 50}
    clip = CLIPModel(CLIPConfig(vision_config=vision, text_config=text, projection_dim=16)).eval()
    crop = {"height": 32, "width": 32}
    clip_eye = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=crop)
    dino = Dinov2Model(Dinov2Config(**_SMALL, image_size=28, patch_size=14)).eval()
    dino_eye = BitImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 28, "width": 28})
    pictures = np.random.default_rng(seed).integers(0, 256, (4, 50, 70, 3), dtype=np.uint8)
    images = [Image.fromarray(picture) for picture in pictures]
    with torch.no_grad(), tempfile.TemporaryDirectory() as folder:
        theirs_clip = clip.visual_projection(
            clip.vision_model(**clip_eye(images=images, return_tensors="pt")).pooler_output
        )
        theirs_dino = dino(**dino_eye(images=images, return_tensors="pt")).pooler_output
        apart = []
        pairs: tuple[tuple[Kind, CLIPModel | Dinov2Model, Any, torch.Tensor], ...] = (
            ("clip_i", clip, clip_eye, theirs_clip),
            ("dino_i", dino, dino_eye, theirs_dino),
        )
        for kind, model, eye, theirs in pairs:
            home = Path(folder) / kind
            model.save_pretrained(home)
            eye.save_pretrained(home)
            found = find_embedder(HubModel(kind=kind, repository=str(home)))
            if isinstance(found, Skipped):
                raise RowSkippedError(found.reason)
            apart.append(float((found(list(pictures)) - F.normalize(theirs, dim=-1)).abs().max()))
    return max(apart)


def chamfer_identical(seed: int) -> float:
    """Largest aligned distance of a cloud from itself, turned and scaled."""
    clouds = [_cloud(seed, place) for place in range(_SUBJECTS)]
    return max(
        aligned_chamfer(_moved(cloud, seed + place), cloud).distance
        for place, cloud in enumerate(clouds)
    )


def chamfer_invariance(seed: int) -> float:
    """Largest relative change of the aligned distance when both clouds are moved anyhow."""
    changes = []
    for place in range(_SUBJECTS):
        truth, other = _cloud(seed, place), _cloud(seed, place, draw=1)
        other = other[other[:, 0] < np.quantile(other[:, 0], 0.8)]
        still = aligned_chamfer(other, truth).distance
        moved = aligned_chamfer(_moved(other, 2 * place), _moved(truth, 2 * place + 1)).distance
        changes.append(abs(moved / still - 1))
    return max(changes)


def chamfer_offset(seed: int) -> float:
    """Largest relative error of a known offset between two concentric spheres."""
    errors = []
    for place, offset in enumerate(_OFFSETS):
        found = chamfer(_sphere(1 + offset, seed + place), _sphere(1.0, seed + place + 100))
        errors += [abs(side / offset - 1) for side in (found.accuracy, found.completeness)]
    return max(errors)


def hull_tells_subjects(seed: int) -> float:
    """Share of pairs in which a hull from true masks is nearer to its own subject's cloud."""
    first = FIRST_HELD_OUT_SEED + 100 * seed
    right, clouds = [], [_cloud(seed, place) for place in range(_SUBJECTS)]
    low = reference_cameras(12)
    cameras = (*low, *(Camera(azimuth_deg=c.azimuth_deg, elevation_deg=50.0) for c in low))
    for place in range(_SUBJECTS):
        subject = make_subject(first + place)
        masks = np.stack([render_view(subject, camera, size=96).mask for camera in cameras])
        hull = VisualHull(cameras=cameras, resolution=64)(np.zeros(0, np.uint8), masks)
        apart = [aligned_chamfer(hull, cloud).distance for cloud in clouds]
        right += [apart[place] < other for i, other in enumerate(apart) if i != place]
    return float(np.mean(right))


def _cloud(seed: int, place: int, draw: int = 0) -> Cloud:
    subject = make_subject(FIRST_HELD_OUT_SEED + 100 * seed + place)
    return point_cloud(subject, _POINTS, seed=draw).astype(np.float64)


def _moved(points_N3: Cloud, seed: int) -> Cloud:
    rng = np.random.default_rng(seed)
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    turn *= np.sign(np.linalg.det(turn))
    return np.asarray(rng.uniform(0.05, 20) * points_N3 @ turn.T + rng.normal(size=3) * 5)


def _sphere(radius: float, seed: int) -> Cloud:
    found = np.random.default_rng(seed).normal(size=(_SPHERE_POINTS, 3))
    return np.asarray(radius * found / np.linalg.norm(found, axis=1, keepdims=True))
