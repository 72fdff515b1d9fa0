"""Train the probe on real renders of subjects that no evaluation uses; goes on after a stop."""

import json
import logging
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from dreambooth3d.artifacts.chunks import ChunkSpec
from dreambooth3d.artifacts.jsonfile import JsonValue, write_json
from dreambooth3d.artifacts.key import exclusive, publish_file
from dreambooth3d.artifacts.settings import versioned_fields
from dreambooth3d.evaluate.config import ProbeConfig
from dreambooth3d.evaluate.probe import (
    Probe,
    Reading,
    load_probe,
    read_clips,
    read_frames,
    save_probe,
    subject_masks,
)
from dreambooth3d.evaluate.probe_batches import ProbeBatch, draw_batch
from dreambooth3d.evaluate.probe_pool import (
    LABELS,
    MASK_FULL,
    Bytes,
    Kind,
    ProbePool,
    ensure_pool,
    held_out_specs,
    training_specs,
)
from dreambooth3d.scenes import BACKGROUNDS, CLASSES, COLORS, MOTIONS
from dreambooth3d.training.muon import MatrixRule, build_optimizers
from dreambooth3d.training.pace import Countdown, Pace, Timer
from dreambooth3d.training.snapshot import Snapshot, load_snapshot, save_snapshot

_log = logging.getLogger(__name__)

_NAMES = dict(zip(LABELS, (CLASSES, COLORS, BACKGROUNDS, MOTIONS), strict=True))
_FRAME_LABELS = LABELS[:3]
_QUICK_CLIPS, _QUICK_IMAGES = 32, 128
_MAX_GRAD_NORM = 5.0
_STEM = "fine.0.0."
# A longer training of the same thing may go on from a shorter one.
_MAY_CHANGE = ("steps", "minutes")


@dataclass(frozen=True, kw_only=True)
class ProbeScore:
    """Accuracies 0..1 on held-out subjects.

    Attributes:
        clip: share of clips read rightly, by label.
        frame: share of single frames read rightly, by label.
        turn_agreement: turntable clips whose first and last frame agree in class and colour.
        mask_iou: mean overlap of the coarse mask with the rendered one, over single frames.
    """

    clip: dict[str, float]
    frame: dict[str, float]
    turn_agreement: float
    mask_iou: float


def train_probe(config: ProbeConfig, out: Path, *, weights: Path) -> ProbeScore:
    """Train and export a probe; running again goes on where the last run stopped.

    Args:
        config: what to train.
        out: pools and checkpoint; may be deleted after the export.
        weights: the safetensors file; its accuracies go beside it as JSON.
    """
    torch.set_num_threads(config.workers)
    with exclusive(out, "probe"):
        pool = _render(config, training_specs(config), out / "pool")
        held_out = _render(config, held_out_specs(config), out / "held-out")
        trainer = ProbeTrainer(config, pool)
        checkpoint = out / "checkpoint.safetensors"
        if load_snapshot(checkpoint, trainer.state):
            _log.info("probe: going on at step %d", trainer.progress.step)
        _fit(trainer, held_out, checkpoint)
        save_snapshot(checkpoint, trainer.state)
        # Scored as they will be read, before they take another's place.
        exported = out / weights.name
        save_probe(trainer.probe, exported)
        score = score_probe(load_probe(exported), held_out)
        return _publish(config, trainer, score, exported, weights)


def _publish(
    config: ProbeConfig, trainer: "ProbeTrainer", score: ProbeScore, exported: Path, weights: Path
) -> ProbeScore:
    """Put scored weights in their place, with their accuracies beside them."""
    if exported != weights:
        with publish_file(weights) as aside:
            shutil.copy(exported, aside)
    record: dict[str, JsonValue] = {
        "steps": trainer.progress.step,
        "minutes": round(trainer.progress.seconds / 60, 2),
    }
    write_json(
        weights.with_suffix(".json"),
        {"settings": versioned_fields(config), "training": record, "held_out": asdict(score)},
    )
    size = weights.stat().st_size / 1e6
    _log.info("probe: %s, %.2f MB, held-out %s", weights, size, json.dumps(asdict(score)))
    return score


def _render(config: ProbeConfig, specs: Sequence[ChunkSpec], folder: Path) -> ProbePool:
    return ensure_pool(
        specs,
        folder,
        workers=config.workers,
        on_chunk=Countdown(folder.name, config.log_seconds, _log.info),
    )


def _fit(trainer: "ProbeTrainer", held_out: ProbePool, checkpoint: Path) -> None:
    """Update until the schedule ends, with log lines and checkpoints."""
    config = trainer.config
    log, save = Timer(config.log_seconds), Timer(60 * config.checkpoint_minutes)
    losses: list[float] = []
    while not trainer.progress.is_done:
        losses.append(trainer.update())
        if log.is_due():
            _log_line(trainer, float(np.mean(losses)), held_out)
            losses = []
        if save.is_due():
            save_snapshot(checkpoint, trainer.state)


def _log_line(trainer: "ProbeTrainer", loss: float, held_out: ProbePool) -> None:
    score = score_probe(trainer.probe.eval(), held_out, is_quick=True)
    trainer.probe.train()
    progress = trainer.progress
    read = " ".join(f"{name} {value:.3f}" for name, value in score.clip.items())
    frame = " ".join(f"{name} {value:.3f}" for name, value in score.frame.items())
    _log.info(
        "probe: step %d, %.1f %%, loss %.4f, clips: %s, frames: %s, mask %.3f, %.2f s a step, "
        "ETA %.1f min",
        progress.step,
        100 * progress.share,
        loss,
        read,
        frame,
        score.mask_iou,
        progress.seconds / progress.step,
        progress.minutes_left,
    )


