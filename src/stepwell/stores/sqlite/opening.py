"""Opening the file: made if it is missing, refused if it must not be touched, migrated if it is old.

Runs in the writer thread.
"""

from __future__ import annotations

import apsw

from stepwell.domain.errors import StepwellError
from stepwell.stores.sqlite import doubt, errors, files, schema
from stepwell.stores.sqlite.connection import Checkpoints, Patience, check_version, connect, settle


def open_for_writing(
    path: str, *, now: int, boot_id: str, patience: Patience, vfs: str | None
) -> tuple[apsw.Connection, Checkpoints]:
    """The writing connection to a store that has the latest schema, and who moves its log. Changes and leaves nothing
    when it fails.
    """
    check_version()
    files.check_place(path)
    try:
        if not files.exists(path):
            files.create(path, lambda aside: _make(aside, now, boot_id, patience, vfs))
        return _accept(path, now, boot_id, patience, vfs)
    except apsw.Error as error:
        raise errors.translate(error, path) or error from error


def _make(path: str, now: int, boot_id: str, patience: Patience, vfs: str | None) -> None:
    """Fill a new file with a store. All of it is in the file then, and nothing in the log beside it."""
    connection, _ = _accept(path, now, boot_id, patience, vfs)
    try:
        connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)  # closing says nothing when it cannot do that
    finally:
        connection.close()


def _accept(
    path: str, now: int, boot_id: str, patience: Patience, vfs: str | None
) -> tuple[apsw.Connection, Checkpoints]:
    connection = connect(path, vfs)
    try:
        connection.set_busy_handler(patience)
        schema.inspect(connection, path)  # refuses before anything is written
        if connection.readonly("main"):  # SQLite makes do with a file that it may only read
            raise errors.read_only(path)
        checkpoints = settle(connection, path, synchronous="full")
        doubt.settle(connection, path, boot_id, vfs)
        schema.migrate(connection, path, now=now)
    except apsw.Error as error:
        public = errors.translate(error, path, connection)
        connection.close()
        raise public or error from error
    except StepwellError:
        connection.close()
        raise
    return connection, checkpoints
