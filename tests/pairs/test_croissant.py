"""The document is one that the reference reader accepts, and reads the shards by."""

import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dreambooth3d.artifacts.jsonfile import JsonValue, write_json
from dreambooth3d.errors import ConfigError
from dreambooth3d.pairs.croissant import ShardFile, croissant

SHARD = ShardFile(name="pairs-000000.tar", sha256="ab" * 32, num_bytes=10240)
# In a process of its own: the reader takes the place of its cache from the environment at import.
READER = """
import json, sys
import mlcroissant
data = mlcroissant.Dataset(sys.argv[1])
issues = data.metadata.ctx.issues
found = {"errors": sorted(issues.errors), "warnings": sorted(issues.warnings), "records": {}}
for records in data.metadata.record_sets:
    rows = [
        {name.split("/")[1]: value.decode("latin-1") if isinstance(value, bytes)
         else [value.mode, *value.size] for name, value in row.items()}
        for row in data.records(records.id)
    ]
    found["records"][records.id] = sorted(rows, key=lambda row: row["key"])
json.dump(found, sys.stdout)
"""


def encoded(picture: Image.Image, form: str) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format=form)
    return buffer.getvalue()


def sample(number: int) -> dict[str, bytes]:
    return {
        "json": json.dumps({"number": number}).encode(),
        "latents.safetensors": bytes([0, 255, number]),
        "reference.png": encoded(Image.new("RGB", (16 + number, 8), "red"), "PNG"),
        "target.jpg": encoded(Image.new("RGB", (8, 16 + number), "blue"), "JPEG"),
        "txt": f"ein Häschen, {number}".encode(),
    }


def write_shard(path: Path, first: int) -> ShardFile:
    with tarfile.open(path, "w") as tar:
        for number in (first, first + 1):
            for extension, data in sample(number).items():
                header = tarfile.TarInfo(f"s-{number:04d}.{extension}")
                header.size = len(data)
                tar.addfile(header, io.BytesIO(data))
    data = path.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    return ShardFile(name=path.name, sha256=digest, num_bytes=len(data))


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the reference reader says about a corpus of two shards."""
    if find_spec("mlcroissant") is None:
        pytest.skip("needs the package mlcroissant, which is not installed")
    folder = tmp_path_factory.mktemp("corpus")
    shards = [write_shard(folder / f"pairs-{i:06d}.tar", 2 * i) for i in range(2)]
    document = croissant(
        name="Pairs of a test", description="Two shards.", shards=shards, key="0123456789abcdef",
        licences=["CC-BY-4.0", "CC0-1.0", "CC-BY-4.0", ""], creators=["Ada", "Bob"],
        has_latents=True, date_published="2026-01-02", url="https://example.org/pairs",
    )  # fmt: skip
    write_json(folder / "croissant.json", document)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", READER, str(folder / "croissant.json")],
        capture_output=True, text=True, check=False,
        env=os.environ | {"CROISSANT_CACHE": str(folder / "cache")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_the_reference_reader_accepts_the_document(read: dict[str, Any]) -> None:
    assert read["errors"] == []
    assert [text for text in read["warnings"] if "citeAs" not in text] == []


def test_the_reference_reader_reads_every_member_of_every_shard(read: dict[str, Any]) -> None:
    keys = [f"s-{number:04d}" for number in range(4)]
    found = read["records"]
    assert sorted(found) == ["captions", "latents", "metas", "references", "targets"]
    for rows in found.values():
        assert [row["key"] for row in rows] == keys
    for number in range(4):
        content = {name: rows[number] for name, rows in found.items()}
        assert content["references"]["picture"] == ["RGB", 16 + number, 8]
        assert content["targets"]["picture"] == ["RGB", 8, 16 + number]
        assert content["captions"]["text"].encode("latin-1").decode() == f"ein Häschen, {number}"
        assert json.loads(content["metas"]["json"]) == {"number": number}
        assert content["latents"]["tensors"].encode("latin-1") == bytes([0, 255, number])


def test_every_shard_is_listed_with_its_hash_and_size(tmp_path: Path) -> None:
    entry = write_shard(tmp_path / "pairs-000000.tar", 0)
    files = distribution(croissant(name="n", description="d", shards=[entry]))
    assert files["pairs-000000.tar"]["sha256"] == entry.sha256
    assert files["pairs-000000.tar"]["contentSize"] == f"{entry.num_bytes} B"


def distribution(document: dict[str, JsonValue]) -> dict[str, Any]:
    listed: Any = document["distribution"]
    return {item["@id"]: item for item in listed}


def test_what_is_unknown_is_left_out() -> None:
    document = croissant(name="n", description="d", shards=[SHARD])
    for name in ("license", "creator", "keywords", "url", "datePublished"):
        assert name not in document
    assert document["version"] == "1.0.0"
    assert "latents-files" not in distribution(document)
    assert len(distribution(document)) == 1 + 4


def test_licences_are_links_where_they_have_a_name() -> None:
    licences = ["CC-BY-4.0", "Ask the author", "LicenseRef-mine", "CC-BY-4.0", ""]
    document = croissant(name="n", description="d", shards=[SHARD], licences=licences)
    assert document["license"] == [
        "Ask the author",
        "https://spdx.org/licenses/CC-BY-4.0.html",
        "LicenseRef-mine",
    ]


def test_the_same_corpus_has_the_same_document() -> None:
    first = croissant(name="n", description="d", shards=[SHARD], creators=["b", "a"], key="k")
    again = croissant(name="n", description="d", shards=[SHARD], creators=["a", "b"], key="k")
    assert json.dumps(first) == json.dumps(again)


def test_unusable_shards_are_refused() -> None:
    with pytest.raises(ConfigError, match="must have a shard, got none"):
        croissant(name="n", description="d", shards=[])
    with pytest.raises(ConfigError, match=r"shard must be named <name>\.tar, got 'a/b\.tar'"):
        ShardFile(name="a/b.tar", sha256="ab" * 32, num_bytes=1)
    with pytest.raises(ConfigError, match="must be 64 hex digits, got 'xy'"):
        ShardFile(name="b.tar", sha256="xy", num_bytes=1)
