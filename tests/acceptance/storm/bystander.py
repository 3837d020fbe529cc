"""Two small processes beside a storm: `bystander.py locker FILE` and `bystander.py watcher FILE`."""

from __future__ import annotations

import os
import select
import sys
import time

import apsw

TICK = 0.01
LATE = 0.002
SYNC_EVERY = 5


def locker(database: str) -> None:
    """Hold the write lock of a SQLite file for as many seconds as each line says; tell from when to when."""
    db = apsw.Connection(database)
    db.set_busy_handler(_again)
    for line in sys.stdin:
        db.execute("begin immediate")
        since = time.time_ns() // 1000
        time.sleep(float(line))
        db.execute("rollback")
        print(since, time.time_ns() // 1000, flush=True)


def _again(tries: int) -> bool:
    time.sleep(0.002)
    return True


def watcher(file: str) -> None:
    """Note when a process that wants nothing but a short sleep, and now and then a few bytes on the disk, gets it late:
    from when on it was waited for, and when it came. A step of a run needs the same several times over.
    """
    probe = os.open(file + ".probe", os.O_WRONLY | os.O_CREAT, 0o600)
    with open(file, "a", buffering=1, encoding="utf-8") as log:
        for tick in range(sys.maxsize):
            due = time.time() + TICK
            if select.select([sys.stdin], [], [], TICK)[0]:  # whoever started this is gone
                return
            if tick % SYNC_EVERY == 0:
                os.pwrite(probe, b"x", 0)
                os.fdatasync(probe)
            if time.time() - due > LATE:
                log.write(f"{due * 1e6:.0f} {time.time() * 1e6:.0f}\n")


if __name__ == "__main__":
    {"locker": locker, "watcher": watcher}[sys.argv[1]](sys.argv[2])
