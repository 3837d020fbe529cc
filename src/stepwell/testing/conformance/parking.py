"""What `Store.commit` must do with waits: a run sleeps until what it needs is there, never over it."""

from __future__ import annotations

import asyncio

import pytest

from stepwell.domain.commit import Commit
from stepwell.domain.errors import LeaseLost
from stepwell.domain.outcome import NEVER, ErrorInfo, HandedBack, Parked, Payload, Retrying, Succeeded
from stepwell.ports.store import ClaimRequest
from stepwell.testing.conformance.harness import (
    AGENT,
    LEASE,
    SECOND,
    Harness,
    append,
    closed_waits,
    events,
    is_due,
    kinds,
    note,
    stored,
    take,
    told,
)


class WaitContract:
    """Waits are opened, and given up when their time is over."""

    async def test_a_wait_is_told_as_it_was_given(self, harness: Harness) -> None:
        one, other = await harness.views()
        lease = await harness.started(one)
        waits = harness.signal_wait("go", step="0/1"), harness.question("Ship it?", step="0/2")
        answer = await one.commit(lease, Commit(1, opens=waits))
        entries = (await events(other, lease.run_id))[2:]
        assert [(entry.kind, entry.step, entry.data) for entry in entries] == [
            ("wait.opened", wait.step, wait.data) for wait in waits
        ]
        assert answer.seq == 4

    async def test_a_wait_of_which_another_event_tells_has_none_of_its_own(self, harness: Harness) -> None:
        store = await harness.make()
        lease = await harness.started(store)
        await store.commit(lease, Commit(1, opens=(harness.signal_wait("go", data=""),)))
        assert await kinds(store, lease.run_id) == ["run.queued", "run.started"]
        await store.signal(lease.run_id, harness.signal("go"))
        assert len(await closed_waits(store, lease.run_id)) == 1

    async def test_facts_stand_before_waits_and_waits_before_the_outcome(self, harness: Harness) -> None:
        store = await harness.make()
        lease = await harness.started(store)
        await store.signal(lease.run_id, harness.signal("go"))
        first = harness.signal_wait("stop")
        await store.commit(lease, Commit(1, opens=(first,)))
        opens = harness.signal_wait("go"), harness.question()
        await store.commit(lease, Commit(2, (note("fact"),), HandedBack(), opens=opens, expires=(first.id,)))
        assert (await kinds(store, lease.run_id))[4:] == [
            "custom.note",
            "wait.opened",
            "wait.closed",
            "wait.opened",
            "wait.closed",
            "run.handed_back",
        ]
        assert await closed_waits(store, lease.run_id) == [opens[0].id, first.id]

    async def test_the_same_number_twice_opens_once(self, harness: Harness) -> None:
        store = await harness.make()
        lease = await harness.started(store)
        write = Commit(1, opens=(harness.signal_wait("go"),))
        first, again = await store.commit(lease, write), await store.commit(lease, write)
        assert first == again
        for _ in range(2):
            await store.signal(lease.run_id, harness.signal("go"))
        assert len(await closed_waits(store, lease.run_id)) == 1

    async def test_a_refused_write_opens_and_expires_nothing(self, harness: Harness) -> None:
        store = await harness.make()
        lease = await harness.started(store)
        wait, late = harness.signal_wait("go"), harness.signal_wait("stop")
        await store.commit(lease, Commit(1, opens=(wait,)))
        harness.clock.advance(LEASE + 1)
        [claim] = await take(store, await harness.worker(store))
        before = await stored(store, lease.run_id)
        with pytest.raises(LeaseLost):
            await store.commit(lease, Commit(2, opens=(late,), expires=(wait.id,)))
        assert await stored(store, lease.run_id) == before
        await store.signal(lease.run_id, harness.signal("stop"))
        await store.signal(lease.run_id, harness.signal("go"))
        assert await closed_waits(store, claim.run.id) == [wait.id]

    async def test_a_wait_whose_time_is_over_is_closed_and_takes_nothing_more(self, harness: Harness) -> None:
        store = await harness.make()
        lease = await harness.started(store)
        wait = harness.signal_wait("go", step="0/4", until=harness.clock.now() + SECOND)
        await store.commit(lease, Commit(1, opens=(wait,)))
        await store.commit(lease, Commit(2, expires=(wait.id,)))
        last = (await events(store, lease.run_id))[-1]
        assert (last.kind, last.step) == ("wait.closed", "0/4")
        assert await told(store, lease.run_id, "wait.closed") == [{"wait": wait.id, "outcome": "timed_out"}]
        await store.signal(lease.run_id, harness.signal("go"))
        next_one = harness.signal_wait("go")
        await store.commit(lease, Commit(3, opens=(next_one,)))
        assert await closed_waits(store, lease.run_id) == [wait.id, next_one.id]

    async def test_the_store_gives_up_no_wait_by_itself(self, harness: Harness) -> None:
        store = await harness.make()
        until = harness.clock.now() + SECOND
        run = await harness.parked(store, harness.signal_wait("go", until=until), wake_at=until)
        harness.clock.advance(2)
        [claim] = await take(store, await harness.worker(store))
        assert claim.journal[-1].kind == "run.resumed"
        await store.signal(run.id, harness.signal("go"))
        assert len(await closed_waits(store, run.id)) == 1

    async def test_a_wait_that_something_closed_before_does_not_time_out(self, harness: Harness) -> None:
        store = await harness.make()
        lease = await harness.started(store)
        wait = harness.signal_wait("go")
        await store.commit(lease, Commit(1, opens=(wait,)))
        await store.signal(lease.run_id, harness.signal("go"))
        before = await events(store, lease.run_id)
        await store.commit(lease, Commit(2, expires=(wait.id, wait.id, "w_unknown")))
        assert await events(store, lease.run_id) == before

    async def test_a_run_gives_up_no_wait_of_another(self, harness: Harness) -> None:
        store = await harness.make()
        wait = harness.signal_wait("go")
        run, lease = await harness.parked(store, wait), await harness.started(store)
        await store.commit(lease, Commit(1, expires=(wait.id,)))
        await store.signal(run.id, harness.signal("go"))
        assert await told(store, lease.run_id, "wait.closed") == []
        assert [data["outcome"] for data in await told(store, run.id, "wait.closed")] == ["received"]

    async def test_waits_outlast_the_attempt_that_opened_them(self, harness: Harness) -> None:
        store = await harness.make()
        lease = await harness.started(store)
        wait = harness.signal_wait("go")
        error = ErrorInfo("agent.error", "no luck")
        await store.commit(lease, Commit(1, outcome=Retrying(error, harness.clock.now()), opens=(wait,)))
        await store.signal(lease.run_id, harness.signal("go"))
        assert await closed_waits(store, lease.run_id) == [wait.id]


