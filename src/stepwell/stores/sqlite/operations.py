"""What callers ask of the writer, one class for each kind of write.

Made on the event loop, carried out by the writer thread. An operation says what it needs, then decides: it raises to
be refused, which harms no other operation of its batch. The rules are those of `domain.transitions`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, ClassVar, Final

from stepwell.domain import transitions
from stepwell.domain.errors import Busy, Conflict
from stepwell.domain.event import Draft
from stepwell.domain.outcome import Commit
from stepwell.domain.run import RUNNING, Lease, Lifecycle, place_in_queue
from stepwell.domain.transitions import Change
from stepwell.ports.store import Committed, Submission, Submitted
from stepwell.stores.sqlite.batch import Batch, Key
from stepwell.stores.sqlite.rows import Row
from stepwell.stores.sqlite.statements import FACTS

_NO_LEASES: Final[Sequence[Lease]] = ()


class Operation:
    """One request. `future` is where the answer goes; nobody waits for it when it is `None`."""

    kind: ClassVar[str]
    answer: Any = None
    error: Exception | None = None
    future: asyncio.Future[Any] | None = None

    def prepare(self, batch: Batch) -> None:
        """Say what will be needed."""

    def apply(self, batch: Batch) -> None:
        """Decide, and set `answer`; or raise, and leave the batch as it was."""
        raise AssertionError(f"{type(self).__name__} does nothing")

    def leases(self) -> Sequence[Lease]:
        """The leases that the answer carries: they are handed back if the caller has gone away."""
        return _NO_LEASES


class Submit(Operation):
    """Put a run into the queue, or start it at once where a slot is offered."""

    kind = "submit"

    def __init__(self, submission: Submission) -> None:
        self._submission = submission

    def prepare(self, batch: Batch) -> None:
        submission = self._submission
        batch.want_count()
        if submission.idempotency_key is not None:
            batch.want_key(_key(submission, submission.idempotency_key))
        if submission.start_on is not None:
            batch.want_look(submission.agent, submission.start_on)
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
        if batch.queued >= submission.queue_bound:
            raise _full(submission.queue_bound)
        row = batch.create(_facts(submission), self._enter(batch))
        if submission.idempotency_key is not None:
            self._take_key(batch, _key(submission, submission.idempotency_key))
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

    def _take_key(self, batch: Batch, key: Key) -> None:
        submission = self._submission
        batch.keys[key] = submission.id, submission.input_digest
        batch.new_keys += (*key, submission.id, submission.input_digest, batch.now)

    def _enter(self, batch: Batch) -> Change:
        """Queued, and if nothing is ahead of it, also started: the facts of both go into the journal together."""
        submission = self._submission
        now = batch.now
        change = transitions.submit(
            agent=submission.agent,
            version=submission.version,
            trigger=submission.trigger,
            input_field=submission.input.field("input"),
            priority=submission.priority,
            available_at=submission.available_at,
            now=now,
        )
        limit = transitions.overdue(change.life, timeout=submission.timeout, deadline=submission.deadline, now=now)
        if submission.available_at > now or limit is not None:
            return change
        place = place_in_queue(submission.available_at, submission.priority)
        if submission.start_on is None or not batch.goes_first(submission.agent, place):
            batch.queue_up(submission.agent, place)
            return change
        started = transitions.claim(change.life, worker=submission.start_on, cause="due", now=now)
        return Change(started.life, change.drafts + started.drafts)

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
        change = transitions.commit(row.life, self._write, fence=self._lease.fence, now=batch.now)
        self._take_over(batch, row, change)
        self.answer = Committed(row.life.seq, row.control)

    def _take_over(self, batch: Batch, row: Row, change: Change) -> None:
        batch.append(row, change)


class Settle(Append):
    """Add the last facts of an attempt, and what became of it."""

    kind = "outcome"

    def _take_over(self, batch: Batch, row: Row, change: Change) -> None:
        batch.change(row, change)


class Resume(Operation):
    """Lift a hold."""

    kind = "resume"

    def __init__(self, run_id: str, at_seq: int, by: str, drafts: tuple[Draft, ...], verdict: str | None) -> None:
        self._run_id = run_id
        self._at_seq = at_seq
        self._by = by
        self._drafts = drafts
        self._verdict = verdict

    def prepare(self, batch: Batch) -> None:
        batch.want_run(self._run_id)

    def apply(self, batch: Batch) -> None:
        row = batch.row(self._run_id)
        if not row.life.ended and row.life.seq != self._at_seq:
            raise Conflict(
                f"the run has changed: its last event is {row.life.seq}, not {self._at_seq}",
                code="run.changed",
                hint="look at the run again and decide on what it shows now",
            )
        change = transitions.resume(row.life, by=self._by, drafts=self._drafts, verdict=self._verdict, now=batch.now)
        batch.change(row, change)
        self.answer = row.record


def _key(submission: Submission, key: str) -> Key:
    return submission.tenant, f"agent:{submission.agent}", key


def _full(bound: int) -> Busy:
    return Busy(
        f"the queue holds {bound} runs, which is its bound",
        code="queue.full",
        hint="try again when workers have caught up, or raise the bound",
    )


def _facts(submission: Submission) -> tuple[Any, ...]:
    """What never changes of the run, in the order of `RunRecord`."""
    return (
        submission.id,
        submission.tenant,
        submission.agent,
        submission.version,
        submission.session,
        submission.trigger,
        submission.priority,
        submission.created_at,
        submission.timeout,
        submission.deadline,
        submission.idempotency_key,
        submission.metadata,
        None,  # parent
        None,  # root
        0,  # depth
        submission.causal_depth,
        None,  # retry_of
        None,  # forked_from
    )


assert FACTS[12:] == ("parent", "root", "depth", "causal_depth", "retry_of", "forked_from")
