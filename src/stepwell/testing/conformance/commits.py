"""What `Store.commit` must do: one atomic write for whoever holds the lease, and none for anybody else."""

from __future__ import annotations

import asyncio
from typing import Final, NamedTuple

import pytest

from stepwell.domain.commit import Commit
from stepwell.domain.errors import LeaseLost
from stepwell.domain.event import Draft
from stepwell.domain.outcome import (
    Cancelled,
    ErrorInfo,
    Exhausted,
    Failed,
    HandedBack,
    Held,
    Outcome,
    Parked,
    Payload,
    Retrying,
    Succeeded,
    TimedOut,
)
from stepwell.domain.run import Lease
from stepwell.domain.values import loads
from stepwell.ports.store import Control, RunQuery
from stepwell.testing.clock import START
from stepwell.testing.conformance.harness import (
    LEASE,
    SECOND,
    Harness,
    append,
    events,
    kinds,
    note,
    stored,
    take,
    take_over,
)

_ERROR = ErrorInfo("agent.error", "no luck", type="ValueError")
_LATER = START + 3600 * SECOND


class Ending(NamedTuple):
    """An outcome, the status that people see after it, and the event that tells it."""

    outcome: Outcome
    status: str
    kind: str


ENDINGS: Final = {
    "returned": Ending(Succeeded(Payload('{"n":1}')), "succeeded", "run.succeeded"),
    "raised": Ending(Failed(_ERROR), "failed", "run.failed"),
    "raised for the last time": Ending(Failed(_ERROR, dead=True), "failed", "run.failed"),
    "raised, again later": Ending(Retrying(_ERROR, _LATER), "queued", "run.retrying"),
    "parked": Ending(Parked(_LATER, '[{"type":"time"}]'), "waiting", "run.waiting"),
    "handed back": Ending(HandedBack(), "queued", "run.handed_back"),
    "diverged": Ending(Held("diverged", by="replay", detail='{"position":3}'), "diverged", "run.held"),
    "in doubt": Ending(Held("in_doubt", by="step", detail='{"step":"pay"}'), "in_doubt", "run.held"),
    "took too long": Ending(TimedOut("timeout"), "timed_out", "run.timed_out"),
    "used up a limit": Ending(Exhausted("steps", '{"limit":"steps","used":100}'), "exhausted", "run.exhausted"),
    "cancelled": Ending(Cancelled(by="ann", reason="not needed"), "cancelled", "run.cancelled"),
}
every_ending = pytest.mark.parametrize("ending", ENDINGS.values(), ids=ENDINGS)


