"""What `Store.claim` must do with runs whose worker is gone: with proof at once, else when the lease has run out."""

from __future__ import annotations

import pytest

from stepwell.domain.commit import Commit
from stepwell.domain.outcome import HandedBack
from stepwell.domain.run import MAX_CONSECUTIVE_LOSSES, MAX_LOSSES_AND_EXPIRIES
from stepwell.domain.values import loads
from stepwell.ports.store import RunQuery
from stepwell.testing.conformance.harness import (
    LEASE,
    MINUTE,
    SECOND,
    Harness,
    append,
    beat,
    events,
    kinds,
    stored,
    take,
    take_over,
)


class LossContract:
    """Runs come back from workers that died or fell silent."""

    async def test_the_run_of_a_dead_worker_is_taken_at_once_as_a_new_attempt(self, harness: Harness) -> None:
        one, other = await harness.views()
        lease = await harness.started(one)
        one.abandon_worker(lease.worker)
        [claim] = await take_over(other, await harness.worker(other))
        life = claim.run.life
        assert (life.attempt, life.fence, life.lost, life.losses, life.expiries) == (2, 2, 1, 1, 0)
        assert [entry.kind for entry in claim.journal[-2:]] == ["run.lost", "run.started"]
        assert loads(claim.journal[-2].data) == {"attempt": 1, "worker": lease.worker, "losses": 1}

    async def test_the_run_of_a_worker_that_lives_is_not_taken(self, harness: Harness) -> None:
        one, other = await harness.views()
        lease = await harness.started(one)
        before = await stored(one, lease.run_id)
        harness.clock.advance(LEASE - 1)
        assert await take(other, await harness.worker(other)) == []
        assert await stored(one, lease.run_id) == before

    async def test_without_proof_a_run_is_taken_when_its_lease_has_run_out_and_goes_on(self, harness: Harness) -> None:
        one, other = await harness.views()
        lease = await harness.started(one)
        harness.clock.advance(LEASE + 1)
        worker_id = await harness.worker(other)
        [claim] = await take(other, worker_id)
        life = claim.run.life
        assert (life.attempt, life.fence, life.lost, life.losses, life.expiries) == (1, 2, 0, 0, 1)
        assert claim.lease.run_id == lease.run_id
        assert loads(claim.journal[-1].data) == {"fence": 2, "worker": worker_id, "cause": "lease_expired"}

    async def test_a_jump_of_the_wall_clock_takes_no_lease_away(self, harness: Harness) -> None:
        one, other = await harness.views()
        await harness.started(one)
        harness.clock.jump(86_400)
        assert await take(other, await harness.worker(other)) == []
        harness.clock.jump(-2 * 86_400)
        assert await take(other, await harness.worker(other)) == []

    async def test_a_wall_clock_that_goes_back_prolongs_no_lease(self, harness: Harness) -> None:
        store = await harness.make()
        lease = await harness.started(store)
        harness.clock.jump(-86_400)
        harness.clock.advance(LEASE + 1)
        assert [claim.run.id for claim in await take(store, await harness.worker(store))] == [lease.run_id]

    async def test_a_run_that_loses_three_workers_in_a_row_is_dead(self, harness: Harness) -> None:
        store = await harness.make()
        run = await harness.submit(store)
        for _ in range(MAX_CONSECUTIVE_LOSSES):
            worker_id = await harness.worker(store)
            [claim] = await take(store, worker_id)
            store.abandon_worker(worker_id)
        assert await take(store, await harness.worker(store)) == []
        life = (await store.get(run.id)).life
        assert (life.status, life.dead, life.reason) == ("failed", 1, "run.lost")
        assert life.fence == claim.lease.fence + 1
        assert (await kinds(store, run.id))[-2:] == ["run.lost", "run.failed"]
        assert [found.id for found in await store.find(RunQuery(dead=True))] == [run.id]

    async def test_a_commit_in_between_begins_the_row_of_losses_anew(self, harness: Harness) -> None:
        store = await harness.make()
        await harness.submit(store)
        for _ in range(2 * MAX_CONSECUTIVE_LOSSES):
            worker_id = await harness.worker(store)
            [claim] = await take(store, worker_id)
            await append(store, claim.lease, 1, "progress")
            store.abandon_worker(worker_id)
        [claim] = await take(store, await harness.worker(store))
        assert (claim.run.life.losses, claim.run.life.lost) == (1, 2 * MAX_CONSECUTIVE_LOSSES)

    async def test_twenty_losses_and_expiries_in_all_are_too_many(self, harness: Harness) -> None:
        store = await harness.make()
        run = await harness.submit(store)
        for number in range(MAX_LOSSES_AND_EXPIRIES):
            worker_id = await harness.worker(store)
            [claim] = await take(store, worker_id)
            await append(store, claim.lease, 1, "progress")
            if number % 2:
                store.abandon_worker(worker_id)
            else:
                harness.clock.advance(LEASE + 1)
        assert await take(store, await harness.worker(store)) == []
        life = (await store.get(run.id)).life
        assert (life.status, life.dead, life.lost + life.expiries) == ("failed", 1, MAX_LOSSES_AND_EXPIRIES)

    async def test_lost_runs_come_before_due_ones(self, harness: Harness) -> None:
        store = await harness.make()
        await harness.submit(store, priority=100)
        lease = await harness.started(store, priority=-100)
        store.abandon_worker(lease.worker)
        [claim] = await take(store, await harness.worker(store), limit=1)
        assert claim.run.id == lease.run_id

    async def test_a_lost_run_is_taken_only_by_a_claim_that_wants_it(self, harness: Harness) -> None:
        store = await harness.make()
        lease, other = await harness.started(store), await harness.submit(store)
        store.abandon_worker(lease.worker)
        worker_id = await harness.worker(store)
        assert await take(store, worker_id, agents=("report",)) == []
        assert [claim.run.id for claim in await take(store, worker_id, only=(other.id,))] == [other.id]
        assert [claim.run.id for claim in await take(store, worker_id)] == [lease.run_id]

    async def test_what_a_dead_worker_held_is_taken_within_the_limit(self, harness: Harness) -> None:
        store = await harness.make()
        for _ in range(5):
            await harness.submit(store)
        dead, heir = await harness.worker(store), await harness.worker(store)
        held = {claim.run.id for claim in await take(store, dead)}
        store.abandon_worker(dead)
        first, rest = await take_over(store, heir, limit=2), await take(store, heir)
        assert (len(first), len(rest)) == (2, 3)
        assert {claim.run.id for claim in first + rest} == held

    @pytest.mark.parametrize("only", [True, False], ids=["named", "any"])
    @pytest.mark.parametrize("limit", [1, 2])
    async def test_the_claim_of_a_lost_run_brings_the_whole_journal(
        self, harness: Harness, limit: int, only: bool
    ) -> None:
        store = await harness.make()
        lease = await harness.started(store)
        store.abandon_worker(lease.worker)
        worker_id = await harness.worker(store)
        [claim] = await take_over(store, worker_id, limit=limit, only=(lease.run_id,) if only else None)
        assert claim.journal == await events(store, lease.run_id)
        assert len(claim.journal) == claim.run.life.seq == 4

    async def test_a_worker_that_closes_leaves_its_runs_to_be_taken_at_once(self, harness: Harness) -> None:
        one, other = await harness.views()
        lease = await harness.started(one)
        before = await stored(one, lease.run_id)
        await one.close_worker(lease.worker)
        assert (await stored(other, lease.run_id))[1] == before[1]
        [claim] = await take(other, await harness.worker(other))
        life = claim.run.life
        assert (life.attempt, life.lost, life.expiries) == (1, 0, 1)

    async def test_a_lease_that_has_run_out_counts_until_somebody_takes_the_run(self, harness: Harness) -> None:
        store = await harness.make()
        lease = await harness.started(store)
        harness.clock.advance(LEASE + 1)
        await append(store, lease, 1, "late, but nobody else came")
        assert list((await beat(store, lease.worker)).held) == [lease.run_id]
        assert await take(store, await harness.worker(store)) == []

    async def test_a_run_that_was_given_back_is_not_lost_with_its_former_worker(self, harness: Harness) -> None:
        store = await harness.make()
        lease = await harness.started(store)
        await store.commit(lease, Commit(1, outcome=HandedBack()))
        store.abandon_worker(lease.worker)
        [claim] = await take(store, await harness.worker(store))
        assert (claim.run.life.lost, claim.run.life.attempt) == (0, 1)


