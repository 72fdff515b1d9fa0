"""Stage 1 without Ray: pairs to examples, examples to a trained reference adapter."""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dreambooth3d.artifacts.adapter import Adapter, AdapterCard
from dreambooth3d.artifacts.image import letterbox
from dreambooth3d.artifacts.pairs import PairCorpus
from dreambooth3d.model.backbone import Backbone
from dreambooth3d.model.lora import LoraAdapter, Role
from dreambooth3d.model.names import to_peft
from dreambooth3d.pretrain.config import PretrainConfig
from dreambooth3d.training.engine import build_engine
from dreambooth3d.training.loop import FitResult, Plan, Progress, fit, resume_point
from dreambooth3d.training.order import DataOrder
from dreambooth3d.training.task import AdapterTask, BatchRules, Example, TrainBatch, build_batch

# The adapter works at the published strength whatever a file's alpha says (method, section 3).
SCALE = 1.0


class PairExamples:
    """Encode pairs on first use and remember the latest of them.

    Args:
        corpus: the pairs.
        backbone: gives codec and prompt encoder.
        side: of the square pictures, in pixels.
        capacity: how many encoded pairs are kept in memory (8 KB each at 64 px, 0.3 MB at 512 px).
    """

    def __init__(
        self, corpus: PairCorpus, backbone: Backbone, side: int, *, capacity: int = 16_384
    ) -> None:
        self._corpus = corpus
        self._backbone = backbone
        self._side = side
        self._capacity = capacity
        self._cache: OrderedDict[int, Example] = OrderedDict()

    def __call__(self, index: int) -> Example:
        """Return example `index`, encoded."""
        found = self._cache.pop(index, None) or self._load(index)
        self._cache[index] = found
        if len(self._cache) > self._capacity:
            self._cache.popitem(last=False)
        return found

    def _load(self, index: int) -> Example:
        pair = self._corpus[index]
        return Example(
            target_CTHW=self._encode(pair.target).transpose(0, 1),
            references_VCHW=self._encode(pair.reference),
            caption=self._backbone.prompts(pair.caption),
        )

    def blank_references(self) -> Tensor:
        """A view of nothing on white, (1, C, H, W)."""
        white = Image.new("RGB", (self._side, self._side), "white")
        return self._encode(white)

    def _encode(self, image: Image.Image) -> Tensor:
        """Encode one picture, (1, C, H, W)."""
        square = np.asarray(letterbox(image, (self._side, self._side)))
        return self._backbone.codec.encode_images([square]).cpu()


def build_task(config: PretrainConfig, backbone: Backbone) -> AdapterTask:
    """Backbone plus a fresh `reference` adapter, the only thing that learns in stage 1."""
    reference = LoraAdapter(
        backbone.transformer, role="reference", rank=config.rank, scale=SCALE, seed=config.seed
    )
    return AdapterTask(
        backbone.transformer,
        subject=None,
        reference=reference.to(backbone.device),
        reference_attention=config.reference_attention,
        reference_time_offset=config.reference_time_offset,
        is_checkpointed=config.is_checkpointed,
    )


def train_adapter(
    config: PretrainConfig,
    backbone: Backbone,
    corpus: PairCorpus,
    *,
    run_key: str,
    folder: Path | None,
    on_step: Callable[[Progress], None] | None = None,
) -> tuple[Adapter, FitResult]:
    """Train on this rank; every rank returns the same adapter."""
    side = config.size or backbone.card.train_side
    backbone.codec.latent_size(1, side, side)
    examples = PairExamples(corpus, backbone, side)
    task = build_task(config, backbone)
    plan = Plan(
        num_steps=config.steps,
        optim=config.optim,
        run_key=run_key,
        folder=folder,
        save_every=config.save_every,
        average_decay=config.average_decay,
    )
    resume = resume_point(plan)
    engine = build_engine(
        config.strategy,
        task,
        config.optim,
        batch_share=config.batch_size // config.workers,
        precision=torch.bfloat16 if config.precision == "bf16" else torch.float32,
        resume=resume,
    )
    order = DataOrder(num_samples=len(corpus), batch_size=config.batch_size, seed=config.seed)
    rules = BatchRules(
        seed=config.seed,
        sigma_shift=config.sigma_shift,
        text_dropout=config.text_dropout,
        null_text=backbone.prompts(""),
        reference_dropout=config.reference_dropout,
        null_references_VCHW=examples.blank_references(),
    )

    def load_batch(step: int) -> TrainBatch:
        draws = order.batch(step, rank=engine.rank, world_size=engine.world_size)
        return build_batch(draws, examples, rules, device=backbone.device, dtype=torch.float32)

    result = fit(engine, load_batch, plan, resume=resume, on_step=on_step)
    weights = task.adapter_weights(result.average or engine.weights())
    return make_adapter(config, backbone, weights, corpus.key, run_key), result


def make_adapter(
    config: PretrainConfig,
    backbone: Backbone,
    weights: Mapping[Role, Mapping[str, Tensor]],
    corpus_key: str,
    run_key: str,
) -> Adapter:
    """Describe trained weights with their card."""
    card = AdapterCard(
        kind="3dapter",
        backbone=backbone.card.name,
        backbone_revision=backbone.card.revision,
        rank=config.rank,
        scale=SCALE,
        reference_attention=config.reference_attention,
        reference_time_offset=config.reference_time_offset,
        method="3dapter",
        trigger=None,
        class_noun=None,
        subject=None,
        num_views=1,
        steps=config.steps,
        seed=config.seed,
        parents=(corpus_key, backbone.card.revision),
        key=run_key,
    )
    return Adapter(card, {role: to_peft(own) for role, own in weights.items()})
