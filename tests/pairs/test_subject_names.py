"""A subject is one, however its name is spelled: when it is blocked, and when it is split."""

import json
import unicodedata
from pathlib import Path

import pytest

from dreambooth3d.artifacts.jsonfile import JsonValue
from dreambooth3d.artifacts.pairs import PairCorpus
from dreambooth3d.artifacts.place import Place
from dreambooth3d.errors import ConfigError, InputError
from dreambooth3d.pairs.blueprint import draw_blueprint
from dreambooth3d.pairs.config import PairsConfig
from dreambooth3d.pairs.inventory import take_inventory
from dreambooth3d.pairs.mesh_renderer import renderer
from tests.pairs.corpora import build_here, object_photo
from tests.pairs.mesh_samples import box_glb


def photographed(folder: Path, *names: str, count: int = 2) -> Path:
    """Photos of objects, all of them different."""
    for place, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            seed = sum(map(ord, name)) + 100 * place + number
            object_photo(seed).save(folder / name / f"{number}.png")
    return folder


def of_photos(*sources: str, **changes: object) -> PairsConfig:
    settings: dict[str, object] = {
        "sources": sources, "size": 32, "identity": "none", "segmentation": "plain",
    }  # fmt: skip
    return PairsConfig(**(settings | changes))  # type: ignore[arg-type]


def listed(folder: Path, *entries: str) -> str:
    path = folder / "blocked.txt"
    path.write_text("\n".join(entries), encoding="utf-8")
    return str(path)


def subjects(folder: Path) -> set[str]:
    return {str(pair.meta["subject"]) for pair in PairCorpus.open(folder)}


def dropped(outputs: dict[str, JsonValue]) -> JsonValue:
    return outputs["dropped"]


def test_a_folder_from_a_mac_has_its_name_in_captions_and_on_the_blocklist(tmp_path: Path) -> None:
    home = photographed(tmp_path / "in", unicodedata.normalize("NFD", "Café crème"), "shoe")
    source = f"captures:{home}"
    folder, _ = build_here(of_photos(source), tmp_path / "all")
    pairs = list(PairCorpus.open(folder))
    assert {pair.caption for pair in pairs} == {"a photo of a café crème", "a photo of a shoe"}
    assert subjects(folder) == {"Café crème", "shoe"}
    blocklist = listed(tmp_path, "café crème")
    some, manifest = build_here(of_photos(source, blocklist=blocklist), tmp_path / "some")
    assert subjects(some) == {"shoe"}
    assert dropped(manifest.outputs) == {"blocklisted": 2}
    # Read again, it is still the same subject.
    again, _ = build_here(of_photos(f"webdataset:{folder}", blocklist=blocklist), tmp_path / "x")
    assert subjects(again) == {"shoe"}


def test_ids_last_parts_and_long_names_are_blocked(tmp_path: Path) -> None:
    names = ("mug", "shelf/eval_1", "y" * 200, "shoe")
    home = photographed(tmp_path / "in", *names)
    photographed(tmp_path / "in", "alone", count=1)
    (home / "mug" / "metadata.json").write_text(json.dumps({"id": "eval_0", "class_noun": "mug"}))
    source = f"captures:{home}"
    blocklist = listed(tmp_path, "eval_0", "Eval-1", "y" * 200, "nobody", "alone")
    config = of_photos(source, blocklist=blocklist)
    folder, _ = build_here(config, tmp_path / "out")
    assert subjects(folder) == {"shoe"}
    lines = [json.loads(line) for line in (folder / "dropped.jsonl").read_text().splitlines()]
    assert {line["reason"] for line in lines} == {"blocklisted", "missing_member"}
    assert any("got 'mug' (listed as 'eval_0')" in line["sentence"] for line in lines)
    blueprint = draw_blueprint(config)
    inventory = take_inventory(Place.parse(str(tmp_path / "out")), blueprint, max_bad_fraction=1)
    (told,) = blueprint.chain.blocklist.remarks(inventory.blocked_by)
    assert "match no subject 1 of 5, such as 'nobody'" in told
    whole, _ = build_here(of_photos(source), tmp_path / "whole")
    again = of_photos(f"webdataset:{whole}", blocklist=blocklist)
    assert subjects(build_here(again, tmp_path / "again")[0]) == {"shoe"}


def test_models_are_blocked_by_their_names(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    for name in ("table_lamp-02", "café table", "red box"):
        (tmp_path / "models" / f"{name}.glb").write_bytes(box_glb())
    try:
        renderer()
    except ConfigError as error:
        pytest.skip(f"needs EGL: {error}")
    config = PairsConfig(
        sources=(f"meshes:{tmp_path / 'models'}",), size=64, pairs_per_subject=1, duplicate_bits=-1,
        blocklist=listed(tmp_path, "table lamp", "café table"),
    )  # fmt: skip
    folder, manifest = build_here(config, tmp_path / "out")
    assert subjects(folder) == {"red-box"}
    assert dropped(manifest.outputs) == {"blocklisted": 2}


def test_a_subject_held_out_in_another_spelling_is_not_trained_on(tmp_path: Path) -> None:
    first = photographed(tmp_path / "first", "red mug", "shoe", count=3)
    held, _ = build_here(of_photos(f"captures:{first}", held_out_share=1.0), tmp_path / "held")
    other = photographed(tmp_path / "other", "RED  Mug")
    both = of_photos(f"webdataset:{held}", f"captures:{other}", duplicate_bits=-1)
    expected = r"one split, got 'red mug' and 'RED Mug' .*from webdataset and captures"
    with pytest.raises(InputError, match=expected):
        build_here(both, tmp_path / "both")
