"""Look at, and kill, the processes that a command has started."""

import time
from collections.abc import Callable
from subprocess import Popen

import psutil

_POLL_SECONDS = 0.02


def family(pid: int) -> list[psutil.Process]:
    """A process and everything that it started and that is still its own."""
    try:
        parent = psutil.Process(pid)
        return [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def working(processes: list[psutil.Process], task: str) -> list[psutil.Process]:
    """Ray's workers that have a task of this name at hand, such as `Map`."""
    return [process for process in processes if _title(process).startswith(f"ray::{task}")]


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return ""


def resident_bytes(processes: list[psutil.Process]) -> int:
    """Memory of all of them together; what they share is counted once (PSS)."""
    total = 0
    for process in processes:
        try:
            total += process.memory_full_info().pss
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return total


def wait_until(holds: Callable[[], bool], *, seconds: float) -> bool:
    """Whether something came to hold in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if holds():
            return True
        time.sleep(_POLL_SECONDS)
    return holds()


def end_driver(process: "Popen[bytes]") -> None:
    """Kill a command as the kernel would, and wait until what it had started is gone."""
    left = family(process.pid)[1:]
    process.kill()
    process.wait()
    end_all(left)


def end_all(processes: list[psutil.Process], *, patience: float = 20.0) -> None:
    """Wait for processes that lost their parent, then kill those that stay."""
    _, alive = psutil.wait_procs(processes, timeout=patience)
    for process in alive:
        process.kill()
    psutil.wait_procs(alive, timeout=patience)
