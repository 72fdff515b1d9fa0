"""Corpora of one seed for the proof of the pairs stage: what is built, and how it is compared."""

import hashlib
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from random import Random

from benchmarks.commands import newest, pipeline_command, run_logged
from benchmarks.malformed_sources import box_glb
from dreambooth3d.pairs.blueprint import draw_blueprint
from dreambooth3d.pairs.config import PairsConfig
from dreambooth3d.pairs.subjects import photograph
from dreambooth3d.scenes import FIRST_HELD_OUT_SEED

LOG = "pairs"
_NUM_OBJECTS = _NUM_MODELS = 4
_NUM_PHOTOS = 6
_PAIRS_AN_OBJECT = 4


@dataclass(frozen=True, kw_only=True)
class PairRun:
    """A corpus of photographs, models and procedural pairs, with every operator at its default.

    Attributes:
        home: folder of the photographs and models.
        seed: of everything.
        samples: procedural pairs.
        shard: pairs in a shard.
    """

    home: Path
    seed: int
    samples: int = 1536
    shard: int = 32

    @property
    def photos(self) -> str:
        """The source of the photographs: objects in places, to be cut out."""
        return f"captures:{self.home / 'photos'}"

    @property
    def sources(self) -> tuple[str, ...]:
        """All sources, as the command takes them."""
        return (self.photos, f"meshes:{self.home / 'models'}", "scenes")

    @property
    def num_parts(self) -> int:
        """Chunks of all sources."""
        config = PairsConfig(
            sources=self.sources, samples=self.samples, samples_per_shard=self.shard,
            pairs_per_subject=_PAIRS_AN_OBJECT,
        )  # fmt: skip
        return sum(len(source.chunks) for source in draw_blueprint(config).sources)

    def photograph(self) -> None:
        """Make the photographs and the models."""
        for number in range(_NUM_OBJECTS):
            seed = FIRST_HELD_OUT_SEED + 500_000 + 10 * self.seed + number
            home = self.home / "photos" / f"o{number}"
            photograph(home, seed, id=f"o{number}", num_images=_NUM_PHOTOS)
            # Clean views would be the references: here they are to be found in the photographs.
            shutil.rmtree(home / "references")
        rng = Random(self.seed)
        (self.home / "models").mkdir()
        for number in range(_NUM_MODELS):
            (self.home / "models" / f"box {number}.glb").write_bytes(box_glb(rng))

    def command(self, out: Path, *, workers: int = 2, sources: tuple[str, ...] = ()) -> list[str]:
        """The command that builds the corpus below `out`."""
        named = sources or self.sources
        return pipeline_command(
            "build_pairs.py", "--out", str(out), "--set", f"seed={self.seed}",
            "--set", f"samples={self.samples}", "--set", f"samples_per_shard={self.shard}",
            "--set", f"workers={workers}", "--set", f"pairs_per_subject={_PAIRS_AN_OBJECT}",
            # Procedural photographs are smooth: some are refused, and that must be the same too.
            "--set", "max_bad_fraction=1.0",
            *(part for source in named for part in ("--source", source)),
        )  # fmt: skip

    def build(self, out: Path, *, workers: int = 2, sources: tuple[str, ...] = ()) -> float:
        """Build it; seconds, the interpreter's start included."""
        began = time.monotonic()
        code = run_logged(self.command(out, workers=workers, sources=sources), log=LOG)
        if code:
            raise ChildProcessError(f"build_pairs ended with {code}; see runs/proof/{LOG}.log")
        return time.monotonic() - began


def digests(out: Path) -> dict[str, str]:
    """The sha256 of every file of the corpus that was published last below `out`, by name."""
    files = sorted(newest(out, "pairs").iterdir())
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def records(out: Path) -> dict[str, tuple[int, int]]:
    """Every part that is there below `out`: when it was written, and as which file."""
    found: dict[str, tuple[int, int]] = {}
    for path in out.glob("pairs/.parts-*/*.record.json"):
        status = path.stat()
        found[f"{path.parent.name}/{path.name}"] = (status.st_ino, status.st_mtime_ns)
    return found
