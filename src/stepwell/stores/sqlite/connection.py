"""Opening connections: flags, settings, and the patience with which a lock is waited for.

Nothing else in this package opens the database file.
"""

from __future__ import annotations

import random
import time
from typing import Final

import apsw

from stepwell.domain.errors import StoreError, StoreUnusable
from stepwell.stores.sqlite import errors, files

OLDEST_SQLITE: Final = (3, 51, 3)
CHECKPOINT_PAGES: Final = 4000
LARGEST_IDLE_WAL: Final = 64 * 1024 * 1024

_READER_PATIENCE_MS: Final = 5_000
_STATEMENTS_KEPT: Final = 160


class Checkpoints:
    """Moves the log into the file when it has grown long: what SQLite does by itself, without keeping to itself what
    goes wrong. Belongs to one connection.
    """

    def __init__(self, connection: apsw.Connection, path: str) -> None:
        self.failed: StoreError | None = None
        self._connection = connection
        self._path = path
        connection.set_wal_hook(self._after_commit)

    def make(self) -> None:
        """Move as much as readers allow. A device that fails is noted; no space, or somebody else at it, is not: then
        the next one does it.
        """
        try:
            self._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        except apsw.Error as error:
            condition = errors.translate(error, self._path, self._connection)
            if condition is not None and errors.is_fatal(condition):
                condition.__cause__ = error
                self.failed = condition

    def _after_commit(self, connection: apsw.Connection, name: str, pages: int) -> int:
        if pages >= CHECKPOINT_PAGES and self.failed is None:
            self.make()
        return apsw.SQLITE_OK


class Patience:
    """How a connection waits for another one's lock: looks again after a short random pause, until `seconds` are over.

    Short pauses matter: SQLite's own grow to 100 ms, and beside a busy writer in another process the lock is free for
    moments only. `seconds` may be changed from any thread at any time.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._began = 0.0

    def __call__(self, tries: int) -> bool:
        now = time.monotonic()
        if tries == 0:
            self._began = now
        if now - self._began >= self.seconds:
            return False
        time.sleep(random.uniform(0.0002, 0.001 * min(5, 1 + tries / 20)))
        return True


def check_version() -> None:
    """Refuse a SQLite library that can corrupt a WAL file used by more than one connection."""
    found = apsw.sqlite_lib_version()
    if tuple(map(int, found.split("."))) < OLDEST_SQLITE:
        needed = ".".join(map(str, OLDEST_SQLITE))
        raise StoreUnusable(
            f"SQLite {found} is loaded, and versions before {needed} can damage the file",
            code="store.old_sqlite",
            hint="install the apsw wheel from the package index, which brings its own SQLite",
        )


def connect(path: str, vfs: str | None = None) -> apsw.Connection:
    """A connection to an existing file that changes nothing by itself, not even when it is closed: see `settle`."""
    connection = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READWRITE, vfs=vfs, statementcachesize=_STATEMENTS_KEPT)
    if files.size(path + "-wal"):
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    return connection


def settle(connection: apsw.Connection, path: str, *, synchronous: str) -> Checkpoints:
    """Make an accepted connection fit for writing; who moves its log.

    Raises `StoreUnusable` where the file system does not offer what the write-ahead log needs.
    """
    mode = connection.pragma("journal_mode", "wal")
    if mode != "wal":
        raise StoreUnusable(
            f"the file system under {path} does not support SQLite's write-ahead log (it offers {mode!r})",
            code="store.no_wal",
            hint="keep the store on a local disk, not on a network share",
        )
    connection.pragma("synchronous", synchronous)
    connection.pragma("temp_store", "memory")  # set-based updates build a small table: never in a file
    connection.pragma("journal_size_limit", LARGEST_IDLE_WAL)
    connection.pragma("trusted_schema", False)
    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0)
    return Checkpoints(connection, path)


def connect_reader(path: str, vfs: str | None = None) -> apsw.Connection:
    """A connection that can read and nothing else."""
    try:
        connection = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READONLY, vfs=vfs)
        connection.set_busy_timeout(_READER_PATIENCE_MS)
        connection.pragma("temp_store", "memory")
        connection.pragma("trusted_schema", False)
    except apsw.Error as error:
        raise errors.translate(error, path) or error from error
    return connection
