"""What a store must do for limits: no lane lets in more than it has room for, and whoever stands in line gets there."""

from __future__ import annotations

import asyncio

import pytest

from stepwell.domain.commit import Commit
from stepwell.domain.outcome import HandedBack, Outcome, Parked, Payload, Succeeded
from stepwell.domain.run import MAX_CONSECUTIVE_LOSSES
from stepwell.domain.submission import AGENT_LANE, GLOBAL_LANE, KEY_LANE, Lane
from stepwell.ports.notifier import QUEUE
from stepwell.ports.store import ClaimRequest, LaneInfo, Store
from stepwell.testing.conformance.children import every_end, family, no_end
from stepwell.testing.conformance.commits import Ending
from stepwell.testing.conformance.harness import (
    AGENT,
    LEASE,
    MINUTE,
    SECOND,
    Harness,
    append,
    is_due,
    take,
    take_over,
)

_DONE = Succeeded(Payload("1"))


def narrow(capacity: int = 1, name: str = "eu") -> tuple[Lane, ...]:
    """One lane of a concurrency key."""
    return (Lane(KEY_LANE, name, capacity),)


class LaneContract:
    """Runs pass through lanes."""

    async def test_no_more_runs_are_taken_than_the_lane_has_room_for(self, harness: Harness) -> None:
        one, other = await harness.views()
        runs = [(await harness.submit(one, lanes=narrow(2))).id for _ in range(5)]
        worker_id = await harness.worker(other)
        seen = []
        while claims := await take(other, worker_id):
            seen.append([claim.run.id for claim in claims])
            await other.commit(claims[0].lease, Commit(1, outcome=_DONE))
            for claim in claims[1:]:
                assert await take(other, worker_id, only=(claim.run.id,)) == []
                await other.commit(claim.lease, Commit(1, outcome=_DONE))
        assert seen == [runs[:2], runs[2:4], runs[4:]]

    async def test_a_lane_says_how_many_sit_and_stand_in_it(self, harness: Harness) -> None:
        one, other = await harness.views()
        assert await one.lanes() == []
        for _ in range(5):
            await harness.submit(one, lanes=narrow(2))
        assert await other.lanes() == [LaneInfo("", KEY_LANE, "eu", 2, 2, 3)]
        claims = await take(one, await harness.worker(one))
        assert await other.lanes() == [LaneInfo("", KEY_LANE, "eu", 2, 2, 3)]
        for claim in claims:
            await one.commit(claim.lease, Commit(1, outcome=_DONE))
        assert await other.lanes() == [LaneInfo("", KEY_LANE, "eu", 2, 2, 1)]

    async def test_it_is_told_in_which_lane_a_run_stands_in_line(self, harness: Harness) -> None:
        one, other = await harness.views()
        both = (Lane(KEY_LANE, "eu", 2), Lane(GLOBAL_LANE, "all", 1))
        first, second, third = [await harness.submit(one, lanes=both) for _ in range(3)]
        assert await other.lanes(awaited_by=first.id) == []
        assert await other.lanes(awaited_by=second.id) == [LaneInfo("", GLOBAL_LANE, "all", 1, 1, 1)]
        assert await other.lanes(awaited_by=third.id) == [LaneInfo("", KEY_LANE, "eu", 2, 2, 1)]
        assert await other.lanes(awaited_by=(await harness.submit(one)).id) == []
        assert await other.lanes(awaited_by=second.id, tenant="acme") == []

    async def test_a_run_without_lanes_passes_by_those_in_line(self, harness: Harness) -> None:
        store = await harness.make()
        first, blocked = [await harness.submit(store, lanes=narrow()) for _ in range(2)]
        harness.clock.advance(1)
        free = await harness.submit(store)
        taken = {claim.run.id for claim in await take(store, await harness.worker(store))}
        assert taken == {first.id, free.id}
        assert (await store.get(blocked.id)).life.status == "queued"

    async def test_lanes_of_other_names_and_kinds_have_nothing_to_do_with_each_other(self, harness: Harness) -> None:
        store = await harness.make()
        lanes = narrow(1, "eu"), narrow(1, "us"), (Lane(AGENT_LANE, "eu", 1),), (Lane(GLOBAL_LANE, "eu", 1),)
        runs = {(await harness.submit(store, lanes=each)).id for each in lanes}
        assert {claim.run.id for claim in await take(store, await harness.worker(store))} == runs

    async def test_lanes_of_two_tenants_have_nothing_to_do_with_each_other(self, harness: Harness) -> None:
        store = await harness.make()
        runs = {(await harness.submit(store, lanes=narrow(), tenant=tenant)).id for tenant in ("acme", "other")}
        assert await store.lanes() == []
        assert await store.lanes(tenant="acme") == [LaneInfo("acme", KEY_LANE, "eu", 1, 1, 0)]
        assert {claim.run.id for claim in await take(store, await harness.worker(store))} == runs

    async def test_a_run_needs_a_ticket_in_each_of_its_lanes(self, harness: Harness) -> None:
        store = await harness.make()
        both = (Lane(KEY_LANE, "eu", 1), Lane(AGENT_LANE, AGENT, 2))
        await harness.submit(store, lanes=both)
        await harness.submit(store, lanes=both)
        elsewhere = (Lane(KEY_LANE, "us", 1), Lane(AGENT_LANE, AGENT, 2))
        third = await harness.submit(store, lanes=elsewhere)
        taken = await take(store, await harness.worker(store))
        assert len(taken) == 2
        assert third.id in {claim.run.id for claim in taken}

    async def test_who_stands_in_a_narrow_lane_takes_no_ticket_in_a_wide_one(self, harness: Harness) -> None:
        store = await harness.make()
        both = (Lane(KEY_LANE, "eu", 1), Lane(GLOBAL_LANE, "all", 3))
        for _ in range(3):
            await harness.submit(store, lanes=both)
        lanes = {(lane.kind, lane.taken, lane.waiting) for lane in await store.lanes()}
        assert lanes == {(KEY_LANE, 1, 2), (GLOBAL_LANE, 1, 0)}

    async def test_a_delayed_run_takes_its_place_when_it_is_due(self, harness: Harness) -> None:
        store = await harness.make()
        delayed = await harness.submit(store, delay=10, lanes=narrow())
        assert await store.lanes() == []
        free = await harness.submit(store, lanes=narrow())
        worker_id = await harness.worker(store)
        claims = await store.claim(ClaimRequest(worker_id, 10, (AGENT,)))
        assert [claim.run.id for claim in claims.taken] == [free.id]
        assert claims.next_due_at == delayed.life.available_at
        harness.clock.advance(10)
        assert not await is_due(store, worker_id, delayed.id)
        await store.commit(claims.taken[0].lease, Commit(1, outcome=_DONE))
        assert await is_due(store, worker_id, delayed.id)

    async def test_a_run_in_line_is_not_due_by_itself(self, harness: Harness) -> None:
        store = await harness.make()
        for _ in range(2):
            await harness.submit(store, lanes=narrow())
        worker_id = await harness.worker(store)
        await take(store, worker_id)
        assert (await store.claim(ClaimRequest(worker_id, 10, (AGENT,)))).next_due_at is None

    async def test_a_slot_that_is_offered_starts_no_run_beyond_the_limit(self, harness: Harness) -> None:
        store = await harness.make()
        worker_id = await harness.worker(store)
        first = await store.submit(harness.submission(lanes=narrow(), start_on=worker_id))
        second = await store.submit(harness.submission(lanes=narrow(), start_on=worker_id))
        assert first.lease is not None
        assert second.lease is None
        await store.commit(first.lease, Commit(1, outcome=_DONE))
        assert await is_due(store, worker_id, second.run.id)

    async def test_a_repeated_submission_takes_one_ticket(self, harness: Harness) -> None:
        store = await harness.make()
        submission = harness.submission(lanes=narrow(2), idempotency_key="k-1")
        await store.submit(submission)
        await store.submit(submission)
        await store.submit(harness.submission(lanes=narrow(2), idempotency_key="k-1"))
        assert await store.lanes() == [LaneInfo("", KEY_LANE, "eu", 2, 1, 0)]

    async def test_children_pass_through_lanes_too(self, harness: Harness) -> None:
        store = await harness.make()
        lease, children = await family(harness, store, count=3, lanes=narrow(2))
        taken = await take(store, await harness.worker(store))
        assert len(taken) == 2
        await store.commit(lease, Commit(2, outcome=_DONE))
        assert {(await store.get(child.id)).life.shown for child in children} == {"running", "cancelled"}
        assert await store.lanes() == [LaneInfo("", KEY_LANE, "eu", 2, 2, 0)]

    async def test_many_workers_together_keep_the_limit(self, harness: Harness) -> None:
        views = await harness.views()
        runs = {(await harness.submit(views[n % 2], lanes=narrow(3))).id for n in range(40)}
        workers = [(view, await harness.worker(view)) for view in views for _ in range(2)]
        finished: list[str] = []
        while len(finished) < len(runs):
            rounds = await asyncio.gather(*(take(view, worker_id) for view, worker_id in workers))
            held = [(view, claim) for (view, _), claims in zip(workers, rounds, strict=True) for claim in claims]
            assert 0 < len(held) <= 3
            await asyncio.gather(*(view.commit(claim.lease, Commit(1, outcome=_DONE)) for view, claim in held))
            finished += [claim.run.id for _, claim in held]
        assert sorted(finished) == sorted(runs)
        assert await views[0].lanes() == []


