"""Train a backbone: pool, VAE, latents, transformer, folder; each resumes where it stopped."""

import hashlib
import json
import logging
import os
import shutil
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLHunyuanVideo15
from numpy.typing import NDArray

from dreambooth3d.artifacts.chunks import ChunkSpec
from dreambooth3d.artifacts.key import exclusive
from dreambooth3d.backbone.components import (
    Components,
    build_components,
    build_transformer,
    build_vae,
    check_structure,
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
from dreambooth3d.errors import ConfigError
from dreambooth3d.model.backbone import read_card
from dreambooth3d.runtime.tracking import RunRecord, Tracker, recording
from dreambooth3d.training.pace import Countdown, Pace, Timer
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

    Raises:
        ConfigError: `folder` holds something else, `start` has another structure, or there is no
            C++ compiler for a compiled training.
    """
    check_folder(folder, out)
    require_compiler(config)
    torch.set_num_threads(config.workers)
    with exclusive(out, "backbone"):
        parts = None if start is None else _start_parts(config, start, is_fresh=is_fresh)
        pool = _render(training_specs(config), out / "pool", config)
        if parts is None:
            held_out = _render(held_out_specs(config), out / "held-out", config)
            vae = train_vae(config, pool, held_out, out)
            parts = build_components(config, pool.captions(), vae=vae)
        samples = _encode(config, parts, pool, out, is_first=start is None)
        keeps_weights = start is not None and not is_fresh
        train_transformer(
            config,
            parts,
            samples,
            out,
            origin=read_card(str(start)).revision if keeps_weights else "scratch",
            before=start / CURVE_NAME if start is not None and keeps_weights else None,
        )
        _save_samples(out / "samples" / "final.png", config, parts, parts.transformer)
        export(parts, folder, curve=out / CURVE_NAME)
        with recording(_log.info):
            _record(config, out, revision=read_card(str(folder)).revision)
    return folder


def check_folder(folder: Path, out: Path) -> None:
    """Refuse a folder whose content a finished training must not replace.

    Raises:
        ConfigError: it is no backbone's, or the training works in it.
    """
    is_foreign = folder.exists() and not (folder / "model_index.json").is_file()
    is_around = out.resolve().is_relative_to(folder.resolve())
    if is_foreign or is_around:
        raise ConfigError(
            f"--folder must be new, or a backbone's to replace, got {folder}; choose another name"
        )


def require_compiler(config: BackboneTrainConfig) -> None:
    """Refuse a compiled training where torch.compile has no C++ compiler to call.

    Raises:
        ConfigError: there is none.
    """
    compiler = os.environ.get("CXX", "g++")
    if config.is_compiled and shutil.which(compiler) is None:
        raise ConfigError(
            f"a C++ compiler must be installed for torch.compile, got no {compiler}; install g++ "
            "or train with --set is_compiled=false"
        )


def _start_parts(config: BackboneTrainConfig, start: Path, *, is_fresh: bool) -> Components:
    """Load what a training starts from; its structure must be the one that is asked for."""
    parts = load_components(start)
    check_structure(config, parts, start, is_fresh=is_fresh)
    if not is_fresh:
        return parts
    torch.manual_seed(config.seed)
    return replace(parts, transformer=build_transformer(config))


def _render(specs: list[ChunkSpec], folder: Path, config: BackboneTrainConfig) -> Pool:
    tell = Countdown(folder.name, config.log_seconds, _log.info)
    pool = ensure_pool(specs, folder, workers=config.workers, on_chunk=tell)
    _log.info("%s: %d chunks in %s", folder.name, len(pool.chunks), folder)
    return pool


def _encode(
    config: BackboneTrainConfig, parts: Components, pool: Pool, out: Path, *, is_first: bool
) -> LatentPool:
    """Encode pictures and captions; a new VAE gets its scaling factor here."""
    latents = encode_with(config, parts.vae, pool, out)
    if is_first:
        parts.vae.register_to_config(scaling_factor=round(scaling_factor(latents), 4))
    _log.info("latents: scaling factor %.4f", parts.vae.config.scaling_factor)
    started = time.monotonic()
    samples = build_latent_pool(pool, latents, parts, parts.vae.config.scaling_factor)
    _log.info("captions: encoded in %.0f s", time.monotonic() - started)
    return samples


def _record(config: BackboneTrainConfig, out: Path, *, revision: str) -> None:
    """Write the training to MLflow, once: settings, curves, samples."""
    tracker = Tracker(out.parent, "dreambooth3d-backbone")
    if tracker.find({"backbone_revision": revision}) is not None:
        return
    points = read_curve(out / CURVE_NAME)
    curves = {
        f"loss_{kind}": {p.step: p.losses[kind] for p in points if kind in p.losses}
        for kind in KINDS
    }
    tracker.record(
        RunRecord(
            name=out.name,
            params=asdict(config),
            tags={"backbone_revision": revision},
            curves=curves,
            folder=out / "samples",
            folder_name="samples",
        )
    )


def train_vae(
    config: BackboneTrainConfig, pool: Pool, held_out: Pool, out: Path
) -> AutoencoderKLHunyuanVideo15:
    """Train the VAE, or go on with the one in `out`; a finished one is only loaded.

    Raises:
        ArtifactError: the one in `out` was trained with other settings.
    """
    torch.manual_seed(config.seed)
    vae = build_vae(config)
    trainer = VaeTrainer(vae, config, pool)
    checkpoint, scored = out / "vae.safetensors", out / "vae-score.json"
    if load_snapshot(checkpoint, trainer.state):
        _log.info("VAE: going on at step %d", trainer.progress.step)
    if trainer.progress.is_done and scored.is_file():
        _log.info("VAE: done before, %s", scored.read_text(encoding="utf-8").strip())
        return vae.requires_grad_(False)
    scored.unlink(missing_ok=True)
    _fit_vae(trainer, config, checkpoint)
    save_snapshot(checkpoint, trainer.state)
    vae.requires_grad_(False)
    score = score_vae(vae, held_out)
    save_reconstructions(out / "samples" / "vae.png", vae, held_out)
    scored.write_text(json.dumps(asdict(score)) + "\n", encoding="utf-8")
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
                _log.info(
                    "VAE: step %d, %.0f %%, PSNR %.2f dB, ETA %.1f min",
                    progress.step,
                    100 * progress.share,
                    float(np.mean(values)),
                    progress.minutes_left,
                )
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
        on_chunk=Countdown("latents", config.log_seconds, _log.info),
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
    origin: str,
    before: Path | None = None,
) -> None:
    """Train the transformer of `parts` and leave its averaged weights in it.

    Args:
        config: how.
        parts: of the backbone.
        samples: what it learns from.
        out: gets checkpoint, curve and sample sheets.
        origin: names the weights it starts from.
        before: a curve that this one goes on from.
    """
    trainer = TransformerTrainer(
        parts.transformer, config, origin=f"{origin}, VAE {_weights_hash(parts.vae)[:16]}"
    )
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
    if curve.has_pending:
        _log_training(trainer.progress, curve.flush(trainer.progress.seconds))
    save_snapshot(checkpoint, trainer.state)
    parts.transformer.load_state_dict(trainer.average.state_dict())


def _log_training(progress: Pace, point: Point) -> None:
    _log.info(
        "transformer: step %d, %.1f %%, loss %s, %.2f s a step, ETA %.1f min",
        progress.step,
        100 * progress.share,
        ", ".join(f"{kind} {loss:.4f}" for kind, loss in point.losses.items()),
        progress.seconds / progress.step,
        progress.minutes_left,
    )


def _save_samples(
    path: Path, config: BackboneTrainConfig, parts: Components, transformer: torch.nn.Module
) -> None:
    save_samples(
        path, parts, transformer, size=config.size, num_frames=config.num_frames, seed=config.seed
    )


def export(parts: Components, folder: Path, *, curve: Path) -> None:
    """Write the folder aside, with the curve that led there, and put it in the old one's place.

    Files at its top that a training does not write, such as a model card, stay.
    """
    aside, old = (folder.with_name(f".{folder.name}.{what}") for what in ("new", "old"))
    for left in (aside, old):
        shutil.rmtree(left, ignore_errors=True)
    save_folder(parts, aside, flow_shift=FLOW_SHIFT)
    shutil.copy(curve, aside / CURVE_NAME)
    if folder.exists():
        for path in folder.iterdir():
            if path.is_file() and not (aside / path.name).exists():
                shutil.copy(path, aside / path.name)
        folder.rename(old)
    aside.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    _log.info("exported %s, %.1f MB", folder, size / 1e6)
