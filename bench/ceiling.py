"""The ceiling: the least code that makes the same promises to the disk, and nothing else.

One writer thread, group commit, WAL with synchronous=FULL; every call returns after its own commit. Per run three
durable phases (enqueue, claim, finish) with an event each; per step a step row and an event row. No leases, no replay,
no types, no idempotency.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from pathlib import Path
from typing import Any

import apsw

SCHEMA = """
create table run(id integer primary key, status int, input text, result text, lease real);
create index run_due on run(id) where status = 0;
create table event(run int, seq int, data text, primary key(run, seq)) without rowid;
create table step(run int, k int, result text, primary key(run, k)) without rowid;
"""
SQL = {
    "enqueue": "insert into run(id, status, input) values(?, 0, ?)",
    "step": "insert into step values(?, ?, ?)",
    "finish": "update run set status = 2, result = ? where id = ?",
    "event": "insert into event values(?, ?, ?)",
}
CLAIM = (
    "update run set status = 1, lease = 0 where id in (select id from run where status = 0 order by id limit ?)"
    " returning id"
)
Statement = tuple[str, tuple[Any, ...]]
MAX_BATCH = 2000


class Ceiling:
    """A durable store of runs, steps and events without anything around it."""

    def __init__(self, folder: Path) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[list[tuple[asyncio.Future[Any], tuple[Statement, ...]]]] = queue.SimpleQueue()
        self._buffer: list[tuple[asyncio.Future[Any], tuple[Statement, ...]]] = []
        self._db = apsw.Connection(str(folder / "ceiling.db"))
        for pragma in ("journal_mode=wal", "synchronous=full", "wal_autocheckpoint=4000"):
            self._db.execute(f"pragma {pragma}")
        self._db.execute(SCHEMA)
        threading.Thread(target=self._write, daemon=True).start()

    def _do(self, *statements: Statement) -> asyncio.Future[Any]:
        future = self._loop.create_future()
        if not self._buffer:
            self._loop.call_soon(self._flush)
        self._buffer.append((future, statements))
        return future

    def _flush(self) -> None:
        self._queue.put(self._buffer)
        self._buffer = []

    def _write(self) -> None:
        while True:
            batch = self._queue.get()
            while len(batch) < MAX_BATCH and not self._queue.empty():
                batch = batch + self._queue.get()
            by_kind: dict[str, list[tuple[Any, ...]]] = {}
            for _, statements in batch:
                for kind, values in statements:
                    by_kind.setdefault(kind, []).append(values)
            self._db.execute("begin immediate")
            for kind, sql in SQL.items():
                if kind in by_kind:
                    self._db.executemany(sql, by_kind[kind])
            claimed = []
            if "claim" in by_kind:
                claimed = [row[0] for row in self._db.execute(CLAIM, by_kind["claim"][0])]
                self._db.executemany(SQL["event"], [(run, 1, "started") for run in claimed])
            self._db.execute("commit")
            self._loop.call_soon_threadsafe(self._answer, batch, claimed)

    @staticmethod
    def _answer(batch: list[tuple[asyncio.Future[Any], tuple[Statement, ...]]], claimed: list[int]) -> None:
        for future, statements in batch:
            if not future.done():
                future.set_result(claimed if statements[0][0] == "claim" else None)

    def enqueue(self, run: int) -> asyncio.Future[Any]:
        """Durably queue a run."""
        return self._do(("enqueue", (run, "{}")), ("event", (run, 0, "queued")))

    def claim(self, limit: int) -> asyncio.Future[Any]:
        """Durably claim up to `limit` queued runs."""
        return self._do(("claim", (limit,)))

    def step(self, run: int, k: int, result: str) -> asyncio.Future[Any]:
        """Durably record a step's result."""
        return self._do(("step", (run, k, result)), ("event", (run, 10 + k, "step")))

    def finish(self, run: int) -> asyncio.Future[Any]:
        """Durably end a run."""
        return self._do(("finish", ("{}", run)), ("event", (run, 2, "finished")))


class CeilingRuntime:
    """The least that executes queued runs: free slots, a wake-up, a task per run."""

    def __init__(self, store: Ceiling, slots: int, started: dict[int, asyncio.Event]) -> None:
        self._store = store
        self._free = self._slots = slots
        self._wake = asyncio.Event()
        self._started = started
        self.done = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._pump_task = asyncio.create_task(self._pump())

    async def start(self, run: int) -> None:
        """Queue a run; it executes when a slot is free."""
        await self._store.enqueue(run)
        self._wake.set()

    async def _pump(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            if self._free < 1:
                continue
            runs = await self._store.claim(self._free)
            self._free -= len(runs)
            for run in runs:
                task = asyncio.create_task(self._execute(run))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _execute(self, run: int) -> None:
        if run in self._started:
            self._started[run].set()
        await self._store.finish(run)
        self.done += 1
        self._free += 1
        if self._free * 2 >= self._slots or self._free == 1:
            self._wake.set()
