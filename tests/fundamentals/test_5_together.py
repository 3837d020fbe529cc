"""5. Runs that must not meet: limits over all workers, and sessions in which one goes at a time."""

from stepwell import App, Context, Limit
from stepwell.testing import runtime


async def test_a_limit_counts_runs_that_are_executed_and_the_others_stand_in_line() -> None:
    app = App("shop")
    inside: list[str] = []
    most: dict[str, int] = {}

    async def book(account: str) -> None:
        inside.append(account)
        most[account] = max(most.get(account, 0), inside.count(account))
        await rt.workers.list()
        inside.remove(account)

    @app.agent(concurrency=Limit(1, key=lambda account: account))
    async def entry(ctx: Context, account: str) -> None:
        for _ in range(3):
            await ctx.step(book, account)

    async with runtime(app) as rt:
        runs = [await rt.start(entry, account) for account in ("a", "b", "a", "b", "a")]
        assert all([(await run.result()).ok for run in runs])
        assert most == {"a": 1, "b": 1}
        assert rt.executed == ["book"] * 15


async def test_in_a_synchronized_session_one_run_has_its_turn_until_it_ends() -> None:
    app = App("chat")

    @app.agent(session="synchronized")
    async def turn(ctx: Context, text: str) -> list[str]:
        await ctx.session.add("user", text)
        await ctx.session.add("assistant", await ctx.ask(f"What to say to {text!r}?", str))
        return [message.text for message in await ctx.session.messages()]

    async with runtime(app) as rt:
        first = await rt.start(turn, "hello", session="cust-42")
        second = await rt.start(turn, "still there?", session="cust-42")
        await (await first.question()).answer("good day")
        await (await second.question()).answer("of course")
        assert (await first.result()).output == ["hello", "good day"]
        assert (await second.result()).output == ["hello", "good day", "still there?", "of course"]


async def test_runs_of_a_session_share_values() -> None:
    app = App("counter")

    @app.agent
    async def visit(ctx: Context) -> int:
        count: int = await ctx.session.state.update("visits", lambda visits: visits + 1, default=0)
        return count

    async with runtime(app) as rt:
        for expected in (1, 2, 3):
            assert (await rt.run(visit, session="ada")).output == expected
        assert (await rt.run(visit, session="bob")).output == 1
        assert await (await rt.sessions.get("ada")).state.get("visits", int) == 3
