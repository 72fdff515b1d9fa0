"""Source `scenes`: the embedded procedural world, with exact masks and cameras."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from PIL import Image

from dreambooth3d.artifacts.jsonfile import JsonValue
from dreambooth3d.artifacts.key import artifact_key
from dreambooth3d.artifacts.settings import require_range
from dreambooth3d.pairs.records import Chunk, RawPair, Record
from dreambooth3d.pairs.sources.chunking import fixed_chunks, whole
from dreambooth3d.scenes import (
    FIRST_HELD_OUT_SEED,
    WORLD_REVISION,
    Camera,
    Scene,
    describe,
    make_scene,
    make_subject,
    render_scene,
    render_view,
)

_REVISION = 1
# Most captions leave colour and pattern to the reference: what text says, no view has to teach.
_NAMED_SHARE = 0.3


@dataclass(frozen=True, kw_only=True)
class ScenesSource:
    """Endless pairs of procedural objects; pair `index` depends on the seed and `index` alone.

    Attributes:
        samples: pairs.
        pairs_per_subject: targets of the same object.
        size: side of the square pictures, in pixels.
        seed: of subjects, cameras and captions.
        records_per_chunk: pairs in a shard.
    """

    samples: int = 1024
    pairs_per_subject: int = 4
    size: int = 64
    seed: int = 0
    records_per_chunk: int = 128

    name = "scenes"
    needs_segmentation = False

    def __post_init__(self) -> None:
        require_range(self, "samples", "pairs_per_subject", "records_per_chunk", least=1)
        require_range(self, "seed", least=0)
        require_range(self, "size", least=32, most=1024)

    def fingerprint(self) -> str:
        """A hash of the settings."""
        return artifact_key(self.name, _REVISION, {**asdict(self), "world": WORLD_REVISION}, ())

    def chunks(self) -> Sequence[Chunk]:
        """Ranges of pair numbers."""
        return fixed_chunks(self.samples, self.records_per_chunk)

    def remarks(self) -> Sequence[str]:
        """Nothing beyond its settings."""
        return ()

    def read(self, chunk: Chunk) -> Iterator[Record]:
        """Render the pairs of a range."""
        first = whole(chunk.payload["first"])
        return (self.render(index) for index in range(first, first + chunk.num_records))

    def render(self, index: int) -> RawPair:
        """Render pair `index`: a view on white, the same object in a scene, its caption."""
        subject = make_subject(_draw(self.seed, "subject", index // self.pairs_per_subject))
        rng = np.random.Generator(np.random.PCG64(_draw(self.seed, "pair", index)))
        camera = Camera(
            azimuth_deg=float(rng.uniform(0, 360)), elevation_deg=float(rng.uniform(5, 25))
        )
        scene = make_scene(subject, _draw(self.seed, "scene", index), num_frames=1)
        frames, masks = render_scene(scene, size=self.size)
        view = render_view(subject, camera, size=self.size)
        return RawPair(
            key=f"{index:08d}",
            reference=Image.fromarray(view.rgb),
            target=Image.fromarray(frames[0]),
            subject=f"scenes-{subject.seed}",
            origin=f"pair {index} of seed {self.seed}",
            caption=describe(scene, rng=rng, is_named=bool(rng.random() < _NAMED_SHARE)),
            class_noun=subject.class_noun,
            reference_mask=view.mask,
            target_mask=masks[0],
            meta={
                "source": self.name,
                "subject": f"scenes-{subject.seed}",
                "class_noun": subject.class_noun,
                "background": scene.background,
                "reference_azimuth_deg": round(camera.azimuth_deg, 3),
                "reference_elevation_deg": round(camera.elevation_deg, 3),
                "mask_share": round(float(masks[0].mean()), 4),
                **_target_camera(scene),
            },
            licence="Apache-2.0",
        )


def _target_camera(scene: Scene) -> dict[str, JsonValue]:
    return {
        "target_azimuth_deg": round(scene.azimuth_deg, 3),
        "target_elevation_deg": round(scene.elevation_deg, 3),
        "target_scale": round(scene.scale, 4),
        "target_center": [round(part, 4) for part in scene.center],
    }


def _draw(seed: int, what: str, index: int) -> int:
    digest = hashlib.sha256(f"{seed}/{what}/{index}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % FIRST_HELD_OUT_SEED
