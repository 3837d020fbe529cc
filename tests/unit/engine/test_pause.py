"""Pause: a run is set aside at its next step boundary; nothing is completed by it, and nothing is lost."""

import asyncio
from typing import Any

import pytest

from stepwell.app import App
from stepwell.domain import event
from stepwell.domain.retry import Retry
from stepwell.domain.run import PAUSED, SUCCEEDED
from stepwell.engine import resumption
from stepwell.engine import worker as worker_module
from stepwell.ports.context import Context
from tests.unit.engine.lives import Crash, Lives
from tests.unit.engine.samples import double, effect, executed


class World:
    """What an agent waits for outside."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.open = asyncio.Event()

    async def gate(self) -> str:
        self.reached.set()
        await self.open.wait()
        effect("passed")
        return "passed"


def lives_of(program: Any, *, lives: dict[str, Any] | None = None, **options: Any) -> Lives:
    app = App("test")
    app.agent(name="agent", **options)(program)

    @app.agent
    async def patient(ctx: Context) -> int:
        return await ctx.wait_for("end", int)

    return Lives(app, **(lives or {}))


async def paused(lives: Lives, run: str) -> None:
    async def is_held() -> bool:
        return (await lives.record(run)).life.hold is not None

    await lives.until(is_held, run)
    life = (await lives.record(run)).life
    assert (life.hold, life.worker, life.ended) == (PAUSED, None, False)


async def resume(lives: Lives, run: str) -> None:
    await resumption.resume(lives.store, lives.clock, await lives.record(run), by="ada", verdict=None)


async def ends(lives: Lives, run: str) -> Any:
    await lives.settled(run)
    assert (await lives.record(run)).life.status == SUCCEEDED
    return await lives.output(run)


class TestWhereverItIs:
    async def test_in_the_queue_it_is_set_aside_at_once_and_not_executed(self) -> None:
        async def program(ctx: Context) -> int:
            return await ctx.step(double, 1)

        lives = lives_of(program)
        run = await lives.submit()
        await lives.store.pause(run, by="ada")
        async with lives.working() as worker:
            other = await lives.submit()
            await lives.settled(other)
            await worker.idle()
            await paused(lives, run)
            assert executed["double 1"] == 1
            await resume(lives, run)
            assert await ends(lives, run) == 2

    async def test_a_step_in_the_air_is_recorded_and_no_other_begins(self) -> None:
        world = World()

        async def program(ctx: Context) -> list[Any]:
            return [await ctx.step(world.gate), await ctx.step(double, 1)]

        lives = lives_of(program)
        run = await lives.submit()
        async with lives.working() as worker:
            await world.reached.wait()
            await lives.store.pause(run, by="ada")
            for _ in range(5):
                await asyncio.sleep(0.01)
            assert (await lives.record(run)).life.status == "running"
            world.open.set()
            await paused(lives, run)
            await worker.idle()
            assert executed == {"passed": 1}
            await resume(lives, run)
            assert await ends(lives, run) == ["passed", 2]
        assert executed == {"passed": 1, "double 1": 1}

    async def test_the_last_step_of_a_run_ends_nothing(self) -> None:
        world = World()

        async def program(ctx: Context) -> str:
            return await ctx.step(world.gate)

        lives = lives_of(program)
        run = await lives.submit()
        async with lives.working():
            await world.reached.wait()
            await lives.store.pause(run, by="ada")
            while not (await lives.store.controls((await lives.record(run)).life.worker or "")):
                await asyncio.sleep(0)
            await asyncio.sleep(0.02)
            world.open.set()
            await paused(lives, run)
            await resume(lives, run)
            assert await ends(lives, run) == "passed"
        assert executed == {"passed": 1}

    @pytest.mark.parametrize("park_after", [0.01, 10])
    async def test_in_waits_it_is_set_aside_and_keeps_what_arrives(self, park_after: float) -> None:
        async def program(ctx: Context) -> list[Any]:
            return list(await ctx.gather(ctx.wait_for("go", int), ctx.ask("?", int)))

        lives = lives_of(program, lives={"park_after": park_after})
        run = await lives.submit()
        async with lives.working() as worker:
            await lives.has(run, event.WAIT_OPENED, 2)
            if park_after < 1:
                await lives.parked(run)
            await lives.store.pause(run, by="ada")
            await paused(lives, run)
            await lives.signal(run, "go", 1)
            await lives.answer(run, 2)
            await worker.idle()
            assert (await lives.record(run)).life.hold == PAUSED
            await resume(lives, run)
            assert await ends(lives, run) == [1, 2]

    async def test_in_a_branch_that_works_beside_one_that_waits(self) -> None:
        world = World()

        async def program(ctx: Context) -> list[Any]:
            return list(await ctx.gather(ctx.wait_for("go", int), ctx.step(world.gate)))

        lives = lives_of(program)
        run = await lives.submit()
        async with lives.working():
            await lives.has(run, event.WAIT_OPENED)
            await world.reached.wait()
            await lives.store.pause(run, by="ada")
            await asyncio.sleep(0.05)
            world.open.set()
            began = asyncio.get_running_loop().time()
            await paused(lives, run)
            assert asyncio.get_running_loop().time() - began < 1, "it waits for a grace that nobody needs"
            await resume(lives, run)
            await lives.signal(run, "go", 1)
            assert await ends(lives, run) == [1, "passed"]
        assert executed == {"passed": 1}

    async def test_while_a_person_is_asked_about_a_step_that_failed_just_now(self) -> None:
        async def lost() -> int:
            effect("lost")
            raise OSError("no answer")

        async def program(ctx: Context) -> int:
            return await ctx.step(lost, in_doubt="ask")

        lives = lives_of(program, lives={"park_after": 10})
        run = await lives.submit()
        async with lives.working() as worker:
            await lives.question(run)
            await lives.store.pause(run, by="ada")
            await paused(lives, run)
            await worker.idle()
            await resume(lives, run)
            await lives.answer(run, {"done": 3})
            assert await ends(lives, run) == 3
        assert executed == {"lost": 1}

    async def test_between_two_attempts(self) -> None:
        async def program(ctx: Context) -> int:
            if effect("attempt") == 1:
                raise OSError("again")
            return await ctx.step(double, 1)

        lives = lives_of(program, retry=Retry(3, first_delay=0.001))
        run = await lives.submit()
        async with lives.working():
            await lives.has(run, event.RUN_RETRYING)
            await lives.store.pause(run, by="ada")
            if (await lives.record(run)).life.ended:
                return
            await paused(lives, run)
            await resume(lives, run)
            assert await ends(lives, run) == 2

    async def test_when_its_worker_is_lost_meanwhile(self) -> None:
        world = World()

        async def program(ctx: Context) -> list[Any]:
            first = await ctx.step(double, 1)
            return [first, await ctx.step(double, 2), world.open.is_set()]

        lives = lives_of(program)
        run = await lives.submit()
        await lives.live(run, crash=Crash("step.after_record"))
        await lives.store.pause(run, by="ada")
        async with lives.working():
            await paused(lives, run)
            world.open.set()
            await resume(lives, run)
            assert await ends(lives, run) == [2, 4, True]
        assert executed == {"double 1": 1, "double 2": 1}

    async def test_an_agent_that_does_not_stop_is_left_behind(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(worker_module, "CANCEL_GRACE", 0.1)
        world = World()

        async def program(ctx: Context) -> int:
            got = await ctx.step(double, 1)
            if effect("attempt") == 1:
                world.reached.set()
                while not world.open.is_set():
                    try:
                        await asyncio.sleep(0.01)
                    except asyncio.CancelledError:
                        effect("swallowed")
            return got

        lives = lives_of(program, lives={"capacity": 1})
        run = await lives.submit()
        async with lives.working() as worker:
            await world.reached.wait()
            await lives.store.pause(run, by="ada")
            await paused(lives, run)
            await worker.idle()
            world.open.set()
            await resume(lives, run)
            assert await ends(lives, run) == 2
        assert executed["double 1"] == 1


class TestTrees:
    async def test_a_pause_sets_children_aside_and_a_resume_lets_them_go_on(self) -> None:
        async def program(ctx: Context) -> Any:
            return await ctx.call("patient")

        lives = lives_of(program)
        run = await lives.submit()
        async with lives.working() as worker:
            await lives.parked(run)
            (child,) = await lives.children(run)
            await lives.parked(child.id)
            await worker.idle()
            await lives.store.pause(run, by="ada")
            await paused(lives, run)
            await paused(lives, child.id)
            await lives.signal(child.id, "end", 4)
            await worker.idle()
            await resume(lives, run)
            assert await ends(lives, run) == 4

    async def test_an_end_of_a_child_is_kept_for_a_parent_that_is_set_aside(self) -> None:
        async def program(ctx: Context) -> Any:
            return await ctx.call("patient")

        lives = lives_of(program)
        run = await lives.submit()
        async with lives.working():
            await lives.parked(run)
            (child,) = await lives.children(run)
            await lives.parked(child.id)
            await lives.store.pause(run, by="ada")
            await lives.store.resume(child.id, at_seq=(await lives.record(child.id)).life.seq, by="ada")
            await lives.signal(child.id, "end", 4)
            await lives.settled(child.id)
            await paused(lives, run)
            await resume(lives, run)
            assert await ends(lives, run) == 4


class TestRaces:
    @pytest.mark.parametrize("turns", range(40))
    async def test_at_whatever_turn_it_comes_nothing_is_lost_or_done_twice(self, turns: int) -> None:
        async def program(ctx: Context) -> int:
            first = await ctx.step(double, 1)
            second: int = await ctx.wait_for("go", int)
            rest = await ctx.gather(ctx.step(double, 2), ctx.sleep(0.0001), ctx.wait_for("go", int))
            return first + second + sum(one for one in rest if one is not None)

        lives = lives_of(program, lives={"park_after": 0, "group_commits": turns})
        run = await lives.submit()
        for number in (10, 20):
            await lives.signal(run, "go", number)
        async with lives.working():
            for _ in range(turns):
                await asyncio.sleep(0)
            if not (await lives.record(run)).life.ended:
                await lives.store.pause(run, by="ada")
                await lives.settled(run)
            if not (await lives.record(run)).life.ended:
                await paused(lives, run)
                await resume(lives, run)
            assert await ends(lives, run) == 2 + 10 + 4 + 20
        assert executed == {"double 1": 1, "double 2": 1}
