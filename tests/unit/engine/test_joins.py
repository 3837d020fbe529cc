"""Joins: branches of `gather` that do nothing but wait wake the run together; others wake it one by one."""

from typing import Any

import pytest

from stepwell.app import App
from stepwell.domain import event
from stepwell.domain.errors import AskTimeout, RunFailed
from stepwell.ports.context import Context
from stepwell.testing.clock import ManualClock
from tests.unit.engine.lives import Lives
from tests.unit.engine.samples import double, executed


def lives_of(parent: Any, **options: Any) -> Lives:
    app = App("test")
    app.agent(name="parent", children=2000)(parent)

    @app.agent
    async def child(ctx: Context, number: int) -> int:
        if number % 7 == 6:
            raise ValueError("unlucky")
        return number

    @app.agent
    async def patient(ctx: Context, number: int) -> int:
        return await ctx.wait_for("end", int)

    return Lives(app, **options)


async def resumed(lives: Lives, run: str) -> int:
    return len(await lives.journal(run, event.RUN_RESUMED))


class TestMany:
    async def test_a_thousand_questions_wake_their_run_once(self) -> None:
        async def parent(ctx: Context) -> int:
            return sum(await ctx.gather(*(ctx.ask(f"{n}?", int) for n in range(1000))))

        lives = lives_of(parent)
        run = await lives.submit()
        async with lives.working() as worker:
            await lives.parked(run)
            await worker.idle()
            for question in await lives.questions(run):
                assert await resumed(lives, run) == 0
                await lives.answer(run, 1, text=question.wait.name)
            await lives.settled(run)
        assert await lives.output(run) == 1000
        assert await resumed(lives, run) == 1
        (told,) = await lives.facts(run, event.RUN_WAITING)
        assert len(told["waits"]) == 21
        assert told["waits"][-1] == {"type": "more", "count": 980}

    async def test_so_do_a_thousand_children(self) -> None:
        async def parent(ctx: Context) -> int:
            return sum(await ctx.gather(*(ctx.call("child", 7 * n) for n in range(1000))))

        lives = lives_of(parent, capacity=1)
        run = await lives.submit()
        async with lives.working():
            await lives.settled(run)
        assert await lives.output(run) == 7 * 499_500
        assert await resumed(lives, run) == 1
        assert len(await lives.children(run)) == 1000

    async def test_and_spawned_ones_that_are_joined(self) -> None:
        async def parent(ctx: Context) -> int:
            spawned = [await ctx.spawn("patient", n) for n in range(20)]
            return sum(result.output for result in await ctx.gather(*(child.result() for child in spawned)))

        lives = lives_of(parent)
        run = await lives.submit()
        async with lives.working() as worker:
            await lives.parked(run)
            await worker.idle()
            for child in await lives.children(run):
                await lives.signal(child.id, "end", 2)
            await lives.settled(run)
        assert await lives.output(run) == 40
        assert await resumed(lives, run) == 1


