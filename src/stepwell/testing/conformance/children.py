"""What a store must do for runs that make others: children are made once, tell their parent once, and go with it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from stepwell.domain.commit import Commit
from stepwell.domain.errors import LeaseLost, NotFound
from stepwell.domain.outcome import NEVER, HandedBack, Held, Outcome, Parked, Payload, Succeeded
from stepwell.domain.run import MAX_CONSECUTIVE_LOSSES, Lease, RunRecord
from stepwell.domain.submission import Submission
from stepwell.domain.values import loads
from stepwell.ports.store import RunQuery, Store
from stepwell.testing.conformance.commits import ENDINGS, Ending
from stepwell.testing.conformance.harness import (
    HOUR,
    MINUTE,
    Harness,
    append,
    events,
    is_due,
    kinds,
    stored,
    take,
    take_over,
    told,
)

ENDS = {name: ending for name, ending in ENDINGS.items() if ending.status not in ("queued", "waiting")}
ENDS = {name: ending for name, ending in ENDS.items() if not isinstance(ending.outcome, Held)}
every_end = pytest.mark.parametrize("ending", ENDS.values(), ids=ENDS)
no_end = pytest.mark.parametrize(
    "outcome",
    [ending.outcome for name, ending in ENDINGS.items() if name not in ENDS],
    ids=[name for name in ENDINGS if name not in ENDS],
)


class ChildContract:
    """A run makes others in its own writes."""

    async def test_a_child_is_made_in_the_write_of_its_parent(self, harness: Harness) -> None:
        one, other = await harness.views()
        lease = await harness.started(one, session="ses_shared")
        parent = await one.get(lease.run_id)
        submission = harness.child_of(parent, agent="report", detached=1, hooked=1, origin="run_first")
        assert (await one.commit(lease, Commit(1, submits=(submission,)))).seq == 2
        child = await other.get(submission.id)
        assert (child.parent, child.parent_step, child.root, child.depth) == (parent.id, "0/1", parent.id, 1)
        assert (child.session, child.agent, child.detached, child.hooked) == ("ses_shared", "report", 1, 1)
        assert (child.origin, child.life.status) == ("run_first", "queued")
        [entry] = await events(other, child.id)
        data = loads(entry.data)
        assert isinstance(data, dict)
        assert (entry.kind, data["parent"], data["agent"]) == ("run.queued", parent.id, "report")

    async def test_a_child_is_executed_like_any_run(self, harness: Harness) -> None:
        store = await harness.make()
        lease, [child] = await family(harness, store)
        [claim] = await take(store, await harness.worker(store))
        assert claim.run.id == child.id
        assert claim.lease.run_id != lease.run_id

    async def test_a_child_that_exists_is_not_made_again(self, harness: Harness) -> None:
        store = await harness.make()
        lease, [child] = await family(harness, store)
        [claim] = await take(store, await harness.worker(store))
        await append(store, claim.lease, 1, "progress")
        before = await stored(store, child.id)
        await store.commit(lease, Commit(2, submits=(child._replace(agent="report"),)))
        assert await stored(store, child.id) == before
        assert len(await store.find(RunQuery(parent=lease.run_id))) == 1

    async def test_the_same_number_twice_makes_a_child_once(self, harness: Harness) -> None:
        store = await harness.make()
        lease = await harness.started(store)
        write = Commit(1, submits=(harness.child_of(await store.get(lease.run_id)),))
        assert await store.commit(lease, write) == await store.commit(lease, write)
        assert len(await store.find(RunQuery(parent=lease.run_id))) == 1

    async def test_one_who_lost_the_lease_makes_no_child(self, harness: Harness) -> None:
        store = await harness.make()
        lease = await harness.started(store)
        child = harness.child_of(await store.get(lease.run_id))
        await store.commit(lease, Commit(1, outcome=HandedBack()))
        with pytest.raises(LeaseLost):
            await store.commit(lease, Commit(2, submits=(child,)))
        with pytest.raises(NotFound):
            await store.get(child.id)

    async def test_children_are_listed_by_their_parent(self, harness: Harness) -> None:
        store = await harness.make()
        first, children = await family(harness, store, count=3)
        second, _ = await family(harness, store, count=2)
        listed = await store.find(RunQuery(parent=first.run_id))
        assert {run.id for run in listed} == {child.id for child in children}
        assert len(await store.find(RunQuery(parent=second.run_id))) == 2
        assert await store.find(RunQuery(parent=children[0].id)) == []

    async def test_a_child_may_have_children(self, harness: Harness) -> None:
        store = await harness.make()
        _, [child] = await family(harness, store)
        grandchild = harness.child_of(await store.get(child.id))
        await harness.finish(store, child.id, HandedBack(), submits=(grandchild,))
        run = await store.get(grandchild.id)
        assert (run.parent, run.root, run.depth) == (child.id, child.root, 2)


class ChildEndContract:
    """A parent learns once how each of its children ended."""

    @every_end
    async def test_a_parent_is_told_how_its_child_ended(self, harness: Harness, ending: Ending) -> None:
        one, other = await harness.views()
        lease, [child] = await family(harness, one)
        await harness.finish(other, child.id, ending.outcome)
        entry = (await events(one, lease.run_id))[-1]
        assert (entry.kind, entry.step) == ("child.ended", "0/1")
        end = loads((await events(one, child.id))[-1].data)
        assert isinstance(end, dict)
        assert loads(entry.data) == {"child": child.id, "status": ending.status} | end

    @no_end
    async def test_a_parent_is_not_told_of_a_child_that_has_not_ended(self, harness: Harness, outcome: Outcome) -> None:
        store = await harness.make()
        lease, [child] = await family(harness, store)
        before = await stored(store, lease.run_id)
        await harness.finish(store, child.id, outcome)
        assert await stored(store, lease.run_id) == before

    async def test_a_parent_that_waits_for_its_child_is_due_when_it_ends(self, harness: Harness) -> None:
        one, other = await harness.views()
        lease, [child] = await family(harness, one, waits=True)
        worker_id = await harness.worker(one)
        await harness.park(one, lease, number=2)
        assert not await is_due(one, worker_id, lease.run_id)
        await harness.finish(other, child.id, Succeeded(Payload('"done"')))
        assert await is_due(one, worker_id, lease.run_id)
        assert [data["output"] for data in await told(one, lease.run_id, "child.ended")] == ["done"]

    async def test_a_parent_that_does_not_wait_for_its_child_is_told_and_sleeps_on(self, harness: Harness) -> None:
        store = await harness.make()
        lease, [child] = await family(harness, store)
        await harness.park(store, lease, harness.signal_wait("go"), number=2)
        await harness.finish(store, child.id, Succeeded(Payload("1")))
        assert (await kinds(store, lease.run_id))[-1] == "child.ended"
        assert not await is_due(store, await harness.worker(store), lease.run_id)

    async def test_a_parent_is_told_once(self, harness: Harness) -> None:
        store = await harness.make()
        lease, [child] = await family(harness, store)
        [claim] = await take(store, await harness.worker(store))
        write = Commit(1, outcome=Succeeded(Payload("1")))
        assert await store.commit(claim.lease, write) == await store.commit(claim.lease, write)
        await store.cancel(child.id, by="ann")
        assert len(await told(store, lease.run_id, "child.ended")) == 1

    async def test_a_parent_that_has_ended_is_told_nothing(self, harness: Harness) -> None:
        store = await harness.make()
        lease, [child] = await family(harness, store, detached=1)
        await store.commit(lease, Commit(2, outcome=Succeeded(Payload("1"))))
        before = await stored(store, lease.run_id)
        await harness.finish(store, child.id, Succeeded(Payload("1")))
        assert await stored(store, lease.run_id) == before

    async def test_a_holder_is_not_disturbed_when_a_child_ends(self, harness: Harness) -> None:
        one, other = await harness.views()
        lease, [child] = await family(harness, one)
        await harness.finish(other, child.id, Succeeded(Payload("1")))
        assert (await append(one, lease, 2, "goes on")).seq == 4
        assert (await one.get(lease.run_id)).life.status == "running"

    async def test_a_held_parent_is_told_and_due_when_it_is_resumed(self, harness: Harness) -> None:
        store = await harness.make()
        lease, _ = await family(harness, store, waits=True)
        await harness.park(store, lease, number=2)
        [claim] = await take(store, await harness.worker(store))
        await store.pause(lease.run_id, by="ann")
        await store.commit(claim.lease, Commit(1, outcome=Succeeded(Payload("1"))))
        worker_id = await harness.worker(store)
        assert not await is_due(store, worker_id, lease.run_id)
        await store.resume(lease.run_id, at_seq=(await store.get(lease.run_id)).life.seq, by="ann")
        assert await is_due(store, worker_id, lease.run_id)

    async def test_a_parent_is_told_of_a_child_that_is_past_its_deadline(self, harness: Harness) -> None:
        store = await harness.make()
        lease, [child] = await family(harness, store, waits=True, deadline=harness.clock.now() + MINUTE)
        await harness.park(store, lease, number=2)
        harness.clock.advance(60)
        await take(store, await harness.worker(store), agents=("somebody_else",))
        [data] = await told(store, lease.run_id, "child.ended")
        assert data == {"child": child.id, "status": "timed_out", "limit": "deadline"}
        assert await is_due(store, await harness.worker(store), lease.run_id)

    async def test_a_parent_is_told_of_a_child_that_died_of_its_losses(self, harness: Harness) -> None:
        store = await harness.make()
        lease, [child] = await family(harness, store, waits=True)
        await harness.park(store, lease, number=2)
        for _ in range(MAX_CONSECUTIVE_LOSSES):
            worker_id = await harness.worker(store)
            await take_over(store, worker_id, only=(child.id,))
            store.abandon_worker(worker_id)
        [claim] = await take_over(store, await harness.worker(store))
        assert claim.run.id == lease.run_id
        [data] = await told(store, lease.run_id, "child.ended")
        assert (data["status"], data["dead"]) == ("failed", True)

    async def test_a_parent_is_told_of_a_child_that_is_cancelled(self, harness: Harness) -> None:
        store = await harness.make()
        lease, [child] = await family(harness, store, waits=True)
        await harness.park(store, lease, number=2)
        await store.cancel(child.id, by="ann", reason="not needed")
        [data] = await told(store, lease.run_id, "child.ended")
        assert data == {"child": child.id, "status": "cancelled", "by": "ann", "reason": "not needed"}
        assert await is_due(store, await harness.worker(store), lease.run_id)

    async def test_a_wait_for_a_child_that_has_ended_is_not_opened(self, harness: Harness) -> None:
        store = await harness.make()
        lease, [child] = await family(harness, store)
        await harness.finish(store, child.id, Succeeded(Payload("1")))
        wait = harness.child_wait(child.id, data="{}")
        before = await events(store, lease.run_id)
        await store.commit(lease, Commit(2, opens=(wait,)))
        assert await events(store, lease.run_id) == before

    async def test_a_run_does_not_sleep_over_a_child_that_has_ended(self, harness: Harness) -> None:
        store = await harness.make()
        lease, [child] = await family(harness, store)
        await harness.finish(store, child.id, Succeeded(Payload("1")))
        park = Parked(NEVER, "[]", 3)
        await store.commit(lease, Commit(2, outcome=park, opens=(harness.child_wait(child.id),)))
        assert await is_due(store, await harness.worker(store), lease.run_id)


class FanInContract:
    """A parent that waits for many children goes on when the last of them has ended."""

    async def test_a_thousand_children_wake_their_parent_once(self, harness: Harness) -> None:
        one, other = await harness.views()
        lease, children = await family(harness, one, count=1000, waits=True, join="0/1")
        await harness.park(one, lease, number=2)
        worker_id = await harness.worker(other)
        claims = await take(other, worker_id, limit=1000)
        done = Commit(1, outcome=Succeeded(Payload("1")))
        await asyncio.gather(*(other.commit(claim.lease, done) for claim in claims[1:]))
        assert (await one.get(lease.run_id)).life.available_at == NEVER
        assert await take(other, worker_id) == []
        await other.commit(claims[0].lease, done)
        assert [claim.run.id for claim in await take(other, worker_id)] == [lease.run_id]
        entries = await events(one, lease.run_id)
        ended = {loads(entry.data)["child"] for entry in entries if entry.kind == "child.ended"}  # type: ignore[index, call-overload]
        assert ended == {child.id for child in children}
        assert [entry.kind for entry in entries].count("run.resumed") == 1

    async def test_children_that_end_at_once_leave_their_parent_due(self, harness: Harness) -> None:
        views = await harness.views()
        lease, children = await family(harness, views[0], count=40, waits=True, join="0/1")
        await harness.park(views[0], lease, number=2)
        halves = [await take(view, await harness.worker(view), limit=20) for view in views]
        calls = [
            view.commit(claim.lease, Commit(1, outcome=Succeeded(Payload("1"))))
            for view, claims in zip(views, halves, strict=True)
            for claim in claims
        ]
        await asyncio.gather(*calls)
        assert len(await told(views[0], lease.run_id, "child.ended")) == len(children)
        assert await is_due(views[0], await harness.worker(views[0]), lease.run_id)

    async def test_without_a_join_the_first_child_wakes_its_parent(self, harness: Harness) -> None:
        store = await harness.make()
        lease, children = await family(harness, store, count=3, waits=True)
        await harness.park(store, lease, number=2)
        await harness.finish(store, children[1].id, Succeeded(Payload("1")))
        assert await is_due(store, await harness.worker(store), lease.run_id)

    async def test_a_join_counts_only_the_children_that_have_not_ended(self, harness: Harness) -> None:
        store = await harness.make()
        lease, children = await family(harness, store, count=3)
        await harness.finish(store, children[0].id, Succeeded(Payload("1")))
        waits = tuple(harness.child_wait(child.id, join="0/9") for child in children)
        await harness.park(store, lease, *waits, number=2)
        worker_id = await harness.worker(store)
        for child in children[1:]:
            assert not await is_due(store, worker_id, lease.run_id)
            await harness.finish(store, child.id, Succeeded(Payload("1")))
        assert await is_due(store, worker_id, lease.run_id)

    async def test_a_child_for_which_a_run_waits_twice_closes_both_waits(self, harness: Harness) -> None:
        store = await harness.make()
        lease, [child, other] = await family(harness, store, count=2)
        waits = (
            harness.child_wait(child.id, join="0/8"),
            harness.child_wait(other.id, join="0/8"),
            harness.child_wait(child.id, join="0/9"),
        )
        await harness.park(store, lease, *waits, number=2)
        await harness.finish(store, child.id, Succeeded(Payload("1")))
        assert await is_due(store, await harness.worker(store), lease.run_id)
        assert len(await told(store, lease.run_id, "child.ended")) == 1


class CascadeContract:
    """At the end of a run its children are cancelled, unless they are detached."""

    @every_end
    async def test_the_end_of_a_run_ends_its_children(self, harness: Harness, ending: Ending) -> None:
        one, other = await harness.views()
        lease, [child] = await family(harness, one)
        await one.commit(lease, Commit(2, outcome=ending.outcome))
        run = await other.get(child.id)
        assert (run.life.status, run.life.ended_at) == ("cancelled", harness.clock.now())
        last = (await events(other, child.id))[-1]
        assert (last.kind, loads(last.data)) == ("run.cancelled", {"by": "parent", "reason": None})
        assert (await one.get(lease.run_id)).life.status == ending.status

    @no_end
    async def test_a_run_that_only_gives_back_its_lease_leaves_its_children_alone(
        self, harness: Harness, outcome: Outcome
    ) -> None:
        store = await harness.make()
        lease, [child] = await family(harness, store)
        before = await stored(store, child.id)
        await store.commit(lease, Commit(2, outcome=outcome))
        assert await stored(store, child.id) == before

    async def test_children_in_every_status_are_cancelled(self, harness: Harness) -> None:
        store = await harness.make()
        lease, children = await family(harness, store, count=4)
        queued, parked, held, ended = [child.id for child in children]
        await harness.finish(store, parked, Parked(harness.clock.now() + HOUR, "[]"))
        await harness.finish(store, held, Held("diverged", by="replay"))
        await harness.finish(store, ended, Succeeded(Payload("1")))
        before = await stored(store, ended)
        await store.commit(lease, Commit(2, outcome=Succeeded(Payload("1"))))
        statuses = [(await store.get(run_id)).life.shown for run_id in (queued, parked, held)]
        assert statuses == ["cancelled"] * 3
        assert await stored(store, ended) == before

    async def test_a_child_that_is_running_is_asked_to_end(self, harness: Harness) -> None:
        one, other = await harness.views()
        lease, [child] = await family(harness, one)
        [claim] = await take(other, await harness.worker(other))
        await one.commit(lease, Commit(2, outcome=Succeeded(Payload("1"))))
        assert (await one.get(child.id)).life.status == "running"
        assert await other.controls(claim.lease.worker) == {child.id: (1, (True, False))}
        assert (await append(other, claim.lease, 1, "nearly done")).control.cancelling
        last = await told(one, child.id, "run.cancelling")
        assert last == [{"by": "parent", "reason": None}]

    async def test_a_detached_child_stays(self, harness: Harness) -> None:
        store = await harness.make()
        lease, [child] = await family(harness, store, detached=1)
        before = await stored(store, child.id)
        await store.commit(lease, Commit(2, outcome=Succeeded(Payload("1"))))
        assert await stored(store, child.id) == before

    async def test_the_end_goes_down_to_children_of_children(self, harness: Harness) -> None:
        store = await harness.make()
        lease, [child] = await family(harness, store)
        grandchild, detached = await self._grandchildren(harness, store, child)
        await store.commit(lease, Commit(2, outcome=Succeeded(Payload("1"))))
        assert (await store.get(child.id)).life.status == "cancelled"
        assert (await store.get(grandchild)).life.status == "cancelled"
        assert (await store.get(detached)).life.status == "queued"

    async def test_a_child_that_cleans_up_first_is_queued_for_it(self, harness: Harness) -> None:
        store = await harness.make()
        lease, [child, fresh] = await family(harness, store, count=2, hooked=1)
        await harness.finish(store, child.id, Parked(NEVER, "[]"))
        await store.commit(lease, Commit(2, outcome=Succeeded(Payload("1"))))
        life = (await store.get(child.id)).life
        assert (life.status, life.cancelling) == ("queued", 1)
        assert (await store.get(fresh.id)).life.status == "cancelled"
        assert await is_due(store, await harness.worker(store), child.id)

    async def test_the_waits_of_a_cancelled_child_are_closed(self, harness: Harness) -> None:
        store = await harness.make()
        lease, [child] = await family(harness, store)
        question = harness.question()
        await harness.finish(store, child.id, Parked(NEVER, "[]"), opens=(question,))
        await store.commit(lease, Commit(2, outcome=Succeeded(Payload("1"))))
        assert (await store.question(question.id)).outcome == "run_ended"

    async def test_a_run_that_is_cancelled_takes_its_children_along(self, harness: Harness) -> None:
        store = await harness.make()
        lease, [child] = await family(harness, store, waits=True)
        await harness.park(store, lease, number=2)
        assert await store.cancel(lease.run_id, by="ann") == "cancelled"
        assert (await store.get(child.id)).life.status == "cancelled"
        assert (await kinds(store, lease.run_id))[-1] == "run.cancelled"

    async def test_a_run_that_is_past_its_deadline_takes_its_children_along(self, harness: Harness) -> None:
        store = await harness.make()
        lease, [child] = await family(harness, store, parent={"deadline": harness.clock.now() + MINUTE})
        harness.clock.advance(60)
        await take(store, await harness.worker(store), agents=("somebody_else",))
        assert (await store.get(lease.run_id)).life.status == "timed_out"
        assert (await store.get(child.id)).life.status == "cancelled"

    async def test_a_run_that_dies_of_its_losses_takes_its_children_along(self, harness: Harness) -> None:
        store = await harness.make()
        lease, [child] = await family(harness, store)
        store.abandon_worker(lease.worker)
        for _ in range(MAX_CONSECUTIVE_LOSSES - 1):
            worker_id = await harness.worker(store)
            await take_over(store, worker_id, only=(lease.run_id,))
            store.abandon_worker(worker_id)
        heir = await harness.worker(store)
        async with asyncio.timeout(10):
            while not (await store.get(lease.run_id)).life.dead:
                await take(store, heir, agents=("audit",), only=(lease.run_id,))
                await asyncio.sleep(0.01)  # a proof of death is found by asking again
        assert (await store.get(child.id)).life.status == "cancelled"

    async def test_a_child_made_by_the_last_write_goes_with_it(self, harness: Harness) -> None:
        store = await harness.make()
        lease = await harness.started(store)
        child = harness.child_of(await store.get(lease.run_id))
        await store.commit(lease, Commit(1, outcome=Succeeded(Payload("1")), submits=(child,)))
        assert (await store.get(child.id)).life.status == "cancelled"

    async def _grandchildren(self, harness: Harness, store: Store, child: Submission) -> tuple[str, str]:
        """Two children of the child: one bound to it, one detached."""
        run = await store.get(child.id)
        bound, detached = harness.child_of(run, 1), harness.child_of(run, 2, detached=1)
        await harness.finish(store, child.id, Parked(NEVER, "[]"), submits=(bound, detached))
        return bound.id, detached.id


async def family(
    harness: Harness,
    store: Store,
    *,
    count: int = 1,
    waits: bool = False,
    join: str | None = None,
    parent: dict[str, Any] | None = None,
    **changes: Any,
) -> tuple[Lease, list[Submission]]:
    """A run in the hands of a worker that has made children with its first write, and waits for each where asked."""
    lease = await harness.started(store, **(parent or {}))
    run: RunRecord = await store.get(lease.run_id)
    children = [harness.child_of(run, number, **changes) for number in range(1, count + 1)]
    opens = tuple(harness.child_wait(child.id, join=join) for child in children) if waits else ()
    await store.commit(lease, Commit(1, opens=opens, submits=tuple(children)))
    return lease, children