class LaneReleaseContract:
    """Tickets are given back, whichever way a run goes."""

    @every_end
    async def test_an_end_gives_back_the_ticket(self, harness: Harness, ending: Ending) -> None:
        one, other = await harness.views()
        lease = await harness.started(one, lanes=narrow())
        blocked = await harness.submit(one, lanes=narrow())
        worker_id = await harness.worker(other)
        assert not await is_due(other, worker_id, blocked.id)
        await one.commit(lease, Commit(1, outcome=ending.outcome))
        assert await is_due(other, worker_id, blocked.id)
        assert await one.lanes() == [LaneInfo("", KEY_LANE, "eu", 1, 1, 0)]

    @no_end
    async def test_a_run_that_stops_for_now_gives_back_its_ticket(self, harness: Harness, outcome: Outcome) -> None:
        store = await harness.make()
        lease = await harness.started(store, lanes=narrow())
        blocked = await harness.submit(store, lanes=narrow())
        await store.commit(lease, Commit(1, outcome=outcome))
        assert await is_due(store, await harness.worker(store), blocked.id)

    async def test_a_run_that_is_pushed_back_to_a_full_lane_waits_for_its_turn(self, harness: Harness) -> None:
        store = await harness.make()
        lease = await harness.started(store, lanes=narrow())
        blocked = await harness.submit(store, lanes=narrow())
        await store.commit(lease, Commit(1, outcome=HandedBack()))
        worker_id = await harness.worker(store)
        [claim] = await take(store, worker_id)
        assert claim.run.id == blocked.id
        assert not await is_due(store, worker_id, lease.run_id)
        await store.commit(claim.lease, Commit(1, outcome=_DONE))
        assert await is_due(store, worker_id, lease.run_id)

    @pytest.mark.parametrize("claimed", [True, False], ids=["running", "queued"])
    async def test_a_run_past_its_deadline_gives_back_its_ticket(self, harness: Harness, claimed: bool) -> None:
        store = await harness.make()
        run = await harness.submit(store, lanes=narrow(), deadline=harness.clock.now() + MINUTE)
        blocked = await harness.submit(store, lanes=narrow())
        worker_id = await harness.worker(store)
        if claimed:
            assert await is_due(store, worker_id, run.id)
        harness.clock.advance(60)
        assert await is_due(store, await harness.worker(store), blocked.id)

    async def test_a_run_that_is_cancelled_before_it_starts_gives_back_its_ticket(self, harness: Harness) -> None:
        store = await harness.make()
        first, blocked = [await harness.submit(store, lanes=narrow()) for _ in range(2)]
        await store.cancel(first.id, by="ann")
        assert await is_due(store, await harness.worker(store), blocked.id)

    async def test_a_run_that_dies_of_its_losses_gives_back_its_ticket(self, harness: Harness) -> None:
        store = await harness.make()
        lost = await harness.submit(store, lanes=narrow())
        blocked = await harness.submit(store, lanes=narrow())
        for _ in range(MAX_CONSECUTIVE_LOSSES):
            worker_id = await harness.worker(store)
            [claim] = await take_over(store, worker_id)
            assert claim.run.id == lost.id
            store.abandon_worker(worker_id)
        [claim] = await take_over(store, await harness.worker(store))
        assert claim.run.id == blocked.id

    async def test_a_lost_run_keeps_its_ticket_for_the_next_worker(self, harness: Harness) -> None:
        store = await harness.make()
        lease = await harness.started(store, lanes=narrow())
        blocked = await harness.submit(store, lanes=narrow())
        harness.clock.advance(LEASE + 1)
        worker_id = await harness.worker(store)
        assert [claim.run.id for claim in await take(store, worker_id)] == [lease.run_id]
        assert not await is_due(store, worker_id, blocked.id)

    async def test_a_run_that_is_cancelled_by_its_lost_worker_gives_back_its_ticket(self, harness: Harness) -> None:
        store = await harness.make()
        lease = await harness.started(store, lanes=narrow())
        blocked = await harness.submit(store, lanes=narrow())
        await store.cancel(lease.run_id, by="ann")
        harness.clock.advance(LEASE + 1)
        worker_id = await harness.worker(store)
        await take(store, worker_id, only=(lease.run_id,))
        assert await is_due(store, worker_id, blocked.id)

    async def test_a_child_that_goes_with_its_parent_gives_back_its_ticket(self, harness: Harness) -> None:
        store = await harness.make()
        lease, _ = await family(harness, store, lanes=narrow())
        blocked = await harness.submit(store, lanes=narrow())
        await store.commit(lease, Commit(2, outcome=_DONE))
        assert await is_due(store, await harness.worker(store), blocked.id)

    async def test_a_paused_run_gives_back_its_ticket_and_takes_one_when_it_is_resumed(self, harness: Harness) -> None:
        store = await harness.make()
        first, blocked = [await harness.submit(store, lanes=narrow()) for _ in range(2)]
        paused = await store.pause(first.id, by="ann")
        worker_id = await harness.worker(store)
        [claim] = await take(store, worker_id)
        assert claim.run.id == blocked.id
        await store.resume(first.id, at_seq=paused.life.seq, by="ann")
        assert not await is_due(store, worker_id, first.id)
        await store.commit(claim.lease, Commit(1, outcome=_DONE))
        assert await is_due(store, worker_id, first.id)

    async def test_a_run_in_line_that_is_paused_leaves_the_line(self, harness: Harness) -> None:
        store = await harness.make()
        lease = await harness.started(store, lanes=narrow())
        paused, blocked = [await harness.submit(store, lanes=narrow()) for _ in range(2)]
        await store.pause(paused.id, by="ann")
        assert [lane.waiting for lane in await store.lanes()] == [1]
        await store.commit(lease, Commit(1, outcome=_DONE))
        assert await is_due(store, await harness.worker(store), blocked.id)

    async def test_a_run_in_line_that_is_cancelled_leaves_the_line(self, harness: Harness) -> None:
        store = await harness.make()
        lease = await harness.started(store, lanes=narrow())
        cancelled, blocked = [await harness.submit(store, lanes=narrow()) for _ in range(2)]
        assert await store.cancel(cancelled.id, by="ann") == "cancelled"
        await store.commit(lease, Commit(1, outcome=_DONE))
        assert await is_due(store, await harness.worker(store), blocked.id)

    async def test_a_run_in_line_is_ended_at_its_deadline(self, harness: Harness) -> None:
        store = await harness.make()
        await harness.started(store, lanes=narrow())
        blocked = await harness.submit(store, lanes=narrow(), deadline=harness.clock.now() + 5 * SECOND)
        harness.clock.advance(5)
        await take(store, await harness.worker(store), agents=("somebody_else",))
        assert (await store.get(blocked.id)).life.status == "timed_out"
        assert [lane.waiting for lane in await store.lanes()] == [0]

    async def test_a_ticket_that_is_given_back_wakes_who_listens_to_the_queue(self, harness: Harness) -> None:
        store = await harness.make()
        lease = await harness.started(store, lanes=narrow())
        await harness.submit(store, lanes=narrow())
        with store.notifier.listen(QUEUE) as listener:
            await listener.wait(0)
            await store.commit(lease, Commit(1, outcome=_DONE))
            assert await listener.wait(10)


