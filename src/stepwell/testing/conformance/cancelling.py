"""What `Store.cancel`, `controls` and `discard` must do: ask for an end, tell who holds the run, and clear the dead."""

from __future__ import annotations

import asyncio
from typing import Final, NamedTuple

import pytest

from stepwell.domain.commit import Commit
from stepwell.domain.errors import Conflict, LeaseLost, NotFound
from stepwell.domain.outcome import (
    NEVER,
    Cancelled,
    ErrorInfo,
    Failed,
    HandedBack,
    Held,
    Outcome,
    Parked,
    Payload,
    Retrying,
    Succeeded,
)
from stepwell.domain.run import CLEANING_UP, Lease, RunRecord
from stepwell.domain.values import loads
from stepwell.ports.store import RunQuery, Store
from stepwell.testing.clock import START
from stepwell.testing.conformance.harness import (
    HOUR,
    LEASE,
    Harness,
    append,
    beat,
    events,
    is_due,
    kinds,
    note,
    stored,
    take,
    take_over,
)

_ERROR = ErrorInfo("agent.error", "no luck")
_LATER = START + HOUR


class Stand(NamedTuple):
    """Where a run stands: how its first attempt stopped (`None`: it never started), and how long it was delayed."""

    outcome: Outcome | None
    delay: float = 0


STANDS: Final = {
    "queued": Stand(None),
    "delayed": Stand(None, delay=60),
    "waiting for a time": Stand(Parked(_LATER, "[]")),
    "waiting for an arrival": Stand(Parked(NEVER, "[]")),
    "handed back": Stand(HandedBack()),
    "backing off": Stand(Retrying(_ERROR, _LATER)),
    "paused": Stand(Held("paused", by="ann")),
    "diverged": Stand(Held("diverged", by="replay")),
    "in doubt": Stand(Held("in_doubt", by="step")),
}
every_stand = pytest.mark.parametrize("stand", STANDS.values(), ids=STANDS)
started = pytest.mark.parametrize(
    "stand", [stand for stand in STANDS.values() if stand.outcome], ids=[n for n, s in STANDS.items() if s.outcome]
)
ended = pytest.mark.parametrize(
    "outcome",
    [Succeeded(Payload("1")), Failed(_ERROR, dead=True), Cancelled(by="ann")],
    ids=lambda outcome: type(outcome).__name__,
)

letting_go = pytest.mark.parametrize(
    "outcome",
    [Parked(NEVER, "[]"), HandedBack(), Retrying(_ERROR, _LATER), Held("paused", by="pause"), Failed(_ERROR)],
    ids=lambda outcome: type(outcome).__name__,
)


