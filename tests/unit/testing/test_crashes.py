"""Crashes of the testing runtime: what is recorded stays, and nothing of it is executed again."""

import asyncio
from datetime import timedelta

import pytest

from stepwell import App, Context, Retry, StepwellError
from stepwell.testing import runtime

app = App("crashes")


def pay(amount: int) -> str:
    return f"paid {amount}"


def send(receipt: str) -> str:
    return f"sent: {receipt}"


@app.agent
async def order(ctx: Context, amount: int) -> str:
    receipt = await ctx.step(pay, amount)
    await ctx.sleep(3600)
    return await ctx.step(send, receipt)


@app.agent
async def orders(ctx: Context, amounts: list[int]) -> list[str]:
    return await ctx.map(pay, amounts, key=str)


async def test_a_crash_while_a_run_waits_loses_nothing() -> None:
    async with runtime(app) as rt:
        run = await rt.start(order, 3)
        await rt.clock.advance(60)
        before = await rt.workers.list()
        await rt.crash()
        after = await rt.workers.list()
        assert len(before) == len(after) == 1
        assert before[0].id != after[0].id
        assert (await run.result()).output == "sent: paid 3"
        assert rt.executed == ["pay", "send"]
        assert (await run.refresh()).attempt == 1


async def test_a_crash_right_after_a_step_repeats_none() -> None:
    async with runtime(app) as rt:
        rt.crash_after("pay")
        run = await rt.start(order, 3)
        assert (await run.result()).output == "sent: paid 3"
        assert rt.executed == ["pay", "send"]
        assert (await run.refresh()).attempt == 2
        assert [event.kind async for event in run.events()].count("run.lost") == 1


async def test_a_crash_is_asked_for_by_name_and_key_too_and_comes_once() -> None:
    async with runtime(app) as rt:
        rt.crash_after("pay:2")
        run = await rt.start(orders, [1, 2, 3])
        assert (await run.result()).output == ["paid 1", "paid 2", "paid 3"]
        assert set(rt.executed) == {"pay:1", "pay:2", "pay:3"}
        assert rt.executed.count("pay:2") == 1
        assert (await run.refresh()).attempt == 2


async def test_two_crashes_that_were_asked_for_both_come() -> None:
    async with runtime(app) as rt:
        rt.crash_after("pay")
        rt.crash_after("send")
        run = await rt.start(order, 3)
        assert (await run.result()).ok
        assert rt.executed == ["pay", "send"]
        assert (await run.refresh()).attempt == 3


async def test_a_step_that_a_crash_interrupts_runs_again() -> None:
    begun = asyncio.Event()
    hang = True
    interrupted = App("interrupted")

    @interrupted.agent
    async def slow(ctx: Context) -> str:
        return await ctx.step(work)

    async def work() -> str:
        begun.set()
        if hang:
            await asyncio.Event().wait()
        return "worked"

    async with runtime(interrupted) as rt:
        run = await rt.start(slow)
        await begun.wait()
        hang = False
        await rt.crash()
        assert (await run.result()).output == "worked"
        assert rt.executed == ["work", "work"]
        assert (await run.refresh()).attempt == 2


async def test_a_run_that_takes_its_worker_along_every_time_is_given_up() -> None:
    poison = App("poison")

    @poison.agent
    async def dangerous(ctx: Context) -> None:
        await ctx.step(explode)

    async with runtime(poison) as rt:

        async def explode() -> None:
            await rt.crash()

        result = await rt.run(dangerous)
        assert (result.status, result.reason) == ("failed", "run.lost")
        assert rt.executed == ["explode"] * 3


async def test_a_crash_between_two_tries_makes_the_pause_no_longer() -> None:
    flaky = App("flaky")

    @flaky.agent
    async def patient(ctx: Context) -> str:
        return await ctx.step(knock, retry=Retry(max_attempts=2, first_delay=1800))

    async with runtime(flaky) as rt:
        begin = rt.clock.now()

        def knock() -> str:
            if rt.executed == ["knock"]:
                raise ConnectionError("nobody opens")
            return "open"

        run = await rt.start(patient)
        await rt.clock.advance(1)
        await rt.crash()
        assert (await run.result()).output == "open"
        assert rt.clock.now() - begin <= timedelta(seconds=1800)


async def test_a_run_that_backs_off_can_be_cancelled() -> None:
    hopeless = App("hopeless")

    @hopeless.agent
    async def patient(ctx: Context) -> None:
        await ctx.step(knock, retry=Retry(max_attempts=2, first_delay=1800))

    def knock() -> None:
        raise ConnectionError("nobody opens")

    async with runtime(hopeless) as rt:
        run = await rt.start(patient)
        await rt.clock.advance(1)
        assert await run.cancel() == "cancelling"
        begin = rt.clock.now()
        assert (await run.result()).status == "cancelled"
        assert rt.clock.now() == begin


async def test_a_crash_that_never_comes_is_an_error() -> None:
    async def vain() -> None:
        async with runtime(app) as rt:
            rt.crash_after("pray")
            await rt.run(order, 3)

    with pytest.raises(StepwellError, match="no step 'pray' was executed") as raised:
        await vain()
    assert raised.value.code == "testing.no_crash"
    assert raised.value.hint == "these were: pay, send"


async def test_an_error_of_the_test_goes_before_a_crash_that_never_came() -> None:
    async def fails() -> None:
        async with runtime(app) as rt:
            rt.crash_after("pray")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fails()


async def test_a_killed_worker_writes_nothing_more() -> None:
    """A branch whose step ends after the crash is executed again: the first execution was lost with its worker."""
    begun = asyncio.Event()
    branches = App("branches")
    calls: list[str] = []

    @branches.agent
    async def two(ctx: Context) -> tuple[str, str]:
        return await ctx.gather(ctx.step(quick), ctx.step(late))

    async def quick() -> str:
        calls.append("quick")
        await begun.wait()
        return "quick"

    async def late() -> str:
        calls.append("late")
        begun.set()
        if calls.count("late") == 1:
            await asyncio.Event().wait()
        return "late"

    async with runtime(branches) as rt:
        rt.crash_after("quick")
        assert (await rt.run(two)).output == ("quick", "late")
    assert sorted(calls) == ["late", "late", "quick"]
