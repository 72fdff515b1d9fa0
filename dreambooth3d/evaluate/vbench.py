"""VBench's own numbers (Huang et al. 2024), by its own package in an environment of its own.

The package pins versions that do not fit ours, so the interpreter it is installed for is a setting
(`vbench_python`). Each dimension is a process: one whose weights cannot be had is skipped by name
and costs only itself. Scores are kept by content of the clip, version of the package and, where the
dimension reads it, prompt.
"""

import json
import math
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dreambooth3d.artifacts.jsonfile import read_json, write_json
from dreambooth3d.artifacts.key import artifact_key, content_hash, publish_file
from dreambooth3d.errors import ArtifactError, ConfigError
from dreambooth3d.evaluate.config import BenchmarkConfig
from dreambooth3d.evaluate.skipping import Skipped
from dreambooth3d.evaluate.vbench_process import NAME

TEXT_ALIGNMENT = "overall_consistency"
DIMENSIONS = (
    "subject_consistency",
    "background_consistency",
    "temporal_flickering",
    "motion_smoothness",
    "dynamic_degree",
    "aesthetic_quality",
    "imaging_quality",
    TEXT_ALIGNMENT,
)
# VBench's motion smoothness compares every second frame; with fewer it ends for all clips.
LEAST_FRAMES = 3

# Raised by hand when VBench is called in another way.
_REVISION = 1
_SCRIPT = Path(__file__).with_name("vbench_process.py")
_VERSION = "import importlib.metadata as found; print(found.version('vbench'))"
_VERSION_SECONDS, _LOOK_SECONDS = 60.0, 0.5
_ERROR = re.compile(r"[A-Za-z_][\w.]*(Error|Exception|Interrupt|Exit)\b")
_TAIL, _LONGEST = 100_000, 300


@dataclass(frozen=True, kw_only=True)
class Vbench:
    """The package, in its environment.

    Attributes:
        python: absolute path of the interpreter.
        version: of the package.
        quiet_minutes: without a word from a process, after which it is ended.
    """

    python: str
    version: str
    quiet_minutes: float = 30.0

    def __post_init__(self) -> None:
        """Check what cannot be a process."""
        if not Path(self.python).is_absolute():
            raise ConfigError(
                f"python of VBench must be an absolute path, got {self.python!r}; "
                "processes run in another folder"
            )
        if not self.quiet_minutes > 0:
            raise ConfigError(f"quiet_minutes must be above 0, got {self.quiet_minutes}; use 30")


@dataclass(frozen=True, kw_only=True)
class VbenchClip:
    """A clip to measure.

    Attributes:
        path: of the file, in any container FFmpeg reads.
        prompt: plain text, or None.
        num_frames: in the clip.
    """

    path: Path
    prompt: str | None
    num_frames: int


@dataclass(frozen=True, kw_only=True)
class VbenchScores:
    """What was measured, in VBench's units: 0..1, but imaging quality 0..100.

    Attributes:
        of_clips: numbers by name, by clip; a clip may lack some.
        skipped: numbers that no clip has.
        notes: what some clips lack, and why.
    """

    of_clips: Mapping[Path, Mapping[str, float]]
    skipped: tuple[Skipped, ...]
    notes: tuple[str, ...]


def number_of(dimension: str) -> str:
    """Name of a dimension's number in the tables."""
    return f"vbench_{dimension}"


def find_vbench(config: BenchmarkConfig) -> Vbench | tuple[Skipped, ...]:
    """Ask the interpreter that is set for its VBench; without one, name every number.

    Raises:
        ConfigError: there is no such interpreter, or it has no VBench.
    """
    if not config.vbench_python:
        reason = "set vbench_python to the interpreter of an environment with vbench==0.1.5"
        return tuple(Skipped(name=number_of(each), reason=reason) for each in DIMENSIONS)
    found = shutil.which(Path(config.vbench_python).expanduser())
    if found is None:
        raise ConfigError(
            f"vbench_python must be a Python interpreter, got {config.vbench_python!r}; "
            "name the bin/python of VBench's environment"
        )
    # Not resolved: an environment's interpreter is a link, and known by its own place.
    python = str(Path(found).absolute())
    return Vbench(python=python, version=_ask_version(python), quiet_minutes=config.vbench_minutes)


