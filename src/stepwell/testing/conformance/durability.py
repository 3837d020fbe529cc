"""What a durable store must do: hold everything that was acknowledged when it is opened again."""

from __future__ import annotations

import asyncio

from stepwell.domain.outcome import ErrorInfo, Held, Parked, Payload, Retrying, Succeeded
from stepwell.ports.store import RunQuery
from stepwell.testing.conformance.harness import SECOND, Harness, append, events, stored, take


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
