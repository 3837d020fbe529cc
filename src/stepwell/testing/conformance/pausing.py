"""What `Store.pause` must do, and `resume` with it: set a run and its live descendants aside, and let them go on."""

from __future__ import annotations

import pytest

from stepwell.domain.commit import Commit
from stepwell.domain.errors import NotFound, RunEnded
from stepwell.domain.outcome import (
    NEVER,
    ErrorInfo,
    Failed,
    HandedBack,
    Held,
    Outcome,
    Parked,
    Payload,
    Retrying,
    Succeeded,
)
from stepwell.domain.transitions import PAUSED_ON_REQUEST
from stepwell.domain.values import loads
from stepwell.testing.clock import START
from stepwell.testing.conformance.children import family
from stepwell.testing.conformance.harness import (
    LEASE,
    SECOND,
    Harness,
    append,
    events,
    is_due,
    kinds,
    stored,
    take,
)

_ERROR = ErrorInfo("agent.error", "no luck")
_STOPS: dict[str, Outcome] = {
    "waiting": Parked(START + SECOND, "[]"),
    "handed back": HandedBack(),
    "backing off": Retrying(_ERROR, START + SECOND),
}
every_stop = pytest.mark.parametrize("outcome", _STOPS.values(), ids=_STOPS)


class PauseContract:
    """Runs are set aside."""

    async def test_a_queued_run_is_set_aside_at_once(self, harness: Harness) -> None:
        one, other = await harness.views()
        run = await harness.submit(one)
        paused = await other.pause(run.id, by="ann")
        assert await one.get(run.id) == paused
        assert (paused.life.status, paused.life.hold, paused.life.fence) == ("queued", "paused", 0)
        last = (await events(one, run.id))[-1]
        assert (last.kind, loads(last.data)) == ("run.held", {"why": "paused", "by": "ann"})
        assert await take(one, await harness.worker(one)) == []

    @every_stop
    async def test_a_run_that_nobody_executes_is_set_aside_and_goes_on_when_resumed(
        self, harness: Harness, outcome: Outcome
    ) -> None:
        store = await harness.make()
        run = await harness.ended(store, outcome)
        worker_id = await harness.worker(store)
        paused = await store.pause(run.id, by="ann")
        assert (paused.life.status, paused.life.hold) == (run.life.status, "paused")
        harness.clock.advance(60)
        assert not await is_due(store, worker_id, run.id)
        resumed = await store.resume(run.id, at_seq=paused.life.seq, by="ann")
        assert (resumed.life.status, resumed.life.hold) == (run.life.status, None)
        assert await is_due(store, worker_id, run.id)

    async def test_a_waiting_run_that_is_resumed_waits_on(self, harness: Harness) -> None:
        store = await harness.make()
        run = await harness.parked(store, harness.signal_wait("go"))
        paused = await store.pause(run.id, by="ann")
        resumed = await store.resume(run.id, at_seq=paused.life.seq, by="ann")
        assert (resumed.life.status, resumed.life.available_at) == ("waiting", NEVER)
        worker_id = await harness.worker(store)
        assert not await is_due(store, worker_id, run.id)
        await store.signal(run.id, harness.signal("go"))
        assert await is_due(store, worker_id, run.id)

    async def test_a_delayed_run_that_is_resumed_is_due_when_it_was_to_be(self, harness: Harness) -> None:
        store = await harness.make()
        wake_at = harness.clock.now() + 30 * SECOND
        run = await harness.ended(store, Parked(wake_at, "[]"))
        paused = await store.pause(run.id, by="ann")
        resumed = await store.resume(run.id, at_seq=paused.life.seq, by="ann")
        assert resumed.life.available_at == wake_at

    async def test_a_running_run_is_set_aside_where_it_stops(self, harness: Harness) -> None:
        one, other = await harness.views()
        lease = await harness.started(one)
        before = await events(one, lease.run_id)
        asked = await other.pause(lease.run_id, by="ann")
        assert (asked.life.status, asked.life.pausing, asked.life.hold) == ("running", 1, None)
        assert await events(one, lease.run_id) == before
        assert (await append(one, lease, 1, "the step in flight")).control == (False, True)
        await one.commit(lease, Commit(2, outcome=HandedBack()))
        life = (await other.get(lease.run_id)).life
        assert (life.status, life.hold, life.pausing, life.worker) == ("queued", "paused", 0, None)
        assert (await kinds(one, lease.run_id))[-2:] == ["run.handed_back", "run.held"]

    @every_stop
    async def test_a_pause_that_was_asked_for_holds_a_run_however_it_stops(
        self, harness: Harness, outcome: Outcome
    ) -> None:
        store = await harness.make()
        lease = await harness.started(store)
        await store.pause(lease.run_id, by="ann")
        await store.commit(lease, Commit(1, outcome=outcome))
        assert (await store.get(lease.run_id)).life.hold == "paused"
        harness.clock.advance(60)
        assert await take(store, await harness.worker(store)) == []

    @pytest.mark.parametrize("outcome", [Succeeded(Payload("1")), Failed(_ERROR)], ids=["returned", "raised"])
    async def test_an_end_wins_over_a_pause(self, harness: Harness, outcome: Outcome) -> None:
        store = await harness.make()
        lease = await harness.started(store)
        await store.pause(lease.run_id, by="ann")
        await store.commit(lease, Commit(1, outcome=outcome))
        life = (await store.get(lease.run_id)).life
        assert life.ended
        assert (life.hold, life.pausing) == (None, 0)

    async def test_what_arrives_for_a_run_that_parks_into_a_pause_makes_it_due_when_resumed(
        self, harness: Harness
    ) -> None:
        store = await harness.make()
        lease = await harness.started(store)
        opened = await store.commit(lease, Commit(1, opens=(harness.signal_wait("go"),)))
        await store.pause(lease.run_id, by="ann")
        await store.signal(lease.run_id, harness.signal("go"))
        await store.commit(lease, Commit(2, outcome=Parked(NEVER, "[]", opened.seq)))
        worker_id = await harness.worker(store)
        assert not await is_due(store, worker_id, lease.run_id)
        await store.resume(lease.run_id, at_seq=(await store.get(lease.run_id)).life.seq, by="ann")
        assert await is_due(store, worker_id, lease.run_id)

    async def test_a_run_that_was_to_pause_is_held_when_its_worker_is_lost(self, harness: Harness) -> None:
        one, other = await harness.views()
        dead, silent = await harness.started(one), await harness.started(one)
        for lease in (dead, silent):
            await one.pause(lease.run_id, by="ann")
        one.abandon_worker(dead.worker)
        harness.clock.advance(LEASE + 1)
        assert await take(other, await harness.worker(other)) == []
        for lease in (dead, silent):
            life = (await other.get(lease.run_id)).life
            assert (life.hold, life.fence, life.worker) == ("paused", lease.fence + 1, None)
            assert (await kinds(other, lease.run_id))[-1] == "run.held"

    async def test_a_pause_that_has_not_taken_effect_can_be_taken_back(self, harness: Harness) -> None:
        one, other = await harness.views()
        lease = await harness.started(one)
        asked = await one.pause(lease.run_id, by="ann")
        resumed = await other.resume(lease.run_id, at_seq=asked.life.seq, by="ann")
        assert (resumed.life.status, resumed.life.pausing, resumed.life.seq) == ("running", 0, asked.life.seq)
        assert (await append(one, lease, 1, "goes on")).control == (False, False)
        await one.commit(lease, Commit(2, outcome=HandedBack()))
        assert await is_due(one, await harness.worker(one), lease.run_id)

    async def test_a_run_that_stops_for_a_pause_is_held_and_tells_it_once(self, harness: Harness) -> None:
        store = await harness.make()
        lease = await harness.started(store)
        await store.pause(lease.run_id, by="ann")
        await store.commit(lease, Commit(1, outcome=PAUSED_ON_REQUEST))
        life = (await store.get(lease.run_id)).life
        assert (life.status, life.hold, life.pausing) == ("queued", "paused", 0)
        assert (await kinds(store, lease.run_id))[2:] == ["run.held"]

    async def test_a_run_that_stops_for_a_pause_that_was_taken_back_is_handed_back(self, harness: Harness) -> None:
        store = await harness.make()
        lease = await harness.started(store)
        asked = await store.pause(lease.run_id, by="ann")
        await store.resume(lease.run_id, at_seq=asked.life.seq, by="ann")
        await store.commit(lease, Commit(1, outcome=PAUSED_ON_REQUEST))
        assert (await kinds(store, lease.run_id))[2:] == ["run.handed_back"]
        assert await is_due(store, await harness.worker(store), lease.run_id)

    async def test_a_cancel_wins_over_a_pause(self, harness: Harness) -> None:
        store = await harness.make()
        lease = await harness.started(store)
        await store.pause(lease.run_id, by="ann")
        await store.cancel(lease.run_id, by="ann")
        await store.commit(lease, Commit(1, outcome=HandedBack()))
        life = (await store.get(lease.run_id)).life
        assert (life.status, life.hold) == ("cancelled", None)

    @pytest.mark.parametrize("why", ["paused", "diverged", "in_doubt"])
    async def test_a_run_that_is_held_stays_as_it_is(self, harness: Harness, why: str) -> None:
        store = await harness.make()
        run = await harness.ended(store, Held(why, by="somebody"))
        before = await stored(store, run.id)
        assert await store.pause(run.id, by="ann") == run
        assert await stored(store, run.id) == before

    async def test_a_run_that_was_asked_to_end_is_not_paused(self, harness: Harness) -> None:
        store = await harness.make()
        lease = await harness.started(store)
        await store.cancel(lease.run_id, by="ann")
        before = await stored(store, lease.run_id)
        await store.pause(lease.run_id, by="ann")
        assert await stored(store, lease.run_id) == before

    async def test_an_ended_run_is_refused(self, harness: Harness) -> None:
        store = await harness.make()
        run = await harness.ended(store, Succeeded(Payload("1")))
        with pytest.raises(RunEnded):
            await store.pause(run.id, by="ann")
        assert await store.get(run.id) == run

    async def test_a_run_of_another_tenant_is_not_found(self, harness: Harness) -> None:
        store = await harness.make()
        run = await harness.submit(store, tenant="acme")
        with pytest.raises(NotFound):
            await store.pause(run.id, by="ann")
        assert (await store.pause(run.id, by="ann", tenant="acme")).life.hold == "paused"