def measure_clips(
    vbench: Vbench, clips: Sequence[VbenchClip], folder: Path, report: Callable[[str], None]
) -> VbenchScores:
    """Measure every dimension of the clips; scores and logs are kept in `folder`.

    Raises:
        ArtifactError: a score of before is damaged.
    """
    long_enough = [clip for clip in clips if clip.num_frames >= LEAST_FRAMES]
    hashes = {clip.path: content_hash(clip.path) for clip in long_enough}
    of_clips: dict[Path, dict[str, float]] = {clip.path: {} for clip in clips}
    skipped, notes = [], []
    if few := len(clips) - len(long_enough):
        notes.append(f"VBench needs {LEAST_FRAMES} frames: {few} of {len(clips)} clips have fewer")
    for name in DIMENSIONS:
        dimension = _Dimension(vbench, name, hashes, folder, report)
        fitting = [clip for clip in long_enough if clip.prompt or name != TEXT_ALIGNMENT]
        reason = dimension.measure(fitting)
        found = dimension.read(fitting)
        for path, value in found.items():
            of_clips[path][number_of(name)] = value
        if not found:
            reason = reason if fitting else _why_none(long_enough)
            skipped.append(Skipped(name=number_of(name), reason=reason))
        elif len(found) < len(fitting):
            lacking = f"{len(fitting) - len(found)} of {len(fitting)} clips"
            notes.append(f"{number_of(name)} is missing for {lacking}: {reason}")
    if len(skipped) < len(DIMENSIONS):
        notes.append(f"numbers vbench_* are of the package vbench {vbench.version}")
    return VbenchScores(of_clips=of_clips, skipped=tuple(skipped), notes=tuple(notes))


def read_results(path: Path, dimension: str) -> dict[str, float]:
    """Read VBench's file: value by name of the clip; those without a finite value are left out.

    Raises:
        ArtifactError: it is missing, or of another form.
    """
    everything: Any = read_json(path, what="results of VBench")
    try:
        rows = everything[dimension][1]
        found = {Path(row["video_path"]).name: float(row["video_results"]) for row in rows}
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise ArtifactError(
            "results of VBench must be {dimension: [average, [{video_path, video_results}, ..]]}, "
            f"got another form in {path.name} ({error!r}); install vbench==0.1.5"
        ) from error
    return {name: value for name, value in found.items() if math.isfinite(value)}


