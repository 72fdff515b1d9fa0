"""Keys do not depend on spelling; folders appear whole or not at all."""

import hashlib
import json
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreambooth3d.artifacts.jsonfile import canonical_json, read_json, write_json
from dreambooth3d.artifacts.key import (
    artifact_key,
    content_hash,
    latest,
    point_latest,
    publish,
    publish_file,
)
from dreambooth3d.artifacts.manifest import Manifest
from dreambooth3d.errors import ArtifactError, ConfigError


def key(**config: object) -> str:
    return artifact_key("pairs", 1, config, ["p0", "p1"])


def test_key_is_16_hex_characters_of_the_canonical_json() -> None:
    text = '{"config":{"a":1},"parents":["p0","p1"],"revision":1,"stage":"pairs"}'
    assert key(a=1) == hashlib.sha256(text.encode()).hexdigest()[:16]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": 1, "b": {"c": 2, "d": 3}}, {"b": {"d": 3, "c": 2}, "a": 1}),
        ({"size": (512, 512)}, {"size": [512, 512]}),
        ({"scale": 1.0}, {"scale": 1}),
        ({"scale": -0.0}, {"scale": 0}),
        ({"rate": 1e-4}, {"rate": 0.0001}),
        ({"names": {"b", "a"}}, {"names": ["a", "b"]}),
    ],
)
def test_spelling_makes_no_difference(one: dict[str, object], other: dict[str, object]) -> None:
    assert key(**one) == key(**other)


def test_every_part_makes_a_difference() -> None:
    keys = {
        key(a=1),
        key(a=2),
        key(a="1"),
        key(a=True),
        key(a=None),
        key(a=1.0000001),
        key(b=1),
        artifact_key("pretrain", 1, {"a": 1}, ["p0", "p1"]),
        artifact_key("pairs", 2, {"a": 1}, ["p0", "p1"]),
        artifact_key("pairs", 1, {"a": 1}, ["p1", "p0"]),
    }
    assert len(keys) == 10


def test_dataclasses_and_enums_count_by_value() -> None:
    class Mode(Enum):
        FAST = "fast"

    @dataclass(frozen=True)
    class Size:
        width: int

    assert key(mode=Mode.FAST, size=Size(3)) == key(mode="fast", size={"width": 3})


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (float("nan"), "pairs.config.a must be finite"),
        (float("inf"), "pairs.config.a must be finite"),
        (Path("/data"), "pass its content or its content_hash"),
        ({1: "x"}, "must be text, got 1"),
        (object(), "got object"),
    ],
)
def test_values_without_one_spelling_are_refused(value: object, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        key(a=value)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(JSON)
def test_canonical_json_survives_a_json_round_trip(value: object) -> None:
    assert canonical_json(json.loads(json.dumps(value))) == canonical_json(value)


def test_content_hash_sees_names_and_bytes_only(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name / "sub").mkdir(parents=True)
        (tmp_path / name / "sub/b.txt").write_text("b")
        (tmp_path / name / "a.txt").write_text("a")
    before = content_hash(tmp_path / "one")
    assert before == content_hash(tmp_path / "two")
    (tmp_path / "two/a.txt").rename(tmp_path / "two/c.txt")
    assert before != content_hash(tmp_path / "two")
    assert content_hash(tmp_path / "one/a.txt") == hashlib.sha256(b"a").hexdigest()
    with pytest.raises(ArtifactError, match="must be a file or a folder"):
        content_hash(tmp_path / "none")


def test_publish_shows_the_folder_only_when_complete(tmp_path: Path) -> None:
    final = tmp_path / "root" / "0123"
    with publish(final) as folder:
        (folder / "sub").mkdir()
        (folder / "sub/a.txt").write_text("a")
        assert not final.exists()
        assert folder.parent == final.parent
    assert [p.name for p in final.parent.iterdir()] == ["0123"]
    assert (final / "sub/a.txt").read_text() == "a"


@pytest.mark.parametrize("failure", [RuntimeError("boom"), KeyboardInterrupt()])
def test_publish_leaves_nothing_when_the_body_raises(
    tmp_path: Path, failure: BaseException
) -> None:
    def body() -> None:
        with publish(tmp_path / "0123") as folder:
            (folder / "half.txt").write_text("half")
            raise failure

    with pytest.raises(type(failure)):
        body()
    assert list(tmp_path.iterdir()) == []


def test_publish_keeps_the_folder_of_the_process_that_was_first(tmp_path: Path) -> None:
    final = tmp_path / "0123"
    with publish(final) as ours:
        (ours / "who.txt").write_text("ours")
        with publish(final) as theirs:
            (theirs / "who.txt").write_text("theirs")
    assert (final / "who.txt").read_text() == "theirs"
    assert list(tmp_path.iterdir()) == [final]


def test_publish_refuses_to_replace_a_file(tmp_path: Path) -> None:
    (tmp_path / "0123").write_text("mine")
    refused = pytest.raises(ArtifactError, match="must be a folder, got a file")
    with refused, publish(tmp_path / "0123"):
        pass
    assert (tmp_path / "0123").read_text() == "mine"


def test_publish_file_replaces_in_one_step_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def body() -> None:
        with publish_file(path) as aside:
            aside.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        body()
    assert path.read_text() == "old"
    with publish_file(path) as aside:
        aside.write_text("new")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_latest_names_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"pair shards must be made .* run `make pairs`"):
        latest(tmp_path, what="pair shards", made_by="make pairs")
    for name in ("aaaa", "bbbb"):
        (tmp_path / name).mkdir()
        point_latest(tmp_path, name)
    assert latest(tmp_path, what="pair shards", made_by="make pairs") == tmp_path / "bbbb"


@pytest.mark.parametrize("name", ["gone", "../elsewhere", ""])
def test_latest_refuses_a_pointer_that_leads_nowhere(tmp_path: Path, name: str) -> None:
    point_latest(tmp_path, name)
    with pytest.raises(ArtifactError, match="run `make pairs`"):
        latest(tmp_path, what="pair shards", made_by="make pairs")


def test_manifest_round_trip_gives_the_same_bytes(tmp_path: Path) -> None:
    manifest = Manifest(
        stage="pairs", key="0123", config={"b": 1, "a": [1.5, None]}, parents=("p",), outputs={}
    )
    (tmp_path / "two").mkdir()
    manifest.save(tmp_path)
    loaded = Manifest.load(tmp_path)
    loaded.save(tmp_path / "two")
    assert loaded == manifest
    text = (tmp_path / "manifest.json").read_text()
    assert text == (tmp_path / "two/manifest.json").read_text()
    assert text.endswith("}\n")
    assert text.index('"a"') < text.index('"b"')


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"stage": 1}', '{"stage": "s", "key": "k", "config": []}']
)
def test_a_damaged_manifest_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(ArtifactError, match=r"manifest\.json"):
        Manifest.load(tmp_path)


def test_a_missing_manifest_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"got no file at .*manifest\.json"):
        Manifest.load(tmp_path)


def test_json_refuses_nan_and_damage(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"numbers in a\.json must be finite"):
        write_json(tmp_path / "a.json", {"loss": float("nan")})
    (tmp_path / "b.json").write_bytes(b"\xff\xfe{}")
    with pytest.raises(ArtifactError, match=r"thing must be valid JSON, .*b\.json"):
        read_json(tmp_path / "b.json", what="thing")
