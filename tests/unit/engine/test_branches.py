"""`ctx.gather` and `ctx.map`: several things at once, each in a scope of its own, and what a scope refuses."""

import asyncio
import contextlib
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepwell.app import App
from stepwell.domain import event
from stepwell.domain.errors import Misuse, StepFailed
from stepwell.ports.context import Context
from tests.unit.engine.lives import AFTER_AGENT, Crash, Lives, twice
from tests.unit.engine.samples import add, double, effect, executed, fail, turns


class TestGather:
    async def test_two_branches_give_a_tuple_and_any_other_number_a_list(self) -> None:
        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> list[str]:
            none: list[int] = await ctx.gather()
            one = await ctx.gather(ctx.step(double, 1))
            two = await ctx.gather(ctx.step(double, 1), ctx.step(turns, "a", 1))
            three = await ctx.gather(ctx.step(double, 1), ctx.step(double, 2), ctx.step(double, 3))
            return [repr(none), repr(one), repr(two), repr(three)]

        lives, run = await twice(agent)
        assert await lives.output(run) == ["[]", "[2]", "(2, 'a')", "[2, 4, 6]"]

    async def test_branches_really_run_at_once(self) -> None:
        app = App("test")
        arrived: list[asyncio.Event] = [asyncio.Event(), asyncio.Event()]

        async def meet(mine: int, other: int) -> int:
            arrived[mine].set()
            await arrived[other].wait()
            return mine

        @app.agent
        async def agent(ctx: Context) -> list[int]:
            return list(await ctx.gather(ctx.step(meet, 0, 1), ctx.step(meet, 1, 0)))

        lives = Lives(app)
        assert await lives.output(await lives.run()) == [0, 1]

    async def test_a_branch_is_a_scope_of_its_own(self) -> None:
        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> list[Any]:
            async def branch(n: int) -> list[Any]:
                first = await ctx.step(turns, f"{n} first", 3 - n)
                inner = await ctx.gather(ctx.step(double, n), ctx.step(double, n + 10))
                return [first, *inner]

            a, b = await ctx.gather(branch(1), branch(2))
            return [a, b, await ctx.step(add, 1, 1)]

        lives, run = await twice(agent)
        assert await lives.output(run) == [["1 first", 2, 22], ["2 first", 4, 24], 2]
        places = {entry.step for entry in await lives.journal(run, event.STEP_COMPLETED)}
        assert places == {"0.1.0/1", "0.1.0.2.0/1", "0.1.0.2.1/1", "0.1.1/1", "0.1.1.2.0/1", "0.1.1.2.1/1", "0/2"}
        assert set(executed.values()) == {1}

    @settings(max_examples=25)
    @given(st.lists(st.integers(0, 6), min_size=3, max_size=3))
    async def test_which_error_is_raised_does_not_depend_on_timing(self, delays: list[int]) -> None:
        app = App("test")

        async def fail_after(name: str, count: int) -> None:
            await turns(name, count)
            raise ValueError(name)

        @app.agent
        async def agent(ctx: Context) -> str:
            try:
                await ctx.gather(*[ctx.step(fail_after, name, n) for name, n in zip("abc", delays, strict=True)])
            except StepFailed as error:
                return error.message
            return ""

        executed.clear()
        lives, run = await twice(agent)
        assert await lives.output(run) == "step fail_after failed: ValueError: a"
        assert executed == {"a": 1, "b": 1, "c": 1}

    async def test_all_branches_end_before_the_error_is_raised(self) -> None:
        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> str:
            async def long() -> None:
                for n in range(5):
                    await ctx.step(turns, f"long {n}", 2)

            try:
                await ctx.gather(ctx.step(fail, "at once"), long())
            except StepFailed:
                return ", ".join(sorted(executed))
            return ""

        lives = Lives(app)
        run = await lives.run()
        assert await lives.output(run) == "fail at once, long 0, long 1, long 2, long 3, long 4"

    async def test_an_error_of_the_agents_own_code_waits_for_the_others_too(self) -> None:
        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> str:
            async def broken() -> None:
                raise KeyError("mine")

            try:
                await ctx.gather(broken(), ctx.step(turns, "other", 5))
            except KeyError:
                return "other" if executed["other"] else "too early"
            return ""

        lives, run = await twice(agent)
        assert await lives.output(run) == "other"

    @pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), asyncio.CancelledError()])
    async def test_what_a_branch_raises_ends_the_run_and_not_the_worker(self, error: BaseException) -> None:
        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> None:
            async def leave() -> None:
                await ctx.step(double, 1)
                raise error

            await ctx.gather(ctx.step(double, 2), leave())

        lives = Lives(app)
        told = await lives.error(await lives.run())
        assert told["type"] == type(error).__name__
        assert executed == {"double 1": 1, "double 2": 1}

    @pytest.mark.parametrize("wrong", [1, None, double, [add]])
    async def test_only_coroutines_are_branches(self, wrong: Any) -> None:
        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> None:
            await ctx.gather(ctx.step(double, 1), wrong, ctx.step(double, 2))

        lives = Lives(app)
        error = await lives.error(await lives.run())
        assert (error["type"], error["code"]) == ("Misuse", "context.gather")
        assert executed == {}

    async def test_a_task_is_not_a_branch(self) -> None:
        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> None:
            task = asyncio.create_task(turns("mine", 1))
            try:
                await ctx.gather(task)  # type: ignore[call-overload]
            finally:
                await task

        lives = Lives(app)
        assert (await lives.error(await lives.run()))["code"] == "context.gather"

    async def test_one_coroutine_cannot_be_two_branches(self) -> None:
        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> None:
            branch = turns("once", 1)
            await ctx.gather(branch, branch)

        lives = Lives(app)
        assert (await lives.error(await lives.run()))["type"] == "RuntimeError"

    async def test_branches_that_leave_no_trace_take_their_place(self) -> None:
        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> list[Any]:
            async def nothing() -> int:
                return 1

            empty: list[int] = await ctx.gather()
            none = await ctx.map(double, list[int]())
            keyed = await ctx.map(double, [1, 2], key=str)
            silent = await ctx.gather(nothing())
            return [empty, none, keyed, silent, await ctx.step(double, 5)]

        lives, run = await twice(agent)
        assert await lives.output(run) == [[], [], [2, 4], [1], 10]
        assert set(executed.values()) == {1}

    async def test_thousands_of_failures_at_once_are_no_trouble(self) -> None:
        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> str:
            try:
                await ctx.map(fail, [f"{n}" for n in range(3000)], limit=100)
            except StepFailed as error:
                return error.message
            return ""

        lives = Lives(app)
        assert await lives.output(await lives.run()) == "step fail failed: ValueError: 0"


