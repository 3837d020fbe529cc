"""The store port over one SQLite file. Holds what was opened and passes each call to whoever carries it out.

Writes go to the writer thread, reads to the readers, heartbeats to a connection of their own. No method here knows SQL.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar
from weakref import WeakSet

from stepwell.domain.commit import Commit
from stepwell.domain.errors import StoreUnusable
from stepwell.domain.event import Draft, Entry
from stepwell.domain.outcome import Payload
from stepwell.domain.run import Lease, RunRecord
from stepwell.domain.session import MessageRecord, SessionRecord, SessionValue
from stepwell.domain.submission import DEFAULT_TENANT, Submission
from stepwell.domain.transitions import CancelAnswer
from stepwell.domain.wait import Signal, WaitRecord
from stepwell.ports import system_clock
from stepwell.ports.clock import Clock
from stepwell.ports.store import (
    Capabilities,
    ClaimRequest,
    Claims,
    Committed,
    Control,
    Heartbeat,
    LaneInfo,
    QuestionQuery,
    RunQuery,
    StoreReport,
    Submitted,
    WorkerInfo,
)
from stepwell.stores.hints import Hints
from stepwell.stores.sqlite import blobs, errors, opening, queries, requests, sessions, workers
from stepwell.stores.sqlite.claims import Take
from stepwell.stores.sqlite.commits import Conclude, Extend
from stepwell.stores.sqlite.connection import Patience, connect_reader
from stepwell.stores.sqlite.deaths import Deaths
from stepwell.stores.sqlite.heartbeat import Heartbeats
from stepwell.stores.sqlite.operations import Append, Operation, Settle, Submit
from stepwell.stores.sqlite.reader import Readers
from stepwell.stores.sqlite.transactions import Stats, Transactions
from stepwell.stores.sqlite.worker_lock import WorkerLock
from stepwell.stores.sqlite.writer import Writer

if TYPE_CHECKING:
    import apsw

WRITER_PATIENCE_SECONDS: Final = 30.0
CLOSING_PATIENCE_SECONDS: Final = 5.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Opened:
    writer: Writer
    readers: Readers
    heartbeats: Heartbeats


class SqliteStore:
    """One file, any number of processes. To be used from the event loop that opened it, `heartbeat` from any thread.

    `boot_id` (default: this boot of the machine) and `vfs` (the name of a registered SQLite VFS) are for tests of the
    store itself.
    """

    capabilities = Capabilities(durable=True, shared=True)

    def __init__(
        self, path: str, *, clock: Clock | None = None, boot_id: str | None = None, vfs: str | None = None
    ) -> None:
        self.path = os.path.realpath(path)
        self.notifier = Hints(on_wait=self._look_out)
        self._clock: Clock = clock or system_clock.SystemClock()
        self._boot_id = system_clock.boot_id() if boot_id is None else boot_id
        self._vfs = vfs
        self._locks: dict[str, WorkerLock] = {}
        self._opened: _Opened | None = None
        self._forked = False
        self._opening = asyncio.Lock()
        self._patience = Patience(WRITER_PATIENCE_SECONDS)
        _stores.add(self)

    async def open(self) -> None:
        """Make the store usable, creating or migrating what is missing."""
        async with self._opening:
            if self._opened is not None:
                return
            if self.path in _paths_of_parent:
                raise errors.forked(self.path)
            self._patience.seconds = WRITER_PATIENCE_SECONDS
            writer = Writer(self.notifier, self._open_file)
            await writer.start()
            self._opened = _Opened(
                writer,
                Readers(self.path, partial(connect_reader, self.path, self._vfs)),
                Heartbeats(self.path, self._clock, self._vfs),
            )

    async def close(self) -> None:
        """Finish what was accepted, release workers' proofs of life, threads and files."""
        opened, self._opened = self._opened, None
        if opened is None:
            return
        self._patience.seconds = CLOSING_PATIENCE_SECONDS
        await opened.readers.stop()
        opened.heartbeats.close()
        await opened.writer.stop()
        for worker_id in list(self._locks):
            self.abandon_worker(worker_id)

    def stats(self) -> Stats:
        """What the writer has done since the store was opened."""
        return replace(self._use().writer.stats)

    # ------------------------------------------------------------ queue

    async def submit(self, submission: Submission) -> Submitted:
        answer: Submitted = await self._use().writer.ask(Submit(submission))
        return answer

    async def claim(self, request: ClaimRequest) -> Claims:
        answer: Claims = await self._use().writer.ask(Take(request))
        return answer

    async def commit(self, lease: Lease, write: Commit) -> Committed:
        operation: Operation
        if write.plain:
            operation = Append(lease, write) if write.outcome is None else Settle(lease, write)
        else:
            operation = Extend(lease, write) if write.outcome is None else Conclude(lease, write)
        answer: Committed = await self._use().writer.ask(operation)
        return answer

    async def signal(self, run_id: str, signal: Signal, *, tenant: str = DEFAULT_TENANT) -> bool:
        answer: bool = await self._use().writer.ask(requests.Send(run_id, signal, tenant))
        return answer

    async def answer(self, question_id: str, value: Payload, *, by: str, tenant: str = DEFAULT_TENANT) -> WaitRecord:
        answer: WaitRecord = await self._use().writer.ask(requests.Answer(question_id, value, by, tenant))
        return answer

    async def cancel(
        self, run_id: str, *, by: str, reason: str | None = None, tenant: str = DEFAULT_TENANT
    ) -> CancelAnswer:
        answer: CancelAnswer = await self._use().writer.ask(requests.Cancel(run_id, by, reason, tenant))
        return answer

    async def pause(self, run_id: str, *, by: str, tenant: str = DEFAULT_TENANT) -> RunRecord:
        answer: RunRecord = await self._use().writer.ask(requests.Pause(run_id, by, tenant))
        return answer

    async def discard(self, run_id: str, *, by: str, tenant: str = DEFAULT_TENANT) -> RunRecord:
        answer: RunRecord = await self._use().writer.ask(requests.Discard(run_id, by, tenant))
        return answer

    async def resume(
        self, run_id: str, *, at_seq: int, by: str, drafts: tuple[Draft, ...] = (), verdict: str | None = None
    ) -> RunRecord:
        answer: RunRecord = await self._use().writer.ask(requests.Resume(run_id, at_seq, by, drafts, verdict))
        return answer

    # ------------------------------------------------------------ workers

    async def open_worker(self, worker: WorkerInfo, *, lease_seconds: float) -> None:
        writer = self._use().writer
        try:
            lock = WorkerLock(self._folder, worker.id)
        except OSError as error:
            raise errors.place(error, self.path) from error
        try:
            await writer.ask(workers.Register(worker, _micros(lease_seconds), self._boot_id))
        except asyncio.CancelledError:  # it may be registered yet: a free lock is the proof that nobody works there
            lock.release(remove=False)
            raise
        except BaseException:  # not registered: no proof of life stays, and the error goes on
            lock.release(remove=True)
            raise
        self._locks[worker.id] = lock

    async def close_worker(self, worker_id: str) -> None:
        await self._use().writer.ask(workers.Close(worker_id))
        lock = self._locks.pop(worker_id, None)
        if lock is not None:
            lock.release(remove=True)

    def abandon_worker(self, worker_id: str) -> None:
        lock = self._locks.pop(worker_id, None)
        if lock is not None:
            lock.release(remove=False)

    def heartbeat(self, worker_id: str, *, lease_seconds: float) -> Heartbeat:
        opened = self._use()
        if opened.writer.failed is not None:  # what can no longer be finished here must not be kept from others
            raise opened.writer.failed
        try:
            return opened.heartbeats.beat(worker_id, _micros(lease_seconds))
        except StoreUnusable as error:
            opened.writer.fail(error)
            raise

    async def controls(self, worker_id: str) -> Mapping[str, tuple[int, Control]]:
        return await self._ask(partial(queries.controls, worker_id=worker_id))

    async def workers(self) -> list[WorkerInfo]:
        return await self._ask(partial(queries.workers, folder=self._folder, boot_id=self._boot_id))

    # ------------------------------------------------------------ reading

    async def get(self, run_id: str, *, tenant: str = DEFAULT_TENANT) -> RunRecord:
        return await self._ask(partial(queries.get, run_id=run_id, tenant=tenant))

    async def find(self, query: RunQuery) -> list[RunRecord]:
        return await self._ask(partial(queries.find, query=query))

    async def journal(
        self, run_id: str, *, after: int = 0, limit: int = 1000, kinds: Sequence[str] = ()
    ) -> list[Entry]:
        return await self._ask(partial(queries.journal, run_id=run_id, after=after, limit=limit, kinds=kinds))

    async def last_entry(self, run_id: str, kinds: Sequence[str]) -> Entry | None:
        return await self._ask(partial(queries.last_entry, run_id=run_id, kinds=kinds))

    async def question(self, question_id: str, *, tenant: str = DEFAULT_TENANT) -> WaitRecord:
        return await self._ask(partial(queries.question, question_id=question_id, tenant=tenant))

    async def questions(self, query: QuestionQuery) -> list[WaitRecord]:
        return await self._ask(partial(queries.questions, query=query))

    async def lanes(self, *, awaited_by: str | None = None, tenant: str = DEFAULT_TENANT) -> list[LaneInfo]:
        return await self._ask(partial(queries.lanes, tenant=tenant, awaited_by=awaited_by))

    async def session_value(self, session: str, key: str, *, tenant: str = DEFAULT_TENANT) -> SessionValue | None:
        return await self._ask(partial(sessions.value, tenant=tenant, session=session, key=key))

    async def messages(
        self, session: str, *, last: int | None = None, upto: int | None = None, tenant: str = DEFAULT_TENANT
    ) -> list[MessageRecord]:
        return await self._ask(partial(sessions.messages, tenant=tenant, session=session, last=last, upto=upto))

    async def session(self, session: str, *, tenant: str = DEFAULT_TENANT) -> SessionRecord:
        return await self._ask(partial(sessions.record, tenant=tenant, session=session))

    async def sessions(self, *, limit: int = 50, tenant: str = DEFAULT_TENANT) -> list[SessionRecord]:
        return await self._ask(partial(sessions.listed, tenant=tenant, limit=limit))

    async def delete_session(self, session: str, *, tenant: str = DEFAULT_TENANT) -> None:
        await self._use().writer.ask(requests.Forget(session, tenant))

    async def report(self) -> StoreReport:
        now = self._clock.now()
        return await self._ask(
            partial(queries.report, path=self.path, folder=self._folder, boot_id=self._boot_id, now=now)
        )

    # ------------------------------------------------------------ values that lie beside the journal

    async def put_blob(self, content: bytes) -> str:
        name, exists = await self._ask(partial(blobs.look_for, content=content))
        if not exists:
            for part in range(blobs.parts(content)):
                await self._use().writer.ask(blobs.PutPart(name, content, part))
        return name

    async def get_blob(self, ref: str) -> bytes:
        return await self._ask(partial(blobs.read, name=ref))

    # ------------------------------------------------------------ what was opened

    def _use(self) -> _Opened:
        opened = self._opened
        if opened is None:
            raise errors.forked(self.path) if self._forked else errors.closed(self.path)
        return opened

    def _after_fork(self) -> None:
        """In a forked child: what was opened is neither used nor closed here, and the file is not opened again."""
        self._forked = self._opened is not None
        if self._forked:
            _left_behind.append(self._opened)
            _paths_of_parent.add(self.path)
        self._opened = None

    async def _ask(self, question: Callable[[apsw.Connection], T]) -> T:
        return await self._use().readers.ask(question)

    def _look_out(self) -> None:
        if self._opened is not None:
            self._opened.writer.look_out()

    def _open_file(self) -> Transactions:
        now = self._clock.now()
        connection, checkpoints = opening.open_for_writing(
            self.path, now=now, boot_id=self._boot_id, patience=self._patience, vfs=self._vfs
        )
        return Transactions(
            connection, checkpoints, self.path, self._clock, Deaths(self._folder, self._boot_id), self._boot_id
        )

    @property
    def _folder(self) -> str:
        """Where the workers' lock files are."""
        return self.path + "-workers"


# SQLite notes in memory which locks its process holds; a forked child inherits the notes without the locks. So a child
# never uses a file that its parent had open, and never closes what it inherited.
_stores: WeakSet[SqliteStore] = WeakSet()
_left_behind: list[object] = []
_paths_of_parent: set[str] = set()


def _forget_all() -> None:
    for store in list(_stores):
        store._after_fork()


os.register_at_fork(after_in_child=_forget_all)


def _micros(seconds: float) -> int:
    return round(seconds * 1_000_000)