class ParkingContract:
    """No wake-up is lost, and none comes for nothing."""

    async def test_a_run_that_waits_for_arrivals_only_is_never_due_by_itself(self, harness: Harness) -> None:
        store = await harness.make()
        run = await harness.parked(store, harness.signal_wait("go"))
        worker_id = await harness.worker(store)
        harness.clock.advance(10 * 365 * 86_400)
        claims = await store.claim(ClaimRequest(worker_id, 10, (AGENT,)))
        assert (claims.taken, claims.next_due_at) == ([], None)
        assert (await store.get(run.id)).life.available_at == NEVER

    async def test_a_run_that_waits_with_a_limit_is_due_at_that_moment(self, harness: Harness) -> None:
        store = await harness.make()
        wake_at = harness.clock.now() + 10 * SECOND
        run = await harness.parked(store, harness.signal_wait("go", until=wake_at), wake_at=wake_at)
        worker_id = await harness.worker(store)
        assert not await is_due(store, worker_id, run.id)
        harness.clock.advance(10)
        assert await is_due(store, worker_id, run.id)

    async def test_what_came_between_the_last_look_and_the_parking_keeps_the_run_due(self, harness: Harness) -> None:
        one, other = await harness.views()
        lease = await harness.started(one)
        opened = await one.commit(lease, Commit(1, opens=(harness.signal_wait("go"),)))
        await other.signal(lease.run_id, harness.signal("go"))
        await one.commit(lease, Commit(2, outcome=Parked(NEVER, "[]", opened.seq)))
        life = (await one.get(lease.run_id)).life
        assert (life.status, life.available_at) == ("waiting", harness.clock.now())
        assert await is_due(other, await harness.worker(other), lease.run_id)

    async def test_an_answer_between_the_last_look_and_the_parking_keeps_the_run_due(self, harness: Harness) -> None:
        one, other = await harness.views()
        lease = await harness.started(one)
        question = harness.question()
        opened = await one.commit(lease, Commit(1, opens=(question,)))
        await other.answer(question.id, Payload("true"), by="ann")
        await one.commit(lease, Commit(2, outcome=Parked(NEVER, "[]", opened.seq)))
        assert await is_due(other, await harness.worker(other), lease.run_id)

    async def test_a_child_that_ends_between_the_last_look_and_the_parking_keeps_the_run_due(
        self, harness: Harness
    ) -> None:
        one, other = await harness.views()
        lease = await harness.started(one)
        child = harness.child_of(await one.get(lease.run_id))
        opened = await one.commit(lease, Commit(1, opens=(harness.child_wait(child.id),), submits=(child,)))
        await harness.finish(other, child.id, Succeeded(Payload("1")))
        await one.commit(lease, Commit(2, outcome=Parked(NEVER, "[]", opened.seq)))
        assert await is_due(other, await harness.worker(other), lease.run_id)

    async def test_a_run_that_has_read_everything_sleeps(self, harness: Harness) -> None:
        store = await harness.make()
        lease = await harness.started(store)
        await store.commit(lease, Commit(1, opens=(harness.signal_wait("go"), harness.question())))
        await store.signal(lease.run_id, harness.signal("stop"))
        seen = (await events(store, lease.run_id))[-1].seq
        await store.commit(lease, Commit(2, outcome=Parked(NEVER, "[]", seen)))
        assert not await is_due(store, await harness.worker(store), lease.run_id)

    async def test_what_the_parking_write_tells_itself_is_nothing_unread(self, harness: Harness) -> None:
        store = await harness.make()
        lease = await harness.started(store)
        await store.commit(
            lease, Commit(1, (note("fact"),), Parked(NEVER, "[]", 2), opens=(harness.signal_wait("go"),))
        )
        assert not await is_due(store, await harness.worker(store), lease.run_id)

    async def test_a_run_that_opens_and_parks_in_one_write_does_not_sleep_over_what_is_there(
        self, harness: Harness
    ) -> None:
        store = await harness.make()
        lease = await harness.started(store)
        await store.signal(lease.run_id, harness.signal("go"))
        park = Parked(NEVER, "[]", 3)
        await store.commit(lease, Commit(1, outcome=park, opens=(harness.signal_wait("go"),)))
        assert len(await closed_waits(store, lease.run_id)) == 1
        assert await is_due(store, await harness.worker(store), lease.run_id)

    async def test_many_arrivals_while_a_run_parks_leave_it_due(self, harness: Harness) -> None:
        one, other = await harness.views()
        leases = [await harness.started(one) for _ in range(20)]
        for lease in leases:
            await one.commit(lease, Commit(1, opens=(harness.signal_wait("go"),)))
        park = Commit(2, outcome=Parked(NEVER, "[]", 3))
        calls = [
            call
            for lease in leases
            for call in (one.commit(lease, park), other.signal(lease.run_id, harness.signal("go")))
        ]
        await asyncio.gather(*calls)
        taken = await take(other, await harness.worker(other))
        assert {claim.run.id for claim in taken} == {lease.run_id for lease in leases}

    async def test_a_run_with_a_plain_parking_is_not_due_because_of_what_it_wrote(self, harness: Harness) -> None:
        store = await harness.make()
        lease = await harness.started(store)
        await append(store, lease, 1, "a fact")
        await store.commit(lease, Commit(2, outcome=Parked(NEVER, "[]")))
        assert not await is_due(store, await harness.worker(store), lease.run_id)


