"""Opening the file: made if it is missing, refused if it must not be touched, migrated if it is old. Runs in the writer thread."""

from __future__ import annotations

import apsw

from stepwell.domain.errors import StepwellError
from stepwell.stores.sqlite import errors, files, schema
from stepwell.stores.sqlite.connection import Patience, check_version, connect, settle

_PATIENCE_SECONDS = 30.0


def open_for_writing(path: str, *, now: int, vfs: str | None) -> apsw.Connection:
    """The writing connection to a store that has the latest schema. Changes and leaves nothing when it fails."""
    check_version()
    try:
        if not files.exists(path):
            files.create(path, lambda aside: _accept(aside, now, vfs).close())
        return _accept(path, now, vfs)
    except apsw.Error as error:
        raise errors.translate(error, path) or error from error


def _accept(path: str, now: int, vfs: str | None) -> apsw.Connection:
    connection = connect(path, vfs)
    try:
        connection.set_busy_handler(Patience(_PATIENCE_SECONDS))
        schema.inspect(connection, path)  # refuses before anything is written
        settle(connection, path, synchronous="full")
        schema.migrate(connection, path, now=now)
    except (apsw.Error, StepwellError):
        connection.close()
        raise
    return connection
