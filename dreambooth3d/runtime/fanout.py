"""Orders as Ray tasks: on every node one warm process, from which a child is forked for each.

A task only carries messages, so its own process loads neither torch nor weights. Where tasks get
GPUs, a forked process could not use them: the task's process is the warm one then.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray
from ray.util.queue import Queue
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from dreambooth3d.errors import RunError
from dreambooth3d.runtime.warm import READY, Message, connect, load_work, receive, send

_CLOSED = (EOFError, ConnectionError)


class WarmHost:
    """One actor a node: keeps a warm process alive and tells its address."""

    def __init__(self, module: str, settings: Message) -> None:
        self._arguments = (module, json.dumps(settings))
        self._folder = tempfile.TemporaryDirectory(prefix="dreambooth3d-warm-")
        self._process: subprocess.Popen[str] | None = None
        self._count = 0

    def address(self) -> str:
        """Where to connect; a process that has ended is started again."""
        if self._process is None or self._process.poll() is not None:
            self._start()
        return self._path("socket")

    def _path(self, name: str) -> str:
        return str(Path(self._folder.name) / f"{self._count}.{name}")

    def _start(self) -> None:
        self._count += 1
        with Path(self._path("log")).open("w", encoding="utf-8") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "dreambooth3d.runtime.warm", self._path("socket"),
                 *self._arguments],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
                env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
            )  # fmt: skip
        assert self._process.stdout is not None
        # Libraries may print before it is ready; at the end of the output it has failed.
        lines = iter(self._process.stdout.readline, "")
        if not any(line.strip() == READY for line in lines):
            raise RunError(
                f"a warm process must load its backbone, got: {_tail(Path(self._path('log')))}; "
                "check memory and the backbone's folder"
            )


class Fanout:
    """Sends orders to the nodes of the open session.

    Args:
        module: of the work, see `warm.Work`.
        settings: for its `warm_up`.
        num_cpus, num_gpus: that each order takes.
        lines: where children's messages go.
    """

    def __init__(
        self, module: str, settings: Message, *, num_cpus: float, num_gpus: float, lines: Queue
    ) -> None:
        self._module, self._settings, self._lines = module, settings, lines
        self._hosts: dict[str, Any] = {}
        self._has_gpu = num_gpus > 0
        self._task = ray.remote(num_cpus=num_cpus, num_gpus=num_gpus, max_retries=0)(_carry_out)

    def submit(self, order: Message) -> Any:
        """Start an order; the reference resolves to the answer as JSON."""
        hosts = {} if self._has_gpu else self._current_hosts()
        return self._task.remote(self._module, order, hosts, self._lines)

    def _current_hosts(self) -> dict[str, Any]:
        alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
        for node in alive - set(self._hosts):
            here = NodeAffinitySchedulingStrategy(node, soft=False)
            actor = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(WarmHost)
            self._hosts[node] = actor.options(scheduling_strategy=here).remote(
                self._module, self._settings
            )
        return {node: host for node, host in self._hosts.items() if node in alive}


def _carry_out(module: str, order: Message, hosts: Mapping[str, Any], lines: Queue) -> str:
    """One Ray task: one order."""

    def tell(told: Message) -> None:
        lines.put(json.dumps(told))

    if not hosts:
        return json.dumps(load_work(module).work(order, tell))
    host = hosts.get(ray.get_runtime_context().get_node_id())
    if host is None:
        raise RunError("a node must be known before it gets work, got a new one; try again")
    with connect(ray.get(host.address.remote())) as connection:
        try:
            send(connection, order)
            while "answer" not in (message := receive(connection)):
                tell(message["told"])
        except _CLOSED as error:
            raise RunError(_tail(Path(order["log"]))) from error
    return json.dumps(message["answer"])


def _tail(log: Path) -> str:
    """The last line of a log; without one the process was killed."""
    text = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    is_error = any(line.startswith("Traceback") for line in lines)
    return lines[-1] if is_error else "it was killed"
