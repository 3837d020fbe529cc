"""What callers ask of the writer, one class for each kind of write: here submissions and plain commits.

Made on the event loop, carried out by the writer thread. An operation says what it needs, then decides: it raises to
be refused, which harms no other operation of its batch. The rules are those of `domain.transitions`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, ClassVar, Final

from stepwell.domain import answering, transitions
from stepwell.domain.commit import Commit
from stepwell.domain.errors import Busy, Conflict
from stepwell.domain.event import Entry
from stepwell.domain.outcome import Outcome, Parked, Payload
from stepwell.domain.run import RUNNING, Lease, Lifecycle, place_in_queue
from stepwell.domain.submission import SESSION_LANE, Lane, Submission
from stepwell.domain.transitions import Change
from stepwell.domain.wait import ANSWERED, WaitRecord
from stepwell.ports.store import Committed, Submitted
from stepwell.stores.sqlite.batch import Batch, Key
from stepwell.stores.sqlite.lanes import Lanes
from stepwell.stores.sqlite.making import make, queued, want
from stepwell.stores.sqlite.rows import HAS_LANES, Row
from stepwell.stores.sqlite.ties import settle
from stepwell.stores.sqlite.waits import Waits

_NO_LEASES: Final[Sequence[Lease]] = ()


class Operation:
    """One request. `future` is where the answer goes; nobody waits for it when it is `None`."""

    kind: ClassVar[str]
    answer: Any = None
    error: Exception | None = None
    future: asyncio.Future[Any] | None = None
    evidence: tuple[Row, Entry] | None = None
    """A fact that the operation writes, by which a second try finds out whether the first one has landed."""

    def prepare(self, batch: Batch) -> None:
        """Say what will be needed."""

    def apply(self, batch: Batch) -> None:
        """Decide, and set `answer`; or raise, and leave the batch as it was."""
        raise AssertionError(f"{type(self).__name__} does nothing")

    def leases(self) -> Sequence[Lease]:
        """The leases that the answer carries: they are handed back if the caller has gone away."""
        return _NO_LEASES

    def has_landed(self, batch: Batch) -> bool:
        """Whether an earlier try, whose result was not known, is in the file: `answer` is still what it was then."""
        if self.evidence is None:
            return False
        row, entry = self.evidence
        return batch.is_written(row.n, entry)

    def testify(self, row: Row) -> None:
        """Remember the newest fact of the run, which this operation has just added."""
        if row.entries:
            self.evidence = row, row.entries[-1]


class Submit(Operation):
    """Put a run into the queue, or start it at once where a slot is offered."""

    kind = "submit"

    def __init__(self, submission: Submission) -> None:
        self._submission = submission

    def prepare(self, batch: Batch) -> None:
        submission = self._submission
        batch.want_count(submission.queue_bound)
        if submission.idempotency_key is not None:
            batch.want_key(_key(submission, submission.idempotency_key))
        if submission.start_on is not None:
            batch.want_look(submission.agent, submission.start_on)
        want(batch, submission)
        if batch.careful:
            batch.want_run(submission.id)

    def apply(self, batch: Batch) -> None:
        submission = self._submission
        earlier = self._earlier(batch)
        if earlier is not None:
            self.answer = Submitted(earlier.record, created=False, lease=None)
            return
        if batch.careful and (landed := batch.find(submission.id)) is not None:
            self.answer = Submitted(landed.record, created=True, lease=self._lease(landed.life))
            return
        answering = self._meet_session(batch) if submission.lanes else None
        if answering is not None:
            self._take_key(batch, answering)
            self.answer = Submitted(answering.record, created=False, lease=None)
            return
        self._check_bound(batch)
        row = self._begin_in_lanes(batch) if submission.lanes else make(batch, submission, self._begin(batch))
        self._take_key(batch, row)
        self.answer = Submitted(row.record, created=True, lease=self._lease(row.life))

    def leases(self) -> Sequence[Lease]:
        answer: Submitted = self.answer
        return _NO_LEASES if answer.lease is None else (answer.lease,)

    def _earlier(self, batch: Batch) -> Row | None:
        """The run that the idempotency key names already. A careful batch does not take its own first try for that."""
        submission = self._submission
        if submission.idempotency_key is None:
            return None
        run_id, digest = batch.keys.get(_key(submission, submission.idempotency_key), (None, None))
        if run_id is None or (batch.careful and run_id == submission.id):
            return None
        if digest != submission.input_digest:
            raise Conflict(
                f"the idempotency key {submission.idempotency_key!r} was used with another input, for {run_id}",
                code="idempotency.conflict",
                hint="use a new key for a new input",
            )
        return batch.row(run_id)

    def _take_key(self, batch: Batch, row: Row) -> None:
        """Have the idempotency key, if there is one, name the run that took the input."""
        submission = self._submission
        if submission.idempotency_key is not None:
            key = _key(submission, submission.idempotency_key)
            batch.keys[key] = row.id, submission.input_digest
            batch.new_keys += (*key, row.id, submission.input_digest, batch.now)

    def _check_bound(self, batch: Batch) -> None:
        if batch.queued >= self._submission.queue_bound:
            raise _full(self._submission.queue_bound)

    def _begin(self, batch: Batch) -> Change:
        """Queued, and if nothing is ahead of it, also started: the facts of both go into the journal together."""
        submission = self._submission
        change = queued(submission, batch.now)
        if not self._is_due(batch, change.life):
            return change
        place = place_in_queue(submission.available_at, submission.priority)
        if submission.start_on is None or not batch.goes_first(submission.agent, place):
            batch.queue_up(submission.agent, place)
            return change
        started = transitions.claim(change.life, worker=submission.start_on, cause="due", now=batch.now)
        return Change(started.life, change.drafts + started.drafts)

    def _begin_in_lanes(self, batch: Batch) -> Row:
        """Queued, and if all its lanes have room and nothing is ahead of it, also started."""
        submission = self._submission
        place = place_in_queue(submission.available_at, submission.priority)
        first = batch.goes_first(submission.agent, place)
        row = make(batch, submission, queued(submission, batch.now))
        if row.gate or not self._is_due(batch, row.life):
            return row
        if submission.start_on is None or not first:
            batch.queue_up(submission.agent, place)
        else:
            batch.change(row, transitions.claim(row.life, worker=submission.start_on, cause="due", now=batch.now))
        return row

    def _is_due(self, batch: Batch, life: Lifecycle) -> bool:
        submission = self._submission
        limit = transitions.overdue(life, timeout=submission.timeout, deadline=submission.deadline, now=batch.now)
        return submission.available_at <= batch.now and limit is None

    def _meet_session(self, batch: Batch) -> Row | None:
        """Do what `busy` says when the session is at work, and give the run that takes the input instead, if any."""
        submission = self._submission
        lane = next((lane for lane in submission.lanes if lane.kind == SESSION_LANE), None)
        if lane is None or submission.busy == "queue" or submission.available_at > batch.now:
            return None
        settle(batch)  # whoever left a moment ago is gone
        if not batch.part(Lanes).is_busy(submission.tenant, lane):
            return None
        match submission.busy:
            case "reject":
                raise _at_work(submission.session)
            case "interrupt":
                self._check_bound(batch)  # nobody is cancelled for a run that is refused
                self._interrupt(batch, lane)
            case "answer":
                return self._answer(batch, lane)
        return None

    def _interrupt(self, batch: Batch, lane: Lane) -> None:
        """Cancel whoever sits in the lane or stands in line."""
        for row in batch.part(Lanes).inside(self._submission.tenant, lane):
            change, _ = transitions.cancel(
                row.life,
                by=SESSION_LANE,
                reason="interrupted by a new run",
                has_hook=row.hooked,
                now=batch.now,
            )
            if change is not None:
                batch.change(row, change)
        settle(batch)

    def _answer(self, batch: Batch, lane: Lane) -> Row | None:
        """Give the input to the oldest open question of whoever sits in the lane, if there is one."""
        lanes, waits = batch.part(Lanes), batch.part(Waits)
        holders = [row for row in lanes.inside(self._submission.tenant, lane) if lanes.holds(row, lane)]
        for row in holders:
            waits.want_open(row.id)
        batch.load()
        for row in holders:
            answers, now = self._submission.answers, batch.now
            asked = waits.open_of(row.id)
            question = next((one for one in asked if answering.takes_input(one, row.life, answers, now)), None)
            if question is not None:
                answer(batch, row, question, self._submission.input, SESSION_LANE)
                self.testify(row)
                return row
        return None

    def _lease(self, life: Lifecycle) -> Lease | None:
        worker = self._submission.start_on
        if worker is None or life.status != RUNNING or life.worker != worker or life.fence != 1 or life.commit_no:
            return None
        return Lease(self._submission.id, life.fence, worker)


class Append(Operation):
    """Add facts to the journal of a leased run."""

    kind = "commit"

    def __init__(self, lease: Lease, write: Commit) -> None:
        self._lease = lease
        self._write = write

    def prepare(self, batch: Batch) -> None:
        batch.want_life(self._lease.run_id)

    def apply(self, batch: Batch) -> None:
        row = batch.row(self._lease.run_id)
        change = self._change(row, batch.now)
        self._take_over(batch, row, change)
        self.answer = Committed(row.life.seq, row.control)

    def _change(self, row: Row, now: int) -> Change:
        return transitions.commit(row.life, self._write, fence=self._lease.fence, now=now)

    def _take_over(self, batch: Batch, row: Row, change: Change) -> None:
        batch.append(row, change)


class Settle(Append):
    """Add the last facts of an attempt, and what became of it."""

    kind = "outcome"

    def prepare(self, batch: Batch) -> None:
        batch.want_run(self._lease.run_id)

    def _change(self, row: Row, now: int) -> Change:
        return transitions.commit(row.life, self._write, fence=self._lease.fence, now=now, has_hook=row.hooked)

    def _take_over(self, batch: Batch, row: Row, change: Change) -> None:
        note_release(batch, row, self._write.outcome)
        batch.change(row, change)


def note_release(batch: Batch, row: Row, outcome: Outcome | None) -> None:
    """A run that parks may give up its turn in its session."""
    if row.ties & HAS_LANES and isinstance(outcome, Parked) and outcome.release:
        batch.given_up.add(row.id)


def answer(batch: Batch, row: Row, question: WaitRecord, value: Payload, by: str) -> WaitRecord:
    """Close an open question of the run, all of whose open waits have been loaded, with a value."""
    waits = batch.part(Waits)
    wakes = waits.wakes(row.id, question.wait)
    change = transitions.answered(row.life, question.wait, value, by=by, now=batch.now, wakes=wakes)
    closed = waits.close(question.wait.id, ANSWERED, by=by)
    batch.change(row, change)
    return closed


def _key(submission: Submission, key: str) -> Key:
    return submission.tenant, f"agent:{submission.agent}", key


def _full(bound: int) -> Busy:
    return Busy(
        f"the queue holds {bound} runs, which is its bound",
        code="queue.full",
        hint="try again when workers have caught up, or raise the bound",
    )


def _at_work(session: str) -> Busy:
    return Busy(
        f"the session {session} is at work on another run",
        code="session.busy",
        hint="try again when that run has ended",
    )
