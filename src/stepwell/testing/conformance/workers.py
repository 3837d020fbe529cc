"""What a store must do for workers: know who is there, extend what they hold, and tell them what they lost."""

from __future__ import annotations

import asyncio

import pytest

from stepwell.domain.commit import Commit
from stepwell.domain.errors import Conflict
from stepwell.domain.outcome import HandedBack, Outcome, Parked, Payload, Succeeded
from stepwell.domain.run import Lease
from stepwell.ports.store import Control, Store, WorkerInfo
from stepwell.testing.conformance.harness import LEASE, SECOND, Harness, append, beat, events, take


class WorkerContract:
    """Workers come, beat and go."""

    async def test_a_worker_is_listed_with_what_it_said_of_itself(self, harness: Harness) -> None:
        one, other = await harness.views()
        info = WorkerInfo("wrk_a", host="build-7", pid=4711, capacity=3, started_at=harness.clock.now())
        await one.open_worker(info, lease_seconds=LEASE)
        [listed] = await other.workers()
        assert (listed.id, listed.host, listed.pid, listed.capacity) == ("wrk_a", "build-7", 4711, 3)
        assert listed.started_at == info.started_at
        assert listed.running == 0

    async def test_the_list_counts_the_runs_that_a_worker_holds(self, harness: Harness) -> None:
        store = await harness.make()
        worker_id = await harness.worker(store)
        for _ in range(3):
            await harness.submit(store)
        first, *_ = await take(store, worker_id)
        assert [info.running for info in await store.workers()] == [3]
        await store.commit(first.lease, Commit(1, outcome=HandedBack()))
        assert [info.running for info in await store.workers()] == [2]

    async def test_the_list_begins_with_the_oldest(self, harness: Harness) -> None:
        one, other = await harness.views()
        expected = []
        for n in range(4):
            expected.append(await harness.worker((one, other)[n % 2]))
            harness.clock.advance(1)
        assert [info.id for info in await one.workers()] == expected

    async def test_the_list_says_when_a_worker_was_last_heard(self, harness: Harness) -> None:
        one, other = await harness.views()
        worker_id = await harness.worker(one)
        harness.clock.advance(7)
        await beat(one, worker_id)
        harness.clock.advance(7)
        [listed] = await other.workers()
        assert listed.heartbeat_at == harness.clock.now() - 7 * SECOND

    async def test_a_worker_that_closed_or_died_is_not_listed(self, harness: Harness) -> None:
        one, other = await harness.views()
        closed, dead, alive = [await harness.worker(one) for _ in range(3)]
        await one.close_worker(closed)
        one.abandon_worker(dead)
        assert [info.id for info in await other.workers()] == [alive]

    async def test_a_worker_registers_once(self, harness: Harness) -> None:
        one, other = await harness.views()
        info = WorkerInfo("wrk_a", host="here", pid=1, capacity=1, started_at=harness.clock.now())
        await one.open_worker(info, lease_seconds=LEASE)
        with pytest.raises(Conflict) as refused:
            await other.open_worker(info, lease_seconds=LEASE)
        assert refused.value.code == "worker.exists"
        assert [listed.id for listed in await one.workers()] == ["wrk_a"]

    async def test_a_worker_may_close_twice(self, harness: Harness) -> None:
        store = await harness.make()
        worker_id = await harness.worker(store)
        await store.close_worker(worker_id)
        await store.close_worker(worker_id)
        assert await store.workers() == []

    async def test_a_heartbeat_extends_every_lease_of_its_worker(self, harness: Harness) -> None:
        one, other = await harness.views()
        beating, silent = await harness.worker(one), await harness.worker(one)
        for _ in range(3):
            await harness.submit(one)
        kept = await take(one, beating, limit=2)
        [lost] = await take(one, silent)
        for _ in range(4):
            harness.clock.advance(LEASE / 3)
            await beat(one, beating)
        taken = await take(other, await harness.worker(other))
        assert [claim.run.id for claim in taken] == [lost.run.id]
        for claim in kept:
            await append(one, claim.lease, 1, "still mine")

    async def test_a_heartbeat_lasts_as_long_as_it_says(self, harness: Harness) -> None:
        one, other = await harness.views()
        lease = await harness.started(one)
        await beat(one, lease.worker, lease_seconds=300)
        harness.clock.advance(299)
        heir = await harness.worker(other)
        assert await take(other, heir) == []
        harness.clock.advance(2)
        assert [claim.run.id for claim in await take(other, heir)] == [lease.run_id]

    async def test_a_heartbeat_of_one_worker_extends_no_other(self, harness: Harness) -> None:
        store = await harness.make()
        lease = await harness.started(store)
        other = await harness.worker(store)
        harness.clock.advance(LEASE - 1)
        await beat(store, other)
        harness.clock.advance(2)
        assert [claim.run.id for claim in await take(store, other)] == [lease.run_id]

    async def test_the_answer_names_exactly_what_the_worker_holds(self, harness: Harness) -> None:
        one, other = await harness.views()
        worker_id = await harness.worker(one)
        leases = await self._held(harness, one, worker_id, runs=6)
        assert (await beat(one, worker_id)).held == {lease.run_id: (1, Control()) for lease in leases}
        parked = Parked(harness.clock.now() + 3600 * SECOND, "[]")
        outcomes: list[Outcome] = [Succeeded(Payload("1")), HandedBack(), parked]
        for lease, outcome in zip(leases, outcomes, strict=False):
            await one.commit(lease, Commit(1, outcome=outcome))
        assert set((await beat(one, worker_id)).held) == {lease.run_id for lease in leases[3:]}
        assert (await beat(other, await harness.worker(other))).held == {}

    async def test_the_answer_leaves_out_what_another_worker_took(self, harness: Harness) -> None:
        one, other = await harness.views()
        worker_id = await harness.worker(one)
        lost, *kept = await self._held(harness, one, worker_id, runs=3)
        harness.clock.advance(LEASE + 1)
        heir = await harness.worker(other)
        [claim] = await take(other, heir, only=(lost.run_id,))
        assert set((await beat(one, worker_id)).held) == {lease.run_id for lease in kept}
        assert (await beat(other, heir)).held == {lost.run_id: (claim.lease.fence, Control())}

    async def test_a_run_that_comes_back_to_its_worker_is_held_with_the_new_fence(self, harness: Harness) -> None:
        store = await harness.make()
        worker_id = await harness.worker(store)
        [lease] = await self._held(harness, store, worker_id, runs=1)
        await store.commit(lease, Commit(1, outcome=HandedBack()))
        await take(store, worker_id)
        assert (await beat(store, worker_id)).held == {lease.run_id: (2, Control())}

    async def test_a_worker_that_closed_holds_nothing_that_a_heartbeat_could_extend(self, harness: Harness) -> None:
        one, other = await harness.views()
        lease = await harness.started(one)
        await one.close_worker(lease.worker)
        heir = await harness.worker(other)
        await beat(one, lease.worker)
        assert [claim.run.id for claim in await take(other, heir)] == [lease.run_id]
        assert lease.worker not in [info.id for info in await other.workers()]

    async def test_heartbeats_and_writes_at_the_same_time_do_not_disturb_each_other(self, harness: Harness) -> None:
        store = await harness.make()
        worker_id = await harness.worker(store)
        leases = await self._held(harness, store, worker_id, runs=10)
        writes = [append(store, lease, number, "x") for number in range(1, 6) for lease in leases]
        answers = await asyncio.gather(self._beat_often(store, worker_id), *writes)
        assert answers[0] == {frozenset(lease.run_id for lease in leases)}
        assert {len(await events(store, lease.run_id)) for lease in leases} == {7}

    async def _beat_often(self, store: Store, worker_id: str) -> set[frozenset[str]]:
        """All the different answers that twenty heartbeats in a row get."""
        return {frozenset((await beat(store, worker_id)).held) for _ in range(20)}

    async def _held(self, harness: Harness, store: Store, worker_id: str, *, runs: int) -> list[Lease]:
        """So many runs, in the hands of the worker."""
        for _ in range(runs):
            await harness.submit(store)
        return [claim.lease for claim in await take(store, worker_id, limit=runs)]
