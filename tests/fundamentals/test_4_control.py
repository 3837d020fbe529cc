"""4. Runs can be cancelled, paused and tried again; those that were given up stand in a list."""

from datetime import timedelta

from stepwell import App, Context, Retry
from stepwell.testing import runtime


def note(text: str) -> str:
    return text


def trips() -> App:
    """A hotel is reserved, and given back when the trip is called off."""
    app = App("trips")

    @app.agent
    async def trip(ctx: Context, where: str) -> str:
        await ctx.step(note, where, name="reserve")
        await ctx.wait_for("paid")
        return f"{where} is booked"

    @trip.on_cancel
    async def give_back(ctx: Context) -> None:
        await ctx.step(note, "the hotel", name="release")

    return app


async def test_a_cancelled_run_cleans_up() -> None:
    async with runtime(trips()) as rt:
        run = await rt.start("trip", "Rome")
        await rt.clock.advance(3600)
        assert await run.cancel(reason="changed my mind") == "cancelling"
        assert (await run.result()).status == "cancelled"
        assert rt.executed == ["reserve", "release"]
        assert await run.cancel() == "already_ended"


async def test_a_cancelled_run_takes_its_children_along_but_for_those_that_are_detached() -> None:
    app = App("family")

    @app.agent
    async def child(ctx: Context) -> None:
        await ctx.sleep(timedelta(days=1))

    @app.agent
    async def parent(ctx: Context) -> None:
        await ctx.spawn(child, detach=True)
        await ctx.call(child)

    async with runtime(app) as rt:
        run = await rt.start(parent)
        await rt.clock.advance(60)
        assert await run.cancel() == "cancelled"
        assert {each.status for each in await run.children()} == {"waiting", "cancelled"}


async def test_a_paused_run_keeps_what_arrives_and_goes_on_when_it_is_resumed() -> None:
    async with runtime(trips()) as rt:
        run = await rt.start("trip", "Paris")
        await rt.clock.advance(3600)
        await run.pause(by="ada")
        assert (await run.refresh()).status == "paused"
        await run.signal("paid")
        await rt.clock.advance(timedelta(days=30))
        assert (await run.refresh()).status == "paused"
        await run.resume(by="ada")
        assert (await run.result()).output == "Paris is booked"


async def test_a_run_that_was_given_up_is_retried_as_a_new_run_that_takes_over_what_was_done() -> None:
    app = App("bank")
    is_open = False

    def transfer(order: str) -> str:
        if not is_open:
            raise ConnectionError("nobody answers")
        return f"{order} transferred"

    @app.agent(retry=Retry(max_attempts=2))
    async def payout(ctx: Context, order: str) -> str:
        return await ctx.step(transfer, await ctx.step(note, order))

    async with runtime(app) as rt:
        assert not (await rt.run(payout, "4711")).ok
        [dead] = await rt.runs.list(dead=True)
        is_open = True
        again = await dead.retry()
        assert (await again.result()).output == "4711 transferred"
        assert (again.retry_of, (await dead.refresh()).status) == (dead.id, "failed")
        assert rt.executed == ["note", "transfer", "transfer", "transfer"]
        assert await rt.runs.list(dead=True) == []


async def test_one_idempotency_key_makes_one_run() -> None:
    async with runtime(trips()) as rt:
        first = await rt.start("trip", "Rome", idempotency_key="order-1")
        again = await rt.start("trip", "Rome", idempotency_key="order-1")
        assert again.id == first.id
