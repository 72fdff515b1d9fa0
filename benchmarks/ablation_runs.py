"""Trainings of held-out subjects for the ablation, on all cores; each is kept by its key."""

import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import cache
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from benchmarks.commands import ROOT
from dreambooth3d.artifacts.adapter import Adapter, find_adapter, load_adapter
from dreambooth3d.artifacts.key import artifact_key, publish_file
from dreambooth3d.artifacts.settings import versioned_fields
from dreambooth3d.artifacts.subject import Subject
from dreambooth3d.evaluate.chamfer import chamfer
from dreambooth3d.evaluate.foreground import cut_by_masks
from dreambooth3d.evaluate.probe import Probe, load_probe, subject_masks
from dreambooth3d.evaluate.visual_hull import Cloud, VisualHull
from dreambooth3d.model.backbone import Backbone, load_backbone
from dreambooth3d.model.codec import to_frames
from dreambooth3d.model.lora import LoraAdapter
from dreambooth3d.personalize.config import PersonalizeConfig
from dreambooth3d.personalize.heldout_scores import complete_views, view_losses
from dreambooth3d.personalize.lessons import Lessons, batch_loader, encode_lessons, encode_pictures
from dreambooth3d.personalize.personalize import build_task
from dreambooth3d.personalize.subject_batches import SubjectBatch
from dreambooth3d.scenes import (
    BACKGROUNDS,
    FIRST_HELD_OUT_SEED,
    WORLD_REVISION,
    Camera,
    Scene,
    make_scene,
    make_subject,
    point_cloud,
    reference_cameras,
    render_scene,
    render_view,
    scene_poses,
)
from dreambooth3d.training.engine import TorchEngine
from dreambooth3d.training.task import AdapterTask, TrainBatch
from dreambooth3d.vision.object_embedding import cut_to_object, embed_objects

HOME = ROOT / "runs" / "ablation"
REVISION = 2
NUM_VIEWS = 12
ALL_AROUND = tuple(360.0 * index / NUM_VIEWS for index in range(NUM_VIEWS))
BETWEEN = tuple(azimuth + 180.0 / NUM_VIEWS for azimuth in ALL_AROUND)
GROUP = 6
"""Subjects in one forward."""
_FIRST_SEED = 4 * FIRST_HELD_OUT_SEED
_SEEDS_A_PROOF = 1000
_ELEVATION_DEG = 15.0
# Of twelve masks nine must agree: one bad completion must not carve a subject away.
_AGREEING = 0.75
_SURFACE_POINTS = 4000


@dataclass(frozen=True, kw_only=True)
class Trial:
    """How a subject is learned and judged.

    Attributes:
        config: method, rate, views, attention.
        steps: after which it is judged; the last one ends the training.
        adapter: the 3Dapter, a packaged name or a folder.
        learned_deg: azimuths of the captures that are trained on.
        judged_deg: azimuths of the unseen views.
    """

    config: PersonalizeConfig
    steps: tuple[int, ...]
    adapter: str = "tiny"
    learned_deg: tuple[float, ...] = ALL_AROUND
    judged_deg: tuple[float, ...] = BETWEEN


@dataclass(frozen=True, kw_only=True)
class Point:
    """A subject after `step` updates, judged on its unseen views.

    Attributes:
        loss, identity: means over the views.
        chamfer: from the hull of the completed views to the true surface, in subject units.
    """

    step: int
    loss: float
    identity: float
    chamfer: float


Curve = tuple[Point, ...]


def subject_seeds(seed: int, count: int) -> list[int]:
    """Subjects that no training has seen, others for every seed of the proof."""
    first = _FIRST_SEED + _SEEDS_A_PROOF * seed
    return list(range(first, first + count))


