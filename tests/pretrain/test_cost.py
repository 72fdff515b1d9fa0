"""The plan of a training: counted on the real modules, without their data."""

from dataclasses import replace

import pytest
import torch
from diffusers import HunyuanVideo15Transformer3DModel

from dreambooth3d.model.backbone import Structure, load_backbone, read_structure
from dreambooth3d.pretrain.config import PretrainConfig
from dreambooth3d.pretrain.cost import (
    GPUS,
    SampleCost,
    count_sample,
    describe_cost,
    hours_of,
    memory_of,
)

FULL = PretrainConfig(precision="bf16", is_checkpointed=True, workers=8, batch_size=32)


def structure_of(num_layers: int) -> Structure:
    """HunyuanVideo-1.5 of so many blocks: diffusers' defaults are its sizes."""
    with torch.device("meta"):
        transformer = HunyuanVideo15Transformer3DModel(num_layers=num_layers)
    return Structure(
        transformer=transformer.requires_grad_(False).eval(),
        latent_channels=32,
        spatial_ratio=16,
        patch_size=1,
        text_width=transformer.config.text_embed_dim,
    )


@pytest.fixture(scope="module")
def full() -> SampleCost:
    return count_sample(FULL, structure_of(54), side=512)


@pytest.fixture(scope="module")
def short() -> Structure:
    return structure_of(3)


def test_the_full_model_is_counted(full: SampleCost) -> None:
    assert full.num_trained == 31_884_304
    assert full.num_frozen == pytest.approx(8.3e9, rel=0.02)
    assert full.tokens == 2 * 32 * 32 + 64
    # Half of the weights see 2,048 image tokens, half 64 of text: forward, again, backward.
    linears = 3 * 2 * 54 * 12 * 2048**2 * full.tokens
    # Attention's backward is two and a half times its forward.
    attention = 4.5 * 54 * 4 * full.tokens**2 * 2048
    assert full.flops == pytest.approx(linears + attention, rel=0.05)


def test_checkpointing_keeps_less_and_computes_more(short: Structure) -> None:
    plain = count_sample(replace(FULL, is_checkpointed=False), short, side=512)
    saving = count_sample(FULL, short, side=512)
    assert saving.kept_bytes < 0.2 * plain.kept_bytes
    assert 1.3 < saving.flops / plain.flops < 1.55


def test_isolated_references_cost_less(short: Structure) -> None:
    joint = count_sample(FULL, short, side=512)
    isolated = count_sample(replace(FULL, reference_attention="isolated"), short, side=512)
    assert isolated.flops < joint.flops


def test_zero_shards_what_it_says(full: SampleCost) -> None:
    ddp, zero2, zero3 = (
        memory_of(replace(FULL, strategy=name), full)  # type: ignore[arg-type]
        for name in ("ddp", "zero2", "zero3")
    )
    assert ddp.weights == zero2.weights == 2 * full.num_frozen + 4 * full.num_trained
    assert zero2.optimizer == ddp.optimizer // 8
    assert zero2.gradients == ddp.gradients // 8
    assert zero3.weights < 0.15 * zero2.weights
    assert zero3.total < zero2.total < ddp.total


def test_parts_of_a_share_are_kept_one_at_a_time(full: SampleCost) -> None:
    whole = replace(FULL, workers=1, batch_size=64)
    parts = replace(whole, micro_batch_size=8)
    assert memory_of(parts, full).activations * 8 == memory_of(whole, full).activations


def test_time_falls_with_devices_and_their_speed(full: SampleCost) -> None:
    slow, fast = GPUS[0], GPUS[-1]
    assert hours_of(FULL, full, slow) > hours_of(FULL, full, fast)
    one = replace(FULL, workers=1)
    assert hours_of(one, full, fast) == pytest.approx(8 * hours_of(FULL, full, fast))


def test_the_plan_tells_memory_by_strategy_and_time_by_gpu(short: Structure) -> None:
    told = describe_cost(replace(FULL, workers=1, batch_size=64), short, 512)
    assert set(told["GB a worker"]) == {"single", "ddp", "zero2", "zero3"}
    assert told["GB a worker"]["ddp"].startswith(told["GB a worker"]["single"].split(" ")[0])
    assert "1 x H100 80GB" in told["time"]
    whole = describe_cost(FULL, structure_of(54), 512)
    assert "31,884,304" in whole["trained parameters"]
    assert "too few" not in whole["time"]["8 x RTX 4090"]
    on_one = describe_cost(replace(FULL, workers=1, strategy="ddp"), structure_of(54), 512)
    assert "too few" in on_one["time"]["1 x RTX 4090"]
    assert "too few" not in on_one["time"]["1 x H100 80GB"]


def test_a_structure_is_that_of_the_loaded_backbone() -> None:
    structure, loaded = read_structure("tiny"), load_backbone("tiny")
    assert {n: p.shape for n, p in structure.transformer.named_parameters()} == {
        n: p.shape for n, p in loaded.transformer.named_parameters()
    }
    assert structure.latent_channels == loaded.codec.num_channels
    assert structure.latent_side(64) == loaded.codec.latent_size(1, 64, 64)[1]
    cost = count_sample(PretrainConfig(), structure, side=64)
    assert cost.tokens == 2 * 64 + 64
