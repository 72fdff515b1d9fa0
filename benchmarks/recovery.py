"""Seconds from a killed worker to the next step that was not done before."""

import os
import signal
import sys
import time

from benchmarks.commands import newest, scratch_folder, started
from benchmarks.pretrain_runs import (
    LOG,
    SAVE_EVERY,
    build_corpus,
    command,
    log_since,
    log_size,
    steps_said,
    wait_for_step,
)
from benchmarks.processes import family, wait_until, working

_KILLED_AT = 2 * SAVE_EVERY + 2
_PATIENCE = 300.0


def seconds_to_recover(seed: int) -> float:
    """Kill the worker of a training between two checkpoints; Ray's new worker goes on.

    Raises:
        ChildProcessError: it did not.
    """
    with scratch_folder() as out:
        build_corpus(out, seed)
        order = command(out, newest(out, "pairs"), seed, "strategy=single")
        begin = log_size()
        with started(order, log=LOG) as process:
            wait_for_step(process, begin, _KILLED_AT)
            (worker,) = working(family(process.pid), "RayTrainWorker")
            os.kill(worker.pid, signal.SIGKILL)
            killed = time.monotonic()
            reached = max(steps_said(log_since(begin)))
            if not wait_until(
                lambda: max(steps_said(log_since(begin))) > reached, seconds=_PATIENCE
            ):
                raise ChildProcessError(f"no step followed a killed worker, see {LOG}.log")
            seconds = time.monotonic() - killed
            process.wait()
    print(f"recovery: {seconds:.1f} s to step {reached + 1}", file=sys.stderr, flush=True)
    return seconds
