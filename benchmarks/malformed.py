"""Three hundred inputs, most of them malformed, and what each has to be counted as."""

import io
import json
import tarfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.damaged_pictures import cut, gigapixel, picture
from benchmarks.malformed_sources import (
    NUM_SOURCE_RECORDS,
    write_albums,
    write_models,
    write_table,
)

_NUM_SAMPLES, _SAMPLES_A_TAR = 150, 50
NUM_RECORDS = _NUM_SAMPLES + NUM_SOURCE_RECORDS
# What leaves the folder, or tries to.
EVIL_NAMES = ("../../evil.txt", "/etc/evil.txt", "a/../../evil.txt", "..\\evil.txt")

Changes = dict[str, bytes | None]


def _captionless(text: bytes) -> Changes:
    return {"txt": text, "json": b"{}"}


# What is changed in a good sample, and what that is counted as.
_DAMAGES: tuple[tuple[str, Callable[[Random], Changes]], ...] = (
    ("kept", lambda rng: {}),
    ("unreadable_picture", lambda rng: {"target.jpg": cut(rng)}),
    ("unreadable_picture", lambda rng: {"target.jpg": b""}),
    ("unsupported_picture", lambda rng: {"reference.png": f"<svg>{rng.random()}</svg>".encode()}),
    ("too_many_pixels", lambda rng: {"reference.png": gigapixel(rng)}),
    ("missing_member", lambda rng: {rng.choice(("target.jpg", "reference.png")): None}),
    ("bad_row", lambda rng: {"json": b'{"score": NaN}'}),
    ("bad_row", lambda rng: {"json": b'{"score": '}),
    ("bad_row", lambda rng: {"json": b'["no", "record"]'}),
    ("bad_caption", lambda rng: _captionless(b" \x00\n")),
    ("bad_caption", lambda rng: _captionless(b"nan")),
    ("bad_caption", lambda rng: _captionless(b"\xff\xfe")),
)


def write_malformed(folder: Path, seed: int) -> dict[str, Counter[str]]:
    """Write `NUM_RECORDS` records below `folder`: of every source, how many are to end as what."""
    rng = Random(seed)
    return {
        f"webdataset:{folder / 'tars'}": write_tars(folder / "tars", rng),
        f"subjects200k:{folder / 'table'}": write_table(folder / "table", rng),
        f"captures:{folder / 'photos'}": write_albums(folder / "photos", rng),
        f"meshes:{folder / 'models'}": write_models(folder / "models", rng),
    }


def write_tars(folder: Path, rng: Random) -> Counter[str]:
    """Write samples under hostile names; how many are to end as what."""
    expected: Counter[str] = Counter()
    folder.mkdir(parents=True)
    for first in range(0, _NUM_SAMPLES, _SAMPLES_A_TAR):
        with tarfile.open(folder / f"{first:04d}.tar", "w", format=tarfile.GNU_FORMAT) as tar:
            for number in range(first, first + _SAMPLES_A_TAR):
                reason, damage = _DAMAGES[rng.randrange(len(_DAMAGES))]
                expected[reason] += 1
                key = f"{rng.choice(('s', 'é', '名', 'a b'))}{number:04d}"
                _add_sample(tar, key, _good(key, rng) | damage(rng))
    return expected


def _good(key: str, rng: Random) -> Changes:
    meta = {"subject": f"thing {key}", "class_noun": "thing", "licence": "CC0-1.0"}
    return {
        "json": json.dumps(meta).encode(),
        "reference.png": picture(rng),
        "target.jpg": picture(rng),
        "txt": f"caption of {key}\n".encode(),
    }


def _add_sample(tar: tarfile.TarFile, key: str, members: Changes) -> None:
    for name, data in members.items():
        if data is not None:
            add_member(tar, f"{key}.{name}", data)


def add_member(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    """Add a file under any name."""
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def write_unusable(folder: Path, seed: int) -> dict[str, str]:
    """Sources that cannot be used as a whole: what `--source` gets, and what is to be said."""
    rng = Random(seed)
    folder.mkdir(parents=True)
    write_tars(folder / "broken", rng)
    for name in ("column", "empty", "evil", "text"):
        (folder / name).mkdir()
    pq.write_table(pa.table({"image": [picture(rng)]}), folder / "column" / "a.parquet")
    (folder / "text" / "a.parquet").write_bytes(b"no parquet")
    with tarfile.open(folder / "evil" / "a.tar", "w") as tar:
        for name in EVIL_NAMES:
            add_member(tar, name, b"x")
    return {
        f"webdataset:{folder / 'broken'}": "source webdataset must have at most 25% broken records",
        f"webdataset:{folder / 'evil'}": "source webdataset must have at most 25% broken records",
        f"webdataset:{folder / 'empty'}": "webdataset must hold .tar files",
        f"subjects200k:{folder / 'column'}": "must have the column",
        f"subjects200k:{folder / 'text'}": "source subjects200k must have at most 25% broken",
        f"captures:{folder / 'empty'}": "captures must hold pictures",
        f"meshes:{folder / 'empty'}": "meshes must be GLB, glTF or OBJ files",
        f"captures:{folder / 'absent'}": "captures must hold pictures",
    }
