"""A server at work: the official client, many clients at once, a redeploy, the cost of serving."""

import io
import os
import statistics
import sys
import threading
import time
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import av
import httpx
import openai
import torch
import yaml

from benchmarks.commands import run_logged, scratch_folder
from benchmarks.processes import resident_bytes, wait_until
from benchmarks.serve_server import Server, serving
from benchmarks.serve_subjects import add_subjects
from dreambooth3d.artifacts.clip import write_clip
from dreambooth3d.generate.generate import ClipRequest, generate_batch
from dreambooth3d.model.backbone import load_backbone

NUM_CLIENTS, LOAD_S = 100, 180.0
MAX_QUEUED = 50
NUM_CLIPS = 30
# The client's types name the hosted service's own sizes; it sends whatever it is given.
_SIZE: Any = "64x64"
_SECONDS: Any = "1"
_LIVE = ("queued", "in_progress")
_PATIENCE_S = 600.0


def official_client_steps(seed: int) -> float:
    """Steps, of nine, that the published `openai` client takes against the server unmodified."""
    with serving("serve-contract") as server, warnings.catch_warnings():
        # The hosted service closed, so every method of the client is marked deprecated.
        warnings.simplefilter("ignore", DeprecationWarning)
        (subject,) = add_subjects(server.home, 1, seed=seed)
        client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
        extra = {"subject": subject, "seed": seed, "num_inference_steps": 2, "num_frames": 5}
        video = client.videos.create(prompt="a [sks mug]", size=_SIZE, extra_body=extra)
        steps = [video.status in _LIVE]
        video = client.videos.poll(video.id)
        steps.append(video.status == "completed")
        steps.append(client.videos.retrieve(video.id).progress == 100)
        steps.append(_num_frames(client.videos.download_content(video.id).read()) == 5)
        other = client.videos.create_and_poll(prompt="a red car", seconds=_SECONDS)
        steps.append(other.status == "completed")
        again = client.videos.remix(video.id, prompt="a [sks mug] in snow")
        steps.append(client.videos.poll(again.id).status == "completed")
        client.videos.delete(again.id)
        steps.append([v.id for v in client.videos.list(limit=1)] == [other.id, video.id])
        steps.append(client.videos.delete(video.id).deleted)
        try:
            client.videos.retrieve(video.id)
        except openai.NotFoundError:
            steps.append(True)
        return float(sum(steps))


def _num_frames(clip: bytes) -> int:
    with av.open(io.BytesIO(clip)) as container:
        return sum(1 for _ in container.decode(video=0))


def overhead_seconds(seed: int) -> float:
    """Seconds a served clip takes beyond 1.05 times the same clip in process, p50 of 30 each.

    Both write an mp4, both compute with all cores; the client asks when the server tells it to.
    """
    alone = _seconds_in_process(seed)
    with serving("serve-overhead") as server, httpx.Client(base_url=server.url) as http:
        served = statistics.median(_seconds_served(http, seed + i) for i in range(NUM_CLIPS))
    print(f"overhead: in process {alone:.3f} s, served {served:.3f} s", file=sys.stderr, flush=True)
    return served - 1.05 * alone


def _seconds_in_process(seed: int) -> float:
    torch.set_num_threads(os.cpu_count() or 1)
    backbone = load_backbone("tiny")
    card = backbone.card
    spent = []
    for number in range(NUM_CLIPS + 1):
        row = ClipRequest(
            prompt="a red car", subject=None, num_frames=card.num_frames, width=card.width,
            height=card.height, flow_shift=card.flow_shift, seed=seed + number, num_steps=4,
        )  # fmt: skip
        started = time.perf_counter()
        (frames,) = generate_batch(backbone, [row])
        if frames is None:
            raise ChildProcessError("a clip in process must be finished, got it dropped")
        with scratch_folder() as folder:
            write_clip(folder / "clip.mp4", frames, fps=8, metadata={})
        spent.append(time.perf_counter() - started)
    return statistics.median(spent[1:])


def _seconds_served(http: httpx.Client, seed: int) -> float:
    """From the request until a look finds the clip completed."""
    body = {"prompt": "a red car", "seed": seed, "num_inference_steps": 4}
    started = time.perf_counter()
    answer = http.post("/v1/videos", json=body)
    where = answer.headers["location"]
    while (video := answer.json())["status"] in _LIVE:
        time.sleep(int(answer.headers["openai-poll-after-ms"]) / 1000)
        answer = http.get(where)
    if video["status"] != "completed":
        raise ChildProcessError(f"a clip must complete, got {video['status']}: {video['error']}")
    return time.perf_counter() - started


