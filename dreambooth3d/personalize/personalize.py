"""Joint personalization of one subject, without Ray (arXiv 2603.18524, section 3)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dreambooth3d.artifacts.adapter import Adapter, AdapterCard
from dreambooth3d.artifacts.image import letterbox, read_image
from dreambooth3d.artifacts.subject import Subject
from dreambooth3d.errors import ConfigError
from dreambooth3d.model.backbone import Backbone, BackboneCard
from dreambooth3d.model.lora import LoraAdapter
from dreambooth3d.model.names import place_lora, to_peft
from dreambooth3d.personalize.config import PersonalizeConfig
from dreambooth3d.training.engine import TorchEngine
from dreambooth3d.training.loop import FitResult, Plan, Progress, fit, resume_point
from dreambooth3d.training.order import DataOrder
from dreambooth3d.training.task import AdapterTask, BatchRules, Example, TrainBatch, build_batch

# The adapters work at the published strength whatever a file's alpha says (method, section 3).
SCALE = 1.0
_RANK_ALONE = 16


@dataclass(frozen=True, kw_only=True, eq=False)
class Prepared:
    """A subject's pictures, decoded: captures to learn from, views to refer to."""

    captures: tuple[Image.Image, ...]
    views: tuple[Image.Image, ...]


def resolve(config: PersonalizeConfig, subject: Subject) -> PersonalizeConfig:
    """Let a row's own steps and seed take precedence over the run's."""
    return replace(
        config,
        steps=config.steps if subject.steps is None else subject.steps,
        seed=config.seed if subject.seed is None else subject.seed,
    )


