"""Stores with one bug each, made of the SQLite store. A short history of clients must show every one.

Each breaks what a client is told: of a write that was not made yet or never is, of something that is no longer so, of
two that were both first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from stepwell.domain import answering, transitions
from stepwell.domain.commit import Commit
from stepwell.domain.errors import Conflict
from stepwell.domain.event import Entry
from stepwell.domain.outcome import Payload
from stepwell.domain.run import RUNNING, Lease, Lifecycle, RunRecord
from stepwell.domain.session import MessageRecord
from stepwell.domain.submission import Submission
from stepwell.domain.transitions import CancelAnswer, Change
from stepwell.domain.wait import Signal, WaitRecord
from stepwell.ports.store import Committed, Submitted
from stepwell.stores.sqlite.rows import Row
from stepwell.stores.sqlite.signals import Signals
from stepwell.stores.sqlite.store import SqliteStore

# The methods that the bugs replace; a bug goes on to the real one.
_answer: Final = SqliteStore.answer
_cancel: Final = SqliteStore.cancel
_commit: Final = SqliteStore.commit
_get: Final = SqliteStore.get
_journal: Final = SqliteStore.journal
_messages: Final = SqliteStore.messages
_pause: Final = SqliteStore.pause
_resume: Final = SqliteStore.resume
_signal: Final = SqliteStore.signal
_submit: Final = SqliteStore.submit
_cancelled: Final = transitions.cancel
_discarded: Final = transitions.discard

_LATE: Final = 0.03
_EVENTS_PAGE: Final = 500
_background: set[asyncio.Task[Any]] = set()


def _later(doing: Any) -> None:
    async def after_a_while() -> None:
        await asyncio.sleep(_LATE)
        await doing

    task = asyncio.create_task(after_a_while())
    _background.add(task)
    task.add_done_callback(_background.discard)


async def acknowledges_cancels_before_the_commit(self: SqliteStore, run_id: str, **how: Any) -> CancelAnswer:
    life = (await _get(self, run_id)).life
    if life.ended:
        return "already_ended"
    _later(_cancel(self, run_id, **how))
    return "cancelling" if life.status == RUNNING else "cancelled"


async def acknowledges_pauses_before_the_commit(self: SqliteStore, run_id: str, **how: Any) -> RunRecord:
    record = await _get(self, run_id)
    if record.life.ended or record.life.hold or record.life.status == RUNNING:
        return await _pause(self, run_id, **how)
    _later(_pause(self, run_id, **how))
    return record._replace(life=record.life._replace(hold="paused"))


async def loses_signals(self: SqliteStore, run_id: str, signal: Signal, **how: Any) -> bool:
    return True if signal.id == "s4" else await _signal(self, run_id, signal, **how)


async def takes_signals_twice(self: SqliteStore, run_id: str, signal: Signal, **how: Any) -> bool:
    while not await _signal(self, run_id, signal, **how):
        signal = signal._replace(id=signal.id + "'")
    return True


def takes_the_newest_signal(self: Signals, row: Row, name: str, taken_by: str) -> str:
    signal_id = self._kept[row.id, name].pop()
    self._counts[row.id] -= 1
    self._taken.append((row.id, signal_id, taken_by))
    return signal_id


def lets_the_last_answer_win(question: WaitRecord, life: Lifecycle, now: int) -> None:
    if life.ended:
        raise Conflict("over", code="question.closed")


async def takes_answers_after_the_end(self: SqliteStore, question_id: str, value: Payload, **how: Any) -> WaitRecord:
    try:
        return await _answer(self, question_id, value, **how)
    except Conflict as refused:
        if refused.code != "question.closed":
            raise
        return await self.question(question_id)


async def forgets_keys(self: SqliteStore, submission: Submission) -> Submitted:
    return await _submit(self, submission._replace(idempotency_key=None))


async def takes_any_input_under_a_key(self: SqliteStore, submission: Submission) -> Submitted:
    return await _submit(self, submission._replace(input_digest=""))


def says_cancelled_while_it_runs(life: Lifecycle, **how: Any) -> tuple[Change | None, CancelAnswer]:
    change, answer = _cancelled(life, **how)
    return change, "cancelled" if answer == "cancelling" else answer


def discards_any_run(life: Lifecycle, *, by: str) -> Change:
    return _discarded(life._replace(dead=1), by=by)


async def resumes_what_is_not_held(self: SqliteStore, run_id: str, **how: Any) -> RunRecord:
    try:
        return await _resume(self, run_id, **how)
    except Conflict as refused:
        if refused.code != "run.not_held":
            raise
        return await _get(self, run_id)


_snapshots: dict[str, tuple[float, RunRecord]] = {}


async def reads_from_an_old_snapshot(self: SqliteStore, run_id: str, **how: Any) -> RunRecord:
    now = asyncio.get_running_loop().time()
    at, record = _snapshots.get(run_id, (0.0, None))
    if record is None or now - at > _LATE:
        record = await _get(self, run_id, **how)
        _snapshots[run_id] = now, record
    return record


async def reads_half_a_write(self: SqliteStore, run_id: str, **how: Any) -> RunRecord:
    record = await _get(self, run_id, **how)
    life = record.life
    if not life.ended or life.seq % 2 or record.agent not in ("errand", "careful"):
        return record
    return record._replace(life=life._replace(status="running"))


# ---------------------------------------------------------------- sessions and streams


async def replaces_what_others_wrote(self: SqliteStore, lease: Lease, write: Commit) -> Committed:
    writes = tuple(each._replace(expected=None) for each in write.writes)
    return await _commit(self, lease, write._replace(writes=writes))


async def adds_messages_twice(self: SqliteStore, lease: Lease, write: Commit) -> Committed:
    return await _commit(self, lease, write._replace(messages=write.messages * (1 + lease.fence % 2)))


async def loses_messages(self: SqliteStore, lease: Lease, write: Commit) -> Committed:
    kept = tuple(each for each in write.messages if not (each.text.text or "").endswith(':1"'))
    return await _commit(self, lease, write._replace(messages=kept))


async def hides_the_newest_message(self: SqliteStore, session: str, **how: Any) -> list[MessageRecord]:
    found = await _messages(self, session, **how)
    return found[:-1] if len(found) % 3 == 2 else found


async def shows_messages_by_name(self: SqliteStore, session: str, **how: Any) -> list[MessageRecord]:
    found = await _messages(self, session, **how)
    return sorted(found, key=lambda each: str(each.run_id)[::-1])


async def leaves_out_an_event(self: SqliteStore, run_id: str, **how: Any) -> Sequence[Entry]:
    return await _journal(self, run_id, **_shifted(how, 1))


async def repeats_an_event(self: SqliteStore, run_id: str, **how: Any) -> Sequence[Entry]:
    return await _journal(self, run_id, **_shifted(how, -1))


def _shifted(how: dict[str, Any], by: int) -> dict[str, Any]:
    """Where a reader comes back, it goes on elsewhere."""
    after = how.get("after", 0)
    follows = how.get("limit") == _EVENTS_PAGE and after % 3 == 2 and not how.get("kinds")
    return how | {"after": after + by} if follows else how


PLANTED: Final[dict[str, tuple[object, str, Any]]] = {
    bug.__name__: (place, name, bug)
    for place, name, bug in [
        (SqliteStore, "cancel", acknowledges_cancels_before_the_commit),
        (SqliteStore, "pause", acknowledges_pauses_before_the_commit),
        (SqliteStore, "signal", loses_signals),
        (SqliteStore, "signal", takes_signals_twice),
        (Signals, "take", takes_the_newest_signal),
        (answering, "refuse_answer", lets_the_last_answer_win),
        (SqliteStore, "answer", takes_answers_after_the_end),
        (SqliteStore, "submit", forgets_keys),
        (SqliteStore, "submit", takes_any_input_under_a_key),
        (transitions, "cancel", says_cancelled_while_it_runs),
        (transitions, "discard", discards_any_run),
        (SqliteStore, "resume", resumes_what_is_not_held),
        (SqliteStore, "get", reads_from_an_old_snapshot),
        (SqliteStore, "get", reads_half_a_write),
        (SqliteStore, "commit", replaces_what_others_wrote),
        (SqliteStore, "commit", adds_messages_twice),
        (SqliteStore, "commit", loses_messages),
        (SqliteStore, "messages", hides_the_newest_message),
        (SqliteStore, "messages", shows_messages_by_name),
        (SqliteStore, "journal", leaves_out_an_event),
        (SqliteStore, "journal", repeats_an_event),
    ]
}
"""Each bug by its name: what it replaces, and where."""
