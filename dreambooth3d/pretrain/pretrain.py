"""Stage 1 without Ray: pairs to examples, examples to a trained reference adapter."""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import Tensor

from dreambooth3d.artifacts.adapter import (
    Adapter,
    AdapterCard,
    find_adapter,
    load_adapter,
    load_card,
)
from dreambooth3d.artifacts.pairs import PairCorpus
from dreambooth3d.artifacts.place import Place
from dreambooth3d.artifacts.shard import BLANK_NAME, LATENTS
from dreambooth3d.errors import ArtifactError, ConfigError, RunError
from dreambooth3d.model.backbone import BackboneCard, Denoiser, Encoders
from dreambooth3d.model.lora import LoraAdapter, Role
from dreambooth3d.model.names import from_peft, to_peft
from dreambooth3d.pretrain.config import PretrainConfig
from dreambooth3d.training.checkpoint import Keeping, load_checkpoint
from dreambooth3d.training.engine import build_engine
from dreambooth3d.training.examples import blank_example, encode_example, unpack_example
from dreambooth3d.training.loop import SILENT, Callbacks, FitResult, Plan, fit, resume_point
from dreambooth3d.training.order import DataOrder
from dreambooth3d.training.prefetch import prefetched
from dreambooth3d.training.task import AdapterTask, BatchRules, Example, TrainBatch, build_batch

# The adapter works at the published strength whatever a file's alpha says (method, section 3).
SCALE = 1.0

TRAINED_ON, HELD_OUT = "train", "held_out"
"""Splits of a corpus: what is trained on, and what only judges."""


class PairExamples:
    """Load pairs as the backbone takes them, and remember the latest of them.

    Args:
        corpus: the pairs.
        encoders: encode pairs on first use; None reads latents that the corpus has, see
            `has_latents`.
        side: of the square pictures, in pixels.
        capacity: how many examples are kept in memory, none on a device: 38 KB each on `tiny`,
            about 1 MB at 512 px, most of it text states.
    """

    def __init__(
        self,
        corpus: PairCorpus,
        encoders: Encoders | None,
        side: int,
        *,
        capacity: int = 16_384,
    ) -> None:
        self.corpus = corpus
        self._encoders = encoders
        self._side = side
        self._capacity = capacity
        self._cache: OrderedDict[int, Example] = OrderedDict()
        if encoders is not None:
            encoders.codec.latent_size(1, side, side)

    @property
    def is_encoded(self) -> bool:
        """Whether latents are read, not made."""
        return self._encoders is None

    def __call__(self, index: int) -> Example:
        """Return example `index`, encoded."""
        found = self._cache.pop(index, None) or self._load(index)
        self._cache[index] = found
        if len(self._cache) > self._capacity:
            self._cache.popitem(last=False)
        return found

    def blank(self) -> Example:
        """A view of nothing on white, and no words."""
        if self._encoders is not None:
            return blank_example(self._encoders, self._side)
        data = (self.corpus.place / BLANK_NAME).read_bytes()
        return unpack_example(data, name=BLANK_NAME)

    def _load(self, index: int) -> Example:
        if self._encoders is not None:
            pair = self.corpus[index]
            return encode_example(
                pair.reference, pair.target, pair.caption, self._encoders, self._side
            )
        key, members = self.corpus.read_members(index)
        if LATENTS not in members:
            raise ArtifactError(
                f"sample {key} must have the member {LATENTS}, got none; make the pairs again"
            )
        return unpack_example(members[LATENTS], name=f"sample {key}")


def training_side(config: PretrainConfig, card: BackboneCard) -> int:
    """Side of the square training pictures, in pixels."""
    return config.size or card.train_side


def has_latents(config: PretrainConfig, corpus: PairCorpus, card: BackboneCard) -> bool:
    """Whether the corpus was encoded by this very backbone, for pictures of this side."""
    wanted = {
        "revision": card.revision,
        "side": training_side(config, card),
        "precision": config.precision,
        "blank": BLANK_NAME,
    }
    return corpus.manifest.outputs.get("latents") == wanted


def build_task(config: PretrainConfig, backbone: Denoiser) -> AdapterTask:
    """Backbone plus a `reference` adapter, the only thing that learns in stage 1.

    Raises:
        AdapterError: the adapter to start from is another backbone's, or no 3Dapter.
        ConfigError: it has another rank, attention or place in time than the settings say.
    """
    reference = LoraAdapter(
        backbone.transformer, role="reference", rank=config.rank, scale=SCALE, seed=config.seed
    )
    if (start := start_card(config)) is not None:
        check_start(config, start, backbone.card)
        reference.load_weights(
            from_peft(load_adapter(find_adapter(config.start)).weights["reference"])
        )
    return AdapterTask(
        backbone.transformer,
        subject=None,
        reference=reference.to(backbone.device),
        reference_attention=config.reference_attention,
        reference_time_offset=config.reference_time_offset,
        is_checkpointed=config.is_checkpointed,
    )


def start_card(config: PretrainConfig) -> AdapterCard | None:
    """Read the card of the 3Dapter that a training goes on from; None starts anew."""
    return load_card(find_adapter(config.start)) if config.start else None


