"""A disk that fails at a chosen write or sync: with no space, or with an error of the device.

Writes fail below SQLite, in the system call that it makes, so that SQLite itself decides what an error means and which
ones it keeps to itself; that includes those of the log's index. Syncs can only fail in a VFS written in Python. One
such disk may be at work at a time.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any, Final, Literal, TypeAlias

import apsw

from stepwell.stores.sqlite.store import SqliteStore
from tests.integration.sqlite.power.store_on_disk import StoreOnDisk, SyncFailed

Kind: TypeAlias = Literal["write", "sync"]

_SYSTEM: Final = apsw.vfs_names()[0]
_names: Final = count(1)
_Write: Final = ctypes.CFUNCTYPE(
    ctypes.c_ssize_t, ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_longlong, use_errno=True
)
_CALL: Final = "pwrite64"


class FailingDisk(apsw.VFS):
    """The system's files, on which the write or sync number `fail_at` (of those that `counts` names) fails with `code`,
    and all later ones too if `lasting`. `before` is called with the number of each.

    Without a code the process is killed there. A write of which there is no space for all, or in which the process is
    killed, is done by `share` (0 to 1). With `only`, nothing counts but writes to files whose names end so.
    """

    def __init__(
        self,
        fail_at: int = 0,
        code: int | None = errno.EIO,
        *,
        counts: Collection[Kind] = ("write", "sync"),
        lasting: bool = False,
        share: float = 0.5,
        only: str = "",
    ) -> None:
        self.name = f"failing-{next(_names)}"
        self.fail_at = fail_at
        self.code = code
        self.counts = counts
        self.lasting = lasting
        self.share = share
        self.only = only
        self.count = 0
        self.lifted_at = 0
        self.failures = 0
        self.closing = False
        self.before: Callable[[int], None] = lambda number: None
        super().__init__(self.name, "")

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:
        return _File(self, name, flags)

    def lift(self) -> None:
        """The disk works again from now on."""
        self.fail_at = 0
        self.lifted_at = self.count

    def store(self, path: str, **options: Any) -> SqliteStore:
        """A store on this disk."""
        # The system's own VFS, where that will do: through one in Python also such errors come out of the binding that
        # SQLite keeps to itself.
        return StoreOnDisk(self, path, vfs=self.name if "sync" in self.counts else None, **options)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Let the writes of this process go through this disk."""
        original = self.xGetSystemCall(_CALL)
        assert original is not None
        real = _Write(original)

        def write(descriptor: int, data: int, size: int, offset: int) -> int:
            if not self._concerns(descriptor) or not self.fails("write"):
                return int(real(descriptor, data, size, offset))
            if self.code != errno.EIO:
                real(descriptor, data, int(size * self.share), offset)
            ctypes.set_errno(self.fail())
            return -1

        replacement = _Write(write)
        pointer = ctypes.cast(replacement, ctypes.c_void_p).value
        assert pointer is not None
        self.xSetSystemCall(_CALL, pointer)
        try:
            yield
        finally:
            self.xSetSystemCall(_CALL, original)

    def _concerns(self, descriptor: int) -> bool:
        return not self.only or os.readlink(f"/proc/self/fd/{descriptor}").endswith(self.only)

    def fails(self, kind: Kind) -> bool:
        """Count one more of that kind, if it counts, and tell whether it is to fail."""
        if kind not in self.counts:
            return False
        self.count += 1
        self.before(self.count)
        due = 0 < self.fail_at <= self.count if self.lasting else self.count == self.fail_at
        self.failures += due
        return due

    def fail(self) -> int:
        """The code of the failure, or the end of this process."""
        if self.code is None:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.code or 0


class _File(apsw.VFSFile):
    def __init__(self, disk: FailingDisk, name: Any, flags: list[int]) -> None:
        self._disk = disk
        super().__init__(_SYSTEM, name, flags)

    def xSync(self, flags: int) -> None:
        # While it closes a database SQLite keeps an error to itself; so nothing is to be seen of it here either.
        if self._disk.fails("sync") and (self._disk.code is None or not self._disk.closing):
            self._disk.fail()
            raise SyncFailed("disk I/O error")
