"""Train the transformer on latents: velocity loss, weight average, sample sheets."""

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from dreambooth3d.backbone.config import BackboneTrainConfig
from dreambooth3d.backbone.latents import Batch, LatentPool
from dreambooth3d.backbone.pool import Kind
from dreambooth3d.diffusion.path import interpolate, velocity_loss
from dreambooth3d.diffusion.sampler import euler, flow_sigmas, guide
from dreambooth3d.model.forward import denoise
from dreambooth3d.model.texts import TextStates
from dreambooth3d.training.muon import MatrixRule, build_optimizers
from dreambooth3d.training.pace import Pace
from dreambooth3d.training.snapshot import Snapshot


def batch_loss(transformer: nn.Module, batch: Batch, *, is_compiled: bool = False) -> Tensor:
    """Velocity loss of one batch, bf16 autocast (method, section 4).

    At these few tokens the plain form of attention is faster on a CPU than the fused one, and a
    compiled forward fuses it itself (9 rows of 352 tokens, forward and backward: 14 ms against 29).
    """
    noisy = interpolate(batch.latents_BCTHW, batch.noise_BCTHW, batch.sigma_B)
    with torch.autocast("cpu", torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
        velocity = denoise(
            transformer, noisy, batch.sigma_B * 1000, batch.texts, is_compiled=is_compiled
        )
    return velocity_loss(velocity, batch.latents_BCTHW, batch.noise_BCTHW).mean()


@dataclass(frozen=True, kw_only=True)
class Update:
    """What one update did: its loss is that of one `kind` of sample."""

    step: int
    kind: Kind
    loss: float
    num_samples: int


class TransformerTrainer:
    """One transformer training.

    Args:
        transformer: what is trained, in place.
        config: how.
        origin: names the weights it starts from and the VAE its latents are of; a checkpoint of
            another origin is refused.

    Attributes:
        average: the transformer with averaged weights; what is shipped.
        progress: step and seconds used.
    """

    def __init__(
        self, transformer: nn.Module, config: BackboneTrainConfig, *, origin: str = "scratch"
    ) -> None:
        self.transformer, self.config, self._origin = transformer, config, origin
        self.average = copy.deepcopy(transformer).requires_grad_(False)
        self.progress = Pace(num_steps=config.steps, minutes=config.minutes)
        self.optimizers = build_optimizers(
            transformer,
            lr=config.lr,
            muon_lr=config.muon_lr,
            weight_decay=config.weight_decay,
            betas=(0.9, 0.98),
            is_muon=MatrixRule(*config.muon_parts, excluded=config.muon_excluded),
        )

    @property
    def state(self) -> Snapshot:
        """What a checkpoint holds."""
        return Snapshot(
            models={"model": self.transformer, "average": self.average},
            optimizers=self.optimizers.optimizers,
            settings={**self.config.transformer_training, "origin": self._origin},
            progress=self.progress,
        )

    def update(self, pool: LatentPool) -> Update:
        """Do one update; the rate falls only where the schedule says so."""
        started = time.monotonic()
        batch = pool.batch(self.config, self.progress.step)
        loss = batch_loss(self.transformer, batch, is_compiled=self.config.is_compiled)
        loss.backward()
        rate = self.progress.rate(
            warmup_steps=self.config.warmup_steps, decay_fraction=self.config.decay_fraction
        )
        self.optimizers.step(rate, clip=1.0)
        self._update_average()
        self.progress.advance(time.monotonic() - started)
        return Update(
            step=self.progress.step,
            kind=batch.kind,
            loss=float(loss.detach()),
            num_samples=len(batch.texts),
        )

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
    guided_above: float = 0.75,
) -> Tensor:
    """Sample latents (B, *shape) for a look at the training, guided at high noise alone."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn((len(texts), *shape), generator=generator)
    both = (*texts, *[empty] * len(texts))

    def velocity(x: Tensor, sigma_B: Tensor) -> Tensor:
        is_guided = bool(sigma_B[0] >= guided_above)
        states = both if is_guided else tuple(texts)
        copies = 2 if is_guided else 1
        with torch.autocast("cpu", torch.bfloat16):
            v = denoise(
                transformer, torch.cat([x] * copies), torch.cat([sigma_B] * copies) * 1000, states
            ).float()
        if not is_guided:
            return v
        conditional, unconditional = v.chunk(2)
        return guide(conditional, unconditional, guidance_scale)

    return euler(velocity, noise, flow_sigmas(num_steps, flow_shift))