class TestOneByOne:
    async def test_branches_that_have_something_to_do_wake_the_run_each(self) -> None:
        async def parent(ctx: Context) -> list[int]:
            async def branch(number: int) -> int:
                return await ctx.step(double, await ctx.ask(f"{number}?", int))

            return await ctx.gather(*(branch(n) for n in range(3)))

        lives = lives_of(parent)
        run = await lives.submit()
        async with lives.working():
            for number in range(3):
                await lives.has(run, event.RUN_WAITING, number + 1)
                await lives.answer(run, number, text=f"{number}?")
                await lives.has(run, event.STEP_COMPLETED, number + 1)
            await lives.settled(run)
        assert await lives.output(run) == [0, 2, 4]
        assert await resumed(lives, run) == 3
        assert set(executed.values()) == {1}

    async def test_bare_waits_beside_them_do_not(self) -> None:
        async def parent(ctx: Context) -> list[Any]:
            async def branch() -> int:
                return await ctx.step(double, await ctx.ask("busy?", int))

            return await ctx.gather(ctx.ask("1?", int), branch(), ctx.ask("2?", int), ctx.wait_for("go", int))

        lives = lives_of(parent)
        run = await lives.submit()
        async with lives.working() as worker:
            await lives.parked(run)
            await worker.idle()
            await lives.answer(run, 1, text="1?")
            await lives.signal(run, "go", 3)
            assert (await lives.parked(run)).life.available_at == 2**62
            await lives.answer(run, 5, text="busy?")
            await lives.has(run, event.RUN_WAITING, 2)
            assert await resumed(lives, run) == 1
            await lives.answer(run, 2, text="2?")
            await lives.settled(run)
        assert await lives.output(run) == [1, 10, 2, 3]
        assert await resumed(lives, run) == 2

    async def test_two_gathers_side_by_side_are_two_joins(self) -> None:
        async def parent(ctx: Context) -> list[Any]:
            async def branch(name: str) -> int:
                return await ctx.step(double, sum(await ctx.gather(ctx.wait_for(name, int), ctx.wait_for(name, int))))

            return list(await ctx.gather(branch("a"), branch("b")))

        lives = lives_of(parent)
        run = await lives.submit()
        async with lives.working() as worker:
            await lives.parked(run)
            await worker.idle()
            await lives.signal(run, "a", 1)
            await lives.signal(run, "b", 10)
            assert await resumed(lives, run) == 0
            await lives.signal(run, "b", 20)
            await lives.has(run, event.STEP_COMPLETED)
            await lives.has(run, event.RUN_WAITING, 2)
            await lives.signal(run, "a", 2)
            await lives.settled(run)
        assert await lives.output(run) == [6, 60]


class TestMixed:
    async def test_time_limits_in_a_join_are_kept_each_for_itself(self) -> None:
        clock = ManualClock()

        async def parent(ctx: Context) -> list[Any]:
            return await ctx.gather(
                ctx.ask("1?", int, timeout=60, default=-1),
                ctx.ask("2?", int, timeout=120, default=-2),
                ctx.ask("3?", int),
                ctx.wait_for("go", int, timeout=60, default=-4),
            )

        lives = lives_of(parent, clock=clock)
        run = await lives.submit()
        async with lives.working() as worker:
            await lives.parked(run)
            await worker.idle()
            await lives.answer(run, 3, text="3?")
            clock.jump(60)
            lives.look()
            await lives.has(run, event.RUN_WAITING, 2)
            assert [entry["outcome"] for entry in await lives.facts(run, event.WAIT_CLOSED)] == [
                "answered",
                "timed_out",
                "timed_out",
            ]
            clock.jump(60)
            lives.look()
            await lives.settled(run)
        assert await lives.output(run) == [-1, -2, 3, -4]

    async def test_one_that_raises_is_heard_when_all_have_come(self) -> None:
        clock = ManualClock()

        async def parent(ctx: Context) -> list[Any]:
            try:
                await ctx.gather(ctx.ask("1?", int, timeout=60), ctx.wait_for("go", int))
            except AskTimeout as error:
                return [error.code]
            return []

        lives = lives_of(parent, clock=clock)
        run = await lives.submit()
        async with lives.working():
            await lives.parked(run)
            clock.jump(60)
            lives.look()
            await lives.has(run, event.RUN_WAITING, 2)
            await lives.signal(run, "go", 1)
            await lives.settled(run)
        assert await lives.output(run) == ["ask.timeout"]

    @pytest.mark.parametrize("count", [8, 20])
    async def test_children_that_fail_are_waited_for_like_the_others(self, count: int) -> None:
        async def parent(ctx: Context) -> str:
            try:
                await ctx.gather(*(ctx.call("child", n) for n in range(count)))
            except RunFailed as error:
                return error.status
            return ""

        lives = lives_of(parent, capacity=1)
        run = await lives.run()
        assert await lives.output(run) == "failed"
        assert len(await lives.journal(run, event.CHILD_ENDED)) == count
        assert await resumed(lives, run) == 1
