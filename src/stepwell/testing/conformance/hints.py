"""What a store must do for waiters: wake those who listen. A hint may be lost elsewhere, but not inside one process."""

from __future__ import annotations

import asyncio

import pytest

from stepwell.domain.commit import Commit
from stepwell.domain.outcome import HandedBack, Held, Payload, Succeeded
from stepwell.domain.run import Lease
from stepwell.ports.notifier import CONTROL, QUEUE, Listener
from stepwell.ports.store import Store
from stepwell.testing.conformance.children import family
from stepwell.testing.conformance.harness import MINUTE, Harness, append, take

_LONG = 10.0
"""Seconds to wait for a hint that must come: no test waits that long unless it fails."""


class HintContract:
    """Listeners are woken."""

    async def test_a_commit_wakes_who_listens_to_the_run(self, harness: Harness) -> None:
        store = await harness.make()
        lease = await harness.started(store)
        with store.notifier.listen(lease.run_id) as listener:
            await self._quiet(listener)
            await append(store, lease, 1, "news")
            assert await listener.wait(_LONG)

    async def test_an_end_wakes_who_listens_to_the_run(self, harness: Harness) -> None:
        store = await harness.make()
        lease = await harness.started(store)
        with store.notifier.listen(lease.run_id) as listener:
            await self._quiet(listener)
            await store.commit(lease, Commit(1, outcome=Succeeded(Payload("1"))))
            assert await listener.wait(_LONG)

    async def test_an_end_that_a_claim_finds_wakes_who_listens_to_the_run(self, harness: Harness) -> None:
        store = await harness.make()
        run = await harness.submit(store, deadline=harness.clock.now() + MINUTE)
        worker_id = await harness.worker(store)
        with store.notifier.listen(run.id) as listener:
            await self._quiet(listener)
            harness.clock.advance(60)
            await take(store, worker_id)
            assert await listener.wait(_LONG)

    async def test_a_submission_wakes_who_listens_to_the_queue(self, harness: Harness) -> None:
        store = await harness.make()
        with store.notifier.listen(QUEUE) as listener:
            await self._quiet(listener)
            await harness.submit(store)
            assert await listener.wait(_LONG)

    async def test_a_run_that_is_given_back_wakes_who_listens_to_the_queue(self, harness: Harness) -> None:
        store = await harness.make()
        lease = await harness.started(store)
        with store.notifier.listen(QUEUE) as listener:
            await self._quiet(listener)
            await store.commit(lease, Commit(1, outcome=HandedBack()))
            assert await listener.wait(_LONG)

    async def test_a_resumed_run_wakes_who_listens_to_the_queue_and_to_it(self, harness: Harness) -> None:
        store = await harness.make()
        run = await harness.ended(store, Held("diverged", by="replay"))
        with store.notifier.listen(QUEUE) as queue, store.notifier.listen(run.id) as listener:
            await self._quiet(queue)
            await self._quiet(listener)
            await store.resume(run.id, at_seq=run.life.seq, by="ann")
            assert await queue.wait(_LONG)
            assert await listener.wait(_LONG)

    async def test_an_arrival_wakes_who_listens_to_the_run_and_to_the_queue(self, harness: Harness) -> None:
        store = await harness.make()
        question = harness.question()
        signalled = await harness.parked(store, harness.signal_wait("go"))
        asked = await harness.parked(store, question)
        for run_id, arrival in (
            (signalled.id, lambda: store.signal(signalled.id, harness.signal("go"))),
            (asked.id, lambda: store.answer(question.id, Payload("true"), by="ann")),
        ):
            with store.notifier.listen(QUEUE) as queue, store.notifier.listen(run_id) as listener:
                await self._quiet(queue)
                await self._quiet(listener)
                await arrival()
                assert await queue.wait(_LONG)
                assert await listener.wait(_LONG)

    async def test_an_arrival_wakes_who_listens_to_a_running_run(self, harness: Harness) -> None:
        store = await harness.make()
        lease = await harness.started(store)
        with store.notifier.listen(lease.run_id) as listener:
            await self._quiet(listener)
            await store.signal(lease.run_id, harness.signal("go"))
            assert await listener.wait(_LONG)

    async def test_the_end_of_a_child_wakes_who_listens_to_its_parent_and_to_the_queue(self, harness: Harness) -> None:
        store = await harness.make()
        lease, [child] = await family(harness, store, waits=True)
        [claim] = await take(store, await harness.worker(store))
        await harness.park(store, lease, number=2)
        with store.notifier.listen(QUEUE) as queue, store.notifier.listen(lease.run_id) as listener:
            await self._quiet(queue)
            await self._quiet(listener)
            await store.commit(claim.lease, Commit(1, outcome=Succeeded(Payload("1"))))
            assert await queue.wait(_LONG)
            assert await listener.wait(_LONG)
        assert child.id == claim.run.id

    async def test_a_child_wakes_who_listens_to_the_queue(self, harness: Harness) -> None:
        store = await harness.make()
        lease = await harness.started(store)
        child = harness.child_of(await store.get(lease.run_id))
        with store.notifier.listen(QUEUE) as listener:
            await self._quiet(listener)
            await store.commit(lease, Commit(1, submits=(child,)))
            assert await listener.wait(_LONG)

    async def test_an_end_wakes_who_listens_to_a_child_that_goes_with_it(self, harness: Harness) -> None:
        store = await harness.make()
        lease, [child] = await family(harness, store)
        with store.notifier.listen(child.id) as listener:
            await self._quiet(listener)
            await store.cancel(lease.run_id, by="ann")
            await store.commit(lease, Commit(2, outcome=Succeeded(Payload("1"))))
            assert await listener.wait(_LONG)

    @pytest.mark.parametrize("verb", ["cancel", "pause"])
    async def test_a_request_to_a_running_run_wakes_who_listens_for_controls(self, harness: Harness, verb: str) -> None:
        store = await harness.make()
        lease = await harness.started(store)
        with store.notifier.listen(CONTROL) as listener:
            await self._quiet(listener)
            await getattr(store, verb)(lease.run_id, by="ann")
            assert await listener.wait(_LONG)
            assert list(await store.controls(lease.worker)) == [lease.run_id]

    async def test_an_end_that_asks_running_children_to_end_wakes_who_listens_for_controls(
        self, harness: Harness
    ) -> None:
        store = await harness.make()
        lease, [child] = await family(harness, store)
        [claim] = await take(store, await harness.worker(store))
        with store.notifier.listen(CONTROL) as listener:
            await self._quiet(listener)
            await store.commit(lease, Commit(2, outcome=Succeeded(Payload("1"))))
            assert await listener.wait(_LONG)
        assert list(await store.controls(claim.lease.worker)) == [child.id]

    async def test_nothing_is_missed_between_reading_and_waiting(self, harness: Harness) -> None:
        store = await harness.make()
        lease = await harness.started(store)
        with store.notifier.listen(lease.run_id) as listener:
            for number in range(1, 20):
                seen = len(await store.journal(lease.run_id))
                await append(store, lease, number, "in between")
                assert await listener.wait(_LONG)
                assert len(await store.journal(lease.run_id)) == seen + 1

    async def test_all_who_listen_are_woken(self, harness: Harness) -> None:
        store = await harness.make()
        lease = await harness.started(store)
        with store.notifier.listen(lease.run_id) as one, store.notifier.listen(lease.run_id) as other:
            await append(store, lease, 1, "news")
            assert await one.wait(_LONG)
            assert await other.wait(_LONG)

    async def test_a_reader_that_waits_and_reads_sees_everything(self, harness: Harness) -> None:
        store = await harness.make()
        lease = await harness.started(store)
        with store.notifier.listen(lease.run_id) as listener:
            writing = asyncio.create_task(self._write(store, lease, 20))
            while len(await store.journal(lease.run_id)) < 22:
                assert await listener.wait(_LONG)
            await writing

    async def _write(self, store: Store, lease: Lease, notes: int) -> None:
        for number in range(1, notes + 1):
            await append(store, lease, number, "news")

    async def _quiet(self, listener: Listener) -> None:
        """Forget the hints of what happened before."""
        await listener.wait(0)
