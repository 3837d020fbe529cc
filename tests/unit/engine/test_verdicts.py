"""`in_doubt="ask"`: a person says what became of a step, and the run holds nothing while nobody has."""

import asyncio
from typing import Any

import pytest

from stepwell.app import App
from stepwell.domain import event
from stepwell.domain.errors import NotExecuted, StepFailed
from stepwell.domain.retry import Retry
from stepwell.domain.wait import VERDICT
from stepwell.engine import resumption
from stepwell.ports.context import Context, StepContext
from tests.unit.engine.lives import AFTER_AGENT, Crash, Lives
from tests.unit.engine.samples import double, effect, executed

keys: list[str] = []


@pytest.fixture(autouse=True)
def no_keys() -> None:
    keys.clear()


async def sell(step: StepContext, price: int) -> int:
    effect("sell")
    keys.append(step.idempotency_key)
    return price


async def sell_badly(price: int, times: int = 1000) -> int:
    if effect("sell") <= times:
        raise OSError("the answer got lost")
    return price


def shop(*args: Any, fn: Any = sell, **options: Any) -> Lives:
    """An agent that sells something, and then does something else."""
    app = App("test")

    @app.agent
    async def agent(ctx: Context) -> list[Any]:
        try:
            sold = await ctx.step(fn, 10, *args, in_doubt="ask", **options)
        except StepFailed as error:
            sold = [error.code, error.error_type]
        return [sold, await ctx.step(double, 1)]

    return Lives(app)


async def lost_in_the_step(lives: Lives) -> str:
    run = await lives.submit()
    await lives.live(run, crash=Crash("step.after_function"))
    return run


async def again_and_again(lives: Lives, run: str, verdict: Any) -> None:
    """Let the run end, giving the same verdict whenever somebody is asked."""
    async with lives.working():
        while not (await lives.record(run)).life.ended:
            for _ in await lives.questions(run):
                await lives.answer(run, verdict)
            await asyncio.sleep(0.005)


class TestAfterACrash:
    async def test_a_question_is_asked_and_the_run_parks(self) -> None:
        lives = shop()
        run = await lost_in_the_step(lives)
        async with lives.working() as worker:
            question = await lives.question(run)
            await lives.parked(run)
            await worker.idle()
        assert "step sell may have had its effect" in question.wait.name
        (opened,) = await lives.facts(run, event.WAIT_OPENED)
        assert opened["details"] == {"step": "0/1", "name": "sell"}
        assert opened["schema"] == VERDICT
        assert executed == {"sell": 1}

    @pytest.mark.parametrize("lost_again", [None, "step.after_settlement", "step.after_record", AFTER_AGENT])
    async def test_done_is_the_steps_result(self, lost_again: str | None) -> None:
        lives = shop()
        run = await lost_in_the_step(lives)
        async with lives.working():
            await lives.parked(run)
        await lives.answer(run, {"done": 12})
        if lost_again is not None:
            await lives.live(run, crash=Crash(lost_again))
        await lives.live(run)
        assert await lives.output(run) == [12, 2]
        assert executed == {"sell": 1, "double 1": 1}

    @pytest.mark.parametrize("lost_again", [None, "step.after_failure", "step.before_function", AFTER_AGENT])
    async def test_rerun_runs_it_again_under_the_same_key(self, lost_again: str | None) -> None:
        lives = shop()
        run = await lost_in_the_step(lives)
        async with lives.working():
            await lives.parked(run)
        await lives.answer(run, "rerun")
        if lost_again is not None:
            await lives.live(run, crash=Crash(lost_again))
        await again_and_again(lives, run, "rerun")
        assert await lives.output(run) == [10, 2]
        assert len(set(keys)) == 1
        assert executed == {"sell": 2, "double 1": 1}

    @pytest.mark.parametrize("lost_again", [None, "step.after_failure", AFTER_AGENT])
    async def test_fail_is_its_failure(self, lost_again: str | None) -> None:
        lives = shop()
        run = await lost_in_the_step(lives)
        async with lives.working():
            await lives.parked(run)
        await lives.answer(run, "fail")
        if lost_again is not None:
            await lives.live(run, crash=Crash(lost_again))
        await lives.live(run)
        assert await lives.output(run) == [["step.settled_as_failed", "step.settled_as_failed"], 2]
        assert executed == {"sell": 1, "double 1": 1}

    async def test_a_crash_while_it_is_asked_does_not_ask_again(self) -> None:
        lives = shop()
        run = await lost_in_the_step(lives)
        await lives.live(run, crash=Crash("wait.after_opening"))
        async with lives.working():
            await lives.parked(run)
            await lives.answer(run, {"done": 1})
            await lives.settled(run)
        assert await lives.output(run) == [1, 2]
        assert len(await lives.journal(run, event.WAIT_OPENED)) == 1

    async def test_a_second_doubt_about_the_same_step_is_a_second_question(self) -> None:
        lives = shop()
        run = await lost_in_the_step(lives)
        async with lives.working():
            await lives.parked(run)
        await lives.answer(run, "rerun")
        await lives.live(run, crash=Crash("step.after_function"))
        async with lives.working():
            await lives.answer(run, {"done": 3})
            await lives.settled(run)
        assert await lives.output(run) == [3, 2]
        assert executed == {"sell": 2, "double 1": 1}
        assert len(await lives.journal(run, event.WAIT_OPENED)) == 2

    async def test_a_result_of_another_type_holds_the_run(self) -> None:
        lives = shop()
        run = await lost_in_the_step(lives)
        async with lives.working():
            await lives.answer(run, {"done": "a lot"})
            await lives.settled(run)
            hold = await lives.hold(run)
            assert hold["why"] == "in_doubt"
            await resumption.resume(
                lives.store, lives.clock, await lives.record(run), by="ada", verdict="done", result=11
            )
            await lives.settled(run)
        assert await lives.output(run) == [11, 2]
        assert executed == {"sell": 1, "double 1": 1}

    async def test_a_large_result_goes_by_reference(self) -> None:
        async def big(price: int) -> str:
            effect("big")
            return ""

        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> int:
            return len(await ctx.step(big, 1, in_doubt="ask"))

        lives = Lives(app)
        run = await lost_in_the_step(lives)
        async with lives.working():
            await lives.answer(run, {"done": "x" * 300_000})
            await lives.settled(run)
        assert await lives.output(run) == 300_000
        (done,) = await lives.facts(run, event.STEP_COMPLETED)
        assert "result" not in done


