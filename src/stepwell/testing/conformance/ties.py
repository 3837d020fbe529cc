"""The rest of the model: what runs wait for, what arrives for them, and what the end of one means for others.

Every question is answered by looking at everything. The machine asks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from stepwell.domain import transitions
from stepwell.domain.commit import Commit
from stepwell.domain.errors import AlreadyAnswered, Conflict
from stepwell.domain.event import Draft
from stepwell.domain.outcome import Parked, Payload
from stepwell.domain.run import PAUSED, Lease
from stepwell.domain.transitions import CancelAnswer, Change
from stepwell.domain.wait import (
    ANSWERED,
    CHILD,
    CHILD_ENDED,
    QUESTION,
    RECEIVED,
    RUN_ENDED,
    SIGNAL,
    TIMED_OUT,
    Signal,
    Wait,
    WaitRecord,
)
from stepwell.ports.store import Committed
from stepwell.testing.clock import ManualClock
from stepwell.testing.conformance.model import Model, ModelRun


class TiedModel(Model):
    """Runs with their waits, signals and children."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock)
        self.waits: dict[str, WaitRecord] = {}
        self.received: dict[tuple[str, str], Signal] = {}
        self.kept: list[tuple[str, Signal]] = []

    # ------------------------------------------------------------ commits

    def commit(self, run: ModelRun, lease: Lease, write: Commit) -> Committed:
        """One write of a holder. Raises what the store should."""
        hook = bool(run.record.hooked)
        change = transitions.commit(run.life, write, fence=lease.fence, now=self.now, has_hook=hook)
        if change.life is not run.life:
            told = self._beside(run, write)
            self.apply(run, transitions.commit(run.life, told, fence=lease.fence, now=self.now, has_hook=hook))
            self.settle()
        return Committed(run.life.seq, run.control)

    def _beside(self, run: ModelRun, write: Commit) -> Commit:
        for submission in write.submits:
            if submission.id not in self.runs:
                self.add(submission)
        drafts, satisfied = list(write.drafts), []
        for wait in write.opens:
            facts, over = self._open(run, wait)
            drafts += facts
            satisfied += over
        for record in (self.waits[wait_id] for wait_id in write.expires):
            if record.outcome is None and record.run_id == run.record.id:
                self._close(record, TIMED_OUT)
                drafts.append(transitions.expired(record.wait))
        outcome = write.outcome
        if isinstance(outcome, Parked) and any(self._wakes(record) for record in satisfied):
            outcome = replace(outcome, wake_at=min(outcome.wake_at, self.now))
        return write._replace(drafts=tuple(drafts), outcome=outcome)

    def _open(self, run: ModelRun, wait: Wait) -> tuple[list[Draft], list[WaitRecord]]:
        """The facts, and the wait if it is over already."""
        record = WaitRecord(wait, run.record.id, run.record.tenant, run.record.agent, self.now)
        if wait.type == CHILD and self.runs[wait.name].life.ended:
            return [], [record]
        drafts = list(transitions.opened([wait]))
        self.waits[wait.id] = record
        for place, (run_id, signal) in enumerate(self.kept):
            if wait.type == SIGNAL and (run_id, signal.name) == (run.record.id, wait.name):
                del self.kept[place]
                return [*drafts, transitions.taken(wait, signal.id)], [self._close(record, RECEIVED)]
        return drafts, []

    # ------------------------------------------------------------ arrivals

    def receive(self, run: ModelRun, signal: Signal) -> bool:
        """A signal arrives."""
        earlier = self.received.get((run.record.id, signal.id))
        if earlier is not None:
            if (earlier.name, earlier.value) != (signal.name, signal.value):
                raise Conflict("another signal of that id was received", code="signal.conflict")
            return False
        [*waiting] = self.open_waits(run, SIGNAL, signal.name)
        if waiting:
            closed = self._close(waiting[0], RECEIVED)
            wakes = self._wakes(closed)
            change = transitions.received(run.life, signal, now=self.now, wait=closed.wait, wakes=wakes)
        else:
            change = transitions.received(run.life, signal, now=self.now)
            self.kept.append((run.record.id, signal))
        self.received[run.record.id, signal.id] = signal
        self.apply(run, change)
        return True

    def answer(self, record: WaitRecord, value: Payload, by: str) -> WaitRecord:
        """A person answers a question."""
        if record.outcome == ANSWERED:
            raise AlreadyAnswered("somebody did")
        if record.outcome is not None:
            raise Conflict("it is closed", code="question.closed")
        run = self.runs[record.run_id]
        closed = self._close(record, ANSWERED, by)
        self.apply(
            run, transitions.answered(run.life, record.wait, value, by=by, now=self.now, wakes=self._wakes(closed))
        )
        return closed

    # ------------------------------------------------------------ requests

    def cancel(self, run: ModelRun, *, by: str, reason: str | None = None) -> CancelAnswer:
        """Somebody asks for an end."""
        hook = bool(run.record.hooked)
        change, answer = transitions.cancel(run.life, by=by, reason=reason, has_hook=hook, now=self.now)
        if change is not None:
            self.apply(run, change)
        return answer

    def pause(self, run: ModelRun, *, by: str) -> None:
        """Somebody sets a tree aside."""
        changes = [(each, transitions.pause(each.life, by=by, now=self.now)) for each in self.tree(run)]
        for each, change in changes:
            if change is not None:
                self.apply(each, change)

    def resume(self, run: ModelRun, change: Change, *, by: str) -> None:
        """Somebody lets a tree go on, the root of it by this change."""
        self.apply(run, change)
        for each in self.tree(run)[1:]:
            if each.life.hold == PAUSED or each.life.pausing:
                self.apply(each, transitions.resume(each.life, by=by, drafts=(), verdict=None, now=self.now))

    # ------------------------------------------------------------ ends

    def settle(self) -> None:
        """What the ends so far mean for others."""
        while self.ended:
            run, end = self.ended.pop(0)
            for record in self.open_waits(run):
                self._close(record, RUN_ENDED)
            self.kept = [kept for kept in self.kept if kept[0] != run.record.id]
            self._tell_parent(run, end)
            for child in self.children(run):
                if not child.record.detached:
                    self.cancel(child, by="parent")

    def _tell_parent(self, child: ModelRun, end: Draft) -> None:
        parent = self.runs.get(child.record.parent or "")
        if parent is None:
            return
        closed = [self._close(record, CHILD_ENDED) for record in self.open_waits(parent, CHILD, child.record.id)]
        wakes = any(self._wakes(record) for record in closed)
        change = transitions.child_ended(parent.life, child.record, end, now=self.now, wakes=wakes)
        if change is not None:
            self.apply(parent, change)

    # ------------------------------------------------------------ questions

    def children(self, run: ModelRun) -> list[ModelRun]:
        """The runs that this one made."""
        return [each for each in self.runs.values() if each.record.parent == run.record.id]

    def tree(self, run: ModelRun) -> list[ModelRun]:
        """The run, and all of its descendants that live."""
        found, generation = [run], self.children(run)
        while generation:
            found += (each for each in generation if not each.life.ended)
            generation = [child for each in generation for child in self.children(each)]
        return found

    def open_waits(self, run: ModelRun, kind: str | None = None, name: str | None = None) -> Sequence[WaitRecord]:
        """What the run waits for, oldest first."""
        return [
            record
            for record in self.waits.values()
            if record.run_id == run.record.id
            and record.outcome is None
            and kind in (None, record.wait.type)
            and name in (None, record.wait.name)
        ]

    def questions(self) -> list[WaitRecord]:
        """Every question that was ever asked."""
        return [record for record in self.waits.values() if record.wait.type == QUESTION]

    def _wakes(self, record: WaitRecord) -> bool:
        others = self.open_waits(self.runs[record.run_id])
        return record.wait.join is None or all(other.wait.join != record.wait.join for other in others)

    def _close(self, record: WaitRecord, outcome: str, by: str | None = None) -> WaitRecord:
        closed = self.waits[record.wait.id] = record._replace(outcome=outcome, closed_at=self.now, by=by)
        return closed
