"""Train a backbone: pool, VAE, latents, transformer, folder; each resumes where it stopped."""

import hashlib
import json
import logging
import shutil
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLHunyuanVideo15
from numpy.typing import NDArray

from dreambooth3d.backbone.components import (
    Components,
    build_components,
    build_transformer,
    build_vae,
    load_components,
    save_folder,
)
from dreambooth3d.backbone.config import BackboneTrainConfig
from dreambooth3d.backbone.curve import Curve, Point, read_curve
from dreambooth3d.backbone.latents import (
    LatentPool,
    build_latent_pool,
    encode_pool,
    scaling_factor,
)
from dreambooth3d.backbone.pictures import save_reconstructions, save_samples
from dreambooth3d.backbone.pool import (
    KINDS,
    Kind,
    Pool,
    ensure_pool,
    held_out_specs,
    training_specs,
)
from dreambooth3d.backbone.train import TransformerTrainer
from dreambooth3d.backbone.vae import (
    VaeTrainer,
    batched,
    encode_chunk,
    score_vae,
)
from dreambooth3d.runtime.tracking import RunRecord, Tracker, recording
from dreambooth3d.training.pace import Pace
from dreambooth3d.training.snapshot import load_snapshot, save_snapshot

_log = logging.getLogger(__name__)

FLOW_SHIFT = 3.0
CURVE_NAME = "curve.csv"


def run(
    config: BackboneTrainConfig,
    out: Path,
    *,
    folder: Path,
    start: Path | None = None,
    is_fresh: bool = False,
) -> Path:
    """Train a backbone and export it; running again goes on where the last run stopped.

    Args:
        config: what to train.
        out: pool, checkpoints, logs and samples; may be deleted after the export.
        folder: where the diffusers folder goes; replaced when it exists.
        start: a finished backbone folder whose weights the transformer starts from and whose other
            parts are kept; None trains everything from scratch.
        is_fresh: with `start`: the transformer alone is trained from scratch.
    """
    torch.set_num_threads(config.workers)
    pool = ensure_pool(training_specs(config), out / "pool", workers=config.workers)
    _log.info("pool: %d chunks in %s", len(pool.chunks), out / "pool")
    if start is None:
        held_out = ensure_pool(held_out_specs(config), out / "held-out", workers=config.workers)
        vae = train_vae(config, pool, held_out, out)
        parts = build_components(config, pool.captions(), vae=vae)
    else:
        parts = load_components(start)
        if is_fresh:
            torch.manual_seed(config.seed)
            parts = replace(parts, transformer=build_transformer(config))
    latents = encode_with(config, parts.vae, pool, out)
    if start is None:
        parts.vae.register_to_config(scaling_factor=round(scaling_factor(latents), 4))
    _log.info("latents: scaling factor %.4f", parts.vae.config.scaling_factor)
    started = time.monotonic()
    samples = build_latent_pool(pool, latents, parts, parts.vae.config.scaling_factor)
    _log.info("captions: encoded in %.0f s", time.monotonic() - started)
    before = None if start is None or is_fresh else start / CURVE_NAME
    train_transformer(config, parts, samples, out, before=before)
    path = out / "samples" / "final.png"
    _save_samples(path, config, parts, parts.transformer)
    export(parts, folder, curve=out / CURVE_NAME)
    with recording(_log.info):
        _record(config, out)
    return folder


def _record(config: BackboneTrainConfig, out: Path) -> None:
    """Write the training to MLflow: settings, curves, samples."""
    points = read_curve(out / CURVE_NAME)
    curves = {
        f"loss_{kind}": {p.step: p.losses[kind] for p in points if kind in p.losses}
        for kind in KINDS
    }
    Tracker(out.parent, "dreambooth3d-backbone").record(
        RunRecord(
            name=out.name,
            params=asdict(config),
            curves=curves,
            folder=out / "samples",
            folder_name="samples",
        )
    )


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
    if load_snapshot(checkpoint, trainer.state):
        _log.info("VAE: going on at step %d", trainer.progress.step)
    _fit_vae(trainer, config, checkpoint)
    vae.requires_grad_(False)
    score = score_vae(vae, held_out)
    save_reconstructions(out / "samples" / "vae.png", vae, held_out)
    vae.save_pretrained(folder)
    (folder / "score.json").write_text(json.dumps(asdict(score)) + "\n", encoding="utf-8")
    _log.info("VAE: held-out PSNR %s", asdict(score))
    return vae


