"""Databases of the job table for a proof, with a record of every change of a job's status."""

import os
import pwd
import secrets
import subprocess
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import create_engine, text

from benchmarks.commands import scratch_folder
from benchmarks.processes import wait_until
from benchmarks.rows import RowSkippedError
from benchmarks.serve_subjects import free_port
from serve.jobs import JobTable

FINAL = ("completed", "failed", "canceled")
_RECORD = "CREATE TABLE transitions (id VARCHAR(64) NOT NULL, status VARCHAR(16) NOT NULL)"
_SQLITE = (
    _RECORD,
    "CREATE TRIGGER on_status AFTER UPDATE OF status ON jobs WHEN OLD.status <> NEW.status "
    "BEGIN INSERT INTO transitions VALUES (NEW.id, NEW.status); END",
)
_POSTGRESQL = (
    _RECORD,
    "CREATE FUNCTION note_status() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
    "INSERT INTO transitions VALUES (NEW.id, NEW.status); RETURN NEW; END $$",
    "CREATE TRIGGER on_status AFTER UPDATE OF status ON jobs FOR EACH ROW "
    "WHEN (OLD.status IS DISTINCT FROM NEW.status) EXECUTE FUNCTION note_status()",
)


def record_transitions(url: str) -> None:
    """Let the database itself write down every change of a status, whoever makes it."""
    JobTable(url).close()
    engine = create_engine(url)
    statements = _SQLITE if engine.dialect.name == "sqlite" else _POSTGRESQL
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))
    engine.dispose()


def final_states(url: str) -> dict[str, list[str]]:
    """Every final status that each job has ever reached, in order; jobs without one have none."""
    engine = create_engine(url)
    reached: dict[str, list[str]] = defaultdict(list)
    with engine.begin() as connection:
        for job_id in connection.scalars(text("SELECT id FROM jobs")):
            reached[job_id] = []
        for job_id, status in connection.execute(text("SELECT id, status FROM transitions")):
            if status in FINAL:
                reached[job_id].append(status)
    engine.dispose()
    return dict(reached)


def num_open(url: str) -> int:
    """Jobs that have not ended."""
    return sum(not states for states in final_states(url).values())


def tally(url: str) -> Counter[str]:
    """How many jobs ended how."""
    return Counter(state for states in final_states(url).values() for state in states)


@contextmanager
def postgresql() -> Iterator[str]:
    """A PostgreSQL server of one's own on loopback; yields its SQLAlchemy URL.

    Raises:
        RowSkippedError: the server (Debian's `postgresql`) is missing.
    """
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if not found:
        raise RowSkippedError("PostgreSQL is not installed: apt-get install postgresql")
    with scratch_folder() as home:
        home.chmod(0o755)
        data, password, port = home / "data", secrets.token_urlsafe(16), free_port()
        (home / "password").write_text(password, encoding="utf-8")
        data.mkdir()
        user = _unprivileged([data, home / "password"])
        initdb = [
            str(found[-1].with_name("initdb")), "-D", str(data), "-U", "proof",
            "--auth=scram-sha-256", f"--pwfile={home / 'password'}",
        ]  # fmt: skip
        subprocess.run(
            initdb, check=True, user=user, group=user, stdout=subprocess.DEVNULL, cwd=data
        )
        server = subprocess.Popen(
            [str(found[-1]), "-D", str(data), "-p", str(port), "-k", str(data),
             "-c", "listen_addresses=127.0.0.1"],
            user=user, group=user, cwd=data,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            ready = [str(found[-1].with_name("pg_isready")), "-q", "-h", "127.0.0.1", "-p"]
            if not wait_until(
                lambda: subprocess.run([*ready, str(port)], check=False).returncode == 0,
                seconds=60,
            ):
                raise ChildProcessError("PostgreSQL did not start within 60 s")
            yield f"postgresql+psycopg://proof:{password}@127.0.0.1:{port}/postgres"
        finally:
            server.terminate()
            server.wait(30)


def _unprivileged(owned: list[Path]) -> int | None:
    """PostgreSQL refuses to run as root: give its files to the account that Debian made."""
    if os.getuid() != 0:
        return None
    account = pwd.getpwnam("postgres")
    for path in owned:
        os.chown(path, account.pw_uid, account.pw_gid)
    return account.pw_uid
