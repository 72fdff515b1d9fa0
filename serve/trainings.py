"""Subjects in the making: a durable row each, trained by whoever holds its lease."""

import re
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import ColumnElement, Connection, RowMapping, delete, func, insert, select, update

from serve.database import Database
from serve.records import QueueFullError
from serve.tables import SUBJECTS, take_turn

SubjectStatus = Literal["queued", "training", "ready", "failed", "canceled"]
_LIVE = ("queued", "training")
_MAX_ATTEMPTS = 3
_UPLOADED = re.compile(r"subject_[0-9a-f]{32}")


@dataclass(frozen=True, kw_only=True)
class Training:
    """One subject that a client sent photos of. Times in Unix seconds."""

    id: str
    owner: str
    name: str
    class_noun: str
    num_images: int
    num_references: int
    status: SubjectStatus
    attempts: int
    lease_owner: str | None
    lease_expires: float | None
    created_at: float
    finished_at: float | None
    error_code: str | None
    error_message: str | None
    progress: int | None = None


def new_subject_id() -> str:
    """An id that nobody can guess or choose."""
    return f"subject_{uuid.uuid4().hex}"


def is_uploaded_id(subject_id: str) -> bool:
    """Whether an id is one of `new_subject_id`."""
    return _UPLOADED.fullmatch(subject_id) is not None


class TrainingTable:
    """Rows in the database of the jobs; every change is one conditional UPDATE."""

    def __init__(self, url: str, *, clock: Callable[[], float] = time.time) -> None:
        self._database = Database(url)
        self._clock = clock

    def submit(
        self,
        subject_id: str,
        *,
        owner: str,
        name: str,
        class_noun: str,
        num_images: int,
        num_references: int,
        max_queued: int,
    ) -> Training:
        """Store a subject whose photos are already on disk.

        Raises:
            QueueFullError: as many wait as may.
        """
        row = {
            "id": subject_id, "owner": owner, "name": name, "class_noun": class_noun,
            "num_images": num_images, "num_references": num_references, "status": "queued",
            "attempts": 0, "created_at": self._clock(),
        }  # fmt: skip
        with self._database.writing() as connection:
            take_turn(connection)
            _check_room(connection, max_queued)
            connection.execute(insert(SUBJECTS).values(row))
            return _training(
                connection.execute(select(SUBJECTS).where(SUBJECTS.c.id == subject_id))
                .mappings()
                .one()
            )

    def check_room(self, *, max_queued: int) -> None:
        """Raise a `QueueFullError` when as many wait as may."""
        with self._database.reading() as connection:
            _check_room(connection, max_queued)

    def get(self, subject_id: str) -> Training | None:
        """Read one."""
        return next(iter(self._read(SUBJECTS.c.id == subject_id)), None)

    def of(self, owner: str) -> tuple[Training, ...]:
        """Every one of an owner, by id."""
        return self._read(SUBJECTS.c.owner == owner)

    def remove(self, subject_id: str) -> None:
        """Forget a subject; whoever trains it sees so at its next look."""
        with self._database.writing() as connection:
            connection.execute(delete(SUBJECTS).where(SUBJECTS.c.id == subject_id))

    def claim(self, *, lease_s: float) -> Training | None:
        """Take the one that waits longest, or whose trainer went silent."""
        now, token = self._clock(), uuid.uuid4().hex
        is_lost = (SUBJECTS.c.status == "training") & (SUBJECTS.c.lease_expires < now)
        is_free = (SUBJECTS.c.status == "queued") | is_lost
        with self._database.writing() as connection:
            given_up = {
                "status": "failed", "finished_at": now, "error_code": "trainer_lost",
                "error_message": "a training must end, got its trainer lost again and again; "
                "ask the operator",
                "lease_owner": None, "lease_expires": None,
            }  # fmt: skip
            is_hopeless = is_lost & (SUBJECTS.c.attempts >= _MAX_ATTEMPTS)
            connection.execute(update(SUBJECTS).where(is_hopeless).values(given_up))
            first = connection.scalar(
                select(SUBJECTS.c.id)
                .where(is_free)
                .order_by(SUBJECTS.c.created_at)
                .limit(1)
                .with_for_update(skip_locked=True)
            )
            taken = {
                "status": "training", "lease_owner": token, "lease_expires": now + lease_s,
                "attempts": SUBJECTS.c.attempts + 1,
            }  # fmt: skip
            is_first = (SUBJECTS.c.id == first) & is_free
            connection.execute(update(SUBJECTS).where(is_first).values(taken))
        return next(iter(self._read(SUBJECTS.c.lease_owner == token)), None)

    def extend(self, training: Training, *, lease_s: float) -> bool:
        """Renew a lease; False when the subject is gone or somebody else's."""
        return self._change(training, {"lease_expires": self._clock() + lease_s})

    def advance(self, training: Training, *, step: int, steps: int) -> None:
        """Note how far a training is; what follows its last update is the last hundredth."""
        self._change(training, {"progress": min(99, 100 * step // max(1, steps))})

    def finish(self, training: Training, *, error: str | None) -> bool:
        """End a training, well without an error."""
        ended = {
            "status": "ready" if error is None else "failed",
            "finished_at": self._clock(),
            "error_code": None if error is None else "training_failed",
            "error_message": error,
        }
        return self._change(training, {**ended, "lease_owner": None, "lease_expires": None})

    def release(self, training: Training) -> None:
        """Give a training back; the claim does not count."""
        back = {"status": "queued", "lease_owner": None, "lease_expires": None}
        self._change(training, {**back, "attempts": training.attempts - 1})

    def _change(self, training: Training, values: dict[str, object]) -> bool:
        is_ours = (SUBJECTS.c.id == training.id) & (SUBJECTS.c.lease_owner == training.lease_owner)
        with self._database.writing() as connection:
            done = connection.execute(update(SUBJECTS).where(is_ours).values(values))
            return done.rowcount == 1

    def _read(self, which: ColumnElement[bool]) -> tuple[Training, ...]:
        with self._database.reading() as connection:
            query = select(SUBJECTS).where(which).order_by(SUBJECTS.c.id)
            return tuple(_training(row) for row in connection.execute(query).mappings())


def _check_room(connection: Connection, max_queued: int) -> None:
    is_live = SUBJECTS.c.status.in_(_LIVE)
    waiting = connection.scalar(select(func.count()).where(is_live)) or 0
    if waiting >= max_queued:
        raise QueueFullError(
            f"fewer than {max_queued} subjects must be in training, got {waiting}; "
            "send this one again later"
        )


def _training(row: RowMapping) -> Training:
    return Training(**{str(name): value for name, value in row.items()})
