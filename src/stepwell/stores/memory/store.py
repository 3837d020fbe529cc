"""The store port over plain dicts. Made by `make_store("memory://")`; nothing of it survives or leaves the process.

Every change happens on the event loop's thread between two awaits, which makes it atomic; the lock is for `heartbeat`
alone, which comes from a thread of its own. The rules of a run's life are in `domain.transitions`, as for every store.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from threading import Lock
from typing import Final

from stepwell.domain import transitions
from stepwell.domain.blob import blob_name
from stepwell.domain.errors import Busy, Conflict, NotFound
from stepwell.domain.event import Draft, Entry
from stepwell.domain.outcome import Commit
from stepwell.domain.run import QUEUED, Lease, Lifecycle, RunRecord
from stepwell.ports.clock import Clock
from stepwell.ports.notifier import QUEUE
from stepwell.ports.store import (
    DEFAULT_TENANT,
    Capabilities,
    ClaimRequest,
    Claims,
    Committed,
    Control,
    Heartbeat,
    RunQuery,
    StoreReport,
    Submission,
    Submitted,
    WorkerInfo,
)
from stepwell.ports.system_clock import SystemClock
from stepwell.stores.hints import Hints
from stepwell.stores.memory.claims import Round
from stepwell.stores.memory.queue import claimable
from stepwell.stores.memory.runs import Row, Runs, limit_passed
from stepwell.stores.memory.workers import Workers

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
        self._runs = Runs()
        self._workers = Workers()
        self._keys: dict[tuple[str, str, str], Row] = {}
        self._blobs: dict[str, bytes] = {}

    async def open(self) -> None:
        """There is nothing to open."""

    async def close(self) -> None:
        """Workers that are still registered count as dead from now on."""
        with self._lock:
            self._workers.abandon_all()

    # ------------------------------------------------------------ queue

    async def submit(self, submission: Submission) -> Submitted:
        with self._lock:
            first = self._named_by_key(submission)
            if first is not None:
                return Submitted(first.run, created=False, lease=None)
            if self._runs.by_status[QUEUED] >= submission.queue_bound:
                raise Busy(
                    f"the queue holds {submission.queue_bound} runs, which is its bound",
                    code="queue.full",
                    hint="try again when workers have caught up, or raise the bound",
                )
            row = self._add(submission)
            lease = self._start_here(row, submission.start_on)
        self.notifier.give((row.run.id,) if lease else (row.run.id, QUEUE))
        return Submitted(row.run, created=True, lease=lease)

    async def claim(self, request: ClaimRequest) -> Claims:
        with self._lock:
            claims = self._round(request)
            claims.end_overdue()
            claims.take_lost()
            claims.take_due()
            next_due_at = claims.next_due_at()
        self.notifier.give(claims.touched)
        return Claims(claims.taken, next_due_at)

    async def commit(self, lease: Lease, write: Commit) -> Committed:
        now = self._clock.now()
        with self._lock:
            row = self._row(lease.run_id)
            change = transitions.commit(row.run.life, write, fence=lease.fence, now=now)
            life = self._runs.apply(row, change, now).life
        self.notifier.give((lease.run_id, QUEUE) if claimable(life) else (lease.run_id,))
        return Committed(life.seq, _control(life))

    async def resume(
        self, run_id: str, *, at_seq: int, by: str, drafts: tuple[Draft, ...] = (), verdict: str | None = None
    ) -> RunRecord:
        now = self._clock.now()
        with self._lock:
            row = self._row(run_id)
            life = row.run.life
            if not life.ended and life.seq != at_seq:
                raise Conflict(
                    f"the run has changed: its last event is {life.seq}, not {at_seq}",
                    code="run.changed",
                    hint="look at the run again and decide on what it shows now",
                )
            self._runs.apply(row, transitions.resume(life, by=by, drafts=drafts, verdict=verdict, now=now), now)
        self.notifier.give((run_id, QUEUE))
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
            lives = {run_id: self._runs.rows[run_id].run.life for run_id in self._runs.held_by(worker_id)}
        return Heartbeat({run_id: (life.fence, _control(life)) for run_id, life in lives.items()})

    async def workers(self) -> list[WorkerInfo]:
        return [replace(info, running=len(self._runs.held_by(info.id))) for info in self._workers.alive()]

    # ------------------------------------------------------------ reading

    async def get(self, run_id: str, *, tenant: str = DEFAULT_TENANT) -> RunRecord:
        run = self._row(run_id).run
        if run.tenant != tenant:
            raise _unknown(run_id)
        return run

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

    async def report(self) -> StoreReport:
        rows = self._runs.rows.values()
        journals = sum(len(entry.data.encode()) for row in rows for entry in row.journal)
        return StoreReport(
            url=URL,
            version="dicts",
            schema=SCHEMA,
            size_bytes=journals + sum(map(len, self._blobs.values())),
            runs={status: count for status, count in self._runs.by_status.items() if count},
            unserved=self._runs.unserved(self._clock.now() - UNSERVED_AFTER),
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

    def _row(self, run_id: str) -> Row:
        try:
            return self._runs.rows[run_id]
        except KeyError:
            raise _unknown(run_id) from None

    def _named_by_key(self, submission: Submission) -> Row | None:
        if submission.idempotency_key is None:
            return None
        first = self._keys.get((submission.tenant, submission.agent, submission.idempotency_key))
        if first is not None and first.input_digest != submission.input_digest:
            raise Conflict(
                f"the idempotency key {submission.idempotency_key!r} was used with another input, for {first.run.id}",
                code="idempotency.conflict",
                hint="use a new key for a new input",
            )
        return first

    def _add(self, submission: Submission) -> Row:
        now = self._clock.now()
        change = transitions.submit(
            agent=submission.agent,
            version=submission.version,
            trigger=submission.trigger,
            input_field=submission.input.field("input"),
            priority=submission.priority,
            available_at=submission.available_at,
            now=now,
        )
        row = self._runs.add(_record(submission, change.life), submission.input_digest, change, now)
        if submission.idempotency_key is not None:
            self._keys[submission.tenant, submission.agent, submission.idempotency_key] = row
        return row

    def _start_here(self, row: Row, worker_id: str | None) -> Lease | None:
        """The fast path: a submitted run starts at once where a slot is free, if it is the one that goes first."""
        if worker_id is None or limit_passed(row.run, self._clock.now()) is not None:
            return None
        claims = self._round(ClaimRequest(worker_id, 1, (row.run.agent,)))
        first = claims.first_due()
        if first is None or first.run_id != row.run.id or claims.lost():
            return None
        claims.take_due()
        return claims.taken[0].lease

    def _round(self, request: ClaimRequest) -> Round:
        return Round(self._runs, self._workers, request, now=self._clock.now(), elapsed=self._clock.elapsed())


def _record(submission: Submission, life: Lifecycle) -> RunRecord:
    return RunRecord(
        id=submission.id,
        tenant=submission.tenant,
        agent=submission.agent,
        version=submission.version,
        session=submission.session,
        trigger=submission.trigger,
        priority=submission.priority,
        created_at=submission.created_at,
        timeout=submission.timeout,
        deadline=submission.deadline,
        idempotency_key=submission.idempotency_key,
        metadata=submission.metadata,
        parent=None,
        root=None,
        depth=0,
        causal_depth=submission.causal_depth,
        retry_of=None,
        forked_from=None,
        life=life,
    )


def _matches(run: RunRecord, query: RunQuery) -> bool:
    life = run.life
    return (
        run.tenant == query.tenant
        and (query.status is None or life.shown == query.status)
        and (query.agent is None or run.agent == query.agent)
        and (query.session is None or run.session == query.session)
        and (query.ended is None or life.ended == query.ended)
        and (query.dead is None or bool(life.dead) == query.dead)
        and (query.ending is None or run.id.endswith(query.ending))
        and (query.before is None or run.id < query.before)
    )


def _control(life: Lifecycle) -> Control:
    return Control(cancelling=bool(life.cancelling), pausing=bool(life.pausing))


def _unknown(run_id: str) -> NotFound:
    return NotFound(f"there is no run {run_id}", code="run.unknown", hint="see: stepwell runs list")
