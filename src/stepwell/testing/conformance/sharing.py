"""What a store that several processes share must do beyond the rest: tell the others, within a poll at the latest.

Every other contract already looks at such a store through two views.
"""

from __future__ import annotations

from stepwell.domain.commit import Commit
from stepwell.domain.outcome import Payload, Succeeded
from stepwell.ports.notifier import CONTROL, QUEUE
from stepwell.testing.conformance.harness import Harness, append, kinds, take

_LONG = 10.0


class SharingContract:
    """Two processes on one store. For stores whose capabilities say `shared`."""

    async def test_two_views_are_two_stores(self, harness: Harness) -> None:
        one, other = await harness.views()
        assert one is not other
        assert harness.capabilities.shared

    async def test_a_commit_wakes_who_listens_elsewhere(self, harness: Harness) -> None:
        one, other = await harness.views()
        lease = await harness.started(one)
        with other.notifier.listen(lease.run_id) as listener:
            await append(one, lease, 1, "news")
            while len(await other.journal(lease.run_id)) < 3:
                assert await listener.wait(_LONG)

    async def test_a_submission_wakes_a_worker_elsewhere(self, harness: Harness) -> None:
        one, other = await harness.views()
        worker_id = await harness.worker(other)
        with other.notifier.listen(QUEUE) as listener:
            await harness.submit(one)
            while not await take(other, worker_id):
                assert await listener.wait(_LONG)

    async def test_an_arrival_wakes_a_worker_elsewhere(self, harness: Harness) -> None:
        one, other = await harness.views()
        run = await harness.parked(one, harness.signal_wait("go"))
        worker_id = await harness.worker(other)
        with other.notifier.listen(QUEUE) as listener:
            await one.signal(run.id, harness.signal("go"))
            while not await take(other, worker_id):
                assert await listener.wait(_LONG)

    async def test_an_arrival_wakes_the_holder_elsewhere(self, harness: Harness) -> None:
        one, other = await harness.views()
        lease = await harness.started(other)
        with other.notifier.listen(lease.run_id) as listener:
            await one.signal(lease.run_id, harness.signal("go"))
            while len(await other.journal(lease.run_id)) < 3:
                assert await listener.wait(_LONG)

    async def test_a_request_wakes_the_holder_elsewhere(self, harness: Harness) -> None:
        one, other = await harness.views()
        lease = await harness.started(other)
        with other.notifier.listen(CONTROL) as listener:
            await one.cancel(lease.run_id, by="ann")
            while not await other.controls(lease.worker):
                assert await listener.wait(_LONG)

    async def test_a_store_that_closes_gives_up_its_workers(self, harness: Harness) -> None:
        one, other = await harness.views()
        lease = await harness.started(one)
        await one.close()
        [claim] = await take(other, await harness.worker(other))
        assert (claim.run.id, claim.run.life.lost) == (lease.run_id, 1)

    async def test_a_store_that_closes_keeps_what_it_accepted(self, harness: Harness) -> None:
        one, other = await harness.views()
        lease = await harness.started(one)
        await one.commit(lease, Commit(1, outcome=Succeeded(Payload("1"))))
        await one.close()
        assert (await kinds(other, lease.run_id))[-1] == "run.succeeded"
