"""Making runs: from a submission from outside, or in the commit of a parent. Used by the operations of a batch."""

from __future__ import annotations

from stepwell.domain import transitions
from stepwell.domain.ids import own_session
from stepwell.domain.lane import AWAY, FREE, enter
from stepwell.domain.submission import Submission, facts
from stepwell.domain.transitions import Change
from stepwell.stores.sqlite.batch import Batch
from stepwell.stores.sqlite.lanes import Lanes
from stepwell.stores.sqlite.rows import HAS_CHILDREN, HAS_PARENT, Row
from stepwell.stores.sqlite.sessions import Sessions


def want(batch: Batch, submission: Submission) -> None:
    """Say what making the run will need."""
    if submission.parent is not None:
        batch.want_life(submission.parent)
        if not submission.detached:
            batch.part(Lanes).want_turns(submission.parent)
    if submission.lanes:
        batch.part(Lanes).want(submission)


def make(batch: Batch, submission: Submission, change: Change) -> Row:
    """Create the run with everything that happened to it so far, and note with what it is connected.

    One that is due takes its tickets, as far as they are to be had: `gate` says whether it has them all. A child that
    is not detached lives on the turns of its parent.
    """
    parent = batch.find(submission.parent) if submission.parent is not None else None
    turns = batch.part(Lanes).turns(parent) if parent is not None and not submission.detached else []
    row = batch.create(facts(submission), change, gate=AWAY if submission.lanes or turns else FREE)
    if submission.parent is not None:
        batch.tie(row, HAS_PARENT)
    if parent is not None:
        batch.tie(parent, HAS_CHILDREN)
    if submission.session != own_session(submission.id):
        batch.part(Sessions).join(submission.tenant, submission.session, named=submission.parent is None)
    if submission.lanes or turns:
        batch.part(Lanes).give_tickets(row, submission.lanes, turns)
        if submission.available_at <= batch.now:
            enter(batch.part(Lanes), row.id)
    return row


def queued(submission: Submission, now: int) -> Change:
    """How a run begins."""
    return transitions.submit(
        agent=submission.agent,
        version=submission.version,
        trigger=submission.trigger,
        input_field=submission.input.field("input"),
        priority=submission.priority,
        available_at=submission.available_at,
        now=now,
        parent=submission.parent,
        retry_of=submission.retry_of,
        inherited=submission.inherited,
    )
