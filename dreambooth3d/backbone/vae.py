"""Train the VAE, and turn a pool into latents."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKLHunyuanVideo15
from diffusers.models.autoencoders.autoencoder_kl_hunyuanvideo15 import HunyuanVideo15RMS_norm
from torch import Tensor, nn

from dreambooth3d.backbone.config import BackboneTrainConfig
from dreambooth3d.backbone.pool import Chunk, Pool
from dreambooth3d.model.codec import shorten_single_frames, to_pixels
from dreambooth3d.training.muon import MatrixRule, build_optimizers
from dreambooth3d.training.pace import Pace
from dreambooth3d.training.snapshot import Snapshot

_EDGE_WEIGHT = 0.5
# Noise on the latents against a pull of their mean to zero: what matters little to the picture is
# not worth its amplitude, so a diffusion model need not learn it. (At a noise of 0.05 pictures come
# back at 40 dB, but a transformer's samples stay textured with unlearnable detail.)
_PULL_WEIGHT = 3e-3
_LATENT_NOISE = 0.7
# Clips cost ten times a batch of frames, and what frames teach carries over: they start later.
_IMAGES_FIRST = 0.25


def _rms_norm(x_BCTHW: Tensor, gamma: Tensor) -> Tensor:
    """The VAE's channel norm in one pass (in the module's steps it is half of an update)."""
    square_B1THW = x_BCTHW.float().square().mean(1, keepdim=True)
    return (x_BCTHW * torch.rsqrt(square_B1THW + 1e-12) * gamma).to(x_BCTHW.dtype)


_compiled_rms_norm = torch.compile(_rms_norm, dynamic=True)


@contextmanager
def batched(vae: AutoencoderKLHunyuanVideo15, *, is_compiled: bool = False) -> Iterator[None]:
    """Let a VAE take batches for a while, with the same results sample by sample.

    diffusers' mid-block attention gives its mask a shape that broadcasts for one sample only, and
    fills it row by row. It is replaced on these module objects and put back at the end, as are
    single-frame convolutions and, when `is_compiled`, the norms (measured: an update takes half the
    time).
    """
    changed: list[tuple[nn.Module, str]] = [
        (module, "forward") for module in shorten_single_frames(vae)
    ]
    for module in vae.modules():
        if hasattr(module, "prepare_causal_attention_mask"):
            module.__dict__["prepare_causal_attention_mask"] = _frame_causal_mask
            changed.append((module, "prepare_causal_attention_mask"))
        elif is_compiled and isinstance(module, HunyuanVideo15RMS_norm):
            module.__dict__["forward"] = _fused_norm(module)
            changed.append((module, "forward"))
    try:
        # A norm meets as many memory layouts as the VAE has stages, times two for its gradient.
        with torch._dynamo.config.patch(recompile_limit=64):
            yield
    finally:
        for module, name in changed:
            del module.__dict__[name]


def _frame_causal_mask(
    n_frame: int,
    n_hw: int,
    dtype: torch.dtype,
    device: torch.device,
    batch_size: int | None = None,
) -> Tensor | None:
    if n_frame == 1:
        return None
    frame = torch.arange(n_frame, device=device).repeat_interleave(n_hw)
    mask = torch.zeros(n_frame * n_hw, n_frame * n_hw, dtype=dtype, device=device)
    return mask.masked_fill_(frame[:, None] < frame[None], float("-inf"))


def _fused_norm(module: Any) -> Callable[[Tensor], Tensor]:
    def forward(x_BCTHW: Tensor) -> Tensor:
        return _compiled_rms_norm(x_BCTHW, module.gamma)

    return forward


def reconstruction_loss(
    vae: AutoencoderKLHunyuanVideo15, pixels_BCFHW: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Loss of one batch, and its mean squared error in -1..1 units.

    L1 + L2 + differences between neighbouring pixels (edges carry shape) + a trace of KL's pull
    of the mean to zero, which bounds the latents. A little noise of fixed size on the mean takes
    the place of a learned variance: generated latents are never exact.
    """
    mean = vae.encode(pixels_BCFHW).latent_dist.mode()
    noise = torch.randn(mean.shape, generator=generator, dtype=torch.float32)
    output = vae.decode(mean + _LATENT_NOISE * noise.to(mean.dtype)).sample.float()
    error = output - pixels_BCFHW
    mse = error.square().mean()
    pull = 0.5 * mean.float().square().mean()
    return error.abs().mean() + mse + _EDGE_WEIGHT * _edge_loss(error) + _PULL_WEIGHT * pull, mse


@dataclass(frozen=True, kw_only=True)
class VaeScore:
    """Mean PSNR (dB) on held-out scenes."""

    clip: float
    image: float
    reference: float


def psnr(mse: float) -> float:
    """PSNR in dB of an error measured in -1..1 units (peak to peak 2)."""
    return 10 * math.log10(4 / max(mse, 1e-12))


