"""What `Store.answer`, `question` and `questions` must do: one answer to each question, and a list of the open ones."""

from __future__ import annotations

import asyncio

import pytest

from stepwell.domain.commit import Commit
from stepwell.domain.errors import AlreadyAnswered, Conflict, NotFound
from stepwell.domain.outcome import NEVER, Payload, Succeeded
from stepwell.domain.values import loads
from stepwell.domain.wait import WaitRecord
from stepwell.ports.store import QuestionQuery, Store
from stepwell.testing.conformance.harness import AGENT, SECOND, Harness, append, events, is_due, stored, take


class QuestionContract:
    """People are asked, and answer."""

    async def test_a_question_can_be_read_as_it_was_asked(self, harness: Harness) -> None:
        one, other = await harness.views()
        question = harness.question("Ship it?", assignee="ann", step="0/3", until=harness.clock.now() + SECOND)
        run = await harness.parked(one, question, tenant="acme")
        record = await other.question(question.id, tenant="acme")
        assert record == WaitRecord(question, run.id, "acme", AGENT, run.life.updated_at)

    async def test_an_answer_closes_the_question_and_makes_the_run_due(self, harness: Harness) -> None:
        one, other = await harness.views()
        question = harness.question(step="0/3")
        run = await harness.parked(one, question)
        harness.clock.advance(1)
        record = await other.answer(question.id, Payload('{"ok":true}'), by="ann")
        assert (record.outcome, record.by, record.closed_at) == ("answered", "ann", harness.clock.now())
        assert (record.wait, record.run_id) == (question, run.id)
        assert await one.question(question.id) == record
        entry = (await events(one, run.id))[-1]
        assert (entry.kind, entry.step, entry.at) == ("wait.closed", "0/3", harness.clock.now())
        assert loads(entry.data) == {"wait": question.id, "outcome": "answered", "by": "ann", "value": {"ok": True}}
        assert (await one.get(run.id)).life.available_at == harness.clock.now()
        assert await is_due(one, await harness.worker(one), run.id)

    async def test_an_answer_that_lies_elsewhere_is_referred_to(self, harness: Harness) -> None:
        store = await harness.make()
        ref = await store.put_blob(b'"a long answer"')
        question = harness.question()
        run = await harness.parked(store, question)
        await store.answer(question.id, Payload(None, ref, 15), by="ann")
        data = loads((await events(store, run.id))[-1].data)
        assert isinstance(data, dict)
        assert data["ref"] == {"blob": ref, "size": 15, "of": "value"}

    async def test_an_answer_goes_to_its_question_only(self, harness: Harness) -> None:
        store = await harness.make()
        questions = [harness.question("Ship it?", step=f"0/{number}") for number in range(3)]
        run = await harness.parked(store, *questions)
        await store.answer(questions[1].id, Payload("true"), by="ann")
        assert [(await store.question(question.id)).outcome for question in questions] == [None, "answered", None]
        assert (await events(store, run.id))[-1].step == "0/1"

    async def test_the_first_answer_stays(self, harness: Harness) -> None:
        store = await harness.make()
        question = harness.question()
        run = await harness.parked(store, question)
        first = await store.answer(question.id, Payload("true"), by="ann")
        before = await stored(store, run.id)
        with pytest.raises(AlreadyAnswered) as refused:
            await store.answer(question.id, Payload("false"), by="bob")
        assert refused.value.code == "question.answered"
        assert await stored(store, run.id) == before
        assert await store.question(question.id) == first

    async def test_of_many_who_answer_at_once_one_does(self, harness: Harness) -> None:
        views = await harness.views()
        question = harness.question()
        run = await harness.parked(views[0], question)
        calls = [views[n % 2].answer(question.id, Payload(str(n)), by=f"person {n}") for n in range(20)]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        [winner] = [answer for answer in answers if isinstance(answer, WaitRecord)]
        assert sum(isinstance(answer, AlreadyAnswered) for answer in answers) == 19
        entry = (await events(views[0], run.id))[-1]
        data = loads(entry.data)
        assert isinstance(data, dict)
        assert (entry.seq, data["by"]) == (run.life.seq + 1, winner.by)

    async def test_a_question_whose_time_is_over_takes_no_answer(self, harness: Harness) -> None:
        store = await harness.make()
        lease = await harness.started(store)
        question = harness.question()
        await store.commit(lease, Commit(1, opens=(question,)))
        await store.commit(lease, Commit(2, expires=(question.id,)))
        await self._refused(store, question.id)
        record = await store.question(question.id)
        assert (record.outcome, record.closed_at) == ("timed_out", harness.clock.now())

    async def test_a_question_takes_no_answer_once_its_time_is_over(self, harness: Harness) -> None:
        store = await harness.make()
        until = harness.clock.now() + SECOND
        questions = harness.question(until=until), harness.question(until=until)
        await harness.parked(store, *questions, wake_at=until)
        harness.clock.advance(0.9)
        assert (await store.answer(questions[0].id, Payload("true"), by="ann")).outcome == "answered"
        harness.clock.advance(0.1)
        await self._refused(store, questions[1].id)
        assert (await store.question(questions[1].id)).outcome is None

    async def test_a_question_of_an_ended_run_takes_no_answer(self, harness: Harness) -> None:
        store = await harness.make()
        lease = await harness.started(store)
        question = harness.question()
        await store.commit(lease, Commit(1, opens=(question,)))
        await store.commit(lease, Commit(2, outcome=Succeeded(Payload("1"))))
        before = await stored(store, lease.run_id)
        await self._refused(store, question.id)
        assert (await store.question(question.id)).outcome == "run_ended"
        assert await stored(store, lease.run_id) == before
        assert before[1][-1].kind == "run.succeeded"

    async def test_a_question_of_a_cancelled_run_takes_no_answer(self, harness: Harness) -> None:
        store = await harness.make()
        question = harness.question()
        run = await harness.parked(store, question)
        await store.cancel(run.id, by="ann")
        await self._refused(store, question.id)

    async def test_what_is_no_question_is_not_found(self, harness: Harness) -> None:
        store = await harness.make()
        question, wait = harness.question(), harness.signal_wait("go")
        await harness.parked(store, question, wait, tenant="acme")
        for unknown, tenant in ((question.id, ""), (question.id, "other"), (wait.id, "acme"), ("q_unknown", "acme")):
            with pytest.raises(NotFound) as refused:
                await store.answer(unknown, Payload("true"), by="ann", tenant=tenant)
            assert refused.value.code == "question.unknown"
            with pytest.raises(NotFound):
                await store.question(unknown, tenant=tenant)
        assert (await store.question(question.id, tenant="acme")).outcome is None

    async def test_an_answer_does_not_disturb_the_holder(self, harness: Harness) -> None:
        one, other = await harness.views()
        lease = await harness.started(one)
        question = harness.question()
        await one.commit(lease, Commit(1, opens=(question,)))
        await other.answer(question.id, Payload("true"), by="ann")
        assert (await append(one, lease, 2, "goes on")).seq == 5
        assert (await one.get(lease.run_id)).life.status == "running"

    async def test_a_held_run_keeps_the_answer_and_is_due_when_it_is_resumed(self, harness: Harness) -> None:
        store = await harness.make()
        question = harness.question()
        run = await harness.parked(store, question)
        await store.pause(run.id, by="ann")
        await store.answer(question.id, Payload("true"), by="ann")
        worker_id = await harness.worker(store)
        assert not await is_due(store, worker_id, run.id)
        await store.resume(run.id, at_seq=(await store.get(run.id)).life.seq, by="ann")
        assert await is_due(store, worker_id, run.id)

    async def test_a_signal_answers_no_question(self, harness: Harness) -> None:
        store = await harness.make()
        question = harness.question("go")
        run = await harness.parked(store, question)
        await store.signal(run.id, harness.signal("go"))
        assert (await store.question(question.id)).outcome is None
        assert (await store.get(run.id)).life.available_at == NEVER

    async def _refused(self, store: Store, question_id: str) -> None:
        with pytest.raises(Conflict) as refused:
            await store.answer(question_id, Payload("true"), by="ann")
        assert refused.value.code == "question.closed"


