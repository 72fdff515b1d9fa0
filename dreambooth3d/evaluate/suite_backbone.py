"""What a backbone can do without adapters: follow text, turn things, move.

Each number is read by the probe from generated clips and, beside it, from real renders of the same
scenes, all of held-out subjects: the real number says how far the probe can be trusted.
"""

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dreambooth3d.evaluate.config import BackboneSuiteConfig
from dreambooth3d.evaluate.probe import Probe, Reading, read_clips, read_frames, subject_masks
from dreambooth3d.evaluate.sampling import Prompt, sample_clips
from dreambooth3d.evaluate.suite_report import ClipRow, write_suite_report
from dreambooth3d.evaluate.suite_scenes import caption, choose_scenes, render_all
from dreambooth3d.evaluate.suite_scores import BackboneScore, Follow, Turn
from dreambooth3d.model.backbone import Backbone
from dreambooth3d.model.codec import to_frames, to_pixels
from dreambooth3d.scenes import Scene

Clips = NDArray[np.uint8]
_REPORT_EVERY = 5


def run(
    config: BackboneSuiteConfig,
    backbone: Backbone,
    probe: Probe,
    out: Path,
    *,
    report: Callable[[str], None] = print,
) -> BackboneScore:
    """Measure a backbone; write `index.html`, `report.json` and a contact sheet into `out`."""
    num_frames = config.num_frames or backbone.card.num_frames
    scenes = choose_scenes(config, num_frames=num_frames)
    size = backbone.card.height
    report(f"suite backbone: seed {config.seed}, {len(scenes.known)} + {len(scenes.unseen)} "
           f"prompts, {len(scenes.turning)} turntables, {num_frames} frames")  # fmt: skip
    sets = (scenes.known, scenes.unseen, scenes.turning)
    real = [render_all(part, size=size) for part in sets]
    pace = _SamplingProgress(sum(map(len, sets)) * config.steps, config.steps, report)
    made = [_generate(backbone, part, config, num_frames, pace) for part in sets]
    report("suite backbone: reading the clips")
    readings = [
        (read_clips(probe, a), read_clips(probe, b)) for a, b in zip(real, made, strict=True)
    ]
    known, unseen, turning = readings
    score = BackboneScore(
        real=follow(scenes.known, known[0]),
        generated=follow(scenes.known, known[1]),
        unseen_real=follow(scenes.unseen, unseen[0]),
        unseen_generated=follow(scenes.unseen, unseen[1]),
        turn_real=turn(probe, real[2], follow(scenes.turning, turning[0])),
        turn_generated=turn(probe, made[2], follow(scenes.turning, turning[1])),
        change_real=mean_change(real[0]),
        change_generated=mean_change(made[0]),
        vae_psnr=codec_psnr(backbone, real[0]),
    )
    rows = [
        ClipRow(prompt=caption(scene), real=real_reading, generated=generated_reading)
        for scene, real_reading, generated_reading in zip(scenes.known, *known, strict=True)
    ]
    page = write_suite_report(out, config, score, rows, real[0], made[0], backbone.card.revision)
    report(f"suite backbone: {page}")
    return score


def _generate(
    backbone: Backbone,
    scenes: Sequence[Scene],
    config: BackboneSuiteConfig,
    num_frames: int,
    pace: "_SamplingProgress",
) -> Clips:
    prompts = [Prompt(text=caption(scene), noise_key=scene.seed) for scene in scenes]
    return sample_clips(backbone, prompts, config, num_frames=num_frames, on_step=pace.advance)


def follow(scenes: Sequence[Scene], readings: Sequence[Reading]) -> Follow:
    """Share of clips read as their scene says."""
    pairs = list(zip(scenes, readings, strict=True))
    return Follow(
        background=_share([read.background == scene.background for scene, read in pairs]),
        color=_share([read.color == scene.subject.color for scene, read in pairs]),
        class_noun=_share([read.class_noun == scene.subject.class_noun for scene, read in pairs]),
        motion=_share([read.motion == scene.motion for scene, read in pairs]),
    )


def turn(probe: Probe, clips_NFHWC: Clips, read: Follow) -> Turn:
    """How turntable clips keep class and colour, turn, and how their silhouette changes."""
    first = read_frames(probe, clips_NFHWC[:, 0])
    last = read_frames(probe, clips_NFHWC[:, -1])
    pairs = list(zip(first, last, strict=True))
    return Turn(
        class_agreement=_share([a.class_noun == b.class_noun for a, b in pairs]),
        color_agreement=_share([a.color == b.color for a, b in pairs]),
        agreement=_share([a.class_noun == b.class_noun and a.color == b.color for a, b in pairs]),
        motion=read.motion,
        silhouette_iou=mean_silhouette_iou(probe, clips_NFHWC),
    )


def mean_silhouette_iou(probe: Probe, clips_NFHWC: Clips) -> float:
    """Mean overlap of the subject's masks in neighbouring frames, 0..1.

    A pair of frames in which the probe finds no subject counts 0: vanishing is no likeness.
    """
    num_clips, num_frames = clips_NFHWC.shape[:2]
    flat = subject_masks(probe, clips_NFHWC.reshape(-1, *clips_NFHWC.shape[2:]))
    masks = flat.reshape(num_clips, num_frames, *flat.shape[1:])
    both = (masks[:, 1:] & masks[:, :-1]).sum(axis=(2, 3))
    either = (masks[:, 1:] | masks[:, :-1]).sum(axis=(2, 3))
    return float((both / np.maximum(either, 1)).mean())


def mean_change(clips_NFHWC: Clips) -> float:
    """Mean absolute difference of neighbouring frames, in grey levels 0..255."""
    return float(np.mean([np.abs(np.diff(clip.astype(np.int16), axis=0)).mean()
                          for clip in clips_NFHWC]))  # fmt: skip


def codec_psnr(backbone: Backbone, clips_NFHWC: Clips) -> float:
    """PSNR in dB of clips through the VAE and back, as 8-bit frames, mean over clips."""
    values = []
    for clip in clips_NFHWC:
        (back,) = to_frames(backbone.codec.decode(backbone.codec.encode(to_pixels(clip[None]))))
        error = np.square(back.astype(np.float64) - clip).mean()
        values.append(10 * math.log10(255**2 / max(error, 1e-6)))
    return float(np.mean(values))


def _share(found: Sequence[bool]) -> float:
    return float(np.mean(found))


class _SamplingProgress:
    """Reports sampling with the time that is left."""

    def __init__(self, total: int, num_steps: int, report: Callable[[str], None]) -> None:
        self._total, self._num_steps, self._report = total, num_steps, report
        self._done, self._calls, self._started = 0, 0, time.monotonic()

    def advance(self, num_clips: int) -> None:
        """Count one step of `num_clips` clips."""
        self._done += num_clips
        self._calls += 1
        if self._calls % _REPORT_EVERY and self._done < self._total:
            return
        left = (time.monotonic() - self._started) / self._done * (self._total - self._done)
        self._report(
            f"suite backbone: {self._done / self._num_steps:.1f} of "
            f"{self._total // self._num_steps} clips sampled, eta {left:.0f} s"
        )
