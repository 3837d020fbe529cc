"""What a durable store must do: hold everything that was acknowledged when it is opened again."""

from __future__ import annotations

import asyncio

from stepwell.domain.commit import Commit
from stepwell.domain.outcome import ErrorInfo, Held, Parked, Payload, Retrying, Succeeded
from stepwell.domain.session import SessionMessage, SessionValue, SessionWrite
from stepwell.domain.submission import KEY_LANE, SESSION_LANE, Lane
from stepwell.ports.store import QuestionQuery, RunQuery
from stepwell.testing.conformance.children import family
from stepwell.testing.conformance.harness import (
    LEASE,
    SECOND,
    Harness,
    append,
    events,
    is_due,
    stored,
    take,
    take_over,
    told,
)


class DurabilityContract:
    """A store is closed and opened again. For stores whose capabilities say `durable`."""

    async def test_every_run_is_there_as_it_was(self, harness: Harness) -> None:
        store = await harness.make()
        assert harness.capabilities.durable
        later = harness.clock.now() + 60 * SECOND
        await harness.submit(store, delay=60, priority=4, metadata='{"a":1}', trigger="nightly")
        for outcome in (
            Succeeded(Payload("1")),
            Held("in_doubt", by="step"),
            Parked(later, "[]"),
            Retrying(ErrorInfo("x", "y"), later),
        ):
            await harness.ended(store, outcome)
        await append(store, await harness.started(store), 1, "one", "two")
        before = [await stored(store, run.id) for run in await store.find(RunQuery())]
        store = await harness.reopen()
        assert [await stored(store, run.id) for run in await store.find(RunQuery())] == before

    async def test_what_was_acknowledged_to_many_at_once_is_there(self, harness: Harness) -> None:
        store = await harness.make()
        runs = await asyncio.gather(*(harness.submit(store) for _ in range(100)))
        store = await harness.reopen()
        for run in runs:
            assert await store.get(run.id) == run

    async def test_keys_still_name_their_runs(self, harness: Harness) -> None:
        store = await harness.make()
        first = await harness.submit(store, idempotency_key="k-1")
        store = await harness.reopen()
        again = await store.submit(harness.submission(idempotency_key="k-1"))
        assert not again.created
        assert again.run == first

    async def test_delayed_runs_become_due(self, harness: Harness) -> None:
        store = await harness.make()
        run = await harness.submit(store, delay=60)
        store = await harness.reopen()
        worker_id = await harness.worker(store)
        assert await take(store, worker_id) == []
        harness.clock.advance(60)
        assert [claim.run.id for claim in await take(store, worker_id)] == [run.id]

    async def test_runs_of_workers_that_went_with_the_store_are_lost_and_go_on(self, harness: Harness) -> None:
        store = await harness.make()
        lease = await harness.started(store)
        await append(store, lease, 1, "kept")
        before = await events(store, lease.run_id)
        store = await harness.reopen()
        [claim] = await take(store, await harness.worker(store))
        assert (claim.run.id, claim.run.life.lost, claim.run.life.attempt) == (lease.run_id, 1, 2)
        assert claim.journal[: len(before)] == before

    async def test_the_fence_goes_on_from_where_it_was(self, harness: Harness) -> None:
        store = await harness.make()
        lease = await harness.started(store)
        store = await harness.reopen()
        [claim] = await take(store, await harness.worker(store))
        assert claim.lease.fence == lease.fence + 1

    async def test_bytes_are_there(self, harness: Harness) -> None:
        store = await harness.make()
        content = bytes(range(256)) * 2_000
        ref = await store.put_blob(content)
        store = await harness.reopen()
        assert await store.get_blob(ref) == content

    async def test_a_store_may_be_opened_and_closed_twice(self, harness: Harness) -> None:
        store = await harness.make()
        await store.open()
        run = await harness.submit(store)
        await store.close()
        await store.close()
        store = await harness.reopen()
        assert await store.get(run.id) == run


