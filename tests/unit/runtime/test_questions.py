"""What runs ask: found, checked at the door, answered once, and waited for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

import pytest

from stepwell.app import App
from stepwell.domain.errors import (
    AlreadyAnswered,
    Conflict,
    InvalidInput,
    Misuse,
    NotFound,
    RunEnded,
    WaitTimeout,
)
from stepwell.ports.context import Context
from stepwell.runtime import Question, Run, Runtime

MEMORY = "memory://"


class Verdict(StrEnum):
    ALLOW = "allow"
    DENY = "deny"


@dataclass(frozen=True)
class Terms:
    price: int
    note: str = ""


app = App("test")


@app.agent
async def judge(ctx: Context, what: str) -> str:
    verdict = await ctx.ask(
        f"Allow {what}?", Verdict, details={"what": what}, assignee="ada", timeout=timedelta(days=1)
    )
    return f"{type(verdict).__name__} {verdict}"


@app.agent
async def bargain(ctx: Context) -> int:
    terms = await ctx.ask("Which terms?", Terms)
    return terms.price


@app.agent
async def two(ctx: Context) -> list[bool]:
    return list(await ctx.gather(ctx.ask("First?", bool), ctx.ask("Second?", bool)))


@app.agent
async def silent(ctx: Context) -> str:
    return "done"


@app.agent
async def idle(ctx: Context) -> None:
    await ctx.wait_for("never")


@app.agent
async def hasty(ctx: Context) -> str:
    return await ctx.ask("Quick?", str, timeout=0.01, default="too late")


@pytest.fixture
async def runtime() -> AsyncIterator[Runtime[Any]]:
    async with Runtime(app, store=MEMORY) as opened:
        yield opened


async def asked(runtime: Runtime[Any], agent: Any, *words: Any) -> tuple[Run[Any], Question[Any]]:
    run = await runtime.start(agent, *words)
    return run, await run.question(timeout=10)


class TestReading:
    async def test_a_question_says_what_is_asked_of_whom_and_until_when(self, runtime: Runtime[Any]) -> None:
        run, question = await asked(runtime, judge, "x")
        assert question.id.startswith("q_")
        assert (question.text, question.details, question.assignee) == ("Allow x?", {"what": "x"}, "ada")
        assert (question.run_id, question.agent) == (run.id, "judge")
        assert question.schema["enum"] == ["allow", "deny"]
        assert question.until is not None
        assert question.until - question.asked_at > timedelta(hours=23)
        assert datetime.now(UTC) - question.asked_at < timedelta(minutes=1)
        assert (question.outcome, question.answered_by) == (None, None)

    async def test_what_was_not_given_is_nothing(self, runtime: Runtime[Any]) -> None:
        _, question = await asked(runtime, bargain)
        assert (question.details, question.assignee, question.until) == (None, None, None)

    async def test_open_questions_are_listed_oldest_first(self, runtime: Runtime[Any]) -> None:
        first, one = await asked(runtime, judge, "a")
        _, other = await asked(runtime, bargain)
        assert [found.id for found in await runtime.questions.list()] == [one.id, other.id]
        assert [found.id for found in await runtime.questions.list(limit=1)] == [one.id]
        assert [found.id for found in await runtime.questions.list(assignee="ada")] == [one.id]
        assert await runtime.questions.list(assignee="bob") == []
        assert [found.id for found in await runtime.questions.list(run=first.id)] == [one.id]
        await one.answer("deny")
        assert [found.id for found in await runtime.questions.list()] == [other.id]

    async def test_one_is_read_by_its_id_open_or_not(self, runtime: Runtime[Any]) -> None:
        _, question = await asked(runtime, judge, "a")
        await question.answer("deny", by="ada")
        read = await runtime.questions.get(question.id)
        assert (read.outcome, read.answered_by) == ("answered", "ada")
        with pytest.raises(NotFound) as unknown:
            await runtime.questions.get("q_nothing")
        assert unknown.value.code == "question.unknown"

    async def test_nothing_is_asked_outside_of_a_runtime(self) -> None:
        with pytest.raises(Misuse):
            await Runtime(app, store=MEMORY).questions.list()


class TestAnswering:
    @pytest.mark.parametrize("answer", [Verdict.DENY, "deny"], ids=["typed", "plain"])
    async def test_the_agent_receives_what_it_asked_for(self, runtime: Runtime[Any], answer: Any) -> None:
        run, question = await asked(runtime, judge, "a")
        await question.answer(answer)
        assert (await run.result()).output == "Verdict deny"

    async def test_typed_objects_are_taken(self, runtime: Runtime[Any]) -> None:
        run, question = await asked(runtime, bargain)
        await question.answer(Terms(7))
        assert (await run.result()).output == 7

    async def test_a_question_is_answered_by_its_id(self, runtime: Runtime[Any]) -> None:
        run, question = await asked(runtime, bargain)
        await runtime.questions.answer(question.id, {"price": 8}, by="bob")
        assert (await run.result()).output == 8
        assert (await runtime.questions.get(question.id)).answered_by == "bob"

    async def test_without_a_name_it_was_the_api(self, runtime: Runtime[Any]) -> None:
        _, question = await asked(runtime, bargain)
        await question.answer({"price": 8})
        assert question.answered_by == "api"

    async def test_what_does_not_fit_is_refused_and_the_question_stays_open(self, runtime: Runtime[Any]) -> None:
        run, question = await asked(runtime, bargain)
        with pytest.raises(InvalidInput) as refused:
            await question.answer({"price": "much"})
        assert (refused.value.code, refused.value.path) == ("answer.invalid", "answer.price")
        assert [found.id for found in await runtime.questions.list(run=run.id)] == [question.id]

    async def test_an_answer_has_a_largest_size(self, runtime: Runtime[Any]) -> None:
        _, question = await asked(runtime, bargain)
        with pytest.raises(InvalidInput, match="MiB"):
            await question.answer(Terms(1, "x" * 1_100_000))

    async def test_a_large_answer_lies_beside_the_journal(self, runtime: Runtime[Any]) -> None:
        run, question = await asked(runtime, bargain)
        await question.answer(Terms(9, "x" * 300_000))
        assert (await run.result()).output == 9
        closed = [told async for told in run.events() if told.kind == "wait.closed"]
        assert "ref" in closed[0].data

    async def test_the_first_answer_counts(self, runtime: Runtime[Any]) -> None:
        _, question = await asked(runtime, judge, "a")
        await question.answer("allow")
        with pytest.raises(AlreadyAnswered):
            await question.answer("deny")

    async def test_after_the_end_of_the_run_it_is_closed(self, runtime: Runtime[Any]) -> None:
        run, question = await asked(runtime, judge, "a")
        await run.cancel()
        await run.result(timeout=10)
        with pytest.raises(Conflict) as refused:
            await question.answer("allow")
        assert refused.value.code == "question.closed"

    @pytest.mark.parametrize("by", ["", "x" * 2001, 5, "a\0"])
    async def test_who_answers_is_a_short_text(self, runtime: Runtime[Any], by: Any) -> None:
        _, question = await asked(runtime, judge, "a")
        with pytest.raises(InvalidInput) as refused:
            await question.answer("allow", by=by)
        assert refused.value.code == "input.by"


class TestWaitingForOne:
    async def test_the_oldest_comes_first(self, runtime: Runtime[Any]) -> None:
        run, first = await asked(runtime, two)
        await first.answer(True)
        second = await run.question(timeout=10)
        await second.answer(False)
        assert {first.text, second.text} == {"First?", "Second?"}
        assert sorted((await run.result()).output) == [False, True]

    async def test_it_waits_until_one_is_asked(self, runtime: Runtime[Any]) -> None:
        run = await runtime.start(judge, "a", delay=0.05)
        waiting = asyncio.create_task(run.question(timeout=10))
        assert (await waiting).text == "Allow a?"

    async def test_a_run_that_ends_without_one_says_how_it_ended(self, runtime: Runtime[Any]) -> None:
        run = await runtime.start(silent)
        with pytest.raises(RunEnded, match="succeeded"):
            await run.question(timeout=10)

    async def test_it_waits_no_longer_than_it_is_told_to(self, runtime: Runtime[Any]) -> None:
        run = await runtime.start(idle)
        with pytest.raises(WaitTimeout) as waited:
            await run.question(timeout=0.01)
        assert waited.value.run_id == run.id

    async def test_a_question_whose_time_is_over_is_open_no_more(self, runtime: Runtime[Any]) -> None:
        run = await runtime.start(hasty)
        assert (await run.result(timeout=10)).output == "too late"
        assert await runtime.questions.list() == []


class TestFinding:
    async def test_a_person_may_type_the_ending_or_last(self, runtime: Runtime[Any]) -> None:
        _, older = await asked(runtime, judge, "a")
        _, newer = await asked(runtime, bargain)
        assert (await runtime.questions.find(older.id)).id == older.id
        assert (await runtime.questions.find(older.id[-6:].upper())).id == older.id
        assert (await runtime.questions.find("last")).id == newer.id

    async def test_a_run_in_place_of_a_question_is_told_with_what_it_asks(self, runtime: Runtime[Any]) -> None:
        run, question = await asked(runtime, judge, "a")
        for text in (run.id, run.id[-6:]):
            with pytest.raises(NotFound, match="is a run, not a question") as refused:
                await runtime.questions.find(text)
            assert refused.value.hint == f"the run asks: {question.id} 'Allow a?'"
        await question.answer("deny")
        await run.result()
        with pytest.raises(NotFound) as refused:
            await runtime.questions.find(run.id)
        assert refused.value.hint == "the run asks nothing now"

    async def test_what_names_none_or_several_is_refused(self, runtime: Runtime[Any]) -> None:
        for text in ("last", "abc", "zzzzzz"):
            with pytest.raises(NotFound) as unknown:
                await runtime.questions.find(text)
            assert unknown.value.code == "question.unknown"


class TestDoubts:
    async def test_a_question_about_a_step_in_doubt_says_so_and_takes_a_verdict(self, runtime: Runtime[Any]) -> None:
        shop = App("shop")

        async def pay() -> str:
            raise ValueError("lost the line")

        @shop.agent
        async def buy(ctx: Context) -> str:
            return await ctx.step(pay, in_doubt="ask")

        async with Runtime(shop, store=MEMORY) as opened:
            run, question = await asked(opened, buy)
            assert question.about_doubt
            with pytest.raises(InvalidInput):
                await question.answer("done")
            await question.answer({"done": "paid"})
            assert (await run.result(timeout=10)).output == "paid"
        _, ordinary = await asked(runtime, judge, "a")
        assert not ordinary.about_doubt


class TestFieldsWithOtherNames:
    async def test_they_are_known_outside_by_their_aliases(self) -> None:
        from pydantic import BaseModel, Field

        class Booking(BaseModel):
            day: str = Field(alias="theDay")

        shop = App("shop")

        @shop.agent
        async def book(ctx: Context) -> list[str]:
            asked = await ctx.ask("When?", Booking)
            sent = await ctx.wait_for("when", Booking)
            return [asked.day, sent.day]

        async with Runtime(shop, store=MEMORY) as opened:
            run, question = await asked(opened, book)
            assert list(question.schema["properties"]) == ["theDay"]
            await question.answer({"theDay": "monday"})
            await run.signal("when", Booking(theDay="tuesday"))
            assert (await run.result(timeout=10)).output == ["monday", "tuesday"]
