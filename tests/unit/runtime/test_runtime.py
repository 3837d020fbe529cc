"""Runtime: opens a store, executes runs of its apps, starts new ones, and lets go of everything."""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from stepwell.app import App
from stepwell.domain import event
from stepwell.domain.errors import Conflict, Fail, InvalidDefinition, Misuse, NotFound, RunEnded, RunFailed, WaitTimeout
from stepwell.engine.report import StepReport
from stepwell.ports.context import Context
from stepwell.runtime import Run, Runtime, run_sync

MEMORY = "memory://"


def counting_app() -> tuple[App[Any], Any]:
    app = App("test")

    @app.agent
    async def count(ctx: Context, upto: int) -> int:
        return sum(await ctx.map(square, range(upto)))

    return app, count


async def square(n: int) -> int:
    return n * n


async def turns(count: int = 20) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


class TestRuns:
    async def test_run_gives_the_typed_result(self) -> None:
        app, count = counting_app()
        async with Runtime(app, store=MEMORY) as runtime:
            result = await runtime.run(count, 4)
        assert (result.ok, result.status, result.output, result.error, result.reason) == (
            True,
            "succeeded",
            14,
            None,
            None,
        )

    async def test_an_agent_can_be_named(self) -> None:
        app, _ = counting_app()
        async with Runtime(app, store=MEMORY) as runtime:
            assert (await runtime.run("count", 3)).output == 5

    async def test_an_unknown_name_gives_a_near_one(self) -> None:
        app, _ = counting_app()
        async with Runtime(app, store=MEMORY) as runtime:
            with pytest.raises(NotFound) as refused:
                await runtime.start("coutn", 3)
        assert refused.value.code == "agent.unknown"
        assert refused.value.hint == "did you mean: count"

    async def test_a_failed_run_raises_only_when_its_output_is_asked_for(self) -> None:
        app = App("test")

        @app.agent
        async def broken(ctx: Context) -> str:
            raise Fail("sold out", code="shop.sold_out")

        async with Runtime(app, store=MEMORY) as runtime:
            result = await runtime.run(broken)
        assert (result.ok, result.status, result.reason) == (False, "failed", "shop.sold_out")
        assert result.error is not None
        assert (result.error.code, result.error.message) == ("shop.sold_out", "sold out")
        with pytest.raises(RunFailed) as failed:
            _ = result.output
        assert (failed.value.code, failed.value.run_id) == ("shop.sold_out", result.run_id)

    async def test_artifacts_come_with_the_result_the_newest_of_each_name(self) -> None:
        app = App("test")

        @app.agent
        async def write(ctx: Context) -> None:
            await ctx.artifact("a.md", "one")
            await ctx.artifact("b.bin", b"\0")
            await ctx.artifact("a.md", "two")

        async with Runtime(app, store=MEMORY) as runtime:
            run = await runtime.start(write)
            for result in (await run.result(), await run.result()):
                a, b = result.artifacts
                assert (a.name, a.media_type, a.size, await a.text()) == ("a.md", "text/markdown", 3, "two")
                assert (b.name, await b.bytes()) == ("b.bin", b"\0")

    async def test_waiting_ends_after_the_timeout_and_the_run_goes_on(self) -> None:
        app = App("test")
        opened = asyncio.Event()

        @app.agent
        async def wait(ctx: Context) -> str:
            await opened.wait()
            return "done"

        async with Runtime(app, store=MEMORY) as runtime:
            run = await runtime.start(wait)
            with pytest.raises(WaitTimeout) as waited:
                await run.result(timeout=timedelta(milliseconds=10))
            assert waited.value.run_id == run.id
            assert "running" in waited.value.message
            opened.set()
            assert (await run.result()).output == "done"

    async def test_a_run_says_what_it_is(self) -> None:
        app, count = counting_app()
        async with Runtime(app, store=MEMORY) as runtime:
            run = await runtime.start(count, 2, priority=3, metadata={"a": "b"}, idempotency_key="k")
            again = await runtime.start(count, 2, idempotency_key="k")
            assert again.id == run.id
            await run.result()
            run = await run.refresh()
            assert (run.agent, run.version, run.status, run.attempt, run.dead) == ("count", "1", "succeeded", 1, False)
            assert (run.metadata, run.trigger, run.ended) == ({"a": "b"}, None, True)
            assert run.created_at.utcoffset() == timedelta(0)
            assert run.session_id.startswith("ses_")

    async def test_a_delayed_run_is_queued_first(self) -> None:
        app, count = counting_app()
        async with Runtime(app, store=MEMORY) as runtime:
            run = await runtime.start(count, 2, delay=0.02)
            assert run.status == "queued"
            assert (await run.result()).output == 1

    async def test_steps_can_be_watched(self) -> None:
        app, count = counting_app()
        seen: list[StepReport] = []
        async with Runtime(app, store=MEMORY, on_step=seen.append) as runtime:
            run = await runtime.start(count, 2)
            await run.result()
        assert [(report.name, report.status) for report in seen] == [("square", "started"), ("square", "done")] * 2
        assert {report.run_id for report in seen} == {run.id}


