"""Corpora of one seed for the proof of the pairs stage: what is built, and how it is compared."""

import hashlib
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.commands import newest, pipeline_command, run_logged
from dreambooth3d.pairs.subjects import photograph
from dreambooth3d.scenes import FIRST_HELD_OUT_SEED

LOG = "pairs"
_NUM_OBJECTS = 3
_NUM_PHOTOS = 6
_PAIRS_AN_OBJECT = 4


@dataclass(frozen=True, kw_only=True)
class PairRun:
    """A corpus of photographed objects and procedural pairs.

    Attributes:
        home: folder of the photographs.
        seed: of everything.
        samples: procedural pairs.
        shard: pairs in a shard.
    """

    home: Path
    seed: int
    samples: int = 3072
    shard: int = 64

    @property
    def num_parts(self) -> int:
        """Chunks of both sources."""
        num_pairs = _NUM_OBJECTS * _PAIRS_AN_OBJECT
        return -(-self.samples // self.shard) + -(-num_pairs // self.shard)

    def photograph(self) -> None:
        """Make the photographs."""
        for number in range(_NUM_OBJECTS):
            seed = FIRST_HELD_OUT_SEED + 500_000 + 10 * self.seed + number
            photograph(self.home / f"o{number}", seed, id=f"o{number}", num_images=_NUM_PHOTOS)

    def command(self, out: Path, *, workers: int = 2, sources: tuple[str, ...] = ()) -> list[str]:
        """The command that builds the corpus below `out`."""
        named = sources or (f"captures:{self.home}", "scenes")
        return pipeline_command(
            "build_pairs.py", "--out", str(out), "--set", f"seed={self.seed}",
            "--set", f"samples={self.samples}", "--set", f"samples_per_shard={self.shard}",
            "--set", "segmentation=plain", "--set", "identity=none", "--set", "quality=none",
            "--set", f"workers={workers}",
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