class DurableWaitContract:
    """What runs wait for, and what came for them, outlives the process. For stores whose capabilities say `durable`."""

    async def test_signals_are_kept_in_their_order_and_known(self, harness: Harness) -> None:
        store = await harness.make()
        run = await harness.submit(store)
        signals = [harness.signal("go", str(number)) for number in range(3)]
        for signal in signals:
            await store.signal(run.id, signal)
        store = await harness.reopen()
        assert await store.signal(run.id, signals[0]) is False
        [claim] = await take(store, await harness.worker(store))
        await store.commit(claim.lease, Commit(1, opens=tuple(harness.signal_wait("go") for _ in signals)))
        taken = [data["signal"] for data in await told(store, run.id, "wait.closed")]
        assert taken == [signal.id for signal in signals]

    async def test_open_waits_and_their_joins_go_on_waiting(self, harness: Harness) -> None:
        store = await harness.make()
        question = harness.question(join="all")
        run = await harness.parked(store, harness.signal_wait("go", join="all"), question)
        await store.signal(run.id, harness.signal("go"))
        store = await harness.reopen()
        worker_id = await harness.worker(store)
        assert [record.wait for record in await store.questions(QuestionQuery())] == [question]
        assert not await is_due(store, worker_id, run.id)
        await store.answer(question.id, Payload("true"), by="ann")
        assert await is_due(store, worker_id, run.id)

    async def test_families_hold_together(self, harness: Harness) -> None:
        store = await harness.make()
        lease, [first, second] = await family(harness, store, count=2, waits=True, join="0/9")
        await harness.park(store, lease, number=2)
        await harness.finish(store, first.id, Succeeded(Payload("1")))
        store = await harness.reopen()
        worker_id = await harness.worker(store)
        assert not await is_due(store, worker_id, lease.run_id)
        await harness.finish(store, second.id, Succeeded(Payload("2")))
        assert [data["child"] for data in await told(store, lease.run_id, "child.ended")] == [first.id, second.id]
        assert await is_due(store, worker_id, lease.run_id)

    async def test_children_still_go_with_their_parent(self, harness: Harness) -> None:
        store = await harness.make()
        lease, [child] = await family(harness, store)
        store = await harness.reopen()
        await store.cancel(lease.run_id, by="ann")
        assert await take(store, await harness.worker(store), only=(lease.run_id,)) == []
        assert [(await store.get(run_id)).life.status for run_id in (lease.run_id, child.id)] == ["cancelled"] * 2

    async def test_a_request_that_nobody_heard_is_not_forgotten(self, harness: Harness) -> None:
        store = await harness.make()
        lease = await harness.started(store)
        await store.pause(lease.run_id, by="ann")
        store = await harness.reopen()
        assert await take(store, await harness.worker(store)) == []
        assert (await store.get(lease.run_id)).life.hold == "paused"

    async def test_sessions_keep_what_they_kept(self, harness: Harness) -> None:
        store = await harness.make()
        lease = await harness.started(store, session="ses_a")
        value = SessionWrite("ses_a", "plan", Payload('"a"'), "0/1")
        message = SessionMessage("ses_a", "user", Payload('"hi"'), "0/2")
        await store.commit(lease, Commit(1, writes=(value, value), messages=(message,)))
        kept = await store.session("ses_a"), await store.messages("ses_a")
        store = await harness.reopen()
        assert (await store.session("ses_a"), await store.messages("ses_a")) == kept
        assert await store.session_value("ses_a", "plan") == SessionValue(2, Payload('"a"'))

    async def test_tickets_and_lines_are_as_they_were(self, harness: Harness) -> None:
        store = await harness.make()
        lanes = (Lane(KEY_LANE, "eu", 2),)
        runs = [(await harness.submit(store, lanes=lanes)).id for _ in range(4)]
        before = await store.lanes()
        store = await harness.reopen()
        assert await store.lanes() == before
        worker_id = await harness.worker(store)
        claims = await take(store, worker_id)
        assert [claim.run.id for claim in claims] == runs[:2]
        for claim in claims:
            await store.commit(claim.lease, Commit(1, outcome=Succeeded(Payload("1"))))
        assert [claim.run.id for claim in await take(store, worker_id)] == runs[2:]

    async def test_a_turn_that_children_live_on_is_as_it_was(self, harness: Harness) -> None:
        store = await harness.make()
        lane = (Lane(SESSION_LANE, "ses_a", 1),)
        lease, [child] = await family(harness, store, parent={"session": "ses_a", "lanes": lane})
        worker_id = await harness.worker(store)
        await take(store, worker_id, only=(child.id,))
        later = await harness.submit(store, session="ses_a", lanes=lane)
        await store.commit(lease, Commit(2, outcome=Succeeded(Payload("1"))))
        before = await store.lanes()
        store = await harness.reopen()
        assert await store.lanes() == before
        assert [(lane.taken, lane.waiting) for lane in before] == [(1, 1)]
        harness.clock.advance(LEASE + 1)
        [claim] = await take_over(store, await harness.worker(store))
        assert claim.run.id == later.id, "the child was lost after it had been asked to end, and is cancelled"
        assert (await store.get(child.id)).life.status == "cancelled"
