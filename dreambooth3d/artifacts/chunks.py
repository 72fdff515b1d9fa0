"""A cache of rendered arrays on disk, read through memory maps.

A chunk is some arrays `<kind>-<index>.<array>.npy`, their first axis the scenes, beside
`<kind>-<index>.json` with a note on every scene; the JSON file is written last and marks the chunk
as whole. What a chunk holds follows from its `ChunkSpec` alone, so any process can render it.
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class ChunkSpec:
    """What one chunk holds; everything needed to render it in another process.

    Attributes:
        kind: of its scenes; part of its name.
        index: among the chunks of its kind.
        num_scenes: in this chunk.
        first_seed: of the first scene; the others follow it.
        num_frames: of every scene.
        size: side of a frame, pixels.
        num_captions: drawn for each scene, where its notes are captions.
        revision: of what renders it: another one renders again.
    """

    kind: str
    index: int
    num_scenes: int
    first_seed: int
    num_frames: int
    size: int
    num_captions: int = 0
    revision: int = 0

    @property
    def name(self) -> str:
        """File name without suffix."""
        return f"{self.kind}-{self.index:04d}"

    @property
    def digest(self) -> str:
        """16 hex digits that change when what the chunk holds changes."""
        return hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()[:16]

    @property
    def seeds(self) -> range:
        """Seeds of the scenes, in order."""
        return range(self.first_seed, self.first_seed + self.num_scenes)


@dataclass(frozen=True, kw_only=True)
class ChunkContent:
    """A chunk in memory or, once opened from disk, its memory maps.

    Attributes:
        arrays: by name; the first axis is the scenes.
        notes: one JSON value a scene.
    """

    arrays: Mapping[str, NDArray[Any]]
    notes: Sequence[Any]


Render = Callable[[ChunkSpec], ChunkContent]


def plan_chunks(
    kind: str,
    count: int,
    *,
    chunk: int,
    first_seed: int,
    num_frames: int,
    size: int,
    num_captions: int = 0,
    revision: int = 0,
) -> list[ChunkSpec]:
    """Divide `count` scenes with seeds from `first_seed` on into chunks of at most `chunk`."""
    return [
        ChunkSpec(
            kind=kind,
            index=index,
            num_scenes=min(chunk, count - start),
            first_seed=first_seed + start,
            num_frames=num_frames,
            size=size,
            num_captions=num_captions,
            revision=revision,
        )
        for index, start in enumerate(range(0, count, chunk))
    ]


def ensure_chunks(
    specs: Sequence[ChunkSpec],
    folder: Path,
    render: Render,
    *,
    workers: int,
    on_chunk: Callable[[int, int], None] = lambda done, total: None,
) -> list[ChunkContent]:
    """Render the chunks that are not there yet, then open all of them.

    Args:
        specs: the chunks, in the order they are returned.
        folder: where they are.
        render: a function of a module, so that other processes can be sent it.
        workers: processes that render.
        on_chunk: told (chunks rendered, chunks that were missing) after each.
    """
    folder.mkdir(parents=True, exist_ok=True)
    missing = [spec for spec in specs if not _is_whole(spec, folder)]
    if workers > 1 and len(missing) > 1:
        context = get_context("spawn")
        rows = ([folder] * len(missing), [render] * len(missing))
        with ProcessPoolExecutor(workers, mp_context=context) as executor:
            for done, _ in enumerate(executor.map(_write, missing, *rows), start=1):
                on_chunk(done, len(missing))
    else:
        for done, spec in enumerate(missing, start=1):
            _write(spec, folder, render)
            on_chunk(done, len(missing))
    return [_open(spec, folder) for spec in specs]


def _write(spec: ChunkSpec, folder: Path, render: Render) -> None:
    content = render(spec)
    # From here until the new one stands, there is no chunk: never new arrays under an old note.
    (folder / f"{spec.name}.json").unlink(missing_ok=True)
    for array, values in sorted(content.arrays.items()):
        aside = folder / f".{spec.name}.{array}.{os.getpid()}.npy"
        np.save(aside, values)
        aside.replace(folder / f"{spec.name}.{array}.npy")
    text = json.dumps(
        {"spec": asdict(spec), "arrays": sorted(content.arrays), "notes": list(content.notes)}
    )
    aside = folder / f".{spec.name}.{os.getpid()}.json"
    aside.write_text(text, encoding="utf-8")
    aside.replace(folder / f"{spec.name}.json")


def _is_whole(spec: ChunkSpec, folder: Path) -> bool:
    """Whether a chunk is there; one that is damaged or of another spec is rendered again."""
    path = folder / f"{spec.name}.json"
    if not path.is_file():
        return False
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        arrays = [folder / f"{spec.name}.{array}.npy" for array in found["arrays"]]
        is_same = found["spec"] == asdict(spec) and len(found["notes"]) == spec.num_scenes
    except (ValueError, KeyError, TypeError):
        return False
    return is_same and all(array.is_file() for array in arrays)


def _open(spec: ChunkSpec, folder: Path) -> ChunkContent:
    found = json.loads((folder / f"{spec.name}.json").read_text(encoding="utf-8"))
    arrays = {
        array: np.load(folder / f"{spec.name}.{array}.npy", mmap_mode="r")
        for array in found["arrays"]
    }
    return ChunkContent(arrays=arrays, notes=found["notes"])
