"""Train a backbone: pool, VAE, latents, transformer, folder; each resumes where it stopped."""

import json
import logging
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLHunyuanVideo15
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from dreambooth3d.artifacts.key import content_hash
from dreambooth3d.backbone.checkpoint import load_checkpoint, save_checkpoint
from dreambooth3d.backbone.components import (
    Components,
    build_components,
    build_vae,
    save_folder,
)
from dreambooth3d.backbone.config import BackboneTrainConfig
from dreambooth3d.backbone.latents import (
    LatentPool,
    build_latent_pool,
    encode_captions,
    encode_pool,
    scaling_factor,
)
from dreambooth3d.backbone.pool import (
    Kind,
    Pixels,
    Pool,
    ensure_pool,
    held_out_specs,
    training_specs,
)
from dreambooth3d.backbone.train import TransformerTrainer, sample_latents
from dreambooth3d.backbone.vae import (
    DecoderTrainer,
    VaeTrainer,
    batched,
    encode_chunk,
    score_vae,
    to_pixels,
)
from dreambooth3d.model.codec import LatentCodec
from dreambooth3d.model.texts import TextStates

_log = logging.getLogger(__name__)

FLOW_SHIFT = 3.0
SAMPLE_PROMPTS = (
    "a photo of a red car in a forest",
    "a photo of a blue striped teapot on a wooden desk",
    "a photo of a green dog on a beach",
    "a photo of a yellow spotted rocket under water",
    "a photo of a pink duck at night",
    "a photo of an orange mushroom on a white background",
    "a photo of a purple robot in a city street",
    "a photo of a cyan mug in a kitchen",
)
SAMPLE_CLIPS = (
    "a video of a red duck in a forest, turning to the left",
    "a video of a blue car in a city street, sliding to the right",
    "a video of a yellow bear at sunset, the camera orbiting around it",
)


def run(config: BackboneTrainConfig, out: Path, *, folder: Path) -> Path:
    """Train a backbone and export it; running again goes on where the last run stopped.

    Args:
        config: what to train.
        out: pool, checkpoints, logs and samples; may be deleted after the export.
        folder: where the diffusers folder goes; replaced when it exists.
    """
    torch.set_num_threads(config.workers)
    pool = ensure_pool(training_specs(config), out / "pool", workers=config.workers)
    held_out = ensure_pool(held_out_specs(config), out / "held-out", workers=config.workers)
    _log.info("pool: %d chunks in %s", len(pool.chunks), out / "pool")
    vae = train_vae(config, pool, held_out, out)
    parts = build_components(config, pool.captions(), vae=vae)
    latents = encode_with(vae, pool, out)
    started = time.monotonic()
    samples = build_latent_pool(pool, latents, parts, vae.config.scaling_factor)
    _log.info("captions: encoded in %.0f s", time.monotonic() - started)
    train_transformer(config, parts, samples, out)
    train_decoder(config, parts, pool, held_out, latents, out)
    path = out / "samples" / "final.png"
    save_samples(path, config, parts, parts.transformer, samples.empty)
    export(parts, folder)
    return folder


def train_vae(
    config: BackboneTrainConfig, pool: Pool, held_out: Pool, out: Path
) -> AutoencoderKLHunyuanVideo15:
    """Train the VAE or load the finished one from `out`/vae."""
    folder = out / "vae"
    if (folder / "score.json").is_file():
        _log.info("VAE: done before, %s", (folder / "score.json").read_text().strip())
        return AutoencoderKLHunyuanVideo15.from_pretrained(folder).requires_grad_(False)
    torch.manual_seed(config.seed)
    vae = build_vae(config)
    trainer = VaeTrainer(vae, config, pool)
    checkpoint = out / "vae.safetensors"
    if load_checkpoint(checkpoint, trainer.state):
        _log.info("VAE: going on at step %d", trainer.progress.step)
    _fit_vae(trainer, config, checkpoint, "VAE")
    vae.requires_grad_(False)
    score = score_vae(vae, held_out)
    save_reconstructions(out / "samples" / "vae.png", vae, held_out)
    vae.save_pretrained(folder)
    (folder / "score.json").write_text(json.dumps(asdict(score)) + "\n", encoding="utf-8")
    _log.info("VAE: held-out PSNR %s", asdict(score))
    return vae


def train_decoder(
    config: BackboneTrainConfig,
    parts: Components,
    pool: Pool,
    held_out: Pool,
    latents: Mapping[Kind, NDArray[np.float16]],
    out: Path,
) -> None:
    """Fit the decoder to whole clips; the transformer's latents stay as they are."""
    trainer = DecoderTrainer(parts.vae, config, pool, latents)
    checkpoint = out / "decoder.safetensors"
    if load_checkpoint(checkpoint, trainer.state):
        _log.info("decoder: going on at step %d", trainer.progress.step)
    _fit_vae(trainer, config, checkpoint, "decoder")
    save_checkpoint(checkpoint, trainer.state)
    parts.vae.requires_grad_(False)
    save_reconstructions(out / "samples" / "decoder.png", parts.vae, held_out)
    _log.info("decoder: held-out PSNR %s", asdict(score_vae(parts.vae, held_out)))


def _fit_vae(
    trainer: VaeTrainer | DecoderTrainer, config: BackboneTrainConfig, checkpoint: Path, what: str
) -> None:
    """Update until the schedule ends, with log lines and checkpoints."""
    log, save = Timer(config.log_seconds), Timer(60 * config.checkpoint_minutes)
    values: list[float] = []
    with batched(trainer.vae):
        while not trainer.progress.is_done:
            values.append(trainer.update())
            if log.is_due():
                progress = trainer.progress
                percent, mean = 100 * progress.share, float(np.mean(values))
                _log.info("%s: step %d, %.0f %%, PSNR %.2f dB", what, progress.step, percent, mean)
                values = []
            if save.is_due():
                save_checkpoint(checkpoint, trainer.state)


