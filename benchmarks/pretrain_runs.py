"""Trainings of one seed for the proof of the pretrain stage."""

import json
import os
import re
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from subprocess import Popen

import torch
from ray.cluster_utils import Cluster

from benchmarks.commands import LOG_FOLDER, must, newest, pipeline_command, started
from benchmarks.processes import end_driver, family, wait_until, working
from dreambooth3d.artifacts.adapter import load_adapter

LOG = "pretrain"
STEPS, SAVE_EVERY, BATCH = 30, 5, 4
_PATIENCE = 300.0
_LOG_PATH = LOG_FOLDER / f"{LOG}.log"
_STEP_LINE = re.compile(r": step (\d+)/")
_GOES_ON = re.compile(r"(?:goes on from the checkpoint of|starts again from) step (\d+)/")


@dataclass(frozen=True, kw_only=True)
class Training:
    """What came out of a training: losses of every step, the adapter's weights, its times."""

    losses: tuple[float, ...]
    weights: dict[str, torch.Tensor]
    step_seconds: float
    data_share: float


def build_corpus(out: Path, seed: int, *, samples: int = 192) -> None:
    """A small corpus of scenes below `out`."""
    order = pipeline_command(
        "build_pairs.py", "--out", str(out), "--set", f"seed={seed}",
        "--set", f"samples={samples}", "--set", "samples_per_shard=64",
    )  # fmt: skip
    must(order, log=LOG)


def command(out: Path, pairs: Path, seed: int, *settings: str, steps: int = STEPS) -> list[str]:
    """The command of a training; one line is printed a step."""
    given = (
        f"seed={seed}", f"steps={steps}", f"batch_size={BATCH}", f"save_every={SAVE_EVERY}",
        # What a plain loop can do in a line or two.
        "log_every=1", "lr=1e-3", "schedule=constant", "warmup_steps=0", "is_validated=false",
        *settings,
    )  # fmt: skip
    sets = [part for setting in given for part in ("--set", setting)]
    return pipeline_command("pretrain.py", "--out", str(out), "--pairs", str(pairs), *sets)


def train(out: Path, pairs: Path, seed: int, *settings: str, steps: int = STEPS) -> Training:
    """Train to the end."""
    must(command(out, pairs, seed, *settings, steps=steps), log=LOG)
    return result(out)


def result(out: Path) -> Training:
    """Read the adapter that was trained last below `out`."""
    folder = newest(out, "pretrain")
    curve = json.loads((folder / "curve.json").read_text(encoding="utf-8"))
    return Training(
        losses=tuple(curve["loss"]),
        weights=load_adapter(folder).weights["reference"],
        step_seconds=float(curve["step_seconds"]),
        data_share=float(curve["data_share"]),
    )


def difference(one: Training, other: Training) -> float:
    """Largest difference of any weight."""
    return max(float((one.weights[n] - other.weights[n]).abs().max()) for n in one.weights)


def kill_at(
    out: Path, pairs: Path, seed: int, who: str, step: int, *settings: str
) -> tuple[Training, int]:
    """Kill a training when it has reached a step, and let it end; also the steps that were lost.

    Args:
        out: fresh.
        pairs: the corpus's folder.
        seed: of the training.
        who: `driver` (the same command is then given again), `worker` or `node` (it goes on by
            itself).
        step: 1-based.
        settings: of the training.

    Raises:
        ChildProcessError: it did not end, or did not say where it went on.
    """
    begin = log_size()
    order = command(out, pairs, seed, *settings)
    if who == "node":
        _with_lost_node(order, begin, step)
    else:
        with started(order, log=LOG) as process:
            wait_for_step(process, begin, step)
            if who == "driver":
                end_driver(process)
            else:
                # Of the workers, only those of the training have the step at hand.
                found = working(family(process.pid), "RayTrainWorker")
                os.kill(found[0].pid, signal.SIGKILL)
                if process.wait():
                    raise ChildProcessError(f"it ended with {process.returncode}, see {_LOG_PATH}")
    if who == "driver":
        must(order, log=LOG)
    return result(out), _steps_lost(log_since(begin), step)


def _with_lost_node(order: Sequence[str], begin: int, step: int) -> None:
    """The workers are on a second node, which goes; a third one has been there from the start."""
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 1, "include_dashboard": False, "resources": {"head": 1}},
    )
    try:
        first = cluster.add_node(num_cpus=2)
        cluster.wait_for_nodes()
        with started(order, log=LOG, more={"RAY_ADDRESS": cluster.address}) as process:
            wait_for_step(process, begin, step)
            cluster.add_node(num_cpus=2)
            cluster.remove_node(first, allow_graceful=False)
            if process.wait():
                raise ChildProcessError(f"it ended with {process.returncode}, see {_LOG_PATH}")
    finally:
        cluster.shutdown()


def stop_at(order: Sequence[str], step: int) -> None:
    """Kill a command's driver when its training has reached a step."""
    begin = log_size()
    with started(order, log=LOG) as process:
        wait_for_step(process, begin, step)
        end_driver(process)


def log_size() -> int:
    """Where in the log the next command begins."""
    return _LOG_PATH.stat().st_size if _LOG_PATH.is_file() else 0


def log_since(begin: int) -> str:
    """What the log says from there on."""
    if not _LOG_PATH.is_file():
        return ""
    with _LOG_PATH.open("rb") as file:
        file.seek(begin)
        return file.read().decode("utf-8", "replace")


def random_steps(seed: int, count: int) -> list[int]:
    """Steps to kill at, none so late that the training could have ended."""
    rng = Random(f"{seed} kills")
    return [rng.randint(1, STEPS - 4) for _ in range(count)]


def steps_said(log: str) -> list[int]:
    """Steps that a log tells of, in its order."""
    return [int(found) for found in _STEP_LINE.findall(log)]


def wait_for_step(process: "Popen[bytes]", begin: int, step: int) -> None:
    """Wait until a training says that it has reached a step.

    Raises:
        ChildProcessError: it ended before.
    """

    def reached() -> bool:
        said = steps_said(log_since(begin))
        return process.poll() is not None or max(said, default=0) >= step

    if not wait_until(reached, seconds=_PATIENCE) or process.poll() is not None:
        raise ChildProcessError(f"it was to reach step {step} and be killed there, see {_LOG_PATH}")
    time.sleep(0.05)


def _steps_lost(said: str, killed_at: int) -> int:
    """Steps that were done twice: from where it says that it goes on to the last one before."""
    found = _GOES_ON.search(said)
    if found is None:
        raise ChildProcessError("a training that goes on must say from where")
    reached = max(steps_said(said[: found.start()]), default=killed_at)
    return reached - int(found.group(1))
