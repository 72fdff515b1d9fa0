"""The rows of the proof of the personalize stage: what is learned, and a catalogue to a table."""

import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from random import Random
from statistics import median
from subprocess import Popen

import psutil

from benchmarks.ablation import ROWS as LEARNED
from benchmarks.bad_catalogue import NUM_BROKEN, NUM_ROWS, write_bad_catalogue
from benchmarks.commands import ROOT, environment, pipeline_command, scratch_folder, started
from benchmarks.personalize_runs import (
    LOG,
    NUM_SUBJECTS,
    Batch,
    difference,
    pure_seconds,
    repeated_runs,
    trainers,
    workers,
)
from benchmarks.processes import resident_bytes, wait_until
from benchmarks.rows import Row

_CORES = 2
_FAN_OUT_STEPS = "steps=400"
_NUM_SINGLE = 4
_KILLED = ("steps=24", "batch_size=1", "save_every=4", "tries=8", "backoff=0.2")
_NUM_KILLS = 20
_TOLERANCE = 1e-5
_PATIENCE = 600.0
_NUM_SAMPLES = 20
_kept = ExitStack()


@cache
def _batch(seed: int) -> Batch:
    """The subjects of a seed; their photographs stay until the proof ends."""
    home = Path(_kept.enter_context(tempfile.TemporaryDirectory(prefix="dreambooth3d-")))
    batch = Batch(home=home, seed=seed)
    batch.photograph()
    return batch


@cache
def _fan_out(seed: int) -> Mapping[str, float]:
    """Seconds of a batch on two cores, of its updates alone, and of a single subject's command."""
    batch = _batch(seed)
    with scratch_folder() as out:
        whole = batch.train(out, batch.table(), _FAN_OUT_STEPS, f"workers={_CORES}")
        pure = pure_seconds(out)
    singles = []
    for name in batch.names[:_NUM_SINGLE]:
        with scratch_folder() as out:
            singles.append(batch.train(out, batch.table(name), _FAN_OUT_STEPS))
    found = {"whole": whole, "pure": pure, "single": sum(singles) / len(singles)}
    print(f"fan-out: {json.dumps(found)}", file=sys.stderr, flush=True)
    return found


def fan_out(seed: int) -> float:
    """Ideal time of 16 subjects on 2 cores (their updates alone) over that of the command."""
    found = _fan_out(seed)
    return found["pure"] / _CORES / found["whole"]


def fan_out_rate(seed: int) -> float:
    """Time of 16 commands of one subject each (from four of them) over that of the batch."""
    found = _fan_out(seed)
    return found["single"] * NUM_SUBJECTS / found["whole"]


def subjects_per_core_hour(seed: int) -> float:
    """Subjects of 400 updates that a core makes in an hour, the command's start included."""
    return NUM_SUBJECTS / _CORES / (_fan_out(seed)["whole"] / 3600)


def unkillable(seed: int) -> float:
    """Adapters, of 16, equal to their twins after 20 kills; 0 when MLflow has anything twice."""
    batch, rng = _batch(seed), Random(f"{seed} kills")
    with scratch_folder() as twin, scratch_folder() as out:
        batch.train(twin, batch.table(), *_KILLED)
        seconds = pure_seconds(twin) / _CORES
        with started(batch.command(out, batch.table(), *_KILLED), log=LOG) as process:
            for number in range(_NUM_KILLS):
                _kill_one(process, rng, number)
                # The work takes longer the more is killed, so that all moments come to pass.
                time.sleep(rng.uniform(0, 1.4 * seconds / _NUM_KILLS))
            if process.wait():
                raise ChildProcessError(f"it ended with {process.returncode}, see {LOG}.log")
        same = sum(difference(twin, out, name) <= _TOLERANCE for name in batch.names)
        repeated = repeated_runs(out)
    print(f"unkillable: {same} the same, {repeated} repeated", file=sys.stderr, flush=True)
    return float(same if not repeated else 0)