class TestEvents:
    async def test_they_come_as_they_happen_and_end_with_the_run(self) -> None:
        app = App("test")
        gate = asyncio.Event()

        @app.agent
        async def tell(ctx: Context) -> None:
            await ctx.emit("first")
            await gate.wait()
            await ctx.emit("second")

        async with Runtime(app, store=MEMORY) as runtime:
            run = await runtime.start(tell)
            kinds = []
            async for one in run.events():
                kinds.append(one.kind)
                if one.kind == "custom.first":
                    gate.set()
            assert kinds == [event.RUN_QUEUED, event.RUN_STARTED, "custom.first", "custom.second", event.RUN_SUCCEEDED]

    async def test_a_reader_that_comes_back_misses_nothing(self) -> None:
        app, count = counting_app()
        async with Runtime(app, store=MEMORY) as runtime:
            run = await runtime.start(count, 700)
            await run.result()
            seen = [one async for one in run.events()]
            assert [one.seq for one in seen] == list(range(1, 704))
            rest = [one async for one in run.events(after=600)]
            assert rest == seen[600:]
            assert [one async for one in run.events(after=703)] == []

    async def test_an_event_carries_its_run(self) -> None:
        app, count = counting_app()
        async with Runtime(app, store=MEMORY) as runtime:
            run = await runtime.start(count, 1)
            await run.result()
            [step] = [one async for one in run.events() if one.kind == event.STEP_COMPLETED]
            assert (step.run_id, step.agent, step.session_id, step.trigger) == (run.id, "count", run.session_id, None)
            assert (step.step, step.data["result"]) == ("0.1.0/1", 0)


class TestFinding:
    async def test_get_list_and_find(self) -> None:
        app, count = counting_app()
        async with Runtime(app, store=MEMORY) as runtime:
            runs = [await runtime.start(count, n) for n in range(3)]
            for run in runs:
                await run.result()
            listed = await runtime.runs.list()
            assert [run.id for run in listed] == [run.id for run in reversed(runs)]
            assert [run.id for run in await runtime.runs.list(limit=1, before=listed[0].id)] == [listed[1].id]
            assert await runtime.runs.list(status="failed") == []
            assert len(await runtime.runs.list(agent="count", ended=True)) == 3
            assert (await runtime.runs.get(runs[0].id)).id == runs[0].id
            assert (await runtime.runs.find("last")).id == runs[2].id
            assert (await runtime.runs.find(runs[1].id[-8:])).id == runs[1].id
            for text in ("abc", "zzzzzzzz", "run_" + "0" * 26):
                with pytest.raises(NotFound) as refused:
                    await runtime.runs.find(text)
                assert refused.value.code == "run.unknown"

    async def test_no_run_is_last_in_an_empty_store(self) -> None:
        app, _ = counting_app()
        async with Runtime(app, store=MEMORY) as runtime:
            with pytest.raises(NotFound):
                await runtime.runs.find("last")


class TestHolds:
    async def held(self, runtime: Runtime[Any], agent: Any) -> Run[Any]:
        run = await runtime.start(agent)
        async for one in run.events():
            if one.kind == event.RUN_HELD:
                break
        return await run.refresh()

    async def test_a_run_in_doubt_waits_for_a_verdict(self) -> None:
        app = App("test")

        async def lose() -> int:
            raise OSError("lost")

        @app.agent
        async def pay(ctx: Context) -> int:
            return await ctx.step(lose, in_doubt="fail")

        async with Runtime(app, store=MEMORY) as runtime:
            run = await self.held(runtime, pay)
            assert run.status == "in_doubt"
            with pytest.raises(Conflict):
                await run.resume()
            await run.resume(verdict="done", result=7, by="ada")
            assert (await run.result()).output == 7
            with pytest.raises(RunEnded):
                await run.resume(verdict="rerun")

    async def test_a_run_that_is_not_held_cannot_be_resumed(self) -> None:
        app = App("test")
        gate = asyncio.Event()

        @app.agent
        async def wait(ctx: Context) -> None:
            await gate.wait()

        async with Runtime(app, store=MEMORY) as runtime:
            run = await runtime.start(wait)
            with pytest.raises(Conflict) as refused:
                await run.resume()
            assert refused.value.code == "run.not_held"
            gate.set()