def run_trials(trials: Sequence[Trial], seeds: Sequence[int], say: Callable[[str], None]
) -> list[list[Curve]]:  # fmt: skip
    """Curves of every subject, for each trial; what was run before is read.

    Groups of subjects go through one forward; groups share the cores.
    """
    groups = [tuple(seeds[i : i + GROUP]) for i in range(0, len(seeds), GROUP)]
    jobs = [(trial, group) for trial in trials for group in groups]
    missing = [job for job in jobs if not _path(*job).is_file()]
    workers = min(os.cpu_count() or 1, len(missing))
    if missing:
        # The longest first, so that the cores end together.
        missing.sort(key=lambda job: -job[0].steps[-1])
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            for done, line in enumerate(pool.map(_run, *zip(*missing, strict=True)), start=1):
                say(f"{done}/{len(missing)} {line}")
    return [[curve for group in groups for curve in _read(_path(trial, group))] for trial in trials]


def _path(trial: Trial, group: Sequence[int]) -> Path:
    settings = {
        **versioned_fields(trial.config),
        **{name: list(getattr(trial, name)) for name in ("steps", "learned_deg", "judged_deg")},
        "subjects": list(group),
        "world": WORLD_REVISION,
    }
    backbone, adapter = _backbone(trial.config.backbone), _adapter(trial.adapter)
    parents = [backbone.card.revision, adapter.card.key]
    return HOME / f"{artifact_key('ablation', REVISION, settings, parents)}.json"


def _read(path: Path) -> list[Curve]:
    rows = json.loads(path.read_text(encoding="utf-8"))
    return [tuple(Point(**point) for point in curve) for curve in rows]


def _run(trial: Trial, group: Sequence[int]) -> str:
    torch.set_num_threads(1)
    curves = learn(trial, group)
    path = _path(trial, group)
    with publish_file(path) as aside:
        rows = [[asdict(point) for point in curve] for curve in curves]
        aside.write_text(json.dumps(rows), encoding="utf-8")
    last = [curve[-1] for curve in curves]
    return (
        f"{trial.config.method}, {len(group)} subjects, {last[0].step} steps: "
        f"loss {sum(p.loss for p in last) / len(last):.4f}, "
        f"identity {sum(p.identity for p in last) / len(last):.3f}"
    )


@cache
def _backbone(name: str) -> Backbone:
    return load_backbone(name)


@cache
def _adapter(source: str) -> Adapter:
    return load_adapter(find_adapter(source))


@cache
def _probe() -> Probe:
    return load_probe()


@dataclass(frozen=True, kw_only=True, eq=False)
class Learner:
    """A subject in training, and what judges it."""

    task: AdapterTask
    lessons: Lessons
    load: Callable[[int], list[TrainBatch]]
    unseen_NCHW: Tensor
    views: tuple[Image.Image, ...]
    hull: VisualHull
    surface_N3: Cloud
    seed: int

    def score(self, backbone: Backbone, step: int) -> Point:
        """Judge the unseen views; identity is each completion's with its own view."""
        known = (self.lessons.views_VCHW, self.lessons.captions[0])
        loss = view_losses(self.task, self.unseen_NCHW, *known, seed=self.seed).mean()
        made = complete_views(self.task, self.unseen_NCHW, *known, seed=self.seed)
        frames = to_frames(backbone.codec.decode(made))[:, 0]
        masks = subject_masks(_probe(), frames)
        ours = embed_objects(cut_by_masks(frames, masks), batch_size=NUM_VIEWS)
        theirs = embed_objects([cut_to_object(v) for v in self.views], batch_size=NUM_VIEWS)
        identity = F.cosine_similarity(ours, theirs).mean()
        return Point(
            step=step,
            loss=float(loss),
            identity=float(identity),
            chamfer=chamfer(self.hull(frames, masks), self.surface_N3).distance,
        )


