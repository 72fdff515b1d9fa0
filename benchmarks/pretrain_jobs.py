"""Pretraining as a Ray job whose driver is killed, and submitted again."""

import signal
import sys
from pathlib import Path

import psutil
from ray.cluster_utils import Cluster

from benchmarks.commands import must, started
from benchmarks.pretrain_runs import LOG, Training, command, log_size, result, wait_for_step


def submit_twice(out: Path, pairs: Path, seed: int, step: int, *settings: str) -> Training:
    """Submit a training to a head of its own, kill the driver at a step, submit it again."""
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 2, "include_dashboard": True, "dashboard_port": 0},
    )
    try:
        place = {"RAY_ADDRESS": f"http://{cluster.head_node.address_info['webui_url']}"}
        ray = str(Path(sys.executable).with_name("ray"))
        order = [ray, "job", "submit", "--", *command(out, pairs, seed, *settings)]
        begin = log_size()
        with started(order, log=LOG, more=place) as process:
            wait_for_step(process, begin, step)
            _driver(out).send_signal(signal.SIGKILL)
            if process.wait() == 0:
                raise ChildProcessError("a job whose driver was killed must not count as done")
        must(order, log=LOG, more=place)
        return result(out)
    finally:
        cluster.shutdown()


def _driver(out: Path) -> psutil.Process:
    """The process of the job itself, not the shell around it or the client that waits for it."""
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        is_script = len(words) > 1 and words[1].endswith("pipelines/pretrain.py")
        if is_script and str(out) in words:
            return process
    raise ChildProcessError(f"no driver of a training into {out} is running")
