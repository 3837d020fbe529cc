"""What SQLite reports, in the words of the store's contract. Nothing here changes anything."""

from __future__ import annotations

import errno
import os
from typing import Final

import apsw

from stepwell.domain.errors import StoreError, StoreFull, StoreUnavailable, StoreUnusable

_NO_SPACE: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


def translate(error: apsw.Error, path: str, connection: apsw.Connection | None = None) -> StoreError | None:
    """The public error for what SQLite reported about the file; `None` when it is a fault of ours instead.

    `connection`, where there still is one, tells what the system said.
    """
    if getattr(error, "extendedresult", 0) == apsw.SQLITE_IOERR_SHMSIZE:  # the log's index could not grow
        said = 0 if connection is None else connection.system_errno
        return io_error(path, str(error)) if said and said not in _NO_SPACE else full(path)
    match error:
        case apsw.FullError():
            return full(path)
        case apsw.BusyError() | apsw.LockedError():
            return StoreUnavailable(
                f"{path} is locked: another process has been writing for too long",
                code="store.busy",
                hint="look for a stopped or suspended process that has the file open, and end it",
            )
        case apsw.ReadOnlyError():
            return read_only(path)
        case apsw.CorruptError():
            return damaged(path, str(error))
        case apsw.NotADBError():
            return not_a_store(path, "it is not a SQLite database")
        case apsw.CantOpenError():
            return _cannot_open(path)
        case apsw.IOError():
            return io_error(path, str(error))
    return None


def unexpected(error: apsw.Error, path: str) -> StoreError:
    """The public error for what should not happen: a constraint, a statement or a use of SQLite that is wrong."""
    return StoreError(f"SQLite refused a write to {path}: {error}", code="store.unexpected", hint="please report this")


def is_fatal(error: StoreError) -> bool:
    """Whether the store must not be written again by this process."""
    return isinstance(error, StoreUnusable)


def full(path: str) -> StoreFull:
    """No space is left."""
    return StoreFull(
        f"no space is left for {path}; nothing was stored",
        code="store.full",
        hint="free some space: the store goes on by itself, and a process that has it open can read meanwhile",
    )


def io_error(path: str, detail: str) -> StoreUnusable:
    """The device failed. What it was to write may be lost, and it may not say so a second time."""
    return StoreUnusable(
        f"the disk under {path} reported an error ({detail}); nothing more is written to it",
        code="store.io_error",
        hint="let the process end by itself, check the disk, start again: what was acknowledged before is kept",
    )


def read_only(path: str) -> StoreUnavailable:
    """The place cannot be written by this user."""
    return StoreUnavailable(
        f"{path} cannot be written: the file, its folder or its file system is read-only for this user",
        code="store.read_only",
        hint="make the folder and the file writable, or name another place with --store",
        retryable=False,
    )


def damaged(path: str, detail: str) -> StoreUnusable:
    """The file is not what was written to it."""
    return StoreUnusable(
        f"{path} is damaged ({detail}); it was left as it is",
        code="store.damaged",
        hint="put a backup in its place, or keep the file and name another place with --store",
    )


def not_a_store(path: str, why: str) -> StoreUnusable:
    """Something else lies where the store should be."""
    return StoreUnusable(
        f"{path} is not a Stepwell store: {why}; it was left as it is",
        code="store.not_a_store",
        hint="name another place with --store",
    )


def closed(path: str) -> StoreUnavailable:
    """The store was used before `open` or after `close`."""
    return StoreUnavailable(f"the store {path} is not open", code="store.closed", retryable=False)


def forked(path: str) -> StoreUnusable:
    """The store was used in a child process that was forked after `open`."""
    return StoreUnusable(
        f"{path} was opened in another process, and its connections must not cross a fork",
        code="store.forked",
        hint="start the child with the spawn method (multiprocessing.get_context('spawn')), or as a program of its own",
    )


def place(error: OSError, path: str) -> StoreError:
    """The public error for a place where no file can be made."""
    if error.errno in _NO_SPACE:
        return full(path)
    if error.errno == errno.EIO:
        return io_error(path, error.strerror or "EIO")
    if isinstance(error, PermissionError) or error.errno == errno.EROFS:
        return read_only(path)
    return StoreUnavailable(
        f"{path} cannot be created: {error.strerror or error}",
        code="store.place",
        hint="name another place with --store",
        retryable=False,
    )


def _cannot_open(path: str) -> StoreError:
    folder = os.path.dirname(path) or "."
    if not os.access(folder, os.W_OK) or (os.path.exists(path) and not os.access(path, os.R_OK | os.W_OK)):
        return read_only(path)
    return StoreUnavailable(
        f"{path} cannot be opened", code="store.place", hint="name another place with --store", retryable=False
    )
