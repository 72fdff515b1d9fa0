"""VBench's process and files, with a package of that name that stands in (`conftest.py`).

The real one needs an environment of its own, and weights.
"""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dreambooth3d.errors import ArtifactError, ConfigError
from dreambooth3d.evaluate.config import BenchmarkConfig
from dreambooth3d.evaluate.vbench import (
    DIMENSIONS,
    Vbench,
    VbenchClip,
    VbenchScores,
    find_vbench,
    measure_clips,
    read_results,
)


@pytest.fixture
def clips(tmp_path: Path) -> list[VbenchClip]:
    prompts = ("a mug on a desk", None, "a mug at sea")
    found = []
    for number, prompt in enumerate(prompts):
        path = tmp_path / f"clip {number}.webm"
        path.write_bytes(bytes([number]))
        found.append(VbenchClip(path=path, prompt=prompt, num_frames=9))
    return found


def found_with(vbench_python: Path, minutes: float = 5) -> Vbench:
    found = find_vbench(BenchmarkConfig(vbench_python=str(vbench_python), vbench_minutes=minutes))
    assert isinstance(found, Vbench)
    return found


def measure(vbench: Vbench, clips: list[VbenchClip], folder: Path) -> tuple[VbenchScores, str]:
    said: list[str] = []
    return measure_clips(vbench, clips, folder, said.append), "\n".join(said)


def test_every_dimension_is_measured_or_named(
    vbench_python: Path, clips: list[VbenchClip], tmp_path: Path
) -> None:
    vbench, folder = found_with(vbench_python), tmp_path / "out"
    assert vbench.version == "0.1.5"
    scores, said = measure(vbench, clips, folder)
    first, second, third = (scores.of_clips[clip.path] for clip in clips)
    assert first == {
        "vbench_subject_consistency": 0.25, "vbench_dynamic_degree": 1.0,
        "vbench_motion_smoothness": 0.99,
        "vbench_imaging_quality": 70.5, "vbench_overall_consistency": 0.15,
    }  # fmt: skip
    assert "vbench_overall_consistency" not in second
    assert third["vbench_temporal_flickering"] == 0.75
    reasons = {each.name: each.reason for each in scores.skipped}
    log = folder / "logs" / "aesthetic_quality.log"
    assert reasons.pop("vbench_aesthetic_quality") == (
        f"FileNotFoundError: no weights.pth; see {log}"
    )
    assert "words words" in log.read_text()
    assert "gives no value" in reasons.pop("vbench_background_consistency")
    assert reasons == {}
    assert any("vbench_temporal_flickering is missing for 1 of 3" in note for note in scores.notes)
    assert "VBench imaging_quality of 3 clips took " in said
    assert "words" not in said


def test_only_what_is_new_or_failed_runs_again(
    vbench_python: Path, clips: list[VbenchClip], tmp_path: Path
) -> None:
    vbench, folder = found_with(vbench_python), tmp_path / "out"
    measure(vbench, clips, folder)
    clips[0] = replace(clips[0], prompt="a mug under water")
    clips[2].path.write_bytes(b"another")
    again, said = measure(vbench, clips, folder)
    assert "overall_consistency of 2 clips took" in said
    assert "imaging_quality of 1 clips took" in said
    assert again.of_clips[clips[0].path]["vbench_overall_consistency"] == 0.17
    _, said = measure(vbench, clips, folder)
    running = {line.split()[2] for line in said.splitlines()}
    assert running == {"aesthetic_quality"}
    newer = replace(vbench, version="0.1.6")
    assert "imaging_quality of 3 clips took" in measure(newer, clips, folder)[1]


def test_a_dimension_that_hangs_is_ended(
    vbench_python: Path, clips: list[VbenchClip], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HANGING", "motion_smoothness")
    scores, _ = measure(found_with(vbench_python, minutes=0.1), clips[:1], tmp_path / "out")
    reasons = {each.name: each.reason for each in scores.skipped}
    assert "said nothing for 0.1 minutes" in reasons["vbench_motion_smoothness"]
    assert scores.of_clips[clips[0].path]["vbench_imaging_quality"] == 70.5


def test_clips_that_are_too_short_or_have_no_prompt(
    vbench_python: Path, clips: list[VbenchClip], tmp_path: Path
) -> None:
    vbench = found_with(vbench_python)
    scores, said = measure(vbench, [replace(clips[0], num_frames=2)], tmp_path / "out")
    assert said == ""
    assert {each.reason for each in scores.skipped} == {"needs clips of at least 3 frames"}
    assert "1 of 1 clips have fewer" in scores.notes[0]
    scores, _ = measure(vbench, [clips[1]], tmp_path / "out")
    assert "needs prompts, and no clip has one" in {each.reason for each in scores.skipped}


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGKILL])
def test_the_process_ends_with_the_command(
    vbench_python: Path, clips: list[VbenchClip], tmp_path: Path, ending: signal.Signals
) -> None:
    code = (
        "import signal, sys; from pathlib import Path\n"
        "from dreambooth3d.evaluate.vbench import *\n"
        # A shell may have started the tests with interrupts ignored.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "vbench = Vbench(python=sys.argv[1], version='0.1.5')\n"
        "clip = VbenchClip(path=Path(sys.argv[2]), prompt=None, num_frames=9)\n"
        "measure_clips(vbench, [clip], Path(sys.argv[3]), print)\n"
    )
    command = [
        sys.executable,
        "-c",
        code,
        str(vbench_python),
        str(clips[0].path),
        str(tmp_path / "out"),
    ]
    ours = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"HANGING": "subject_consistency", "TMPDIR": str(tmp_path)},
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / "started").exists():
        assert ours.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    (child,) = children(ours.pid)
    os.kill(ours.pid, ending)
    ours.wait(10)
    while is_running(child):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def children(parent: int) -> list[int]:
    found = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [int(each) for each in found]


def is_running(process: int) -> bool:
    try:
        status = Path(f"/proc/{process}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rsplit(")", 1)[1].split()[0] != "Z"


def test_without_an_environment_every_number_is_named() -> None:
    skipped = find_vbench(BenchmarkConfig())
    assert isinstance(skipped, tuple)
    assert [each.name for each in skipped] == [f"vbench_{each}" for each in DIMENSIONS]
    assert all("set vbench_python" in each.reason for each in skipped)


def test_an_environment_without_the_package_is_refused(vbench_python: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"must be a Python interpreter, got '.*none'"):
        find_vbench(BenchmarkConfig(vbench_python=str(tmp_path / "none")))
    with pytest.raises(ConfigError, match=r"must have the package vbench, .* vbench==0\.1\.5"):
        find_vbench(BenchmarkConfig(vbench_python=sys.executable))
    with pytest.raises(ConfigError, match="vbench_minutes must be above 0"):
        BenchmarkConfig(vbench_minutes=0)
    with pytest.raises(ConfigError, match="absolute path"):
        Vbench(python="python", version="0.1.5")


def test_results_of_another_form_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    rows = [
        {"video_path": "/x/000.mp4", "video_results": True},
        {"video_path": "/x/001.mp4", "video_results": float("nan")},
    ]
    path.write_text(json.dumps({"dynamic_degree": [np.float64(1), rows]}))
    assert read_results(path, "dynamic_degree") == {"000.mp4": 1.0}
    with pytest.raises(ArtifactError, match="another form in results"):
        read_results(path, "imaging_quality")
    path.write_text(json.dumps({"dynamic_degree": 1.0}))
    with pytest.raises(ArtifactError, match="another form in results"):
        read_results(path, "dynamic_degree")
