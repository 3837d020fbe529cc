"""Commits that do more than append facts: they open and expire waits, make children, and write to sessions.

Carried out by the writer thread. Plain commits, which are nearly all, are in `operations`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from stepwell.domain import transitions
from stepwell.domain.commit import Commit
from stepwell.domain.event import Draft
from stepwell.domain.outcome import Outcome, Parked
from stepwell.domain.run import Lease, place_in_queue
from stepwell.domain.wait import CHILD, RECEIVED, SIGNAL, TIMED_OUT, Wait
from stepwell.ports.store import Committed
from stepwell.stores.sqlite import ties
from stepwell.stores.sqlite.batch import Batch
from stepwell.stores.sqlite.making import make, queued, want
from stepwell.stores.sqlite.operations import Operation, note_release
from stepwell.stores.sqlite.rows import HAS_CHILDREN, Row
from stepwell.stores.sqlite.sessions import Sessions
from stepwell.stores.sqlite.signals import Signals
from stepwell.stores.sqlite.waits import Waits


class Extend(Operation):
    """Write all that a commit may contain."""

    kind = "commit"

    def __init__(self, lease: Lease, write: Commit) -> None:
        self._lease = lease
        self._write = write

    def prepare(self, batch: Batch) -> None:
        run_id, write = self._lease.run_id, self._write
        batch.want_run(run_id)
        for submission in write.submits:
            batch.want_run(submission.id)
            want(batch, submission)
        if write.opens or write.expires:
            batch.part(Waits).want_open(run_id)
        for wait in write.opens:
            self._want_wait(batch, wait)
        if write.writes or write.messages:
            batch.part(Sessions).want(run_id, write.writes, write.messages)

    def apply(self, batch: Batch) -> None:
        ties.settle(batch)  # a child that ended a moment ago has told it before the run waits for it
        row, fence = batch.row(self._lease.run_id), self._lease.fence
        change = transitions.commit(row.life, self._write, fence=fence, now=batch.now)
        if change.life is not row.life:
            if self._write.writes:
                batch.part(Sessions).check(row.tenant, self._write.writes)
            write, hook = self._beside(batch, row), row.hooked
            change = transitions.commit(row.life, write, fence=fence, now=batch.now, has_hook=hook)
            note_release(batch, row, self._write.outcome)
            (batch.append if self._write.outcome is None else batch.change)(row, change)
        self.answer = Committed(row.life.seq, row.control)

    def _want_wait(self, batch: Batch, wait: Wait) -> None:
        batch.part(Waits).want(wait.id)
        if wait.type == SIGNAL:
            batch.part(Signals).want_kept(self._lease.run_id, wait.name)
        if wait.type == CHILD:
            batch.want_life(wait.name)

    def _beside(self, batch: Batch, row: Row) -> Commit:
        """Do what the write asks for beside the run itself, and give the write with the facts that tell it."""
        write = self._write
        for submission in write.submits:
            batch.tie(row, HAS_CHILDREN)
            if batch.find(submission.id) is None:
                child = make(batch, submission, queued(submission, batch.now))
                if not child.gate:
                    batch.queue_up(submission.agent, place_in_queue(submission.available_at, submission.priority))
        opened, satisfied = self._open(batch, row)
        told = (*write.drafts, *opened, *self._expire(batch, row), *self._keep(batch, row))
        return write._replace(drafts=told, outcome=_due_if_woken(batch, row, write.outcome, satisfied))

    def _open(self, batch: Batch, row: Row) -> tuple[list[Draft], list[Wait]]:
        """Begin waits: the facts, and those waits that are over already."""
        waits, signals = batch.part(Waits), batch.part(Signals)
        told: list[Draft] = []
        satisfied: list[Wait] = []
        for wait in self._write.opens:
            if waits.get(wait.id) is not None:
                continue
            if wait.type == CHILD and _has_ended(batch, wait.name):
                satisfied.append(wait)
                continue
            told += transitions.opened([wait])
            waits.open(row, wait)
            if wait.type == SIGNAL and signals.kept(row.id, wait.name):
                waits.close(wait.id, RECEIVED)
                told.append(transitions.taken(wait, signals.take(row, wait.name, wait.id)))
                satisfied.append(wait)
        return told, satisfied

    def _expire(self, batch: Batch, row: Row) -> Iterator[Draft]:
        if not self._write.expires:
            return
        waits = batch.part(Waits)
        still_open = {record.wait.id for record in waits.open_of(row.id)}
        for wait_id in self._write.expires:
            if wait_id in still_open:
                still_open.remove(wait_id)
                yield transitions.expired(waits.close(wait_id, TIMED_OUT).wait)

    def _keep(self, batch: Batch, row: Row) -> Iterator[Draft]:
        for value in self._write.writes:
            yield batch.part(Sessions).write(row, value)
        for message in self._write.messages:
            yield batch.part(Sessions).add(row, message)


class Conclude(Extend):
    """Write all that a commit may contain, and what became of the attempt."""

    kind = "outcome"


def _has_ended(batch: Batch, run_id: str) -> bool:
    row = batch.find(run_id)
    return row is not None and row.life.ended


def _due_if_woken(batch: Batch, row: Row, outcome: Outcome | None, satisfied: Sequence[Wait]) -> Outcome | None:
    """A run that parks does not sleep over what it opened and found to be there."""
    if isinstance(outcome, Parked) and any(batch.part(Waits).wakes(row.id, wait) for wait in satisfied):
        return replace(outcome, wake_at=min(outcome.wake_at, batch.now))
    return outcome
