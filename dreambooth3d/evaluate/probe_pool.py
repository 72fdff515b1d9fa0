"""A cached pool of labelled real renders on disk, from which the probe learns.

A pool is a folder of chunks. A chunk is `<kind>-<index>.npy`, (N, F, H, W, 3) uint8, the masks
`<kind>-<index>.mask.npy`, (N, F, H/2, W/2) uint8: how many of 2x2 pixels show the subject, and a
JSON file with the labels; the JSON file is written last and marks the chunk as whole.
"""

import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dreambooth3d.evaluate.config import ProbeConfig
from dreambooth3d.scenes import (
    BACKGROUNDS,
    CLASSES,
    COLORS,
    FIRST_HELD_OUT_SEED,
    MOTIONS,
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

# Ranges of their own among the seeds that may be trained on, and held-out ones that no suite uses.
_FIRST_SEED: dict[Kind, int] = {"clip": 800_000, "image": 850_000}


@dataclass(frozen=True, kw_only=True)
class ChunkSpec:
    """What one chunk holds; everything needed to render it in another process."""

    kind: Kind
    index: int
    num_scenes: int
    first_seed: int
    num_frames: int
    size: int

    @property
    def name(self) -> str:
        """File name without suffix."""
        return f"{self.kind}-{self.index:04d}"


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
    return [
        ChunkSpec(
            kind=kind,
            index=index,
            num_scenes=min(config.chunk, count - start),
            first_seed=first + _FIRST_SEED[kind] + start,
            num_frames=config.num_frames if kind == "clip" else 1,
            size=config.size,
        )
        for index, start in enumerate(range(0, count, config.chunk))
    ]


def ensure_pool(
    specs: Sequence[ChunkSpec],
    folder: Path,
    *,
    workers: int,
    on_chunk: Callable[[int, int], None] = lambda done, total: None,
) -> ProbePool:
    """Render the chunks that are not there yet, then open all of them.

    Args:
        specs: the chunks.
        folder: where they are.
        workers: processes that render.
        on_chunk: told (chunks rendered, chunks that were missing) after each.
    """
    folder.mkdir(parents=True, exist_ok=True)
    missing = [spec for spec in specs if not _is_whole(spec, folder)]
    if workers > 1 and len(missing) > 1:
        context = get_context("spawn")
        with ProcessPoolExecutor(workers, mp_context=context) as executor:
            rendered = executor.map(render_chunk, missing, [folder] * len(missing))
            for done, _ in enumerate(rendered, start=1):
                on_chunk(done, len(missing))
    else:
        for done, spec in enumerate(missing, start=1):
            render_chunk(spec, folder)
            on_chunk(done, len(missing))
    return ProbePool(chunks=tuple(_open_chunk(spec, folder) for spec in specs))


def render_chunk(spec: ChunkSpec, folder: Path) -> None:
    """Render one chunk and publish it: pixels and masks first, labels last."""
    shape = (spec.num_scenes, spec.num_frames, spec.size, spec.size)
    pixels = np.empty((*shape, 3), np.uint8)
    masks = np.empty((*shape[:2], spec.size // 2, spec.size // 2), np.uint8)
    labels = []
    for row in range(spec.num_scenes):
        seed = spec.first_seed + row
        scene = make_scene(make_subject(seed), seed, num_frames=spec.num_frames)
        pixels[row], mask = render_scene(scene, size=spec.size)
        masks[row] = count_blocks(mask)
        labels.append(label(scene))
    for name, content in ((f"{spec.name}.npy", pixels), (f"{spec.name}.mask.npy", masks)):
        aside = folder / f".{os.getpid()}.{name}"
        np.save(aside, content)
        aside.replace(folder / name)
    aside = folder / f".{os.getpid()}.{spec.name}.json"
    aside.write_text(json.dumps({"spec": asdict(spec), "labels": labels}), encoding="utf-8")
    aside.replace(folder / f"{spec.name}.json")


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


def _is_whole(spec: ChunkSpec, folder: Path) -> bool:
    path = folder / f"{spec.name}.json"
    if not path.is_file():
        return False
    return bool(json.loads(path.read_text(encoding="utf-8"))["spec"] == asdict(spec))


def _open_chunk(spec: ChunkSpec, folder: Path) -> Chunk:
    content = json.loads((folder / f"{spec.name}.json").read_text(encoding="utf-8"))
    return Chunk(
        kind=spec.kind,
        pixels=np.load(folder / f"{spec.name}.npy", mmap_mode="r"),
        masks=np.load(folder / f"{spec.name}.mask.npy", mmap_mode="r"),
        labels=np.array(content["labels"], np.int64),
    )