def status_p99_seconds(seed: int) -> float:
    """The 99th percentile of `GET` under 100 clients for three minutes.

    Raises:
        ChildProcessError: the queue grew beyond its bound, a full one was not refused with 429 and
            `Retry-After`, another status was answered, or memory grew by more than a tenth.
    """
    with serving("serve-load", max_queued=MAX_QUEUED) as server:
        crowd = _Crowd(server, seed)
        with ThreadPoolExecutor(NUM_CLIENTS) as pool:
            clients = [pool.submit(crowd.client, number) for number in range(NUM_CLIENTS)]
            time.sleep(LOAD_S / 3)
            early = resident_bytes(server.processes())
            for client in clients:
                client.result()
        growth = resident_bytes(server.processes()) / early - 1
    gets = sorted(crowd.gets)
    p99 = gets[int(0.99 * len(gets))]
    print(
        f"load: {dict(crowd.statuses)}, deepest queue {crowd.deepest}, memory {growth:+.1%}, "
        f"GET p50 {gets[len(gets) // 2]:.3f} s p99 {p99:.3f} s",
        file=sys.stderr,
        flush=True,
    )
    strange = set(crowd.statuses) - {200, 202, 429}
    if strange or not crowd.statuses[429] or crowd.deepest > MAX_QUEUED or growth > 0.10:
        raise ChildProcessError(
            f"under load: statuses {dict(crowd.statuses)}, queue {crowd.deepest} of {MAX_QUEUED}, "
            f"memory {growth:+.1%}"
        )
    return p99


class _Crowd:
    """Clients that order clips and wait for them, again and again.

    They wait between two requests as long as the server tells them to, as the published client
    does: `openai-poll-after-ms` after a look, `Retry-After` after a refusal.
    """

    def __init__(self, server: Server, seed: int) -> None:
        self._server = server
        self._seed = seed
        self._end = time.monotonic() + LOAD_S
        self._lock = threading.Lock()
        self.statuses: Counter[int] = Counter()
        self.gets: list[float] = []
        self.deepest = 0

    def client(self, number: int) -> None:
        """Be one client until the time is over."""
        body = {"prompt": "a red car", "seed": self._seed + number, "num_inference_steps": 2,
                "num_frames": 1}  # fmt: skip
        with httpx.Client(base_url=self._server.url, timeout=60) as http:
            while time.monotonic() < self._end:
                answer = http.post("/v1/videos", json=body)
                self._note(answer)
                if answer.status_code == 429:
                    time.sleep(float(answer.headers["retry-after"]))
                    continue
                where = answer.headers["location"]
                while answer.json()["status"] in _LIVE and time.monotonic() < self._end:
                    time.sleep(int(answer.headers["openai-poll-after-ms"]) / 1000)
                    started = time.perf_counter()
                    answer = http.get(where)
                    self._note(answer, seconds=time.perf_counter() - started)

    def _note(self, answer: httpx.Response, *, seconds: float | None = None) -> None:
        if answer.status_code == 429 and "retry-after" not in answer.headers:
            raise ChildProcessError("429 must come with Retry-After")
        with self._lock:
            self.statuses[answer.status_code] += 1
            if seconds is not None:
                self.gets.append(seconds)
            found = answer.json()
            self.deepest = max(self.deepest, found.get("queue_position") or 0)


def failed_in_redeploy(seed: int) -> float:
    """Running jobs, of eight, that do not complete when the application is deployed anew."""
    with (
        serving("serve-drain", max_batch=2, drain_s=120) as server,
        httpx.Client(base_url=server.url, timeout=60) as http,
    ):
        body = {"prompt": "a red car", "num_frames": 9, "num_inference_steps": 20}
        where = [
            http.post("/v1/videos", json=body | {"seed": seed + n}).headers["location"]
            for n in range(8)
        ]

        def videos() -> list[dict[str, Any]]:
            return [http.get(place).json() for place in where]

        wait_until(lambda: any(v["step"] > 0 for v in videos()), seconds=_PATIENCE_S)
        _deploy_again(server)
        wait_until(lambda: all(v["status"] not in _LIVE for v in videos()), seconds=_PATIENCE_S)
        ended = videos()
    print(f"drain: {[(v['status'], v['attempts']) for v in ended]}", file=sys.stderr, flush=True)
    return float(sum(video["status"] != "completed" for video in ended))


def _deploy_again(server: Server) -> None:
    """What an operator does: another setting in the file, `serve deploy`."""
    config = server.home / "serve.yaml"
    found = yaml.safe_load(config.read_text(encoding="utf-8"))
    found["applications"][0]["args"]["max_queued"] = 77
    config.write_text(yaml.safe_dump(found), encoding="utf-8")
    command = [str(Path(sys.executable).parent / "serve"), "deploy", str(config)]
    more = {"RAY_DASHBOARD_ADDRESS": server.dashboard, "RAY_AUTH_MODE": "token"}
    if code := run_logged(command, log="serve-drain-deploy", more=more):
        raise ChildProcessError(f"serve deploy ended with {code}; see runs/proof")
