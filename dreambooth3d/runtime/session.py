"""Ray sessions: join the cluster that is named, or start one on this machine."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ray
import ray.data
import torch

REPOSITORY = Path(__file__).resolve().parents[2]


@contextmanager
def ray_session(*, threads_per_worker: int = 1) -> Iterator[None]:
    """Hold a Ray session open.

    Inside a Ray job, or where `RAY_ADDRESS` is set, that cluster is used; else a local one is
    started and stopped again. A session that is open already is left as it is.

    Args:
        threads_per_worker: CPU threads of each worker process; two busy processes on the same
            cores cost far more than half each.
    """
    if ray.is_initialized():
        yield
        return
    is_joining = bool(os.environ.get("RAY_ADDRESS"))
    options = {} if is_joining else {"include_dashboard": False, "num_cpus": os.cpu_count()}
    ray.init(
        address=None if is_joining else "local",
        runtime_env={"env_vars": worker_environment(threads_per_worker)},
        logging_level=logging.WARNING,
        **options,
    )
    try:
        yield
    finally:
        ray.shutdown()


def quiet_data_logs() -> None:
    """Leave progress to the stage's own lines."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    for name in ("ray.data", "ray.data._internal.progress"):
        logging.getLogger(name).setLevel(logging.ERROR)


def worker_environment(threads: int) -> dict[str, str]:
    """Environment of worker processes; without a GPU DeepSpeed is told so before its import."""
    paths = [str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]
    found = {
        "OMP_NUM_THREADS": str(threads),
        "PYTHONPATH": os.pathsep.join(paths),
        "TOKENIZERS_PARALLELISM": "false",
        # Ray Train would print every line of a worker a second time.
        "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    }
    if not torch.cuda.is_available():
        found["DS_ACCELERATOR"] = "cpu"
    return found


def num_cores() -> int:
    """CPU cores of the session's cluster."""
    return int(ray.cluster_resources().get("CPU", 1))
