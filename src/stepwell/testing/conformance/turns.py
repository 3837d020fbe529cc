"""What a store must do for the children of a run that has its turn in a session: they live on that turn, and it is over
when the last of them has gone.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from stepwell.domain.commit import Commit
from stepwell.domain.outcome import NEVER, ErrorInfo, Failed, HandedBack, Outcome, Parked, Payload, Retrying, Succeeded
from stepwell.domain.run import CLEANING_UP, Lease
from stepwell.domain.submission import AGENT_LANE, SESSION_LANE, Lane, Submission
from stepwell.ports.store import Claim, LaneInfo, Store
from stepwell.testing.conformance.children import every_end, family
from stepwell.testing.conformance.commits import Ending
from stepwell.testing.conformance.harness import AGENT, LEASE, Harness, is_due, take, take_over
from stepwell.testing.conformance.session_lanes import SESSION, in_session

_DONE = Succeeded(Payload("1"))
_AT_WORK = LaneInfo("", SESSION_LANE, SESSION, 1, 1, 1)


class Turn:
    """A run that has its turn, its running child, who comes next, and a worker with nothing to do."""

    def __init__(self, harness: Harness, store: Store, lease: Lease, child: Claim, later: str, worker: str) -> None:
        self.lease = lease
        self.child = child
        self.later = later
        self._harness = harness
        self._store = store
        self._worker = worker

    async def passes(self) -> bool:
        """Whether the turn is now that of the next."""
        return await is_due(self._store, self._worker, self.later)

    async def finish(self, outcome: Outcome = _DONE) -> None:
        """Have the parent stop; it has written once."""
        opens = (self._harness.signal_wait("go"),) if isinstance(outcome, Parked) else ()
        await self._store.commit(self.lease, Commit(2, outcome=outcome, opens=opens))

    async def finish_child(self, outcome: Outcome = _DONE) -> None:
        """Have the child stop; it has not written."""
        await self._store.commit(self.child.lease, Commit(1, outcome=outcome))


async def begun(harness: Harness, store: Store, **child: Any) -> Turn:
    """A turn as it is while a child of the run is executed."""
    lease, [made] = await family(harness, store, parent=in_session(), **child)
    worker = await harness.worker(store)
    [claim] = await take(store, worker, only=(made.id,))
    later = await harness.submit(store, **in_session())
    return Turn(harness, store, lease, claim, later.id, await harness.worker(store))


class TurnContract:
    """A turn lasts as long as anybody lives on it."""

    async def test_a_child_runs_in_the_turn_of_its_parent(self, harness: Harness) -> None:
        store = await harness.make()
        turn = await begun(harness, store)
        assert not await turn.passes()
        await turn.finish_child()
        assert not await turn.passes()
        await turn.finish()
        assert await turn.passes()

    @every_end
    async def test_a_turn_is_not_over_while_a_child_is_executed(self, harness: Harness, ending: Ending) -> None:
        one, other = await harness.views()
        turn = await begun(harness, one)
        await other.commit(turn.lease, Commit(2, outcome=ending.outcome))
        assert (await other.get(turn.lease.run_id)).life.ended
        assert not await turn.passes()
        assert await other.lanes() == [_AT_WORK]
        await turn.finish_child()
        assert await turn.passes()

    async def test_children_that_end_with_their_parent_end_the_turn_with_it(self, harness: Harness) -> None:
        store = await harness.make()
        lease, _ = await family(harness, store, parent=in_session(), count=3)
        later = await harness.submit(store, **in_session())
        await store.commit(lease, Commit(2, outcome=_DONE))
        assert await is_due(store, await harness.worker(store), later.id)

    async def test_a_turn_is_over_when_the_last_child_has_ended(self, harness: Harness) -> None:
        one, other = await harness.views()
        lease, children = await family(harness, one, parent=in_session(), count=4)
        worker = await harness.worker(one)
        claims = await take(one, worker, only=[child.id for child in children])
        later = await harness.submit(one, **in_session())
        await one.commit(lease, Commit(2, outcome=_DONE))
        for claim in claims:
            assert not await is_due(other, worker, later.id)
            await other.commit(claim.lease, Commit(1, outcome=_DONE))
        assert await is_due(other, worker, later.id)

    async def test_children_that_end_in_one_moment_pass_the_turn_on_once(self, harness: Harness) -> None:
        store = await harness.make()
        lease, children = await family(harness, store, parent=in_session(), count=10)
        worker = await harness.worker(store)
        claims = await take(store, worker, only=[child.id for child in children])
        runs = [(await harness.submit(store, **in_session())).id for _ in range(3)]
        ends = [(lease, Commit(2, outcome=_DONE)), *((claim.lease, Commit(1, outcome=_DONE)) for claim in claims)]
        await asyncio.gather(*(store.commit(*end) for end in ends))
        assert [claim.run.id for claim in await take(store, worker)] == runs[:1]
        assert await store.lanes() == [LaneInfo("", SESSION_LANE, SESSION, 1, 1, 2)]

    async def test_a_turn_is_not_over_while_a_child_cleans_up(self, harness: Harness) -> None:
        store = await harness.make()
        lease, [child] = await family(harness, store, parent=in_session(), hooked=1)
        await harness.finish(store, child.id, Parked(NEVER, "[]"), opens=(harness.signal_wait("go"),))
        later = await harness.submit(store, **in_session())
        await store.cancel(lease.run_id, by="ann")
        await store.commit(lease, Commit(2, outcome=HandedBack()))
        worker = await harness.worker(store)
        [claim] = await take(store, worker)
        assert (claim.run.id, claim.run.life.cancelling) == (child.id, CLEANING_UP)
        assert not await is_due(store, worker, later.id)
        await store.commit(claim.lease, Commit(1, outcome=_DONE))
        assert await is_due(store, worker, later.id)

    async def test_a_turn_is_not_over_while_a_grandchild_is_executed(self, harness: Harness) -> None:
        store = await harness.make()
        turn = await begun(harness, store, session="ses_other")
        grandchild = harness.child_of(await store.get(turn.child.run.id), session=SESSION)
        await store.commit(turn.child.lease, Commit(1, submits=(grandchild,)))
        worker = await harness.worker(store)
        [claim] = await take(store, worker)
        assert claim.run.id == grandchild.id
        await turn.finish()
        await store.commit(turn.child.lease, Commit(2, outcome=_DONE))
        assert not await turn.passes()
        await store.commit(claim.lease, Commit(1, outcome=_DONE))
        assert await turn.passes()

    async def test_a_child_that_is_made_after_the_end_of_its_grandparent_keeps_the_turn(self, harness: Harness) -> None:
        store = await harness.make()
        turn = await begun(harness, store)
        await turn.finish()
        grandchild = harness.child_of(await store.get(turn.child.run.id))
        await store.commit(turn.child.lease, Commit(1, submits=(grandchild,)))
        [claim] = await take(store, await harness.worker(store))
        assert claim.run.id == grandchild.id
        await store.commit(turn.child.lease, Commit(2, outcome=_DONE))
        assert not await turn.passes()
        await store.commit(claim.lease, Commit(1, outcome=HandedBack()))
        assert await turn.passes()

    async def test_a_child_that_stops_for_now_keeps_the_turn(self, harness: Harness) -> None:
        store = await harness.make()
        turn = await begun(harness, store)
        await turn.finish_child(Retrying(ErrorInfo("agent.error", "no luck"), harness.clock.now()))
        assert not await turn.passes()
        assert await is_due(store, await harness.worker(store), turn.child.run.id)
        await turn.finish()
        assert not await turn.passes()

    async def test_a_detached_child_takes_a_turn_of_its_own(self, harness: Harness) -> None:
        store = await harness.make()
        lease, [child] = await family(harness, store, parent=in_session(), detached=1, **in_session())
        later = await harness.submit(store, **in_session())
        worker = await harness.worker(store)
        assert await take(store, worker) == []
        await store.commit(lease, Commit(2, outcome=_DONE))
        [claim] = await take(store, worker)
        assert claim.run.id == child.id
        await store.commit(claim.lease, Commit(1, outcome=_DONE))
        assert await is_due(store, worker, later.id)

    async def test_a_detached_child_without_a_turn_keeps_nobody_waiting(self, harness: Harness) -> None:
        store = await harness.make()
        turn = await begun(harness, store, detached=1)
        await turn.finish()
        assert await turn.passes()

    async def test_a_child_does_not_stand_in_line_behind_its_parent(self, harness: Harness) -> None:
        store = await harness.make()
        turn = await begun(harness, store, **in_session())
        await turn.finish()
        assert not await turn.passes()
        await turn.finish_child()
        assert await turn.passes()

    async def test_a_child_on_a_turn_takes_tickets_of_its_other_lanes(self, harness: Harness) -> None:
        store = await harness.make()
        wide = (Lane(AGENT_LANE, AGENT, 1),)
        turn = await begun(harness, store, lanes=wide)
        blocked = await harness.submit(store, lanes=wide)
        worker = await harness.worker(store)
        assert not await is_due(store, worker, blocked.id)
        await turn.finish_child(HandedBack())
        assert await is_due(store, worker, blocked.id)
        assert not await turn.passes()

    async def test_a_child_that_gives_up_the_turn_of_its_parent_gives_up_nothing(self, harness: Harness) -> None:
        store = await harness.make()
        turn = await begun(harness, store)
        await turn.finish_child(Parked(NEVER, "[]", release=True))
        assert not await turn.passes()
        await turn.finish()
        assert await turn.passes()

    async def test_a_turn_passes_to_the_next_in_line_and_to_nobody_else(self, harness: Harness) -> None:
        store = await harness.make()
        turn = await begun(harness, store)
        last = await harness.submit(store, **in_session())
        await turn.finish()
        await turn.finish_child(Failed(ErrorInfo("agent.error", "no luck")))
        worker = await harness.worker(store)
        assert [claim.run.id for claim in await take(store, worker)] == [turn.later]
        assert not await is_due(store, worker, last.id)


class LostTurnContract:
    """A turn outlives workers, and is over all the same."""

    @pytest.mark.parametrize("how", ["killed", "silent"])
    async def test_a_turn_is_not_over_when_the_worker_of_a_child_is_lost(self, harness: Harness, how: str) -> None:
        store = await harness.make()
        turn = await begun(harness, store)
        await turn.finish()
        if how == "killed":
            store.abandon_worker(turn.child.lease.worker)
        else:
            harness.clock.advance(LEASE + 1)
        assert await store.lanes() == [_AT_WORK]
        worker = await harness.worker(store)
        [claim] = await take_over(store, worker)
        assert claim.run.id == turn.later, "the child was asked to end, and ends with its worker"
        assert (await store.get(turn.child.run.id)).life.status == "cancelled"

    async def test_a_child_that_changes_hands_keeps_the_turn(self, harness: Harness) -> None:
        store = await harness.make()
        turn = await begun(harness, store)
        store.abandon_worker(turn.child.lease.worker)
        worker = await harness.worker(store)
        [claim] = await take_over(store, worker, only=(turn.child.run.id,))
        await turn.finish()
        assert not await turn.passes()
        await store.commit(claim.lease, Commit(1, outcome=_DONE))
        assert await turn.passes()

    async def test_a_parent_past_its_deadline_ends_its_turn_with_its_child(self, harness: Harness) -> None:
        store = await harness.make()
        deadline = harness.clock.now() + 5_000_000
        lease, [child] = await family(harness, store, parent={**in_session(), "deadline": deadline})
        worker = await harness.worker(store, lease_seconds=60)
        [claim] = await take(store, worker, only=(child.id,))
        later = await harness.submit(store, **in_session())
        harness.clock.advance(5)
        assert await take(store, worker) == []
        assert (await store.get(lease.run_id)).life.status == "timed_out"
        await store.commit(claim.lease, Commit(1, outcome=HandedBack()))
        assert await is_due(store, worker, later.id)


class GivenUpTurnContract:
    """A run that gives up its turn has it until its children have gone."""

    _RELEASE = Parked(NEVER, "[]", release=True)

    async def test_a_turn_is_given_up_when_the_last_child_has_ended(self, harness: Harness) -> None:
        one, other = await harness.views()
        turn = await begun(harness, one)
        await turn.finish(self._RELEASE)
        assert not await turn.passes()
        assert await other.lanes() == [_AT_WORK]
        await turn.finish_child()
        assert await turn.passes()

    async def test_a_turn_is_given_up_at_once_when_no_child_is_left(self, harness: Harness) -> None:
        store = await harness.make()
        turn = await begun(harness, store)
        await turn.finish_child()
        await turn.finish(self._RELEASE)
        assert await turn.passes()

    async def test_a_run_that_gave_up_its_turn_stands_in_line_for_another(self, harness: Harness) -> None:
        store = await harness.make()
        turn = await begun(harness, store)
        await turn.finish(self._RELEASE)
        await turn.finish_child()
        worker = await harness.worker(store)
        [claim] = await take(store, worker)
        await store.signal(turn.lease.run_id, harness.signal("go"))
        assert await take(store, worker) == []
        await store.commit(claim.lease, Commit(1, outcome=_DONE))
        assert await is_due(store, worker, turn.lease.run_id)

    async def test_a_run_that_goes_on_before_its_children_have_gone_has_its_turn(self, harness: Harness) -> None:
        store = await harness.make()
        turn = await begun(harness, store)
        await turn.finish(self._RELEASE)
        await store.signal(turn.lease.run_id, harness.signal("go"))
        worker = await harness.worker(store)
        [claim] = await take(store, worker)
        assert claim.run.id == turn.lease.run_id
        await turn.finish_child()
        assert not await turn.passes()
        await store.commit(claim.lease, Commit(1, outcome=_DONE))
        assert await turn.passes()

    async def test_a_run_that_is_cancelled_after_it_gave_up_its_turn_ends_it(self, harness: Harness) -> None:
        store = await harness.make()
        turn = await begun(harness, store)
        await turn.finish(self._RELEASE)
        assert await store.cancel(turn.lease.run_id, by="ann") == "cancelled"
        assert not await turn.passes()
        await turn.finish_child(HandedBack())
        assert await turn.passes()

    async def test_a_run_that_is_paused_after_it_gave_up_its_turn_gives_it_up(self, harness: Harness) -> None:
        store = await harness.make()
        turn = await begun(harness, store)
        await turn.finish(self._RELEASE)
        await store.pause(turn.lease.run_id, by="ann")
        await store.cancel(turn.child.run.id, by="ann")
        await turn.finish_child(HandedBack())
        assert await turn.passes()

    async def test_a_run_that_has_yet_to_clean_up_does_so_in_its_turn(self, harness: Harness) -> None:
        store = await harness.make()
        lease = await harness.started(store, hooked=1, **in_session())
        later = await harness.submit(store, **in_session())
        await store.cancel(lease.run_id, by="ann")
        await store.commit(lease, Commit(1, outcome=self._RELEASE))
        worker = await harness.worker(store)
        [claim] = await take(store, worker)
        assert (claim.run.id, claim.run.life.cancelling) == (lease.run_id, CLEANING_UP)
        await store.commit(claim.lease, Commit(1, outcome=_DONE))
        assert await is_due(store, worker, later.id)


class NewcomerContract:
    """Who comes to a session whose turn is not over is told so."""

    async def test_a_session_with_a_child_left_is_not_free(self, harness: Harness) -> None:
        store = await harness.make()
        lease, _ = await family(harness, store, parent=in_session())
        [claim] = await take(store, await harness.worker(store))
        await store.commit(lease, Commit(2, outcome=_DONE))
        refused = await self._refused(store, harness.submission(busy="reject", **in_session()))
        assert refused == "session.busy"
        await store.commit(claim.lease, Commit(1, outcome=_DONE))
        assert await self._refused(store, harness.submission(busy="reject", **in_session())) is None

    async def test_an_interruption_waits_for_the_children_of_who_is_interrupted(self, harness: Harness) -> None:
        store = await harness.make()
        turn = await begun(harness, store)
        newcomer = await harness.submit(store, busy="interrupt", **in_session())
        assert (await store.get(turn.later)).life.status == "cancelled"
        await turn.finish(HandedBack())
        worker = await harness.worker(store)
        assert not await is_due(store, worker, newcomer.id)
        await turn.finish_child(HandedBack())
        assert await is_due(store, worker, newcomer.id)

    async def test_a_run_that_gives_up_its_turn_is_interrupted_while_its_children_keep_it(
        self, harness: Harness
    ) -> None:
        store = await harness.make()
        turn = await begun(harness, store)
        await turn.finish(Parked(NEVER, "[]", release=True))
        newcomer = await harness.submit(store, busy="interrupt", **in_session())
        assert (await store.get(turn.lease.run_id)).life.status == "cancelled"
        await turn.finish_child(HandedBack())
        assert await is_due(store, await harness.worker(store), newcomer.id)

    async def test_a_newcomer_answers_who_gives_up_its_turn_while_its_children_keep_it(self, harness: Harness) -> None:
        store = await harness.make()
        lease, _ = await family(harness, store, parent=in_session())
        [claim] = await take(store, await harness.worker(store))
        question = harness.question()
        await store.commit(lease, Commit(2, opens=(question,), outcome=Parked(NEVER, "[]", release=True)))
        newcomer = harness.submission(busy="answer", answers=(question.id,), **in_session())
        assert (await store.submit(newcomer)).run.id == lease.run_id
        await store.commit(claim.lease, Commit(1, outcome=_DONE))

    async def test_a_child_that_comes_to_another_session_stands_in_line(self, harness: Harness) -> None:
        store = await harness.make()
        for busy in ("reject", "interrupt", "answer"):
            question = harness.question()
            holder = await harness.parked(store, question, **in_session(busy))
            _, [child] = await family(harness, store, busy=busy, answers=(question.id,), **in_session(busy))
            worker = await harness.worker(store)
            assert not await is_due(store, worker, child.id)
            assert (await store.get(holder.id)).life.status == "waiting"
            assert (await store.question(question.id)).outcome is None
            await store.cancel(holder.id, by="ann")
            assert await is_due(store, worker, child.id)

    async def _refused(self, store: Store, submission: Submission) -> str | None:
        [answer] = await asyncio.gather(store.submit(submission), return_exceptions=True)
        return getattr(answer, "code", None)
