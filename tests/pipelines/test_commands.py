"""The commands as a user meets them: settings, dry runs, and one sentence for bad input."""

import json
import re
import subprocess
import sys
import zlib
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from dreambooth3d.errors import ConfigError, Dreambooth3dError, InputError
from dreambooth3d.evaluate.config import EvaluateConfig
from dreambooth3d.generate.config import GenerateConfig
from dreambooth3d.pairs.config import PairsConfig
from dreambooth3d.pairs.subjects import photograph
from dreambooth3d.personalize.config import PersonalizeConfig
from dreambooth3d.pretrain.config import PretrainConfig
from pipelines import (
    build_pairs,
    evaluate,
    generate,
    personalize_batch,
    pretrain,
    train_backbone,
    train_probe,
)
from pipelines.pair_options import without_keys
from pipelines.recipes import RECIPES, find_recipe
from pipelines.settings import apply_settings, settings_help
from pipelines.summary import open_catalogue, print_summary
from tests.pairs.corpora import build_here

ROOT = Path(__file__).resolve().parents[2]
Main = Callable[[list[str]], int]


@pytest.mark.parametrize(
    "kind", [PairsConfig, PretrainConfig, PersonalizeConfig, GenerateConfig, EvaluateConfig]
)
def test_help_tells_every_setting_and_its_default(kind: type[Any]) -> None:
    told, _, defaults = settings_help(kind).partition("  defaults: ")
    given = dict(part.split("=", 1) for part in " ".join(defaults.split()).split(", "))
    assert set(given) == {field.name for field in fields(kind) if field.init}
    again = [f"{name}={value}" for name, value in given.items() if value]
    assert apply_settings(kind(), again) == kind()
    names = re.findall(r"^  ([a-z_0-9, ]+):", told, flags=re.MULTILINE)
    assert {name for line in names for name in line.split(", ")} == set(given)


def test_settings_are_typed_and_checked() -> None:
    config = apply_settings(
        PretrainConfig(), ["steps=7", "lr=2e-3", "strategy=ddp", "is_checkpointed=yes"]
    )
    assert (config.steps, config.lr, config.strategy, config.is_checkpointed) == (
        7, 2e-3, "ddp", True,
    )  # fmt: skip


def test_commas_part_entries_and_stay_in_values() -> None:
    given = ["source_settings=subjects200k.attribution=Doe, Jane,subjects200k.inset=2"]
    assert apply_settings(PairsConfig(), given).source_settings == (
        "subjects200k.attribution=Doe, Jane",
        "subjects200k.inset=2",
    )
    assert apply_settings(PairsConfig(), ["sources=captures:s3://b/?region=x,scenes"]).sources == (
        "captures:s3://b/?region=x",
        "scenes",
    )


