"""API keys: made and revoked by a command, kept as hashes, shown once.

::

    python -m serve.keys add ana --days 90     # prints the key; nobody can read it again
    python -m serve.keys list
    python -m serve.keys revoke 1f0c2a9b

Jobs and subjects belong to the name, so that a second key of the same name can replace the first.
"""

import argparse
import hashlib
import math
import secrets
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import RowMapping, insert, select, update
from sqlalchemy.exc import SQLAlchemyError

from dreambooth3d.artifacts.subject import is_id
from dreambooth3d.errors import Dreambooth3dError, InputError
from serve.database import Database
from serve.settings import ServeSettings
from serve.tables import KEYS

_PREFIX = "d3d"
_DAY_S = 86_400.0


@dataclass(frozen=True, kw_only=True)
class ApiKey:
    """What is known of a key; times in Unix seconds.

    Attributes:
        id: public part of the key.
        owner: whose jobs and subjects it sees.
        expires_at: end of its life; None for no end.
        is_revoked: taken back.
        max_live: jobs of the owner that may be queued or in progress.
        per_minute: requests a minute, on average.
    """

    id: str
    owner: str
    created_at: float
    expires_at: float | None
    is_revoked: bool
    max_live: int
    per_minute: int


class KeyTable:
    """Keys in the database of the jobs."""

    def __init__(self, url: str, *, clock: Callable[[], float] = time.time) -> None:
        self._database = Database(url)
        self._clock = clock

    def add(
        self, owner: str, *, days: float | None, max_live: int, per_minute: int
    ) -> tuple[ApiKey, str]:
        """Make a key and return it with the secret text that a client sends.

        Raises:
            InputError: the owner cannot be a name, or a limit is below 1.
        """
        if not is_id(owner):
            raise InputError(
                "a key's owner must be 1 to 64 letters, digits, '_', '.' and '-', starting with a "
                f"letter or digit, got {owner!r}; choose another name"
            )
        for name, value in (("max_live", max_live), ("per_minute", per_minute)):
            if value < 1:
                raise InputError(f"{name} must be at least 1, got {value}; correct it")
        key = ApiKey(
            id=secrets.token_hex(4),
            owner=owner,
            created_at=self._clock(),
            expires_at=None if days is None else self._clock() + days * _DAY_S,
            is_revoked=False,
            max_live=max_live,
            per_minute=per_minute,
        )
        text = f"{_PREFIX}_{key.id}_{secrets.token_urlsafe(32)}"
        with self._database.writing() as connection:
            connection.execute(insert(KEYS).values(vars(key) | {"digest": _digest(text)}))
        return key, text

    def find(self, text: str) -> ApiKey | None:
        """Return the key with this secret text, also an expired or revoked one."""
        with self._database.reading() as connection:
            query = select(KEYS).where(KEYS.c.digest == _digest(text))
            row = connection.execute(query).mappings().first()
        return None if row is None else _key(row)

    def is_over(self, key: ApiKey) -> bool:
        """Whether its life has ended."""
        return key.expires_at is not None and key.expires_at <= self._clock()

    def all(self) -> tuple[ApiKey, ...]:
        """Every key, the oldest first."""
        with self._database.reading() as connection:
            rows = connection.execute(select(KEYS).order_by(KEYS.c.created_at)).mappings().all()
        return tuple(_key(row) for row in rows)

    def revoke(self, key_id: str) -> None:
        """Take a key back, at once.

        Raises:
            InputError: there is no such key.
        """
        with self._database.writing() as connection:
            one = update(KEYS).where(KEYS.c.id == key_id).values(is_revoked=True)
            if connection.execute(one).rowcount == 0:
                raise InputError(
                    f"a key's id must be one of `python -m serve.keys list`, got {key_id!r}"
                )


def _digest(text: str) -> str:
    # 256 random bits cannot be guessed, so a slow hash would protect nothing more.
    return hashlib.sha256(text.encode()).hexdigest()


def _key(row: RowMapping) -> ApiKey:
    return ApiKey(**{str(name): value for name, value in row.items() if name != "digest"})


def main(arguments: list[str]) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m serve.keys", description="Manage API keys.")
    parser.add_argument("--database", default="", help="SQLAlchemy URL (default: as the server)")
    commands = parser.add_subparsers(dest="command", required=True)
    add = commands.add_parser("add", help="make a key and print it once")
    add.add_argument("owner", help="name that jobs and subjects belong to")
    add.add_argument("--days", type=float, help="days until it ends (default: never)")
    add.add_argument("--max-live", type=int, default=100, help="unfinished jobs at a time")
    add.add_argument("--per-minute", type=int, default=1200, help="requests a minute")
    commands.add_parser("list", help="show keys, never their secrets")
    revoke = commands.add_parser("revoke", help="take a key back")
    revoke.add_argument("id")
    given = parser.parse_args(arguments)
    keys = KeyTable(given.database or ServeSettings().absolute().database_url)
    if given.command == "add":
        if given.days is not None and not 0 < given.days < math.inf:
            raise InputError(
                f"--days must be above 0, got {given.days:g}; leave it out for a key for ever"
            )
        _, text = keys.add(
            given.owner, days=given.days, max_live=given.max_live, per_minute=given.per_minute
        )
        print(text)
    elif given.command == "revoke":
        keys.revoke(given.id)
    else:
        for key in keys.all():
            print(_line(key, is_over=keys.is_over(key)))
    return 0


def _line(key: ApiKey, *, is_over: bool) -> str:
    state = "revoked" if key.is_revoked else "expired" if is_over else "valid"
    return f"{key.id} {key.owner} {state}, {key.max_live} live jobs, {key.per_minute} requests/min"


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except Dreambooth3dError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except SQLAlchemyError as error:
        # Not the error's own words: they hold the URL, with its password.
        kind = type(error).__name__
        print(
            f"error: the database must be one that can be opened, got {kind}; correct --database "
            "or DREAMBOOTH3D_DATABASE",
            file=sys.stderr,
        )
        sys.exit(1)
