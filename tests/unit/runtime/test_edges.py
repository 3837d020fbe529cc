"""Where verbs meet: a retry and a detached child, limits of agents with similar names, isolated sessions and deletion,
an answer that does not fit.
"""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path
from typing import Any

import pytest

from stepwell import App, Context, Limit, NotFound, Run, Runtime
from stepwell.agents.function import FunctionRunnable


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/edges.db"


async def waits(run: Run[Any]) -> None:
    """Return when the run waits for something."""
    while (await run.refresh()).status != "waiting":
        await asyncio.sleep(0.005)


async def test_a_retry_takes_over_a_detached_child_that_succeeded(store: str) -> None:
    app = App("edges")
    paid: list[str] = []
    broken = [True]

    def pay(whom: str) -> str:
        paid.append(whom)
        return whom

    @app.agent
    async def payer(ctx: Context, whom: str) -> str:
        return await ctx.step(pay, whom)

    @app.agent
    async def order(ctx: Context, whom: str) -> str:
        child = await ctx.spawn(payer, whom, detach=True)
        if broken[0]:
            raise RuntimeError("no luck")
        return (await child.result()).output

    async with Runtime(app, store=store) as runtime:
        run = await runtime.start(order, "ada")
        assert (await run.result(timeout=10)).status == "failed"
        (child,) = await run.children()
        assert (await child.result(timeout=10)).ok
        broken[0] = False
        again = await run.retry()
        assert (await again.result(timeout=10)).output == "ada"
        assert paid == ["ada"]
        ends = [event.data["status"] async for event in again.events() if event.kind == "child.ended"]
        assert ends == ["succeeded"]


async def test_a_retry_does_not_wait_for_ever_for_a_detached_child_of_the_old_run(store: str) -> None:
    app = App("edges")

    @app.agent
    async def slow(ctx: Context, n: int) -> str:
        return await ctx.wait_for("go", str)

    @app.agent
    async def waiting(ctx: Context, n: int) -> str:
        child = await ctx.spawn(slow, n, detach=True)
        await ctx.step(fail_once)
        return (await child.result()).output

    tries = itertools.count()

    def fail_once() -> int:
        if next(tries) == 0:
            raise RuntimeError("no luck")
        return 1

    async with Runtime(app, store=store) as runtime:
        run = await runtime.start(waiting, 1)
        assert (await run.result(timeout=10)).status == "failed"
        error = (await (await run.retry()).result(timeout=10)).error
        assert error is not None
        assert error.code == "child.foreign"


def test_limits_by_key_of_different_agents_never_meet() -> None:
    app = App("edges")

    async def fn(ctx: Context, key: str) -> None:
        """Does nothing."""

    one = FunctionRunnable(app.agent(name="a", concurrency=Limit(1, key=str))(fn))
    other = FunctionRunnable(app.agent(name="a:b", concurrency=Limit(3, key=str))(fn))
    assert one.lanes('"b:c"', "s")[0].name != other.lanes('"c"', "s")[0].name


async def test_what_update_has_written_is_given_again_without_another_call(store: str) -> None:
    app = App("edges")
    calls = itertools.count(1)

    @app.agent
    async def token(ctx: Context) -> list[int]:
        first = await ctx.session.state.update("token", lambda _: next(calls))
        await ctx.wait_for("go", str)
        return [first, await ctx.session.state.get("token", int)]

    async with Runtime(app, store=store) as runtime:
        run = await runtime.start(token)
        await waits(run)
        await run.signal("go", "x")
        assert (await run.result(timeout=10)).output == [1, 1]
        assert next(calls) == 2


async def test_what_isolated_runs_keep_is_nobodys_to_list_read_or_delete(store: str) -> None:
    app = App("edges")

    @app.agent(session="isolated")
    async def count(ctx: Context) -> None:
        value = await ctx.session.state.update("n", lambda n: n + 1, default=0)
        assert value == 1
        await ctx.wait_for("go", str)
        raise RuntimeError("no luck")

    async with Runtime(app, store=store) as runtime:
        run = await runtime.start(count, session="s")
        await waits(run)
        await run.signal("go", "x")
        assert (await run.result(timeout=10)).status == "failed"
        assert [session.id for session in await runtime.sessions.list() if not session.id[0].isalnum()] == []
        for hidden in (f"~{run.id}", "~", "no such session"):
            with pytest.raises(NotFound):
                await runtime.sessions.get(hidden)
            with pytest.raises(NotFound):
                await runtime.sessions.delete(hidden)


async def test_an_input_that_does_not_fit_the_question_stands_in_line(store: str) -> None:
    app = App("edges")

    @app.agent(session="synchronized", busy="answer")
    async def chat(ctx: Context, text: str) -> str:
        return f"{text}: {await ctx.ask('Which?', int)}"

    @app.agent(session="synchronized", busy="answer")
    async def number(ctx: Context, n: int) -> int:
        return n

    async with Runtime(app, store=store) as runtime:
        asking = await runtime.start(chat, "hello", session="s")
        await asking.question(timeout=10)
        misfit = await runtime.start(chat, "maybe later", session="s")
        assert misfit.id != asking.id
        fitting = await runtime.start(number, 7, session="s")
        assert fitting.id == asking.id
        assert (await asking.result(timeout=10)).output == "hello: 7"


async def test_a_detached_child_in_ones_own_turn_is_not_waited_for(store: str) -> None:
    app = App("edges")

    @app.agent(session="synchronized")
    async def kid(ctx: Context, n: int) -> int:
        return n

    @app.agent(session="synchronized")
    async def parent(ctx: Context, n: int) -> int:
        child = await ctx.spawn(kid, n, detach=True)
        return (await child.result()).output

    async with Runtime(app, store=store) as runtime:
        error = (await runtime.run(parent, 1, session="s", timeout=10)).error
        assert error is not None
        assert error.code == "child.session"


async def test_long_questions_are_told_in_short_where_a_run_parks(store: str) -> None:
    app = App("edges")

    @app.agent
    async def asks(ctx: Context) -> list[bool]:
        return await ctx.gather(*(ctx.ask(f"{n}" * 50_000, bool) for n in range(9)))

    async with Runtime(app, store=store) as runtime:
        run = await runtime.start(asks)
        await waits(run)
        async for event in run.events():
            if event.kind == "run.waiting":
                assert max(len(wait["name"]) for wait in event.data["waits"]) <= 200
                break
        await run.cancel()
