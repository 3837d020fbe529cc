"""A process that comes to a halt in the middle of something, with the locks that it holds then.

    holder.py PATH write|commit|checkpoint|read

Answers `held` when it has got there. In `commit` and `checkpoint` it stops itself (SIGSTOP) before the sync of its
transaction, or after the first page that it moved from the log to the file. In `write` and `read` it has an open
transaction and waits for its stdin to end.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

import apsw

PATH, MODE = sys.argv[1:]


class Halting(apsw.VFS):
    """The system's files, on which the process stops once: when it does what it is `armed` for."""

    def __init__(self) -> None:
        self.name = "halting"
        self.armed = ""
        super().__init__(self.name, "")

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:
        return _File(self, name, flags)

    def halt(self, kind: str) -> None:
        if kind == self.armed:
            self.armed = ""
            print("held", flush=True)
            os.kill(os.getpid(), signal.SIGSTOP)


class _File(apsw.VFSFile):
    def __init__(self, disk: Halting, name: Any, flags: list[int]) -> None:
        self._disk = disk
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        self._is_log = path.endswith("-wal")
        super().__init__("", name, flags)

    def xWrite(self, data: Any, offset: int) -> None:
        super().xWrite(data, offset)
        if not self._is_log:
            self._disk.halt("checkpoint")

    def xSync(self, flags: int) -> None:
        if self._is_log:
            self._disk.halt("commit")
        super().xSync(flags)


def main() -> None:
    disk = Halting()
    connection = apsw.Connection(PATH, flags=apsw.SQLITE_OPEN_READWRITE, vfs=disk.name)
    connection.set_busy_timeout(5000)
    connection.pragma("synchronous", "full")
    connection.execute("BEGIN IMMEDIATE" if MODE in ("write", "commit") else "BEGIN")
    connection.execute("SELECT count(*) FROM run")
    if MODE == "checkpoint":
        connection.execute("COMMIT")
        disk.armed = MODE
        connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
    elif MODE == "commit":
        connection.execute("INSERT INTO meta (key, value) VALUES ('held', 'by another process')")
        disk.armed = MODE
        connection.execute("COMMIT")
    else:
        print("held", flush=True)
    print("through", flush=True)
    sys.stdin.read()
    connection.close()


if __name__ == "__main__":
    main()
