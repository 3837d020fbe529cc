"""What a store must do for synchronized sessions: one run after the other, and newcomers as they were told."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from stepwell.domain.commit import Commit
from stepwell.domain.outcome import NEVER, ErrorInfo, HandedBack, Outcome, Parked, Payload, Retrying, Succeeded
from stepwell.domain.submission import AGENT_LANE, SESSION_LANE, Lane
from stepwell.ports.store import LaneInfo, Store
from stepwell.testing.conformance.children import no_end
from stepwell.testing.conformance.harness import AGENT, SECOND, Harness, is_due, kinds, take

SESSION = "ses_support"
_DONE = Succeeded(Payload("1"))


def in_session(name: str = SESSION, *wider: Lane) -> dict[str, Any]:
    """What makes a run one of a synchronized session."""
    return {"session": name, "lanes": (Lane(SESSION_LANE, name, 1), *wider)}


class SessionLaneContract:
    """The runs of a synchronized session go one after the other."""

    async def test_the_runs_of_a_session_go_in_the_order_of_submission(self, harness: Harness) -> None:
        one, other = await harness.views()
        runs = []
        for priority in (0, 5, 100, -5):
            runs.append((await harness.submit(one, priority=priority, **in_session())).id)
            harness.clock.advance(1)
        worker_id = await harness.worker(other)
        for run_id in runs:
            [claim] = await take(other, worker_id)
            assert claim.run.id == run_id
            await other.commit(claim.lease, Commit(1, outcome=_DONE))

    async def test_sessions_do_not_wait_for_each_other(self, harness: Harness) -> None:
        store = await harness.make()
        first = [await harness.submit(store, **in_session(name)) for name in ("ses_a", "ses_b")]
        for name in ("ses_a", "ses_b"):
            await harness.submit(store, **in_session(name))
        taken = {claim.run.id for claim in await take(store, await harness.worker(store))}
        assert taken == {run.id for run in first}

    @no_end
    async def test_a_run_that_stops_for_now_keeps_its_place(self, harness: Harness, outcome: Outcome) -> None:
        store = await harness.make()
        lease = await harness.started(store, **in_session())
        later = await harness.submit(store, **in_session())
        await store.commit(lease, Commit(1, outcome=outcome))
        assert not await is_due(store, await harness.worker(store), later.id)
        assert [(lane.taken, lane.waiting) for lane in await store.lanes()] == [(1, 1)]

    async def test_a_run_that_waits_goes_on_before_the_rest_of_its_session(self, harness: Harness) -> None:
        store = await harness.make()
        parked = await harness.parked(store, harness.signal_wait("go"), **in_session())
        later = await harness.submit(store, **in_session())
        worker_id = await harness.worker(store)
        assert await take(store, worker_id) == []
        await store.signal(parked.id, harness.signal("go"))
        [claim] = await take(store, worker_id)
        assert claim.run.id == parked.id
        await store.commit(claim.lease, Commit(1, outcome=_DONE))
        assert await is_due(store, worker_id, later.id)

    async def test_a_run_that_gives_up_its_turn_lets_the_next_one_go(self, harness: Harness) -> None:
        store = await harness.make()
        lease = await harness.started(store, **in_session())
        later = await harness.submit(store, **in_session())
        park = Parked(NEVER, "[]", release=True)
        await store.commit(lease, Commit(1, outcome=park, opens=(harness.signal_wait("go"),)))
        assert await store.lanes() == [LaneInfo("", SESSION_LANE, SESSION, 1, 1, 0)]
        assert await is_due(store, await harness.worker(store), later.id)

    async def test_a_run_that_gave_up_its_turn_waits_for_the_next_one(self, harness: Harness) -> None:
        store = await harness.make()
        lease = await harness.started(store, **in_session())
        second, third = [await harness.submit(store, **in_session()) for _ in range(2)]
        park = Parked(NEVER, "[]", release=True)
        await store.commit(lease, Commit(1, outcome=park, opens=(harness.signal_wait("go"),)))
        worker_id = await harness.worker(store)
        [claim] = await take(store, worker_id)
        assert claim.run.id == second.id
        await store.signal(lease.run_id, harness.signal("go"))
        assert await take(store, worker_id) == []
        await store.commit(claim.lease, Commit(1, outcome=_DONE))
        [claim] = await take(store, worker_id)
        assert claim.run.id == lease.run_id
        await store.commit(claim.lease, Commit(1, outcome=_DONE))
        assert await is_due(store, worker_id, third.id)

    async def test_a_run_that_gives_up_its_turn_in_vain_goes_on(self, harness: Harness) -> None:
        store = await harness.make()
        lease = await harness.started(store, **in_session())
        later = await harness.submit(store, **in_session())
        await store.signal(lease.run_id, harness.signal("go"))
        park = Parked(NEVER, "[]", 2, release=True)
        await store.commit(lease, Commit(1, outcome=park, opens=(harness.signal_wait("go"),)))
        worker_id = await harness.worker(store)
        claims = await take(store, worker_id)
        assert [claim.run.id for claim in claims] == [later.id]
        await store.commit(claims[0].lease, Commit(1, outcome=_DONE))
        assert await is_due(store, worker_id, lease.run_id)

    async def test_a_run_that_waits_keeps_its_session_and_no_wider_lane(self, harness: Harness) -> None:
        store = await harness.make()
        wide = Lane(AGENT_LANE, AGENT, 1)
        await harness.parked(store, harness.signal_wait("go"), **in_session(SESSION, wide))
        other = await harness.submit(store, **in_session("ses_other", wide))
        lanes = {(lane.kind, lane.name): lane.taken for lane in await store.lanes()}
        assert lanes == {(SESSION_LANE, SESSION): 1, (SESSION_LANE, "ses_other"): 1, (AGENT_LANE, AGENT): 1}
        assert await is_due(store, await harness.worker(store), other.id)

    async def test_a_paused_run_keeps_its_place_in_the_line_of_its_session(self, harness: Harness) -> None:
        store = await harness.make()
        lease = await harness.started(store, **in_session())
        second, third = [await harness.submit(store, **in_session()) for _ in range(2)]
        paused = await store.pause(second.id, by="ann")
        await store.commit(lease, Commit(1, outcome=_DONE))
        worker_id = await harness.worker(store)
        assert await take(store, worker_id) == []
        await store.resume(second.id, at_seq=paused.life.seq, by="ann")
        assert [claim.run.id for claim in await take(store, worker_id)] == [second.id]
        assert not await is_due(store, worker_id, third.id)

    async def test_a_run_that_fails_lets_the_next_one_go(self, harness: Harness) -> None:
        store = await harness.make()
        lease = await harness.started(store, **in_session())
        later = await harness.submit(store, **in_session())
        error = ErrorInfo("agent.error", "no luck")
        await store.commit(lease, Commit(1, outcome=Retrying(error, harness.clock.now() + SECOND)))
        harness.clock.advance(1)
        worker_id = await harness.worker(store)
        [claim] = await take(store, worker_id)
        assert claim.run.id == lease.run_id
        await store.cancel(lease.run_id, by="ann")
        await store.commit(claim.lease, Commit(1, outcome=HandedBack()))
        assert await is_due(store, worker_id, later.id)


class BusyContract:
    """A session that is not free treats a newcomer as it was told to."""

    @pytest.mark.parametrize("stands", ["running", "queued", "waiting"])
    async def test_a_busy_session_may_reject(self, harness: Harness, stands: str) -> None:
        store = await harness.make()
        await self._occupied(harness, store, stands)
        newcomer = harness.submission(busy="reject", **in_session())
        [refused] = await asyncio.gather(store.submit(newcomer), return_exceptions=True)
        assert getattr(refused, "code", None) == "session.busy"
        assert await self._runs(store) == 1
        assert await store.lanes() == [LaneInfo("", SESSION_LANE, SESSION, 1, 1, 0)]

    async def test_a_free_session_rejects_nobody(self, harness: Harness) -> None:
        store = await harness.make()
        await harness.submit(store, **in_session("ses_other"))
        lease = await harness.started(store, busy="reject", **in_session())
        await store.commit(lease, Commit(1, outcome=_DONE))
        assert (await store.submit(harness.submission(busy="reject", **in_session()))).created

    async def test_a_known_key_is_not_rejected(self, harness: Harness) -> None:
        store = await harness.make()
        first = await store.submit(harness.submission(busy="reject", idempotency_key="k-1", **in_session()))
        again = await store.submit(harness.submission(busy="reject", idempotency_key="k-1", **in_session()))
        assert not again.created
        assert again.run == first.run

    async def test_of_many_newcomers_at_once_one_gets_the_session(self, harness: Harness) -> None:
        views = await harness.views()
        calls = [views[n % 2].submit(harness.submission(busy="reject", **in_session())) for n in range(10)]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert sorted(getattr(answer, "code", "created") for answer in answers) == [
            "created",
            *["session.busy"] * 9,
        ]

    @pytest.mark.parametrize("stands", ["queued", "waiting"])
    async def test_a_newcomer_may_end_what_nobody_executes(self, harness: Harness, stands: str) -> None:
        store = await harness.make()
        run_id = await self._occupied(harness, store, stands)
        behind = await harness.submit(store, **in_session())
        newcomer = await harness.submit(store, busy="interrupt", **in_session())
        for each in (run_id, behind.id):
            assert (await store.get(each)).life.status == "cancelled"
        assert [claim.run.id for claim in await take(store, await harness.worker(store))] == [newcomer.id]

    async def test_a_newcomer_may_ask_who_is_executed_to_end_and_waits_for_that(self, harness: Harness) -> None:
        store = await harness.make()
        lease = await harness.started(store, **in_session())
        behind = await harness.submit(store, **in_session())
        newcomer = await harness.submit(store, busy="interrupt", **in_session())
        assert (await store.get(behind.id)).life.status == "cancelled"
        assert list(await store.controls(lease.worker)) == [lease.run_id]
        worker_id = await harness.worker(store)
        assert not await is_due(store, worker_id, newcomer.id)
        await store.commit(lease, Commit(1, outcome=HandedBack()))
        assert (await store.get(lease.run_id)).life.status == "cancelled"
        assert await is_due(store, worker_id, newcomer.id)

    async def test_an_interruption_leaves_other_sessions_alone(self, harness: Harness) -> None:
        store = await harness.make()
        other = await harness.submit(store, **in_session("ses_other"))
        await harness.submit(store, **in_session())
        await harness.submit(store, busy="interrupt", **in_session())
        assert (await store.get(other.id)).life.status == "queued"

    async def test_a_newcomer_may_answer_the_oldest_question_of_the_session(self, harness: Harness) -> None:
        one, other = await harness.views()
        questions = harness.question("First?"), harness.question("Second?")
        run = await harness.parked(one, *questions, **in_session())
        ids = tuple(question.id for question in questions)
        newcomer = harness.submission(busy="answer", input=Payload('"yes"'), answers=ids, **in_session())
        submitted = await other.submit(newcomer)
        assert (submitted.run.id, submitted.created, submitted.lease) == (run.id, False, None)
        assert [(await one.question(question.id)).outcome for question in questions] == ["answered", None]
        assert await self._runs(one) == 1
        assert (await kinds(one, run.id))[-1] == "wait.closed"
        [claim] = await take(one, await harness.worker(one))
        assert claim.run.id == run.id
        assert '"value":"yes"' in claim.journal[-2].data

    @pytest.mark.parametrize("why", ["does not fit", "too late", "cancelling"])
    async def test_a_newcomer_that_cannot_answer_stands_in_line(self, harness: Harness, why: str) -> None:
        store = await harness.make()
        question = harness.question("First?", until=harness.clock.now() + 5_000_000)
        run = await harness.parked(store, question, hooked=1, **in_session())
        if why == "too late":
            harness.clock.advance(5)
        if why == "cancelling":
            assert await store.cancel(run.id, by="ann") == "cancelling"
        answers = () if why == "does not fit" else (question.id,)
        submitted = await store.submit(harness.submission(busy="answer", answers=answers, **in_session()))
        assert submitted.created
        assert (await store.question(question.id)).outcome is None

    async def test_a_newcomer_stands_in_line_where_nothing_is_asked(self, harness: Harness) -> None:
        store = await harness.make()
        run = await harness.parked(store, harness.signal_wait("go"), **in_session())
        submitted = await store.submit(harness.submission(busy="answer", **in_session()))
        assert submitted.created
        assert await store.lanes() == [LaneInfo("", SESSION_LANE, SESSION, 1, 1, 1)]
        assert (await store.get(run.id)).life.available_at == NEVER

    async def test_one_answer_under_one_key_answers_one_question(self, harness: Harness) -> None:
        store = await harness.make()
        questions = harness.question("First?"), harness.question("Second?")
        run = await harness.parked(store, *questions, **in_session())
        told: dict[str, Any] = {"busy": "answer", "answers": tuple(question.id for question in questions)}
        for _ in range(2):
            submitted = await store.submit(harness.submission(**told, idempotency_key="k-1", **in_session()))
            assert submitted.run.id == run.id
        assert [(await store.question(question.id)).outcome for question in questions] == ["answered", None]

    async def test_a_newcomer_to_a_free_session_is_a_run_whatever_it_was_told(self, harness: Harness) -> None:
        store = await harness.make()
        worker_id = await harness.worker(store)
        for busy in ("queue", "reject", "interrupt", "answer"):
            run = await harness.submit(store, busy=busy, **in_session(f"ses_{busy}"))
            assert await is_due(store, worker_id, run.id)

    async def _occupied(self, harness: Harness, store: Store, stands: str) -> str:
        """A session whose ticket is taken by a run that stands there."""
        if stands == "running":
            return (await harness.started(store, **in_session())).run_id
        if stands == "waiting":
            return (await harness.parked(store, harness.signal_wait("go"), **in_session())).id
        return (await harness.submit(store, **in_session())).id

    async def _runs(self, store: Store) -> int:
        return sum((await store.report()).runs.values())