class TestMap:
    async def test_results_come_in_the_order_of_the_items(self) -> None:
        app = App("test")

        async def wait(n: int) -> int:
            await turns(f"{n}", 10 - n)
            return n

        @app.agent
        async def agent(ctx: Context) -> list[int]:
            return await ctx.map(wait, range(10))

        lives, run = await twice(agent)
        assert await lives.output(run) == list(range(10))
        assert set(executed.values()) == {1}

    @pytest.mark.parametrize("limit", [1, 2, 5, 100])
    async def test_the_limit_limits(self, limit: int) -> None:
        app = App("test")
        at_once: list[int] = []
        running = 0

        async def count(n: int) -> int:
            nonlocal running
            running += 1
            at_once.append(running)
            await turns("x", n % 3 + 1)
            running -= 1
            return n

        @app.agent
        async def agent(ctx: Context) -> list[int]:
            return await ctx.map(count, range(12), limit=limit)

        lives = Lives(app)
        assert await lives.output(await lives.run()) == list(range(12))
        assert max(at_once) == min(limit, 12)

    @pytest.mark.parametrize("limit", [0, -1, 1.5, True, "2"])
    async def test_a_limit_is_a_whole_number_of_at_least_one(self, limit: Any) -> None:
        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> None:
            await ctx.map(double, [1], limit=limit)

        lives = Lives(app)
        assert (await lives.error(await lives.run()))["type"] == "InvalidDefinition"
        assert executed == {}

    async def test_with_keys_the_items_may_change_their_order(self) -> None:
        app = App("test")
        items = [1, 2, 3, 4]

        @app.agent
        async def agent(ctx: Context) -> list[int]:
            return await ctx.map(double, items, key=str, limit=2)

        lives = Lives(app)
        run = await lives.submit()
        await lives.live(run, crash=Crash("commit.after", passing=2))
        random.Random(1).shuffle(items)
        await lives.live(run)
        assert await lives.output(run) == [2 * n for n in items]
        assert len(await lives.journal(run, event.STEP_COMPLETED)) == 4

    async def test_without_keys_it_may_not(self) -> None:
        app = App("test")
        items = [1, 2]

        @app.agent
        async def agent(ctx: Context) -> list[int]:
            return await ctx.map(double, items)

        lives = Lives(app)
        run = await lives.submit()
        await lives.live(run, crash=Crash(AFTER_AGENT))
        items.reverse()
        await lives.live(run)
        assert "other arguments" in (await lives.hold(run))["message"]
        items.reverse()

    @pytest.mark.parametrize(
        "key", [lambda n: "same", lambda n: "", lambda n: n], ids=["the same", "nothing", "a number"]
    )
    async def test_keys_are_different_texts(self, key: Any) -> None:
        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> None:
            await ctx.map(double, [1, 2], key=key)

        lives = Lives(app)
        error = await lives.error(await lives.run())
        assert error["code"] == "definition.step_key"
        assert executed == {}

    async def test_all_steps_end_before_the_first_failure_is_raised(self) -> None:
        app = App("test")

        async def only_even(n: int) -> int:
            await turns(f"{n}", 5 - n)
            if n % 2:
                raise ValueError(f"{n} is odd")
            return n

        @app.agent
        async def agent(ctx: Context) -> str:
            try:
                await ctx.map(only_even, range(5), limit=2)
            except StepFailed as error:
                return f"{error.message} {len(executed)}"
            return ""

        lives, run = await twice(agent)
        assert await lives.output(run) == "step only_even failed: ValueError: 1 is odd 5"

    async def test_a_name_names_all_its_steps(self) -> None:
        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> list[int]:
            return await ctx.map(lambda n: n + 1, [1, 2], name="next")

        lives, run = await twice(agent)
        assert await lives.output(run) == [2, 3]
        assert {fact["name"] for fact in await lives.facts(run, event.STEP_COMPLETED)} == {"next"}


