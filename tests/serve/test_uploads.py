import io
import sqlite3
import struct
import zlib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from dreambooth3d.personalize.progress import Board
from serve.keys import KeyTable
from serve.routes import make_api
from serve.services import open_services
from serve.settings import ServeSettings
from serve.trainer import ProgressNotes
from serve.trainings import TrainingTable

Files = list[tuple[str, tuple[str, bytes]]]


async def never() -> bool:
    return False


@pytest.fixture
def serve(settings: ServeSettings) -> Callable[..., TestClient]:
    def start(**changes: object) -> TestClient:
        changed = settings.model_copy(update=changes)
        api = make_api(open_services(changed, never, is_loopback=True))
        return TestClient(api, base_url="http://127.0.0.1")

    return start


def png(width: int = 40, height: int = 30) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (width, height), "red").save(data, format="PNG")
    return data.getvalue()


def huge_png(side: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def send(http: TestClient, *pictures: bytes, **fields: str) -> httpx.Response:
    files: Files = [("images[]", ("../../a.png", picture)) for picture in pictures]
    return http.post("/v1/subjects", files=files, data={"class_noun": "mug", **fields})


def refusal(answer: httpx.Response) -> tuple[int, str, str]:
    error = answer.json()["error"]
    assert " must " in error["message"], error
    return answer.status_code, error["code"], error["param"]


def test_photos_become_a_queued_subject_written_anew(
    serve: Callable[..., TestClient], settings: ServeSettings
) -> None:
    http = serve()
    polyglot = png() + b"PK\x03\x04<script>alert(1)</script>"
    subject = send(http, polyglot, png(), name="mine").json()
    assert (subject["status"], subject["name"], subject["phrase"]) == ("queued", "mine", "sks mug")
    kept = sorted((settings.uploads_root / subject["id"] / "images").iterdir())
    assert [path.name for path in kept] == ["001.png", "002.png"]
    assert b"script" not in kept[0].read_bytes()
    assert http.get("/v1/subjects").json()["data"][0]["id"] == subject["id"]
    asked = {"prompt": "a [sks mug]", "subject": subject["id"]}
    assert refusal(http.post("/v1/videos", json=asked))[:2] == (404, "subject_not_found")
    assert http.delete(f"/v1/subjects/{subject['id']}").status_code == 200
    assert not (settings.uploads_root / subject["id"]).exists()
    assert refusal(http.get(f"/v1/subjects/{subject['id']}"))[0] == 404


@pytest.mark.parametrize(
    ("pictures", "fields", "expected"),
    [
        ([], {}, (400, "invalid_value", "images")),
        ([b""], {}, (415, "not_an_image", "images")),
        ([b"<svg xmlns='http://www.w3.org/2000/svg'/>"], {}, (415, "not_an_image", "images")),
        ([b"PK\x03\x04" + b"0" * 99], {}, (415, "not_an_image", "images")),
        ([png()[:60]], {}, (415, "not_an_image", "images")),
        ([huge_png(22_361)], {}, (413, "image_too_large", "images")),
        ([b"x" * (2**24 + 1)], {}, (413, "upload_too_large", "images")),
        ([png()] * 33, {}, (413, "upload_too_large", "images")),
        ([png()] * 41, {}, (400, "invalid_value", "body")),
        ([png()], {"images[]": "/etc/passwd"}, (400, "invalid_value", "images")),
        ([png()], {"class_noun": "a [b]"}, (400, "invalid_value", "class_noun")),
        ([png()], {"class_noun": ""}, (400, "invalid_value", "class_noun")),
        ([png()], {"path": "/etc"}, (400, "invalid_value", "path")),
        ([png()], {"name": "n" * 65}, (400, "invalid_value", "name")),
    ],
)
def test_bad_uploads_leave_nothing(
    serve: Callable[..., TestClient],
    settings: ServeSettings,
    pictures: list[bytes],
    fields: dict[str, str],
    expected: tuple[int, str, str],
) -> None:
    http = serve()
    if not pictures:
        answer = http.post("/v1/subjects", files={"class_noun": (None, "mug")})
    else:
        answer = send(http, *pictures, **fields)
    assert refusal(answer) == expected
    assert not settings.uploads_root.exists()


def test_a_deleted_subject_is_gone_whole_and_is_never_anybody_elses(
    serve: Callable[..., TestClient], settings: ServeSettings, add_subject: Callable[..., Path]
) -> None:
    http = serve()
    sent = send(http, png()).json()["id"]
    home = settings.uploaded_root / sent
    adapter = home / "personalize" / "batch1" / "adapters" / sent
    adapter.parent.mkdir(parents=True)
    add_subject(sent).rename(adapter)
    assert http.get(f"/v1/subjects/{sent}").json()["status"] == "ready"
    add_subject(sent)
    assert http.delete(f"/v1/subjects/{sent}").status_code == 200
    assert not home.exists()
    # What a training leaves after that belongs to nobody.
    assert http.get("/v1/subjects").json()["data"] == []
    for path in (f"/v1/subjects/{sent}", f"/v1/subjects/{sent}/views/1"):
        assert refusal(http.get(path))[:2] == (404, "subject_not_found")
    asked = {"prompt": "a mug", "subject": sent}
    assert refusal(http.post("/v1/videos", json=asked))[:2] == (404, "subject_not_found")


def test_photos_are_refused_where_no_training_could_begin(
    serve: Callable[..., TestClient],
) -> None:
    # The packaged 3Dapter is one of another backbone.
    answer = send(serve(pretrained="tiny"), png())
    assert refusal(answer)[:2] == (409, "training_unavailable")


def test_a_ready_subject_keeps_its_name(
    serve: Callable[..., TestClient], settings: ServeSettings, add_subject: Callable[..., Path]
) -> None:
    http = serve()
    sent = send(http, png(), name="pink duck").json()
    add_subject(sent["id"])
    for found in (
        http.get(f"/v1/subjects/{sent['id']}").json(), http.get("/v1/subjects").json()["data"][0],
    ):  # fmt: skip
        assert (found["status"], found["name"]) == ("ready", "pink duck")
        assert found["created_at"] == sent["created_at"]


def test_subjects_belong_to_their_key_and_their_number_is_bounded(
    serve: Callable[..., TestClient], settings: ServeSettings
) -> None:
    http = serve(require_keys="always", max_trainings=1)
    table = KeyTable(settings.database_url)
    ana, bo = (
        {"Authorization": f"Bearer {table.add(n, days=None, max_live=9, per_minute=600)[1]}"}
        for n in ("ana", "bo")
    )
    http.headers.update(ana)
    mine = send(http, png()).json()["id"]
    full = send(http, png())
    assert refusal(full)[:2] == (429, "queue_full")
    assert full.headers["Retry-After"]
    assert len(list(settings.uploads_root.iterdir())) == 1
    assert http.get("/v1/subjects", headers=bo).json()["data"] == []
    for method in ("GET", "DELETE"):
        answer = http.request(method, f"/v1/subjects/{mine}", headers=bo)
        assert refusal(answer)[:2] == (404, "subject_not_found")


def test_a_training_is_one_trainers_at_a_time(settings: ServeSettings) -> None:
    now = [1000.0]
    table = TrainingTable(settings.database_url, clock=lambda: now[0])
    table.submit(
        "subject_1", owner="", name="", class_noun="mug", num_images=1, num_references=0,
        max_queued=9,
    )  # fmt: skip
    first = table.claim(lease_s=10)
    assert first is not None
    assert (first.status, first.attempts) == ("training", 1)
    assert table.claim(lease_s=10) is None
    now[0] += 11
    second = table.claim(lease_s=10)
    assert second is not None
    assert not table.extend(first, lease_s=10)
    assert not table.finish(first, error=None)
    table.release(second)
    third = table.claim(lease_s=10)
    assert third is not None
    assert third.attempts == 2
    assert table.finish(third, error="x must y, got z")
    ended = table.get("subject_1")
    assert ended is not None
    assert (ended.status, ended.error_code) == ("failed", "training_failed")


def test_progress_follows_the_lines_of_the_training(
    serve: Callable[..., TestClient], settings: ServeSettings
) -> None:
    http = serve()
    where = send(http, png()).headers["location"]
    table = TrainingTable(settings.database_url)
    training = table.claim(lease_s=10)
    assert training is not None
    board = Board({training.id: 400}, ProgressNotes(table, training), every=0.0)
    seen = []
    for step in (1, 100, 399, 400):
        board.hear(
            {"subject": training.id, "step": step, "num_steps": 400, "loss": 0.5, "identity": None}
        )
        board.say(1.0 + step)
        seen.append(http.get(where).json()["progress"])
    assert seen == [0, 25, 99, 99]
    table.finish(training, error=None)
    assert http.get(where).json()["progress"] == 100


def test_tables_of_an_earlier_version_get_what_they_lack(settings: ServeSettings) -> None:
    TrainingTable(settings.database_url)
    path = settings.database_url.removeprefix("sqlite:///")
    with closing(sqlite3.connect(path)) as earlier:
        earlier.execute("ALTER TABLE subjects DROP COLUMN progress")
        earlier.commit()
    table = TrainingTable(settings.database_url)
    assert table.of("") == ()


def test_a_training_that_loses_every_trainer_fails(settings: ServeSettings) -> None:
    now = [1000.0]
    table = TrainingTable(settings.database_url, clock=lambda: now[0])
    table.submit(
        "subject_1", owner="", name="", class_noun="mug", num_images=1, num_references=0,
        max_queued=9,
    )  # fmt: skip
    for _ in range(3):
        assert table.claim(lease_s=10) is not None
        now[0] += 11
    assert table.claim(lease_s=10) is None
    ended = table.get("subject_1")
    assert ended is not None
    assert (ended.status, ended.error_code) == ("failed", "trainer_lost")
