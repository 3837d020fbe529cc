"""1. A step is done once, then remembered; the code between steps may run again.

These files are the tutorial as tests, to be read from top to bottom. Each agent is declared where it is used.
"""

import itertools
from dataclasses import dataclass
from datetime import date
from enum import StrEnum

from stepwell import App, Context, Fail, Retry, StepFailed
from stepwell.testing import runtime


def double(number: int) -> int:
    return 2 * number


async def test_an_agent_is_an_async_function_over_steps() -> None:
    app = App("arithmetic")

    @app.agent
    async def quadruple(ctx: Context, number: int) -> int:
        twice = await ctx.step(double, number)
        return await ctx.step(double, twice)

    async with runtime(app) as rt:
        result = await rt.run(quadruple, 3)
        assert result.output == 12
        assert result.status == "succeeded"
        assert rt.executed == ["double", "double"]


async def test_a_further_attempt_begins_at_the_top_and_repeats_no_step() -> None:
    app = App("orders")
    between: list[str] = []
    answers = itertools.chain([ConnectionError("no mail server")], itertools.repeat(None))

    def charge() -> str:
        return "receipt"

    def send(receipt: str) -> None:
        if error := next(answers):
            raise error

    @app.agent(retry=Retry(max_attempts=3))
    async def order(ctx: Context) -> str:
        receipt = await ctx.step(charge)
        between.append(f"attempt {ctx.attempt}")
        await ctx.step(send, receipt)
        return receipt

    async with runtime(app, replay_every_step=False) as rt:
        assert (await rt.run(order)).output == "receipt"
        assert rt.executed == ["charge", "send", "send"]
        assert between == ["attempt 1", "attempt 2"]


async def test_a_step_that_failed_for_good_raises_step_failed_and_the_agent_may_go_on() -> None:
    app = App("bank")

    def refuse() -> None:
        raise Fail("no such account", code="bank.no_account")

    @app.agent
    async def careful(ctx: Context) -> str:
        try:
            await ctx.step(refuse, retry=Retry(max_attempts=5))
        except StepFailed as error:
            return error.code
        return "paid"

    async with runtime(app) as rt:
        assert (await rt.run(careful)).output == "bank.no_account"
        assert rt.executed == ["refuse"]  # Fail says that trying again is useless


async def test_an_exception_that_leaves_the_agent_ends_the_run_as_failed() -> None:
    app = App("broken")

    @app.agent
    async def typo(ctx: Context) -> int:
        return await ctx.step(double, 21) // 0

    async with runtime(app) as rt:
        result = await rt.run(typo)
        assert (result.status, result.ok) == ("failed", False)
        assert result.error is not None
        assert result.error.type == "ZeroDivisionError"


class Roast(StrEnum):
    LIGHT = "light"
    DARK = "dark"


@dataclass(frozen=True)
class Bag:
    roast: Roast
    roasted_on: date
    grams: tuple[int, int]


async def test_values_come_back_as_what_they_were() -> None:
    app = App("coffee")
    bag = Bag(Roast.DARK, date(2026, 11, 21), (250, 500))

    def buy(roast: Roast) -> Bag:
        return bag

    @app.agent
    async def shop(ctx: Context, roast: Roast) -> Bag:
        return await ctx.step(buy, roast)

    async with runtime(app) as rt:
        assert (await rt.run(shop, Roast.DARK)).output == bag
        assert (await rt.run("shop", "dark")).output == bag  # by name, with plain data


async def test_several_steps_at_once_give_their_results_in_the_order_of_the_arguments() -> None:
    app = App("market")

    async def quadruple(ctx: Context, number: int) -> int:
        return await ctx.step(double, await ctx.step(double, number))

    @app.agent
    async def market(ctx: Context) -> list[int]:
        doubled = await ctx.map(double, [1, 2, 3], limit=2)
        first, second = await ctx.gather(quadruple(ctx, 4), quadruple(ctx, 5))
        return [*doubled, first, second]

    async with runtime(app) as rt:
        assert (await rt.run(market)).output == [2, 4, 6, 16, 20]