class CommitContract:
    """Facts and outcomes are written."""

    async def test_facts_are_kept_as_they_were_given(self, harness: Harness) -> None:
        one, other = await harness.views()
        lease = await harness.started(one)
        harness.clock.advance(1)
        drafts = (
            Draft("step.completed", '{"name":"fetch","result":[1,2.50,"ä"],"ms":3}', step="0/1"),
            Draft("custom.note", '{"b":1,"a":2}', step="0/2", node="collect"),
        )
        answer = await one.commit(lease, Commit(1, drafts))
        assert answer == (4, Control())
        entries = (await events(other, lease.run_id))[2:]
        assert [(entry.kind, entry.data, entry.step, entry.node) for entry in entries] == list(drafts)
        assert {entry.at for entry in entries} == {harness.clock.now()}
        assert (await other.get(lease.run_id)).life.seq == 4

    @every_ending
    async def test_an_outcome_is_stored_with_its_facts(self, harness: Harness, ending: Ending) -> None:
        one, other = await harness.views()
        lease = await harness.started(one)
        answer = await one.commit(lease, Commit(1, (note("last words"),), ending.outcome))
        life = (await other.get(lease.run_id)).life
        assert life.shown == ending.status
        assert life.worker is None
        assert (await kinds(other, lease.run_id))[2:] == ["custom.note", ending.kind]
        assert life.seq == answer.seq == 4

    async def test_an_outcome_and_all_its_facts_are_written_together(self, harness: Harness) -> None:
        store = await harness.make()
        lease = await harness.started(store)
        await store.commit(lease, Commit(1, (note("one"), note("two")), HandedBack()))
        assert await kinds(store, lease.run_id) == [
            "run.queued",
            "run.started",
            "custom.note",
            "custom.note",
            "run.handed_back",
        ]

    async def test_a_failure_tells_its_error_and_whether_the_run_is_dead(self, harness: Harness) -> None:
        store = await harness.make()
        runs = {dead: (await harness.ended(store, Failed(_ERROR, dead=dead))).id for dead in (False, True)}
        for dead, run_id in runs.items():
            data = loads((await events(store, run_id))[-1].data)
            assert data == {"error": loads(_ERROR.text()), "dead": dead}
            assert [run.id for run in await store.find(RunQuery(dead=dead))] == [run_id]

    async def test_one_commit_holds_many_facts(self, harness: Harness) -> None:
        store = await harness.make()
        lease = await harness.started(store)
        texts = [f"fact {n}" for n in range(500)]
        assert (await append(store, lease, 1, *texts)).seq == 502
        notes = (await events(store, lease.run_id))[2:]
        assert [loads(entry.data) for entry in notes] == [{"text": text} for text in texts]

    async def test_the_same_number_twice_is_written_once(self, harness: Harness) -> None:
        store = await harness.make()
        lease = await harness.started(store)
        first = await append(store, lease, 1, "once")
        before = await stored(store, lease.run_id)
        again = await append(store, lease, 1, "once")
        assert again == first
        assert (await stored(store, lease.run_id))[1] == before[1]

    async def test_the_same_number_twice_is_written_once_when_both_race(self, harness: Harness) -> None:
        store = await harness.make()
        lease = await harness.started(store)
        answers = await asyncio.gather(*(append(store, lease, 1, "once") for _ in range(5)))
        assert {answer.seq for answer in answers} == {3}
        assert (await kinds(store, lease.run_id))[2:] == ["custom.note"]

    @every_ending
    async def test_an_outcome_that_had_landed_is_acknowledged_again(self, harness: Harness, ending: Ending) -> None:
        store = await harness.make()
        lease = await harness.started(store)
        write = Commit(1, (note("last words"),), ending.outcome)
        first = await store.commit(lease, write)
        before = await stored(store, lease.run_id)
        assert await store.commit(lease, write) == first
        assert await stored(store, lease.run_id) == before
        assert before[0].life.shown == ending.status

    async def test_numbers_begin_anew_with_each_lease(self, harness: Harness) -> None:
        store = await harness.make()
        lease = await harness.started(store)
        await append(store, lease, 1, "first lease")
        await store.commit(lease, Commit(2, outcome=HandedBack()))
        [claim] = await take(store, await harness.worker(store))
        await append(store, claim.lease, 1, "second lease")
        assert (await kinds(store, lease.run_id)).count("custom.note") == 2


class FenceContract:
    """Whoever lost the lease changes nothing."""

    @every_ending
    async def test_an_old_fence_ends_nothing(self, harness: Harness, ending: Ending) -> None:
        one, other = await harness.views()
        lease = await harness.started(one)
        harness.clock.advance(LEASE + 1)
        assert await take(other, await harness.worker(other))
        before = await stored(other, lease.run_id)
        with pytest.raises(LeaseLost):
            await one.commit(lease, Commit(1, (note("from the past"),), ending.outcome))
        assert await stored(other, lease.run_id) == before

    async def test_an_old_fence_appends_nothing(self, harness: Harness) -> None:
        one, other = await harness.views()
        lease = await harness.started(one)
        one.abandon_worker(lease.worker)
        [claim] = await take_over(other, await harness.worker(other))
        before = await stored(other, lease.run_id)
        with pytest.raises(LeaseLost):
            await append(one, lease, 1, "from the past")
        assert await stored(one, lease.run_id) == before
        await append(other, claim.lease, 1, "from the present")

    @every_ending
    async def test_nothing_is_written_for_a_run_that_was_given_back_or_has_ended(
        self, harness: Harness, ending: Ending
    ) -> None:
        store = await harness.make()
        lease = await harness.started(store)
        await store.commit(lease, Commit(1, outcome=ending.outcome))
        before = await stored(store, lease.run_id)
        for write in (Commit(2, (note("after the end"),)), Commit(2, outcome=Succeeded(Payload("2")))):
            with pytest.raises(LeaseLost):
                await store.commit(lease, write)
        assert await stored(store, lease.run_id) == before

    @pytest.mark.parametrize("fence", [0, 2, 1_000_000])
    async def test_a_fence_that_was_never_given_is_refused(self, harness: Harness, fence: int) -> None:
        store = await harness.make()
        lease = await harness.started(store)
        with pytest.raises(LeaseLost):
            await append(store, lease._replace(fence=fence), 1, "forged")
        assert len(await events(store, lease.run_id)) == 2

    async def test_a_run_that_nobody_took_accepts_no_write(self, harness: Harness) -> None:
        store = await harness.make()
        run = await harness.submit(store)
        with pytest.raises(LeaseLost):
            await append(store, Lease(run.id, 0, await harness.worker(store)), 1, "uninvited")
        assert await kinds(store, run.id) == ["run.queued"]


