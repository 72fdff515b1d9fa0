"""The engine in process: cancel, the same clip beside strangers, what batching gains."""

import gc
import statistics
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch

from benchmarks.commands import scratch_folder
from benchmarks.serve_subjects import add_subjects
from dreambooth3d.generate.generate import (
    ClipRequest,
    LoadedSubject,
    generate_batch,
    load_subject,
)
from dreambooth3d.model.backbone import Backbone, load_backbone

NUM_SUBJECTS, NUM_PREVIEWS, MAX_BATCH = 8, 32, 16
_STEPS, _PREVIEW_FRAMES, _CLIP_FRAMES = 20, 1, 9
_REPEATS = 3


@cache
def proof_backbone() -> Backbone:
    """The tiny backbone, on one thread."""
    torch.set_num_threads(1)
    return load_backbone("tiny")


def subject_folders(runs: Path, seed: int) -> list[Path]:
    """Adapters of eight subjects."""
    names = add_subjects(runs, NUM_SUBJECTS, seed=seed, backbone=proof_backbone())
    return [runs / "personalize" / "proof" / "adapters" / name for name in names]


def preview_request(
    subject: LoadedSubject, seed: int, *, num_frames: int, steps: int
) -> ClipRequest:
    """A clip of the backbone's usual size."""
    card = proof_backbone().card
    return ClipRequest(
        prompt="a video of a [sks mug] on a desk",
        subject=subject,
        num_frames=num_frames,
        width=card.width,
        height=card.height,
        flow_shift=card.flow_shift,
        seed=seed,
        num_steps=steps,
    )


def worst_difference(seed: int) -> float:
    """Largest change of a pixel value (0 to 1) of a clip beside three strangers, eight clips.

    Read before pixels become whole numbers, where the smallest change is already 1/255.
    """
    worst = 0.0
    with scratch_folder() as runs:
        subjects = [
            load_subject(folder, proof_backbone()) for folder in subject_folders(runs, seed)
        ]
    for turn in range(NUM_SUBJECTS):
        picked = [subjects[(turn + i) % NUM_SUBJECTS] for i in range(4)]
        rows = [
            preview_request(s, 100 * seed + 10 * turn + i, num_frames=5, steps=8)
            for i, s in enumerate(picked)
        ]
        alone, beside = _first_pixels(rows[:1]), _first_pixels(rows)
        worst = max(worst, float((alone - beside).abs().max()))
    return worst


def _first_pixels(rows: Sequence[ClipRequest]) -> torch.Tensor:
    """Pixels (0 to 1) of the first clip of a batch, as the decoder gives them."""
    decoded: list[torch.Tensor] = []
    decoder = proof_backbone().codec.vae.decoder
    hook = decoder.register_forward_hook(lambda _module, _args, found: decoded.append(found))
    try:
        generate_batch(proof_backbone(), rows)
    finally:
        hook.remove()
    return (decoded[0].float() + 1) / 2


def batching_gain(seed: int) -> float:
    """Median of `batching_gains`."""
    return statistics.median(batching_gains(seed))


def batching_gains(seed: int) -> list[float]:
    """Time of 32 previews of 8 subjects one at a time, an adapter swapped in each, over batched.

    One at a time is what peers do: the adapter of the request is read and put beside the backbone,
    the clip made, the adapter let go. Both in one process, warm, in turn, three times.
    """
    ratios = []
    with scratch_folder() as runs:
        folders = subject_folders(runs, seed)
        _one_at_a_time(folders, 2)
        for _ in range(_REPEATS):
            alone = _one_at_a_time(folders, NUM_PREVIEWS)
            ratios.append(alone / _batched(folders, NUM_PREVIEWS))
    return ratios


def _one_at_a_time(folders: Sequence[Path], num_clips: int) -> float:
    started = time.perf_counter()
    for number in range(num_clips):
        subject = load_subject(folders[number % len(folders)], proof_backbone())
        row = preview_request(subject, number, num_frames=_PREVIEW_FRAMES, steps=_STEPS)
        generate_batch(proof_backbone(), [row])
        del subject, row
        gc.collect()
    return time.perf_counter() - started


def _batched(folders: Sequence[Path], num_clips: int) -> float:
    started = time.perf_counter()
    subjects = [load_subject(folder, proof_backbone()) for folder in folders]
    rows = [
        preview_request(subjects[n % len(subjects)], n, num_frames=_PREVIEW_FRAMES, steps=_STEPS)
        for n in range(num_clips)
    ]
    for start in range(0, num_clips, MAX_BATCH):
        generate_batch(proof_backbone(), rows[start : start + MAX_BATCH])
    return time.perf_counter() - started


def seconds_a_clip(
    subjects: Sequence[LoadedSubject], batch: int, num_frames: int, *, steps: int, seed: int
) -> float:
    """Seconds for each clip of one mixed batch."""
    rows = [
        preview_request(subjects[n % len(subjects)], seed + n, num_frames=num_frames, steps=steps)
        for n in range(batch)
    ]
    started = time.perf_counter()
    generate_batch(proof_backbone(), rows)
    return (time.perf_counter() - started) / batch


def clips_per_hour(seed: int, num_adapters: int) -> float:
    """Clips of 9 frames and 20 steps in an hour of one process, batches of 8, mixed adapters."""
    with scratch_folder() as runs:
        folders = subject_folders(runs, seed)[:num_adapters]
        subjects = [load_subject(folder, proof_backbone()) for folder in folders]
    spent = seconds_a_clip(subjects, NUM_SUBJECTS, _CLIP_FRAMES, steps=_STEPS, seed=0)
    return 3600 / spent
