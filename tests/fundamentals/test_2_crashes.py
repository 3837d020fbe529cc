"""2. A crash loses nothing that was finished. What it interrupts is in doubt, and the step says what then."""

from stepwell import App, Context
from stepwell.testing import runtime


async def test_after_a_crash_the_run_goes_on_with_the_next_step() -> None:
    app = App("orders")

    def charge(amount: int) -> str:
        return f"receipt over {amount}"

    def send(receipt: str) -> str:
        return f"sent: {receipt}"

    @app.agent
    async def order(ctx: Context, amount: int) -> str:
        return await ctx.step(send, await ctx.step(charge, amount))

    async with runtime(app) as rt:
        rt.crash_after("charge")  # kill -9, right after the step is on record
        run = await rt.start(order, 12)
        assert (await run.result()).output == "sent: receipt over 12"
        assert rt.executed == ["charge", "send"]
        assert (await run.refresh()).attempt == 2


async def test_a_step_that_a_crash_interrupts_runs_again_unless_a_function_finds_out() -> None:
    app = App("bank")
    ledger: dict[str, int] = {}
    crashes = iter([True, True, False])

    async def transfer(reference: str, cents: int) -> int:
        ledger[reference] = ledger.get(reference, 0) + cents
        if next(crashes):
            await rt.crash()  # the money has moved, and nothing says so
        return cents

    async def find(reference: str, cents: int) -> int | None:
        return ledger.get(reference)

    @app.agent
    async def careful(ctx: Context) -> int:
        return await ctx.step(transfer, "careful", 100, in_doubt=find)

    @app.agent
    async def careless(ctx: Context) -> int:
        return await ctx.step(transfer, "careless", 100)

    async with runtime(app) as rt:
        assert (await rt.run(careful)).output == 100
        assert (await rt.run(careless)).output == 100
    assert ledger == {"careful": 100, "careless": 200}


async def test_or_a_person_says_what_became_of_it() -> None:
    app = App("bank")

    def transfer(cents: int) -> int:
        raise TimeoutError("the bank did not answer")

    @app.agent
    async def payout(ctx: Context, cents: int) -> int:
        return await ctx.step(transfer, cents, in_doubt="ask")

    async with runtime(app) as rt:
        run = await rt.start(payout, 100)
        question = await run.question()
        await question.answer({"done": 100})
        assert (await run.result()).output == 100
        assert rt.executed == ["transfer"]