@pytest.mark.parametrize(
    ("config", "setting", "sentence"),
    [
        (PretrainConfig(), "steps", "must be name=value"),
        (PretrainConfig(), "stepz=1", "must be one of .*steps.*got 'stepz'"),
        (PretrainConfig(), "steps=many", "steps must be a whole number, got 'many'"),
        (PretrainConfig(), "steps=0", "steps must be at least 1, got 0"),
        (PretrainConfig(), "strategy=fsdp", "strategy must be one of .*zero2.*got 'fsdp'"),
        (PretrainConfig(), "reference_attention=half", "reference_attention must be one of"),
        (PretrainConfig(), "workers=3", "batch_size must be a multiple of workers"),
        (PretrainConfig(), "average_decay=0.9,save_every=5", "save_every must be at least 10"),
        (PretrainConfig(), "sigma_shift=inf", "sigma_shift must be above 0 and below inf"),
        (PretrainConfig(), "lr=nan", "lr must be a positive number"),
        (PersonalizeConfig(), "method=lora", "method must be one of joint"),
        (PersonalizeConfig(), "prompt=a thing", "prompt must hold"),
        (PairsConfig(), "samples=0", "samples must be at least 1"),
        (PairsConfig(), "size=8", "size must be at least 32 and at most 1024"),
    ],
)
def test_bad_settings_are_one_sentence(config: object, setting: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        apply_settings(config, setting.split(","))


def test_recipes_are_complete_and_named() -> None:
    assert {"tiny", "demo", "one-gpu", "cluster"} <= set(RECIPES)
    with pytest.raises(ConfigError, match="recipe must be one of tiny"):
        find_recipe("big")


@pytest.mark.parametrize(
    ("main", "has_recipe"),
    [
        (build_pairs.main, True),
        (pretrain.main, True),
        (personalize_batch.main, True),
        (generate.main, True),
        (evaluate.main, False),
        (train_backbone.main, False),
        (train_probe.main, False),
    ],
)
def test_help_has_the_common_arguments_and_examples(
    main: Main, has_recipe: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    for word in ("--set", "--out", "--dry-run", "examples:"):
        assert word in shown
    assert ("--recipe" in shown) == ("recipes:" in shown) == has_recipe


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--suite", "backbone", "--rows", "colour"], "--rows must be among real_background"),
        (["--suite", "backbone", "--clips", "x"], "must come with --seed, --rows"),
        (["--suite", "backbone", "--set", "frames=1"], "must come with --seed, --rows"),
        (["--rows", "color"], "--seed and --rows must come with --suite"),
        (["--adapters", "nowhere"], "--adapters must be a folder, got nothing at nowhere"),
    ],
)
def test_options_that_would_do_nothing_are_refused(arguments: list[str], sentence: str) -> None:
    with pytest.raises(Dreambooth3dError, match=sentence):
        evaluate.main(arguments)