class ProbeTrainer:
    """One probe training.

    Attributes:
        probe: what is trained.
        progress: updates done and the time they took.
    """

    def __init__(self, config: ProbeConfig, pool: ProbePool) -> None:
        self.config, self.pool = config, pool
        torch.manual_seed(config.seed)
        self.probe = Probe().train()
        self.progress = Pace(num_steps=config.steps, minutes=config.minutes)
        self._optimizers = build_optimizers(
            self.probe,
            lr=config.lr,
            muon_lr=config.muon_lr,
            weight_decay=config.weight_decay,
            betas=(0.9, 0.98),
            is_muon=MatrixRule(
                "fine.", "middle.", "coarse.", "mask.", "motion.", excluded=(_STEM, "motion.out")
            ),
        )

    @property
    def state(self) -> Snapshot:
        """What a checkpoint holds."""
        fields = versioned_fields(self.config)
        return Snapshot(
            models={"model": self.probe},
            optimizers=self._optimizers.optimizers,
            settings={name: value for name, value in fields.items() if name not in _MAY_CHANGE},
            progress=self.progress,
        )

    def update(self) -> float:
        """Do one update; returns its loss."""
        started = time.monotonic()
        batch = draw_batch(self.pool, self.config, self.progress.step)
        loss = probe_loss(
            self.probe, batch, window=self.config.window, smoothing=self.config.label_smoothing
        )
        loss.backward()
        rate = self.progress.rate(
            warmup_steps=self.config.warmup_steps, decay_fraction=self.config.decay_fraction
        )
        self._optimizers.step(rate, clip=_MAX_GRAD_NORM)
        self.progress.advance(time.monotonic() - started)
        return float(loss.detach())


def probe_loss(probe: Probe, batch: ProbeBatch, *, window: int, smoothing: float) -> Tensor:
    """Sum of the cross-entropies of all heads and of the mask's, bf16 autocast."""
    num_clip_frames = len(batch.motions_N) * window
    with torch.autocast("cpu", torch.bfloat16):
        logits = probe(batch.pictures_BCHW)
        motions = probe.read_motion(logits.fine_BCHW[:num_clip_frames], window)
    heads = (logits.class_noun, logits.color, logits.background)
    losses = [
        F.cross_entropy(head, labels, label_smoothing=smoothing)
        for head, labels in zip(heads, batch.labels_BL.unbind(dim=1), strict=True)
    ]
    losses.append(F.cross_entropy(motions.float(), batch.motions_N, label_smoothing=smoothing))
    losses.append(F.binary_cross_entropy_with_logits(logits.mask_BHW, batch.masks_BHW))
    return torch.stack(losses).sum()


def score_probe(probe: Probe, held_out: ProbePool, *, is_quick: bool = False) -> ProbeScore:
    """Measure a probe in evaluation mode; `is_quick` looks at the first few scenes only."""
    clips, _, clip_labels = _all(held_out, "clip", _QUICK_CLIPS if is_quick else None)
    images, masks, image_labels = _all(held_out, "image", _QUICK_IMAGES if is_quick else None)
    frames = images[:, 0]
    turns = [i for i, row in enumerate(clip_labels) if MOTIONS[row[3]].startswith("turntable")]
    clip_readings, frame_readings = read_clips(probe, clips), read_frames(probe, frames)
    return ProbeScore(
        clip={name: accuracy(clip_readings, clip_labels, name) for name in LABELS},
        frame={name: accuracy(frame_readings, image_labels, name) for name in _FRAME_LABELS},
        turn_agreement=_agreement(probe, clips[turns]) if turns else 1.0,
        mask_iou=_mask_iou(probe, frames, masks[:, 0]),
    )


def accuracy(readings: list[Reading], labels: np.ndarray, name: str) -> float:
    """Share of readings that name what the label (N, 4) says."""
    truths = [_NAMES[name][place] for place in labels[:, LABELS.index(name)]]
    read = [getattr(reading, name) for reading in readings]
    return float(np.mean([ours == truth for ours, truth in zip(read, truths, strict=True)]))


def _agreement(probe: Probe, clips_NFHWC: Bytes) -> float:
    first = read_frames(probe, clips_NFHWC[:, 0])
    last = read_frames(probe, clips_NFHWC[:, -1])
    return float(
        np.mean(
            [
                a.class_noun == b.class_noun and a.color == b.color
                for a, b in zip(first, last, strict=True)
            ]
        )
    )


def _mask_iou(probe: Probe, frames_BHWC: Bytes, masks_BHW: Bytes) -> float:
    # The probe's masks have 32 cells a side; frames of another size are compared at that grid.
    ours = subject_masks(probe, frames_BHWC)
    side = ours.shape[-1]
    places = np.arange(side) * masks_BHW.shape[-1] // side
    truth = masks_BHW[:, places[:, None], places] >= MASK_FULL / 2
    both = (ours & truth).sum(axis=(1, 2))
    return float(np.mean(both / np.maximum((ours | truth).sum(axis=(1, 2)), 1)))


def _all(pool: ProbePool, kind: Kind, count: int | None) -> tuple[Bytes, Bytes, np.ndarray]:
    chunks = pool.of_kind(kind)
    return (
        np.concatenate([chunk.pixels for chunk in chunks])[:count],
        np.concatenate([chunk.masks for chunk in chunks])[:count],
        np.concatenate([chunk.labels for chunk in chunks])[:count],
    )
