"""The schema: numbered SQL files, applied in order when a store is opened and remembered with their checksums.

Never guesses: a file with another application's mark, a newer schema or a changed migration is refused before anything
is written.
"""

from __future__ import annotations

import hashlib
from functools import cache
from importlib import resources
from typing import Final, NamedTuple

import apsw

from stepwell.domain.errors import StoreUnusable
from stepwell.ports.crash_point import CrashPoint
from stepwell.stores.sqlite import errors

APPLICATION_ID: Final = 0x5357454C  # "SWEL"

_before_commit: Final = CrashPoint("migrate.before_commit")
_after_commit: Final = CrashPoint("migrate.after_commit")


class Migration(NamedTuple):
    """One step of the schema, from a file named `NNNN_name.sql`."""

    version: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()


@cache
def migrations() -> tuple[Migration, ...]:
    """All migrations that this code knows, oldest first."""
    folder = resources.files(__package__) / "migrations"
    found = []
    for file in sorted(folder.iterdir(), key=lambda entry: entry.name):
        number, _, rest = file.name.partition("_")
        if rest.endswith(".sql"):
            found.append(Migration(int(number), rest.removesuffix(".sql"), file.read_text(encoding="utf-8")))
    return tuple(found)


def latest() -> int:
    """The version that this code writes."""
    return migrations()[-1].version


def inspect(connection: apsw.Connection, path: str) -> int:
    """The schema's version in the file, 0 when the file is empty.

    Reads only. Raises `StoreUnusable` for a file that must not be touched.
    """
    mark = _number(connection, "application_id")
    version = _number(connection, "user_version")
    empty = connection.execute("SELECT count(*) FROM sqlite_schema").get == 0
    if mark != APPLICATION_ID:
        if not empty:
            raise errors.not_a_store(path, "it is a SQLite database of another application")
        return 0
    if version > latest():
        raise _newer(path, version)
    _check_history(connection, path)
    return version


def migrate(connection: apsw.Connection, path: str, *, now: int) -> None:
    """Apply what is missing, each migration in its own transaction. Any number of processes may try at once."""
    while inspect(connection, path) < latest():
        connection.execute("BEGIN IMMEDIATE")
        try:
            version = inspect(connection, path)
            if version < latest():
                _apply(connection, next(step for step in migrations() if step.version > version), now)
            _before_commit()
            connection.execute("COMMIT")
        except BaseException:  # nothing of an unfinished migration stays, and the error goes on
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        _after_commit()


def _apply(connection: apsw.Connection, step: Migration, now: int) -> None:
    connection.execute(step.sql)
    connection.execute(
        "INSERT INTO migration (version, name, checksum, applied_at) VALUES (?, ?, ?, ?)",
        (step.version, step.name, step.checksum, now),
    )
    connection.pragma("application_id", APPLICATION_ID)
    connection.pragma("user_version", step.version)


def _check_history(connection: apsw.Connection, path: str) -> None:
    known = {step.version: step for step in migrations()}
    for version, name, checksum in connection.execute("SELECT version, name, checksum FROM migration").fetchall():
        if int(str(version)) > latest():
            raise _newer(path, int(str(version)))
        step = known.get(int(str(version)))
        if step is None or step.checksum != checksum:
            raise StoreUnusable(
                f"{path} was built with another migration {version} ({name}) than the one in this version",
                code="store.changed_migration",
                hint="use the version of Stepwell that made the file; released migrations never change",
            )


def _newer(path: str, version: int) -> StoreUnusable:
    return StoreUnusable(
        f"{path} was written by a newer Stepwell (schema {version}; this one knows {latest()})",
        code="store.newer_schema",
        hint="install that version again, or name another place with --store",
    )


def _number(connection: apsw.Connection, pragma: str) -> int:
    value = connection.pragma(pragma)
    return value if isinstance(value, int) else 0
