"""Worker processes over one file, for tests that kill them. What became of the runs is read from the file, past all of
Stepwell's code.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import apsw

T = TypeVar("T")

READY = "working\n"
Process = subprocess.Popen[str]


class Fleet:
    """Processes that run `PROGRAM STORE ARGUMENTS...`, and say `working` once they execute runs."""

    def __init__(self, program: Path, folder: Path) -> None:
        self.folder = folder
        self.database = folder / "fleet.db"
        self.store = f"sqlite:///{self.database}"
        self.processes: list[Process] = []
        self._program = program

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in list(self.processes):
            self.kill(process)

    def start(self, *arguments: str) -> Process:
        """Another process; returns when it works."""
        (process,) = self.start_many(1, *arguments)
        return process

    def start_many(self, count: int, *arguments: str) -> list[Process]:
        """Several processes at once; returns when all of them work."""
        begun = [self.begin(*arguments) for _ in range(count)]
        for process in begun:
            self.await_ready(process)
        return begun

    def begin(self, *arguments: str) -> Process:
        """Another process, which may not work yet."""
        command = [sys.executable, str(self._program), self.store, *arguments]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.processes.append(process)
        return process

    @staticmethod
    def await_ready(process: Process) -> None:
        """Return when a process works."""
        assert process.stdout is not None
        said = process.stdout.readline()
        assert said == READY, f"the process said {said!r} and ended with {process.poll()}"

    def kill(self, process: Process) -> None:
        """End a process at once, as a crash would, and see to it that it is gone."""
        self.processes.remove(process)
        process.kill()
        process.communicate()

    def stop(self, process: Process) -> int:
        """Let a process end in its own way; returns its exit code."""
        self.processes.remove(process)
        process.terminate()
        process.communicate(timeout=60)
        return process.returncode

    def query(self, sql: str, *values: str | int) -> list[Any]:
        """Rows of the file as it is now."""
        with looking_at(self.database) as db:
            return db.execute(sql, values).fetchall()

    def number(self, sql: str, *values: str | int) -> int:
        """The one number that a statement gives."""
        return int(self.query(sql, *values)[0][0])

    def kinds(self, *kinds: str) -> int:
        """How many facts of these kinds there are."""
        marks = ",".join("?" * len(kinds))
        return self.number(f"select count(*) from journal where kind in ({marks})", *kinds)

    def until(self, condition: Callable[[], bool], limit: float, what: str) -> None:
        """Return when the condition holds."""
        deadline = time.monotonic() + limit
        while not condition():
            assert time.monotonic() < deadline, f"{what}: not within {limit:g} s; {self.told()}"
            time.sleep(0.01)

    def until_ended(self, runs: int, limit: float) -> None:
        """Return when so many runs have ended."""
        count = "select count(*) from run where ended_at is not null"
        self.until(lambda: self.number(count) >= runs, limit, f"{runs} runs have ended")

    def told(self) -> str:
        """What there is, for a message."""
        counted = self.query("select agent, status, hold, blocked, count(*) from run group by 1, 2, 3, 4")
        open_still = self.query(
            "select id, agent, status, worker, fence, attempt, losses, expiries, blocked, seq"
            " from run where ended_at is null limit 5"
        )
        return f"runs: {counted}; not ended: {open_still}"


@contextmanager
def looking_at(database: Path) -> Iterator[apsw.Connection]:
    """A connection of its own that only reads."""
    db = apsw.Connection(str(database), flags=apsw.SQLITE_OPEN_READONLY)
    db.set_busy_timeout(5000)
    try:
        yield db
    finally:
        db.close()


async def all_of(doing: Iterable[Callable[[], Awaitable[T]]], *, at_once: int = 200) -> list[T]:
    """Do everything, so much of it at once; what it gives, in order."""
    room = asyncio.Semaphore(at_once)

    async def one(fn: Callable[[], Awaitable[T]]) -> T:
        async with room:
            return await fn()

    return await asyncio.gather(*(one(fn) for fn in doing))


def resident(pid: int) -> int:
    """How many bytes of memory a process holds."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024
