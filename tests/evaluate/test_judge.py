"""The judge against a server of this process."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dreambooth3d.errors import ConfigError, RunError
from dreambooth3d.evaluate.judge import ChatJudge, Verdict

FRAMES = [np.zeros((36, 64, 3), np.uint8)] * 2
VIEWS = [Image.new("RGBA", (600, 900), (255, 0, 0, 128))]


@contextmanager
def serving(status: int, said: str) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    asked: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append({"path": self.path, "key": self.headers["Authorization"], **body})
            answer = json.dumps({"choices": [{"message": {"content": said}}]}).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_grades_of_four_axes_are_read() -> None:
    said = 'Sure:\n```json\n{"shape": 4, "colour": 5, "detail": 2.5, "overall": 4}\n```'
    with serving(200, said) as (url, asked):
        found = ChatJudge(url=url, model="qwen", key="secret")(FRAMES, VIEWS)
    assert found == Verdict(shape=4, colour=5, detail=2.5, overall=4)
    (request,) = asked
    assert request["path"] == "/v1/chat/completions"
    assert (request["model"], request["temperature"]) == ("qwen", 0)
    assert request["key"] == "Bearer secret"
    text, *pictures = request["messages"][0]["content"]
    assert "first 1 pictures" in text["text"]
    assert "last 2 are frames" in text["text"]
    assert len(pictures) == 3
    assert all(p["image_url"]["url"].startswith("data:image/jpeg;base64,") for p in pictures)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("It looks alike to me.", "must answer with grades"),
        ('{"shape": 4, "colour": 5, "overall": 4}', "must answer with grades"),
        ('{"shape": 4, "colour": "red", "detail": 1, "overall": 4}', "must answer with grades"),
        ('{"shape": 9, "colour": 5, "detail": 1, "overall": 4}', "grades from 1 to 5"),
    ],
)
def test_anything_but_grades_is_an_error(said: str, expected: str) -> None:
    with serving(200, said) as (url, _), pytest.raises(RunError, match=expected):
        ChatJudge(url=url, model="qwen")(FRAMES, VIEWS)


def test_a_server_that_refuses_or_is_absent_is_named() -> None:
    with serving(401, "") as (url, _):
        judge = ChatJudge(url=url, model="qwen", key="secret", timeout_seconds=5)
        with pytest.raises(RunError, match="status 401") as refusal:
            judge(FRAMES, VIEWS)
    assert "secret" not in str(refusal.value)
    assert "secret" not in repr(judge)
    with pytest.raises(RunError, match="got nothing from"):
        judge(FRAMES, VIEWS)


def test_an_address_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="http://"):
        ChatJudge(url="file:///etc/passwd", model="qwen")
    with pytest.raises(ConfigError, match="model must be named"):
        ChatJudge(url="http://localhost/v1", model="")
    with pytest.raises(ConfigError, match="timeout_seconds"):
        ChatJudge(url="http://localhost/v1", model="qwen", timeout_seconds=0)
