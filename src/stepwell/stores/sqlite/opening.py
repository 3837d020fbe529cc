"""Opening the file: made if it is missing, refused if it must not be touched, migrated if it is old.

Runs in the writer thread.
"""

from __future__ import annotations

import apsw

from stepwell.domain.errors import StepwellError
from stepwell.stores.sqlite import errors, files, schema
from stepwell.stores.sqlite.connection import Patience, check_version, connect, settle


def open_for_writing(path: str, *, now: int, patience: Patience, vfs: str | None) -> apsw.Connection:
    """The writing connection to a store that has the latest schema. Changes and leaves nothing when it fails."""
    check_version()
    try:
        if not files.exists(path):
            files.create(path, lambda aside: _make(aside, now, patience, vfs))
        return _accept(path, now, patience, vfs)
    except apsw.Error as error:
        raise errors.translate(error, path) or error from error


def _make(path: str, now: int, patience: Patience, vfs: str | None) -> None:
    """Fill a new file with a store. All of it is in the file then, and nothing in the log beside it."""
    connection = _accept(path, now, patience, vfs)
    try:
        connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)  # closing says nothing when it cannot do that
    finally:
        connection.close()


def _accept(path: str, now: int, patience: Patience, vfs: str | None) -> apsw.Connection:
    connection = connect(path, vfs)
    try:
        connection.set_busy_handler(patience)
        schema.inspect(connection, path)  # refuses before anything is written
        if connection.readonly("main"):  # SQLite makes do with a file that it may only read
            raise errors.read_only(path)
        settle(connection, path, synchronous="full")
        schema.migrate(connection, path, now=now)
    except (apsw.Error, StepwellError):
        connection.close()
        raise
    return connection