class TestForeignTasks:
    async def refused(self, agent_body: Any) -> dict[str, Any]:
        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> Any:
            return await agent_body(ctx)

        lives = Lives(app)
        error = await lives.error(await lives.run())
        assert error["type"] == "Misuse"
        return error

    @pytest.mark.parametrize(
        "call",
        [
            lambda ctx: ctx.step(double, 1),
            lambda ctx: ctx.map(double, [1]),
            lambda ctx: ctx.map(double, [1], key=str),
            lambda ctx: ctx.gather(ctx.step(double, 1)),
            lambda ctx: ctx.emit("seen"),
            lambda ctx: ctx.artifact("a.txt", "a"),
            lambda ctx: ctx.checkpoint(1),
            lambda ctx: ctx.restore(int),
        ],
        ids=["step", "map", "map with keys", "gather", "emit", "artifact", "checkpoint", "restore"],
    )
    async def test_a_positioned_call_from_a_foreign_task_is_refused_although_nothing_overlaps(self, call: Any) -> None:
        async def body(ctx: Context) -> None:
            await asyncio.create_task(call(ctx))

        assert (await self.refused(body))["code"] == "context.foreign_task"
        assert executed == {}

    @pytest.mark.parametrize(
        "call",
        [lambda ctx: ctx.now(), lambda ctx: ctx.uuid(), lambda ctx: ctx.random, lambda ctx: ctx.patched("x")],
        ids=["now", "uuid", "random", "patched"],
    )
    async def test_so_are_the_calls_that_wait_for_nothing(self, call: Any) -> None:
        async def body(ctx: Context) -> None:
            async def foreign() -> None:
                call(ctx)

            await asyncio.create_task(foreign())

        assert (await self.refused(body))["code"] == "context.foreign_task"

    async def test_so_is_a_task_group(self) -> None:
        async def body(ctx: Context) -> None:
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(ctx.step(double, 1))
            except* Misuse as group_error:
                raise group_error.exceptions[0] from None

        assert (await self.refused(body))["code"] == "context.foreign_task"
        assert executed == {}

    async def test_so_is_asyncio_gather_with_a_hint_what_to_use(self) -> None:
        async def body(ctx: Context) -> None:
            await asyncio.gather(ctx.step(double, 1), ctx.step(double, 2))

        error = await self.refused(body)
        assert error["code"] == "context.foreign_task"
        assert executed == {}

    async def test_a_branch_may_not_use_the_scope_of_the_agent(self) -> None:
        async def body(ctx: Context) -> None:
            async def foreign() -> int:
                return await asyncio.create_task(ctx.step(double, 1))

            await ctx.gather(foreign())

        assert (await self.refused(body))["code"] == "context.foreign_task"

    async def test_so_is_a_callback_which_belongs_to_no_task(self) -> None:
        errors: list[BaseException] = []

        async def body(ctx: Context) -> None:
            called = asyncio.Event()

            def callback() -> None:
                try:
                    ctx.now()
                except BaseException as error:  # noqa: BLE001 - looked at below
                    errors.append(error)
                called.set()

            async def branch() -> None:
                asyncio.get_running_loop().call_later(0.001, callback)

            await ctx.gather(branch())
            await called.wait()
            raise errors[0]

        assert (await self.refused(body))["code"] == "context.foreign_task"

    async def test_another_event_loop_is_refused_with_a_key_too(self) -> None:
        async def body(ctx: Context) -> None:
            await asyncio.to_thread(lambda: asyncio.run(ctx.step(double, 1, key="a")))

        assert (await self.refused(body))["code"] == "context.foreign_loop"
        assert executed == {}

    async def test_a_step_with_a_key_may_run_in_any_task(self) -> None:
        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> list[int]:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(ctx.step(add, n, 1, key=str(n))) for n in range(3)]
            return [task.result() for task in tasks]

        lives, run = await twice(agent)
        assert await lives.output(run) == [1, 2, 3]
        assert set(executed.values()) == {1}

    async def test_the_tasks_of_another_run_are_foreign_too(self) -> None:
        app = App("test")
        contexts: list[Context] = []

        @app.agent
        async def agent(ctx: Context) -> int:
            contexts.append(ctx)
            return await contexts[0].step(double, 1)

        lives = Lives(app)
        first, second = await lives.submit(), await lives.submit()
        async with lives.working():
            await lives.settled(first)
            await lives.settled(second)
        assert await lives.output(first) == 2
        last = (await lives.journal(second))[-1]
        assert last.kind != event.RUN_SUCCEEDED
        assert executed == {"double 1": 1}


