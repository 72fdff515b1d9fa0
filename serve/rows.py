"""Rows of the job table and the jobs they are."""

from dataclasses import fields
from typing import Any

from sqlalchemy import Connection, RowMapping, Select, func, select

from dreambooth3d.errors import Dreambooth3dError
from serve.records import IdempotencyError, Job, NewJob
from serve.tables import JOBS


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


def find_repeat(connection: Connection, new: NewJob) -> Job | None:
    """Return the job that an idempotency key already made."""
    if new.idempotency_key is None:
        return None
    same_key = (JOBS.c.owner == new.owner) & (JOBS.c.idempotency_key == new.idempotency_key)
    found = read_jobs(connection, select(JOBS).where(same_key))
    if found and found[0].request_hash != new.request_hash:
        raise IdempotencyError(
            "an Idempotency-Key must come with the request it was first used for, "
            "got another request; use a new key"
        )
    return found[0] if found else None


def count_queued(connection: Connection, *, up_to: int | None = None) -> int:
    """Count waiting jobs, of one owner or up to a number."""
    query = select(func.count()).where(JOBS.c.status == "queued")
    if up_to is not None:
        query = query.where(JOBS.c.number <= up_to)
    return connection.scalar(query) or 0


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