def _kill_one(process: "Popen[bytes]", rng: Random, number: int) -> None:
    """Kill what trains, or the task that waits for it, at a moment when there is one."""

    def found() -> list[psutil.Process]:
        pids = {p.pid for p in trainers(process.pid)}
        all_of_them = workers(process.pid)
        return [p for p in all_of_them if p.pid in pids or "_carry_out" in _title(p)]

    if not wait_until(lambda: bool(trainers(process.pid)) or _has_ended(process),
                      seconds=_PATIENCE) or _has_ended(process):  # fmt: skip
        raise ChildProcessError(f"the batch ended after {number} kills; see {LOG}.log")
    victim = rng.choice(found())
    try:
        victim.send_signal(signal.SIGKILL)
    except psutil.NoSuchProcess:
        return
    print(f"kill {number + 1}/{_NUM_KILLS}: {victim.pid}", file=sys.stderr, flush=True)


def _has_ended(process: "Popen[bytes]") -> bool:
    return process.poll() is not None


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""


def memory(seed: int) -> float:
    """Memory that each of three more workers takes for itself over that of the first."""
    one, four = (_memory_of(seed, count) for count in (1, 4))
    print(f"memory: {one / 1e6:.0f} MB of one, {four / 1e6:.0f} MB of four", file=sys.stderr)
    return (four - one) / 3 / one


def _memory_of(seed: int, count: int) -> float:
    """Bytes of all workers of a batch while so many train; what they share counts once."""
    batch = _batch(seed)
    table = batch.table(*batch.names[:count])
    samples: list[int] = []

    def is_enough() -> bool:
        if len(trainers(process.pid)) == count and any(out.glob("personalize/.checkpoints/*/*")):
            samples.append(resident_bytes(workers(process.pid)))
        return len(samples) >= _NUM_SAMPLES or process.poll() is not None

    order = ("steps=2000", "save_every=2", f"workers={count}")
    with scratch_folder() as out:
        with started(batch.command(out, table, *order), log=LOG) as process:
            wait_until(is_enough, seconds=_PATIENCE)
            process.send_signal(signal.SIGTERM)
            process.wait()
        if len(samples) < _NUM_SAMPLES:
            raise ChildProcessError(f"{count} workers did not train side by side; see {LOG}.log")
    return median(samples)


def bad_input(seed: int) -> float:
    """What is not so: 30 rows are named, 70 adapters with --skip-invalid, none without."""
    with scratch_folder() as home:
        table, broken = write_bad_catalogue(home, seed)
        code, named = _named(home, table)
        wrong = len(broken ^ named) + (code != 1) + _num_adapters(home)
        code, named = _named(home, table, "--skip-invalid")
        wrong += len(broken ^ named) + abs(NUM_ROWS - NUM_BROKEN - _num_adapters(home))
    return float(wrong)


def _named(home: Path, table: Path, *options: str) -> tuple[int, set[int]]:
    done = subprocess.run(
        pipeline_command(
            "personalize_batch.py", str(table), "--adapter", "tiny", "--out", str(home / "out"),
            "--set", "steps=1", "--set", "num_views=1", *options,
        ),
        cwd=ROOT, env=environment(), capture_output=True, text=True,
    )  # fmt: skip
    lines = [line for line in done.stderr.splitlines() if line.startswith("problem: row ")]
    return done.returncode, {int(line.split()[2].rstrip(",")) for line in lines}


def _num_adapters(home: Path) -> int:
    return len(list(home.glob("out/personalize/*/adapters/*/adapter.json")))


ROWS = (
    *LEARNED,
    Row(name="fan_out", measure=fan_out, rule=">=", bar=0.9),
    Row(name="fan_out_rate", measure=fan_out_rate, rule=">=", bar=1.5),
    Row(name="unkillable", measure=unkillable, rule="==", bar=NUM_SUBJECTS),
    Row(name="memory", measure=memory, rule="<=", bar=0.4),
    Row(name="bad_input", measure=bad_input, rule="==", bar=0),
)