@torch.no_grad()
def score_vae(vae: AutoencoderKLHunyuanVideo15, pool: Pool) -> VaeScore:
    """Score reconstructions from the posterior's mean, clip by clip in fp32."""
    scores = {}
    for kind in ("clip", "image", "reference"):
        values = []
        for chunk in pool.of_kind(kind):
            for row in range(len(chunk.pixels)):
                pixels = to_pixels(chunk.pixels[row : row + 1])
                output = vae.decode(vae.encode(pixels).latent_dist.mode()).sample.clamp(-1, 1)
                values.append(psnr(float((output - pixels).square().mean())))
        scores[kind] = float(np.mean(values))
    return VaeScore(clip=scores["clip"], image=scores["image"], reference=scores["reference"])


class VaeTrainer:
    """One VAE training: alternating updates on single frames and on clips.

    Attributes:
        progress: step and seconds used, what a checkpoint needs besides weights.
    """

    def __init__(
        self, vae: AutoencoderKLHunyuanVideo15, config: BackboneTrainConfig, pool: Pool
    ) -> None:
        self.vae, self.config, self.pool = vae, config, pool
        self.progress = Pace(num_steps=config.vae_steps, minutes=config.vae_minutes)
        self.optimizers = build_optimizers(
            vae,
            lr=config.vae_lr,
            muon_lr=config.vae_lr,
            weight_decay=config.weight_decay,
            betas=(0.9, 0.99),
            is_muon=MatrixRule("encoder.", "decoder."),
        )

    @property
    def state(self) -> Snapshot:
        """What a checkpoint holds."""
        return Snapshot(
            models={"model": self.vae},
            optimizers=self.optimizers.optimizers,
            settings=self.config.vae_training,
            progress=self.progress,
        )

    def update(self) -> float:
        """Do one update; returns the PSNR of its batch."""
        started = time.monotonic()
        step = self.progress.step
        rng = np.random.default_rng((self.config.seed, 1, step))
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        is_clip = step % 2 == 1 and self.progress.share > _IMAGES_FIRST
        pixels = self._clips(rng) if is_clip else self._frames(rng)
        with torch.autocast("cpu", torch.bfloat16):
            loss, mse = reconstruction_loss(self.vae, pixels, generator)
        loss.backward()
        self.optimizers.step(self.progress.rate(warmup_steps=20, decay_fraction=0.5), clip=10.0)
        self.progress.advance(time.monotonic() - started)
        return psnr(float(mse.detach()))

    def _frames(self, rng: np.random.Generator) -> Tensor:
        """Single frames: half scenes, a quarter views on white, a quarter frames of clips."""
        count = self.config.vae_batch_images
        parts = [
            _draw(self.pool.of_kind("image"), count // 2, 1, rng),
            _draw(self.pool.of_kind("reference"), count // 4, 1, rng),
            _draw(self.pool.of_kind("clip"), count - count // 2 - count // 4, 1, rng),
        ]
        return to_pixels(np.concatenate(parts))

    def _clips(self, rng: np.random.Generator) -> Tensor:
        clips = self.pool.of_kind("clip")
        return to_pixels(
            _draw(clips, self.config.vae_batch_clips, self.config.vae_clip_frames, rng)
        )


def _edge_loss(error_BCFHW: Tensor) -> Tensor:
    """Mean absolute difference between the errors of neighbouring pixels."""
    return error_BCFHW.diff(dim=-1).abs().mean() + error_BCFHW.diff(dim=-2).abs().mean()


def _draw(
    chunks: tuple[Chunk, ...], count: int, num_frames: int, rng: np.random.Generator
) -> np.ndarray[Any, Any]:
    """Draw windows of `num_frames` frames, (count, F, H, W, 3)."""
    rows = []
    for _ in range(count):
        pixels = chunks[int(rng.integers(len(chunks)))].pixels
        first = int(rng.integers(pixels.shape[1] - num_frames + 1))
        rows.append(pixels[int(rng.integers(len(pixels))), first : first + num_frames])
    return np.stack(rows)


@torch.no_grad()
def encode_chunk(
    vae: AutoencoderKLHunyuanVideo15, chunk: Chunk, *, batch: int, is_compiled: bool = False
) -> np.ndarray[Any, np.dtype[np.float16]]:
    """Encode every scene of a chunk to unscaled posterior means, (N, C, T, H, W)."""
    parts = []
    with batched(vae, is_compiled=is_compiled), torch.autocast("cpu", torch.bfloat16):
        for start in range(0, len(chunk.pixels), batch):
            pixels = to_pixels(chunk.pixels[start : start + batch])
            parts.append(vae.encode(pixels).latent_dist.mode().float().numpy())
    return np.concatenate(parts).astype(np.float16)
