"""Schema of the job database, and what SQLite needs before several processes can share it."""

import time
from pathlib import Path
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Connection,
    Double,
    Engine,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    event,
    func,
    inspect,
    select,
    text,
)
from sqlalchemy.exc import OperationalError
from sqlalchemy.schema import CreateIndex, CreateTable

_METADATA = MetaData()
JOBS = Table(
    "jobs",
    _METADATA,
    # SQLite counts up by itself only in INTEGER columns.
    Column("number", BigInteger().with_variant(Integer(), "sqlite"), primary_key=True),
    Column("id", String(64), nullable=False, unique=True),
    Column("owner", String(64), nullable=False),
    Column("idempotency_key", String(255)),
    Column("request_hash", String(64), nullable=False),
    Column("request", JSON, nullable=False),
    Column("batch_key", String(255), nullable=False),
    Column("num_tokens", Integer, nullable=False),
    Column("status", String(16), nullable=False),
    Column("progress", Integer, nullable=False),
    Column("step", Integer, nullable=False),
    Column("steps", Integer, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("lease_owner", String(64), index=True),
    Column("lease_expires", Double),
    Column("created_at", Double, nullable=False),
    Column("started_at", Double),
    Column("finished_at", Double),
    Column("expires_at", Double),
    Column("stage_seconds", JSON, nullable=False),
    Column("batch_size", Integer),
    Column("adapter", JSON(none_as_null=True)),
    Column("result_path", String(128)),
    Column("error_code", String(64)),
    Column("error_message", Text),
    UniqueConstraint("owner", "idempotency_key"),
    Index("jobs_by_status", "status", "number"),
    # Every look at a live job asks what its kind took lately.
    Index("jobs_by_kind", "batch_key", "status", "number"),
    # Who was served when: owners take turns.
    Index("jobs_by_owner", "owner", "started_at"),
    sqlite_autoincrement=True,
)

KEYS = Table(
    "api_keys",
    _METADATA,
    Column("id", String(16), primary_key=True),
    Column("owner", String(64), nullable=False, index=True),
    Column("digest", String(64), nullable=False, unique=True),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double),
    Column("is_revoked", Boolean, nullable=False),
    Column("max_live", Integer, nullable=False),
    Column("per_minute", Integer, nullable=False),
)

SUBJECTS = Table(
    "subjects",
    _METADATA,
    Column("id", String(64), primary_key=True),
    Column("owner", String(64), nullable=False, index=True),
    Column("name", String(64), nullable=False),
    Column("class_noun", String(64), nullable=False),
    Column("num_images", Integer, nullable=False),
    Column("num_references", Integer, nullable=False),
    Column("status", String(16), nullable=False, index=True),
    Column("attempts", Integer, nullable=False),
    Column("lease_owner", String(64), index=True),
    Column("lease_expires", Double),
    Column("created_at", Double, nullable=False),
    Column("finished_at", Double),
    Column("error_code", String(64)),
    Column("error_message", Text),
    Column("progress", Integer),
)

_BUSY_S = 30
_TURN = 3_161_972
_NUM_TRIES = 20


def take_turn(connection: Connection) -> None:
    """Let one transaction at a time count and then insert, as SQLite's write lock does by itself.

    PostgreSQL's own `create table if not exists` breaks, too, when two processes run it at once.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(_TURN)))


def create_tables(connection: Connection) -> None:
    """Create what is missing; two processes may do so at once."""
    for table in _METADATA.sorted_tables:
        connection.execute(CreateTable(table, if_not_exists=True))
        _add_columns(connection, table)
        for index in table.indexes:
            connection.execute(CreateIndex(index, if_not_exists=True))


def _add_columns(connection: Connection, table: Table) -> None:
    """Add what the tables of an earlier version lack; only columns that may be empty are added."""
    there = {column["name"] for column in inspect(connection).get_columns(table.name)}
    for column in table.columns:
        if column.name not in there:
            kind = column.type.compile(connection.dialect)
            connection.execute(text(f"ALTER TABLE {table.name} ADD COLUMN {column.name} {kind}"))


def prepare_sqlite(engine: Engine) -> None:
    """Make a SQLite file ready for several threads and processes, and safe against power loss."""
    database = engine.url.database
    if database:
        Path(database).parent.mkdir(parents=True, exist_ok=True)
    event.listen(engine, "connect", _on_connect)
    for attempt in range(_NUM_TRIES):
        try:
            with engine.connect() as connection:
                connection.exec_driver_sql("PRAGMA journal_mode=WAL")
            return
        except OperationalError:
            # The switch does not wait for another process that switches at the same moment.
            if attempt == _NUM_TRIES - 1:
                raise
            time.sleep(0.05)


def _on_connect(connection: Any, _record: object) -> None:
    # Transactions are begun by Database, not guessed by the driver.
    connection.isolation_level = None
    connection.execute(f"PRAGMA busy_timeout={_BUSY_S * 1000}")
    connection.execute("PRAGMA synchronous=FULL")
