"""What `Store.submit` must do: runs that exist once acknowledged, one run a key, a bound, and the fast path."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from stepwell.domain.commit import Commit
from stepwell.domain.errors import Busy, Conflict, NotFound, StepwellError
from stepwell.domain.event import Draft
from stepwell.domain.outcome import Held, Payload, Succeeded
from stepwell.domain.values import loads
from stepwell.ports.store import Store
from stepwell.testing.conformance.harness import MINUTE, Harness, append, beat, events, kinds, stored, take


class SubmissionContract:
    """Runs come into being."""

    async def test_an_acknowledged_run_is_visible_to_every_reader(self, harness: Harness) -> None:
        one, other = await harness.views()
        submitted = await one.submit(harness.submission())
        assert submitted.created
        assert submitted.lease is None
        assert submitted.run.life.status == "queued"
        assert await other.get(submitted.run.id) == submitted.run

    async def test_its_first_event_tells_what_was_asked_for(self, harness: Harness) -> None:
        store = await harness.make()
        run = await harness.submit(store, trigger="nightly", priority=3, input=Payload('["a","b"]'))
        [entry] = await events(store, run.id)
        assert entry.kind == "run.queued"
        assert entry.at == harness.clock.now()
        assert loads(entry.data) == {
            "agent": "audit",
            "version": "1",
            "trigger": "nightly",
            "input": ["a", "b"],
            "priority": 3,
            "available_at": run.life.available_at,
        }

    async def test_a_run_keeps_what_it_was_submitted_with(self, harness: Harness) -> None:
        store = await harness.make()
        given: dict[str, Any] = {
            "tenant": "acme",
            "agent": "report",
            "version": "7",
            "session": "ses_shared",
            "trigger": "nightly",
            "priority": -5,
            "timeout": MINUTE,
            "deadline": harness.clock.now() + MINUTE,
            "idempotency_key": "k-1",
            "metadata": '{"ticket":"T-9"}',
            "causal_depth": 2,
            "hooked": 1,
            "detached": 1,
        }
        submission = harness.submission(delay=2.5, **given)
        await store.submit(submission)
        run = await store.get(submission.id, tenant="acme")
        assert {name: getattr(run, name) for name in given} == given
        assert run.created_at == submission.created_at
        assert run.life.available_at == submission.available_at

    async def test_an_input_that_lies_elsewhere_is_referred_to(self, harness: Harness) -> None:
        store = await harness.make()
        ref = await store.put_blob(b'{"large":true}')
        run = await harness.submit(store, input=Payload(None, ref, 14))
        [entry] = await events(store, run.id)
        data = loads(entry.data)
        assert isinstance(data, dict)
        assert data["ref"] == {"blob": ref, "size": 14, "of": "input"}
        assert "input" not in data

    async def test_runs_without_a_key_are_all_different(self, harness: Harness) -> None:
        store = await harness.make()
        first, second = await harness.submit(store), await harness.submit(store)
        assert first.id != second.id
        assert await store.get(first.id) == first
        assert await store.get(second.id) == second

    async def test_a_submission_that_is_repeated_gives_the_run_that_it_made(self, harness: Harness) -> None:
        one, other = await harness.views()
        submission = harness.submission(idempotency_key="k-1")
        first = await one.submit(submission)
        again = await other.submit(submission)
        assert again.run == first.run
        assert await kinds(one, submission.id) == ["run.queued"]

    async def test_a_repeated_submission_tells_how_its_run_stands_now(self, harness: Harness) -> None:
        store = await harness.make()
        submission = harness.submission()
        await store.submit(submission)
        [claim] = await take(store, await harness.worker(store))
        await store.commit(claim.lease, Commit(1, outcome=Succeeded(Payload("1"))))
        before = await stored(store, submission.id)
        assert (await store.submit(submission)).run.life.status == "succeeded"
        assert await stored(store, submission.id) == before

    async def test_a_repeated_submission_that_was_started_gives_its_lease_again(self, harness: Harness) -> None:
        store = await harness.make()
        submission = harness.submission(start_on=await harness.worker(store))
        first, again = await store.submit(submission), await store.submit(submission)
        assert first.lease is not None
        assert again.lease == first.lease

    async def test_what_a_run_inherits_stands_behind_its_first_fact(self, harness: Harness) -> None:
        one, other = await harness.views()
        inherited = (
            Draft("step.completed", '{"name":"fetch","result":1,"ms":2}', step="0/1"),
            Draft("custom.note", '{"text":"kept"}', step="0/2", node="collect"),
        )
        run = await harness.submit(one, retry_of="run_first", origin="run_first", inherited=inherited)
        assert (run.retry_of, run.origin) == ("run_first", "run_first")
        queued, *rest = await events(other, run.id)
        data = loads(queued.data)
        assert isinstance(data, dict)
        assert data["retry_of"] == "run_first"
        assert [(entry.kind, entry.data, entry.step, entry.node) for entry in rest] == list(inherited)
        assert run.life.seq == 3
        [claim] = await take(other, await harness.worker(other))
        assert claim.journal[1:3] == rest

    async def test_a_run_that_starts_at_once_keeps_what_it_inherits(self, harness: Harness) -> None:
        store = await harness.make()
        inherited = (Draft("step.completed", '{"name":"fetch","result":1}', step="0/1"),)
        worker_id = await harness.worker(store)
        submitted = await store.submit(harness.submission(start_on=worker_id, inherited=inherited))
        assert submitted.lease is not None
        assert await kinds(store, submitted.run.id) == ["run.queued", "step.completed", "run.started"]


class IdempotencyContract:
    """One key makes one run."""

    async def test_the_same_key_gives_the_run_that_it_made(self, harness: Harness) -> None:
        one, other = await harness.views()
        first = await one.submit(harness.submission(idempotency_key="k-1"))
        again = harness.submission(idempotency_key="k-1")
        second = await other.submit(again)
        assert not second.created
        assert second.run == first.run
        assert await kinds(one, first.run.id) == ["run.queued"]
        with pytest.raises(NotFound):
            await one.get(again.id)

    async def test_fifty_callers_with_one_key_make_one_run(self, harness: Harness) -> None:
        views = await harness.views()
        calls = [views[n % 2].submit(harness.submission(idempotency_key="k-1")) for n in range(50)]
        answers = await asyncio.gather(*calls)
        assert sum(answer.created for answer in answers) == 1
        assert len({answer.run.id for answer in answers}) == 1

    async def test_the_same_key_with_another_input_is_a_conflict_and_changes_nothing(self, harness: Harness) -> None:
        store = await harness.make()
        first = await harness.submit(store, idempotency_key="k-1")
        before = await stored(store, first.id)
        other = harness.submission(idempotency_key="k-1", input=Payload('"other"'), input_digest="other")
        with pytest.raises(Conflict) as refused:
            await store.submit(other)
        assert refused.value.code == "idempotency.conflict"
        assert await stored(store, first.id) == before
        with pytest.raises(NotFound):
            await store.get(other.id)

    async def test_one_caller_in_conflict_harms_none_beside_it(self, harness: Harness) -> None:
        store = await harness.make()
        await harness.submit(store, idempotency_key="k-1")
        calls = [
            harness.submission(),
            harness.submission(idempotency_key="k-1", input_digest="x"),
            harness.submission(),
        ]
        first, refused, last = await asyncio.gather(*map(store.submit, calls), return_exceptions=True)
        assert isinstance(refused, Conflict)
        assert not isinstance(first, BaseException)
        assert not isinstance(last, BaseException)
        assert [await kinds(store, answer.run.id) for answer in (first, last)] == [["run.queued"]] * 2

    async def test_a_key_means_nothing_to_another_tenant(self, harness: Harness) -> None:
        store = await harness.make()
        first = await store.submit(harness.submission(idempotency_key="k-1", tenant="acme"))
        second = await store.submit(harness.submission(idempotency_key="k-1", tenant="other", input_digest="x"))
        assert first.created
        assert second.created

    async def test_a_key_means_nothing_to_another_agent(self, harness: Harness) -> None:
        store = await harness.make()
        first = await store.submit(harness.submission(idempotency_key="k-1", agent="audit"))
        second = await store.submit(harness.submission(idempotency_key="k-1", agent="report", input_digest="x"))
        assert first.created
        assert second.created

    async def test_a_key_still_names_its_run_after_the_end(self, harness: Harness) -> None:
        store = await harness.make()
        run = await harness.ended(store, Succeeded(Payload("1")), idempotency_key="k-1")
        again = await store.submit(harness.submission(idempotency_key="k-1"))
        assert not again.created
        assert again.run == run
        assert again.run.life.status == "succeeded"


class QueueBoundContract:
    """The queue does not grow without end."""

    async def test_a_full_queue_refuses_and_stores_nothing(self, harness: Harness) -> None:
        store = await harness.make()
        runs = [await harness.submit(store, idempotency_key=f"k-{n}") for n in range(3)]
        refused = await self._until_refused(harness, store, bound=3)
        with pytest.raises(NotFound):
            await store.get(refused)
        again = await store.submit(harness.submission(idempotency_key="k-0", queue_bound=3))
        assert again.run.id == runs[0].id

    async def test_a_queue_has_room_again_when_workers_have_taken_runs(self, harness: Harness) -> None:
        store = await harness.make()
        for _ in range(3):
            await harness.submit(store)
        await self._until_refused(harness, store, bound=3)
        await take(store, await harness.worker(store))
        harness.clock.advance(1)
        assert (await store.submit(harness.submission(queue_bound=3))).created

    async def _until_refused(self, harness: Harness, store: Store, *, bound: int) -> str:
        """Submit, a second apart, until one is refused, and give its id: the bound is checked within a second."""
        refusals: list[StepwellError] = []
        for _ in range(4):
            harness.clock.advance(1)
            submission = harness.submission(queue_bound=bound)
            try:
                await store.submit(submission)
            except StepwellError as error:
                refusals.append(error)
                break
        assert [(type(error), error.code, error.retryable) for error in refusals] == [(Busy, "queue.full", True)]
        return submission.id


class FastPathContract:
    """A worker with a free slot starts the run that it submits, in the same write."""

    async def test_a_run_starts_at_once_where_a_slot_is_offered(self, harness: Harness) -> None:
        one, other = await harness.views()
        worker_id = await harness.worker(one)
        submitted = await one.submit(harness.submission(start_on=worker_id))
        assert submitted.lease is not None
        assert submitted.run.life.status == "running"
        assert submitted.run.life.attempt == 1
        assert await other.get(submitted.run.id) == submitted.run
        assert await kinds(other, submitted.run.id) == ["run.queued", "run.started"]
        assert (await append(one, submitted.lease, 1, "works")).seq == 3
        assert await take(other, await harness.worker(other)) == []
        assert list((await beat(one, worker_id)).held) == [submitted.run.id]

    async def test_a_run_that_is_not_due_is_queued(self, harness: Harness) -> None:
        store = await harness.make()
        submitted = await store.submit(harness.submission(delay=1, start_on=await harness.worker(store)))
        assert submitted.lease is None
        assert submitted.run.life.status == "queued"

    async def test_a_run_past_its_deadline_is_not_started(self, harness: Harness) -> None:
        store = await harness.make()
        worker_id = await harness.worker(store)
        late = harness.submission(deadline=harness.clock.now(), start_on=worker_id)
        assert (await store.submit(late)).lease is None
        assert await take(store, worker_id) == []
        assert (await store.get(late.id)).life.status == "timed_out"

    async def test_a_run_behind_another_of_its_agent_is_queued(self, harness: Harness) -> None:
        store = await harness.make()
        worker_id = await harness.worker(store)
        ahead = await harness.submit(store)
        harness.clock.advance(1)
        submitted = await store.submit(harness.submission(start_on=worker_id))
        assert submitted.lease is None
        assert [claim.run.id for claim in await take(store, worker_id)] == [ahead.id, submitted.run.id]

    async def test_a_run_behind_a_lost_one_of_its_agent_is_queued(self, harness: Harness) -> None:
        store = await harness.make()
        lease = await harness.started(store)
        store.abandon_worker(lease.worker)
        submitted = await store.submit(harness.submission(start_on=await harness.worker(store)))
        assert submitted.lease is None

    async def test_runs_of_other_agents_and_those_not_due_or_held_are_not_ahead(self, harness: Harness) -> None:
        store = await harness.make()
        worker_id = await harness.worker(store)
        await harness.ended(store, Held("diverged", by="replay"))
        await harness.submit(store, agent="report")
        await harness.submit(store, delay=60)
        harness.clock.advance(1)
        assert (await store.submit(harness.submission(start_on=worker_id))).lease is not None

    async def test_a_known_key_starts_nothing(self, harness: Harness) -> None:
        store = await harness.make()
        worker_id = await harness.worker(store)
        first = await store.submit(harness.submission(idempotency_key="k-1", start_on=worker_id))
        assert first.lease is not None
        await store.commit(first.lease, Commit(1, outcome=Succeeded(Payload("1"))))
        again = await store.submit(harness.submission(idempotency_key="k-1", start_on=worker_id))
        assert again.lease is None
        assert not again.created
