"""What `Store.claim` must do with runs past a limit: end them, whoever serves them and whatever they wait for."""

from __future__ import annotations

import pytest

from stepwell.domain.commit import Commit
from stepwell.domain.errors import LeaseLost
from stepwell.domain.outcome import HandedBack, Held, Parked, Payload, Succeeded
from stepwell.domain.values import loads
from stepwell.ports.store import Store
from stepwell.testing.conformance.harness import HOUR, MINUTE, SECOND, Harness, append, events, stored, take


class LimitContract:
    """Runs that take too long end as `timed_out`."""

    async def test_a_run_past_its_deadline_is_ended_and_not_given(self, harness: Harness) -> None:
        store = await harness.make()
        run = await harness.submit(store, deadline=harness.clock.now() + MINUTE)
        harness.clock.advance(59)
        assert await self._ended(harness, store, run.id) is None
        harness.clock.advance(1)
        assert await take(store, await harness.worker(store)) == []
        assert await self._ended(harness, store, run.id) == "deadline"

    async def test_it_is_ended_by_workers_that_serve_other_agents(self, harness: Harness) -> None:
        store = await harness.make()
        run = await harness.submit(store, deadline=harness.clock.now() + MINUTE)
        harness.clock.advance(60)
        assert await self._ended(harness, store, run.id) == "deadline"

    async def test_it_is_ended_also_when_it_is_not_due_yet(self, harness: Harness) -> None:
        store = await harness.make()
        run = await harness.submit(store, delay=3600, deadline=harness.clock.now() + MINUTE)
        harness.clock.advance(60)
        assert await self._ended(harness, store, run.id) == "deadline"

    @pytest.mark.parametrize("why", ["diverged", "in_doubt", "paused"])
    async def test_it_is_ended_also_when_it_is_held(self, harness: Harness, why: str) -> None:
        store = await harness.make()
        run = await harness.ended(store, Held(why, by="somebody"), deadline=harness.clock.now() + MINUTE)
        harness.clock.advance(60)
        assert await self._ended(harness, store, run.id) == "deadline"
        assert (await store.get(run.id)).life.hold is None

    async def test_it_is_ended_also_when_it_waits(self, harness: Harness) -> None:
        store = await harness.make()
        parked = Parked(harness.clock.now() + HOUR, "[]")
        run = await harness.ended(store, parked, deadline=harness.clock.now() + MINUTE)
        harness.clock.advance(60)
        assert await self._ended(harness, store, run.id) == "deadline"

    async def test_it_is_ended_also_when_it_is_running_and_its_worker_learns_it(self, harness: Harness) -> None:
        store = await harness.make()
        lease = await harness.started(store, deadline=harness.clock.now() + 10 * SECOND)
        harness.clock.advance(10)
        assert await self._ended(harness, store, lease.run_id) == "deadline"
        assert (await store.get(lease.run_id)).life.fence == lease.fence + 1
        with pytest.raises(LeaseLost):
            await append(store, lease, 1, "too late")

    async def test_a_run_whose_leased_time_is_used_up_is_ended(self, harness: Harness) -> None:
        store = await harness.make()
        lease = await harness.started(store, timeout=MINUTE)
        await store.commit(lease, Commit(1, outcome=HandedBack(), leased=MINUTE))
        assert await self._ended(harness, store, lease.run_id) == "timeout"

    async def test_leased_time_adds_up_over_attempts(self, harness: Harness) -> None:
        store = await harness.make()
        worker_id = await harness.worker(store)
        run = await harness.submit(store, timeout=MINUTE)
        for _ in range(2):
            [claim] = await take(store, worker_id)
            await store.commit(claim.lease, Commit(1, outcome=HandedBack(), leased=MINUTE // 2))
        assert await self._ended(harness, store, run.id) == "timeout"

    async def test_time_in_the_queue_is_not_leased_time(self, harness: Harness) -> None:
        store = await harness.make()
        lease = await harness.started(store, timeout=MINUTE)
        await store.commit(lease, Commit(1, outcome=HandedBack(), leased=MINUTE - 1))
        harness.clock.advance(3600)
        assert await self._ended(harness, store, lease.run_id) is None
        assert [claim.run.id for claim in await take(store, await harness.worker(store))] == [lease.run_id]

    async def test_an_ended_run_keeps_its_status_when_its_deadline_passes(self, harness: Harness) -> None:
        store = await harness.make()
        run = await harness.ended(store, Succeeded(Payload("1")), deadline=harness.clock.now() + MINUTE)
        before = await stored(store, run.id)
        harness.clock.advance(61)
        assert await self._ended(harness, store, run.id) is None
        assert await stored(store, run.id) == before

    async def _ended(self, harness: Harness, store: Store, run_id: str) -> str | None:
        """The limit by which a claim for another agent ends the run, and nothing when it does not end."""
        await take(store, await harness.worker(store), agents=("somebody_else",))
        life = (await store.get(run_id)).life
        if life.status != "timed_out":
            return None
        last = (await events(store, run_id))[-1]
        assert last.kind == "run.timed_out"
        assert loads(last.data) == {"limit": life.reason}
        assert life.ended_at == last.at
        return life.reason
