import multiprocessing
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from serve.jobs import JobTable
from serve.records import Claim, IdempotencyError, Job, NewJob, QueueFullError
from tests.serve.conftest import Clock


@pytest.fixture
def table(tmp_path: Path, clock: Clock) -> JobTable:
    return JobTable(f"sqlite:///{tmp_path / 'jobs.sqlite3'}", clock=clock)


def new_job(batch_key: str = "a", *, key: str | None = None, request_hash: str = "h") -> NewJob:
    return NewJob(
        request={"prompt": "x"},
        request_hash=request_hash,
        batch_key=batch_key,
        num_tokens=10,
        steps=4,
        idempotency_key=key,
    )


def submit(table: JobTable, batch_key: str = "a") -> Job:
    return table.submit(new_job(batch_key), max_queued=100)[0]


def claim(table: JobTable, *, max_jobs: int = 1, max_tokens: int = 10_000) -> Claim:
    found = table.claim(max_jobs=max_jobs, max_tokens=max_tokens, lease_s=10)
    assert found is not None
    return found


def advance(table: JobTable, found: Claim, step: int = 1) -> frozenset[str]:
    ids = [job.id for job in found.jobs]
    return table.advance(
        found.token, ids, step=step, steps=4, stage_seconds={"denoise": 1.0}, lease_s=10
    )


def complete(table: JobTable, found: Claim) -> bool:
    job_id = found.jobs[0].id
    return table.complete(
        found.token, job_id, result_path=f"{job_id}-1", stage_seconds={}, keep_s=100
    )


def test_submit_stores_a_queued_job(table: JobTable) -> None:
    job = submit(table)
    assert table.get(job.id) == job
    assert (job.status, job.progress, job.attempts, job.stage_seconds) == ("queued", 0, 0, {})
    assert job.request == {"prompt": "x"}
    assert job.adapter is None


def test_claim_takes_the_oldest_and_its_equals_up_to_both_bounds(table: JobTable) -> None:
    jobs = [submit(table, key) for key in "abaaab"]
    assert [job.id for job in claim(table, max_jobs=3).jobs] == [jobs[i].id for i in (0, 2, 3)]
    assert [job.id for job in claim(table, max_jobs=3, max_tokens=10).jobs] == [jobs[1].id]
    assert [job.id for job in claim(table, max_jobs=3, max_tokens=1).jobs] == [jobs[4].id]
    assert claim(table).jobs[0].id == jobs[5].id
    assert table.claim(max_jobs=1, max_tokens=10, lease_s=10) is None


def test_owners_take_turns(table: JobTable, clock: Clock) -> None:
    def asked(owner: str, kind: str, count: int) -> list[str]:
        new = replace(new_job(kind), owner=owner)
        return [table.submit(new, max_queued=100)[0].id for _ in range(count)]

    ana, bo, other = asked("ana", "a", 6), asked("bo", "a", 2), asked("cy", "b", 1)
    # Side by side in a batch, then the one whose kind did not fit.
    assert [job.id for job in claim(table, max_jobs=4).jobs] == [*ana[:2], *bo]
    clock.now += 1
    assert [job.id for job in claim(table, max_jobs=4).jobs] == other
    clock.now += 1
    late = asked("bo", "b", 1)
    assert [job.id for job in claim(table, max_jobs=2).jobs] == ana[2:4]
    clock.now += 1
    assert [job.id for job in claim(table, max_jobs=2).jobs] == late


def test_a_job_runs_to_its_end(table: JobTable, clock: Clock) -> None:
    job = submit(table)
    found = claim(table)
    table.describe(found.token, job.id, batch_size=1, adapter={"sha256": "f"})
    clock.now += 2
    assert advance(table, found, step=2) == {job.id}
    running = table.get(job.id)
    assert running is not None
    assert (running.status, running.progress, running.step) == ("in_progress", 47, 2)
    assert complete(table, found)
    done = table.get(job.id)
    assert done is not None
    assert (done.status, done.progress, done.step, done.lease_owner) == ("completed", 100, 4, None)
    assert (done.finished_at, done.expires_at) == (1002.0, 1102.0)
    assert done.adapter == {"sha256": "f"}
    assert table.mean_seconds() == 2.0


@pytest.mark.parametrize("end", ["complete", "fail", "cancel"])
def test_final_statuses_are_final(table: JobTable, clock: Clock, end: str) -> None:
    job = submit(table)
    found = claim(table)

    def fail() -> bool:
        return table.fail(found.token, job.id, code="c", message="m")

    {
        "complete": lambda: complete(table, found),
        "fail": fail,
        "cancel": lambda: table.cancel(job.id),
    }[end]()
    ended = table.get(job.id)
    clock.now += 1000
    assert not complete(table, found)
    assert not fail()
    assert advance(table, found) == frozenset()
    assert table.release(found.token) == 0
    assert table.expire_leases(max_attempts=3) == (0, 0)
    assert table.cancel(job.id) == ended == table.get(job.id)
    assert table.claim(max_jobs=1, max_tokens=10, lease_s=10) is None


def test_cancel_of_a_queued_and_of_a_running_job(table: JobTable) -> None:
    queued, other = submit(table), submit(table, "b")
    canceled = table.cancel(queued.id)
    assert canceled is not None
    assert canceled.status == "canceled"
    found = claim(table)
    assert found.jobs[0].id == other.id
    table.cancel(other.id)
    assert advance(table, found) == frozenset()
    assert table.cancel("video_unknown") is None


