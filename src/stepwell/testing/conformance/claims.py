"""What `Store.claim` must do with runs that wait: each to one worker, in order, none before its time."""

from __future__ import annotations

import asyncio

from stepwell.domain.commit import Commit
from stepwell.domain.outcome import ErrorInfo, HandedBack, Held, Parked, Payload, Retrying, Succeeded
from stepwell.domain.values import loads
from stepwell.ports.store import ClaimRequest, Store
from stepwell.testing.conformance.harness import AGENT, SECOND, Harness, events, stored, take


class ClaimContract:
    """Runs come into the hands of workers."""

    async def test_no_run_is_given_to_two_workers(self, harness: Harness) -> None:
        views = await harness.views()
        runs = {(await harness.submit(views[0])).id for _ in range(60)}
        workers = [(view, await harness.worker(view)) for view in views for _ in range(4)]
        rounds = [take(view, worker_id, limit=5) for _ in range(3) for view, worker_id in workers]
        taken = [claim for claims in await asyncio.gather(*rounds) for claim in claims]
        assert len(taken) == len(runs)
        assert {claim.run.id for claim in taken} == runs
        assert {claim.lease.fence for claim in taken} == {1}

    async def test_a_claim_starts_the_first_attempt_and_says_so(self, harness: Harness) -> None:
        one, other = await harness.views()
        run = await harness.submit(one)
        worker_id = await harness.worker(other)
        [claim] = await take(other, worker_id)
        assert claim.lease == (run.id, 1, worker_id)
        assert claim.run == await one.get(run.id)
        assert (claim.run.life.status, claim.run.life.attempt, claim.run.life.worker) == ("running", 1, worker_id)
        entry = (await events(one, run.id))[-1]
        assert entry.kind == "run.started"
        assert loads(entry.data) == {"attempt": 1, "fence": 1, "worker": worker_id}

    async def test_a_claim_brings_the_whole_journal(self, harness: Harness) -> None:
        store = await harness.make()
        run = await harness.submit(store)
        worker_id = await harness.worker(store)
        for _ in range(3):
            [claim] = await take(store, worker_id)
            assert claim.journal == await events(store, run.id)
            await store.commit(claim.lease, Commit(1, outcome=HandedBack()))

    async def test_due_runs_come_by_time_and_priority(self, harness: Harness) -> None:
        store = await harness.make()
        first, second = await harness.submit(store), await harness.submit(store, delay=1)
        urgent, idle = await harness.submit(store, delay=2, priority=1), await harness.submit(store, priority=-1)
        harness.clock.advance(2)
        taken = await take(store, await harness.worker(store))
        assert [claim.run.id for claim in taken] == [urgent.id, first.id, second.id, idle.id]

    async def test_no_run_starves_behind_more_urgent_ones(self, harness: Harness) -> None:
        store = await harness.make()
        old = await harness.submit(store)
        harness.clock.advance(31)
        urgent = await harness.submit(store, priority=1)
        taken = await take(store, await harness.worker(store))
        assert [claim.run.id for claim in taken] == [old.id, urgent.id]

    async def test_a_claim_takes_no_more_than_its_limit(self, harness: Harness) -> None:
        store = await harness.make()
        runs = []
        for _ in range(5):
            runs.append((await harness.submit(store)).id)
            harness.clock.advance(1)
        worker_id = await harness.worker(store)
        assert [claim.run.id for claim in await take(store, worker_id, limit=2)] == runs[:2]
        assert [claim.run.id for claim in await take(store, worker_id, limit=10)] == runs[2:]

    async def test_a_claim_takes_only_runs_of_the_agents_that_it_names(self, harness: Harness) -> None:
        store = await harness.make()
        worker_id = await harness.worker(store)
        runs = {agent: (await harness.submit(store, agent=agent)).id for agent in ("one", "two", "three")}
        assert await take(store, worker_id, agents=("four", "tw", "TWO", "%")) == []
        taken = await take(store, worker_id, agents=("two", "three"))
        assert {claim.run.id for claim in taken} == {runs["two"], runs["three"]}

    async def test_a_claim_takes_only_the_runs_that_it_names(self, harness: Harness) -> None:
        store = await harness.make()
        worker_id = await harness.worker(store)
        runs = [(await harness.submit(store)).id for _ in range(4)]
        other = await harness.submit(store, agent="report")
        assert await take(store, worker_id, only=()) == []
        taken = await take(store, worker_id, only=(runs[2], runs[0], other.id, "run_unknown"))
        assert {claim.run.id for claim in taken} == {runs[0], runs[2]}
        assert {claim.run.id for claim in await take(store, worker_id)} == {runs[1], runs[3]}

    async def test_runs_of_every_tenant_are_taken(self, harness: Harness) -> None:
        store = await harness.make()
        runs = {(await harness.submit(store, tenant=tenant)).id for tenant in ("", "acme", "other")}
        assert {claim.run.id for claim in await take(store, await harness.worker(store))} == runs

    async def test_a_claim_that_finds_nothing_changes_nothing(self, harness: Harness) -> None:
        store = await harness.make()
        delayed = await harness.submit(store, delay=10)
        before = await stored(store, delayed.id)
        assert await take(store, await harness.worker(store)) == []
        assert await stored(store, delayed.id) == before


