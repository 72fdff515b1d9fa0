"""Jobs through kills of replicas, restarts of Serve and the loss of the head node."""

import random
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import httpx

from benchmarks.commands import scratch_folder
from benchmarks.processes import wait_until
from benchmarks.serve_database import final_states, num_open, record_transitions, tally
from benchmarks.serve_server import Server
from benchmarks.serve_subjects import add_subjects
from dreambooth3d.artifacts.clip import read_clip
from dreambooth3d.errors import ArtifactError
from serve.results import CLIP_NAME

NUM_JOBS, NUM_KILLS, NUM_SUBJECTS, NUM_CANCELED = 200, 20, 4, 10
_FRAMES, _STEPS = 5, 10
_PAUSE_S = (4.0, 12.0)
_QUIET_S = 900.0
_PER_MOMENT_S = 60.0

Blow = Literal["engine", "serve", "head"]


def num_ended_once(
    database: str, seed: int, *, num_jobs: int = NUM_JOBS, num_kills: int = NUM_KILLS
) -> int:
    """Jobs that ended in exactly one final state, with the files that belong to it and no others.

    Args:
        database: SQLAlchemy URL; empty is SQLite in a folder of its own.
        seed: of the moments and of what is asked for.
        num_jobs: sent at once, each twice with one `Idempotency-Key`.
        num_kills: of replicas; two restarts of Serve and one loss of the head node come between.
    """
    with scratch_folder() as home:
        add_subjects(home, NUM_SUBJECTS, seed=seed)
        url = database or f"sqlite:///{home / 'jobs.sqlite3'}"
        record_transitions(url)
        server = Server(
            home=home,
            log="serve-chaos",
            database=url,
            settings={
                "engine_replicas": 2, "engine_cpus": 0.5, "max_batch": 4,
                "lease_s": 6.0, "drain_s": 20.0, "max_queued": 2 * num_jobs,
            },
        )  # fmt: skip
        chaos = _Chaos(server=server, url=url, choose=random.Random(f"chaos {seed}"))
        server.start()
        try:
            server.wait_ready()
            clients = threading.Thread(target=chaos.ask, args=(num_jobs,))
            clients.start()
            chaos.strike(num_kills)
            clients.join()
            wait_until(lambda: _has_ended(url), seconds=_QUIET_S)
        finally:
            server.stop()
        print(f"chaos: {dict(tally(url))}, {chaos.blows}", file=sys.stderr, flush=True)
        return _num_right(url, home / "serve" / "videos", set(chaos.jobs))


@dataclass(kw_only=True, eq=False)
class _Chaos:
    server: Server
    url: str
    choose: random.Random
    jobs: list[str] = field(default_factory=list)
    blows: dict[Blow, int] = field(default_factory=lambda: {"engine": 0, "serve": 0, "head": 0})

    def ask(self, num_jobs: int) -> None:
        """Send every job twice, whatever the server goes through, and cancel a few."""
        for number in range(num_jobs):
            first, second = self._send(number), self._send(number)
            if first != second:
                raise ChildProcessError(f"one Idempotency-Key made {first} and {second}")
            self.jobs.append(first)
        for job in random.Random(num_jobs).sample(self.jobs, min(NUM_CANCELED, num_jobs)):
            self._insist("POST", f"/v1/videos/{job}/cancel", expected=(202, 409))

    def strike(self, num_kills: int) -> None:
        """Kill replicas at random moments; restart Serve twice and lose the head once between."""
        blows: list[Blow] = ["engine"] * num_kills
        for blow, place in (("serve", 0.25), ("head", 0.5), ("serve", 0.75)):
            blows.insert(round(len(blows) * place), "head" if blow == "head" else "serve")
        for blow in blows:
            time.sleep(self.choose.uniform(*_PAUSE_S))
            self._strike_once(blow)

    def _strike_once(self, blow: Blow) -> None:
        if blow == "engine":
            # An engine that was just killed needs a while to come back.
            if not wait_until(lambda: self.server.kill_engine(self.choose), seconds=_PER_MOMENT_S):
                raise ChildProcessError("no engine came back after a kill")
        else:
            self.server.kill_head() if blow == "head" else self.server.stop()
            self.server.start()
            self.server.wait_ready()
        self.blows[blow] += 1
        left = num_open(self.url)
        print(f"chaos: {blow} {self.blows[blow]}, {left} left", file=sys.stderr, flush=True)

    def _send(self, number: int) -> str:
        subject = f"subject{number % NUM_SUBJECTS}"
        body = {
            "prompt": "a video of a [sks mug]", "subject": subject, "seed": number,
            "num_frames": _FRAMES, "num_inference_steps": _STEPS,
        }  # fmt: skip
        key = {"Idempotency-Key": f"chaos-{number}"}
        answer = self._insist("POST", "/v1/videos", expected=(202,), json=body, headers=key)
        return str(answer.json()["id"])

    def _insist(
        self,
        method: str,
        path: str,
        *,
        expected: tuple[int, ...],
        json: dict[str, object] | None = None,
        headers: dict[str, str] | None = None,
    ) -> httpx.Response:
        """Repeat a request until it is answered: the server may be gone for a while."""
        end = time.monotonic() + _QUIET_S
        while time.monotonic() < end:
            try:
                answer = httpx.request(
                    method, self.server.url + path, json=json, headers=headers, timeout=30
                )
                if answer.status_code in expected:
                    return answer
            except httpx.TransportError:
                pass
            time.sleep(0.5)
        raise ChildProcessError(f"{method} {path} was never answered with {expected}")


def _has_ended(url: str) -> bool:
    time.sleep(1)
    return num_open(url) == 0


def _num_right(url: str, clips: Path, jobs: set[str]) -> int:
    folders = [path.name for path in clips.iterdir()] if clips.is_dir() else []
    right = 0
    for job, states in final_states(url).items():
        own = [name for name in folders if name.startswith(f"{job}-")]
        is_right = job in jobs and len(states) == 1
        if states == ["completed"]:
            is_right &= len(own) == 1 and _num_frames(clips / own[0] / CLIP_NAME) == _FRAMES
        if not is_right:
            print(f"chaos: {job} reached {states}, files {own}", file=sys.stderr, flush=True)
        right += is_right
    return right


def _num_frames(path: Path) -> int:
    try:
        frames, _ = read_clip(path)
    except (ArtifactError, OSError):
        return 0
    return len(frames)