class CancelContract:
    """Runs are asked to end."""

    @every_stand
    async def test_a_run_that_nobody_executes_is_cancelled_at_once(self, harness: Harness, stand: Stand) -> None:
        one, other = await harness.views()
        run = await _standing(harness, one, stand)
        assert await other.cancel(run.id, by="ann", reason="not needed") == "cancelled"
        life = (await one.get(run.id)).life
        assert (life.status, life.hold, life.ended_at) == ("cancelled", None, harness.clock.now())
        assert (life.seq, life.fence) == (run.life.seq + 1, run.life.fence + 1)
        last = (await events(one, run.id))[-1]
        assert (last.kind, loads(last.data)) == ("run.cancelled", {"by": "ann", "reason": "not needed"})
        harness.clock.advance(7200)
        assert await take(one, await harness.worker(one)) == []

    @started
    async def test_a_run_that_cleans_up_is_queued_for_it_at_once(self, harness: Harness, stand: Stand) -> None:
        store = await harness.make()
        run = await _standing(harness, store, stand, hooked=1)
        assert await store.cancel(run.id, by="ann") == "cancelling"
        life = (await store.get(run.id)).life
        assert (life.status, life.hold, life.cancelling) == ("queued", None, 1)
        assert (await kinds(store, run.id))[-1] == "run.cancelling"
        [claim] = await take(store, await harness.worker(store))
        assert (claim.run.life.cancelling, claim.run.life.attempt) == (CLEANING_UP, 1)
        await store.commit(claim.lease, Commit(1, outcome=Cancelled(by="ann")))
        assert (await store.get(run.id)).life.status == "cancelled"

    @pytest.mark.parametrize("stand", [STANDS["queued"], STANDS["delayed"]], ids=["queued", "delayed"])
    async def test_a_run_that_never_started_has_nothing_to_clean_up(self, harness: Harness, stand: Stand) -> None:
        store = await harness.make()
        run = await _standing(harness, store, stand, hooked=1)
        assert await store.cancel(run.id, by="ann") == "cancelled"

    @pytest.mark.parametrize("hooked", [0, 1])
    async def test_a_run_in_somebodys_hands_is_asked_to_end(self, harness: Harness, hooked: int) -> None:
        one, other = await harness.views()
        lease = await harness.started(one, hooked=hooked)
        assert await other.cancel(lease.run_id, by="ann", reason="not needed") == "cancelling"
        life = (await one.get(lease.run_id)).life
        assert (life.status, life.cancelling, life.fence) == ("running", 1, lease.fence)
        last = (await events(one, lease.run_id))[-1]
        assert (last.kind, loads(last.data)) == ("run.cancelling", {"by": "ann", "reason": "not needed"})
        assert (await append(one, lease, 1, "goes on")).control == (True, False)

    @letting_go
    async def test_who_had_not_heard_of_it_leaves_the_clean_up_to_the_next(
        self, harness: Harness, outcome: Outcome
    ) -> None:
        one, other = await harness.views()
        lease = await harness.started(one, hooked=1)
        assert await other.cancel(lease.run_id, by="ann", reason="not needed") == "cancelling"
        await one.commit(lease, Commit(1, (note("the last step"),), outcome=outcome))
        life = (await other.get(lease.run_id)).life
        assert (life.status, life.hold, life.cancelling, life.worker) == ("queued", None, 1, None)
        assert (await kinds(one, lease.run_id))[-1] == "run.handed_back"
        [claim] = await take(other, await harness.worker(other))
        assert (claim.run.life.cancelling, claim.run.life.attempt) == (CLEANING_UP, 1)
        await other.commit(claim.lease, Commit(1, outcome=Cancelled(by="ann", reason="not needed")))
        assert (await one.get(lease.run_id)).life.status == "cancelled"

    @letting_go
    async def test_who_took_it_for_the_clean_up_has_the_last_word(self, harness: Harness, outcome: Outcome) -> None:
        store = await harness.make()
        run = await _standing(harness, store, STANDS["waiting for a time"], hooked=1)
        assert await store.cancel(run.id, by="ann") == "cancelling"
        [claim] = await take(store, await harness.worker(store))
        await store.commit(claim.lease, Commit(1, outcome=outcome))
        untouched = isinstance(outcome, HandedBack)
        life = (await store.get(run.id)).life
        assert (life.status, life.cancelling) == (("queued", 1) if untouched else ("cancelled", 0))

    @letting_go
    async def test_without_a_clean_up_whatever_stops_the_attempt_ends_the_run(
        self, harness: Harness, outcome: Outcome
    ) -> None:
        store = await harness.make()
        lease = await harness.started(store)
        assert await store.cancel(lease.run_id, by="ann") == "cancelling"
        await store.commit(lease, Commit(1, outcome=outcome))
        assert (await store.get(lease.run_id)).life.status == "cancelled"

    @ended
    async def test_an_ended_run_stays_as_it_is(self, harness: Harness, outcome: Outcome) -> None:
        store = await harness.make()
        run = await harness.ended(store, outcome)
        before = await stored(store, run.id)
        assert await store.cancel(run.id, by="ann") == "already_ended"
        assert await stored(store, run.id) == before

    async def test_who_asks_again_is_told_the_same_and_changes_nothing(self, harness: Harness) -> None:
        store = await harness.make()
        lease = await harness.started(store)
        parked = await _standing(harness, store, STANDS["waiting for a time"], hooked=1)
        for run_id in (lease.run_id, parked.id):
            assert await store.cancel(run_id, by="ann") == "cancelling"
            before = await stored(store, run_id)
            assert await store.cancel(run_id, by="bob") == "cancelling"
            assert await stored(store, run_id) == before

    async def test_of_many_who_ask_at_once_one_ends_the_run(self, harness: Harness) -> None:
        views = await harness.views()
        run = await harness.submit(views[0])
        answers = await asyncio.gather(*(views[n % 2].cancel(run.id, by="ann") for n in range(10)))
        assert sorted(answers) == [*["already_ended"] * 9, "cancelled"]
        assert await kinds(views[0], run.id) == ["run.queued", "run.cancelled"]

    @pytest.mark.parametrize(
        "outcome",
        [Failed(_ERROR), Retrying(_ERROR, _LATER), Parked(_LATER, "[]"), HandedBack(), Held("diverged", by="replay")],
        ids=lambda outcome: type(outcome).__name__,
    )
    async def test_a_cancel_wins_over_all_but_a_return(self, harness: Harness, outcome: Outcome) -> None:
        store = await harness.make()
        lease, other = await harness.started(store), await harness.started(store)
        for each in (lease, other):
            await store.cancel(each.run_id, by="ann")
        await store.commit(lease, Commit(1, outcome=outcome))
        await store.commit(other, Commit(1, outcome=Succeeded(Payload("1"))))
        assert (await store.get(lease.run_id)).life.status == "cancelled"
        assert (await store.get(other.run_id)).life.status == "succeeded"

    async def test_a_run_that_was_asked_to_end_does_not_go_on_when_its_worker_is_lost(self, harness: Harness) -> None:
        store = await harness.make()
        dead, silent = await harness.started(store), await harness.started(store)
        for lease in (dead, silent):
            await store.cancel(lease.run_id, by="ann")
        store.abandon_worker(dead.worker)
        harness.clock.advance(LEASE + 1)
        assert await take(store, await harness.worker(store)) == []
        for lease in (dead, silent):
            assert (await store.get(lease.run_id)).life.status == "cancelled"
            with pytest.raises(LeaseLost):
                await append(store, lease, 1, "too late")

    async def test_a_run_of_another_tenant_is_not_found(self, harness: Harness) -> None:
        store = await harness.make()
        run = await harness.submit(store, tenant="acme")
        for tenant in ("", "other"):
            with pytest.raises(NotFound) as refused:
                await store.cancel(run.id, by="ann", tenant=tenant)
            assert refused.value.code == "run.unknown"
        with pytest.raises(NotFound):
            await store.cancel("run_0000000000000000000000000z", by="ann")
        assert await store.cancel(run.id, by="ann", tenant="acme") == "cancelled"


