"""Rows of the job table and the jobs they are."""

from dataclasses import fields
from typing import Any

from sqlalchemy import Connection, RowMapping, Select, case, func, select

from dreambooth3d.errors import Dreambooth3dError
from serve.records import IdempotencyError, Job, NewJob
from serve.tables import JOBS

# Turns longer ago than this no longer count.
_REMEMBERED_S = 600.0


def new_row(new: NewJob, job_id: str, now: float) -> dict[str, object]:
    """Fill a new row."""
    row: dict[str, object] = {field.name: getattr(new, field.name) for field in fields(new)}
    return row | {
        "id": job_id,
        "status": "queued",
        "progress": 0,
        "step": 0,
        "attempts": 0,
        "created_at": now,
        "stage_seconds": {},
    }


def find_repeat(
    connection: Connection, *, owner: str, key: str | None, request_hash: str
) -> Job | None:
    """Return the job that an idempotency key already made.

    Raises:
        IdempotencyError: it was another request's.
    """
    if key is None:
        return None
    same_key = (JOBS.c.owner == owner) & (JOBS.c.idempotency_key == key)
    found = read_jobs(connection, select(JOBS).where(same_key))
    if found and found[0].request_hash != request_hash:
        raise IdempotencyError(
            "an Idempotency-Key must come with the request it was first used for, "
            "got another request; use a new key"
        )
    return found[0] if found else None


def count_queued(connection: Connection, *, up_to: int | None = None) -> int:
    """Count waiting jobs, all or up to a number."""
    query = select(func.count()).where(JOBS.c.status == "queued")
    if up_to is not None:
        query = query.where(JOBS.c.number <= up_to)
    return connection.scalar(query) or 0


def next_in_turn(connection: Connection, *, now: float) -> RowMapping | None:
    """The oldest waiting job of the owner who was served longest ago: number, kind, tokens."""
    is_queued = JOBS.c.status == "queued"
    waiting = select(JOBS.c.owner, func.min(JOBS.c.number).label("number")).where(is_queued)
    heads = {
        row.owner: row.number for row in connection.execute(waiting.group_by(JOBS.c.owner)).all()
    }
    if len(heads) > 1:
        served = select(JOBS.c.owner, func.max(JOBS.c.started_at)).where(
            JOBS.c.owner.in_(heads), JOBS.c.started_at > now - _REMEMBERED_S
        )
        last = {row[0]: row[1] for row in connection.execute(served.group_by(JOBS.c.owner))}
        owner = min(heads, key=lambda owner: (last.get(owner, 0.0), heads[owner]))
        heads = {owner: heads[owner]}
    wanted = select(JOBS.c.number, JOBS.c.batch_key, JOBS.c.num_tokens)
    return connection.execute(wanted.where(JOBS.c.number.in_(heads.values()))).mappings().first()


def ids_beside(connection: Connection, first: RowMapping, *, num_rows: int) -> tuple[str, ...]:
    """Ids of a job and of others of its kind that wait, the owners by turns; locked."""
    is_meant = (JOBS.c.status == "queued") & (JOBS.c.batch_key == first["batch_key"])
    turn = func.row_number().over(partition_by=JOBS.c.owner, order_by=JOBS.c.number)
    turns = select(JOBS.c.number, turn.label("turn")).where(is_meant).subquery()
    is_first = case((JOBS.c.number == first["number"], 0), else_=1)
    query = (
        select(JOBS.c.id)
        .join(turns, turns.c.number == JOBS.c.number)
        .where(is_meant)
        .order_by(is_first, turns.c.turn, JOBS.c.number)
        .limit(num_rows)
        .with_for_update(skip_locked=True, of=JOBS)
    )
    return tuple(connection.scalars(query))


def get_job(connection: Connection, job_id: str) -> Job | None:
    """Read one job."""
    found = read_jobs(connection, select(JOBS).where(JOBS.c.id == job_id))
    return found[0] if found else None


def read_jobs(connection: Connection, query: Select[Any]) -> tuple[Job, ...]:
    """Read the jobs of a query."""
    return tuple(job_of(row) for row in connection.execute(query).mappings())


def job_of(row: RowMapping) -> Job:
    """Read one row."""
    return Job(**{str(name): value for name, value in row.items()})


def need(job: Job | None) -> Job:
    """Refuse to go on without a job that was stored."""
    if job is None:
        raise Dreambooth3dError("a stored job must be readable, got no row; send it again")
    return job