class _Dimension:
    """One of VBench's numbers."""

    def __init__(
        self,
        vbench: Vbench,
        name: str,
        hashes: Mapping[Path, str],
        folder: Path,
        report: Callable[[str], None],
    ) -> None:
        self._vbench, self._name, self._hashes = vbench, name, hashes
        self._folder, self._report = folder, report
        self._log = folder / "logs" / f"{name}.log"

    def measure(self, clips: Sequence[VbenchClip]) -> str:
        """Measure what was not measured before; the answer is why something is missing."""
        # Clips of the same content are one.
        missing = {place: clip for clip in clips if not (place := self._score_of(clip)).is_file()}
        no_value = f"VBench gives no value; see {self._log}"
        if not missing:
            return no_value
        count, started = len(missing), time.monotonic()
        self._report(f"evaluate: VBench {self._name} of {count} clips")
        try:
            found = self._run(list(missing.values()))
        except _FailedError as failure:
            reason = f"{failure}; see {self._log}"
            seconds = time.monotonic() - started
            self._report(f"evaluate: VBench {self._name} failed after {seconds:.0f} s: {reason}")
            return reason
        for place, value in zip(missing, found, strict=True):
            with publish_file(place) as aside:
                write_json(aside, {"value": value})
        seconds = time.monotonic() - started
        self._report(f"evaluate: VBench {self._name} of {count} clips took {seconds:.0f} s")
        return no_value

    def read(self, clips: Sequence[VbenchClip]) -> dict[Path, float]:
        """Return the values that are there, by clip."""
        places = {clip.path: self._score_of(clip) for clip in clips}
        found = {
            path: read_json(place, what="score of VBench").get("value")
            for path, place in places.items()
            if place.is_file()
        }
        return {path: value for path, value in found.items() if isinstance(value, int | float)}

    def _score_of(self, clip: VbenchClip) -> Path:
        versioned = {
            "dimension": self._name,
            "prompt": clip.prompt if self._name == TEXT_ALIGNMENT else "",
            "version": self._vbench.version,
        }
        key = artifact_key("vbench", _REVISION, versioned, [self._hashes[clip.path]])
        return self._folder / f"{key}.json"

    def _run(self, clips: Sequence[VbenchClip]) -> list[float | None]:
        """Values of clips, None where VBench gives none."""
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="dreambooth3d-vbench-") as place:
            root, prompts = Path(place), {}
            (root / "clips").mkdir()
            for number, clip in enumerate(clips):
                name = f"{number:03d}.mp4"
                (root / "clips" / name).symlink_to(clip.path.resolve())
                prompts[name] = clip.prompt or ""
            order = {
                "videos": str(root / "clips"),
                "prompts": prompts,
                "dimension": self._name,
                "results": str(root / "results"),
            }
            (root / "order.json").write_text(json.dumps(order), encoding="utf-8")
            self._wait_for(root)
            try:
                found = read_results(root / "results" / f"{NAME}_eval_results.json", self._name)
            except ArtifactError as error:
                raise _FailedError(str(error)) from error
            return [found.get(name) for name in prompts]

    def _wait_for(self, root: Path) -> None:
        with self._log.open("wb") as log:
            process = subprocess.Popen(
                [self._vbench.python, "-u", str(_SCRIPT), str(root / "order.json")],
                cwd=root,
                env=_environment(),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            self._watch(process)
        finally:
            _end(process)

    def _watch(self, process: "subprocess.Popen[bytes]") -> None:
        said, since = 0, time.monotonic()
        while process.poll() is None:
            size = self._log.stat().st_size
            if size != said:
                said, since = size, time.monotonic()
            elif time.monotonic() - since > 60 * self._vbench.quiet_minutes:
                minutes = self._vbench.quiet_minutes
                raise _FailedError(
                    f"it said nothing for {minutes:g} minutes and was ended (vbench_minutes)"
                )
            with suppress(subprocess.TimeoutExpired):
                process.wait(_LOOK_SECONDS)
        if process.returncode != 0:
            raise _FailedError(_last_error(self._log) or f"it ended with {process.returncode}")


class _FailedError(Exception):
    """A dimension cannot be measured; the text is why."""


def _ask_version(python: str) -> str:
    try:
        done = subprocess.run(
            [python, "-c", _VERSION],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            env=_environment(),
            timeout=_VERSION_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigError(
            f"vbench_python must be a Python interpreter, got {python} ({error}); "
            "name the bin/python of VBench's environment"
        ) from error
    if done.returncode != 0 or not done.stdout.strip():
        said = (done.stderr.strip().splitlines() or ["no answer"])[-1][:_LONGEST]
        raise ConfigError(
            f"vbench_python must have the package vbench, got {python} without it ({said}); "
            f"install it there: {python} -m pip install vbench==0.1.5"
        )
    return done.stdout.strip()


def _environment() -> dict[str, str]:
    """Ours, without what would make another interpreter import our packages."""
    ours = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    return {name: value for name, value in os.environ.items() if name not in ours}


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Kill a process with all that it started."""
    # An ended leader may leave a group behind, or none.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    if process.stdin is not None:
        process.stdin.close()
    process.wait()


def _last_error(log: Path) -> str:
    """The line that says most: the last one of an exception, else the last one."""
    text = log.read_bytes()[-_TAIL:].decode("utf-8", "replace").replace("\r", "\n")
    lines = [line for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if _ERROR.match(line)]
    return (errors or lines or [""])[-1].strip()[:_LONGEST]


def _why_none(long_enough: Sequence[VbenchClip]) -> str:
    if long_enough:
        return "needs prompts, and no clip has one"
    return f"needs clips of at least {LEAST_FRAMES} frames"
