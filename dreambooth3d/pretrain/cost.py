"""What a stage-1 training costs, counted before it runs: the update itself, on the meta device.

Parameters, operations and what the backward pass keeps are counted on the real modules with the
real shapes, which there hold no data. Shards of weights and moments, and the time, follow from
them.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from dreambooth3d.model.backbone import Structure
from dreambooth3d.model.lora import LoraAdapter
from dreambooth3d.model.texts import TextStates
from dreambooth3d.pretrain.config import PretrainConfig
from dreambooth3d.training.loop import format_seconds
from dreambooth3d.training.settings import STRATEGIES
from dreambooth3d.training.task import AdapterTask, TrainBatch

# A caption of two sentences with the chat template's closing tokens.
PROMPT_TOKENS = 64
_FP32_BYTES, _MOMENTS = 4, 2
# Share of the peak that trainings of diffusion transformers at these lengths reach.
_UTILISATION = 0.35


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """A device to plan for; `peak_tflops` is dense bf16 as its maker states it."""

    name: str
    gigabytes: int
    peak_tflops: float


GPUS = (
    Gpu(name="RTX 4090", gigabytes=24, peak_tflops=165),
    Gpu(name="L40S", gigabytes=48, peak_tflops=362),
    Gpu(name="A100 80GB", gigabytes=80, peak_tflops=312),
    Gpu(name="H100 80GB", gigabytes=80, peak_tflops=989),
)


# Allocators, communication buffers and the recomputation of one block come beside what is counted.
_HEADROOM = 1.15


@dataclass(frozen=True, kw_only=True)
class SampleCost:
    """One sample's forward and backward.

    Attributes:
        num_trained, num_frozen: parameters.
        tokens: of target, reference and text.
        flops: floating point operations, a product and a sum counted as two.
        kept_bytes: what the backward pass keeps of the forward.
    """

    num_trained: int
    num_frozen: int
    tokens: int
    flops: int
    kept_bytes: int


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes on one device."""

    weights: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.gradients + self.optimizer + self.activations


def count_sample(config: PretrainConfig, structure: Structure, side: int) -> SampleCost:
    """Run one sample's update on the meta device and count.

    Args:
        config: of the training.
        structure: of its backbone.
        side: of the training pictures, pixels.
    """
    dtype = torch.bfloat16 if config.precision == "bf16" else torch.float32
    # Past diffusers' own `to`, which warns of modules that must stay fp32: here are none.
    transformer = nn.Module.to(structure.transformer, dtype)
    with torch.device("meta"):
        reference = LoraAdapter(transformer, role="reference", rank=config.rank)
    task = AdapterTask(
        transformer,
        subject=None,
        reference=reference.to(dtype),
        reference_attention=config.reference_attention,
        reference_time_offset=config.reference_time_offset,
        is_checkpointed=config.is_checkpointed,
    )
    batch = _batch(structure, side, dtype)
    weights = {p.untyped_storage()._cdata for p in task.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage.nbytes()
        return tensor

    with FlopCounterMode(display=False) as counter:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = task(batch)
        loss.backward()
    num_image = 2 * (structure.latent_side(side) // structure.patch_size) ** 2
    return SampleCost(
        num_trained=sum(p.numel() for p in reference.parameters()),
        num_frozen=sum(p.numel() for p in transformer.parameters()),
        tokens=num_image + PROMPT_TOKENS,
        flops=counter.get_total_flops(),
        kept_bytes=sum(kept.values()),
    )


def _batch(structure: Structure, side: int, dtype: torch.dtype) -> TrainBatch:
    """One sample of stage 1, without data."""
    latent = structure.latent_side(side)
    options: dict[str, Any] = {"device": "meta", "dtype": dtype}
    picture = torch.empty(1, structure.latent_channels, 1, latent, latent, **options)
    return TrainBatch(
        target_BCTHW=picture,
        noise_BCTHW=picture,
        sigma_B=torch.empty(1, device="meta"),
        texts=(TextStates(torch.empty(PROMPT_TOKENS, structure.text_width, **options)),),
        references_BVCHW=picture.transpose(1, 2),
    )


def memory_of(config: PretrainConfig, cost: SampleCost) -> Memory:
    """What one worker's device holds; encoders not counted, encoded shards need none."""
    is_bf16, num = config.precision == "bf16", config.workers
    base = cost.num_frozen * (2 if is_bf16 else _FP32_BYTES)
    masters = cost.num_trained * _FP32_BYTES
    shards = num if config.strategy in ("zero2", "zero3") else 1
    return Memory(
        weights=(base // num if config.strategy == "zero3" else base) + masters,
        gradients=masters // shards,
        optimizer=_MOMENTS * masters // shards,
        activations=cost.kept_bytes * config.batch_share // config.num_parts,
    )


def hours_of(config: PretrainConfig, cost: SampleCost, gpu: Gpu) -> float:
    """Hours of the whole training at a third of the peak; communication and data not counted."""
    flops = cost.flops * config.batch_size * config.steps
    return flops / (gpu.peak_tflops * 1e12 * _UTILISATION * config.workers) / 3600


def describe_cost(config: PretrainConfig, structure: Structure, side: int) -> dict[str, Any]:
    """Say what a training costs: parameters, tokens, operations, memory, time."""
    cost = count_sample(config, structure, side)
    return {
        "trained parameters": f"{cost.num_trained:,} beside {cost.num_frozen:,} frozen",
        "tokens": f"{cost.tokens:,} a sample, {cost.tokens * config.batch_size:,} an update",
        "TFLOPs an update": round(cost.flops * config.batch_size / 1e12, 3),
        "GB a worker": {
            strategy: _describe_memory(memory_of(replace(config, strategy=strategy), cost))
            for strategy in STRATEGIES
            if strategy != "single" or config.workers == 1
        },
        "time": {
            f"{config.workers} x {gpu.name}": _describe_time(config, cost, gpu) for gpu in GPUS
        },
        "assumed": f"{_UTILISATION:.0%} of the peak, encoded shards, {PROMPT_TOKENS} text tokens; "
        "estimates, not measured on a GPU",
    }


def _describe_memory(memory: Memory) -> str:
    parts = {
        "weights": memory.weights,
        "gradients": memory.gradients,
        "optimizer": memory.optimizer,
        "activations": memory.activations,
    }
    told = ", ".join(f"{name} {size / 1e9:.2f}" for name, size in parts.items())
    return f"{memory.total / 1e9:.2f} ({told})"


def _describe_time(config: PretrainConfig, cost: SampleCost, gpu: Gpu) -> str:
    told = format_seconds(3600 * hours_of(config, cost, gpu))
    is_enough = memory_of(config, cost).total * _HEADROOM <= gpu.gigabytes * 1e9
    return told if is_enough else f"{told}, but its {gpu.gigabytes} GB are too few"