def make_learner(trial: Trial, seed: int) -> Learner:
    """Photograph a subject, and put fresh adapters beside the backbone."""
    backbone, adapter = _backbone(trial.config.backbone), _adapter(trial.adapter)
    config = replace(trial.config, seed=seed)
    side = backbone.card.train_side
    subject = make_subject(seed)
    card = Subject(
        id=f"s{seed}", class_noun=subject.class_noun, images=(Path("capture"),), references=()
    )
    has_views = config.method != "3dreambooth"
    views = [_view(seed, c.azimuth_deg, side) for c in reference_cameras(config.num_views)]
    captures = [_photo(_scene(seed, azimuth), side) for azimuth in trial.learned_deg]
    lessons = encode_lessons(config, card, backbone, captures, views if has_views else ())
    scenes = [_scene(seed, azimuth) for azimuth in trial.judged_deg]
    poses = [pose for scene in scenes for pose in scene_poses(scene)]
    unseen = [_photo(scene, side) for scene in scenes]
    return Learner(
        task=build_task(config, backbone, adapter if has_views else None),
        lessons=lessons,
        load=batch_loader(config, card, backbone, lessons),
        unseen_NCHW=encode_pictures(backbone, unseen, side),
        views=tuple(_view(seed, azimuth, side) for azimuth in trial.judged_deg),
        hull=VisualHull(
            cameras=tuple(pose.camera for pose in poses),
            centers=tuple(pose.center for pose in poses),
            agreeing=_AGREEING,
        ),
        surface_N3=point_cloud(subject, _SURFACE_POINTS).astype(np.float64),
        seed=seed,
    )


def _scene(seed: int, azimuth_deg: float) -> Scene:
    background = BACKGROUNDS[seed % len(BACKGROUNDS)]
    scene = make_scene(
        make_subject(seed), seed * 1000 + round(azimuth_deg), num_frames=1, background=background
    )
    return replace(scene, azimuth_deg=azimuth_deg)


def _photo(scene: Scene, side: int) -> Image.Image:
    return Image.fromarray(render_scene(scene, size=side)[0][0])


def _view(seed: int, azimuth_deg: float, side: int) -> Image.Image:
    camera = Camera(azimuth_deg=azimuth_deg, elevation_deg=_ELEVATION_DEG)
    return Image.fromarray(render_view(make_subject(seed), camera, size=side).rgb)


def learn(trial: Trial, group: Sequence[int]) -> list[Curve]:
    """Train a group of subjects and judge each after every one of `trial.steps`."""
    backbone = _backbone(trial.config.backbone)
    learners = [make_learner(trial, seed) for seed in group]
    update, write_back = _updater(trial, backbone, learners)
    curves: list[list[Point]] = [[] for _ in learners]
    for step in range(trial.steps[-1] + 1):
        if step in trial.steps:
            write_back()
            for curve, learner in zip(curves, learners, strict=True):
                curve.append(learner.score(backbone, step))
        if step < trial.steps[-1]:
            update(step)
    return [tuple(curve) for curve in curves]


def _updater(
    trial: Trial, backbone: Backbone, learners: Sequence[Learner]
) -> tuple[Callable[[int], None], Callable[[], None]]:
    """One update of all subjects, and what makes their tasks current."""
    if trial.config.reference_attention == "isolated":
        engines = [TorchEngine(learner.task, trial.config.optim) for learner in learners]

        def update_each(step: int) -> None:
            for engine, learner in zip(engines, learners, strict=True):
                engine.update(learner.load(step), trial.config.lr)

        return update_each, lambda: None
    if trial.config.method == "3dapter":
        return lambda step: None, lambda: None
    together = SubjectBatch(
        backbone.transformer,
        subjects=[_given(learner.task.subject) for learner in learners],
        references=[r for learner in learners if (r := learner.task.reference) is not None],
        optim=trial.config.optim,
        text_scope=trial.config.text_scope,
    )

    def update(step: int) -> None:
        together.update([batch for learner in learners for batch in learner.load(step)])

    return update, together.write_back


def _given(adapter: LoraAdapter | None) -> LoraAdapter:
    assert adapter is not None
    return adapter
