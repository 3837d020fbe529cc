"""One atomic write: what it changes in its run, and what follows from that in others. Made anew for each.

The store makes one under its lock, for every change of a run; afterwards it knows who is to be woken.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from stepwell.domain import event, transitions
from stepwell.domain.commit import Commit
from stepwell.domain.event import Draft
from stepwell.domain.outcome import Outcome, Parked, Payload
from stepwell.domain.run import PAUSED, RUNNING, WAITING, Lease, Lifecycle, RunRecord
from stepwell.domain.session import SessionMessage, SessionWrite
from stepwell.domain.submission import Submission, facts
from stepwell.domain.transitions import CancelAnswer, Change
from stepwell.domain.wait import (
    ANSWERED,
    CHILD,
    CHILD_ENDED,
    RECEIVED,
    RUN_ENDED,
    SIGNAL,
    TIMED_OUT,
    Signal,
    Wait,
    WaitRecord,
)
from stepwell.ports.notifier import CONTROL, QUEUE
from stepwell.stores.memory.lanes import Lanes
from stepwell.stores.memory.runs import Row, Runs
from stepwell.stores.memory.sessions import Sessions
from stepwell.stores.memory.waits import Signals, Waits
from stepwell.stores.memory.workers import Workers


@dataclass(slots=True)
class Tables:
    """Everything that is stored about runs."""

    runs: Runs = field(default_factory=Runs)
    workers: Workers = field(default_factory=Workers)
    waits: Waits = field(default_factory=Waits)
    signals: Signals = field(default_factory=Signals)
    sessions: Sessions = field(default_factory=Sessions)
    lanes: Lanes = field(init=False)

    def __post_init__(self) -> None:
        self.lanes = Lanes(self.runs)


class Writing:
    """What one write does."""

    def __init__(self, tables: Tables, now: int) -> None:
        self.now = now
        self._tables = tables
        self._before: dict[str, Lifecycle | None] = {}
        self._ended: deque[tuple[Row, Draft]] = deque()

    # ------------------------------------------------------------ runs

    def add(self, submission: Submission) -> Row:
        """A new run in the queue."""
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
        run = RunRecord._make((*facts(submission), change.life))
        self._before[run.id] = None
        self._tables.sessions.join(run, self.now)
        row = self._tables.runs.add(run, change, self.now)
        lends = None if submission.detached else submission.parent
        if submission.lanes or (lends is not None and self._tables.lanes.turns(lends)):
            self._tables.lanes.issue(row, submission.lanes, lends)
            if submission.available_at <= self.now:
                self._tables.lanes.enter(row.run.id)
        return row

    def apply(self, row: Row, change: Change, *, keep_session: bool = True) -> RunRecord:
        """Store what a transition made of the run. What its end means for others is for `settle`."""
        before = row.run.life
        self._before.setdefault(row.run.id, before)
        run = self._tables.runs.apply(row, change, self.now)
        self._give_back(run.id, before, run.life, keep_session)
        if run.life.ended and not before.ended:
            self._ended.append((row, next(draft for draft in change.drafts if draft.kind in event.ENDS)))
        return run

    def settle(self) -> None:
        """Carry out what the ends so far mean for other runs, which may end of it in turn."""
        while self._ended:
            self._end(*self._ended.popleft())

    def _give_back(self, run_id: str, before: Lifecycle, life: Lifecycle, keep_session: bool) -> None:
        """Give back the tickets that a run does not need any more, or not for now."""
        if life.ended:
            self._tables.lanes.leave(run_id)
        elif life.status != RUNNING and (before.status == RUNNING or (life.hold and not before.hold)):
            keeps = keep_session or life.status != WAITING  # who has yet to clean up has his turn for that
            self._tables.lanes.step_aside(run_id, keep_session=keeps)

    def topics(self) -> Iterator[str]:
        """Whom the write concerns, now that it is done."""
        if self._tables.runs.newcomers():
            yield QUEUE
        for run_id, before in self._before.items():
            life = self._tables.runs.rows[run_id].run.life
            yield run_id
            if before is not None and _was_asked(before, life):
                yield CONTROL

    # ------------------------------------------------------------ commits

    def commit(self, row: Row, lease: Lease, write: Commit) -> None:
        """One write of the lease holder."""
        life, hook = row.run.life, bool(row.run.hooked)
        change = transitions.commit(life, write, fence=lease.fence, now=self.now, has_hook=hook)
        if change.life is life:
            return  # it had landed
        if not write.plain:
            self._tables.sessions.check(row.run.tenant, write.writes)
            told = self._beside(row.run, write)
            change = transitions.commit(life, told, fence=lease.fence, now=self.now, has_hook=hook)
        gives_up = isinstance(write.outcome, Parked) and write.outcome.release
        self.apply(row, change, keep_session=not gives_up)

    def _beside(self, run: RunRecord, write: Commit) -> Commit:
        """Do what the write asks for beside the run itself, and give the write with the facts that tell it."""
        for submission in write.submits:
            if submission.id not in self._tables.runs.rows:
                self.add(submission)
        opened, satisfied = self._open(run, write.opens)
        told = (*write.drafts, *opened, *self._expire(run, write.expires), *self._keep(run, write))
        outcome = self._due_if_woken(write.outcome, satisfied)
        return write._replace(drafts=told, outcome=outcome)

    def _open(self, run: RunRecord, waits: Sequence[Wait]) -> tuple[list[Draft], list[WaitRecord]]:
        """Begin waits: the facts, and those waits that are over already."""
        told: list[Draft] = []
        satisfied: list[WaitRecord] = []
        for wait in waits:
            record = WaitRecord(wait, run.id, run.tenant, run.agent, self.now)
            if self._tables.waits.get(wait.id) is not None:
                continue
            if wait.type == CHILD and self._has_ended(wait.name):
                satisfied.append(record)
                continue
            told += transitions.opened([wait])
            self._tables.waits.open(record)
            signal_id = self._tables.signals.take(run.id, wait.name) if wait.type == SIGNAL else None
            if signal_id is not None:
                satisfied.append(self._tables.waits.close(wait.id, RECEIVED, now=self.now))
                told.append(transitions.taken(wait, signal_id))
        return told, satisfied

    def _has_ended(self, run_id: str) -> bool:
        row = self._tables.runs.rows.get(run_id)
        return row is not None and row.run.life.ended

    def _due_if_woken(self, outcome: Outcome | None, satisfied: Sequence[WaitRecord]) -> Outcome | None:
        """A run that parks does not sleep over what it opened and found to be there."""
        if isinstance(outcome, Parked) and any(map(self._tables.waits.wakes, satisfied)):
            return replace(outcome, wake_at=min(outcome.wake_at, self.now))
        return outcome

    def _expire(self, run: RunRecord, wait_ids: Sequence[str]) -> Iterator[Draft]:
        for wait_id in wait_ids:
            record = self._tables.waits.get(wait_id)
            if record is not None and record.run_id == run.id and record.outcome is None:
                self._tables.waits.close(wait_id, TIMED_OUT, now=self.now)
                yield transitions.expired(record.wait)

    def _keep(self, run: RunRecord, write: Commit) -> Iterator[Draft]:
        for value in write.writes:
            yield self._write(run, value)
        for message in write.messages:
            yield self._add_message(run, message)

    def _write(self, run: RunRecord, value: SessionWrite) -> Draft:
        return self._tables.sessions.write(run.tenant, value, self.now)

    def _add_message(self, run: RunRecord, message: SessionMessage) -> Draft:
        return self._tables.sessions.add(run.tenant, message, run.id, self.now)

    # ------------------------------------------------------------ arrivals

    def receive(self, row: Row, signal: Signal) -> None:
        """A signal that was not received before arrives."""
        tables, run_id = self._tables, row.run.id
        waiting = tables.waits.open_for(run_id, SIGNAL, signal.name)
        if not waiting:
            change = transitions.received(row.run.life, signal, now=self.now)
            tables.signals.keep(run_id, signal)
        else:
            closed = tables.waits.close(waiting[0], RECEIVED, now=self.now)
            wakes = tables.waits.wakes(closed)
            change = transitions.received(row.run.life, signal, now=self.now, wait=closed.wait, wakes=wakes)
        tables.signals.receive(run_id, signal)
        self.apply(row, change)

    def answer(self, row: Row, question: WaitRecord, value: Payload, by: str) -> WaitRecord:
        """An open question is answered."""
        closed = self._tables.waits.close(question.wait.id, ANSWERED, now=self.now, by=by)
        wakes = self._tables.waits.wakes(closed)
        self.apply(row, transitions.answered(row.run.life, closed.wait, value, by=by, now=self.now, wakes=wakes))
        return closed

    # ------------------------------------------------------------ requests from outside

    def cancel(self, row: Row, *, by: str, reason: str | None) -> CancelAnswer:
        """Ask for an end."""
        change, answer = transitions.cancel(
            row.run.life, by=by, reason=reason, has_hook=bool(row.run.hooked), now=self.now
        )
        if change is not None:
            self.apply(row, change)
        return answer

    def pause(self, row: Row, *, by: str) -> None:
        """Set a run and its live descendants aside."""
        for each in (row, *self._descendants(row)):
            change = transitions.pause(each.run.life, by=by, now=self.now)
            if change is not None:
                self.apply(each, change)

    def resume(self, row: Row, change: Change, *, by: str) -> None:
        """Lift a hold by this change, and that of every live descendant that is paused, or about to be."""
        self.apply(row, change)
        for each in self._descendants(row):
            if each.run.life.hold == PAUSED or each.run.life.pausing:
                released = transitions.resume(each.run.life, by=by, drafts=(), verdict=None, now=self.now)
                self.apply(each, released)

    def _descendants(self, row: Row) -> list[Row]:
        """Those that live, in the order of the generations."""
        found: list[Row] = []
        generation = [row]
        while generation:
            generation = [child for parent in generation for child in self._tables.runs.children(parent.run.id)]
            found += (each for each in generation if not each.run.life.ended)
        return found

    # ------------------------------------------------------------ the end of a run

    def _end(self, row: Row, end: Draft) -> None:
        run_id = row.run.id
        for wait_id in self._tables.waits.open_of(run_id):
            self._tables.waits.close(wait_id, RUN_ENDED, now=self.now)
        self._tables.signals.forget_kept(run_id)
        self._tell_parent(row.run, end)
        for child in self._tables.runs.children(run_id):
            if not child.run.detached:
                self.cancel(child, by="parent", reason=None)

    def _tell_parent(self, child: RunRecord, end: Draft) -> None:
        """The parent learns it, and is woken if it waits for nothing else that is joined with this child."""
        row = self._tables.runs.rows.get(child.parent or "")
        if row is None or row.run.life.ended:
            return
        waits = self._tables.waits
        closed = [
            waits.close(wait_id, CHILD_ENDED, now=self.now) for wait_id in waits.open_for(row.run.id, CHILD, child.id)
        ]
        wakes = any(map(waits.wakes, closed))
        change = transitions.child_ended(row.run.life, child, end, now=self.now, wakes=wakes)
        assert change is not None
        self.apply(row, change)


def _was_asked(before: Lifecycle, life: Lifecycle) -> bool:
    return life.status == RUNNING and (life.cancelling, life.pausing) != (before.cancelling, before.pausing)