class InboxContract:
    """The open questions are listed."""

    async def test_only_open_questions_are_listed_oldest_first(self, harness: Harness) -> None:
        one, other = await harness.views()
        questions = [harness.question(str(number)) for number in range(5)]
        for question in questions[::-1]:
            await harness.parked(one, question, harness.signal_wait("go"))
            harness.clock.advance(1)
        await one.answer(questions[1].id, Payload("true"), by="ann")
        await one.cancel((await one.question(questions[3].id)).run_id, by="ann")
        listed = await other.questions(QuestionQuery())
        assert [record.wait for record in listed] == [questions[4], questions[2], questions[0]]
        assert listed == [await one.question(record.wait.id) for record in listed]

    async def test_questions_are_listed_by_run_by_assignee_and_by_ending(self, harness: Harness) -> None:
        store = await harness.make()
        mine, yours, nobodys = [harness.question("Ship it?", assignee=who) for who in ("ann", "bob", None)]
        run = await harness.parked(store, mine, yours)
        await harness.parked(store, nobodys)
        assert await self._listed(store, QuestionQuery(run_id=run.id)) == {mine.id, yours.id}
        assert await self._listed(store, QuestionQuery(assignee="bob")) == {yours.id}
        assert await self._listed(store, QuestionQuery(assignee="Ann")) == set()
        assert await self._listed(store, QuestionQuery(ending=nobodys.id[-8:])) == {nobodys.id}
        assert await self._listed(store, QuestionQuery(run_id=run.id, assignee="ann")) == {mine.id}
        assert await self._listed(store, QuestionQuery(run_id="run_unknown")) == set()

    async def test_an_ending_means_itself(self, harness: Harness) -> None:
        store = await harness.make()
        await harness.parked(store, harness.question())
        assert await self._listed(store, QuestionQuery(ending="%")) == set()
        assert await self._listed(store, QuestionQuery(ending="_")) == set()

    async def test_a_listing_ends_at_its_limit(self, harness: Harness) -> None:
        store = await harness.make()
        questions = []
        for number in range(4):
            questions.append(harness.question(str(number)))
            await harness.parked(store, questions[-1])
            harness.clock.advance(1)
        listed = await store.questions(QuestionQuery(limit=2))
        assert [record.wait for record in listed] == questions[:2]

    async def test_a_tenant_sees_its_own_questions(self, harness: Harness) -> None:
        store = await harness.make()
        question = harness.question()
        await harness.parked(store, question, tenant="acme")
        assert await self._listed(store, QuestionQuery()) == set()
        assert await self._listed(store, QuestionQuery(tenant="acme")) == {question.id}

    async def test_questions_of_runs_in_other_hands_are_listed(self, harness: Harness) -> None:
        store = await harness.make()
        lease = await harness.started(store)
        question = harness.question()
        await store.commit(lease, Commit(1, opens=(question,)))
        assert await self._listed(store, QuestionQuery()) == {question.id}
        assert await take(store, await harness.worker(store)) == []

    async def _listed(self, store: Store, query: QuestionQuery) -> set[str]:
        return {record.wait.id for record in await store.questions(query)}