def pick_views(num_available: int, num_views: int) -> tuple[int, ...]:
    """Pick view indices spread over an ordered circle of captures.

    The last one is never picked beside the first: on a closed turntable they are near duplicates.
    """
    if num_available <= num_views:
        return tuple(range(num_available))
    return tuple(k * num_available // num_views for k in range(num_views))


def prepare(config: PersonalizeConfig, subject: Subject) -> Prepared:
    """Decode a subject's pictures; without background-free references its captures serve.

    Raises:
        ImageError: names the picture that cannot be used.
    """
    captures = tuple(read_image(path) for path in subject.images)
    paths = subject.references or subject.images
    picked = () if config.method == "3dreambooth" else pick_views(len(paths), config.num_views)
    return Prepared(captures=captures, views=tuple(read_image(paths[i]) for i in picked))


def train_subject(
    config: PersonalizeConfig,
    subject: Subject,
    backbone: Backbone,
    pretrained: Adapter | None,
    *,
    key: str,
    parents: tuple[str, ...],
    folder: Path | None = None,
    on_step: Callable[[Progress], None] | None = None,
) -> tuple[Adapter, FitResult]:
    """Learn one subject.

    Args:
        config: of the run, already resolved for the subject.
        subject: photos, class noun, trigger.
        backbone: frozen.
        pretrained: the 3Dapter; None only for method `3dreambooth`.
        key, parents: of the artifact.
        folder: for checkpoints; an interrupted training goes on from there.
        on_step: told after every update.
    """
    check_pretrained(config, None if pretrained is None else pretrained.card, backbone.card)
    prepared = prepare(config, subject)
    task = build_task(config, backbone, pretrained)
    if config.method == "3dapter":
        result = FitResult(losses=(), first_step=0, seconds=0.0)
        weights = task.adapter_weights({})
    else:
        plan = Plan(
            num_steps=config.steps,
            optim=config.optim,
            run_key=key,
            folder=folder,
            save_every=config.save_every,
        )
        resume = resume_point(plan)
        engine = TorchEngine(
            task,
            config.optim,
            precision=torch.bfloat16 if config.precision == "bf16" else torch.float32,
            resume=resume,
        )
        load_batch = _batches(config, subject, prepared, backbone)
        result = fit(engine, load_batch, plan, resume=resume, on_step=on_step)
        weights = task.adapter_weights(engine.weights())
    card = AdapterCard(
        kind="subject",
        backbone=backbone.card.name,
        backbone_revision=backbone.card.revision,
        rank=rank_of(config, None if pretrained is None else pretrained.card),
        scale=SCALE,
        reference_attention=config.reference_attention,
        reference_time_offset=0 if pretrained is None else pretrained.card.reference_time_offset,
        method=config.method,
        trigger=subject.trigger,
        class_noun=subject.class_noun,
        subject=subject.id,
        num_views=len(prepared.views),
        steps=len(result.losses),
        seed=config.seed,
        parents=parents,
        key=key,
        text_scope=config.text_scope,
    )
    named = {role: to_peft(own) for role, own in weights.items()}
    return Adapter(card, named, prepared.views), result


def check_pretrained(
    config: PersonalizeConfig, pretrained: AdapterCard | None, backbone: BackboneCard
) -> None:
    """Refuse a 3Dapter of another backbone, attention mode or rank before any work is done."""
    if config.method == "3dreambooth":
        return
    if pretrained is None:
        raise ConfigError(
            f"method {config.method} must be given a 3Dapter, got none; "
            "run `python pipelines/pretrain.py` or use --set method=3dreambooth"
        )
    pretrained.require_pretrained()
    pretrained.require_backbone(backbone.revision, name=backbone.name)
    pretrained.require_attention(config.reference_attention)
    if config.rank not in (0, pretrained.rank):
        raise ConfigError(
            f"rank must be that of the 3Dapter ({pretrained.rank}), got {config.rank}; "
            "use --set rank=0, which takes it from there"
        )


def rank_of(config: PersonalizeConfig, pretrained: AdapterCard | None) -> int:
    """Rank of both LoRAs of a subject: one card describes them."""
    if config.method == "3dreambooth" or pretrained is None:
        return config.rank or _RANK_ALONE
    return pretrained.rank


def build_task(
    config: PersonalizeConfig, backbone: Backbone, pretrained: Adapter | None
) -> AdapterTask:
    """Put the adapters of the method beside the backbone."""
    subject = reference = None
    if config.method != "3dapter":
        rank = rank_of(config, None if pretrained is None else pretrained.card)
        subject = LoraAdapter(
            backbone.transformer, role="subject", rank=rank, scale=SCALE, seed=config.seed
        ).to(backbone.device)
    if config.method != "3dreambooth" and pretrained is not None:
        reference = place_lora(
            backbone.transformer,
            pretrained.weights["reference"],
            role="reference",
            rank=pretrained.card.rank,
            scale=pretrained.card.scale,
        ).to(backbone.device)
    return AdapterTask(
        backbone.transformer,
        subject=subject,
        reference=reference,
        reference_attention=config.reference_attention,
        reference_time_offset=0 if pretrained is None else pretrained.card.reference_time_offset,
        text_scope=config.text_scope,
    )


def _batches(
    config: PersonalizeConfig, subject: Subject, prepared: Prepared, backbone: Backbone
) -> Callable[[int], list[TrainBatch]]:
    """Encode everything once; a batch is then a few draws."""
    side = config.size or backbone.card.train_side
    caption = backbone.prompts(
        config.prompt.format(trigger=subject.trigger, class_noun=subject.class_noun)
    )
    backbone.codec.latent_size(1, side, side)
    targets = encode_pictures(backbone, prepared.captures, side)
    views = encode_pictures(backbone, prepared.views, side) if prepared.views else None
    examples = [
        Example(target_CTHW=target[:, None], references_VCHW=views, caption=caption)
        for target in targets
    ]
    order = DataOrder(num_samples=len(examples), batch_size=config.batch_size, seed=config.seed)
    rules = BatchRules(seed=config.seed, sigma_shift=config.sigma_shift, has_shared_references=True)

    def load_batch(step: int) -> list[TrainBatch]:
        draws = order.batch(step)
        device = backbone.device
        return [build_batch(draws, examples.__getitem__, rules, device=device, dtype=torch.float32)]

    return load_batch


def encode_pictures(backbone: Backbone, pictures: Sequence[Image.Image], side: int) -> Tensor:
    """Letterbox pictures on white to a square and encode them, (V, C, H, W)."""
    arrays = [np.asarray(letterbox(picture, (side, side))) for picture in pictures]
    return backbone.codec.encode_images(arrays).cpu()