class TestForeignTasksWithKeys:
    async def test_a_cancelled_one_is_done_anew_by_the_next_call(self) -> None:
        app = App("test")

        async def hang_first(name: str) -> str:
            if effect(name) == 1:
                await asyncio.get_running_loop().create_future()
            return name

        @app.agent
        async def agent(ctx: Context) -> str:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.create_task(ctx.step(hang_first, "a", key="a")), 0.01)
            return await ctx.step(hang_first, "a", key="a")

        lives, run = await twice(agent)
        assert await lives.output(run) == "a"
        assert executed == {"a": 2}

    async def test_one_that_must_know_is_settled_when_its_task_is_cancelled(self) -> None:
        app = App("test")

        async def hang(name: str) -> str:
            effect(name)
            await asyncio.get_running_loop().create_future()
            return name

        async def find(name: str) -> str:
            effect("find")
            return f"found {name}"

        @app.agent
        async def agent(ctx: Context) -> str:
            task = asyncio.create_task(ctx.step(hang, "a", key="a", in_doubt=find))
            while not executed["a"]:
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            return await ctx.step(hang, "a", key="a", in_doubt=find)

        lives, run = await twice(agent)
        assert await lives.output(run) == "found a"
        assert executed == {"a": 1, "find": 1}

    async def test_a_task_left_behind_can_do_nothing_after_the_end(self) -> None:
        app = App("test")
        background: list[asyncio.Task[Any]] = []
        go_on = asyncio.Event()

        @app.agent
        async def agent(ctx: Context) -> str:
            async def later() -> None:
                await go_on.wait()
                await ctx.step(double, 1, key="late")

            background.append(asyncio.create_task(later()))
            return "done"

        lives = Lives(app)
        run = await lives.run()
        assert await lives.output(run) == "done"
        go_on.set()
        await asyncio.wait(background)
        assert type(background[0].exception()).__name__ == "AttemptStopped"
        assert executed == {}


