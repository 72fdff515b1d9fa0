"""Options of personalize_batch: a bad catalogue stops all unless told otherwise; `--resume`."""

import argparse
import json
from pathlib import Path

import pytest

from benchmarks.bad_catalogue import NUM_BROKEN, NUM_ROWS, write_bad_catalogue
from dreambooth3d.errors import ConfigError, InputError
from dreambooth3d.personalize.config import PersonalizeConfig
from pipelines import personalize_batch
from pipelines.batch_options import add_options, config_of, remember, remembered
from pipelines.cli import parser


def options(arguments: list[str]) -> argparse.Namespace:
    return remembered(add_options(parser("", (), settings=PersonalizeConfig)), arguments)


def test_resume_is_the_last_command_again(tmp_path: Path) -> None:
    out = ["--out", str(tmp_path)]
    with pytest.raises(InputError, match="must follow a batch in the same OUT"):
        options(["--resume", *out])
    with pytest.raises(InputError, match="a catalogue must be named"):
        options(out)
    given = options(["shop.csv", "--set", "steps=3", "--skip-invalid", *out])
    remember(given, tmp_path / "adapter")
    options(["other.csv", "--dry-run", *out])
    # One that was never good for a batch.
    options(["other.csv", "--set", "nonsense=1", *out])
    again = options(["--resume", "--max-parallel", "2", *out])
    assert again.catalogue == str(Path("shop.csv").resolve())
    assert again.skip_invalid
    assert again.adapter == str(tmp_path / "adapter")
    assert (config_of(again).steps, config_of(again).workers) == (3, 2)


def test_keys_of_a_url_are_kept_nowhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    remember(options(["shop.csv", "--out", str(tmp_path)]), None)
    remember(options(["https://me:secret@shop/subjects.csv", "--out", str(tmp_path)]), None)
    assert "kept nowhere" in capsys.readouterr().err
    with pytest.raises(InputError, match="must follow a batch"):
        options(["--resume", "--out", str(tmp_path)])


def test_max_parallel_is_checked(tmp_path: Path) -> None:
    given = options(["shop.csv", "--max-parallel", "-1", "--out", str(tmp_path)])
    with pytest.raises(ConfigError, match="workers must be at least 0"):
        config_of(given)


def test_one_report_names_all_that_is_broken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, broken = write_bad_catalogue(tmp_path, seed=1)
    arguments = [str(table), "--adapter", "tiny", "--out", str(tmp_path / "out"), "--dry-run"]
    with pytest.raises(InputError, match="30 that are not and 70 that are"):
        personalize_batch.main(arguments)
    lines = capsys.readouterr().err.splitlines()
    assert {int(line.split()[2].rstrip(",")) for line in lines} == broken
    assert len(lines) == NUM_BROKEN
    assert personalize_batch.main([*arguments, "--skip-invalid"]) == 1
    plan = json.loads(capsys.readouterr().out)["plan"]
    assert plan["inputs"]["subjects"] == NUM_ROWS - NUM_BROKEN