class TestDeps:
    async def test_each_app_has_its_own_and_they_are_closed_in_turn(self) -> None:
        told: list[str] = []

        def lifespan(name: str) -> Any:
            @asynccontextmanager
            async def connect() -> AsyncIterator[str]:
                told.append(f"{name} opened")
                yield f"pool of {name}"
                told.append(f"{name} closed")

            return connect

        first: App[str] = App("shop", lifespan=lifespan("first"))
        second: App[str] = App("shop", lifespan=lifespan("second"))
        third = App("third")

        @first.agent(name="a")
        async def a(ctx: Context[str]) -> str:
            return ctx.deps

        @second.agent(name="b")
        async def b(ctx: Context[str]) -> str:
            return ctx.deps

        @third.agent(name="c")
        async def c(ctx: Context) -> bool:
            return ctx.deps is None

        async with Runtime(first, second, third, store=MEMORY) as runtime:
            assert told == ["first opened", "second opened"]
            assert (await runtime.run(a)).output == "pool of first"
            assert (await runtime.run(b)).output == "pool of second"
            assert (await runtime.run(c)).output is True
        assert told[2:] == ["second closed", "first closed"]

    async def test_given_deps_take_the_place_of_the_lifespan(self) -> None:
        opened: list[str] = []

        @asynccontextmanager
        async def connect() -> AsyncIterator[str]:
            opened.append("opened")
            yield "pool"

        app = App("test", lifespan=connect)

        @app.agent
        async def agent(ctx: Context[str]) -> str:
            return ctx.deps

        async with Runtime(app, store=MEMORY, deps="fake") as runtime:
            assert (await runtime.run(agent)).output == "fake"
        assert opened == []

    async def test_a_runtime_that_only_submits_opens_none(self) -> None:
        opened: list[str] = []

        @asynccontextmanager
        async def connect() -> AsyncIterator[str]:
            opened.append("opened")
            yield "pool"

        app = App("test", lifespan=connect)

        @app.agent
        async def agent(ctx: Context[str]) -> str:
            return ctx.deps

        async with Runtime(app, store=MEMORY, worker=False) as runtime:
            run = await runtime.start(agent)
            await turns()
            assert (await run.refresh()).status == "queued"
        assert opened == []

    async def test_a_lifespan_that_fails_leaves_nothing_open(self) -> None:
        @asynccontextmanager
        async def connect() -> AsyncIterator[str]:
            await asyncio.sleep(0)
            yield await no_network()

        app = App("test", lifespan=connect)
        mine = asyncio.all_tasks()
        runtime = Runtime(app, store=MEMORY)
        with pytest.raises(OSError, match="no network"):
            await runtime.__aenter__()
        assert asyncio.all_tasks() == mine
        with pytest.raises(Misuse):
            await runtime.report()


async def no_network() -> str:
    raise OSError("no network")