class TestAfterAnError:
    async def asked(self, lives: Lives, *verdicts: Any) -> str:
        run = await lives.submit()
        async with lives.working():
            for number, verdict in enumerate(verdicts, 1):
                await lives.answer(run, verdict)
                await lives.has(run, event.WAIT_CLOSED, number)
            await lives.settled(run)
        return run

    async def test_done_is_its_result(self) -> None:
        lives = shop(fn=sell_badly)
        assert await lives.output(await self.asked(lives, {"done": 5})) == [5, 2]
        assert executed["sell"] == 1

    async def test_rerun_runs_it_again_whatever_its_retry_policy_says(self) -> None:
        lives = shop(2, fn=sell_badly)
        run = await self.asked(lives, "rerun", "rerun")
        assert await lives.output(run) == [10, 2]
        assert executed["sell"] == 3

    async def test_fail_is_its_failure_whatever_its_retry_policy_says(self) -> None:
        lives = shop(2, fn=sell_badly, retry=Retry(9, first_delay=0))
        run = await self.asked(lives, "fail")
        assert (await lives.output(run))[0][0] == "step.settled_as_failed"
        assert executed["sell"] == 1

    async def test_a_timeout_is_a_doubt(self) -> None:
        async def hang(price: int) -> int:
            effect("sell")
            await asyncio.get_running_loop().create_future()
            return price

        lives = shop(fn=hang, timeout=0.01)
        assert await lives.output(await self.asked(lives, {"done": 5})) == [5, 2]

    async def test_what_was_not_executed_is_none(self) -> None:
        async def refuse(price: int) -> int:
            effect("refuse")
            raise NotExecuted("sold out")

        lives = shop(fn=refuse)
        run = await lives.run()
        assert (await lives.output(run))[0] == ["step.error", "NotExecuted"]
        assert await lives.journal(run, event.WAIT_OPENED) == []

    async def test_without_a_doubt_nothing_is_asked(self) -> None:
        lives = shop()
        run = await lives.run()
        assert await lives.output(run) == [10, 2]
        assert await lives.journal(run, event.WAIT_OPENED) == []

    async def test_a_crash_while_it_is_asked_changes_nothing(self) -> None:
        lives = shop(1, fn=sell_badly)
        run = await lives.submit()
        await lives.live(run, crash=Crash("wait.after_opening"))
        async with lives.working():
            await lives.parked(run)
            await lives.answer(run, "rerun")
            await lives.settled(run)
        assert await lives.output(run) == [10, 2]
        assert executed["sell"] == 2
        assert len(await lives.journal(run, event.WAIT_OPENED)) == 1

    async def test_branches_in_doubt_ask_side_by_side(self) -> None:
        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> list[int]:
            return await ctx.gather(
                *(
                    ctx.step(sell_badly, n, name=f"sell {n}", key=key, in_doubt="ask")
                    for n, key in [(0, None), (1, "k"), (2, None)]
                )
            )

        lives = Lives(app)
        run = await lives.submit()
        async with lives.working() as worker:
            await lives.parked(run)
            await worker.idle()
            questions = await lives.questions(run)
            assert len(questions) == 3
            for number in range(3):
                text = next(each.wait.name for each in questions if f"sell {number} " in each.wait.name)
                await lives.answer(run, {"done": number}, text=text)
            await lives.settled(run)
        assert await lives.output(run) == [0, 1, 2]
        assert executed["sell"] == 3