class JoinContract:
    """Waits that are joined wake the run together, when the last of them is closed."""

    async def test_a_run_is_woken_by_the_last_of_the_waits_that_are_joined(self, harness: Harness) -> None:
        one, other = await harness.views()
        question = harness.question(join="all")
        run = await harness.parked(one, harness.signal_wait("go", join="all"), question)
        worker_id = await harness.worker(one)
        await other.signal(run.id, harness.signal("go"))
        assert len(await closed_waits(one, run.id)) == 1
        assert not await is_due(one, worker_id, run.id)
        await other.answer(question.id, Payload("true"), by="ann")
        assert await is_due(one, worker_id, run.id)

    async def test_a_wait_outside_the_join_wakes_alone(self, harness: Harness) -> None:
        store = await harness.make()
        joined = [harness.signal_wait(name, join="all") for name in "ab"]
        run = await harness.parked(store, *joined, harness.signal_wait("go"))
        await store.signal(run.id, harness.signal("go"))
        assert await is_due(store, await harness.worker(store), run.id)

    async def test_joins_do_not_wait_for_each_other(self, harness: Harness) -> None:
        store = await harness.make()
        waits = [harness.signal_wait(name, join=join) for name, join in (("a", "1"), ("b", "2"), ("c", "2"))]
        run = await harness.parked(store, *waits)
        await store.signal(run.id, harness.signal("b"))
        worker_id = await harness.worker(store)
        assert not await is_due(store, worker_id, run.id)
        await store.signal(run.id, harness.signal("a"))
        assert await is_due(store, worker_id, run.id)

    async def test_the_joins_of_two_runs_have_nothing_to_do_with_each_other(self, harness: Harness) -> None:
        store = await harness.make()
        run, _ = [await harness.parked(store, harness.signal_wait("go", join="0/1")) for _ in range(2)]
        await store.signal(run.id, harness.signal("go"))
        assert await is_due(store, await harness.worker(store), run.id)

    async def test_a_wait_that_was_given_up_holds_up_no_join(self, harness: Harness) -> None:
        store = await harness.make()
        lease = await harness.started(store)
        waits = tuple(harness.signal_wait(name, join="all") for name in "ab")
        await store.commit(lease, Commit(1, opens=waits))
        expired = await store.commit(lease, Commit(2, expires=(waits[0].id,)))
        await store.commit(lease, Commit(3, outcome=Parked(NEVER, "[]", expired.seq)))
        worker_id = await harness.worker(store)
        assert not await is_due(store, worker_id, lease.run_id)
        await store.signal(lease.run_id, harness.signal("b"))
        assert await is_due(store, worker_id, lease.run_id)

    async def test_what_is_there_already_does_not_wake_a_join_that_misses_more(self, harness: Harness) -> None:
        store = await harness.make()
        lease = await harness.started(store)
        await store.signal(lease.run_id, harness.signal("a"))
        opens = tuple(harness.signal_wait(name, join="all") for name in "ab")
        await store.commit(lease, Commit(1, outcome=Parked(NEVER, "[]", 3), opens=opens))
        worker_id = await harness.worker(store)
        assert not await is_due(store, worker_id, lease.run_id)
        await store.signal(lease.run_id, harness.signal("b"))
        assert await is_due(store, worker_id, lease.run_id)
