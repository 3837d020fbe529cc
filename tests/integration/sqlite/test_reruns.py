"""A write whose result nobody learned is tried again, and writes nothing twice, whether it had landed or not."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeAlias

import apsw
import pytest

from stepwell.domain.commit import Commit
from stepwell.domain.errors import AlreadyAnswered, Conflict
from stepwell.domain.outcome import ErrorInfo, Failed, Parked, Payload, Succeeded
from stepwell.domain.run import RunRecord
from stepwell.domain.session import SessionMessage, SessionWrite
from stepwell.domain.submission import KEY_LANE, SESSION_LANE, Lane
from stepwell.domain.wait import WaitRecord
from stepwell.stores.sqlite.batch import Batch
from stepwell.stores.sqlite.store import SqliteStore
from stepwell.stores.sqlite.transactions import Transactions
from stepwell.testing.conformance import Harness
from stepwell.testing.conformance.harness import events, kinds, take
from tests.integration.sqlite.files import ask

Break: TypeAlias = Callable[[], None]


@pytest.fixture(params=[True, False], ids=["landed", "not_landed"])
def lose(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Break:
    """Have the next commit report an error that says nothing, after it has landed or instead of it."""
    real = Transactions._commit

    def arm() -> None:
        def broken(self: Transactions, batch: Batch) -> None:
            monkeypatch.setattr(Transactions, "_commit", real)
            if request.param:
                self._connection.execute("COMMIT")
            raise apsw.InterruptError("interrupted")

        monkeypatch.setattr(Transactions, "_commit", broken)

    return arm


async def again(store: SqliteStore, lose: Break, call: Callable[[], Awaitable[Any]]) -> Any:
    """What a call gives whose first try was lost."""
    reruns = store.stats().reruns
    lose()
    answer = await call()
    assert store.stats().reruns == reruns + 1, "it was not tried again"
    return answer


async def test_a_signal(harness: Harness, store: SqliteStore, path: Path, lose: Break) -> None:
    run = await harness.parked(store, harness.signal_wait())
    signal = harness.signal()
    assert await again(store, lose, lambda: store.signal(run.id, signal)) is True
    assert (await kinds(store, run.id))[-3:] == ["run.waiting", "signal.received", "wait.closed"]
    assert ask(path, "SELECT count(*) FROM signal") == 1
    assert await store.signal(run.id, signal) is False


async def test_a_signal_that_was_known(harness: Harness, store: SqliteStore, lose: Break) -> None:
    run, signal = await harness.submit(store), harness.signal()
    await store.signal(run.id, signal)
    assert await again(store, lose, lambda: store.signal(run.id, signal)) is False


async def test_an_answer(harness: Harness, store: SqliteStore, lose: Break) -> None:
    question = harness.question()
    run = await harness.parked(store, question)
    closed: WaitRecord = await again(store, lose, lambda: store.answer(question.id, Payload("true"), by="ann"))
    assert (closed.outcome, closed.by) == ("answered", "ann")
    assert (await kinds(store, run.id))[-2:] == ["run.waiting", "wait.closed"]
    with pytest.raises(AlreadyAnswered):
        await store.answer(question.id, Payload("true"), by="bob")


async def test_a_cancel(harness: Harness, store: SqliteStore, lose: Break) -> None:
    run = await harness.submit(store)
    assert await again(store, lose, lambda: store.cancel(run.id, by="ann")) == "cancelled"
    assert await kinds(store, run.id) == ["run.queued", "run.cancelled"]


async def test_a_cancel_of_a_running_run(harness: Harness, store: SqliteStore, lose: Break) -> None:
    lease = await harness.started(store)
    assert await again(store, lose, lambda: store.cancel(lease.run_id, by="ann")) == "cancelling"
    assert await kinds(store, lease.run_id) == ["run.queued", "run.started", "run.cancelling"]


async def test_a_pause_and_a_resumption(harness: Harness, store: SqliteStore, lose: Break) -> None:
    run = await harness.submit(store)
    paused: RunRecord = await again(store, lose, lambda: store.pause(run.id, by="ann"))
    assert (paused.life.hold, paused.life.seq) == ("paused", 2)
    resumed: RunRecord = await again(store, lose, lambda: store.resume(run.id, at_seq=2, by="ann"))
    assert (resumed.life.hold, resumed.life.seq) == (None, 3)
    assert await kinds(store, run.id) == ["run.queued", "run.held", "run.released"]


async def test_a_discard(harness: Harness, store: SqliteStore, lose: Break) -> None:
    dead = await harness.ended(store, Failed(ErrorInfo("agent.failed", "no"), dead=True))
    discarded: RunRecord = await again(store, lose, lambda: store.discard(dead.id, by="ann"))
    assert discarded.life.dead == 0
    assert (await kinds(store, dead.id))[-1] == "run.discarded"
    with pytest.raises(Conflict):
        await store.discard(dead.id, by="ann")


async def test_a_commit_that_does_everything(harness: Harness, store: SqliteStore, path: Path, lose: Break) -> None:
    lease = await harness.started(store)
    run = await store.get(lease.run_id)
    await store.signal(run.id, harness.signal("early"))
    late = harness.signal_wait("late")
    await store.commit(lease, Commit(1, opens=(late,)))
    write = Commit(
        2,
        opens=(harness.signal_wait("early"), harness.question()),
        expires=(late.id,),
        submits=(harness.child_of(run),),
        writes=(SessionWrite(run.session, "plan", Payload("1"), "0/1", expected=0),),
        messages=(SessionMessage(run.session, "user", Payload('"hello"'), "0/2"),),
    )
    await again(store, lose, lambda: store.commit(lease, write))
    told = (await kinds(store, run.id))[4:]
    assert told == [
        *("wait.opened", "wait.closed", "wait.opened", "wait.closed"),
        *("session.changed", "session.changed"),
    ]
    assert ask(path, "SELECT count(*) FROM wait") == 3
    assert ask(path, "SELECT count(*) FROM run") == 2
    assert [message.number for message in await store.messages(run.session)] == [1]
    value = await store.session_value(run.session, "plan")
    assert value is not None
    assert value.version == 1


async def test_the_end_of_a_family(harness: Harness, store: SqliteStore, lose: Break) -> None:
    lease = await harness.started(store)
    child = harness.child_of(await store.get(lease.run_id))
    await store.commit(lease, Commit(1, submits=(child,), opens=(harness.question(),)))
    await again(store, lose, lambda: store.commit(lease, Commit(2, outcome=Succeeded(Payload("1")))))
    assert (await kinds(store, lease.run_id))[-2:] == ["wait.opened", "run.succeeded"]
    assert await kinds(store, child.id) == ["run.queued", "run.cancelled"]


async def test_the_end_of_a_child(harness: Harness, store: SqliteStore, lose: Break) -> None:
    lease = await harness.started(store)
    child = harness.child_of(await store.get(lease.run_id))
    await store.commit(lease, Commit(1, submits=(child,), opens=(harness.child_wait(child.id),)))
    await store.commit(lease, Commit(2, outcome=Parked(2**62, "[]")))
    [claim] = await take(store, await harness.worker(store))
    await again(store, lose, lambda: store.commit(claim.lease, Commit(1, outcome=Succeeded(Payload("1")))))
    assert (await kinds(store, lease.run_id))[-2:] == ["run.waiting", "child.ended"]


async def test_a_submission_into_lanes(harness: Harness, store: SqliteStore, lose: Break) -> None:
    worker = await harness.worker(store)
    lanes = (Lane(KEY_LANE, "eu", 1),)
    first = harness.submission(lanes=lanes, start_on=worker)
    started = await again(store, lose, lambda: store.submit(first))
    assert started.lease is not None
    second = harness.submission(lanes=lanes, start_on=worker)
    blocked = await again(store, lose, lambda: store.submit(second))
    assert (blocked.created, blocked.lease) == (True, None)
    assert [lane[3:] for lane in await store.lanes()] == [(1, 1, 1)]
    await again(store, lose, lambda: store.commit(started.lease, Commit(1, outcome=Succeeded(Payload("1")))))
    assert [claim.run.id for claim in await take(store, worker)] == [second.id]


async def test_a_submission_that_answers(harness: Harness, store: SqliteStore, lose: Break) -> None:
    session: dict[str, Any] = {"session": "ses_support", "lanes": (Lane(SESSION_LANE, "ses_support", 1),)}
    questions = harness.question("One?"), harness.question("Two?")
    run = await harness.parked(store, *questions, **session)
    answering = harness.submission(busy="answer", answers=tuple(question.id for question in questions), **session)
    submitted = await again(store, lose, lambda: store.submit(answering))
    assert (submitted.run.id, submitted.created) == (run.id, False)
    assert (await kinds(store, run.id)).count("wait.closed") == 1


async def test_the_end_of_a_sessions_memory(harness: Harness, store: SqliteStore, lose: Break) -> None:
    lease = await harness.started(store, session="cust-1")
    value = SessionWrite("cust-1", "plan", Payload("1"), None)
    await store.commit(lease, Commit(1, outcome=Succeeded(Payload("1")), writes=(value,)))
    await again(store, lose, lambda: store.delete_session("cust-1"))
    assert await store.session_value("cust-1", "plan") is None


async def test_all_of_it_in_one_batch(harness: Harness, store: SqliteStore, lose: Break) -> None:
    """Each is tried alone then, and finds out for itself."""
    question, signal = harness.question(), harness.signal()
    asking = await harness.parked(store, question)
    paused, cancelled, signalled = [await harness.submit(store) for _ in range(3)]
    lose()
    answers = await asyncio.gather(
        store.answer(question.id, Payload("true"), by="ann"),
        store.pause(paused.id, by="ann"),
        store.cancel(cancelled.id, by="ann"),
        store.signal(signalled.id, signal),
    )
    assert (answers[0].outcome, answers[1].life.hold, *answers[2:]) == ("answered", "paused", "cancelled", True)
    for run_id, last in [
        (asking.id, "wait.closed"),
        (paused.id, "run.held"),
        (cancelled.id, "run.cancelled"),
        (signalled.id, "signal.received"),
    ]:
        told = [entry.kind for entry in await events(store, run_id)]
        assert told.count(last) == 1
        assert told[-1] == last
