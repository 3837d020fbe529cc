"""What an agent declares about meeting others: limits, sessions, children, and its clean-up after a cancel."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Literal

import pytest

from stepwell.app import App, Limit
from stepwell.domain.errors import Busy, InvalidInput
from stepwell.ports.context import Context
from stepwell.runtime import Run, Runtime

MEMORY = "memory://"


class Gauge:
    """Counts who is inside of it at once."""

    def __init__(self) -> None:
        self.inside: list[str] = []
        self.most = 0
        self.order: list[str] = []
        self.open = asyncio.Event()

    async def pass_through(self, name: str) -> str:
        self.inside.append(name)
        self.order.append(name)
        self.most = max(self.most, len(self.inside))
        await self.open.wait()
        self.inside.remove(name)
        return name


async def until(condition: Callable[[], Awaitable[Any] | Any]) -> None:
    """Return as soon as the condition holds."""
    async with asyncio.timeout(10):
        while True:
            answer = condition()
            if await answer if isinstance(answer, Awaitable) else answer:
                return
            await asyncio.sleep(0.005)


def gauged(app: App[Any], gauge: Gauge, **options: Any) -> Any:
    """An agent whose runs pass through the gauge."""

    async def visit(ctx: Context, name: str) -> str:
        return await ctx.step(gauge.pass_through, name)

    return app.agent(name=options.pop("name", "visit"), **options)(visit)


async def settled(runtime: Runtime[Any], runs: list[Run[Any]], gauge: Gauge, inside: int) -> None:
    """Wait until as many are inside as may be, see that nobody else comes, and let all go on."""
    await until(lambda: len(gauge.inside) == inside)

    async def others_wait() -> bool:
        now = [await run.refresh() for run in runs]
        return sum(run.status == "queued" for run in now) == len(runs) - inside

    await until(others_wait)
    gauge.open.set()
    for run in runs:
        assert (await run.result(timeout=10)).ok


class TestLimits:
    async def test_without_a_limit_all_run_at_once(self) -> None:
        app, gauge = App("app"), Gauge()
        visit = gauged(app, gauge)
        async with Runtime(app, store=MEMORY) as runtime:
            runs = [await runtime.start(visit, f"{n}") for n in range(4)]
            await settled(runtime, runs, gauge, 4)

    async def test_an_agents_limit_holds_for_its_runs(self) -> None:
        app, gauge = App("app"), Gauge()
        visit, other = gauged(app, gauge, concurrency=2), gauged(app, gauge, name="other")
        async with Runtime(app, store=MEMORY) as runtime:
            runs = [await runtime.start(visit, f"{n}") for n in range(4)] + [await runtime.start(other, "x")]
            await settled(runtime, runs, gauge, 3)

    async def test_a_limit_by_key_holds_for_each_key(self) -> None:
        app, gauge = App("app"), Gauge()
        visit = gauged(app, gauge, concurrency=Limit(1, key=lambda name: name[0]))
        async with Runtime(app, store=MEMORY) as runtime:
            runs = [await runtime.start(visit, name) for name in ("a1", "a2", "b1", "b2", "c1")]
            await settled(runtime, runs, gauge, 3)

    async def test_an_apps_limit_holds_for_all_of_its_agents(self) -> None:
        app, gauge = App("app", limit=3), Gauge()
        agents = [gauged(app, gauge, name=name) for name in ("one", "two")]
        async with Runtime(app, store=MEMORY) as runtime:
            runs = [await runtime.start(agents[n % 2], f"{n}") for n in range(5)]
            await settled(runtime, runs, gauge, 3)

    async def test_an_input_without_a_key_is_refused_and_leaves_nothing_behind(self) -> None:
        app, gauge = App("app"), Gauge()
        visit = gauged(app, gauge, concurrency=Limit(1, key=lambda name: name[0]))
        async with Runtime(app, store=MEMORY) as runtime:
            with pytest.raises(InvalidInput) as refused:
                await runtime.start(visit, "")
            assert refused.value.code == "input.limit_key"
            assert await runtime.runs.list() == []


class TestSessions:
    async def test_runs_of_a_shared_session_meet(self) -> None:
        app, gauge = App("app"), Gauge()
        visit = gauged(app, gauge)
        async with Runtime(app, store=MEMORY) as runtime:
            runs = [await runtime.start(visit, f"{n}", session="s") for n in range(3)]
            await settled(runtime, runs, gauge, 3)

    async def test_runs_of_a_synchronized_session_go_one_after_the_other_in_the_order_of_their_start(self) -> None:
        app, gauge = App("app"), Gauge()
        visit = gauged(app, gauge, session="synchronized")
        async with Runtime(app, store=MEMORY) as runtime:
            runs = [await runtime.start(visit, f"{n}", session="s") for n in range(4)]
            await settled(runtime, runs, gauge, 1)
        assert (gauge.most, gauge.order) == (1, ["0", "1", "2", "3"])

    @pytest.mark.parametrize(("mode", "seen"), [("shared", 2), ("isolated", 1)])
    async def test_an_isolated_run_sees_only_what_it_wrote(
        self, mode: Literal["shared", "isolated"], seen: int
    ) -> None:
        app = App("app")

        @app.agent(session=mode)
        async def say(ctx: Context, text: str) -> int:
            await ctx.session.add("user", text)
            return len(await ctx.session.messages())

        async with Runtime(app, store=MEMORY) as runtime:
            await runtime.run(say, "one", session="s")
            assert (await runtime.run(say, "two", session="s")).output == seen


class TestBusySessions:
    def make(self, busy: Any) -> tuple[App[Any], Any]:
        app = App("app")

        @app.agent(session="synchronized", busy=busy)
        async def ask(ctx: Context, text: str) -> str:
            return f"{text} {await ctx.ask('Which?', str)}"

        return app, ask

    async def first(self, runtime: Runtime[Any], ask: Any) -> Run[Any]:
        """A run that is in the session, and asks."""
        run = await runtime.start(ask, "first", session="s")
        await run.question(timeout=10)
        return run

    async def test_by_default_the_next_one_stands_in_line(self) -> None:
        app, ask = self.make("queue")
        async with Runtime(app, store=MEMORY) as runtime:
            first = await self.first(runtime, ask)
            second = await runtime.start(ask, "second", session="s")
            assert (second.id != first.id, second.status) == (True, "queued")
            await (await first.question(timeout=10)).answer("a")
            await (await second.question(timeout=10)).answer("b")
            assert (await second.result(timeout=10)).output == "second b"

    async def test_it_may_be_rejected(self) -> None:
        app, ask = self.make("reject")
        async with Runtime(app, store=MEMORY) as runtime:
            await self.first(runtime, ask)
            with pytest.raises(Busy) as refused:
                await runtime.start(ask, "second", session="s")
            assert refused.value.code == "session.busy"
            assert len(await runtime.runs.list()) == 1
            assert (await runtime.start(ask, "other", session="t")).session_id == "t"

    async def test_it_may_interrupt(self) -> None:
        app, ask = self.make("interrupt")
        async with Runtime(app, store=MEMORY) as runtime:
            first = await self.first(runtime, ask)
            second = await runtime.start(ask, "second", session="s")
            assert (await first.result(timeout=10)).status == "cancelled"
            await (await second.question(timeout=10)).answer("b")
            assert (await second.result(timeout=10)).output == "second b"

    async def test_it_may_be_the_answer(self) -> None:
        app, ask = self.make("answer")
        async with Runtime(app, store=MEMORY) as runtime:
            first = await self.first(runtime, ask)
            assert (await runtime.start(ask, "second", session="s")).id == first.id
            assert (await first.result(timeout=10)).output == "first second"
            assert len(await runtime.runs.list()) == 1


class TestChildren:
    @pytest.mark.parametrize(("most", "ok"), [(3, True), (2, False)])
    async def test_a_run_has_no_more_live_children_than_it_may(self, most: int, ok: bool) -> None:
        app, gauge = App("app"), Gauge()
        visit = gauged(app, gauge)

        @app.agent(children=most)
        async def parent(ctx: Context) -> int:
            children = [await ctx.spawn(visit, f"{n}") for n in range(3)]
            gauge.open.set()
            return len([await child.result() for child in children])

        async with Runtime(app, store=MEMORY) as runtime:
            result = await runtime.run(parent, timeout=10)
        assert result.ok is ok
        assert ok or (result.error is not None and result.error.code == "child.limit")


class TestCleanUps:
    async def test_a_cancelled_run_cleans_up_before_it_ends(self) -> None:
        app = App("app")
        cleaned: list[str] = []

        @app.agent
        async def patient(ctx: Context) -> None:
            await ctx.wait_for("never")

        @patient.on_cancel
        async def clean_up(ctx: Context) -> None:
            cleaned.append(ctx.run.id)

        async with Runtime(app, store=MEMORY) as runtime:
            run = await runtime.start(patient)

            async def waits() -> bool:
                return (await run.refresh()).status == "waiting"

            await until(waits)
            assert await run.cancel() == "cancelling"
            assert (await run.result(timeout=10)).status == "cancelled"
        assert cleaned == [run.id]

    async def test_a_run_that_never_started_has_nothing_to_clean_up(self) -> None:
        app = App("app")
        cleaned: list[str] = []

        @app.agent
        async def patient(ctx: Context) -> None:
            await ctx.wait_for("never")

        @patient.on_cancel
        async def clean_up(ctx: Context) -> None:
            cleaned.append(ctx.run.id)

        async with Runtime(app, store=MEMORY) as runtime:
            run = await runtime.start(patient, delay=60)
            assert await run.cancel() == "cancelled"
        assert cleaned == []