def check_start(config: PretrainConfig, start: AdapterCard, backbone: BackboneCard) -> None:
    """Refuse to go on from an adapter that does not fit; see `build_task`."""
    start.require_pretrained()
    start.require_backbone(backbone.revision, name=backbone.name)
    for name in ("rank", "reference_attention", "reference_time_offset"):
        if getattr(config, name) != getattr(start, name):
            raise ConfigError(
                f"{name} must be that of the adapter to start from ({getattr(start, name)}), "
                f"got {getattr(config, name)}; use --set {name}={getattr(start, name)}"
            )


def parents_of(
    corpus_key: str, backbone: BackboneCard, start: AdapterCard | None
) -> tuple[str, ...]:
    """Keys of what an adapter is made from."""
    return (corpus_key, backbone.revision, *([] if start is None else [start.key]))


def batch_rules(config: PretrainConfig, examples: PairExamples) -> BatchRules:
    """What is drawn for a batch, and what stands in for words and views that are left out."""
    blank = examples.blank()
    return BatchRules(
        seed=config.seed,
        sigma_shift=config.sigma_shift,
        text_dropout=config.text_dropout,
        null_text=blank.caption,
        reference_dropout=config.reference_dropout,
        null_references_VCHW=blank.references_VCHW,
    )


def train_adapter(
    config: PretrainConfig,
    backbone: Denoiser,
    examples: PairExamples,
    *,
    run_key: str,
    folder: Path | Place | None,
    callbacks: Callbacks = SILENT,
    choose: Callable[[], int | None] = lambda: None,
) -> tuple[Adapter, FitResult]:
    """Train on this rank; every rank returns the same adapter, unless the first one chooses.

    Args:
        config: of the training.
        backbone: frozen.
        examples: of the corpus.
        run_key: of the adapter; a checkpoint of another one is refused.
        folder: of checkpoints.
        callbacks: told how far it is, and asked when to save and to end.
        choose: asked at the end for the step whose checkpoint the adapter is made of; None takes
            the weights of the end.

    Raises:
        RunError: nothing was learned.
        StoppedError: `callbacks.must_end` said so.
    """
    task = build_task(config, backbone)
    plan = Plan(
        num_steps=config.steps,
        optim=config.optim,
        run_key=run_key,
        folder=folder,
        save_every=config.save_every,
        average_decay=config.average_decay,
        keeping=Keeping(newest=config.keep, best=config.keep_best if config.is_validated else 0),
    )
    resume = resume_point(plan)
    engine = build_engine(
        config.strategy,
        task,
        config.optim,
        batch_share=config.batch_share,
        num_parts=config.num_parts,
        precision=torch.bfloat16 if config.precision == "bf16" else torch.float32,
        resume=resume,
    )
    order = DataOrder(
        num_samples=len(examples.corpus), batch_size=config.batch_size, seed=config.seed
    )
    rules = batch_rules(config, examples)

    def load_batch(step: int) -> list[TrainBatch]:
        draws = order.batch(step, rank=engine.rank, world_size=engine.world_size)
        size = len(draws) // config.num_parts
        parts = [draws[first : first + size] for first in range(0, len(draws), size)]
        device = backbone.device
        return [
            build_batch(part, examples, rules, device=device, dtype=torch.float32) for part in parts
        ]

    # On a CPU encoders would take the cores from the training.
    is_ahead = examples.is_encoded or backbone.device.type != "cpu"
    with prefetched(load_batch, plan.num_steps) if is_ahead else nullcontext(load_batch) as load:
        result = fit(engine, load, plan, resume=resume, callbacks=callbacks)
    trained, step = result.average or engine.weights(), len(result.losses)
    if folder is not None and (chosen := choose()) is not None:
        checkpoint = load_checkpoint(folder, run_key=run_key, step=chosen)
        assert checkpoint is not None
        trained, step = checkpoint.average or checkpoint.weights, chosen
    _check_moved(trained)
    weights = task.adapter_weights(trained)
    return make_adapter(config, backbone, weights, examples.corpus.key, run_key, step), result


def _check_moved(trained: Mapping[str, Tensor]) -> None:
    """Refuse an adapter that does nothing: engines can leave what they train untouched."""
    if not any(bool(weight.any()) for name, weight in trained.items() if "lora_B" in name):
        raise RunError(
            "a trained adapter must have learned something, got lora_B of zeros everywhere; "
            "check that lr is large enough for the steps"
        )


def make_adapter(
    config: PretrainConfig,
    backbone: Denoiser,
    weights: Mapping[Role, Mapping[str, Tensor]],
    corpus_key: str,
    run_key: str,
    step: int,
) -> Adapter:
    """Describe weights after `step` updates; those of what it started from count as well."""
    start = start_card(config)
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
        steps=step + (0 if start is None else start.steps),
        seed=config.seed,
        parents=parents_of(corpus_key, backbone.card, start),
        key=run_key,
    )
    return Adapter(card, {role: to_peft(own) for role, own in weights.items()})
