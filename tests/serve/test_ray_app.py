import io
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import av
import httpx
import psutil
import pytest
import ray
from PIL import Image, ImageDraw
from ray import serve as ray_serve

from serve.settings import ServeSettings

AddSubject = Callable[..., Path]
RUNNING = ("queued", "in_progress")
pytestmark = pytest.mark.ray


@contextmanager
def serving(settings: ServeSettings, **changes: object) -> Iterator[httpx.Client]:
    """The application under Ray Serve on a free port of loopback."""
    from serve.app import build

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        ray_serve.start(http_options={"host": "127.0.0.1", "port": port})
        ray_serve.run(build(settings.model_copy(update=changes)))
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            yield client
        ray_serve.shutdown()
    finally:
        ray.shutdown()


@pytest.fixture
def http(settings: ServeSettings) -> Iterator[httpx.Client]:
    with serving(settings, drain_s=5.0, pretrained="", subject_steps=2) as client:
        yield client


def wait(read: Callable[[], Any], is_done: Callable[[Any], bool], *, seconds: float = 90) -> Any:
    ends = time.monotonic() + seconds
    while not is_done(found := read()):
        assert time.monotonic() < ends, found
        time.sleep(0.1)
    return found


def engines() -> list[psutil.Process]:
    return [p for p in psutil.Process().children(recursive=True) if is_engine(p)]


def is_engine(process: psutil.Process) -> bool:
    try:
        return "ServeReplica:default:engine" in " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return False


def photo(color: str) -> bytes:
    data = io.BytesIO()
    picture = Image.new("RGB", (96, 96), "white")
    ImageDraw.Draw(picture).ellipse((24, 24, 72, 72), fill=color)
    picture.save(data, format="JPEG")
    return data.getvalue()


def test_a_clip_and_a_lost_engine_under_ray_serve(
    http: httpx.Client, add_subject: AddSubject
) -> None:
    wait(lambda: http.get("/readyz").status_code, lambda status: status == 200)
    # Added after the start: servable without a restart.
    add_subject("mug")
    asked = {"prompt": "a [sks mug]", "subject": "mug", "num_frames": 9, "num_inference_steps": 4}
    created = http.post("/v1/videos", json=asked)
    assert created.status_code == 202
    where = created.headers["location"]
    video = wait(lambda: http.get(where).json(), lambda v: v["status"] == "completed")
    assert video["adapter"]["layers_applied"] == video["adapter"]["layers_expected"]
    content = http.get(f"{where}/content").content
    with av.open(io.BytesIO(content)) as container:
        assert sum(1 for _ in container.decode(video=0)) == 9
    part = http.get(f"{where}/content", headers={"Range": "bytes=0-9"})
    assert (part.status_code, part.content) == (206, content[:10])

    long = asked | {"num_inference_steps": 100, "num_frames": 33, "size": "64x64"}
    where = http.post("/v1/videos", json=long).headers["location"]
    wait(lambda: http.get(where).json(), lambda v: v["step"] > 0)
    os.kill(engines()[0].pid, signal.SIGKILL)
    assert http.get("/healthz").status_code == 200
    video = wait(lambda: http.get(where).json(), lambda v: v["status"] not in RUNNING)
    assert (video["status"], video["attempts"]) == ("completed", 2)

    files = [("images[]", ("a.jpg", photo(color))) for color in ("red", "green")]
    sent = http.post("/v1/subjects", files=files, data={"class_noun": "mug", "name": "mine"})
    assert sent.status_code == 202, sent.text
    home = sent.headers["location"]
    subject = wait(
        lambda: http.get(home).json(), lambda s: s["status"] not in ("queued", "training")
    )
    assert (subject["status"], subject["adapter"]["steps"]) == ("ready", 2), subject
    asked = {"prompt": "a [sks mug]", "subject": subject["id"], "num_inference_steps": 2}
    where = http.post("/v1/videos", json=asked).headers["location"]
    video = wait(lambda: http.get(where).json(), lambda v: v["status"] not in RUNNING)
    assert (video["status"], video["subject"]) == ("completed", subject["id"])
    assert http.delete(home).json()["deleted"]
    assert http.get(home).status_code == 404


@pytest.mark.slow
def test_engines_go_when_nothing_waits_and_come_back(settings: ServeSettings) -> None:
    limits = {"engine_replicas": 0, "max_engine_replicas": 1, "scale_down_s": 3.0, "drain_s": 5.0}
    asked = {"prompt": "a red car", "num_frames": 5, "num_inference_steps": 2}
    with serving(settings, **limits) as http:
        for _ in range(2):
            wait(engines, lambda found: not found)
            assert http.get("/readyz").status_code == 200
            where = http.post("/v1/videos", json=asked).headers["location"]
            wait(partial(http.get, where), lambda answer: answer.json()["status"] == "completed")
