"""The database of jobs, keys and subjects: connections, transactions, tables."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, create_engine, event, make_url

from serve.tables import create_tables, prepare_sqlite, take_turn


class Database:
    """Any SQLAlchemy URL; SQLite in WAL mode, every commit synced; safe from several threads."""

    def __init__(self, url: str) -> None:
        is_sqlite = make_url(url).get_backend_name() == "sqlite"
        self._engine = create_engine(url, pool_pre_ping=not is_sqlite)
        self._writer = self._engine.execution_options(is_write=True)
        if is_sqlite:
            prepare_sqlite(self._engine)
            event.listen(self._engine, "begin", _begin_sqlite)
        with self.writing() as connection:
            take_turn(connection)
            create_tables(connection)

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction that only reads."""
        with self._engine.begin() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that writes; SQLite lets one at a time."""
        with self._writer.begin() as connection:
            yield connection


def _begin_sqlite(connection: Connection) -> None:
    # A transaction that reads before it writes would otherwise fail instead of waiting its turn.
    is_write = connection.get_execution_options().get("is_write")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if is_write else "BEGIN")