def test_a_suites_dry_run_names_its_rows(capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate.main(["--suite", "backbone", "--seed", "3", "--dry-run"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["settings"]["seed"] == 3
    assert {"background", "turn_motion", "reference_gain"} <= set(plan["plan"]["rows"])


def test_dry_run_prints_the_plan_and_does_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert build_pairs.main(["--dry-run", "--set", "samples=10", "--out", str(tmp_path)]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["settings"]["samples"] == 10
    assert plan["plan"]["pairs"] == 10
    assert "artifact" in plan["plan"]
    assert list(tmp_path.iterdir()) == []


def test_sources_are_given_one_by_one_and_keys_are_not_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photograph(tmp_path / "mug", 1_000_060, id="mug", num_images=3, size=32)
    sources = ["--source", "scenes", "--source", f"captures:{tmp_path / 'mug'}"]
    assert build_pairs.main([*sources, "--dry-run", "--to", str(tmp_path / "corpora")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found["plan"]["inputs"]) == ["scenes", "captures"]
    assert found["plan"]["artifact"].startswith(str(tmp_path / "corpora"))
    secret = PairsConfig(
        sources=("captures:s3://key:secret@bucket/photos", "meshes:s3://key:secret"),
        source_settings=("meshes.backgrounds=http://bob:secret@host/bg/",),
    )
    assert "secret" not in str(without_keys(secret))


def test_validate_finds_a_flipped_byte(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, _ = build_here(PairsConfig(samples=4, size=32), tmp_path)
    assert build_pairs.main(["--validate", str(folder)]) == 0
    assert "4 samples in 1 shards" in capsys.readouterr().out
    shard = folder / "scenes-000000.tar"
    data = bytearray(shard.read_bytes())
    data[data.index(b"scenes-00000002.reference.png") + 520] ^= 1
    shard.write_bytes(data)
    assert build_pairs.main(["--validate", str(folder)]) == 1
    said = capsys.readouterr().err
    assert "scenes-000000.tar" in said
    assert "damaged in scenes-00000002;" in said


@pytest.mark.parametrize(
    ("main", "arguments", "command"),
    [
        (pretrain.main, [], "build_pairs.py"),
        (evaluate.main, [], "personalize_batch.py"),
        (personalize_batch.main, ["{table}"], "pretrain.py"),
    ],
)
def test_a_missing_artifact_names_the_command_that_makes_it(
    main: Main, arguments: list[str], command: str, tmp_path: Path, table: Path
) -> None:
    from dreambooth3d.errors import ArtifactError

    given = [a.format(table=table) for a in arguments]
    with pytest.raises(ArtifactError, match=command):
        main([*given, "--out", str(tmp_path)])


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Two good subjects and room to break things."""
    rows = ["subject,class_noun,images,prompts,steps"]
    for name in ("first", "second"):
        photograph(tmp_path / name, 1_000_060, id=name, num_images=2, size=32)
        rows.append(f"{name},thing,{name}/images,,")
    (tmp_path / "subjects.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return tmp_path / "subjects.csv"


def picture(table: Path) -> Path:
    return table.parent / "second" / "images" / "001.png"


def truncate(table: Path) -> None:
    from PIL import Image

    photo = picture(table)
    jpeg = photo.with_suffix(".jpg")
    Image.open(photo).resize((256, 256)).save(jpeg)
    jpeg.write_bytes(jpeg.read_bytes()[: jpeg.stat().st_size // 2])
    photo.unlink()


def inflate(table: Path) -> None:
    whole = picture(table).read_bytes()
    header = bytearray(whole[:33])
    header[16:24] = (40_000).to_bytes(4, "big") * 2
    header[29:33] = zlib.crc32(bytes(header[12:29])).to_bytes(4, "big")
    picture(table).write_bytes(bytes(header) + whole[33:])


def edit(old: str, new: str) -> Callable[[Path], None]:
    def change(table: Path) -> None:
        table.write_text(table.read_text().replace(old, new), encoding="utf-8")

    return change


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (truncate, ["second", "001.jpg"]),
        (inflate, ["row 2", "001.png", "1600000000 pixels"]),
        (lambda table: picture(table).write_text("hello"), ["second", "001.png"]),
        (lambda table: picture(table).write_bytes(b""), ["second", "001.png"]),
        (edit("second,thing,second/images", "second,thing,nowhere"), ["row 2", "nowhere"]),
        (edit("second,thing", "first,thing"), ["row 2", "subject", "row 1"]),
        (edit("second/images,,", "second/images,a [sks thing] a [b],"), ["row 2", "prompts"]),
        (edit("second/images,,", "second/images,a [sks lamp] here,"), ["row 2", "sks lamp"]),
        (edit("second/images,,", "second/images,,many"), ["row 2", "steps", "many"]),
        (edit("second,thing", "../second,thing"), ["row 2", "../second"]),
    ],
)
def test_one_bad_row_is_named_and_the_other_goes_on(
    damage: Callable[[Path], None], words: list[str], table: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    damage(table)
    with pytest.raises(InputError, match="1 that are not and 1 that are"):
        open_catalogue(str(table), table.parent, is_skipping=False)
    capsys.readouterr()
    found = open_catalogue(str(table), table.parent, is_skipping=True)
    assert [s.id for s in found.subjects] == ["first"]
    assert len(found.problems) == 1
    error = capsys.readouterr().err
    for word in words:
        assert word in error
    assert print_summary(found.problems, (), table.parent) == 1
    assert "1 problems" in capsys.readouterr().err


def test_a_table_without_a_column_or_without_a_usable_row_is_refused(table: Path) -> None:
    table.write_text("subject,images\nfirst,first/images\n", encoding="utf-8")
    with pytest.raises(InputError, match="class_noun"):
        open_catalogue(str(table), table.parent, is_skipping=True)
    table.write_text("subject,class_noun,images\nfirst,thing,absent\n", encoding="utf-8")
    with pytest.raises(InputError, match="at least one usable row"):
        open_catalogue(str(table), table.parent, is_skipping=True)


def test_an_error_is_one_line_and_exit_code_1(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "pipelines" / "generate.py"), "--adapter", str(tmp_path),
         "--prompt", "x", "--out", str(tmp_path)],
        capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.strip().startswith("error: ")
    assert len(done.stderr.strip().splitlines()) == 1
    assert "Traceback" not in done.stderr


def test_generate_needs_a_prompt(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        generate.main([])
    assert "--prompt" in capsys.readouterr().err
