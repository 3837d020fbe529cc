"""What a store should hold: `domain.transitions` over plain dicts, and every question answered by looking at all runs.

Used by the machine to foretell what a store must answer. It decides nothing by itself that the contract leaves open.
What a run waits for, and what its end means for others, is in `ties`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from stepwell.domain import due, event, transitions
from stepwell.domain.event import Draft, Entry
from stepwell.domain.outcome import NEVER
from stepwell.domain.run import QUEUED, RUNNING, WAITING, Lease, Lifecycle, RunRecord, place_in_queue
from stepwell.domain.submission import Submission, facts
from stepwell.domain.transitions import Change, ClaimCause
from stepwell.ports.store import ClaimRequest, Control
from stepwell.testing.clock import ManualClock


@dataclass
class ModelRun:
    """A run as it should be stored, and every lease that was ever given for it."""

    record: RunRecord
    journal: list[Entry] = field(default_factory=list)
    leases: list[Lease] = field(default_factory=list)

    @property
    def life(self) -> Lifecycle:
        """The changing part."""
        return self.record.life

    @property
    def control(self) -> Control:
        """What the holder should be told."""
        return Control(bool(self.life.cancelling), bool(self.life.pausing))

    @property
    def place(self) -> int:
        """Where the run stands in the queue."""
        return place_in_queue(self.life.available_at, self.record.priority)


@dataclass
class ModelWorker:
    """A worker: which store it uses, until when its leases last, and how it went."""

    id: str
    view: int
    leased_until: float
    gone: ClaimCause | None = None


class Model:
    """All runs and workers, by id."""

    def __init__(self, clock: ManualClock) -> None:
        self.runs: dict[str, ModelRun] = {}
        self.workers: dict[str, ModelWorker] = {}
        self.keys: dict[tuple[str, str, str], tuple[ModelRun, str]] = {}
        self.changed: set[str] = set()
        self.ended: list[tuple[ModelRun, Draft]] = []
        self._clock = clock

    @property
    def now(self) -> int:
        """The time of the wall clock."""
        return self._clock.now()

    # ------------------------------------------------------------ changes

    def add(self, submission: Submission) -> ModelRun:
        """The run of a submission that was accepted, queued."""
        change = transitions.submit(
            agent=submission.agent,
            version=submission.version,
            trigger=submission.trigger,
            input_field=submission.input.field("input"),
            priority=submission.priority,
            available_at=submission.available_at,
            now=self.now,
            parent=submission.parent,
            retry_of=submission.retry_of,
            inherited=submission.inherited,
        )
        run = self.runs[submission.id] = ModelRun(RunRecord._make((*facts(submission), change.life)))
        if submission.idempotency_key is not None:
            key = submission.tenant, submission.agent, submission.idempotency_key
            self.keys[key] = run, submission.input_digest
        self.apply(run, change)
        return run

    def apply(self, run: ModelRun, change: Change) -> None:
        """Take over what a transition made of the run."""
        before = run.life
        life, entries = transitions.number(before, change, self.now)
        run.record = run.record._replace(life=life)
        run.journal += entries
        self.changed.add(run.record.id)
        if life.ended and not before.ended:
            self.ended.append((run, next(draft for draft in change.drafts if draft.kind in event.ENDS)))

    def claim(self, run: ModelRun, worker_id: str, cause: ClaimCause) -> None:
        """A worker takes the run; the lease is noted if the run goes on."""
        self.apply(run, transitions.claim(run.life, worker=worker_id, cause=cause, now=self.now))
        if run.life.status == RUNNING:
            run.leases.append(Lease(run.record.id, run.life.fence, worker_id))

    def make_up(self) -> None:
        """A claim has a clock that was set back put off no run."""
        for run in self.runs.values():
            life = due.made_up(run.life, self.now)
            if life is not None:
                self.apply(run, Change(life, ()))

    # ------------------------------------------------------------ questions

    def overdue(self) -> list[tuple[ModelRun, str]]:
        """The runs that a claim must end, and by which limit."""
        found = ((run, self.limit_passed(run)) for run in self.runs.values())
        return [(run, limit) for run, limit in found if limit is not None]

    def limit_passed(self, run: ModelRun) -> str | None:
        """The limit by which the run must end."""
        record = run.record
        return transitions.overdue(run.life, timeout=record.timeout, deadline=record.deadline, now=self.now)

    def lost(self, request: ClaimRequest) -> list[tuple[ModelRun, ClaimCause]]:
        """The runs that may be taken from their holders."""
        found = ((run, self.why_lost(run)) for run in self._wanted(request))
        return [(run, cause) for run, cause in found if cause is not None]

    def why_lost(self, run: ModelRun) -> ClaimCause | None:
        """Why the run may be taken from its holder, if it may."""
        if run.life.status != RUNNING or run.life.worker is None:
            return None
        gone = self.workers[run.life.worker].gone
        return gone or ("expired" if self.lease_is_over(run) else None)

    def lease_is_over(self, run: ModelRun) -> bool:
        """Whether the time is over for which the holder was given the run."""
        return self._clock.elapsed() >= self.workers[run.life.worker or ""].leased_until

    def due(self, request: ClaimRequest) -> list[ModelRun]:
        """The runs whose time has come, those that go first at the front."""
        now = self.now
        due = [run for run in self._claimable(request) if run.life.available_at <= now]
        return sorted(due, key=lambda run: run.place)

    def next_due_at(self, request: ClaimRequest) -> int | None:
        """When the next run becomes due by itself."""
        now = self.now
        moments = (run.life.available_at for run in self._claimable(request))
        return min((at for at in moments if now < at < NEVER), default=None)

    def held_by(self, worker_id: str) -> dict[str, tuple[int, Control]]:
        """What a heartbeat of the worker must answer."""
        held = (run for run in self.runs.values() if run.life.status == RUNNING and run.life.worker == worker_id)
        return {run.record.id: (run.life.fence, run.control) for run in held}

    def alive(self) -> list[ModelWorker]:
        """The workers that neither closed nor died."""
        return [worker for worker in self.workers.values() if worker.gone is None]

    def _claimable(self, request: ClaimRequest) -> list[ModelRun]:
        return [run for run in self._wanted(request) if run.life.status in (QUEUED, WAITING) and run.life.hold is None]

    def _wanted(self, request: ClaimRequest) -> Iterable[ModelRun]:
        for run in self.runs.values():
            if run.record.agent in request.agents and (request.only is None or run.record.id in request.only):
                yield run
