"""What people and other runs ask of a run: messages, answers, and requests to end, to stop for a while or to go on.

Carried out by the writer thread. What a change means for the run's parent and children is in `ties`.
"""

from __future__ import annotations

from collections.abc import Sequence

from stepwell.domain import answering, transitions
from stepwell.domain.errors import Conflict, NotFound
from stepwell.domain.event import Draft
from stepwell.domain.outcome import Payload
from stepwell.domain.transitions import Change
from stepwell.domain.wait import QUESTION, RECEIVED, SIGNAL, Signal
from stepwell.stores.sqlite import ties
from stepwell.stores.sqlite.batch import Batch
from stepwell.stores.sqlite.operations import Operation, answer
from stepwell.stores.sqlite.rows import Row
from stepwell.stores.sqlite.sessions import Sessions
from stepwell.stores.sqlite.signals import Signals
from stepwell.stores.sqlite.waits import Waits


class Request(Operation):
    """Something that is asked of one run."""

    def __init__(self, run_id: str, tenant: str) -> None:
        self._run_id = run_id
        self._tenant = tenant

    def prepare(self, batch: Batch) -> None:
        batch.want_run(self._run_id)

    def _row(self, batch: Batch) -> Row:
        return batch.run_of(self._run_id, self._tenant)

    def _change(self, batch: Batch, row: Row, change: Change) -> None:
        batch.change(row, change)
        self.testify(row)


class Send(Request):
    """A signal arrives."""

    kind = "signal"

    def __init__(self, run_id: str, signal: Signal, tenant: str) -> None:
        super().__init__(run_id, tenant)
        self._signal = signal

    def prepare(self, batch: Batch) -> None:
        super().prepare(batch)
        batch.part(Waits).want_open(self._run_id)
        batch.part(Signals).want_room(self._run_id, self._signal.id)

    def apply(self, batch: Batch) -> None:
        row, signal = self._row(batch), self._signal
        waits, signals = batch.part(Waits), batch.part(Signals)
        if signals.is_known(row.id, signal):
            self.answer = False
            return
        waiting = waits.first_for(row.id, SIGNAL, signal.name)
        wait = waiting.wait if waiting else None
        wakes = wait is not None and waits.wakes(row.id, wait)
        change = transitions.received(row.life, signal, now=batch.now, wait=wait, wakes=wakes)
        if wait is None:
            signals.check_room(row.id)
        else:
            waits.close(wait.id, RECEIVED)
        signals.receive(row, signal, None if wait is None else wait.id)
        self._change(batch, row, change)
        self.answer = True


class Answer(Operation):
    """A person answers a question."""

    kind = "answer"

    def __init__(self, question_id: str, value: Payload, by: str, tenant: str) -> None:
        self._question_id = question_id
        self._value = value
        self._by = by
        self._tenant = tenant

    def prepare(self, batch: Batch) -> None:
        batch.part(Waits).want_question(self._question_id)

    def apply(self, batch: Batch) -> None:
        question = batch.part(Waits).get(self._question_id)
        if question is None or question.wait.type != QUESTION or question.tenant != self._tenant:
            raise unknown_question(self._question_id)
        row = batch.row(question.run_id)
        answering.refuse_answer(question, row.life, batch.now)
        self.answer = answer(batch, row, question, self._value, self._by)
        self.testify(row)


def unknown_question(question_id: str) -> NotFound:
    """There is no question of that id, or it is another tenant's."""
    return NotFound(f"there is no question {question_id}", code="question.unknown", hint="see: stepwell inbox")


class Cancel(Request):
    """Somebody asks for an end."""

    kind = "cancel"

    def __init__(self, run_id: str, by: str, reason: str | None, tenant: str) -> None:
        super().__init__(run_id, tenant)
        self._by = by
        self._reason = reason

    def apply(self, batch: Batch) -> None:
        row = self._row(batch)
        change, self.answer = transitions.cancel(
            row.life, by=self._by, reason=self._reason, has_hook=row.hooked, now=batch.now
        )
        if change is not None:
            self._change(batch, row, change)


class Pause(Request):
    """Somebody sets a run and its live descendants aside."""

    kind = "pause"

    def __init__(self, run_id: str, by: str, tenant: str) -> None:
        super().__init__(run_id, tenant)
        self._by = by

    def apply(self, batch: Batch) -> None:
        row = self._row(batch)
        change = transitions.pause(row.life, by=self._by, now=batch.now)
        if change is not None:
            self._change(batch, row, change)
        batch.spread(row, ties.pause(self._by))
        self.answer = row.record


class Resume(Operation):
    """Somebody lifts a hold, also that of live descendants that are paused."""

    kind = "resume"

    def __init__(self, run_id: str, at_seq: int, by: str, drafts: Sequence[Draft], verdict: str | None) -> None:
        self._run_id = run_id
        self._at_seq = at_seq
        self._by = by
        self._drafts = tuple(drafts)
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
        self.testify(row)
        batch.spread(row, ties.resume(self._by))
        self.answer = row.record


class Discard(Request):
    """Somebody takes a dead run off the list of the dead."""

    kind = "discard"

    def __init__(self, run_id: str, by: str, tenant: str) -> None:
        super().__init__(run_id, tenant)
        self._by = by

    def apply(self, batch: Batch) -> None:
        row = self._row(batch)
        self._change(batch, row, transitions.discard(row.life, by=self._by))
        self.answer = row.record


class Forget(Operation):
    """Somebody has what a session keeps dropped. A second time there is nothing to drop."""

    kind = "session"

    def __init__(self, session: str, tenant: str) -> None:
        self._session = session
        self._tenant = tenant

    def apply(self, batch: Batch) -> None:
        batch.part(Sessions).forget(self._tenant, self._session)
