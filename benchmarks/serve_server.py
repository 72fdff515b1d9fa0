"""A server under Ray Serve in processes of its own, to be stopped, killed and started again."""

import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
import yaml

from benchmarks.commands import LOG_FOLDER, ROOT, environment, scratch_folder
from benchmarks.processes import end_all, family, wait_until
from benchmarks.serve_subjects import free_port

_START_SECONDS, _STOP_SECONDS = 240.0, 120.0
_DASHBOARD_PORT = re.compile(r"dashboard/dashboard\.py .*--port=(\d+)")
_REPLICA = "ray::ServeReplica:dreambooth3d:engine"


@dataclass(kw_only=True, eq=False)
class Server:
    """`serve run` over a folder of its own.

    Attributes:
        home: folder of jobs, subjects and clips.
        settings: arguments of `serve.app:build`.
        log: name below runs/proof.
        database: SQLAlchemy URL; Serve logs arguments, so that a password must not be one.
        host: address it listens on; keys are asked for unless it is loopback.
    """

    home: Path
    settings: Mapping[str, str | int | float]
    log: str
    database: str = ""
    host: str = "127.0.0.1"
    port: int = field(default_factory=free_port)
    _process: "subprocess.Popen[bytes] | None" = None

    @property
    def url(self) -> str:
        """Root of the HTTP interface."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start Ray and Serve; returns at once."""
        config = self.home / "serve.yaml"
        config.write_text(yaml.safe_dump(self._config()), encoding="utf-8")
        LOG_FOLDER.mkdir(parents=True, exist_ok=True)
        with (LOG_FOLDER / f"{self.log}.log").open("ab") as output:
            self._process = subprocess.Popen(
                [str(Path(sys.executable).parent / "serve"), "run", str(config)],
                cwd=ROOT,
                # Never a cluster that somebody else has running on this machine.
                env=environment()
                | {"RAY_ADDRESS": "local", "DREAMBOOTH3D_DATABASE": self.database},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_hear_interrupts,
            )

    def wait_ready(self) -> None:
        """Wait for a warm engine.

        Raises:
            ChildProcessError: it ended, or took too long.
        """
        if not wait_until(lambda: self.is_ready or not self.is_alive, seconds=_START_SECONDS):
            raise ChildProcessError(f"the server is not ready; see runs/proof/{self.log}.log")
        if not self.is_alive:
            raise ChildProcessError(f"the server ended; see runs/proof/{self.log}.log")

    @property
    def is_alive(self) -> bool:
        """Whether the command runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def is_ready(self) -> bool:
        """Whether an engine is warm."""
        try:
            found = httpx.get(f"{self.url}/readyz", timeout=10).status_code == 200
        except httpx.TransportError:
            found = False
        if not found:
            time.sleep(0.3)
        return found

    def processes(self) -> list[psutil.Process]:
        """Everything that the command has started: Ray's head, Serve, replicas."""
        return [] if self._process is None else family(self._process.pid)

    def engines(self) -> list[psutil.Process]:
        """The engine replicas that run now."""
        return [process for process in self.processes() if _title(process).startswith(_REPLICA)]

    @property
    def dashboard(self) -> str:
        """Address that `serve deploy` talks to; another Ray here may hold the usual port."""
        for process in self.processes():
            found = _DASHBOARD_PORT.search(_title(process))
            if found:
                return f"http://127.0.0.1:{found[1]}"
        raise ChildProcessError("Ray's dashboard must run beside the server, got none")

    def kill_engine(self, choose: random.Random) -> bool:
        """`kill -9` one engine replica; False when none runs."""
        engines = self.engines()
        if not engines:
            return False
        choose.choice(engines).kill()
        return True

    def kill_head(self) -> None:
        """`kill -9` the whole node: Ray's head, Serve's controller, every replica."""
        processes = self.processes()
        for process in processes:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        self._reap(processes)

    def stop(self) -> None:
        """End as Ctrl-C would; replicas drain."""
        processes = self.processes()
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._reap(processes)

    def _reap(self, processes: list[psutil.Process]) -> None:
        if self._process is not None:
            self._process.wait(30)
        end_all(processes, patience=10.0)

    def _config(self) -> dict[str, object]:
        return {
            "http_options": {"host": self.host, "port": self.port},
            "applications": [
                {
                    "name": "dreambooth3d",
                    "route_prefix": "/",
                    "import_path": "serve.app:build",
                    "args": {"runs": str(self.home), **self.settings},
                }
            ],
        }


@contextmanager
def serving(
    log: str, *, host: str = "127.0.0.1", **settings: str | int | float
) -> Iterator[Server]:
    """A server that is ready, over a folder that is gone afterwards."""
    with scratch_folder() as home:
        server = Server(home=home, settings=settings, log=log, host=host)
        server.start()
        try:
            server.wait_ready()
            yield server
        finally:
            server.stop()


def _hear_interrupts() -> None:
    """A shell's background jobs are started deaf to SIGINT, and so are their children."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return ""