class TestInsideSteps:
    async def nested(self, call: Any, **options: Any) -> dict[str, Any]:
        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> Any:
            async def inner() -> Any:
                effect("inner")
                result = call(ctx)
                return await result if asyncio.iscoroutine(result) else str(result)

            return await ctx.step(inner, **options)

        lives = Lives(app)
        error = await lives.error(await lives.run())
        assert executed == {"inner": 1}
        return error

    @pytest.mark.parametrize(
        "call",
        [
            lambda ctx: ctx.step(double, 1),
            lambda ctx: ctx.step(double, 1, key="a"),
            lambda ctx: ctx.gather(ctx.step(double, 1)),
            lambda ctx: ctx.map(double, [1]),
            lambda ctx: ctx.map(double, [1], key=str),
            lambda ctx: ctx.emit("seen"),
            lambda ctx: ctx.artifact("a.txt", "a"),
            lambda ctx: ctx.checkpoint(1),
            lambda ctx: ctx.now(),
            lambda ctx: ctx.uuid(),
            lambda ctx: ctx.random,
            lambda ctx: ctx.patched("x"),
            lambda ctx: asyncio.create_task(ctx.step(double, 1, key="a")),
        ],
        ids=range(13),
    )
    @pytest.mark.parametrize("options", [{}, {"key": "outer"}], ids=["positioned", "keyed"])
    async def test_no_context_call_works_inside_a_step(self, call: Any, options: Any) -> None:
        error = await self.nested(lambda ctx: _awaited(call(ctx)), **options)
        assert error["type"] == "StepFailed"
        assert "was called inside a step" in error["message"]

    async def test_nor_from_a_thread_that_the_step_runs_in(self) -> None:
        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> int:
            loop = asyncio.get_running_loop()

            def inner() -> int:
                return asyncio.run_coroutine_threadsafe(ctx.step(double, 1, key="a"), loop).result(10)

            return await ctx.step(inner)

        lives = Lives(app)
        assert "inside a step" in (await lives.error(await lives.run()))["message"]
        assert executed == {}

    async def test_a_run_that_a_step_starts_in_this_process_is_not_inside_it(self) -> None:
        app = App("test")
        lives = Lives(app)

        @app.agent
        async def agent(ctx: Context, depth: int) -> int:
            if depth == 0:
                return await ctx.step(double, 4)

            async def start_another() -> int:
                run = await lives.submit(agent, depth - 1)
                await lives.settled(run)
                result: int = await lives.output(run)
                return result

            return await ctx.step(start_another)

        run = await lives.submit(agent, 2)
        async with lives.working():
            await lives.settled(run)
        assert await lives.output(run) == 8


async def _awaited(value: Any) -> Any:
    return await value if asyncio.iscoroutine(value) or isinstance(value, asyncio.Task) else str(value)