def _fit_vae(trainer: VaeTrainer, config: BackboneTrainConfig, checkpoint: Path) -> None:
    """Update until the schedule ends, with log lines and checkpoints."""
    log, save = Timer(config.log_seconds), Timer(60 * config.checkpoint_minutes)
    values: list[float] = []
    with batched(trainer.vae, is_compiled=config.is_compiled):
        while not trainer.progress.is_done:
            values.append(trainer.update())
            if log.is_due():
                progress = trainer.progress
                percent, mean = 100 * progress.share, float(np.mean(values))
                _log.info("VAE: step %d, %.0f %%, PSNR %.2f dB", progress.step, percent, mean)
                values = []
            if save.is_due():
                save_snapshot(checkpoint, trainer.state)


def encode_with(
    config: BackboneTrainConfig, vae: AutoencoderKLHunyuanVideo15, pool: Pool, out: Path
) -> dict[Kind, NDArray[np.float16]]:
    """Encode the pool once; another VAE encodes it again."""
    return encode_pool(
        pool,
        out / "latents",
        lambda chunk: encode_chunk(
            vae,
            chunk,
            batch=4 if chunk.kind == "clip" else 32,
            is_compiled=config.is_compiled,
        ),
        parent=_weights_hash(vae),
        on_chunk=lambda name: _log.info("latents: %s", name),
    )


def _weights_hash(module: torch.nn.Module) -> str:
    """A hash of all weights, by name."""
    digest = hashlib.sha256()
    for name, value in module.state_dict().items():
        digest.update(name.encode())
        digest.update(value.contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def train_transformer(
    config: BackboneTrainConfig,
    parts: Components,
    samples: LatentPool,
    out: Path,
    *,
    before: Path | None = None,
) -> None:
    """Train the transformer of `parts` and leave its averaged weights in it.

    The curve goes on where the one in the file `before` ends.
    """
    trainer = TransformerTrainer(parts.transformer, config)
    checkpoint = out / "transformer.safetensors"
    if load_snapshot(checkpoint, trainer.state):
        _log.info("transformer: going on at step %d", trainer.progress.step)
    curve = Curve(out / CURVE_NAME, step=trainer.progress.step, before=before)
    log, save = Timer(config.log_seconds), Timer(60 * config.checkpoint_minutes)
    look = Timer(60 * config.sample_minutes)
    while not trainer.progress.is_done:
        curve.add(trainer.update(samples))
        if log.is_due():
            _log_training(trainer.progress, curve.flush(trainer.progress.seconds))
        if save.is_due():
            save_snapshot(checkpoint, trainer.state)
        if look.is_due():
            path = out / "samples" / f"step-{trainer.progress.step:06d}.png"
            _save_samples(path, config, parts, trainer.average)
    save_snapshot(checkpoint, trainer.state)
    parts.transformer.load_state_dict(trainer.average.state_dict())


def _log_training(progress: Pace, point: Point) -> None:
    share = max(progress.share, 1e-6)
    _log.info(
        "transformer: step %d, %.1f %%, loss %s, %.2f s a step, ETA %.1f min",
        progress.step,
        100 * share,
        ", ".join(f"{kind} {loss:.4f}" for kind, loss in point.losses.items()),
        progress.seconds / progress.step,
        progress.seconds * (1 - share) / share / 60,
    )


def _save_samples(
    path: Path, config: BackboneTrainConfig, parts: Components, transformer: torch.nn.Module
) -> None:
    save_samples(
        path, parts, transformer, size=config.size, num_frames=config.num_frames, seed=config.seed
    )


def export(parts: Components, folder: Path, *, curve: Path) -> None:
    """Write the folder aside, with the curve that led there, and put it in the old one's place."""
    aside = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(aside, ignore_errors=True)
    save_folder(parts, aside, flow_shift=FLOW_SHIFT)
    shutil.copy(curve, aside / CURVE_NAME)
    shutil.rmtree(folder, ignore_errors=True)
    aside.rename(folder)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    _log.info("exported %s, %.1f MB", folder, size / 1e6)


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
