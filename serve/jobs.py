"""The job table: every accepted job ends in exactly one of completed, failed, canceled.

::

    queued --claim--> in_progress --complete--> completed
      |  ^                 |  |-----fail------> failed
      |  '--release/expiry-'  '----cancel-----> canceled
      '-------cancel--------------------------> canceled

A transition is one conditional UPDATE on the status it starts from and, for an engine, on the
lease token of its claim; whoever comes second changes no row. Any SQLAlchemy URL works; SQLite
runs in WAL mode with every commit synced, so an accepted job survives the machine.
"""

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from sqlalchemy import (
    Connection,
    CursorResult,
    Update,
    delete,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError

from dreambooth3d.artifacts.jsonfile import JsonValue
from serve.database import Database
from serve.records import LIVE, STATUSES, Claim, Job, NewJob, QueueFullError, QuotaError
from serve.rows import (
    count_queued,
    find_repeat,
    get_job,
    ids_beside,
    need,
    new_row,
    next_in_turn,
    read_jobs,
)
from serve.tables import JOBS, take_turn

_FORGET_LEASE: Mapping[str, None] = {"lease_owner": None, "lease_expires": None}
_START_AGAIN: Mapping[str, object] = {
    "status": "queued",
    "progress": 0,
    "step": 0,
    "started_at": None,
    **_FORGET_LEASE,
}
_RECENT = 20


class JobTable:
    """All reads and writes of jobs; safe from several threads, processes and machines.

    Args:
        url: SQLAlchemy URL.
        clock: Unix seconds; machines that share a table must agree to well within a lease.
    """

    def __init__(self, url: str, *, clock: Callable[[], float] = time.time) -> None:
        self._database = Database(url)
        self._clock = clock

    def close(self) -> None:
        """Close all connections."""
        self._database.close()

    # --- clients ---

    def submit(
        self, new: NewJob, *, max_queued: int, max_live: int | None = None
    ) -> tuple[Job, bool]:
        """Store a job, or find the one its idempotency key already made.

        Args:
            new: what to store.
            max_queued: jobs that may wait, of all owners together.
            max_live: jobs of this owner that may be unfinished; None for any number.

        Returns:
            The job, and whether it is new.

        Raises:
            QueueFullError: `max_queued` jobs are waiting.
            QuotaError: the owner has `max_live` unfinished jobs.
            IdempotencyError: the key was used for another request.
        """
        try:
            with self._database.writing() as connection:
                take_turn(connection)
                earlier = _earlier(connection, new)
                if earlier is not None:
                    return earlier, False
                waiting = count_queued(connection)
                if waiting >= max_queued:
                    raise QueueFullError(
                        f"the queue must hold fewer than {max_queued} jobs, got {waiting}; "
                        "send the request again later"
                    )
                _check_quota(connection, new.owner, max_live)
                job_id = f"video_{uuid.uuid4().hex}"
                connection.execute(insert(JOBS).values(new_row(new, job_id, self._clock())))
                return need(get_job(connection, job_id)), True
        except IntegrityError:
            # Another ingress stored the same key between our look and our insert.
            with self._database.reading() as connection:
                return need(_earlier(connection, new)), False

    def repeat(self, *, owner: str, key: str, request_hash: str) -> Job | None:
        """Find the job that an idempotency key already made.

        Raises:
            IdempotencyError: it was another request's.
        """
        with self._database.reading() as connection:
            return find_repeat(connection, owner=owner, key=key, request_hash=request_hash)

    def get(self, job_id: str) -> Job | None:
        """Read one job."""
        with self._database.reading() as connection:
            return get_job(connection, job_id)

    def page(
        self,
        *,
        owner: str = "",
        after: str | None = None,
        limit: int = 20,
        order: Literal["asc", "desc"] = "desc",
    ) -> tuple[tuple[Job, ...], bool] | None:
        """Read one page of an owner's jobs and whether more follow; None: `after` is unknown."""
        is_own = JOBS.c.owner == owner
        query = select(JOBS).where(is_own)
        with self._database.reading() as connection:
            if after is not None:
                start = connection.scalar(select(JOBS.c.number).where(is_own, JOBS.c.id == after))
                if start is None:
                    return None
                is_beyond = JOBS.c.number < start if order == "desc" else JOBS.c.number > start
                query = query.where(is_beyond)
            by_number = JOBS.c.number.desc() if order == "desc" else JOBS.c.number
            found = read_jobs(connection, query.order_by(by_number).limit(limit + 1))
        return found[:limit], len(found) > limit

    def cancel(self, job_id: str) -> Job | None:
        """Cancel a live job and return what it is now; a finished one stays what it is.

        The engine that works on it sees this after its current step.
        """
        with self._database.writing() as connection:
            ended = {"status": "canceled", "finished_at": self._clock(), **_FORGET_LEASE}
            is_live = (JOBS.c.id == job_id) & JOBS.c.status.in_(LIVE)
            connection.execute(update(JOBS).where(is_live).values(ended))
            return get_job(connection, job_id)

    def delete(self, job_id: str) -> Job | None:
        """Remove a job, live or not, and return what it was."""
        with self._database.writing() as connection:
            found = get_job(connection, job_id)
            connection.execute(delete(JOBS).where(JOBS.c.id == job_id))
            return found

    def queue_position(self, job: Job) -> int | None:
        """Place in the queue, 1 is next; None unless queued."""
        if job.status != "queued":
            return None
        with self._database.reading() as connection:
            return count_queued(connection, up_to=job.number)

    def queue_state(self) -> tuple[int, float]:
        """How many jobs wait, and for how many seconds the oldest has."""
        with self._database.reading() as connection:
            query = select(func.count(), func.min(JOBS.c.created_at))
            count, oldest = connection.execute(query.where(JOBS.c.status == "queued")).one()
        return count, 0.0 if oldest is None else max(0.0, self._clock() - oldest)

    def is_busy(self) -> bool:
        """Whether an engine works on a job."""
        with self._database.reading() as connection:
            working = select(JOBS.c.number).where(JOBS.c.status == "in_progress").limit(1)
            return connection.scalar(working) is not None

    def counts(self) -> dict[str, int]:
        """How many jobs there are of each status."""
        with self._database.reading() as connection:
            query = select(JOBS.c.status, func.count()).group_by(JOBS.c.status)
            found = {str(status): int(count) for status, count in connection.execute(query)}
        return dict.fromkeys(STATUSES, 0) | found

    def mean_seconds(self, batch_key: str | None = None) -> float | None:
        """Mean time from claim to end of the jobs completed last; None before the first.

        Args:
            batch_key: only jobs of this kind; None for all.
        """
        is_meant = JOBS.c.status == "completed"
        if batch_key is not None:
            is_meant &= JOBS.c.batch_key == batch_key
        recent = (
            select((JOBS.c.finished_at - JOBS.c.started_at).label("seconds"))
            .where(is_meant)
            .order_by(JOBS.c.number.desc())
            .limit(_RECENT)
            .subquery()
        )
        with self._database.reading() as connection:
            return connection.scalar(select(func.avg(recent.c.seconds)))

    # --- engines ---

    def claim(self, *, max_jobs: int, max_tokens: int, lease_s: float) -> Claim | None:
        """Take a queued job and others of its `batch_key`; None when nothing waits.

        Owners take turns, so that somebody's hundred jobs do not hold up one of somebody else; of
        an owner the oldest goes first.
        """
        token = uuid.uuid4().hex
        with self._database.reading() as connection:
            # An idle engine looks often and must not take the write lock each time.
            if count_queued(connection) == 0:
                return None
        with self._database.writing() as connection:
            now = self._clock()
            first = next_in_turn(connection, now=now)
            if first is None:
                return None
            num_rows = max(1, min(max_jobs, max_tokens // max(1, first["num_tokens"])))
            ids = ids_beside(connection, first, num_rows=num_rows)
            taken = {
                "status": "in_progress",
                "lease_owner": token,
                "lease_expires": now + lease_s,
                "attempts": JOBS.c.attempts + 1,
                "started_at": now,
            }
            is_free = (JOBS.c.status == "queued") & JOBS.c.id.in_(ids)
            connection.execute(update(JOBS).where(is_free).values(taken))
            mine = select(JOBS).where(JOBS.c.lease_owner == token).order_by(JOBS.c.number)
            jobs = read_jobs(connection, mine)
        return Claim(token=token, jobs=jobs) if jobs else None

    def describe(
        self, token: str, job_id: str, *, batch_size: int, adapter: dict[str, JsonValue] | None
    ) -> None:
        """Note beside whom and with which adapter a claimed job runs."""
        self._change(_owned(token, job_id).values(batch_size=batch_size, adapter=adapter))

    def advance(
        self,
        token: str,
        ids: Sequence[str],
        *,
        step: int,
        steps: int,
        stage_seconds: Mapping[str, float],
        lease_s: float,
    ) -> frozenset[str]:
        """Report a finished step, renew the leases, and return the jobs that are still ours."""
        with self._database.writing() as connection:
            mine = (JOBS.c.lease_owner == token) & JOBS.c.id.in_(ids)
            reached = {
                "step": step,
                "steps": steps,
                # The last part is for decoding and writing.
                "progress": 95 * step // steps,
                "stage_seconds": dict(stage_seconds),
                "lease_expires": self._clock() + lease_s,
            }
            connection.execute(update(JOBS).where(mine).values(reached))
            return frozenset(connection.scalars(select(JOBS.c.id).where(mine)))

    def extend(self, token: str, *, lease_s: float) -> None:
        """Renew every lease of a claim between steps."""
        mine = update(JOBS).where(JOBS.c.lease_owner == token)
        self._change(mine.values(lease_expires=self._clock() + lease_s))

    def complete(
        self,
        token: str,
        job_id: str,
        *,
        result_path: str,
        stage_seconds: Mapping[str, float],
        keep_s: float,
    ) -> bool:
        """End a job well; False when it is no longer ours."""
        now = self._clock()
        ended = _owned(token, job_id).values(
            status="completed",
            progress=100,
            step=JOBS.c.steps,
            finished_at=now,
            expires_at=now + keep_s,
            result_path=result_path,
            stage_seconds=dict(stage_seconds),
            **_FORGET_LEASE,
        )
        return self._change(ended) == 1

    def fail(self, token: str, job_id: str, *, code: str, message: str) -> bool:
        """End a job badly; False when it is no longer ours."""
        ended = _owned(token, job_id).values(
            status="failed",
            finished_at=self._clock(),
            error_code=code,
            error_message=message,
            **_FORGET_LEASE,
        )
        return self._change(ended) == 1

    def release(self, token: str, job_id: str | None = None) -> int:
        """Give one job of a claim, or all, back to the queue; the claim does not count."""
        back = _owned(token, job_id).values(attempts=JOBS.c.attempts - 1, **_START_AGAIN)
        return self._change(back)

    def expire_leases(self, *, max_attempts: int) -> tuple[int, int]:
        """Queue jobs of silent engines again; fail those claimed `max_attempts` times.

        Returns:
            How many were queued again and how many failed.
        """
        now = self._clock()
        is_lost = (JOBS.c.status == "in_progress") & (JOBS.c.lease_expires < now)
        lost = update(JOBS).where(is_lost)
        failed = lost.where(JOBS.c.attempts >= max_attempts).values(
            status="failed",
            finished_at=now,
            error_code="engine_lost",
            error_message=f"the engine must finish a job, got lost {max_attempts} times while "
            "working on this one; send a smaller request or ask the operator",
            **_FORGET_LEASE,
        )
        again = lost.where(JOBS.c.attempts < max_attempts).values(dict(_START_AGAIN))
        with self._database.writing() as connection:
            num_failed = connection.execute(failed).rowcount
            return connection.execute(again).rowcount, num_failed

    def take_expired_results(self) -> tuple[str, ...]:
        """Forget the results whose time is over and return their folders."""
        is_over = JOBS.c.result_path.is_not(None) & (JOBS.c.expires_at < self._clock())
        with self._database.writing() as connection:
            folders = tuple(connection.scalars(select(JOBS.c.result_path).where(is_over)))
            connection.execute(update(JOBS).where(is_over).values(result_path=None))
        return folders

    def _change(self, statement: Update) -> int:
        with self._database.writing() as connection:
            result: CursorResult[Any] = connection.execute(statement)
            return result.rowcount


def _earlier(connection: Connection, new: NewJob) -> Job | None:
    return find_repeat(
        connection, owner=new.owner, key=new.idempotency_key, request_hash=new.request_hash
    )


def _check_quota(connection: Connection, owner: str, max_live: int | None) -> None:
    if max_live is None:
        return
    is_own = (JOBS.c.owner == owner) & JOBS.c.status.in_(LIVE)
    live = connection.scalar(select(func.count()).where(is_own)) or 0
    if live >= max_live:
        raise QuotaError(
            f"a key must have fewer than {max_live} unfinished jobs, got {live}; "
            "wait for one to end or cancel one"
        )


def _owned(token: str, job_id: str | None) -> Update:
    # Only a job in progress has a lease owner, so the token alone proves the status.
    mine = update(JOBS).where(JOBS.c.lease_owner == token)
    return mine if job_id is None else mine.where(JOBS.c.id == job_id)