class TestLife:
    def test_making_one_does_nothing(self, tmp_path: Path) -> None:
        app, _ = counting_app()
        Runtime(app, store=f"sqlite:///{tmp_path}/data.db")
        assert list(tmp_path.iterdir()) == []

    async def test_it_must_be_entered_first_and_once(self) -> None:
        app, count = counting_app()
        runtime = Runtime(app, store=MEMORY)
        uses: list[Callable[[], Awaitable[Any]]] = [
            lambda: runtime.start(count, 1),
            runtime.runs.list,
            runtime.report,
            runtime.drain,
        ]
        for use in uses:
            with pytest.raises(Misuse) as refused:
                await use()
            assert refused.value.code == "runtime.closed"
        async with runtime:
            with pytest.raises(Misuse):
                await runtime.__aenter__()
        with pytest.raises(Misuse):
            await runtime.start(count, 1)

    async def test_leaving_finishes_what_runs_and_leaves_nothing_behind(self) -> None:
        app = App("test")
        done: list[str] = []

        @app.agent
        async def agent(ctx: Context) -> None:
            await ctx.step(turns)
            done.append("agent")

        mine, threads = asyncio.all_tasks(), set(threading.enumerate())
        async with Runtime(app, store=MEMORY) as runtime:
            await runtime.start(agent)
        assert done == ["agent"]
        assert asyncio.all_tasks() == mine
        left = {thread.name for thread in set(threading.enumerate()) - threads}
        assert left <= {"asyncio_0"}

    async def test_after_a_drain_it_still_submits_and_reads(self) -> None:
        app, count = counting_app()
        async with Runtime(app, store=MEMORY) as runtime:
            await runtime.drain(timeout=1)
            run = await runtime.start(count, 1)
            await turns()
            assert (await run.refresh()).status == "queued"
            assert await runtime.workers.list() == []
            await runtime.drain()

    async def test_it_serves_as_many_runs_at_once_as_it_is_told(self) -> None:
        app = App("test")
        inside: list[int] = []
        most: list[int] = []

        @app.agent
        async def agent(ctx: Context, n: int) -> None:
            inside.append(n)
            most.append(len(inside))
            await turns(5)
            inside.remove(n)

        async with Runtime(app, store=MEMORY, capacity=2) as runtime:
            runs = [await runtime.start(agent, n) for n in range(6)]
            for run in runs:
                await run.result()
        assert max(most) == 2

    @pytest.mark.parametrize("capacity", [0, -1, 1.5, True, "2"])
    def test_a_capacity_is_a_whole_number_of_at_least_one(self, capacity: Any) -> None:
        app, _ = counting_app()
        with pytest.raises(InvalidDefinition):
            Runtime(app, store=MEMORY, capacity=capacity)

    async def test_two_agents_of_one_name_are_refused(self) -> None:
        with pytest.raises(InvalidDefinition) as refused:
            async with Runtime(counting_app()[0], counting_app()[0], store=MEMORY):
                pass
        assert refused.value.code == "definition.duplicate"

    async def test_the_store_says_what_it_holds(self) -> None:
        app, count = counting_app()
        async with Runtime(app, store=MEMORY) as runtime:
            await runtime.run(count, 1)
            report = await runtime.report()
            assert (report.url, report.runs) == (MEMORY, {"succeeded": 1})
            [worker] = await runtime.workers.list()
            assert (worker.capacity, worker.running) == (16, 0)


class TestServingOwn:
    async def test_it_executes_only_what_it_started_or_adopted(self, tmp_path: Path) -> None:
        app, count = counting_app()
        url = f"sqlite:///{tmp_path}/data.db"
        async with Runtime(app, store=url, worker=False) as others:
            foreign, adopted = await others.start(count, 3), await others.start(count, 4)
            async with Runtime(app, store=url, serve="own") as runtime:
                assert (await runtime.run(count, 2)).output == 1
                assert (await (await runtime.adopt(adopted.id)).result()).output == 14
                assert (await foreign.refresh()).status == "queued"

    async def test_an_unknown_run_cannot_be_adopted(self) -> None:
        app, _ = counting_app()
        async with Runtime(app, store=MEMORY, serve="own") as runtime:
            with pytest.raises(NotFound):
                await runtime.adopt("run_" + "0" * 26)


class TestBlocking:
    def test_it_needs_no_event_loop(self) -> None:
        _, count = counting_app()
        assert run_sync(count, 4, store=MEMORY).output == 14

    async def test_inside_a_running_loop_it_blocks_in_a_thread_of_its_own(self) -> None:
        _, count = counting_app()
        assert run_sync(count, 4, store=MEMORY).output == 14

    def test_children_are_executed_too(self) -> None:
        app, count = counting_app()

        @app.agent
        async def middle(ctx: Context, upto: int) -> int:
            return int(await ctx.call(count, upto)) + 1

        @app.agent
        async def top(ctx: Context, upto: int) -> int:
            return int(await ctx.call(middle, upto)) + 1

        assert run_sync(top, 4, store=MEMORY, timeout=10).output == 16

    async def test_what_goes_wrong_is_raised_here(self) -> None:
        _, count = counting_app()
        with pytest.raises(ValueError, match="input"):
            run_sync(count, "four", store=MEMORY)
