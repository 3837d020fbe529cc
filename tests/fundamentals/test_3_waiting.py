"""3. A run that waits is a row in the store, and nothing else: for a time, a person, a message, another run."""

from datetime import datetime, timedelta

import pytest

from stepwell import AlreadyAnswered, App, AskTimeout, Context, InvalidInput
from stepwell.testing import runtime


def note(text: str) -> str:
    return text


async def test_a_sleep_ends_at_its_moment_whatever_happens_in_between() -> None:
    app = App("post")

    @app.agent
    async def remind(ctx: Context) -> datetime:
        await ctx.sleep(timedelta(days=3))
        return ctx.now()

    async with runtime(app) as rt:
        begin = rt.clock.now()
        run = await rt.start(remind)
        await rt.clock.advance(timedelta(days=1))
        await rt.crash()
        assert (await run.result()).output - begin == timedelta(days=3)


async def test_a_parked_run_is_in_nobodys_hands() -> None:
    app = App("post")

    @app.agent
    async def remind(ctx: Context) -> None:
        await ctx.sleep(timedelta(days=3))

    async with runtime(app) as rt:
        run = await rt.start(remind)
        await rt.clock.advance(1)
        run = await run.refresh()
        assert run.status == "waiting"
        assert run.available_at == rt.clock.now() + timedelta(days=3, seconds=-1)
        assert [worker.running for worker in await rt.workers.list()] == [0]


async def test_a_person_is_asked_and_the_first_answer_counts() -> None:
    app = App("refunds")

    @app.agent
    async def refund(ctx: Context, order: str) -> str:
        if await ctx.ask(f"Refund {order}?", bool, assignee="billing"):
            return await ctx.step(note, f"{order} refunded")
        return "refused"

    async with runtime(app) as rt:
        run = await rt.start(refund, "4711")
        question = await run.question()
        assert (question.text, question.assignee) == ("Refund 4711?", "billing")
        with pytest.raises(InvalidInput):
            await question.answer("perhaps")
        await question.answer(True)
        with pytest.raises(AlreadyAnswered):
            await question.answer(False)
        assert (await run.result()).output == "4711 refunded"


async def test_silence_is_an_answer_too_if_the_agent_says_so() -> None:
    app = App("refunds")

    @app.agent
    async def patient(ctx: Context) -> tuple[bool, str]:
        silent = await ctx.ask("Refund?", bool, timeout=timedelta(days=2), default=False)
        try:
            await ctx.ask("Really not?", bool, timeout=3600)
        except AskTimeout as error:
            return silent, error.code
        return silent, "answered"

    async with runtime(app) as rt:
        begin = rt.clock.now()
        assert (await rt.run(patient)).output == (False, "ask.timeout")
        assert rt.clock.now() - begin == timedelta(days=2, hours=1)


async def test_signals_are_taken_in_order_also_those_that_came_early_and_each_once() -> None:
    app = App("parcels")

    @app.agent
    async def track(ctx: Context) -> list[str]:
        return [await ctx.wait_for("scan", str) for _ in range(3)]

    async with runtime(app) as rt:
        run = await rt.start(track, delay=3600)
        assert await run.signal("scan", "Hamburg", id="1")
        assert not await run.signal("scan", "Hamburg", id="1")
        await run.signal("scan", "Hannover")
        await rt.clock.advance(timedelta(days=1))
        await run.signal("scan", "Munich")
        assert (await run.result()).output == ["Hamburg", "Hannover", "Munich"]


async def test_children_are_runs_that_a_run_starts_once_and_waits_for() -> None:
    app = App("kitchen")

    @app.agent
    async def cook(ctx: Context, dish: str) -> str:
        await ctx.sleep(timedelta(minutes=20))
        return await ctx.step(note, f"{dish}, cooked")

    @app.agent
    async def menu(ctx: Context) -> list[str]:
        soup = await ctx.spawn(cook, "soup")
        main = await ctx.call(cook, "fish")
        return [(await soup.result()).output, main]

    async with runtime(app) as rt:
        begin = rt.clock.now()
        run = await rt.start(menu)
        await rt.clock.advance(timedelta(minutes=10))
        await rt.crash()
        assert (await run.result()).output == ["soup, cooked", "fish, cooked"]
        assert rt.clock.now() - begin == timedelta(minutes=20)
        assert len(await run.children()) == 2


async def test_waits_in_branches_wait_together() -> None:
    app = App("contracts")

    @app.agent
    async def sign(ctx: Context) -> bool:
        sales, legal = await ctx.gather(
            ctx.ask("Sign?", bool, assignee="sales"), ctx.ask("Sign?", bool, assignee="legal")
        )
        return sales and legal

    async with runtime(app) as rt:
        run = await rt.start(sign)
        await run.question()
        questions = await rt.questions.list()
        assert {question.assignee for question in questions} == {"sales", "legal"}
        for question in questions:
            await question.answer(True)
        assert (await run.result()).output is True
