"""When a clip will be done, and when to ask again."""

from dataclasses import replace

import pytest

from serve.events import StreamSlots
from serve.jobs import JobTable
from serve.records import Job, NewJob
from serve.replies import estimate_seconds, poll_after_ms


@pytest.fixture
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    table = JobTable(f"sqlite:///{tmp_path_factory.mktemp('jobs') / 'jobs.sqlite3'}")
    new = NewJob(request={}, request_hash="h", batch_key="k", num_tokens=1, steps=4)
    stored, _ = table.submit(new, max_queued=1)
    return stored


def estimate(
    job: Job, *, position: int | None = None, is_busy: bool = False, mean: float | None = 10.0
) -> float | None:
    return estimate_seconds(
        job, position=position, is_busy=is_busy, mean_seconds=mean, max_batch=8, now=100.0
    )


def test_next_job_of_an_idle_engine_takes_as_long_as_its_kind(job: Job) -> None:
    assert estimate(job, position=1) == 10


def test_a_queued_job_waits_for_the_batches_before_it(job: Job) -> None:
    assert estimate(job, position=8, is_busy=True) == 15
    assert estimate(job, position=9, is_busy=True) == 25


def test_decoding_after_the_last_step_is_foreseen(job: Job) -> None:
    running = replace(job, status="in_progress", started_at=96.0, step=4, steps=4)
    assert estimate(running) == 6


def test_a_batch_slower_than_its_kind_is_judged_by_its_steps(job: Job) -> None:
    running = replace(job, status="in_progress", started_at=80.0, step=1, steps=4)
    assert estimate(running) == 60


def test_nothing_to_go_by_is_no_estimate(job: Job) -> None:
    running = replace(job, status="in_progress", started_at=99.0, step=0)
    assert estimate(running, mean=None) is None
    assert estimate(job, position=1, mean=None) is None
    assert estimate(replace(job, status="completed")) is None


def test_clients_ask_before_the_end_and_within_bounds() -> None:
    assert [poll_after_ms(eta) for eta in (None, 0.0, 1.0, 60.0)] == [500, 50, 750, 5000]


def test_open_streams_are_bounded_and_come_back() -> None:
    now = [0.0]
    slots = StreamSlots(most=3, most_of_one=2, clock=lambda: now[0])
    first, second = slots.take("ana"), slots.take("ana")
    assert None not in (first, second)
    assert slots.take("ana") is None
    assert slots.take("bo") is not None
    assert slots.take("cy") is None
    slots.give_back(first)
    assert slots.take("ana") is not None
    # One that was never begun is free when it could not be open any more.
    now[0] = 301.0
    assert slots.take("ana") is not None