class LaneOrderContract:
    """Who stands in line gets a ticket in order."""

    async def test_it_goes_by_the_order_of_submission(self, harness: Harness) -> None:
        store = await harness.make()
        runs = []
        for _ in range(6):
            runs.append((await harness.submit(store, lanes=narrow())).id)
            harness.clock.advance(1)
        assert await self._served(harness, store) == runs

    async def test_a_higher_priority_goes_first(self, harness: Harness) -> None:
        store = await harness.make()
        first = await harness.submit(store, lanes=narrow())
        idle, urgent = [await harness.submit(store, lanes=narrow(), priority=priority) for priority in (0, 1)]
        assert await self._served(harness, store) == [first.id, urgent.id, idle.id]

    async def test_nobody_starves_behind_more_urgent_runs(self, harness: Harness) -> None:
        store = await harness.make()
        first = await harness.submit(store, lanes=narrow())
        old = await harness.submit(store, lanes=narrow())
        harness.clock.advance(31)
        urgent = await harness.submit(store, lanes=narrow(), priority=1)
        assert await self._served(harness, store) == [first.id, old.id, urgent.id]

    async def test_a_run_that_is_due_again_goes_before_runs_that_never_started(self, harness: Harness) -> None:
        store = await harness.make()
        parked = await harness.parked(store, harness.signal_wait("go"), lanes=narrow())
        fresh = []
        for _ in range(3):
            fresh.append((await harness.submit(store, lanes=narrow(), priority=100)).id)
        worker_id = await harness.worker(store)
        [claim] = await take(store, worker_id)
        harness.clock.advance(1)
        await store.signal(parked.id, harness.signal("go"))
        assert await take(store, worker_id) == []
        await store.commit(claim.lease, Commit(1, outcome=_DONE))
        assert [again.run.id for again in await take(store, worker_id)] == [parked.id]
        assert claim.run.id in fresh

    async def test_of_runs_that_came_due_since_the_last_claim_those_that_started_go_first(
        self, harness: Harness
    ) -> None:
        store = await harness.make()
        wake_at = harness.clock.now() + 20 * SECOND
        parked = await harness.ended(store, Parked(wake_at, "[]"), lanes=narrow())
        await harness.submit(store, delay=10, lanes=narrow())
        harness.clock.advance(20)
        [claim] = await take(store, await harness.worker(store))
        assert claim.run.id == parked.id

    async def _served(self, harness: Harness, store: Store) -> list[str]:
        """The runs in the order in which one worker gets and finishes them."""
        worker_id = await harness.worker(store)
        served = []
        while claims := await take(store, worker_id):
            for claim in claims:
                served.append(claim.run.id)
                await store.commit(claim.lease, Commit(1, outcome=_DONE))
        return served