class BatchContract:
    """Writes that meet in one transaction keep their order and do not disturb each other."""

    async def test_many_runs_written_at_once_are_numbered_without_gaps(self, harness: Harness) -> None:
        views = await harness.views()
        leases = [await harness.started(views[n % 2]) for n in range(20)]
        await asyncio.gather(
            *(
                append(views[n % 2], lease, number, f"{n} {number}", "and one more")
                for number in range(1, 11)
                for n, lease in enumerate(leases)
            )
        )
        for n, lease in enumerate(leases):
            notes = [loads(entry.data) for entry in (await events(views[0], lease.run_id))[2:]]
            assert notes[::2] == [{"text": f"{n} {number}"} for number in range(1, 11)]
            assert len(notes) == 20

    async def test_writes_of_one_lease_are_applied_in_the_order_of_the_calls(self, harness: Harness) -> None:
        store = await harness.make()
        lease = await harness.started(store)
        answers = await asyncio.gather(*(append(store, lease, number, str(number)) for number in range(1, 51)))
        assert [answer.seq for answer in answers] == list(range(3, 53))
        notes = [loads(entry.data) for entry in (await events(store, lease.run_id))[2:]]
        assert notes == [{"text": str(number)} for number in range(1, 51)]

    async def test_a_refused_write_harms_none_beside_it(self, harness: Harness) -> None:
        store = await harness.make()
        leases = [await harness.started(store) for _ in range(5)]
        stale = leases[2]._replace(fence=0)
        calls = [append(store, lease, 1, "mine") for lease in (*leases[:2], stale, *leases[2:])]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert [isinstance(answer, LeaseLost) for answer in answers] == [False, False, True, False, False, False]
        assert [(await kinds(store, lease.run_id))[2:] for lease in leases] == [["custom.note"]] * 5

    async def test_a_write_that_follows_the_outcome_in_one_batch_is_refused_alone(self, harness: Harness) -> None:
        store = await harness.make()
        lease, other = await harness.started(store), await harness.started(store)
        answers = await asyncio.gather(
            append(store, lease, 1, "before the end"),
            store.commit(lease, Commit(2, outcome=Succeeded(Payload("1")))),
            append(store, lease, 3, "after the end"),
            append(store, other, 1, "elsewhere"),
            return_exceptions=True,
        )
        assert [isinstance(answer, LeaseLost) for answer in answers] == [False, False, True, False]
        assert (await kinds(store, lease.run_id))[2:] == ["custom.note", "run.succeeded"]
        assert (await kinds(store, other.run_id))[2:] == ["custom.note"]

    async def test_submissions_claims_and_commits_at_once_do_not_disturb_each_other(self, harness: Harness) -> None:
        one, other = await harness.views()
        lease, worker_id = await harness.started(one), await harness.worker(other)
        waiting = await harness.submit(one)
        submitted, claims, committed = await asyncio.gather(
            harness.submit(one, delay=60), take(other, worker_id), append(one, lease, 1, "mine")
        )
        assert [claim.run.id for claim in claims] == [waiting.id]
        assert committed.seq == 3
        assert await kinds(other, submitted.id) == ["run.queued"]
