"""Nothing is silent: whatever is wrong with an input, it is a counted drop with a reason."""

import json
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from benchmarks.malformed import (
    EVIL_NAMES,
    NUM_RECORDS,
    add_member,
    write_malformed,
    write_unusable,
)
from dreambooth3d.errors import ConfigError, InputError
from dreambooth3d.pairs.config import PairsConfig
from dreambooth3d.pairs.mesh_renderer import renderer
from tests.pairs.corpora import build_here, object_photo, png
from tests.pairs.sources.test_webdataset import sample

SHARDS = PairsConfig(
    size=32,
    samples_per_shard=64,
    duplicate_bits=-1,
    quality="none",
    max_bad_fraction=1.0,
    pairs_per_subject=1,
    segmentation="plain",
    identity="none",
)


@pytest.mark.parametrize("seed", [0, 1])
def test_every_malformed_record_is_counted_with_its_reason(seed: int, tmp_path: Path) -> None:
    expected = write_malformed(tmp_path / "in", seed)
    assert sum(counts.total() for counts in expected.values()) == NUM_RECORDS
    if not can_render():
        del expected[f"meshes:{tmp_path / 'in' / 'models'}"]
    config = replace(SHARDS, sources=tuple(expected))
    folder, manifest = build_here(config, tmp_path / "out")
    sources = cast(dict[str, dict[str, Any]], manifest.outputs["sources"])
    for source, counts in expected.items():
        told = sources[source.partition(":")[0]]
        assert {"kept": told["num_samples"], **told["dropped"]} == dict(counts), source
    page = (folder / "preview.html").read_text()
    assert all(reason in page for counts in expected.values() for reason in set(counts) - {"kept"})


def can_render() -> bool:
    try:
        renderer()
    except ConfigError:
        return False
    return True


def test_members_that_would_leave_the_folder_are_counted(tmp_path: Path) -> None:
    good = png(object_photo(1, (32, 32)))
    (tmp_path / "tars").mkdir()
    with tarfile.open(tmp_path / "tars" / "a.tar", "w") as tar:
        evil = [(name, b"x") for name in EVIL_NAMES]
        for name, data in [*evil, *sample("good", reference_png=good, target_jpg=good)]:
            add_member(tar, name, data)
    config = replace(SHARDS, sources=(f"webdataset:{tmp_path / 'tars'}",))
    folder, manifest = build_here(config, tmp_path / "out")
    assert manifest.outputs["num_samples"] == 1
    dropped = manifest.outputs["dropped"]
    assert isinstance(dropped, dict)
    assert sum(int(str(count)) for count in dropped.values()) >= 1
    assert not list(tmp_path.parent.rglob("*evil.txt"))
    assert json.loads((folder / "manifest.json").read_text())["outputs"]["num_samples"] == 1


def test_a_source_that_is_unusable_as_a_whole_is_one_error(tmp_path: Path) -> None:
    for source, said in write_unusable(tmp_path / "bad", 0).items():
        config = replace(SHARDS, sources=(source,), max_bad_fraction=0.25)
        with pytest.raises(InputError, match=said):
            build_here(config, tmp_path / "out")
