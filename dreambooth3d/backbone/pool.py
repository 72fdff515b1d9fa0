"""A cached pool of rendered scenes on disk, read through memory maps.

A pool is a folder of chunks. A chunk is `<kind>-<index>.npy`, (N, F, H, W, 3) uint8, beside a JSON
file with the captions of every scene; the JSON file is written last and marks the chunk as whole.
"""

import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dreambooth3d.backbone.config import BackboneTrainConfig
from dreambooth3d.scenes import (
    FIRST_HELD_OUT_SEED,
    Camera,
    describe,
    make_scene,
    make_subject,
    render_scene,
)
from dreambooth3d.scenes import render_view as render_on_white

Kind = Literal["clip", "image", "reference"]
KINDS: tuple[Kind, ...] = ("clip", "image", "reference")
Pixels = NDArray[np.uint8]

# Every kind has its own range of scene seeds, all below the held-out ones.
_FIRST_SEED: dict[Kind, int] = {"clip": 0, "image": 300_000, "reference": 700_000}
_NAMED_SHARE = 0.8
_WHITE_PLACES = ("on a white background", "on white", "in front of a white background")


@dataclass(frozen=True, kw_only=True)
class ChunkSpec:
    """What one chunk holds; everything needed to render it in another process."""

    kind: Kind
    index: int
    num_scenes: int
    first_seed: int
    num_frames: int
    size: int
    num_captions: int

    @property
    def name(self) -> str:
        """File name without suffix."""
        return f"{self.kind}-{self.index:04d}"


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """A rendered chunk: `pixels` (N, F, H, W, 3) is a memory map, `captions` has N tuples."""

    kind: Kind
    name: str
    pixels: Pixels
    captions: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, kw_only=True)
class Pool:
    """All chunks of a pool, in order."""

    chunks: tuple[Chunk, ...]

    def of_kind(self, kind: Kind) -> tuple[Chunk, ...]:
        """Chunks that hold one kind of scene."""
        return tuple(chunk for chunk in self.chunks if chunk.kind == kind)

    def captions(self) -> Iterator[str]:
        """Every caption of every scene."""
        for chunk in self.chunks:
            for variants in chunk.captions:
                yield from variants


def training_specs(config: BackboneTrainConfig) -> list[ChunkSpec]:
    """Plan the chunks of the training pool."""
    counts = {
        "clip": config.num_clips,
        "image": config.num_images,
        "reference": config.num_references,
    }
    return [
        spec for kind in KINDS for spec in _specs(config, kind, counts[kind], _FIRST_SEED[kind])
    ]


def held_out_specs(config: BackboneTrainConfig) -> list[ChunkSpec]:
    """Plan a small pool of subjects that training never sees."""
    return [
        spec
        for kind in KINDS
        for spec in _specs(
            config, kind, config.num_held_out, FIRST_HELD_OUT_SEED + _FIRST_SEED[kind]
        )
    ]


def _specs(config: BackboneTrainConfig, kind: Kind, count: int, first_seed: int) -> list[ChunkSpec]:
    return [
        ChunkSpec(
            kind=kind,
            index=index,
            num_scenes=min(config.chunk, count - start),
            first_seed=first_seed + start,
            num_frames=config.num_frames if kind == "clip" else 1,
            size=config.size,
            num_captions=config.num_captions,
        )
        for index, start in enumerate(range(0, count, config.chunk))
    ]


def ensure_pool(specs: Sequence[ChunkSpec], folder: Path, *, workers: int) -> Pool:
    """Render the chunks that are not there yet, then open all of them."""
    folder.mkdir(parents=True, exist_ok=True)
    missing = [spec for spec in specs if not _is_whole(spec, folder)]
    if workers > 1 and len(missing) > 1:
        context = get_context("spawn")
        with ProcessPoolExecutor(workers, mp_context=context) as executor:
            list(executor.map(render_chunk, missing, [folder] * len(missing)))
    else:
        for spec in missing:
            render_chunk(spec, folder)
    return Pool(chunks=tuple(_open_chunk(spec, folder) for spec in specs))


def render_chunk(spec: ChunkSpec, folder: Path) -> None:
    """Render one chunk and publish it: pixels first, captions last."""
    shape = (spec.num_scenes, spec.num_frames, spec.size, spec.size, 3)
    pixels = np.empty(shape, np.uint8)
    captions = []
    for row in range(spec.num_scenes):
        pixels[row], variants = render_sample(spec, spec.first_seed + row)
        captions.append(variants)
    aside = folder / f".{spec.name}.{os.getpid()}.npy"
    np.save(aside, pixels)
    aside.replace(folder / f"{spec.name}.npy")
    content = json.dumps({"spec": _fingerprint(spec), "captions": captions})
    aside = folder / f".{spec.name}.{os.getpid()}.json"
    aside.write_text(content, encoding="utf-8")
    aside.replace(folder / f"{spec.name}.json")


def render_sample(spec: ChunkSpec, seed: int) -> tuple[Pixels, list[str]]:
    """Render the scene of one seed, (F, H, W, 3), and draw its captions."""
    rng = np.random.default_rng(seed)
    subject = make_subject(seed)
    if spec.kind == "reference":
        camera = Camera(
            azimuth_deg=float(rng.uniform(0, 360)), elevation_deg=float(rng.uniform(0, 30))
        )
        frame = render_on_white(subject, camera, size=spec.size)
        words = (subject.color, subject.pattern, subject.class_noun)
        return frame.rgb[None], [_describe_on_white(words, rng) for _ in range(spec.num_captions)]
    scene = make_scene(subject, seed, num_frames=spec.num_frames)
    clip, _ = render_scene(scene, size=spec.size)
    captions = [
        describe(scene, rng=rng, is_named=bool(rng.random() < _NAMED_SHARE))
        for _ in range(spec.num_captions)
    ]
    return clip, captions


def _describe_on_white(words: tuple[str, str, str], rng: np.random.Generator) -> str:
    color, pattern, noun = words
    named = [color, *([] if pattern == "plain" else [pattern]), noun]
    what = " ".join(named) if rng.random() < _NAMED_SHARE else noun
    article = "an" if what[0] in "aeiou" else "a"
    return f"a photo of {article} {what} {_WHITE_PLACES[int(rng.integers(len(_WHITE_PLACES)))]}"


def _fingerprint(spec: ChunkSpec) -> dict[str, int | str]:
    return {name: getattr(spec, name) for name in ChunkSpec.__dataclass_fields__}


def _is_whole(spec: ChunkSpec, folder: Path) -> bool:
    path = folder / f"{spec.name}.json"
    if not path.is_file():
        return False
    return bool(json.loads(path.read_text(encoding="utf-8"))["spec"] == _fingerprint(spec))


def _open_chunk(spec: ChunkSpec, folder: Path) -> Chunk:
    content = json.loads((folder / f"{spec.name}.json").read_text(encoding="utf-8"))
    return Chunk(
        kind=spec.kind,
        name=spec.name,
        pixels=np.load(folder / f"{spec.name}.npy", mmap_mode="r"),
        captions=tuple(tuple(variants) for variants in content["captions"]),
    )
