"""Three hundred inputs, most of them malformed, and what each has to be counted as."""

import io
import json
import tarfile
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

NUM_RECORDS = 300
_RECORDS_A_TAR = 100
# What leaves the folder, or tries to.
EVIL_NAMES = ("../../evil.txt", "/etc/evil.txt", "a/../../evil.txt", "..\\evil.txt")

Changes = dict[str, bytes | None]


def picture(rng: Random, side: int = 32) -> bytes:
    """A PNG of coloured cells."""
    cells = np.random.default_rng(rng.getrandbits(32)).integers(0, 200, (8, 8, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(cells).resize((side, side), Image.Resampling.NEAREST).save(buffer, "PNG")
    return buffer.getvalue()


def _cut(rng: Random) -> bytes:
    whole = picture(rng)
    return whole[: rng.randint(64, len(whole) // 2)]


def _gigapixel(rng: Random) -> bytes:
    header = bytearray(picture(rng))
    side = rng.randint(40_000, 60_000)
    header[16:24] = side.to_bytes(4, "big") * 2
    header[29:33] = zlib.crc32(bytes(header[12:29])).to_bytes(4, "big")
    return bytes(header)


def _captionless(text: bytes) -> Changes:
    return {"txt": text, "json": b"{}"}


# What is changed in a good sample, and what that is counted as.
_DAMAGES: tuple[tuple[str, Callable[[Random], Changes]], ...] = (
    ("kept", lambda rng: {}),
    ("unreadable_picture", lambda rng: {"target.jpg": _cut(rng)}),
    ("unreadable_picture", lambda rng: {"target.jpg": b""}),
    ("unsupported_picture", lambda rng: {"reference.png": f"<svg>{rng.random()}</svg>".encode()}),
    ("too_many_pixels", lambda rng: {"reference.png": _gigapixel(rng)}),
    ("missing_member", lambda rng: {rng.choice(("target.jpg", "reference.png")): None}),
    ("bad_row", lambda rng: {"json": b'{"score": NaN}'}),
    ("bad_row", lambda rng: {"json": b'{"score": '}),
    ("bad_row", lambda rng: {"json": b'["no", "record"]'}),
    ("bad_caption", lambda rng: _captionless(b" \x00\n")),
    ("bad_caption", lambda rng: _captionless(b"nan")),
    ("bad_caption", lambda rng: _captionless(b"\xff\xfe")),
)


def write_malformed(folder: Path, seed: int) -> Counter[str]:
    """Write tars of `NUM_RECORDS` samples below `folder`; how many are to end as what."""
    rng = Random(seed)
    expected: Counter[str] = Counter()
    folder.mkdir(parents=True)
    for first in range(0, NUM_RECORDS, _RECORDS_A_TAR):
        with tarfile.open(folder / f"{first:04d}.tar", "w", format=tarfile.GNU_FORMAT) as tar:
            for number in range(first, first + _RECORDS_A_TAR):
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
    write_malformed(folder / "broken", seed)
    for name in ("column", "empty", "evil", "text"):
        (folder / name).mkdir()
    pq.write_table(pa.table({"image": [picture(rng)]}), folder / "column" / "a.parquet")
    (folder / "text" / "a.parquet").write_bytes(b"no parquet")
    with tarfile.open(folder / "evil" / "a.tar", "w") as tar:
        for name in EVIL_NAMES:
            add_member(tar, name, b"x")
    return {
        f"webdataset:{folder / 'broken'}": "must have at most",
        f"webdataset:{folder / 'evil'}": "must",
        f"webdataset:{folder / 'empty'}": "must",
        f"subjects200k:{folder / 'column'}": "must have the column",
        f"subjects200k:{folder / 'text'}": "must",
        f"captures:{folder / 'empty'}": "must hold pictures",
        f"meshes:{folder / 'empty'}": "must",
        f"captures:{folder / 'absent'}": "must",
    }