class PauseTreeContract:
    """What is paused and resumed are whole trees."""

    async def test_a_pause_holds_all_that_descend_from_the_run(self, harness: Harness) -> None:
        one, other = await harness.views()
        lease, [child] = await family(harness, one, waits=True)
        await harness.park(one, lease, number=2)
        grandchild = harness.child_of(await one.get(child.id))
        await harness.finish(one, child.id, Parked(NEVER, "[]"), submits=(grandchild,))
        await other.pause(lease.run_id, by="ann")
        for run_id in (lease.run_id, child.id, grandchild.id):
            assert (await one.get(run_id)).life.hold == "paused"
            last = (await events(one, run_id))[-1]
            assert (last.kind, loads(last.data)) == ("run.held", {"why": "paused", "by": "ann"})
        assert await take(other, await harness.worker(other)) == []

    async def test_a_pause_leaves_ancestors_siblings_and_the_ended_alone(self, harness: Harness) -> None:
        store = await harness.make()
        lease, [child, sibling] = await family(harness, store, count=2)
        ended = harness.child_of(await store.get(child.id))
        await harness.finish(store, child.id, Parked(NEVER, "[]"), submits=(ended,))
        await harness.finish(store, ended.id, Succeeded(Payload("1")))
        before = [await stored(store, run_id) for run_id in (lease.run_id, sibling.id, ended.id)]
        await store.pause(child.id, by="ann")
        assert [await stored(store, run_id) for run_id in (lease.run_id, sibling.id, ended.id)] == before
        assert (await store.get(child.id)).life.hold == "paused"

    async def test_a_pause_asks_the_children_that_are_running(self, harness: Harness) -> None:
        store = await harness.make()
        lease, [child] = await family(harness, store, waits=True)
        await harness.park(store, lease, number=2)
        [claim] = await take(store, await harness.worker(store))
        await store.pause(lease.run_id, by="ann")
        assert (await store.get(child.id)).life.pausing == 1
        await store.commit(claim.lease, Commit(1, outcome=HandedBack()))
        assert (await store.get(child.id)).life.hold == "paused"

    async def test_a_resume_lets_all_that_descend_from_the_run_go_on(self, harness: Harness) -> None:
        one, other = await harness.views()
        lease, [child] = await family(harness, one, waits=True)
        await harness.park(one, lease, number=2)
        grandchild = harness.child_of(await one.get(child.id))
        await harness.finish(one, child.id, Parked(NEVER, "[]"), submits=(grandchild,))
        paused = await one.pause(lease.run_id, by="ann")
        await other.resume(lease.run_id, at_seq=paused.life.seq, by="bob")
        for run_id in (lease.run_id, child.id, grandchild.id):
            assert (await one.get(run_id)).life.hold is None
            last = (await events(one, run_id))[-1]
            assert (last.kind, loads(last.data)) == ("run.released", {"by": "bob"})
        assert [claim.run.id for claim in await take(one, await harness.worker(one))] == [grandchild.id]

    async def test_a_resume_takes_back_the_pause_of_children_that_are_running(self, harness: Harness) -> None:
        store = await harness.make()
        lease, [child] = await family(harness, store, waits=True)
        await harness.park(store, lease, number=2)
        [claim] = await take(store, await harness.worker(store))
        paused = await store.pause(lease.run_id, by="ann")
        await store.resume(lease.run_id, at_seq=paused.life.seq, by="ann")
        assert await store.controls(claim.lease.worker) == {}
        await store.commit(claim.lease, Commit(1, outcome=HandedBack()))
        assert (await store.get(child.id)).life.hold is None

    @pytest.mark.parametrize("why", ["diverged", "in_doubt"])
    async def test_a_resume_lifts_no_other_hold_of_a_descendant(self, harness: Harness, why: str) -> None:
        store = await harness.make()
        lease, [child] = await family(harness, store)
        await harness.park(store, lease, number=2)
        await harness.finish(store, child.id, Held(why, by="somebody"))
        before = await stored(store, child.id)
        paused = await store.pause(lease.run_id, by="ann")
        await store.resume(lease.run_id, at_seq=paused.life.seq, by="ann")
        assert await stored(store, child.id) == before

    async def test_a_resume_that_is_refused_lifts_nothing(self, harness: Harness) -> None:
        store = await harness.make()
        lease, [child] = await family(harness, store)
        await harness.park(store, lease, number=2)
        paused = await store.pause(lease.run_id, by="ann")
        with pytest.raises(Exception, match="has changed"):
            await store.resume(lease.run_id, at_seq=paused.life.seq - 1, by="ann")
        assert (await store.get(child.id)).life.hold == "paused"

    async def test_a_held_child_goes_with_its_parent(self, harness: Harness) -> None:
        store = await harness.make()
        lease, [child] = await family(harness, store)
        await store.pause(child.id, by="ann")
        await store.commit(lease, Commit(2, outcome=Succeeded(Payload("1"))))
        life = (await store.get(child.id)).life
        assert (life.status, life.hold) == ("cancelled", None)