class ControlContract:
    """Workers learn what was asked of their runs."""

    async def test_a_worker_is_told_which_of_its_runs_were_asked_for_what(self, harness: Harness) -> None:
        one, other = await harness.views()
        worker_id = await harness.worker(one)
        leases = await self._held(harness, one, worker_id, runs=4)
        assert await one.controls(worker_id) == {}
        await other.cancel(leases[0].run_id, by="ann")
        await other.pause(leases[1].run_id, by="ann")
        await other.pause(leases[2].run_id, by="ann")
        await other.cancel(leases[2].run_id, by="ann")
        expected = {
            leases[0].run_id: (1, (True, False)),
            leases[1].run_id: (1, (False, True)),
            leases[2].run_id: (1, (True, False)),
        }
        assert await one.controls(worker_id) == expected
        assert (await beat(one, worker_id)).held == expected | {leases[3].run_id: (1, (False, False))}

    async def test_a_worker_is_not_told_of_the_runs_of_others(self, harness: Harness) -> None:
        one, other = await harness.views()
        lease = await harness.started(one)
        await one.cancel(lease.run_id, by="ann")
        assert await other.controls(await harness.worker(other)) == {}
        assert list(await other.controls(lease.worker)) == [lease.run_id]

    async def test_what_was_given_back_or_lost_is_not_told_any_more(self, harness: Harness) -> None:
        store = await harness.make()
        lease, lost = await harness.started(store), await harness.started(store)
        await store.pause(lease.run_id, by="ann")
        await store.commit(lease, Commit(1, outcome=HandedBack()))
        await store.pause(lost.run_id, by="ann")
        harness.clock.advance(LEASE + 1)
        await take(store, await harness.worker(store))
        assert await store.controls(lease.worker) == {}
        assert await store.controls(lost.worker) == {}

    async def test_a_run_taken_for_its_clean_up_is_told_as_cancelling(self, harness: Harness) -> None:
        store = await harness.make()
        run = await _standing(harness, store, STANDS["waiting for a time"], hooked=1)
        await store.cancel(run.id, by="ann")
        worker_id = await harness.worker(store)
        assert await is_due(store, worker_id, run.id)
        assert await store.controls(worker_id) == {run.id: (2, (True, False))}

    async def test_every_answer_to_the_holder_says_what_was_asked(self, harness: Harness) -> None:
        store = await harness.make()
        lease = await harness.started(store)
        assert (await append(store, lease, 1, "a")).control == (False, False)
        await store.pause(lease.run_id, by="ann")
        assert (await append(store, lease, 2, "b")).control == (False, True)
        await store.cancel(lease.run_id, by="ann")
        assert (await append(store, lease, 3, "c")).control == (True, False)

    async def _held(self, harness: Harness, store: Store, worker_id: str, *, runs: int) -> list[Lease]:
        for _ in range(runs):
            await harness.submit(store)
        return [claim.lease for claim in await take(store, worker_id, limit=runs)]


