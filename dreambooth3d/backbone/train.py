"""Train the transformer on latents: velocity loss, weight average, sample sheets."""

import copy
import time
from collections.abc import Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from dreambooth3d.backbone.checkpoint import TrainState
from dreambooth3d.backbone.config import BackboneTrainConfig
from dreambooth3d.backbone.latents import Batch, LatentPool
from dreambooth3d.backbone.optimizers import MatrixRule, build_optimizers
from dreambooth3d.backbone.schedule import Progress
from dreambooth3d.diffusion.path import interpolate, velocity_loss
from dreambooth3d.diffusion.sampler import euler, flow_sigmas, guide
from dreambooth3d.model.forward import denoise
from dreambooth3d.model.texts import TextStates

# Below this many tokens the plain form of attention is faster on a CPU than the fused one
# (84 tokens, bf16, forward and backward: 18 ms against 30 ms).
_FUSED_FROM_TOKENS = 160


def batch_loss(transformer: nn.Module, batch: Batch) -> Tensor:
    """Velocity loss of one batch, bf16 autocast (method, section 4)."""
    noisy = interpolate(batch.latents_BCTHW, batch.noise_BCTHW, batch.sigma_B)
    is_small = noisy[0, 0].numel() < _FUSED_FROM_TOKENS
    with (
        torch.autocast("cpu", torch.bfloat16),
        sdpa_kernel(SDPBackend.MATH) if is_small else nullcontext(),
    ):
        velocity = denoise(transformer, noisy, batch.sigma_B * 1000, batch.texts)
    return velocity_loss(velocity, batch.latents_BCTHW, batch.noise_BCTHW).mean()


class TransformerTrainer:
    """One transformer training.

    Attributes:
        average: the transformer with averaged weights; what is shipped.
        progress: step and seconds used.
    """

    def __init__(self, transformer: nn.Module, config: BackboneTrainConfig) -> None:
        self.transformer, self.config = transformer, config
        self.average = copy.deepcopy(transformer).requires_grad_(False)
        self.progress = Progress(num_steps=config.steps, minutes=config.minutes)
        self.optimizers = build_optimizers(
            transformer,
            lr=config.lr,
            muon_lr=config.muon_lr,
            weight_decay=config.weight_decay,
            betas=(0.9, 0.98),
            is_muon=MatrixRule(*config.muon_parts),
        )

    @property
    def state(self) -> TrainState:
        """What a checkpoint holds."""
        return TrainState(
            models={"model": self.transformer, "average": self.average},
            optimizers=self.optimizers.optimizers,
            progress=self.progress,
        )

    def update(self, pool: LatentPool) -> tuple[float, int]:
        """Do one update; returns its loss and its number of samples."""
        started = time.monotonic()
        batch = pool.batch(self.config, self.progress.step)
        loss = batch_loss(self.transformer, batch)
        loss.backward()
        rate = self.progress.rate(
            warmup_steps=self.config.warmup_steps, decay_fraction=self.config.decay_fraction
        )
        self.optimizers.step(rate, clip=1.0)
        self._update_average()
        self.progress.advance(time.monotonic() - started)
        return float(loss.detach()), len(batch.texts)

    @torch.no_grad()
    def _update_average(self) -> None:
        """Average with a decay that warms up, so that early weights are soon forgotten."""
        step = self.progress.step
        weight = 1 - min(self.config.ema_decay, (1 + step) / (10 + step))
        average: list[Tensor] = list(self.average.parameters())
        fresh: list[Tensor] = list(self.optimizers.parameters)
        torch._foreach_lerp_(average, fresh, weight)


@torch.no_grad()
def sample_latents(
    transformer: nn.Module,
    texts: Sequence[TextStates],
    empty: TextStates,
    shape: tuple[int, int, int, int],
    *,
    seed: int,
    num_steps: int = 24,
    flow_shift: float = 3.0,
    guidance_scale: float = 4.0,
) -> Tensor:
    """Sample latents (B, *shape) for a look at the training."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn((len(texts), *shape), generator=generator)
    both = (*texts, *[empty] * len(texts))

    def velocity(x: Tensor, sigma_B: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            v = denoise(transformer, torch.cat((x, x)), torch.cat((sigma_B, sigma_B)) * 1000, both)
        conditional, unconditional = v.float().chunk(2)
        return guide(conditional, unconditional, guidance_scale)

    return euler(velocity, noise, flow_sigmas(num_steps, flow_shift))
