"""Kill a build of pairs at a random moment, let it be finished, and look at what it left."""

import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from subprocess import Popen

from ray._private.ray_constants import PROCESS_TYPE_RAYLET
from ray.cluster_utils import Cluster

from benchmarks.commands import run_logged, scratch_folder, started
from benchmarks.pair_runs import LOG, PairRun, digests, records
from benchmarks.processes import end_driver, family, wait_until, working

NUM_MOMENTS = 10
_PATIENCE = 180.0
# What Ray calls the tasks that make and finish parts.
_TASK = "FlatMap"
_ENDED = "ended before"


def same_after_driver_kills(run: PairRun, expected: dict[str, str], seconds: float) -> float:
    """Corpora, of ten, that are as they should be although the command was killed and repeated."""
    return _count(run, expected, "driver", lambda out, moment: _kill_driver(run, out, moment),
                  seconds)  # fmt: skip


def same_after_worker_kills(run: PairRun, expected: dict[str, str], seconds: float) -> float:
    """The same with `kill -9` of a worker process that has a task at hand."""
    return _count(run, expected, "worker", lambda out, moment: _kill_worker(run, out, moment),
                  seconds)  # fmt: skip


def same_after_node_kills(run: PairRun, expected: dict[str, str], seconds: float) -> float:
    """The same with the second of two nodes gone while it is at work, all its processes at once."""
    return _count(run, expected, "node", lambda out, moment: _kill_node(run, out, moment), seconds)


def redone_share(run: PairRun) -> float:
    """Share of all parts that the second run makes when the first was killed with 80 % made."""
    with scratch_folder() as out:
        whole = run.num_parts
        with started(run.command(out), log=LOG) as process:
            if not wait_until(lambda: len(records(out)) >= 0.8 * whole, seconds=_PATIENCE):
                raise ChildProcessError("the build did not get to 80 % of its parts")
            end_driver(process)
        before = records(out)
        run.build(out)
        after = records(out)
    if len(after) != whole:
        raise ChildProcessError(f"{whole} parts were expected, got {len(after)}")
    return sum(before.get(name) != written for name, written in after.items()) / whole


def _count(
    run: PairRun,
    expected: dict[str, str],
    who: str,
    kill: Callable[[Path, float], str],
    seconds: float,
) -> float:
    rng = Random(f"{run.seed} {who}")
    same = 0
    for number in range(NUM_MOMENTS):
        how, moment = _ENDED, seconds
        while how == _ENDED:
            # Later than a build took this time nothing can be killed: an earlier moment, then.
            moment *= rng.uniform(0.02, 0.95)
            with scratch_folder() as out:
                how = kill(out, moment)
                is_same = digests(out) == expected
        same += is_same
        print(
            f"{who} {number + 1}/{NUM_MOMENTS}, {moment:.1f} s into the work: {how}, "
            f"{'the same bytes' if is_same else 'OTHER BYTES'}",
            file=sys.stderr,
            flush=True,
        )
    return same


def _wait_for_work(process: "Popen[bytes]", out: Path) -> None:
    """Wait until the build has begun to make parts, or has ended instead."""

    def begun() -> bool:
        return any(out.glob("pairs/.parts-*")) or process.poll() is not None

    wait_until(begun, seconds=_PATIENCE)


def _kill_driver(run: PairRun, out: Path, moment: float) -> str:
    with started(run.command(out), log=LOG) as process:
        _wait_for_work(process, out)
        time.sleep(moment)
        if process.poll() is not None:
            return _ENDED
        end_driver(process)
    run.build(out)
    return "repeated"


def _kill_worker(run: PairRun, out: Path, moment: float) -> str:
    with started(run.command(out), log=LOG) as process:
        _wait_for_work(process, out)
        time.sleep(moment)
        if not wait_until(lambda: _kill_one(process), seconds=2):
            process.wait()
            return _ENDED
        return _finished(run, out, process.wait())


def _kill_one(process: "Popen[bytes]") -> bool:
    found = working(family(process.pid), _TASK)
    if not found:
        return False
    found[0].send_signal(signal.SIGKILL)
    return True


def _kill_node(run: PairRun, out: Path, moment: float) -> str:
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}
    )
    try:
        node = cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        place = {"RAY_ADDRESS": cluster.address}
        with started(run.command(out), log=LOG, more=place) as process:
            _wait_for_work(process, out)
            time.sleep(moment)
            (raylet,) = node.all_processes[PROCESS_TYPE_RAYLET]
            if not wait_until(lambda: bool(working(family(raylet.process.pid), _TASK)), seconds=2):
                process.wait()
                return _ENDED
            cluster.remove_node(node, allow_graceful=False)
            return _finished(run, out, process.wait(), place)
    finally:
        cluster.shutdown()


def _finished(run: PairRun, out: Path, code: int, place: dict[str, str] | None = None) -> str:
    """How a build went on after something of it was killed; a failed one is repeated."""
    if code == 0:
        return "went on by itself"
    code = run_logged(run.command(out), log=LOG, more=place)
    return "repeated" if code == 0 else f"ended with {code}"
