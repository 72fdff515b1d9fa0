"""Whatever the process and its hash seed, a source gives the same records in the same order."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pairs.sources.subjects200k_files import good_row, write_rows
from tests.pairs.sources.test_captures import photo
from tests.pairs.sources.test_webdataset import sample, write_tar

CODE = """
import hashlib, sys
from PIL import Image
from dreambooth3d.pairs.sources.registry import parse_source
digest = hashlib.sha256()
for text, settings in (
    ("scenes", {"samples": 4, "size": 32, "records_per_chunk": 3}),
    (f"captures:{sys.argv[1]}/photos", {}),
    (f"subjects200k:{sys.argv[1]}/tables", {}),
    (f"webdataset:{sys.argv[1]}/tars", {"records_per_chunk": 2}),
):
    source = parse_source(text, settings)
    digest.update(source.fingerprint().encode())
    for chunk in source.chunks():
        digest.update(repr(chunk).encode())
        for record in source.read(chunk):
            for name, value in vars(record).items():
                if isinstance(value, Image.Image) or hasattr(value, "tobytes"):
                    value = value.tobytes()
                digest.update(f"{name}={value!r};".encode())
print(digest.hexdigest())
"""


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    # Files are made in an order that is not that of their names.
    for number in (3, 1, 10, 2):
        photo(tmp_path / "photos" / f"subject {number}" / "b.png", number)
        photo(tmp_path / "photos" / f"subject {number}" / "a.png", 100 + number)
        write_tar(tmp_path / "tars" / f"{number}.tar", [*sample("k1"), *sample("k0"), ("x", b"")])
    for number in (1, 0):
        write_rows(tmp_path / "tables" / f"{number}.parquet", [good_row(number)])
    return tmp_path


def test_other_processes_give_the_same(corpus: Path) -> None:
    found = set()
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", CODE, str(corpus)],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        found.add(done.stdout)
    assert len(found) == 1
