"""The labelled real renders the probe learns from.

A chunk holds pixels, (N, F, H, W, 3) uint8, masks, (N, F, H/2, W/2) uint8: how many of 2x2 pixels
show the subject, and the labels of every scene.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import numpy as np
from numpy.typing import NDArray

from dreambooth3d.artifacts.chunks import ChunkContent, ChunkSpec, ensure_chunks, plan_chunks
from dreambooth3d.evaluate.config import ProbeConfig
from dreambooth3d.scenes import (
    BACKGROUNDS,
    CLASSES,
    COLORS,
    FIRST_HELD_OUT_SEED,
    MOTIONS,
    SEED_RANGES,
    WORLD_REVISION,
    Scene,
    make_scene,
    make_subject,
    render_scene,
)

Kind = Literal["clip", "image"]
KINDS: tuple[Kind, ...] = ("clip", "image")
Bytes = NDArray[np.uint8]
# Columns of the labels.
LABELS = ("class_noun", "color", "background", "motion")
MASK_FULL = 4

_SEEDS: dict[Kind, range] = {
    "clip": SEED_RANGES["probe clips"],
    "image": SEED_RANGES["probe images"],
}


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """A rendered chunk; `pixels` and `masks` are memory maps, `labels` is (N, 4) in `LABELS`."""

    kind: Kind
    pixels: Bytes
    masks: Bytes
    labels: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class ProbePool:
    """All chunks of a pool, in order."""

    chunks: tuple[Chunk, ...]

    def size_of(self, kind: Kind) -> int:
        """Scenes of one kind."""
        return sum(len(chunk.labels) for chunk in self.of_kind(kind))

    def of_kind(self, kind: Kind) -> tuple[Chunk, ...]:
        """Chunks of one kind."""
        return tuple(chunk for chunk in self.chunks if chunk.kind == kind)

    def take(
        self, kind: Kind, rows: NDArray[np.int64], starts: NDArray[np.int64], num_frames: int
    ) -> tuple[Bytes, Bytes, NDArray[np.int64]]:
        """Gather windows of scenes: pixels (N, F, H, W, 3), masks (N, F, H/2, W/2), labels."""
        chunks = self.of_kind(kind)
        places = [divmod(int(row), len(chunks[0].labels)) for row in rows]
        windows = [slice(int(start), int(start) + num_frames) for start in starts]
        pairs = list(zip(places, windows, strict=True))
        return (
            np.stack([chunks[chunk].pixels[row, window] for (chunk, row), window in pairs]),
            np.stack([chunks[chunk].masks[row, window] for (chunk, row), window in pairs]),
            np.stack([chunks[chunk].labels[row] for chunk, row in places]),
        )


def training_specs(config: ProbeConfig) -> list[ChunkSpec]:
    """Plan the chunks of the training pool."""
    counts: dict[Kind, int] = {"clip": config.num_clips, "image": config.num_images}
    return [spec for kind in KINDS for spec in _specs(config, kind, counts[kind], first=0)]


def held_out_specs(config: ProbeConfig) -> list[ChunkSpec]:
    """Plan a small pool of subjects that no training sees."""
    return [
        spec
        for kind in KINDS
        for spec in _specs(config, kind, config.num_held_out, first=FIRST_HELD_OUT_SEED)
    ]


def _specs(config: ProbeConfig, kind: Kind, count: int, *, first: int) -> list[ChunkSpec]:
    return plan_chunks(
        kind,
        count,
        chunk=config.chunk,
        first_seed=first + _SEEDS[kind].start,
        num_frames=config.num_frames if kind == "clip" else 1,
        size=config.size,
        revision=WORLD_REVISION,
    )


def ensure_pool(
    specs: Sequence[ChunkSpec],
    folder: Path,
    *,
    workers: int,
    on_chunk: Callable[[int, int], None] = lambda done, total: None,
) -> ProbePool:
    """Render the chunks that are not there yet, then open all; arguments of `ensure_chunks`."""
    contents = ensure_chunks(specs, folder, render_chunk, workers=workers, on_chunk=on_chunk)
    return ProbePool(
        chunks=tuple(
            Chunk(
                kind=cast(Kind, spec.kind),
                pixels=content.arrays["pixels"],
                masks=content.arrays["masks"],
                labels=np.array(content.notes, np.int64),
            )
            for spec, content in zip(specs, contents, strict=True)
        )
    )


def render_chunk(spec: ChunkSpec) -> ChunkContent:
    """Render the scenes of one chunk, with masks and labels."""
    scenes = [make_scene(make_subject(s), s, num_frames=spec.num_frames) for s in spec.seeds]
    rendered = [render_scene(scene, size=spec.size) for scene in scenes]
    return ChunkContent(
        arrays={
            "pixels": np.stack([pixels for pixels, _ in rendered]),
            "masks": np.stack([count_blocks(mask) for _, mask in rendered]),
        },
        notes=[label(scene) for scene in scenes],
    )


def count_blocks(mask_FHW: NDArray[np.bool_]) -> Bytes:
    """How many of every 2x2 pixels are set, (F, H/2, W/2), 0..4."""
    frames, height, width = mask_FHW.shape
    blocks = mask_FHW.reshape(frames, height // 2, 2, width // 2, 2)
    counts: Bytes = blocks.sum(axis=(2, 4)).astype(np.uint8)
    return counts


def label(scene: Scene) -> tuple[int, int, int, int]:
    """Places of a scene's names, in the order of `LABELS`."""
    return (
        CLASSES.index(scene.subject.class_noun),
        COLORS.index(scene.subject.color),
        BACKGROUNDS.index(scene.background),
        MOTIONS.index(scene.motion),
    )
