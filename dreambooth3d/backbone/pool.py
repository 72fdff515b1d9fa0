"""The scenes a backbone learns from: chunks of pixels, (N, F, H, W, 3) uint8, with captions."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import numpy as np
from numpy.typing import NDArray

from dreambooth3d.artifacts.chunks import ChunkContent, ChunkSpec, ensure_chunks, plan_chunks
from dreambooth3d.backbone.config import BackboneTrainConfig
from dreambooth3d.scenes import (
    FIRST_HELD_OUT_SEED,
    SEED_RANGES,
    WORLD_REVISION,
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

_SEEDS: dict[Kind, range] = {
    "clip": SEED_RANGES["backbone clips"],
    "image": SEED_RANGES["backbone images"],
    "reference": SEED_RANGES["backbone references"],
}
_NAMED_SHARE = 0.8
_WHITE_PLACES = ("on a white background", "on white", "in front of a white background")


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """A rendered chunk: `pixels` (N, F, H, W, 3) is a memory map, `captions` has N tuples.

    `name` changes when what it holds changes.
    """

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
        spec for kind in KINDS for spec in _specs(config, kind, counts[kind], _SEEDS[kind].start)
    ]


def held_out_specs(config: BackboneTrainConfig) -> list[ChunkSpec]:
    """Plan a small pool of subjects that training never sees."""
    return [
        spec
        for kind in KINDS
        for spec in _specs(
            config, kind, config.num_held_out, FIRST_HELD_OUT_SEED + _SEEDS[kind].start
        )
    ]


def _specs(config: BackboneTrainConfig, kind: Kind, count: int, first_seed: int) -> list[ChunkSpec]:
    return plan_chunks(
        kind,
        count,
        chunk=config.chunk,
        first_seed=first_seed,
        num_frames=config.num_frames if kind == "clip" else 1,
        size=config.size,
        num_captions=config.num_captions,
        revision=WORLD_REVISION,
    )


def ensure_pool(
    specs: Sequence[ChunkSpec],
    folder: Path,
    *,
    workers: int,
    on_chunk: Callable[[int, int], None] = lambda done, total: None,
) -> Pool:
    """Render the chunks that are not there yet, then open all; arguments of `ensure_chunks`."""
    contents = ensure_chunks(specs, folder, render_chunk, workers=workers, on_chunk=on_chunk)
    return Pool(
        chunks=tuple(
            Chunk(
                kind=cast(Kind, spec.kind),
                name=f"{spec.name}-{spec.digest}",
                pixels=content.arrays["pixels"],
                captions=tuple(tuple(variants) for variants in content.notes),
            )
            for spec, content in zip(specs, contents, strict=True)
        )
    )


def render_chunk(spec: ChunkSpec) -> ChunkContent:
    """Render the scenes of one chunk and draw their captions."""
    samples = [render_sample(spec, seed) for seed in spec.seeds]
    return ChunkContent(
        arrays={"pixels": np.stack([pixels for pixels, _ in samples])},
        notes=[captions for _, captions in samples],
    )


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
