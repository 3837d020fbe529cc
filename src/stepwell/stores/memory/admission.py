"""The door of the store: whether a submission becomes a run, and what happens instead. Called inside a write."""

from __future__ import annotations

from typing import Final, TypeAlias

from stepwell.domain import answering
from stepwell.domain.errors import Busy, Conflict
from stepwell.domain.run import QUEUED
from stepwell.domain.submission import Submission
from stepwell.stores.memory.runs import Row
from stepwell.stores.memory.writing import Tables, Writing

Key: TypeAlias = tuple[str, str, str]

SESSION: Final = "session"
"""Who answers and cancels, when a session does so by itself."""


class Door:
    """Knows which idempotency keys were used, and by which input."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._keys: dict[Key, tuple[Row, str]] = {}

    def instead(self, writing: Writing, submission: Submission) -> Row | None:
        """The run that is given in place of a new one, if there is one: that of its key, or one that takes the input.

        Makes way for a new run in a session that is not free, where the submission wants that.
        """
        earlier = self._named_by_key(submission)
        if earlier is not None:
            return earlier
        row = self._make_way(writing, submission)
        if row is not None:
            self._note_key(submission, row)
        return row

    def admit(self, writing: Writing, submission: Submission) -> Row:
        """A new run."""
        if self._tables.runs.by_status[QUEUED] >= submission.queue_bound:
            raise Busy(
                f"the queue holds {submission.queue_bound} runs, which is its bound",
                code="queue.full",
                hint="try again when workers have caught up, or raise the bound",
            )
        row = writing.add(submission)
        self._note_key(submission, row)
        return row

    # ------------------------------------------------------------ keys

    def _named_by_key(self, submission: Submission) -> Row | None:
        row, digest = self._keys.get(_key(submission), (None, ""))
        if submission.idempotency_key is None or row is None:
            return None
        if digest != submission.input_digest:
            raise Conflict(
                f"the idempotency key {submission.idempotency_key!r} was used with another input, for {row.run.id}",
                code="idempotency.conflict",
                hint="use a new key for a new input",
            )
        return row

    def _note_key(self, submission: Submission, row: Row) -> None:
        if submission.idempotency_key is not None:
            self._keys[_key(submission)] = row, submission.input_digest

    # ------------------------------------------------------------ sessions that are not free

    def _make_way(self, writing: Writing, submission: Submission) -> Row | None:
        """Do what `busy` says, and give the run that takes the input instead of a new one, if one does."""
        lane = self._tables.lanes.session_of(submission.tenant, submission.lanes)
        if lane is None or submission.available_at > writing.now or self._tables.lanes.is_free(lane):
            return None
        match submission.busy:
            case "reject":
                raise Busy(
                    f"the session {submission.session} is at work on another run",
                    code="session.busy",
                    hint="try again when that run has ended",
                )
            case "interrupt":
                self._interrupt(writing, lane)
            case "answer":
                return self._answer(writing, lane, submission)
        return None

    def _interrupt(self, writing: Writing, lane: int) -> None:
        """Cancel whoever is in the lane, the last in line first, so that nobody moves up only to be cancelled."""
        for run_id in [*self._tables.lanes.in_line(lane)[::-1], *self._tables.lanes.holders(lane)]:
            writing.cancel(self._tables.runs.rows[run_id], by=SESSION, reason="interrupted by a new run")

    def _answer(self, writing: Writing, lane: int, submission: Submission) -> Row | None:
        """Give the input to the oldest open question of whoever sits in the lane, if there is one."""
        for run_id in self._tables.lanes.holders(lane):
            row = self._tables.runs.rows[run_id]
            for wait_id in self._tables.waits.open_of(run_id):
                record = self._tables.waits.get(wait_id)
                if record and answering.takes_input(record, row.run.life, submission.answers, writing.now):
                    writing.answer(row, record, submission.input, SESSION)
                    return row
        return None


def _key(submission: Submission) -> Key:
    return submission.tenant, submission.agent, submission.idempotency_key or ""