class LaneCapacityContract:
    """A lane has as much room as the newest submission says."""

    async def test_a_lane_that_grows_lets_in_those_in_line(self, harness: Harness) -> None:
        store = await harness.make()
        for _ in range(4):
            await harness.submit(store, lanes=narrow(1))
        worker_id = await harness.worker(store)
        assert len(await take(store, worker_id)) == 1
        await harness.submit(store, lanes=narrow(3))
        assert await store.lanes() == [LaneInfo("", KEY_LANE, "eu", 3, 3, 2)]
        assert len(await take(store, worker_id)) == 2

    async def test_a_lane_that_shrinks_sends_nobody_away_and_lets_nobody_in_until_there_is_room(
        self, harness: Harness
    ) -> None:
        store = await harness.make()
        for _ in range(3):
            await harness.submit(store, lanes=narrow(3))
        worker_id = await harness.worker(store)
        claims = await take(store, worker_id)
        last = await harness.submit(store, lanes=narrow(1))
        assert await store.lanes() == [LaneInfo("", KEY_LANE, "eu", 1, 3, 1)]
        for number, claim in enumerate(claims, 1):
            assert not await is_due(store, worker_id, last.id)
            assert (await append(store, claim.lease, 1, f"works on {number}")).seq == 3
            await store.commit(claim.lease, Commit(2, outcome=_DONE))
        assert await is_due(store, worker_id, last.id)

    async def test_a_lane_that_grows_lets_nobody_in_beyond_the_new_room_of_another(self, harness: Harness) -> None:
        store = await harness.make()
        wide = (Lane(AGENT_LANE, AGENT, 2),)
        await harness.submit(store, lanes=narrow(1))
        await harness.submit(store, lanes=(*narrow(1), *wide))
        await harness.submit(store, lanes=wide)
        await harness.submit(store, lanes=(*narrow(2), Lane(AGENT_LANE, AGENT, 1)))
        taken = {(lane.kind, lane.name): (lane.capacity, lane.taken) for lane in await store.lanes()}
        assert taken == {(KEY_LANE, "eu"): (2, 2), (AGENT_LANE, AGENT): (1, 1)}

    async def test_a_delayed_submission_changes_the_room_at_once(self, harness: Harness) -> None:
        store = await harness.make()
        for _ in range(2):
            await harness.submit(store, lanes=narrow(1))
        await harness.submit(store, delay=60, lanes=narrow(2))
        assert len(await take(store, await harness.worker(store))) == 2

    async def test_what_was_submitted_before_changes_nothing_when_it_is_due(self, harness: Harness) -> None:
        store = await harness.make()
        await harness.submit(store, delay=10, lanes=narrow(5))
        for _ in range(2):
            await harness.submit(store, lanes=narrow(1))
        harness.clock.advance(10)
        assert len(await take(store, await harness.worker(store))) == 1