class ChargingContract:
    """A run is charged for the time that its workers measured, and for nothing else."""

    async def test_a_lost_lease_is_charged_with_what_its_last_write_said(self, harness: Harness) -> None:
        store = await harness.make()
        lease = await harness.started(store)
        await store.commit(lease, Commit(1, leased=5 * SECOND))
        await store.commit(lease, Commit(2, leased=7 * SECOND))
        harness.clock.advance(LEASE + 1)
        [claim] = await take(store, await harness.worker(store))
        assert (claim.run.life.leased, claim.run.life.held) == (7 * SECOND, 0)

    async def test_a_lease_that_is_given_back_is_charged_once(self, harness: Harness) -> None:
        store = await harness.make()
        lease = await harness.started(store)
        await store.commit(lease, Commit(1, leased=5 * SECOND))
        assert (await store.get(lease.run_id)).life.held == 5 * SECOND
        await store.commit(lease, Commit(2, outcome=HandedBack(), leased=6 * SECOND))
        life = (await store.get(lease.run_id)).life
        assert (life.leased, life.held) == (6 * SECOND, 0)

    async def test_charges_add_up_over_lost_and_given_leases(self, harness: Harness) -> None:
        store = await harness.make()
        lease = await harness.started(store)
        await store.commit(lease, Commit(1, leased=5 * SECOND))
        store.abandon_worker(lease.worker)
        [claim] = await take_over(store, await harness.worker(store))
        await store.commit(claim.lease, Commit(1, leased=SECOND))
        await store.close_worker(claim.lease.worker)
        [claim] = await take(store, await harness.worker(store))
        await store.commit(claim.lease, Commit(1, outcome=HandedBack(), leased=2 * SECOND))
        assert (await store.get(lease.run_id)).life.leased == 8 * SECOND

    async def test_a_lease_without_a_write_is_charged_nothing(self, harness: Harness) -> None:
        store = await harness.make()
        lease = await harness.started(store)
        harness.clock.advance(LEASE + 1)
        [claim] = await take(store, await harness.worker(store))
        assert (claim.run.id, claim.run.life.leased) == (lease.run_id, 0)

    @pytest.mark.parametrize("jump", [86_400, -86_400])
    @pytest.mark.parametrize("proven", [True, False], ids=["dead", "silent"])
    async def test_a_wall_clock_that_jumps_before_a_loss_charges_nothing(
        self, harness: Harness, proven: bool, jump: int
    ) -> None:
        store = await harness.make()
        lease = await harness.started(store, timeout=MINUTE)
        await append(store, lease, 1, "at work")
        harness.clock.jump(jump)
        if proven:
            store.abandon_worker(lease.worker)
        else:
            harness.clock.advance(LEASE + 1)
        [claim] = await take_over(store, await harness.worker(store))
        assert (claim.run.life.status, claim.run.life.leased) == ("running", 0)
        await store.commit(claim.lease, Commit(1, outcome=HandedBack()))
        assert [again.run.id for again in await take(store, await harness.worker(store))] == [lease.run_id]

    async def test_a_run_that_is_ended_at_its_deadline_is_charged_with_what_its_holder_told(
        self, harness: Harness
    ) -> None:
        store = await harness.make()
        lease = await harness.started(store, deadline=harness.clock.now() + 10 * SECOND)
        await store.commit(lease, Commit(1, leased=5 * SECOND))
        harness.clock.advance(10)
        await take(store, await harness.worker(store))
        life = (await store.get(lease.run_id)).life
        assert (life.status, life.leased, life.held) == ("timed_out", 5 * SECOND, 0)

    async def test_lost_time_uses_up_the_timeout_like_any_other(self, harness: Harness) -> None:
        store = await harness.make()
        lease = await harness.started(store, timeout=MINUTE)
        await store.commit(lease, Commit(1, leased=MINUTE))
        await store.pause(lease.run_id, by="ann")
        harness.clock.advance(LEASE + 1)
        worker_id = await harness.worker(store)
        assert await take(store, worker_id) == []
        assert await take(store, worker_id) == []
        assert (await store.get(lease.run_id)).life.status == "timed_out"
