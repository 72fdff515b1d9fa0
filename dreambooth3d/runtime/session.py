"""Ray sessions: join the cluster that is named, or start one on this machine."""

import logging
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ray
import ray.data
from ray.data._internal.execution.resource_manager import ResourceManager

from dreambooth3d.errors import ConfigError, RunError

# The end of a traceback, such as `RuntimeError: what happened`, but for Ray's own.
_ERROR_LINE = re.compile(r"((?!ray\.)[\w.]*(?:Error|Exception|Interrupt)): (.+)")

_LIMITS_S = 0.1
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
    address = os.environ.get("RAY_ADDRESS", "")
    if address.startswith(("http://", "https://")):
        raise ConfigError(
            f"RAY_ADDRESS must be a cluster's address such as host:6379 or auto, got {address!r}; "
            "unset it, or submit the command with `ray job submit`"
        )
    is_joining = bool(address)
    print(f"{'joining' if is_joining else 'starting'} Ray ...", file=sys.stderr, flush=True)
    options = {} if is_joining else {"include_dashboard": False, "num_cpus": os.cpu_count()}
    with one_sentence(address):
        ray.init(
            address=None if is_joining else "local",
            runtime_env={"env_vars": worker_environment(threads_per_worker)},
            logging_level=logging.ERROR,
            # Stages report their own progress; worker logs stay in the session's folder.
            log_to_driver=False,
            **options,
        )
    try:
        with _terminable():
            yield
    finally:
        ray.shutdown()


@contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM end the command as Ctrl-C does; Ray's own way is an abort with a stack."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def stopping() -> Iterator[threading.Event]:
    """Take Ctrl-C and SIGTERM as a wish to stop; a second one ends at once.

    Raises:
        KeyboardInterrupt: at the second one.
    """
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return

    def ask(number: int, frame: object) -> None:
        if event.is_set():
            raise KeyboardInterrupt
        event.set()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def one_sentence(address: str) -> Iterator[None]:
    """Say in one sentence that Ray did not start, or is not where it was looked for."""
    try:
        yield
    except Exception as error:
        # Ray says so by `Exception` itself when a node of its own is late (`ray._private.node`).
        is_rays = type(error) is Exception or isinstance(error, ConnectionError | RuntimeError)
        if not is_rays:
            raise
        said = " ".join(str(error).split())
        raise RunError(
            f"Ray must be reachable at {address}, got: {said}; check RAY_ADDRESS and RAY_AUTH_MODE"
            if address
            else f"Ray must start on this machine, got: {said}; run the command again when the "
            "machine is less busy and has free memory"
        ) from error


def quiet_data_logs() -> None:
    """Leave progress to the stage's own lines."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    for name in ("ray.data", "ray.data._internal.progress"):
        logging.getLogger(name).setLevel(logging.ERROR)


def keep_cores_busy() -> None:
    """Let a pass of Ray Data begin on every core at once.

    Ray Data 2.60 asks what it may use by a call that does not wait, takes "nothing" for the first
    answer, and believes that for a second. There is no setting.
    """
    ResourceManager.GLOBAL_LIMITS_UPDATE_INTERVAL_S = _LIMITS_S


def worker_environment(threads: int) -> dict[str, str]:
    """Environment of worker processes."""
    paths = [str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        "OMP_NUM_THREADS": str(threads),
        "PYTHONPATH": os.pathsep.join(paths),
        "TOKENIZERS_PARALLELISM": "false",
    }


def last_line(error: BaseException) -> str:
    """The sentence of an error that came through Ray with a remote traceback.

    The worker's own error is only in the text: Ray's errors and hints stand behind it.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = [found for line in lines if (found := _ERROR_LINE.fullmatch(line))]
    if not said:
        return lines[-1] if lines else type(error).__name__
    name, sentence = said[-1].groups()
    return sentence if name.startswith("dreambooth3d.") else f"{name}: {sentence}"


def num_cores() -> int:
    """CPU cores of the session's cluster."""
    return int(ray.cluster_resources().get("CPU", 1))


def threads_for(num_workers: int) -> int:
    """CPU threads for each of some equal workers, so that each fits on one node."""
    nodes = [n["Resources"].get("CPU", 1) for n in ray.nodes() if n["Alive"]]
    return max(1, min(num_cores() // max(1, num_workers), int(max(nodes))))