class DiscardContract:
    """Dead runs are taken off their list."""

    async def test_a_dead_run_is_taken_off_the_list_and_stays_failed(self, harness: Harness) -> None:
        one, other = await harness.views()
        run = await harness.ended(one, Failed(_ERROR, dead=True))
        assert [found.id for found in await one.find(RunQuery(dead=True))] == [run.id]
        harness.clock.advance(1)
        discarded = await other.discard(run.id, by="ann")
        assert await one.get(run.id) == discarded
        assert (discarded.life.status, discarded.life.dead, discarded.life.ended_at) == ("failed", 0, run.life.ended_at)
        last = (await events(one, run.id))[-1]
        assert (last.kind, loads(last.data)) == ("run.discarded", {"by": "ann"})
        assert await one.find(RunQuery(dead=True)) == []

    async def test_a_run_that_died_of_its_losses_is_taken_off_too(self, harness: Harness) -> None:
        store = await harness.make()
        run = await harness.submit(store)
        for _ in range(3):
            worker_id = await harness.worker(store)
            await take_over(store, worker_id)
            store.abandon_worker(worker_id)
        heir = await harness.worker(store)
        async with asyncio.timeout(10):
            while not (await store.get(run.id)).life.dead:
                await take(store, heir)
                await asyncio.sleep(0.01)  # a proof of death is found by asking again
        assert (await store.discard(run.id, by="ann")).life.dead == 0

    async def test_what_is_not_dead_is_refused(self, harness: Harness) -> None:
        store = await harness.make()
        runs = [
            await harness.submit(store),
            await harness.ended(store, Succeeded(Payload("1"))),
            await harness.ended(store, Failed(_ERROR)),
        ]
        dead = await harness.ended(store, Failed(_ERROR, dead=True))
        runs.append(await store.discard(dead.id, by="ann"))
        for run in runs:
            before = await stored(store, run.id)
            with pytest.raises(Conflict) as refused:
                await store.discard(run.id, by="ann")
            assert refused.value.code == "run.not_dead"
            assert await stored(store, run.id) == before

    async def test_a_run_of_another_tenant_is_not_found(self, harness: Harness) -> None:
        store = await harness.make()
        dead = await harness.ended(store, Failed(_ERROR, dead=True), tenant="acme")
        with pytest.raises(NotFound):
            await store.discard(dead.id, by="ann")
        assert (await store.discard(dead.id, by="ann", tenant="acme")).life.dead == 0


async def _standing(harness: Harness, store: Store, stand: Stand, *, hooked: int = 0) -> RunRecord:
    """A run that stands there."""
    if stand.outcome is None:
        return await harness.submit(store, delay=stand.delay, hooked=hooked)
    return await harness.ended(store, stand.outcome, hooked=hooked)
