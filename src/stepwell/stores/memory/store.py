"""The store port over plain dicts. Made by `make_store("memory://")`; nothing of it survives or leaves the process.

Every change happens on the event loop's thread between two awaits, which makes it atomic; the lock is for `heartbeat`
alone, which comes from a thread of its own. The rules of a run's life are in `domain.transitions`, as for every store.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from threading import Lock
from typing import Final

from stepwell.domain import answering, transitions
from stepwell.domain.blob import blob_name
from stepwell.domain.commit import Commit
from stepwell.domain.errors import Conflict, NotFound
from stepwell.domain.event import Draft, Entry
from stepwell.domain.outcome import Payload
from stepwell.domain.run import RUNNING, Lease, Lifecycle, RunRecord
from stepwell.domain.session import MessageRecord, SessionRecord, SessionValue
from stepwell.domain.submission import DEFAULT_TENANT, Submission
from stepwell.domain.transitions import CancelAnswer
from stepwell.domain.wait import QUESTION, Signal, WaitRecord
from stepwell.ports.clock import Clock
from stepwell.ports.notifier import QUEUE
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
from stepwell.ports.system_clock import SystemClock
from stepwell.stores.hints import Hints
from stepwell.stores.memory.admission import Door
from stepwell.stores.memory.claims import Round
from stepwell.stores.memory.runs import Row, limit_passed
from stepwell.stores.memory.writing import Tables, Writing

URL: Final = "memory://"
SCHEMA: Final = 1
UNSERVED_AFTER: Final = 10_000_000
"""A run that is due for so many microseconds waits longer than any worker that serves it would let it."""


class MemoryStore:
    """Keeps everything in dicts. What the instance held goes with the instance."""

    capabilities = Capabilities(durable=False, shared=False)

    def __init__(self, clock: Clock | None = None) -> None:
        self.notifier = Hints()
        self._clock = clock or SystemClock()
        self._lock = Lock()
        self._tables = Tables()
        self._runs = self._tables.runs
        self._workers = self._tables.workers
        self._door = Door(self._tables)
        self._blobs: dict[str, bytes] = {}

    async def open(self) -> None:
        """There is nothing to open."""

    async def close(self) -> None:
        """Workers that are still registered count as dead from now on."""
        with self._lock:
            self._workers.abandon_all()

    # ------------------------------------------------------------ queue

    async def submit(self, submission: Submission) -> Submitted:
        with self._writing() as writing:
            landed = self._runs.rows.get(submission.id)
            if landed is not None:
                return Submitted(landed.run, created=True, lease=_started_with(submission, landed.run))
            instead = self._door.instead(writing, submission)
            if instead is not None:
                return Submitted(instead.run, created=False, lease=None)
            row = self._door.admit(writing, submission)
            lease = self._start_here(writing, row, submission.start_on)
        return Submitted(row.run, created=True, lease=lease)

    async def claim(self, request: ClaimRequest) -> Claims:
        with self._writing() as writing:
            claims = self._round(writing, request)
            claims.end_overdue()
            claims.make_up()
            claims.take_tickets()
            claims.take()
            return Claims(claims.given(), claims.next_due_at(), claims.left_suspects)

    async def commit(self, lease: Lease, write: Commit) -> Committed:
        with self._writing() as writing:
            row = self._row(lease.run_id)
            writing.commit(row, lease, write)
            return Committed(row.run.life.seq, _control(row.run.life))

    async def signal(self, run_id: str, signal: Signal, *, tenant: str = DEFAULT_TENANT) -> bool:
        with self._writing() as writing:
            row = self._row(run_id, tenant)
            if self._tables.signals.is_known(run_id, signal):
                return False
            writing.receive(row, signal)
            return True

    async def answer(self, question_id: str, value: Payload, *, by: str, tenant: str = DEFAULT_TENANT) -> WaitRecord:
        with self._writing() as writing:
            question = self._question(question_id, tenant)
            row = self._row(question.run_id)
            answering.refuse_answer(question, row.run.life, writing.now)
            return writing.answer(row, question, value, by)

    async def cancel(
        self, run_id: str, *, by: str, reason: str | None = None, tenant: str = DEFAULT_TENANT
    ) -> CancelAnswer:
        with self._writing() as writing:
            return writing.cancel(self._row(run_id, tenant), by=by, reason=reason)

    async def pause(self, run_id: str, *, by: str, tenant: str = DEFAULT_TENANT) -> RunRecord:
        with self._writing() as writing:
            row = self._row(run_id, tenant)
            writing.pause(row, by=by)
            return row.run

    async def discard(self, run_id: str, *, by: str, tenant: str = DEFAULT_TENANT) -> RunRecord:
        with self._writing() as writing:
            row = self._row(run_id, tenant)
            return writing.apply(row, transitions.discard(row.run.life, by=by))

    async def resume(
        self, run_id: str, *, at_seq: int, by: str, drafts: tuple[Draft, ...] = (), verdict: str | None = None
    ) -> RunRecord:
        with self._writing() as writing:
            row = self._row(run_id)
            life = row.run.life
            if not life.ended and life.seq != at_seq:
                raise Conflict(
                    f"the run has changed: its last event is {life.seq}, not {at_seq}",
                    code="run.changed",
                    hint="look at the run again and decide on what it shows now",
                )
            change = transitions.resume(life, by=by, drafts=drafts, verdict=verdict, now=writing.now)
            writing.resume(row, change, by=by)
            return row.run

    # ------------------------------------------------------------ workers

    async def open_worker(self, worker: WorkerInfo, *, lease_seconds: float) -> None:
        with self._lock:
            self._workers.open(worker, now=self._clock.now(), leased_until=self._clock.elapsed() + lease_seconds)

    async def close_worker(self, worker_id: str) -> None:
        with self._lock:
            self._workers.close(worker_id)
        self.notifier.give((QUEUE,))

    def abandon_worker(self, worker_id: str) -> None:
        with self._lock:
            self._workers.abandon(worker_id)

    def heartbeat(self, worker_id: str, *, lease_seconds: float) -> Heartbeat:
        with self._lock:
            self._workers.extend(worker_id, now=self._clock.now(), leased_until=self._clock.elapsed() + lease_seconds)
            return Heartbeat(self._held_by(worker_id))

    async def controls(self, worker_id: str) -> Mapping[str, tuple[int, Control]]:
        return {run_id: held for run_id, held in self._held_by(worker_id).items() if held[1] != Control()}

    def _held_by(self, worker_id: str) -> dict[str, tuple[int, Control]]:
        runs = self._runs
        lives = {run_id: runs.rows[run_id].run.life for run_id in runs.held_by(worker_id)}
        return {run_id: (life.fence, _control(life)) for run_id, life in lives.items()}

    async def workers(self) -> list[WorkerInfo]:
        return [replace(info, running=len(self._runs.held_by(info.id))) for info in self._workers.alive()]

    # ------------------------------------------------------------ reading

    async def get(self, run_id: str, *, tenant: str = DEFAULT_TENANT) -> RunRecord:
        return self._row(run_id, tenant).run

    async def find(self, query: RunQuery) -> list[RunRecord]:
        found: list[RunRecord] = []
        for run_id in sorted(self._runs.rows, reverse=True):
            if len(found) == query.limit:
                break
            run = self._runs.rows[run_id].run
            if _matches(run, query):
                found.append(run)
        return found

    async def journal(
        self, run_id: str, *, after: int = 0, limit: int = 1000, kinds: Sequence[str] = ()
    ) -> list[Entry]:
        row = self._runs.rows.get(run_id)
        newer = islice(row.journal, after, None) if row else ()
        return list(islice((entry for entry in newer if not kinds or entry.kind in kinds), limit))

    async def last_entry(self, run_id: str, kinds: Sequence[str]) -> Entry | None:
        row = self._runs.rows.get(run_id)
        return next((entry for entry in reversed(row.journal) if entry.kind in kinds), None) if row else None

    async def question(self, question_id: str, *, tenant: str = DEFAULT_TENANT) -> WaitRecord:
        return self._question(question_id, tenant)

    async def questions(self, query: QuestionQuery) -> list[WaitRecord]:
        return self._tables.waits.questions(query)

    async def lanes(self, *, awaited_by: str | None = None, tenant: str = DEFAULT_TENANT) -> list[LaneInfo]:
        return self._tables.lanes.infos(tenant, awaited_by)

    async def session_value(self, session: str, key: str, *, tenant: str = DEFAULT_TENANT) -> SessionValue | None:
        return self._tables.sessions.value(tenant, session, key)

    async def messages(
        self, session: str, *, last: int | None = None, upto: int | None = None, tenant: str = DEFAULT_TENANT
    ) -> list[MessageRecord]:
        return self._tables.sessions.messages(tenant, session, last=last, upto=upto)

    async def session(self, session: str, *, tenant: str = DEFAULT_TENANT) -> SessionRecord:
        return self._tables.sessions.record(tenant, session)

    async def sessions(self, *, limit: int = 50, tenant: str = DEFAULT_TENANT) -> list[SessionRecord]:
        return self._tables.sessions.listed(tenant, limit)

    async def delete_session(self, session: str, *, tenant: str = DEFAULT_TENANT) -> None:
        with self._lock:
            live = [
                run_id for run_id in self._tables.sessions.runs(tenant, session) if not self._row(run_id).run.life.ended
            ]
            if live:
                raise Conflict(
                    f"the session {session} cannot be deleted while {live[0]} has not ended",
                    code="session.busy",
                    hint="wait for its runs, or cancel them",
                )
            self._tables.sessions.forget(tenant, session)

    async def report(self) -> StoreReport:
        rows = self._runs.rows.values()
        journals = sum(len(entry.data.encode()) for row in rows for entry in row.journal)
        alive = [worker.id for worker in self._workers.alive()]
        unserved = self._runs.unserved(alive, self._clock.now() - UNSERVED_AFTER)
        return StoreReport(
            url=URL,
            version="dicts",
            schema=SCHEMA,
            size_bytes=journals + sum(map(len, self._blobs.values())),
            runs={status: count for status, count in self._runs.by_status.items() if count},
            unserved=Counter(run.agent for run in unserved if run.life.status != RUNNING),
            blockages=self._tables.lanes.blockages(unserved),
        )

    # ------------------------------------------------------------ values that lie beside the journal

    async def put_blob(self, content: bytes) -> str:
        ref = blob_name(content)
        self._blobs[ref] = bytes(content)
        return ref

    async def get_blob(self, ref: str) -> bytes:
        try:
            return self._blobs[ref]
        except KeyError:
            raise NotFound(f"there are no bytes named {ref!r}", code="blob.unknown") from None

    # ------------------------------------------------------------ inside one write

    @contextmanager
    def _writing(self) -> Iterator[Writing]:
        """One atomic write; whoever it concerns is woken afterwards."""
        with self._lock:
            writing = self._begin()
            yield writing
            writing.settle()
        self.notifier.give(set(writing.topics()))

    def _begin(self) -> Writing:
        return Writing(self._tables, self._clock.now())

    def _row(self, run_id: str, tenant: str | None = None) -> Row:
        row = self._runs.rows.get(run_id)
        if row is None or tenant not in (None, row.run.tenant):
            raise NotFound(f"there is no run {run_id}", code="run.unknown", hint="see: stepwell runs list")
        return row

    def _question(self, question_id: str, tenant: str) -> WaitRecord:
        record = self._tables.waits.get(question_id)
        if record is None or record.wait.type != QUESTION or record.tenant != tenant:
            raise NotFound(f"there is no question {question_id}", code="question.unknown", hint="see: stepwell inbox")
        return record

    def _start_here(self, writing: Writing, row: Row, worker_id: str | None) -> Lease | None:
        """The fast path: a submitted run starts at once where a slot is free, if it is the one that goes first."""
        if worker_id is None or limit_passed(row.run, writing.now) is not None:
            return None
        claims = self._round(writing, ClaimRequest(worker_id, 1, (row.run.agent,)))
        first = claims.first_due()
        if first is None or first.run_id != row.run.id or claims.lost():
            return None
        claims.take()
        return claims.given()[0].lease

    def _round(self, writing: Writing, request: ClaimRequest) -> Round:
        return Round(self._tables, writing, request, elapsed=self._clock.elapsed())


def _started_with(submission: Submission, run: RunRecord) -> Lease | None:
    """The lease of a run that was started when it was submitted, and in which nothing has happened since."""
    life = run.life
    fresh = life.status == RUNNING and life.fence == 1 and not life.commit_no
    if submission.start_on is None or not fresh or life.worker != submission.start_on:
        return None
    return Lease(run.id, life.fence, submission.start_on)


def _matches(run: RunRecord, query: RunQuery) -> bool:
    life = run.life
    return (
        run.tenant == query.tenant
        and (query.status is None or life.shown == query.status)
        and (query.agent is None or run.agent == query.agent)
        and (query.session is None or run.session == query.session)
        and (query.ended is None or life.ended == query.ended)
        and (query.dead is None or bool(life.dead) == query.dead)
        and (query.parent is None or run.parent == query.parent)
        and (query.ending is None or run.id.endswith(query.ending))
        and (query.before is None or run.id < query.before)
    )


def _control(life: Lifecycle) -> Control:
    return Control(cancelling=bool(life.cancelling), pausing=bool(life.pausing))
