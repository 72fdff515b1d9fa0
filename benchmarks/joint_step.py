"""Time a joint training step against the published procedure's: `python benchmarks/joint_step.py`.

Width 256, 8 blocks, 256 target and 4 x 256 reference tokens, 300 + 256 text slots of which 40 are
real, rank 16, fp32. Text encoder and VAE are left out on both sides. Rounds alternate between the
two in one process, and the median of the rounds' ratios counts, so that other load on the machine
cancels.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch import nn

from benchmarks.published_step import PublishedTask
from dreambooth3d.model.choices import ReferenceAttention
from dreambooth3d.model.lora import LoraAdapter, Role
from dreambooth3d.model.texts import TextStates
from dreambooth3d.training.engine import TorchEngine
from dreambooth3d.training.settings import OptimConfig
from dreambooth3d.training.task import AdapterTask, TrainBatch

WIDTH, NUM_BLOCKS, SIDE, NUM_VIEWS = 256, 8, 16, 4
NUM_REAL, NUM_SLOTS = 40, (300, 256)
RANK, CHANNELS, TEXT_DIM, GLYPH_DIM = 16, 32, 256, 64


@dataclass(frozen=True, kw_only=True)
class StepCost:
    """What was found.

    Attributes:
        ratios: published seconds a target over ours, of every round.
        published_seconds, our_seconds: a target, the medians.
        loss_difference: largest relative difference of a step's loss; meant to be nothing in the
            exact mode.
    """

    ratios: tuple[float, ...]
    published_seconds: float
    our_seconds: float
    loss_difference: float

    @property
    def ratio(self) -> float:
        """The median of the rounds."""
        return median(self.ratios)

    def line(self, name: str) -> str:
        """One printable line."""
        return (
            f"{name}: {self.ratio:.2f}x; a target takes {1000 * self.our_seconds:.0f} ms, "
            f"published {1000 * self.published_seconds:.0f} ms; "
            f"losses differ by {self.loss_difference:.1e}"
        )


def build_backbone() -> nn.Module:
    """A random backbone of the real classes, frozen; every path carries signal."""
    from diffusers import HunyuanVideo15Transformer3DModel

    torch.manual_seed(0)
    model: nn.Module = HunyuanVideo15Transformer3DModel(
        in_channels=2 * CHANNELS + 1,
        out_channels=CHANNELS,
        num_attention_heads=4,
        attention_head_dim=WIDTH // 4,
        num_layers=NUM_BLOCKS,
        num_refiner_layers=2,
        text_embed_dim=TEXT_DIM,
        text_embed_2_dim=GLYPH_DIM,
        image_embed_dim=16,
        rope_axes_dim=(16, 24, 24),
        task_type="t2v",
    )
    return model.requires_grad_(False).eval()


def build_adapter(backbone: nn.Module, role: Role, seed: int) -> LoraAdapter:
    """An adapter whose every factor acts."""
    adapter = LoraAdapter(backbone, role=role, rank=RANK, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    for name, weight in adapter.named_weights():
        if "lora_B" in name:
            weight.data.copy_(0.05 * torch.randn(weight.shape, generator=generator))
    return adapter


def make_batches(num_steps: int, batch_size: int, seed: int) -> list[TrainBatch]:
    """Random targets; prompt and views are those of one subject throughout."""
    draw = torch.Generator().manual_seed(seed)
    text = TextStates(torch.randn(NUM_REAL, TEXT_DIM, generator=draw), None, span=(3, 5))
    views = torch.randn(1, NUM_VIEWS, CHANNELS, SIDE, SIDE, generator=draw)
    shape = (batch_size, CHANNELS, 1, SIDE, SIDE)
    return [
        TrainBatch(
            target_BCTHW=torch.randn(shape, generator=draw),
            noise_BCTHW=torch.randn(shape, generator=draw),
            sigma_B=torch.rand(batch_size, generator=draw),
            texts=(text,) * batch_size,
            references_BVCHW=views,
        )
        for _ in range(num_steps)
    ]


def measure(
    attention: ReferenceAttention, *, batch_size: int, rounds: int, seed: int = 0
) -> StepCost:
    """Time rounds of published steps (one target each) and of ours on the same targets."""
    backbone = build_backbone()
    published = PublishedTask(
        backbone,
        subject=build_adapter(backbone, "subject", 1),
        reference=build_adapter(backbone, "reference", 2),
        num_slots=NUM_SLOTS,
    )
    ours = AdapterTask(
        backbone,
        subject=build_adapter(backbone, "subject", 1),
        reference=build_adapter(backbone, "reference", 2),
        reference_attention=attention,
    )
    engines = [TorchEngine(task, OptimConfig()) for task in (published, ours)]
    batches = make_batches(rounds + 1, batch_size, seed)
    theirs, own, losses = [], [], []
    for batch in batches:
        seconds, their_losses = _timed(engines[0], [_row(batch, i) for i in range(batch_size)])
        theirs.append(seconds / batch_size)
        seconds, our_losses = _timed(engines[1], [batch])
        own.append(seconds / batch_size)
        their_loss = sum(their_losses) / batch_size
        losses.append(abs(our_losses[0] / their_loss - 1))
    # The first round warms up.
    ratios = [a / b for a, b in zip(theirs[1:], own[1:], strict=True)]
    return StepCost(
        ratios=tuple(ratios),
        published_seconds=median(theirs[1:]),
        our_seconds=median(own[1:]),
        loss_difference=max(losses),
    )


def _row(batch: TrainBatch, row: int) -> TrainBatch:
    rows = slice(row, row + 1)
    return TrainBatch(
        target_BCTHW=batch.target_BCTHW[rows],
        noise_BCTHW=batch.noise_BCTHW[rows],
        sigma_B=batch.sigma_B[rows],
        texts=batch.texts[rows],
        references_BVCHW=batch.references_BVCHW,
    )


def _timed(engine: TorchEngine, batches: Sequence[TrainBatch]) -> tuple[float, list[float]]:
    """Seconds and losses of one update for each batch."""
    started = time.perf_counter()
    losses = [engine.update([batch], 1e-4)[0] for batch in batches]
    return time.perf_counter() - started, losses


def exact(seed: int, rounds: int = 12) -> StepCost:
    """`joint` attention at batch 1: the same numbers, faster."""
    return measure("joint", batch_size=1, rounds=rounds, seed=seed)


def isolated(seed: int, rounds: int = 6) -> StepCost:
    """`isolated` attention, four targets a step that share their references."""
    return measure("isolated", batch_size=4, rounds=rounds, seed=seed)


def main(arguments: Sequence[str]) -> int:
    """Print both ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=12)
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    modes: dict[str, Callable[[int, int], StepCost]] = {
        "exact, b = 1": exact,
        "isolated, shared references, b = 4": isolated,
    }
    for name, mode in modes.items():
        print(mode(given.seed, given.rounds).line(name), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
