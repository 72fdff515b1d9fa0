import subprocess
import sys
from pathlib import Path

import pytest

from dreambooth3d.artifacts.place import Place
from dreambooth3d.errors import ConfigError, InputError
from dreambooth3d.pairs.sources.captures import CapturesSource
from dreambooth3d.pairs.sources.registry import KINDS, parse_source, setting_types, source_class
from dreambooth3d.pairs.sources.scenes import ScenesSource
from dreambooth3d.pairs.sources.subjects200k import Subjects200KSource
from dreambooth3d.pairs.sources.webdataset import WebDatasetSource


def test_every_kind_is_made_from_text(tmp_path: Path) -> None:
    here = Place.parse(str(tmp_path))
    assert parse_source("scenes") == ScenesSource()
    assert parse_source(f"captures:{tmp_path}") == CapturesSource(place=here)
    assert parse_source(f"subjects200k:{tmp_path}") == Subjects200KSource(place=here)
    assert parse_source(f"webdataset:file://{tmp_path}") == WebDatasetSource(place=here)
    for kind in KINDS:
        assert source_class(kind).name == kind


def test_an_address_may_have_colons() -> None:
    url = "s3://key:s%2Fcret@bucket/a:b?endpoint_override=127.0.0.1:9&scheme=http"
    source = parse_source(f"subjects200k:{url}")
    assert isinstance(source, Subjects200KSource)
    assert source.place.url == "s3://bucket/a:b"
    assert "cret" not in repr(source)


def test_settings_reach_the_source(tmp_path: Path) -> None:
    source = parse_source("scenes", {"samples": 12, "size": 32})
    assert source == ScenesSource(samples=12, size=32)
    row = parse_source(f"subjects200k:{tmp_path}", {"padding": None, "min_quality": 3})
    assert row == Subjects200KSource(place=Place.parse(str(tmp_path)), min_quality=3)
    meshes = parse_source(f"meshes:{tmp_path}", {"backgrounds": str(tmp_path / "b"), "size": 64})
    assert getattr(meshes, "backgrounds") == Place.parse(str(tmp_path / "b"))  # noqa: B009
    assert "limits" not in setting_types("meshes")
    assert list(setting_types("captures")) == ["pairs_per_subject", "captions", "pairs_per_part"]


@pytest.mark.parametrize(
    ("text", "settings", "rule"),
    [
        ("photos", {}, "source must be one of scenes, .*, got 'photos'"),
        ("", {}, "source must be one of"),
        ("captures", {}, "captures must have an address"),
        ("captures:", {}, "captures must have an address"),
        ("scenes:here", {}, "scenes must stand alone"),
        ("scenes:", {}, "scenes must stand alone"),
        ("scenes", {"colour": 1}, "settings of scenes must be among samples, .*, got colour"),
        ("captures:x", {"place": "y"}, "must be among .*, got place"),
        ("scenes", {"samples": "many"}, "scenes.samples must be int, got 'many'"),
        ("scenes", {"samples": True}, "scenes.samples must be int, got True"),
        ("scenes", {"samples": 0}, "samples must be at least 1"),
        ("captures:x", {"captions": "guess"}, "captions must be one of"),
        ("subjects200k:x", {"padding": 1.5}, "padding must be int or nothing, got 1.5"),
    ],
)
def test_what_is_not_known_is_refused(text: str, settings: dict[str, object], rule: str) -> None:
    with pytest.raises(ConfigError, match=rule):
        parse_source(text, settings)


def test_what_is_no_place_is_refused() -> None:
    with pytest.raises(InputError, match="must be a path or a URL"):
        parse_source("captures:made-up://x")


def test_nothing_is_rendered_or_connected_by_the_import() -> None:
    code = (
        "import sys, dreambooth3d.pairs.sources.registry;"
        "assert not {'torch', 'ray', 'moderngl', 'trimesh', 'huggingface_hub'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
