"""Run the project's own commands as a user would: fresh processes, logged."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from dreambooth3d.artifacts.key import latest

ROOT = Path(__file__).resolve().parents[1]
LOG_FOLDER = ROOT / "runs" / "proof"


def pipeline_command(script: str, *arguments: str) -> list[str]:
    """The command of a pipeline script."""
    return [sys.executable, str(ROOT / "pipelines" / script), *arguments]


def environment() -> dict[str, str]:
    """Of a command: this checkout, one thread a process."""
    return os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


@contextmanager
def started(
    command: Sequence[str], *, log: str, more: Mapping[str, str] | None = None, cwd: Path = ROOT
) -> Iterator["subprocess.Popen[bytes]"]:
    """A running command in a session of its own; its output goes to runs/proof/LOG.log."""
    path = LOG_FOLDER / f"{log}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as output:
        output.write(f"\n$ {' '.join(command)}\n")
        output.flush()
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env=environment() | dict(more or {}),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()


def run_logged(
    command: Sequence[str], *, log: str, more: Mapping[str, str] | None = None, cwd: Path = ROOT
) -> int:
    """Exit code of a command."""
    with started(command, log=log, more=more, cwd=cwd) as process:
        return process.wait()


def must(
    command: Sequence[str], *, log: str, more: Mapping[str, str] | None = None, cwd: Path = ROOT
) -> None:
    """Run a command.

    Raises:
        ChildProcessError: it failed.
    """
    if code := run_logged(command, log=log, more=more, cwd=cwd):
        raise ChildProcessError(f"{command[1]} ended with {code}; see runs/proof/{log}.log")


def newest(out: Path, stage: str) -> Path:
    """The artifact that a stage published last below `out`."""
    return latest(out / stage, what=stage, made_by="its command")


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="dreambooth3d-") as name:
        yield Path(name)
