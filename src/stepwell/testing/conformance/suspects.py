"""What `Store.claim` must do with runs that were lost again and again: give them alone, or not, as the worker asks."""

from __future__ import annotations

import asyncio

from stepwell.domain.commit import Commit
from stepwell.domain.outcome import HandedBack
from stepwell.domain.run import RunRecord
from stepwell.ports.store import ClaimRequest, Claims, Store, Suspects
from stepwell.testing.conformance.harness import AGENT, LEASE, Harness, append, take, take_over


class SuspectContract:
    """Who may have killed two workers is executed alone."""

    async def test_a_worker_that_skips_suspects_leaves_them_and_learns_of_them(self, harness: Harness) -> None:
        store = await harness.make()
        await self._suspect(harness, store)
        free = await harness.submit(store)
        claims = await self._claim(harness, store, "skip")
        assert [claim.run.id for claim in claims.taken] == [free.id]
        assert claims.suspects

    async def test_a_run_that_was_just_lost_for_the_second_time_is_a_suspect(self, harness: Harness) -> None:
        store = await harness.make()
        run, worker_id = await self._lost_once(harness, store)
        await take_over(store, worker_id)
        store.abandon_worker(worker_id)
        heir = await harness.worker(store)
        claims = await self._until_lost(store, heir, "skip")
        assert claims.taken == []
        assert claims.suspects
        assert (await store.get(run.id)).life.worker == worker_id
        claims = await self._until_lost(store, heir, "alone")
        assert [claim.run.life.losses for claim in claims.taken] == [2]

    async def test_a_suspect_that_was_paused_and_resumed_is_one_still(self, harness: Harness) -> None:
        store = await harness.make()
        run, worker_id = await self._lost_once(harness, store)
        await take_over(store, worker_id)
        await store.pause(run.id, by="ann")
        store.abandon_worker(worker_id)
        heir = await harness.worker(store)
        async with asyncio.timeout(10):
            while (held := await store.get(run.id)).life.hold is None:
                await take(store, heir)
                await asyncio.sleep(0.01)  # a proof of death is found by asking again
        await store.resume(run.id, at_seq=held.life.seq, by="ann")
        free = await harness.submit(store, priority=-100)
        skipped = await self._claim(harness, store, "skip")
        assert [claim.run.id for claim in skipped.taken] == [free.id]
        assert skipped.suspects
        alone = await self._claim(harness, store, "alone")
        assert [claim.run.id for claim in alone.taken] == [run.id]

    async def test_a_worker_that_takes_one_alone_takes_nothing_else(self, harness: Harness) -> None:
        store = await harness.make()
        first, second = await self._suspect(harness, store), await self._suspect(harness, store)
        free = await harness.submit(store, priority=100)
        claims = await self._claim(harness, store, "alone")
        assert len(claims.taken) == 1
        assert claims.taken[0].run.id in (first.id, second.id)
        assert claims.suspects
        claims = await self._claim(harness, store, "alone")
        assert {first.id, second.id} >= {claim.run.id for claim in claims.taken}
        assert not claims.suspects
        claims = await self._claim(harness, store, "alone")
        assert [claim.run.id for claim in claims.taken] == [free.id]

    async def test_a_worker_that_finds_no_suspect_takes_what_there_is(self, harness: Harness) -> None:
        store = await harness.make()
        runs = {(await harness.submit(store)).id for _ in range(3)}
        claims = await self._claim(harness, store, "alone")
        assert {claim.run.id for claim in claims.taken} == runs
        assert not claims.suspects

    async def test_to_a_worker_that_takes_any_it_makes_no_difference(self, harness: Harness) -> None:
        store = await harness.make()
        suspect, free = await self._suspect(harness, store), await harness.submit(store)
        claims = await self._claim(harness, store, "any")
        assert {claim.run.id for claim in claims.taken} == {suspect.id, free.id}
        assert not claims.suspects

    async def test_a_run_that_was_lost_once_is_no_suspect(self, harness: Harness) -> None:
        store = await harness.make()
        run, worker_id = await self._lost_once(harness, store)
        claims = await self._until_lost(store, worker_id, "skip")
        assert [claim.run.id for claim in claims.taken] == [run.id]
        assert not claims.suspects

    async def test_progress_clears_a_suspect(self, harness: Harness) -> None:
        store = await harness.make()
        suspect = await self._suspect(harness, store)
        [claim] = (await self._claim(harness, store, "alone")).taken
        await append(store, claim.lease, 1, "progress")
        await store.commit(claim.lease, Commit(2, outcome=HandedBack()))
        claims = await self._claim(harness, store, "skip")
        assert [claim.run.id for claim in claims.taken] == [suspect.id]
        assert not claims.suspects

    async def test_leases_that_ran_out_make_no_suspect(self, harness: Harness) -> None:
        store = await harness.make()
        run = await harness.submit(store)
        for _ in range(4):
            await take(store, await harness.worker(store))
            harness.clock.advance(LEASE + 1)
        claims = await self._claim(harness, store, "skip")
        assert [claim.run.id for claim in claims.taken] == [run.id]

    async def test_suspects_that_a_worker_does_not_serve_do_not_concern_it(self, harness: Harness) -> None:
        store = await harness.make()
        await self._suspect(harness, store, agent="report")
        free = await harness.submit(store)
        claims = await self._claim(harness, store, "alone")
        assert [claim.run.id for claim in claims.taken] == [free.id]
        assert not claims.suspects

    async def test_a_suspect_is_skipped_among_named_runs_too(self, harness: Harness) -> None:
        store = await harness.make()
        suspect, free = await self._suspect(harness, store), await harness.submit(store)
        worker_id = await harness.worker(store)
        named = (suspect.id, free.id)
        claims = await store.claim(ClaimRequest(worker_id, 10, (AGENT,), named, suspects="skip"))
        assert [claim.run.id for claim in claims.taken] == [free.id]
        assert claims.suspects
        claims = await store.claim(ClaimRequest(worker_id, 10, (AGENT,), named, suspects="alone"))
        assert [claim.run.id for claim in claims.taken] == [suspect.id]

    async def _claim(self, harness: Harness, store: Store, suspects: Suspects) -> Claims:
        return await store.claim(ClaimRequest(await harness.worker(store), 10, (AGENT,), suspects=suspects))

    async def _until_lost(self, store: Store, worker_id: str, suspects: Suspects) -> Claims:
        """Claim until the death of whoever held the run is proven: something is taken or left because of it."""
        async with asyncio.timeout(10):
            while True:
                claims = await store.claim(ClaimRequest(worker_id, 10, (AGENT,), suspects=suspects))
                if claims.taken or claims.suspects:
                    return claims
                await asyncio.sleep(0.01)

    async def _lost_once(self, harness: Harness, store: Store) -> tuple[RunRecord, str]:
        """A run whose worker died, and a worker that could take it."""
        run = await harness.submit(store)
        worker_id = await harness.worker(store)
        await take(store, worker_id, only=(run.id,))
        store.abandon_worker(worker_id)
        return run, await harness.worker(store)

    async def _suspect(self, harness: Harness, store: Store, *, agent: str = AGENT) -> RunRecord:
        """A run that lost two workers in a row and waits to be taken."""
        run = await harness.submit(store, agent=agent)
        for last in (False, False, True):
            worker_id = await harness.worker(store)
            async with asyncio.timeout(10):
                while not await take(store, worker_id, agents=(agent,), only=(run.id,)):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)  # a proof of death is found by asking again
            if last:
                await store.close_worker(worker_id)
            else:
                store.abandon_worker(worker_id)
        return run