def test_a_lost_lease_goes_back_to_the_queue_and_the_loser_writes_nothing(
    table: JobTable, clock: Clock
) -> None:
    job = submit(table)
    lost = claim(table)
    clock.now += 9
    assert table.expire_leases(max_attempts=3) == (0, 0)
    table.extend(lost.token, lease_s=10)
    clock.now += 9
    assert table.expire_leases(max_attempts=3) == (0, 0)
    clock.now += 2
    assert table.expire_leases(max_attempts=3) == (1, 0)
    again = claim(table)
    assert (again.jobs[0].id, again.jobs[0].attempts) == (job.id, 2)
    assert advance(table, lost) == frozenset()
    assert not complete(table, lost)
    assert complete(table, again)


def test_a_job_that_loses_every_engine_fails(table: JobTable, clock: Clock) -> None:
    job = submit(table)
    outcomes = []
    for _ in range(3):
        claim(table)
        clock.now += 11
        outcomes.append(table.expire_leases(max_attempts=3))
    assert outcomes == [(1, 0), (1, 0), (0, 1)]
    failed = table.get(job.id)
    assert failed is not None
    assert (failed.status, failed.error_code) == ("failed", "engine_lost")
    assert "lost 3 times" in (failed.error_message or "")


def test_release_does_not_count_as_an_attempt(table: JobTable) -> None:
    jobs = [submit(table), submit(table)]
    found = claim(table, max_jobs=2)
    assert table.release(found.token, jobs[0].id) == 1
    assert table.release(found.token) == 1
    assert [job.attempts for job in claim(table, max_jobs=2).jobs] == [1, 1]


def test_an_idempotency_key_gives_the_same_job(table: JobTable) -> None:
    first, is_new = table.submit(new_job(key="k"), max_queued=1)
    again, is_again_new = table.submit(new_job(key="k"), max_queued=1)
    assert (is_new, is_again_new, again) == (True, False, first)
    with pytest.raises(IdempotencyError, match="use a new key"):
        table.submit(new_job(key="k", request_hash="other"), max_queued=9)
    table.submit(new_job(), max_queued=9)
    table.submit(new_job(), max_queued=9)


def test_a_repeat_is_found_without_a_new_job(table: JobTable) -> None:
    job, _ = table.submit(new_job(key="k"), max_queued=1)
    assert table.repeat(owner="", key="k", request_hash="h") == job
    assert table.repeat(owner="bo", key="k", request_hash="h") is None
    with pytest.raises(IdempotencyError):
        table.repeat(owner="", key="k", request_hash="other")


def test_the_queue_is_bounded(table: JobTable) -> None:
    table.submit(new_job(), max_queued=1)
    with pytest.raises(QueueFullError, match="fewer than 1 jobs, got 1"):
        table.submit(new_job(), max_queued=1)
    claim(table)
    table.submit(new_job(), max_queued=1)


def test_pages_positions_and_delete(table: JobTable) -> None:
    jobs = [submit(table) for _ in range(5)]
    page, has_more = table.page(limit=2) or ((), False)
    assert ([job.id for job in page], has_more) == ([jobs[4].id, jobs[3].id], True)
    page, has_more = table.page(after=jobs[1].id, limit=2) or ((), True)
    assert ([job.id for job in page], has_more) == ([jobs[0].id], False)
    page, _ = table.page(after=jobs[3].id, order="asc") or ((), False)
    assert [job.id for job in page] == [jobs[4].id]
    assert table.page(after="unknown") is None
    claim(table)
    assert table.queue_position(jobs[2]) == 2
    assert table.delete(jobs[2].id) == jobs[2]
    assert table.get(jobs[2].id) is None
    assert table.delete(jobs[2].id) is None


def test_results_expire(table: JobTable, clock: Clock) -> None:
    job = submit(table)
    complete(table, claim(table))
    assert table.take_expired_results() == ()
    clock.now += 101
    assert table.take_expired_results() == (f"{job.id}-1",)
    assert table.take_expired_results() == ()
    assert (found := table.get(job.id)) is not None
    assert (found.status, found.result_path) == ("completed", None)


def test_claimers_in_threads_never_share_a_job(
    tmp_path: Path, in_threads: Callable[[list[Callable[[], object]]], None]
) -> None:
    url = f"sqlite:///{tmp_path / 'jobs.sqlite3'}"
    tables = [JobTable(url) for _ in range(4)]
    ids = {submit(tables[0], "ab"[i % 2]).id for i in range(60)}
    taken: list[str] = []
    lock = threading.Lock()

    def drain(table: JobTable) -> None:
        while found := table.claim(max_jobs=3, max_tokens=10_000, lease_s=60):
            with lock:
                taken.extend(job.id for job in found.jobs)
            assert len({job.batch_key for job in found.jobs}) == 1

    in_threads([lambda table=table: drain(table) for table in tables])
    assert Counter(taken) == dict.fromkeys(ids, 1)


def _submit_and_claim(url: str, results: "multiprocessing.Queue[list[str]]") -> None:
    table = JobTable(url)
    for _ in range(10):
        submit(table)
    found = []
    while batch := table.claim(max_jobs=2, max_tokens=10_000, lease_s=60):
        found += [job.id for job in batch.jobs]
    results.put(found)


def test_processes_create_fill_and_drain_one_table(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'jobs.sqlite3'}"
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    workers = [context.Process(target=_submit_and_claim, args=(url, results)) for _ in range(3)]
    for worker in workers:
        worker.start()
    taken = [job_id for _ in workers for job_id in results.get(timeout=30)]
    for worker in workers:
        worker.join()
    table = JobTable(url)
    while batch := table.claim(max_jobs=9, max_tokens=10_000, lease_s=60):
        taken += [job.id for job in batch.jobs]
    assert len(taken) == len(set(taken)) == 30
