"""ZeRO-3 over two processes: each loads its half of the frozen base, and trains as ZeRO-2 does."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import distributed, multiprocessing
from torch.distributed._tools.mem_tracker import MemTracker

from dreambooth3d.errors import ArtifactError
from dreambooth3d.model.backbone import Denoiser, load_denoiser
from dreambooth3d.model.lora import LoraAdapter
from dreambooth3d.model.texts import TextStates
from dreambooth3d.training.checkpoint import load_checkpoint
from dreambooth3d.training.engine import build_engine
from dreambooth3d.training.loop import FitResult, Plan, fit
from dreambooth3d.training.settings import OptimConfig, Strategy
from dreambooth3d.training.sharded import load_sharded, read_weight
from dreambooth3d.training.task import AdapterTask, TrainBatch
from tests.training.groups import end_member

STEPS, BATCH, WORLD = 5, 4, 2
OPTIM = OptimConfig(lr=1e-2, max_grad_norm=0.05)


def measured(load: Callable[[str], Denoiser]) -> tuple[Denoiser, int]:
    """`tiny` as it is loaded, and the bytes of all tensors of this process at the worst moment."""
    with MemTracker() as tracker:
        denoiser = load("tiny")
    peak = tracker.get_tracker_snapshot("peak")
    return denoiser, peak[torch.device("cpu")]["Total"]


def batch(step: int, denoiser: Denoiser) -> TrainBatch:
    """The whole of batch `step`, of noise."""
    config: Any = denoiser.transformer.config  # type: ignore[union-attr]
    drawn = torch.Generator().manual_seed(step)
    shape = (BATCH, (config.in_channels - 1) // 2, 1, 8, 8)
    return TrainBatch(
        target_BCTHW=torch.randn(shape, generator=drawn),
        noise_BCTHW=torch.randn(shape, generator=drawn),
        sigma_B=torch.rand(BATCH, generator=drawn),
        texts=tuple(
            TextStates(torch.randn(5 + row, config.text_embed_dim, generator=drawn))
            for row in range(BATCH)
        ),
        references_BVCHW=torch.randn(shape, generator=drawn).transpose(1, 2),
    )


def part(whole: TrainBatch, rank: int, world_size: int) -> TrainBatch:
    rows = slice(rank * BATCH // world_size, (rank + 1) * BATCH // world_size)
    assert whole.references_BVCHW is not None
    return TrainBatch(
        target_BCTHW=whole.target_BCTHW[rows],
        noise_BCTHW=whole.noise_BCTHW[rows],
        sigma_B=whole.sigma_B[rows],
        texts=whole.texts[rows],
        references_BVCHW=whole.references_BVCHW[rows],
    )


def train(
    strategy: Strategy, denoiser: Denoiser, folder: Path | None, steps: int = STEPS
) -> FitResult:
    """Train a fresh adapter; with a folder from the checkpoint that is in it."""
    adapter = LoraAdapter(denoiser.transformer, role="reference", rank=4, seed=3)
    task = AdapterTask(denoiser.transformer, subject=None, reference=adapter)
    resume = None if folder is None else load_checkpoint(folder, run_key="run")
    share = BATCH if strategy == "single" else BATCH // WORLD
    engine = build_engine(strategy, task, OPTIM, batch_share=share, resume=resume)
    plan = Plan(num_steps=steps, optim=OPTIM, run_key="run", folder=folder, save_every=100)

    def load(step: int) -> list[TrainBatch]:
        return [part(batch(step, denoiser), engine.rank, engine.world_size)]

    result = fit(engine, load, plan, resume=resume)
    start, found = adapter_start(denoiser), engine.weights()
    moved = [n for n, w in found.items() if "lora_B" in n and not torch.equal(w, start[n])]
    # Gathered, not the empty shards: q, out and MLP of the last block alone cannot learn.
    assert len(moved) == sum("lora_B" in n for n in found) - 4
    return result


def adapter_start(denoiser: Denoiser) -> dict[str, torch.Tensor]:
    adapter = LoraAdapter(denoiser.transformer, role="reference", rank=4, seed=3)
    return {f"reference.{n}": torch.zeros(p.shape) for n, p in adapter.named_parameters()}


def _rank(rank: int, folder: str) -> None:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(WORLD), "LOCAL_RANK": str(rank)}
    torch.set_num_threads(1)
    store = f"file://{folder}/store"
    distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=WORLD)
    sharded, peak = measured(load_sharded)
    whole, whole_peak = measured(load_denoiser)
    found = {"peak": peak, "whole_peak": whole_peak, "zero2": train("zero2", whole, None).losses}
    # Saved by two processes under ZeRO-3, for one that knows nothing of it.
    found["zero3"] = train("zero3", sharded, Path(folder, "checkpoints"), steps=STEPS - 2).losses
    Path(folder, f"rank-{rank}.json").write_text(json.dumps(found), encoding="utf-8")
    end_member()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("ranks")
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    multiprocessing.spawn(_rank, args=(str(home),), nprocs=WORLD)
    return home


@pytest.fixture(scope="module")
def ranks(folder: Path) -> list[dict[str, Any]]:
    files = [folder / f"rank-{rank}.json" for rank in range(WORLD)]
    return [json.loads(file.read_text(encoding="utf-8")) for file in files]


def test_no_process_ever_holds_more_than_about_half_of_the_base(
    ranks: list[dict[str, Any]],
) -> None:
    base = 4 * sum(p.numel() for p in load_denoiser("tiny").transformer.parameters())
    for rank in ranks:
        assert 0.5 * base <= rank["peak"] < 0.55 * base
        assert rank["whole_peak"] >= base


def test_losses_are_those_of_zero2(ranks: list[dict[str, Any]]) -> None:
    for rank in ranks:
        assert rank["zero3"] == pytest.approx(rank["zero2"][: STEPS - 2], rel=1e-4)
        assert rank["zero3"] == ranks[0]["zero3"]


def test_a_checkpoint_of_two_processes_goes_on_in_one(
    ranks: list[dict[str, Any]], folder: Path
) -> None:
    result = train("single", load_denoiser("tiny"), folder / "checkpoints")
    assert result.first_step == STEPS - 2
    assert result.losses == pytest.approx(ranks[0]["zero2"], rel=1e-4)


def test_a_weight_that_is_not_there_is_named(miniature: Path, tmp_path: Path) -> None:
    copy = Path(copytree(miniature, tmp_path / "copy"))
    path = copy / "transformer" / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    weights.pop("proj_out.bias")
    save_file(weights, path)
    with pytest.raises(ArtifactError, match=r"must hold the weight proj_out.bias"):
        read_weight(copy / "transformer", "proj_out.bias", torch.empty(1))
