"""How much clips move before and after a subject is learned, from frames or from still clips."""

from dataclasses import replace

import torch
from torch import Tensor

from benchmarks.ablation_runs import Learner, Trial, make_learner, subject_seeds
from dreambooth3d.artifacts.adapter import find_adapter, load_card
from dreambooth3d.diffusion.noise import draw_noise, keyed_generator
from dreambooth3d.diffusion.sampler import euler, flow_sigmas, guide
from dreambooth3d.model.backbone import Backbone, load_backbone
from dreambooth3d.model.codec import to_frames
from dreambooth3d.model.forward import denoise
from dreambooth3d.personalize.config import PersonalizeConfig
from dreambooth3d.scenes import make_subject
from dreambooth3d.training.engine import TorchEngine
from dreambooth3d.training.task import TrainBatch

_SUBJECTS, _CLIPS = 3, 4
_MOTIONS = ("turns to the left", "slides to the right")
_SAMPLING_STEPS, _GUIDANCE = 16, 4.0


def motion_change(taught: str, seed: int) -> float:
    """Mean change of clips between frames, after training over before, less 1.

    The training is the published one: 400 updates at 1e-4.
    """
    backbone = load_backbone("tiny")
    config = PersonalizeConfig(method="joint", rank=load_card(find_adapter("tiny")).rank)
    before = after = 0.0
    for subject in subject_seeds(seed, _SUBJECTS):
        learner = make_learner(Trial(config=config, steps=(config.steps,)), subject)
        noun = make_subject(subject).class_noun
        before += _movement(backbone, None, noun, subject)
        engine = TorchEngine(learner.task, config.optim)
        for step in range(config.steps):
            (batch,) = learner.load(step)
            engine.update(
                [batch if taught == "frames" else _still_clip(backbone, batch)], config.lr
            )
        after += _movement(backbone, learner, noun, subject)
    return after / before - 1


def _still_clip(backbone: Backbone, batch: TrainBatch) -> TrainBatch:
    """The same picture for every latent frame."""
    frames = backbone.codec.latent_size(backbone.card.num_frames, 64, 64)[0]
    target = batch.target_BCTHW.expand(-1, -1, frames, -1, -1)
    draw = keyed_generator("still", float(batch.sigma_B[0]).hex())
    return replace(batch, target_BCTHW=target, noise_BCTHW=draw_noise(target.shape, draw))


@torch.no_grad()
def _movement(backbone: Backbone, learner: Learner | None, noun: str, seed: int) -> float:
    """Mean absolute difference of neighbouring frames, 0 to 255."""
    prompts = [f"a video of a [sks {noun}] that {_MOTIONS[i % 2]}" for i in range(_CLIPS)]
    plain = [prompt.replace("[sks ", "").replace("]", "") for prompt in prompts]
    texts = [backbone.prompts(p) for p in (plain if learner is None else prompts)]
    empty = [backbone.prompts("")] * _CLIPS
    size = backbone.codec.latent_size(backbone.card.num_frames, 64, 64)
    shape = (backbone.codec.num_channels, *size)
    noise = torch.stack(
        [draw_noise(shape, keyed_generator("motion", seed, row)) for row in range(_CLIPS)]
    )
    views = None
    if learner is not None and learner.lessons.views_VCHW is not None:
        views = learner.lessons.views_VCHW[None]

    def velocity(x: Tensor, sigma_B: Tensor, /) -> Tensor:
        full, bare = (
            denoise(backbone.transformer, x, sigma_B * 1000, words)
            if learner is None
            else learner.task.velocity(x, sigma_B, words, views)
            for words in (texts, empty)
        )
        return guide(full, bare, _GUIDANCE)

    clips = euler(velocity, noise, flow_sigmas(_SAMPLING_STEPS, backbone.card.flow_shift))
    frames = to_frames(backbone.codec.decode(clips)).astype(float)
    return float(abs(frames[:, 1:] - frames[:, :-1]).mean())