def encode_with(
    vae: AutoencoderKLHunyuanVideo15, pool: Pool, out: Path
) -> dict[Kind, NDArray[np.float16]]:
    """Encode the pool once and give the VAE the factor that makes its latents unit size."""
    latents = encode_pool(
        pool,
        out / "latents",
        lambda chunk: encode_chunk(vae, chunk, batch=32 if chunk.kind != "clip" else 4),
        parent=content_hash(out / "vae" / "diffusion_pytorch_model.safetensors"),
        on_chunk=lambda name: _log.info("latents: %s", name),
    )
    vae.register_to_config(scaling_factor=round(scaling_factor(latents), 4))
    _log.info("latents: scaling factor %.4f", vae.config.scaling_factor)
    return latents


def train_transformer(
    config: BackboneTrainConfig, parts: Components, samples: LatentPool, out: Path
) -> None:
    """Train the transformer of `parts` and leave its averaged weights in it."""
    trainer = TransformerTrainer(parts.transformer, config)
    checkpoint = out / "transformer.safetensors"
    if load_checkpoint(checkpoint, trainer.state):
        _log.info("transformer: going on at step %d", trainer.progress.step)
    log, save = Timer(config.log_seconds), Timer(60 * config.checkpoint_minutes)
    look = Timer(60 * config.sample_minutes)
    losses: list[float] = []
    count, since = 0, time.monotonic()
    while not trainer.progress.is_done:
        loss, num_samples = trainer.update(samples)
        losses.append(loss)
        count += num_samples
        if log.is_due():
            _log_training(trainer, losses, count / (time.monotonic() - since))
            losses, count, since = [], 0, time.monotonic()
        if save.is_due():
            save_checkpoint(checkpoint, trainer.state)
        if look.is_due():
            path = out / "samples" / f"step-{trainer.progress.step:06d}.png"
            save_samples(path, config, parts, trainer.average, samples.empty)
    save_checkpoint(checkpoint, trainer.state)
    parts.transformer.load_state_dict(trainer.average.state_dict())


def _log_training(trainer: TransformerTrainer, losses: list[float], speed: float) -> None:
    progress = trainer.progress
    share = max(progress.share, 1e-6)
    _log.info(
        "transformer: step %d, %.1f %%, loss %.4f, %.0f samples/s, %.2f s a step, ETA %.1f min",
        progress.step,
        100 * share,
        float(np.mean(losses)),
        speed,
        progress.seconds / progress.step,
        progress.seconds * (1 - share) / share / 60,
    )


def export(parts: Components, folder: Path) -> None:
    """Write the folder aside and put it in the old one's place."""
    aside = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(aside, ignore_errors=True)
    save_folder(parts, aside, flow_shift=FLOW_SHIFT)
    shutil.rmtree(folder, ignore_errors=True)
    aside.rename(folder)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    _log.info("exported %s, %.1f MB", folder, size / 1e6)


def save_reconstructions(path: Path, vae: AutoencoderKLHunyuanVideo15, pool: Pool) -> None:
    """Save held-out frames above their reconstructions."""
    codec = LatentCodec(vae)
    columns = []
    for kind in ("image", "reference", "clip"):
        pixels = pool.of_kind(kind)[0].pixels[:6]
        output = codec.decode(codec.encode(to_pixels(pixels)))
        frames = _to_bytes(output)
        columns += [np.concatenate([a[-1], b[-1]]) for a, b in zip(pixels, frames, strict=True)]
    _save_image(path, np.concatenate(columns, axis=1))


def save_samples(
    path: Path,
    config: BackboneTrainConfig,
    parts: Components,
    transformer: torch.nn.Module,
    empty: TextStates,
) -> None:
    """Save a sheet: one row of photos, then a row of frames for each clip."""
    codec = LatentCodec(parts.vae)
    grid = config.size // 8
    rows = []
    for prompts, num_frames in ((SAMPLE_PROMPTS, 1), (SAMPLE_CLIPS, config.num_frames)):
        texts = [TextStates(states_SD=t.float()) for t in encode_captions(parts, prompts)]
        shape = (config.latent_channels, (num_frames - 1) // 4 + 1, grid, grid)
        latents = sample_latents(transformer, texts, empty, shape, seed=config.seed)
        frames = _to_bytes(codec.decode(latents))
        if num_frames == 1:
            rows.append(np.concatenate(list(frames[:, 0]), axis=1))
        else:
            picks = np.linspace(0, num_frames - 1, len(SAMPLE_PROMPTS)).round().astype(int)
            rows += [np.concatenate(list(clip[picks]), axis=1) for clip in frames]
    _save_image(path, np.concatenate(rows))


def _to_bytes(pixels_BCFHW: Tensor) -> Pixels:
    scaled = (pixels_BCFHW.permute(0, 2, 3, 4, 1) + 1) * 127.5
    return scaled.round().clamp(0, 255).to(torch.uint8).numpy()


def _save_image(path: Path, pixels: Pixels) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    image.resize((image.width * 2, image.height * 2), Image.Resampling.NEAREST).save(path)


class Timer:
    """Tells when `seconds` have passed since it last said so."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._last = time.monotonic()

    def is_due(self) -> bool:
        """True once every `seconds`."""
        now = time.monotonic()
        if now - self._last < self.seconds:
            return False
        self._last = now
        return True
