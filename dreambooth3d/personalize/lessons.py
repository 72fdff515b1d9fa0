"""What one subject is taught: its captures, encoded once, and what keeps its class alive."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from dreambooth3d.artifacts.image import letterbox
from dreambooth3d.artifacts.subject import Subject
from dreambooth3d.diffusion.noise import draw_noise, keyed_generator
from dreambooth3d.diffusion.sampler import euler, flow_sigmas, guide
from dreambooth3d.model.backbone import Backbone
from dreambooth3d.model.forward import denoise
from dreambooth3d.model.texts import TextStates
from dreambooth3d.personalize.config import PersonalizeConfig
from dreambooth3d.personalize.wording import training_prompts
from dreambooth3d.training.order import DataOrder
from dreambooth3d.training.task import BatchRules, Example, TrainBatch, build_batch
from dreambooth3d.vision.segment import build_segmenter

_PRIOR_STEPS, _PRIOR_GUIDANCE, _PRIOR_BATCH = 12, 4.0, 4


@dataclass(frozen=True, kw_only=True, eq=False)
class Lessons:
    """A subject as its backbone takes it.

    Attributes:
        targets_NCHW: latents of the captures to learn.
        views_VCHW: latents of the reference views; None without any.
        captions: the training prompts, encoded.
        weights_NHW: of each capture's latents in the loss; None weighs all alike.
        side: of the pictures, in pixels.
    """

    targets_NCHW: Tensor
    views_VCHW: Tensor | None
    captions: tuple[TextStates, ...]
    weights_NHW: Tensor | None
    side: int


def encode_lessons(
    config: PersonalizeConfig,
    subject: Subject,
    backbone: Backbone,
    captures: Sequence[Image.Image],
    views: Sequence[Image.Image],
) -> Lessons:
    """Encode everything once; what a step then costs is its forward and backward."""
    side = config.size or backbone.card.train_side
    height, width = backbone.codec.latent_size(1, side, side)[1:]
    weights = None
    if config.foreground_weight != 1:
        weights = foreground_weights(captures, side, (height, width), config.foreground_weight)
    return Lessons(
        targets_NCHW=encode_pictures(backbone, captures, side),
        views_VCHW=encode_pictures(backbone, views, side) if views else None,
        captions=tuple(
            backbone.prompts(prompt)
            for prompt in training_prompts(config, subject, backbone.prompts.tokenizer)
        ),
        weights_NHW=weights,
        side=side,
    )


def foreground_weights(
    captures: Sequence[Image.Image], side: int, size: tuple[int, int], weight: float
) -> Tensor:
    """Weigh latents that show the object `weight` times as much, (N, H, W) with mean 1 each.

    Raises:
        RefusedError: no object is found in a capture.
    """
    cut = build_segmenter("auto")
    maps = []
    for capture in captures:
        alpha = Image.fromarray((cut(capture) * 255).astype(np.uint8)).convert("RGB")
        # Letterboxing adds white, which is no object.
        framed = np.asarray(letterbox(alpha, (side, side)))[..., 0].copy()
        framed[np.asarray(letterbox(Image.new("RGB", alpha.size), (side, side)))[..., 0] > 0] = 0
        share = F.interpolate(torch.from_numpy(framed)[None, None].float() / 255, size, mode="area")
        weights = 1 + (weight - 1) * share[0, 0]
        maps.append(weights / weights.mean())
    return torch.stack(maps)


def batch_loader(
    config: PersonalizeConfig, subject: Subject, backbone: Backbone, lessons: Lessons
) -> Callable[[int], list[TrainBatch]]:
    """Draw the batches of a training: captures in every prompt, then pictures of the class."""
    examples = [
        Example(
            target_CTHW=target[:, None],
            references_VCHW=lessons.views_VCHW,
            caption=caption,
            weight_HW=None if lessons.weights_NHW is None else lessons.weights_NHW[row],
        )
        for row, target in enumerate(lessons.targets_NCHW)
        for caption in lessons.captions
    ]
    blank = blank_views(backbone, lessons)
    rules = BatchRules(
        seed=config.seed,
        sigma_shift=config.sigma_shift,
        reference_dropout=config.reference_dropout,
        null_references_VCHW=blank if config.reference_dropout else None,
        has_shared_references=config.reference_dropout == 0,
    )
    draw = _drawer(config, backbone, examples, rules)
    if config.prior_weight == 0:
        return lambda step: [draw(step)]
    prior = _drawer(
        config,
        backbone,
        prior_examples(config, subject, backbone, lessons),
        replace(rules, seed=config.seed + 1, reference_dropout=0.0, has_shared_references=True),
    )
    return lambda step: [draw(step), prior(step)]


def _drawer(
    config: PersonalizeConfig, backbone: Backbone, examples: Sequence[Example], rules: BatchRules
) -> Callable[[int], TrainBatch]:
    order = DataOrder(num_samples=len(examples), batch_size=config.batch_size, seed=rules.seed)

    def draw(step: int) -> TrainBatch:
        draws, device = order.batch(step), backbone.device
        return build_batch(draws, examples.__getitem__, rules, device=device, dtype=torch.float32)

    return draw


def blank_views(backbone: Backbone, lessons: Lessons) -> Tensor | None:
    """Views of nothing on white, as many as the subject has."""
    if lessons.views_VCHW is None:
        return None
    white = Image.new("RGB", (lessons.side, lessons.side), "white")
    return encode_pictures(backbone, [white], lessons.side).expand_as(lessons.views_VCHW)


def prior_examples(
    config: PersonalizeConfig, subject: Subject, backbone: Backbone, lessons: Lessons
) -> list[Example]:
    """Pictures of the class as the untouched backbone makes them (arXiv 2208.12242, section 4.3).

    They come without reference views, and weigh `prior_weight` in the loss.
    """
    caption = backbone.prompts(f"a video of a {subject.class_noun}")
    shape = lessons.targets_NCHW.shape[1:]
    keys = [keyed_generator("prior", config.seed, row) for row in range(config.num_prior)]
    noise = torch.stack([draw_noise((shape[0], 1, *shape[1:]), key) for key in keys])
    blank = blank_views(backbone, lessons)
    weight = torch.full(tuple(shape[1:]), config.prior_weight)
    return [
        Example(target_CTHW=made, references_VCHW=blank, caption=caption, weight_HW=weight)
        for rows in noise.split(_PRIOR_BATCH)
        for made in _imagine(backbone, caption, rows)
    ]


@torch.no_grad()
def _imagine(backbone: Backbone, caption: TextStates, noise_BCTHW: Tensor) -> Tensor:
    empty = backbone.prompts("")

    def velocity(x: Tensor, sigma_B: Tensor, /) -> Tensor:
        arguments = (backbone.transformer, x.to(backbone.dtype), sigma_B * 1000)
        full, bare = (denoise(*arguments, [text] * len(x)).float() for text in (caption, empty))
        return guide(full, bare, _PRIOR_GUIDANCE)

    sigmas = flow_sigmas(_PRIOR_STEPS, backbone.card.flow_shift)
    return euler(velocity, noise_BCTHW.to(backbone.device), sigmas).cpu()


def encode_pictures(backbone: Backbone, pictures: Sequence[Image.Image], side: int) -> Tensor:
    """Letterbox pictures on white to a square and encode them, (V, C, H, W)."""
    arrays = [np.asarray(letterbox(picture, (side, side))) for picture in pictures]
    return backbone.codec.encode_images(arrays).cpu()
