"""A training that is told to stop saves first on every worker; the command goes on from there."""

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


def command(out: Path) -> list[str]:
    settings = (
        "steps=12", "workers=2", "strategy=ddp", "batch_size=4", "log_every=1", "save_every=100",
        "is_validated=false",
    )  # fmt: skip
    sets = [part for setting in settings for part in ("--set", setting)]
    return [sys.executable, "pipelines/pretrain.py", "--out", str(out), *sets]


def test_sigterm_saves_first(tmp_path: Path) -> None:
    pairs = [sys.executable, "pipelines/build_pairs.py", "--out", str(tmp_path)]
    subprocess.run([*pairs, "--set", "samples=64"], cwd=REPOSITORY, check=True)
    log = tmp_path / "log"
    with log.open("w") as file, subprocess.Popen(
        command(tmp_path), cwd=REPOSITORY, stdout=file, stderr=file
    ) as process:  # fmt: skip
        until = time.monotonic() + _LIMIT_SECONDS
        while "step 4/" not in log.read_text() and time.monotonic() < until:
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(_LIMIT_SECONDS) == 130
    told = re.search(r"got told to end at step (\d+)", log.read_text())
    assert told is not None
    again = subprocess.run(
        command(tmp_path), cwd=REPOSITORY, check=True, capture_output=True, text=True
    )
    assert f"goes on from the checkpoint of step {told.group(1)}/12" in again.stdout
    assert "adapter at" in again.stdout
