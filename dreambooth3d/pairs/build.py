"""Pure functions of the pairs stage: pair number i of a corpus, shard number j."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from dreambooth3d.artifacts.pairs import write_shard
from dreambooth3d.artifacts.place import Place
from dreambooth3d.artifacts.shard import Pair, ShardEntry, encode_pair, pack_shard
from dreambooth3d.pairs.config import PairsConfig
from dreambooth3d.scenes import (
    FIRST_HELD_OUT_SEED,
    Camera,
    describe,
    make_scene,
    make_subject,
    render_scene,
    render_view,
)

# Most captions leave colour and pattern to the reference: what text says, no view has to teach.
_NAMED_SHARE = 0.3


def build_pair(config: PairsConfig, index: int) -> Pair:
    """Render pair `index`: a view on white, the same object in a scene, the scene's caption.

    A function of (seed, index) alone, so any worker makes the same bytes.
    """
    subject = make_subject(_draw(config.seed, "subject", index // config.pairs_per_subject))
    rng = np.random.Generator(np.random.PCG64(_draw(config.seed, "pair", index)))
    camera = Camera(azimuth_deg=float(rng.uniform(0, 360)), elevation_deg=float(rng.uniform(5, 25)))
    scene = make_scene(subject, _draw(config.seed, "scene", index), num_frames=1)
    frames, masks = render_scene(scene, size=config.size)
    return Pair(
        key=f"{index:08d}",
        reference=Image.fromarray(render_view(subject, camera, size=config.size).rgb),
        target=Image.fromarray(frames[0]),
        caption=describe(scene, rng=rng, is_named=bool(rng.random() < _NAMED_SHARE)),
        meta={
            "source": config.source,
            "subject": f"scenes-{subject.seed}",
            "class_noun": subject.class_noun,
            "background": scene.background,
            "reference_azimuth_deg": round(camera.azimuth_deg, 3),
            "target_azimuth_deg": round(scene.azimuth_deg, 3),
            "mask_share": round(float(masks[0].mean()), 4),
        },
    )


def build_pairs(config: PairsConfig, shard: int) -> Iterator[Pair]:
    """Render the pairs of one shard, in order."""
    first = shard * config.samples_per_shard
    last = min(config.samples, first + config.samples_per_shard)
    return (build_pair(config, index) for index in range(first, last))


def shard_path(folder: Path, shard: int) -> Path:
    """Name shard `shard`."""
    return folder / f"pairs-{shard:06d}.tar"


def build_shard(config: PairsConfig, folder: Path, shard: int) -> ShardEntry:
    """Write one shard; the file appears whole or not at all."""
    samples = ((pair.key, encode_pair(pair)) for pair in build_pairs(config, shard))
    packed = pack_shard(shard_path(folder, shard).name, samples, source=config.source)
    return write_shard(Place.parse(str(folder)), packed)


def _draw(seed: int, what: str, index: int) -> int:
    digest = hashlib.sha256(f"{seed}/{what}/{index}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % FIRST_HELD_OUT_SEED
