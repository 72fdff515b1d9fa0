"""A training that is told to stop saves first on every worker; the command goes on from there."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dreambooth3d.runtime.session import REPOSITORY

pytestmark = [pytest.mark.ray, pytest.mark.slow]

_LIMIT_SECONDS = 240.0
_LONG = (
    "steps=12", "workers=2", "strategy=ddp", "batch_size=4", "log_every=1", "save_every=100",
    "is_validated=false",
)  # fmt: skip
_JUDGED = (
    "steps=8", "strategy=single", "batch_size=2", "log_every=1", "save_every=2", "keep_best=8",
)  # fmt: skip


def command(out: Path, *settings: str) -> list[str]:
    sets = [part for setting in settings for part in ("--set", setting)]
    return [sys.executable, "pipelines/pretrain.py", "--out", str(out), *sets]


def run_until(log: Path, order: list[str], sign: str, number: signal.Signals) -> int:
    """Signal a command once it has said `sign`; returns its exit code."""
    with log.open("w") as file, subprocess.Popen(
        order, cwd=REPOSITORY, stdout=file, stderr=file
    ) as process:  # fmt: skip
        until = time.monotonic() + _LIMIT_SECONDS
        while sign not in log.read_text() and time.monotonic() < until:
            time.sleep(0.1)
        process.send_signal(number)
        return process.wait(_LIMIT_SECONDS)


def build_pairs(out: Path, *settings: str) -> None:
    sets = [part for setting in settings for part in ("--set", setting)]
    order = [sys.executable, "pipelines/build_pairs.py", "--out", str(out), *sets]
    subprocess.run(order, cwd=REPOSITORY, check=True)


def test_sigterm_saves_first(tmp_path: Path) -> None:
    build_pairs(tmp_path, "samples=64")
    log, order = tmp_path / "log", command(tmp_path, *_LONG)
    assert run_until(log, order, "step 4/", signal.SIGTERM) == 130
    told = re.search(r"got told to end at step (\d+)", log.read_text())
    assert told is not None
    again = subprocess.run(order, cwd=REPOSITORY, check=True, capture_output=True, text=True)
    assert f"goes on from the checkpoint of step {told.group(1)}/12" in again.stdout
    assert "adapter at" in again.stdout


def test_what_a_killed_driver_had_not_judged_is_judged_later(tmp_path: Path) -> None:
    build_pairs(tmp_path, "samples=48", "held_out_share=0.2")
    order = command(tmp_path, *_JUDGED)
    run_until(tmp_path / "log", order, "step 5/", signal.SIGKILL)
    working = next((tmp_path / "pretrain" / ".checkpoints").glob("*/started")).parent
    # Whatever had been judged by then.
    (working / "validations.json").unlink(missing_ok=True)
    assert (working / "step-00000002.json").is_file()
    subprocess.run(order, cwd=REPOSITORY, check=True)
    curve = json.loads(next((tmp_path / "pretrain").glob("*/curve.json")).read_text())
    assert [row["step"] for row in curve["validations"]] == [2, 4, 6, 8]
