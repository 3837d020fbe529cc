"""Proof of life: each worker holds an OS lock on a file of its own, which ends with the process, however it ends.

Whoever can lock the file of a registered worker has proof that the worker is dead. A missing file proves nothing.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import weakref
from collections.abc import Collection
from typing import Final

from stepwell.stores.sqlite.files import FILE_MODE, FOLDER_MODE

_ENDING: Final = ".lock"
_UNFINISHED: Final = ".new"


class WorkerLock:
    """The lock of one worker, held from construction until `release` or the end of the process."""

    def __init__(self, folder: str, worker_id: str) -> None:
        self.path = lock_path(folder, worker_id)
        self._descriptor: int | None = _hold(folder, self.path)
        _held.add(self)

    def release(self, *, remove: bool) -> None:
        """Give the lock up and remove the file, or leave the file as a killed process would."""
        if remove:
            _unlink(self.path)
        self.drop()

    def drop(self) -> None:
        """Close the descriptor; the lock goes with the last copy of it."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


_held: weakref.WeakSet[WorkerLock] = weakref.WeakSet()


def _drop_all() -> None:
    for lock in list(_held):
        lock.drop()


# A forked child inherits descriptors and with them the lock: it must not keep a dead parent alive.
os.register_at_fork(after_in_child=_drop_all)


def lock_path(folder: str, worker_id: str) -> str:
    """Where the lock file of that worker is."""
    return os.path.join(folder, worker_id + _ENDING)


def is_dead(folder: str, worker_id: str) -> bool:
    """Whether it is proven that the process of that worker is gone."""
    return _is_free(lock_path(folder, worker_id))


def bury(folder: str, worker_id: str) -> None:
    """Remove the file of a worker whose death is on record."""
    _unlink(lock_path(folder, worker_id))


def sweep(folder: str, registered: Collection[str]) -> None:
    """Remove what processes left that died while they registered or unregistered."""
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir(folder):
            path = os.path.join(folder, name)
            known = name.endswith(_ENDING) and name.removesuffix(_ENDING) in registered
            if not known and name.endswith((_ENDING, _UNFINISHED)) and _is_free(path):
                _unlink(path)


def _hold(folder: str, path: str) -> int:
    """Create and lock the file under another name first: under its own it is never free while the worker lives."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(folder, FOLDER_MODE)
    while True:
        unfinished = f"{path}.{secrets.token_hex(4)}{_UNFINISHED}"
        descriptor = os.open(unfinished, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, FILE_MODE)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            os.write(descriptor, f"{os.getpid()}\n".encode())
            os.rename(unfinished, path)
        except FileNotFoundError:  # swept away by another process before it was locked
            os.close(descriptor)
        except BaseException:  # no descriptor stays open, and the error goes on
            os.close(descriptor)
            raise
        else:
            return descriptor


def _is_free(path: str) -> bool:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:  # missing, or not ours to open: no proof
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # held, so alive
        return False
    else:
        return True
    finally:
        os.close(descriptor)


def _unlink(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
