"""What a store must do when the wall clock is set back or forward: what is due stays due, and a delay does not grow."""

from __future__ import annotations

import pytest

from stepwell.domain.commit import Commit
from stepwell.domain.outcome import ErrorInfo, HandedBack, Held, Parked, Payload, Retrying, Succeeded
from stepwell.domain.submission import AGENT_LANE, KEY_LANE, Lane
from stepwell.ports.store import ClaimRequest, Store
from stepwell.testing.conformance.harness import (
    AGENT,
    MINUTE,
    SECOND,
    Harness,
    events,
    is_due,
    stored,
    take,
)

JUMPS = pytest.mark.parametrize("jump", [-7200, -0.5, 0.5, 7200])
_ERROR = ErrorInfo("agent.error", "no luck")


class SetBackContract:
    """The wall clock jumps while runs wait to be claimed."""

    @JUMPS
    async def test_a_run_that_was_not_delayed_is_due_whatever_the_clock_says(
        self, harness: Harness, jump: float
    ) -> None:
        one, other = await harness.views()
        run = await harness.submit(one)
        worker_id = await harness.worker(other)
        harness.clock.jump(jump)
        assert await is_due(other, worker_id, run.id)

    @JUMPS
    async def test_it_is_due_also_for_whoever_opens_the_store_later(self, harness: Harness, jump: float) -> None:
        store = await harness.make()
        run = await harness.submit(store)
        harness.clock.jump(jump)
        if harness.capabilities.durable:
            store = await harness.reopen()
        assert await is_due(store, await harness.worker(store), run.id)

    @JUMPS
    async def test_it_is_due_also_when_the_clock_jumped_before_the_last_claim_and_others_wrote_since(
        self, harness: Harness, jump: float
    ) -> None:
        one, other = await harness.views()
        worker_id = await harness.worker(other)
        assert await take(other, worker_id) == []
        run = await harness.submit(one, agent="report")
        harness.clock.jump(jump)
        later = await harness.submit(one)
        assert await is_due(other, worker_id, later.id)
        assert [claim.run.id for claim in await take(other, worker_id, agents=("report",))] == [run.id]

    @JUMPS
    async def test_a_run_that_was_handed_back_is_due(self, harness: Harness, jump: float) -> None:
        store = await harness.make()
        run = await harness.ended(store, HandedBack())
        harness.clock.jump(jump)
        assert await is_due(store, await harness.worker(store), run.id)

    @JUMPS
    async def test_a_run_that_a_signal_woke_is_due(self, harness: Harness, jump: float) -> None:
        store = await harness.make()
        run = await harness.parked(store, harness.signal_wait())
        await store.signal(run.id, harness.signal())
        harness.clock.jump(jump)
        assert await is_due(store, await harness.worker(store), run.id)

    @JUMPS
    async def test_a_run_that_waits_for_a_signal_only_is_woken_by_nothing_else(
        self, harness: Harness, jump: float
    ) -> None:
        store = await harness.make()
        run = await harness.parked(store, harness.signal_wait())
        before = await stored(store, run.id)
        harness.clock.jump(jump)
        assert await take(store, await harness.worker(store)) == []
        assert await stored(store, run.id) == before

    @JUMPS
    async def test_a_run_that_was_resumed_is_due(self, harness: Harness, jump: float) -> None:
        store = await harness.make()
        run = await harness.ended(store, Held("diverged", by="replay"))
        await store.resume(run.id, by="ann", at_seq=run.life.seq)
        harness.clock.jump(jump)
        assert await is_due(store, await harness.worker(store), run.id)

    async def test_a_run_in_a_lane_is_due(self, harness: Harness) -> None:
        store = await harness.make()
        lanes = (Lane(KEY_LANE, "eu", 1),)
        [first, second] = [await harness.submit(store, lanes=lanes) for _ in range(2)]
        harness.clock.jump(-7200)
        worker_id = await harness.worker(store)
        [claim] = await take(store, worker_id)
        await store.commit(claim.lease, Commit(1, outcome=Retrying(_ERROR, harness.clock.now() + 10 * SECOND)))
        harness.clock.jump(-7200)
        [next_claim] = await take(store, worker_id)
        assert {claim.run.id, next_claim.run.id} == {first.id, second.id}
        await store.commit(next_claim.lease, Commit(1, outcome=HandedBack()))
        assert await is_due(store, worker_id, next_claim.run.id)

    async def test_a_backoff_is_as_long_again_and_not_longer(self, harness: Harness) -> None:
        store = await harness.make()
        worker_id = await harness.worker(store)
        run = await harness.ended(store, Retrying(_ERROR, harness.clock.now() + 10 * SECOND))
        harness.clock.jump(-7200)
        assert not await is_due(store, worker_id, run.id)
        harness.clock.advance(9.9)
        assert not await is_due(store, worker_id, run.id)
        harness.clock.advance(0.1)
        assert await is_due(store, worker_id, run.id)

    @pytest.mark.parametrize("waited", [0, 30, 59])
    async def test_a_delay_that_has_begun_is_never_longer_than_once_more(self, harness: Harness, waited: int) -> None:
        store = await harness.make()
        worker_id = await harness.worker(store)
        run = await harness.submit(store, delay=60)
        harness.clock.advance(waited)
        harness.clock.jump(-7200)
        assert not await is_due(store, worker_id, run.id)
        harness.clock.advance(60)
        assert await is_due(store, worker_id, run.id)

    async def test_a_clock_that_is_set_back_again_and_again_costs_one_delay_each_time(self, harness: Harness) -> None:
        store = await harness.make()
        worker_id = await harness.worker(store)
        run = await harness.submit(store, delay=60)
        for _ in range(3):
            harness.clock.advance(30)
            harness.clock.jump(-7200)
            assert not await is_due(store, worker_id, run.id)
        harness.clock.advance(60)
        assert await is_due(store, worker_id, run.id)

    async def test_a_parked_run_is_woken_after_what_was_left(self, harness: Harness) -> None:
        store = await harness.make()
        worker_id = await harness.worker(store)
        run = await harness.ended(store, Parked(harness.clock.now() + MINUTE, "[]"))
        harness.clock.jump(-7200)
        assert not await is_due(store, worker_id, run.id)
        harness.clock.advance(60)
        assert await is_due(store, worker_id, run.id)

    async def test_a_delayed_run_that_was_held_meanwhile_is_due_after_what_was_left(self, harness: Harness) -> None:
        store = await harness.make()
        worker_id = await harness.worker(store)
        run = await harness.submit(store, delay=60)
        held = await store.pause(run.id, by="ann")
        harness.clock.jump(-7200)
        await store.resume(run.id, by="ann", at_seq=held.life.seq)
        assert not await is_due(store, worker_id, run.id)
        harness.clock.advance(60)
        assert await is_due(store, worker_id, run.id)

    @pytest.mark.parametrize("behind", [0.5, 7200])
    async def test_a_clock_that_is_wrong_for_a_moment_makes_no_delay_shorter(
        self, harness: Harness, behind: float
    ) -> None:
        store = await harness.make()
        worker_id = await harness.worker(store)
        run = await harness.submit(store, delay=3600)
        for waited in (1, 5):
            harness.clock.jump(-behind)
            assert not await is_due(store, worker_id, run.id)
            harness.clock.advance(waited)
            assert not await is_due(store, worker_id, run.id)
            harness.clock.jump(behind)
            assert not await is_due(store, worker_id, run.id)
            assert (await store.get(run.id)).life.available_at == run.life.available_at
        harness.clock.advance(3593.9)
        assert not await is_due(store, worker_id, run.id)
        harness.clock.advance(0.1)
        assert await is_due(store, worker_id, run.id)

    async def test_nor_does_one_that_was_wrong_before(self, harness: Harness) -> None:
        one, other = await harness.views()
        worker_id, other_id = await harness.worker(one), await harness.worker(other)
        run = await harness.submit(one, delay=3600)
        harness.clock.jump(-7200)
        assert await take(one, worker_id) == []
        assert await take(other, other_id) == []
        harness.clock.jump(7205)
        assert await take(one, worker_id) == []
        harness.clock.jump(-3700)  # what was made up the first time would be over by this
        assert not await is_due(other, other_id, run.id)
        assert not await is_due(one, worker_id, run.id)
        harness.clock.advance(3600)
        assert await is_due(other, other_id, run.id)

    async def test_nor_is_a_delayed_run_woken_early_when_it_was_held_at_that_time(self, harness: Harness) -> None:
        store = await harness.make()
        worker_id = await harness.worker(store)
        run = await harness.submit(store, delay=3600)
        harness.clock.jump(-7200)
        assert not await is_due(store, worker_id, run.id)
        held = await store.pause(run.id, by="ann")
        harness.clock.jump(7205)
        assert not await is_due(store, worker_id, run.id)
        await store.resume(run.id, by="ann", at_seq=held.life.seq)
        assert not await is_due(store, worker_id, run.id)
        harness.clock.advance(3595)
        assert await is_due(store, worker_id, run.id)

    async def test_nor_is_a_run_in_a_lane_that_has_not_come_due(self, harness: Harness) -> None:
        store = await harness.make()
        worker_id = await harness.worker(store)
        run = await harness.submit(store, delay=3600, lanes=(Lane(KEY_LANE, "eu", 1),))
        harness.clock.jump(-7200)
        assert not await is_due(store, worker_id, run.id)
        harness.clock.jump(7205)
        assert not await is_due(store, worker_id, run.id)
        harness.clock.advance(3595)
        assert await is_due(store, worker_id, run.id)

    async def test_what_woke_a_run_while_the_clock_was_wrong_wakes_it_for_good(self, harness: Harness) -> None:
        store = await harness.make()
        run = await harness.parked(store, harness.signal_wait(), wake_at=harness.clock.now() + 60 * MINUTE)
        worker_id = await harness.worker(store)
        harness.clock.jump(-7200)
        assert not await is_due(store, worker_id, run.id)
        harness.clock.advance(3601)
        await store.signal(run.id, harness.signal())
        harness.clock.jump(3700)
        assert await is_due(store, worker_id, run.id)

    @pytest.mark.parametrize("write", ["signal", "child's end", "pause and resume", "held"])
    async def test_other_writes_make_no_delay_longer(self, harness: Harness, write: str) -> None:
        store = await harness.make()
        worker_id = await harness.worker(store)
        run = await harness.submit(store)
        [claim] = await take(store, worker_id)
        child = harness.child_of(run, agent="report")
        await store.commit(claim.lease, Commit(1, submits=(child,)))
        await store.commit(claim.lease, Commit(2, outcome=Parked(harness.clock.now() + MINUTE, "[]")))
        if write == "held":
            await store.pause(run.id, by="ann")
        harness.clock.jump(-7200)
        match write:
            case "signal":
                await store.signal(run.id, harness.signal())
            case "child's end":
                await store.cancel(child.id, by="ann")
            case _:
                await store.pause(run.id, by="ann")
                await store.signal(run.id, harness.signal())
                seq = (await store.get(run.id)).life.seq
                await store.resume(run.id, by="ann", at_seq=seq)
        assert not await is_due(store, worker_id, run.id)
        harness.clock.advance(60)
        assert await is_due(store, worker_id, run.id)

    async def test_runs_in_line_since_before_are_not_overtaken(self, harness: Harness) -> None:
        store = await harness.make()
        worker_id = await harness.worker(store, lease_seconds=1e6)
        lanes = (Lane(KEY_LANE, "eu", 1), Lane(AGENT_LANE, AGENT, 9))
        runs, order = [], []
        for _ in range(7):
            runs.append((await harness.submit(store, lanes=lanes)).id)
            harness.clock.advance(0.01)
        [claim] = await take(store, worker_id)
        harness.clock.jump(-7200)
        for _ in range(10):
            assert await take(store, worker_id) == []
            runs.append((await harness.submit(store, lanes=lanes)).id)
            harness.clock.advance(1)
            order.append(claim.run.id)
            await store.commit(claim.lease, Commit(1, outcome=Succeeded(Payload("1"))))
            [claim] = await take(store, worker_id)
        assert order == runs[:10]

    async def test_a_claim_says_when_the_next_run_is_due_by_the_new_time(self, harness: Harness) -> None:
        store = await harness.make()
        worker_id = await harness.worker(store)
        await harness.submit(store, delay=60)
        harness.clock.jump(-7200)
        next_due_at = (await store.claim(ClaimRequest(worker_id, 10, (AGENT,)))).next_due_at
        assert next_due_at == harness.clock.now() + MINUTE

    async def test_runs_of_others_are_not_put_off_either(self, harness: Harness) -> None:
        store = await harness.make()
        run = await harness.submit(store, agent="report")
        harness.clock.jump(-7200)
        assert await take(store, await harness.worker(store)) == []
        assert await is_due_for(store, await harness.worker(store), run.id, "report")

    async def test_nothing_is_told_and_nothing_else_changes(self, harness: Harness) -> None:
        store = await harness.make()
        run = await harness.submit(store, delay=60)
        journal = await events(store, run.id)
        harness.clock.jump(-7200)
        await take(store, await harness.worker(store))
        after = await store.get(run.id)
        assert await events(store, run.id) == journal
        changes = {name: getattr(after.life, name) for name in ("available_at", "updated_at", "made_up")}
        assert after == run._replace(life=run.life._replace(**changes))

    async def test_many_runs_are_due(self, harness: Harness) -> None:
        store = await harness.make()
        runs = {(await harness.submit(store)).id for _ in range(1100)}
        worker_id = await harness.worker(store)
        harness.clock.jump(-7200)
        taken = [claim.run.id for _ in range(2) for claim in await take(store, worker_id, limit=600)]
        assert len(taken) == 1100
        assert set(taken) == runs

    async def test_a_deadline_is_a_moment_and_stays_one(self, harness: Harness) -> None:
        store = await harness.make()
        run = await harness.submit(store, delay=3600, deadline=harness.clock.now() + MINUTE)
        worker_id = await harness.worker(store)
        harness.clock.jump(-7200)
        harness.clock.advance(61)
        assert await take(store, worker_id) == []
        assert (await store.get(run.id)).life.status == "queued"
        harness.clock.jump(7200)
        assert await take(store, worker_id) == []
        assert (await store.get(run.id)).life.status == "timed_out"


async def is_due_for(store: Store, worker_id: str, run_id: str, agent: str) -> bool:
    """Whether a claim for this agent gives the worker the run."""
    return [claim.run.id for claim in await take(store, worker_id, agents=(agent,))] == [run_id]
