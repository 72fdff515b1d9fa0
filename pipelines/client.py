"""A small client of the served endpoint, and a server for the time of a `with` block."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from dreambooth3d.errors import RunError

ROOT = Path(__file__).resolve().parents[1]
# What `serve run serve.app:app` does, but for the port.
_CONFIG = """http_options:
  host: 127.0.0.1
  port: {port}
applications:
  - name: default
    import_path: serve.app:app
"""
_START_SECONDS, _CLIP_SECONDS = 180.0, 600.0


@dataclass(frozen=True, kw_only=True)
class Order:
    """One clip to ask the server for."""

    subject: str
    prompt: str
    seed: int


@dataclass(frozen=True)
class Client:
    """Talks to `url`, the root of a running server."""

    url: str

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Send JSON, get JSON."""
        data = None if body is None else json.dumps(body).encode()
        request = Request(f"{self.url}{path}", data=data, method=method)
        request.add_header("Content-Type", "application/json")
        try:
            with urlopen(request, timeout=60) as answer:
                return json.loads(answer.read())
        except HTTPError as error:
            raise RunError(
                f"{method} {path} must succeed, got {error.code}: {error.read().decode()}"
            ) from error

    def make_clips(self, orders: Sequence[Order], folder: Path) -> list[Path]:
        """Ask for every clip at once, wait for all, save each mp4 with what the server says of it.

        Raises:
            RunError: a clip failed, or the server took too long.
        """
        folder.mkdir(parents=True, exist_ok=True)
        jobs = {}
        for order in orders:
            body = {"prompt": order.prompt, "subject": order.subject, "seed": order.seed}
            jobs[order.subject] = self.call("POST", "/v1/videos", body)["id"]
            print(f"POST /v1/videos {order.subject}: 202 {jobs[order.subject]}", flush=True)
        return [self._save(subject, job, folder) for subject, job in jobs.items()]

    def _save(self, subject: str, job: str, folder: Path) -> Path:
        state = self._wait(job)
        path = folder / f"{subject}.mp4"
        with urlopen(f"{self.url}/v1/videos/{job}/content", timeout=60) as answer:
            path.write_bytes(answer.read())
        path.with_name(f"{path.name}.json").write_text(json.dumps(state), encoding="utf-8")
        print(f"GET /v1/videos/{job}/content: {path.stat().st_size} bytes", flush=True)
        return path

    def _wait(self, job: str) -> dict[str, Any]:
        deadline, shown = time.monotonic() + _CLIP_SECONDS, -1
        while time.monotonic() < deadline:
            state: dict[str, Any] = self.call("GET", f"/v1/videos/{job}")
            if state["status"] == "completed":
                return state
            if state["status"] not in ("queued", "in_progress"):
                raise RunError(f"clip {job} must complete, got {state['status']}: {state['error']}")
            if state["progress"] != shown:
                shown = state["progress"]
                print(f"clip {job}: {state['status']} {shown} %", flush=True)
            time.sleep(1)
        raise RunError(f"clip {job} must be done in {_CLIP_SECONDS:.0f} s, got no end; see its log")


@contextmanager
def serving(runs: Path) -> Iterator[Client]:
    """Run `serve.app:app` under Ray Serve on a free port, over the adapters below `runs`."""
    port = _free_port()
    # As every stage: `serve run` alone joins the Ray that was started last, also a dead one.
    environment = {
        "RAY_ADDRESS": "local",
        **os.environ,
        "DREAMBOOTH3D_RUNS": str(runs),
        "PYTHONPATH": str(ROOT),
    }
    config = runs / "serve.yaml"
    config.write_text(_CONFIG.format(port=port), encoding="utf-8")
    command = [str(Path(sys.executable).parent / "serve"), "run", str(config)]
    print(f"\n== serve run {config}", flush=True)
    log = runs / "serve.log"
    with log.open("w", encoding="utf-8") as output:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            preexec_fn=_hear_interrupts,
        )
        try:
            client = Client(f"http://127.0.0.1:{port}")
            _wait_ready(client, process, log)
            yield client
        finally:
            _stop(process)


def _hear_interrupts() -> None:
    """A shell's background jobs are started deaf to SIGINT, and so are their children."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End a server as Ctrl-C would, so that Ray's processes end with it."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        process.send_signal(number)
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            continue
        return


def _wait_ready(client: Client, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urlopen(f"{client.url}/readyz", timeout=5):
                return
        except (URLError, OSError):
            time.sleep(1)
    tail = "\n".join(log.read_text(encoding="utf-8").splitlines()[-15:])
    raise RunError(f"the server must be ready in {_START_SECONDS:.0f} s, got:\n{tail}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