class DueContract:
    """A run is due when its time has come, and not before."""

    async def test_a_delayed_run_is_taken_when_it_is_due_and_not_before(self, harness: Harness) -> None:
        store = await harness.make()
        worker_id = await harness.worker(store)
        run = await harness.submit(store, delay=10, priority=100)
        harness.clock.advance(9.9)
        assert await take(store, worker_id) == []
        harness.clock.advance(0.1)
        assert [claim.run.id for claim in await take(store, worker_id)] == [run.id]

    async def test_a_delayed_urgent_run_does_not_hide_one_that_is_due(self, harness: Harness) -> None:
        store = await harness.make()
        await harness.submit(store, delay=10, priority=100)
        due = await harness.submit(store)
        assert [claim.run.id for claim in await take(store, await harness.worker(store))] == [due.id]

    async def test_a_claim_says_when_the_next_run_of_its_agents_is_due(self, harness: Harness) -> None:
        store = await harness.make()
        worker_id = await harness.worker(store)
        await harness.submit(store, delay=20)
        soonest = await harness.submit(store, delay=10)
        await harness.submit(store, delay=5, agent="report")
        assert await self._next_due_at(store, worker_id) == soonest.life.available_at

    async def test_a_claim_says_nothing_of_a_next_run_when_none_waits(self, harness: Harness) -> None:
        store = await harness.make()
        worker_id = await harness.worker(store)
        await harness.started(store)
        await harness.ended(store, Held("diverged", by="replay"))
        await harness.ended(store, Succeeded(Payload("1")))
        assert await self._next_due_at(store, worker_id) is None

    async def test_a_held_run_is_not_taken(self, harness: Harness) -> None:
        store = await harness.make()
        run = await harness.ended(store, Held("diverged", by="replay"))
        assert run.life.shown == "diverged"
        harness.clock.advance(3600)
        assert await take(store, await harness.worker(store)) == []

    async def test_an_ended_run_is_not_taken(self, harness: Harness) -> None:
        store = await harness.make()
        run = await harness.ended(store, Succeeded(Payload("1")))
        harness.clock.advance(3600)
        assert await take(store, await harness.worker(store), only=(run.id,)) == []

    async def test_a_parked_run_goes_on_with_its_attempt_when_it_wakes(self, harness: Harness) -> None:
        store = await harness.make()
        worker_id = await harness.worker(store)
        wake_at = harness.clock.now() + 10 * SECOND
        run = await harness.ended(store, Parked(wake_at, "[]"))
        assert (run.life.status, run.life.worker) == ("waiting", None)
        assert await self._next_due_at(store, worker_id) == wake_at
        harness.clock.advance(10)
        [claim] = await take(store, worker_id)
        assert (claim.run.life.attempt, claim.lease.fence) == (1, 2)
        assert loads(claim.journal[-1].data) == {"fence": 2, "worker": worker_id, "cause": "woken"}

    async def test_a_run_that_is_handed_back_goes_on_at_once_with_its_attempt(self, harness: Harness) -> None:
        store = await harness.make()
        worker_id = await harness.worker(store)
        await harness.ended(store, HandedBack())
        [claim] = await take(store, worker_id)
        assert (claim.run.life.attempt, claim.lease.fence) == (1, 2)
        assert loads(claim.journal[-1].data) == {"fence": 2, "worker": worker_id, "cause": "queued"}

    async def test_a_retried_run_starts_its_next_attempt_after_the_backoff(self, harness: Harness) -> None:
        store = await harness.make()
        worker_id = await harness.worker(store)
        again_at = harness.clock.now() + 10 * SECOND
        run = await harness.ended(store, Retrying(ErrorInfo("agent.error", "no luck"), again_at))
        assert (run.life.status, run.life.errors, run.life.reason) == ("queued", 1, "agent.error")
        assert await take(store, worker_id) == []
        harness.clock.advance(10)
        [claim] = await take(store, worker_id)
        assert claim.run.life.attempt == 2
        assert claim.journal[-1].kind == "run.started"

    async def test_a_run_is_taken_again_and_again_and_each_time_with_a_higher_fence(self, harness: Harness) -> None:
        store = await harness.make()
        worker_id = await harness.worker(store)
        await harness.submit(store)
        fences = []
        for _ in range(5):
            [claim] = await take(store, worker_id)
            fences.append(claim.lease.fence)
            await store.commit(claim.lease, Commit(1, outcome=HandedBack()))
        assert fences == [1, 2, 3, 4, 5]

    async def _next_due_at(self, store: Store, worker_id: str) -> int | None:
        return (await store.claim(ClaimRequest(worker_id, 10, (AGENT,)))).next_due_at
