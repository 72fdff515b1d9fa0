"""Joint personalization of one subject, without Ray (arXiv 2603.18524, section 3)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeAlias

import torch
from PIL import Image
from torch import Tensor

from dreambooth3d.artifacts.adapter import Adapter, AdapterCard
from dreambooth3d.artifacts.image import read_image
from dreambooth3d.artifacts.subject import Subject
from dreambooth3d.errors import ConfigError
from dreambooth3d.model.backbone import Backbone, BackboneCard
from dreambooth3d.model.lora import LoraAdapter, Role
from dreambooth3d.model.names import place_lora, to_peft
from dreambooth3d.personalize.config import PersonalizeConfig
from dreambooth3d.personalize.heldout_scores import HeldOutJudge
from dreambooth3d.personalize.lessons import (
    Lessons,
    batch_loader,
    encode_lessons,
    encode_pictures,
)
from dreambooth3d.personalize.outcome import Evidence, Judgement
from dreambooth3d.personalize.preparation import cut_views
from dreambooth3d.personalize.view_choice import (
    choose_held_out,
    choose_views,
    embed_views,
    same_pictures,
)
from dreambooth3d.training.engine import TorchEngine
from dreambooth3d.training.loop import Callbacks, FitResult, Plan, Progress, fit, resume_point
from dreambooth3d.training.task import AdapterTask

# The adapters work at the published strength whatever a file's alpha says (method, section 3).
SCALE = 1.0
_RANK_ALONE = 16

OnStep: TypeAlias = Callable[[Progress, Judgement | None], None]


@dataclass(frozen=True, kw_only=True, eq=False)
class Prepared:
    """A subject's pictures, decoded: captures to learn from and to judge by, views to refer to.

    `refused` tells why a photo became no view, by its file's name.
    """

    captures: tuple[Image.Image, ...]
    held_out: tuple[Image.Image, ...]
    views: tuple[Image.Image, ...]
    refused: Mapping[str, str] = field(default_factory=dict)


def resolve(config: PersonalizeConfig, subject: Subject) -> PersonalizeConfig:
    """Let a row's own steps and seed take precedence over the run's."""
    return replace(
        config,
        steps=config.steps if subject.steps is None else subject.steps,
        seed=config.seed if subject.seed is None else subject.seed,
    )


def prepare(config: PersonalizeConfig, subject: Subject) -> Prepared:
    """Decode a subject's pictures, choose its reference views and the captures that judge.

    Without background-free references the captures serve, cut out. A capture that is referred to,
    or shows the same as a view, judges nothing.

    Raises:
        ImageError: names the picture that cannot be used.
    """
    captures = tuple(read_image(path) for path in subject.images)
    views: tuple[Image.Image, ...] = ()
    referred: tuple[int, ...] = ()
    refused: dict[str, str] = {}
    if config.method != "3dreambooth":
        given: Mapping[int, Image.Image]
        if subject.references:
            given = {k: read_image(path) for k, path in enumerate(subject.references)}
        else:
            cut = cut_views(captures, config.segmentation)
            given = cut.views
            refused = {subject.images[k].name: reason for k, reason in cut.refused.items()}
        embedded_NE = embed_views(tuple(given.values()))
        chosen = choose_views(embedded_NE, config.num_views)
        views = tuple(list(given.values())[place] for place in chosen)
        if subject.references:
            referred = same_pictures(embed_views(captures), embedded_NE[list(chosen)])
        else:
            referred = tuple(list(given)[place] for place in chosen)
    held_out = choose_held_out(len(captures), config.held_out_share, referred=referred)
    return Prepared(
        captures=tuple(c for index, c in enumerate(captures) if index not in held_out),
        held_out=tuple(captures[index] for index in held_out),
        views=views,
        refused=refused,
    )


def train_subject(
    config: PersonalizeConfig,
    subject: Subject,
    backbone: Backbone,
    pretrained: Adapter | None,
    *,
    key: str,
    parents: tuple[str, ...],
    folder: Path | None = None,
    on_step: OnStep | None = None,
    must_end: Callable[[], bool] | None = None,
) -> tuple[Adapter, Evidence]:
    """Learn one subject; the adapter is that of the best checkpoint where some were judged.

    Args:
        config: of the run, already resolved for the subject.
        subject: photos, class noun, trigger.
        backbone: frozen.
        pretrained: the 3Dapter; None only for method `3dreambooth`.
        key, parents: of the artifact.
        folder: for checkpoints; an interrupted training goes on from there.
        on_step: told after every update, with the last judgement where there was one.
        must_end: asked after every update whether to save and end now.
    """
    check_pretrained(config, None if pretrained is None else pretrained.card, backbone.card)
    prepared = prepare(config, subject)
    task = build_task(config, backbone, pretrained)
    lessons = encode_lessons(config, subject, backbone, prepared.captures, prepared.views)
    training = _Training(config, subject, backbone, task, prepared, lessons)
    weights, found = training.run(key, folder, on_step=on_step, must_end=must_end)
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
        steps=found.best_step,
        seed=config.seed,
        parents=parents,
        key=key,
        text_scope=config.text_scope,
    )
    named = {role: to_peft(own) for role, own in weights.items()}
    return Adapter(card, named, prepared.views), found


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


class _Training:
    """One subject's training, judged on the way."""

    def __init__(
        self,
        config: PersonalizeConfig,
        subject: Subject,
        backbone: Backbone,
        task: AdapterTask,
        prepared: Prepared,
        lessons: Lessons,
    ) -> None:
        self._config, self._subject, self._backbone = config, subject, backbone
        self._task, self._prepared, self._lessons = task, prepared, lessons

    def run(
        self,
        key: str,
        folder: Path | None,
        *,
        on_step: OnStep | None,
        must_end: Callable[[], bool] | None,
    ) -> tuple[dict[Role, dict[str, Tensor]], Evidence]:
        """Train to the end, or go on; weights by adapter, and what is known of them."""
        config = self._config
        if config.method == "3dapter":
            judge = self._judge(dict, folder)
            judge.judge(0)
            result = FitResult(losses=(), first_step=0, seconds=0.0)
            return self._task.adapter_weights({}), self._evidence(judge, result)
        plan = Plan(
            num_steps=config.steps,
            optim=config.optim,
            run_key=key,
            folder=folder,
            save_every=config.save_every,
        )
        resume = resume_point(plan)
        engine = TorchEngine(
            self._task,
            config.optim,
            precision=torch.bfloat16 if config.precision == "bf16" else torch.float32,
            resume=resume,
        )
        judge = self._judge(engine.weights, folder)
        if resume is None:
            judge.judge(0)

        def after_step(progress: Progress) -> None:
            # Before the checkpoint is saved: one that is there has been judged.
            if progress.step % config.score_every == 0 or progress.step == config.steps:
                judge.judge(progress.step)
            if on_step is not None:
                on_step(progress, judge.judgements[-1] if judge.judgements else None)

        result = fit(
            engine,
            batch_loader(config, self._subject, self._backbone, self._lessons),
            plan,
            resume=resume,
            callbacks=Callbacks(on_step=after_step, must_stop=judge.must_stop, must_end=must_end),
        )
        weights = self._task.adapter_weights(judge.best_weights or engine.weights())
        return weights, self._evidence(judge, result)

    def _judge(self, weights: Callable[[], dict[str, Tensor]], folder: Path | None) -> HeldOutJudge:
        held_out = self._prepared.held_out
        return HeldOutJudge(
            self._config,
            self._backbone,
            self._task,
            captures=held_out,
            targets_NCHW=(
                encode_pictures(self._backbone, held_out, self._lessons.side)
                if held_out
                else self._lessons.targets_NCHW[:0]
            ),
            views_VCHW=self._lessons.views_VCHW,
            text=self._lessons.captions[0],
            weights=weights,
            folder=folder,
        )

    def _evidence(self, judge: HeldOutJudge, result: FitResult) -> Evidence:
        best = judge.best_step
        return Evidence(
            losses=result.losses,
            # Updates before an interruption are not timed any more: they count as those since.
            seconds=result.seconds + result.first_step * result.step_seconds,
            step_seconds=result.step_seconds,
            judgements=judge.judgements,
            best_step=len(result.losses) if best is None else best,
            samples=judge.samples,
            refused=self._prepared.refused,
        )
