"""The order of subjects, second tries, progress, and children of a warm process."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from dreambooth3d.artifacts.subject import Subject
from dreambooth3d.personalize.config import PersonalizeConfig
from dreambooth3d.personalize.keys import home_of, key_of
from dreambooth3d.personalize.orders import Order
from dreambooth3d.personalize.personalize import resolve
from dreambooth3d.personalize.progress import Board
from dreambooth3d.personalize.schedule import Schedule
from dreambooth3d.personalize.warm_worker import work
from dreambooth3d.runtime.warm import connect, receive, send


def subject(name: str, priority: int = 0) -> Subject:
    return Subject(
        id=name, class_noun="mug", images=(Path("/a.png"),), references=(), priority=priority
    )


def test_higher_priorities_come_first_then_the_catalogues_order() -> None:
    names = [subject("a"), subject("b", 5), subject("c"), subject("d", 5)]
    schedule = Schedule(names, tries=2, backoff=1)
    turns = [schedule.next(0.0) for _ in names]
    assert [turn.subject.id for turn in turns if turn] == ["b", "d", "a", "c"]
    assert schedule.next(0.0) is None


def test_a_subject_that_lost_its_worker_waits_longer_each_time_and_then_fails() -> None:
    schedule = Schedule([subject("a"), subject("b")], tries=3, backoff=2)
    turn = schedule.next(0.0)
    assert turn is not None
    later = schedule.again(turn, saved_step=0, now=10.0)
    assert later is not None
    assert (later.attempt, later.ready_at) == (2, 12.0)
    other = schedule.next(11.0)
    assert other is not None
    assert other.subject.id == "b"
    assert schedule.next(11.9) is None
    turn = schedule.next(12.0)
    assert turn == later
    later = schedule.again(turn, saved_step=0, now=20.0)
    assert later is not None
    assert later.ready_at == 24.0
    assert schedule.again(later, saved_step=0, now=30.0) is None


def test_an_attempt_that_got_further_does_not_count() -> None:
    schedule = Schedule([subject("a")], tries=2, backoff=0)
    turn = schedule.next(0.0)
    for step in range(10, 100, 10):
        assert turn is not None
        turn = schedule.again(turn, saved_step=step, now=0.0)
    assert turn is not None
    assert turn.attempt == 10
    assert schedule.again(turn, saved_step=90, now=0.0) is None


def test_progress_tells_what_runs_and_when_it_ends() -> None:
    said: list[str] = []
    board = Board({"a": 100, "b": 100}, said.append, every=5)
    assert board.line(1.0) == "0/2 done, 0 failed, running starting, eta unknown"
    # It goes on from step 50: those that were there before say nothing of the pace.
    board.hear({"subject": "a", "step": 51, "num_steps": 100, "loss": 0.5, "identity": None})
    score = {"identity": 0.25, "judged_at": 50}
    board.hear({"subject": "a", "step": 60, "num_steps": 100, "loss": 0.25, **score})
    assert board.line(10.0) == (
        "0/2 done, 0 failed, running a 60/100 loss 0.2500 identity 0.250 (step 50), eta 2m20s"
    )
    board.end("a", is_failed=False)
    board.end("b", is_failed=True)
    board.say(1.0)
    board.say(6.0)
    board.say(7.0)
    assert said == ["personalize 1/2 done, 1 failed, running starting, eta 0s"]


def test_an_order_is_the_same_after_its_journey() -> None:
    order = Order(
        config=PersonalizeConfig(steps=3), subject=subject("a", 2), pretrained=None, key="k",
        parents=("p",), out=Path("/out"), stop=Path("/out/.stop"),
    )  # fmt: skip
    assert Order.from_json(json.loads(json.dumps(order.to_json()))) == order


def test_photos_that_changed_under_a_batch_are_refused(tmp_path: Path) -> None:
    photo = tmp_path / "a.png"
    Image.new("RGB", (8, 8), (200, 30, 30)).save(photo)
    mug, config = replace(subject("mug"), images=(photo,)), PersonalizeConfig(method="3dreambooth")
    order = Order(
        config=resolve(config, mug), subject=mug, pretrained=None, key=key_of(config, mug, ("p",)),
        parents=("p",), out=tmp_path / "out", stop=tmp_path / "stop",
    )  # fmt: skip
    Image.new("RGB", (8, 8), (30, 30, 200)).save(photo)
    outcome = work(order.to_json(), lambda told: None)
    assert outcome["status"] == "failed"
    assert "pictures of mug must stay as they were" in outcome["error"]
    assert not home_of(order.out, order.key).exists()


WORK = """
import os, time
LOADED = []
def warm_up(settings):
    LOADED.append((settings["name"], os.getpid()))
def work(order, tell):
    tell({"pid": os.getpid()})
    if order["how"] == "raise":
        raise ValueError("no such thing")
    if order["how"] == "wait":
        time.sleep(60)
    return {"loaded": LOADED, "pid": os.getpid()}
"""


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "some_work.py").write_text(WORK)
    socket = tmp_path / "warm" / "socket"
    socket.parent.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "dreambooth3d.runtime.warm", str(socket), "some_work",
         '{"name": "x"}'],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{Path.cwd()}"},
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == "ready\n"
    yield str(socket)
    process.stdin.close()
    assert process.wait(timeout=30) == 0
    assert not socket.parent.exists()


def test_children_share_what_was_loaded_once(address: str, tmp_path: Path) -> None:
    found = []
    for _ in range(2):
        with connect(address) as connection:
            send(connection, {"how": "well", "log": str(tmp_path / "log")})
            told = receive(connection)["told"]
            answer = receive(connection)["answer"]
            assert told == {"pid": answer["pid"]}
            found.append(answer)
    assert found[0]["loaded"] == found[1]["loaded"]
    assert len({answer["pid"] for answer in found} | {found[0]["loaded"][0][1]}) == 3


def test_a_child_that_ends_early_is_seen_and_its_error_is_in_the_log(
    address: str, tmp_path: Path
) -> None:
    log = tmp_path / "logs" / "a.log"
    for how in ("raise", "wait"):
        with connect(address) as connection:
            send(connection, {"how": how, "log": str(log)})
            pid = receive(connection)["told"]["pid"]
            if how == "wait":
                os.kill(pid, signal.SIGKILL)
            with pytest.raises((EOFError, ConnectionError)):
                receive(connection)
        if how == "raise":
            assert log.read_text().strip().endswith("ValueError: no such thing")


def test_a_child_ends_when_nobody_waits_for_it(address: str, tmp_path: Path) -> None:
    import psutil

    with connect(address) as connection:
        send(connection, {"how": "wait", "log": str(tmp_path / "log")})
        child = psutil.Process(receive(connection)["told"]["pid"])
    child.wait(timeout=30)
    assert not child.is_running()
