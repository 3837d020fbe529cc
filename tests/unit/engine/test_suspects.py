"""Suspects: a run that was lost again and again is executed alone and takes nobody along; afterwards life is normal."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import pytest

from stepwell.app import App
from stepwell.domain import event
from stepwell.domain.run import FAILED, SUCCEEDED, Lease
from stepwell.engine.quarantine import Quarantine
from stepwell.engine.submission import Options, Submitter
from stepwell.engine.worker import Worker
from stepwell.ports import crash_point
from stepwell.ports.context import Context
from stepwell.ports.store import Claim, Claims
from tests.unit.engine.lives import Crash, Lives
from tests.unit.engine.samples import double, effect, executed

BEFORE_ANYTHING = "executor.after_claim"


class Plant:
    """Runs that wait for a gate, and what ran beside what."""

    def __init__(self) -> None:
        self.gates: dict[str, asyncio.Event] = {}
        self.inside: set[str] = set()
        self.beside: dict[str, set[str]] = {}
        self.app = App("test")

        @self.app.agent(name="agent")
        async def agent(ctx: Context, name: str) -> str:
            await self._be_inside(name)
            return name

    def gate(self, name: str) -> asyncio.Event:
        return self.gates.setdefault(name, asyncio.Event())

    async def _be_inside(self, name: str) -> None:
        for other in self.inside:
            self.beside.setdefault(other, set()).add(name)
        self.beside.setdefault(name, set()).update(self.inside)
        self.inside.add(name)
        try:
            await self.gate(name).wait()
        finally:
            self.inside.discard(name)


async def lost_twice(lives: Lives, name: str) -> str:
    """A run that took two processes with it before it did anything."""
    run = await lives.submit(value=name)
    for _ in range(2):
        await lives.live(run, crash=Crash(BEFORE_ANYTHING))
    assert (await lives.record(run)).life.losses == 1  # the second loss is found by the next claim
    return run


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0)


class TestAlone:
    async def test_a_run_that_was_lost_twice_is_executed_with_nothing_beside_it(self) -> None:
        plant = Plant()
        lives = Lives(plant.app, capacity=4)
        suspect = await lost_twice(lives, "suspect")
        others = [await lives.submit(value=f"other {n}") for n in range(3)]
        async with lives.working():
            await until(lambda: "suspect" in plant.inside or len(plant.inside) == 3)
            for name in ("other 0", "other 1", "other 2", "suspect"):
                plant.gate(name).set()
            for run in (suspect, *others):
                await lives.settled(run)
        assert plant.beside["suspect"] == set()
        for run in (suspect, *others):
            assert (await lives.record(run)).life.status == SUCCEEDED

    async def test_what_runs_already_comes_to_its_end_before(self) -> None:
        plant = Plant()
        lives = Lives(plant.app, capacity=4)
        suspect = await lives.submit(value="suspect")
        for _ in range(2):
            await lives.live(suspect, crash=Crash(BEFORE_ANYTHING))
        async with lives.working():
            busy = await lives.submit(value="busy")
            await until(lambda: bool(plant.inside))
            late = await lives.submit(value="late")
            for name in ("busy", "late", "suspect"):
                plant.gate(name).set()
            for run in (suspect, busy, late):
                await lives.settled(run)
        assert plant.beside["suspect"] == set()

    async def test_no_submission_starts_beside_it(self) -> None:
        plant = Plant()
        lives = Lives(plant.app, capacity=4)
        await lost_twice(lives, "suspect")
        async with lives.working() as worker:
            await until(lambda: plant.inside == {"suspect"})
            assert worker.offer_slot() is None
            submitter = Submitter(lives.store, clock=lives.clock, entropy=lives.entropy, worker=worker)
            result = await submitter.submit(lives.runnables(plant.app)["agent"], "new", Options())
            assert result.lease is None
            assert plant.inside == {"suspect"}
            plant.gate("suspect").set()
            plant.gate("new").set()
            await lives.settled(result.run.id)
        assert plant.beside["suspect"] == set()

    async def test_suspects_are_executed_one_after_the_other(self) -> None:
        plant = Plant()
        lives = Lives(plant.app, capacity=4)
        names = ["a", "b", "c"]
        runs = [await lives.submit(value=name) for name in names]
        for _ in range(2):
            await lives.live(runs[0], crash=Crash(BEFORE_ANYTHING, passing=3))
        plant.beside.clear()
        async with lives.working():
            for name in names:
                plant.gate(name).set()
            for run in runs:
                await lives.settled(run)
        assert all(not beside & set(names) for beside in plant.beside.values())


class TestAfterwards:
    async def test_progress_makes_it_a_run_like_any_other(self) -> None:
        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> int:
            return await ctx.step(double, 1)

        lives = Lives(app)
        run = await lives.submit()
        for _ in range(2):
            await lives.live(run, crash=Crash(BEFORE_ANYTHING))
        await lives.live(run, crash=Crash("step.after_record"))
        assert (await lives.record(run)).life.losses == 0
        await lives.live(run)
        assert await lives.output(run) == 2

    async def test_the_worker_fills_its_slots_again(self) -> None:
        plant = Plant()
        lives = Lives(plant.app, capacity=4)
        suspect = await lost_twice(lives, "suspect")
        async with lives.working():
            await until(lambda: plant.inside == {"suspect"})
            others = [await lives.submit(value=f"{n}") for n in range(4)]
            plant.gate("suspect").set()
            await lives.settled(suspect)
            await until(lambda: len(plant.inside) == 4)
            for number in range(4):
                plant.gate(f"{number}").set()
            for run in others:
                await lives.settled(run)

    async def test_a_suspect_that_somebody_else_took_keeps_nobody_idle(self) -> None:
        plant = Plant()
        lives = Lives(plant.app, capacity=4)
        suspect = await lost_twice(lives, "suspect")
        async with contextlib.AsyncExitStack() as stack:
            workers: list[Worker] = [await stack.enter_async_context(lives.working()) for _ in range(2)]
            await until(lambda: "suspect" in plant.inside)
            runs = [await lives.submit(value=f"{n}") for n in range(4)]
            lives.look()
            await until(lambda: len(plant.inside) == 5)
            assert sorted(worker.running for worker in workers) == [1, 4]
            for name in ("suspect", "0", "1", "2", "3"):
                plant.gate(name).set()
            for run in (suspect, *runs):
                await lives.settled(run)

    async def test_one_that_parks_is_none_any_more(self) -> None:
        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> Any:
            effect("begun")
            return await ctx.wait_for("go")

        lives = Lives(app)
        run = await lives.submit()
        for _ in range(2):
            await lives.live(run, crash=Crash(BEFORE_ANYTHING))
        async with lives.working() as worker:
            await lives.parked(run)
            await worker.idle()
            assert worker.offer_slot() is not None
            assert (await lives.record(run)).life.losses == 0


class TestQuarantine:
    @pytest.mark.parametrize(("losses", "quiet"), [(0, False), (1, False), (2, True)])
    async def test_only_a_suspect_is_left_alone(self, losses: int, quiet: bool) -> None:
        lives = Lives(Plant().app)
        run = await lives.record(await lives.submit(value="x"))
        life = run.life._replace(losses=losses)
        claim = Claim(run._replace(life=life), Lease(run.id, 1, "wrk_1"), [])
        quarantine = Quarantine()
        quarantine.learn("skip", Claims([], None, suspects=True), lambda: None)
        assert quarantine.ask(5) == ("alone", 1)
        quarantine.learn("alone", Claims([claim], None), lambda: None)
        assert quarantine.is_quiet(busy=True) == quiet
        assert quarantine.none_left.is_set() != quiet


class TestEnd:
    async def test_the_third_loss_is_the_last(self) -> None:
        plant = Plant()
        lives = Lives(plant.app)
        run = await lost_twice(lives, "poison")
        await lives.live(run, crash=Crash(BEFORE_ANYTHING))
        other = await lives.submit(value="other")
        plant.gate("other").set()
        async with lives.working():
            await lives.settled(run)
            await lives.settled(other)
        life = (await lives.record(run)).life
        assert (life.status, life.dead, life.reason) == (FAILED, 1, "run.lost")
        assert (await lives.record(other)).life.losses == 0
        assert len(await lives.journal(run, event.RUN_LOST)) == 3

    @pytest.mark.parametrize("poison", [1, 3])
    async def test_nobody_starves_and_the_innocent_end_well(self, poison: int) -> None:
        app = App("test")

        @app.agent
        async def agent(ctx: Context, name: str) -> str:
            if name.startswith("poison"):
                raise_in_process()
            return await ctx.step(double_text, name)

        lives = Lives(app, capacity=4)
        bad = [await lives.submit(value=f"poison {n}") for n in range(poison)]
        good = [await lives.submit(value=f"good {n}") for n in range(12)]
        for _ in range(3 * poison + 6):
            left = [run for run in (*bad, *good) if not (await lives.record(run)).life.ended]
            if not left:
                break
            await lives.live(left[0], crash=Crash("poison"))
        for run in good:
            assert (await lives.record(run)).life.status == SUCCEEDED
        for run in bad:
            assert (await lives.record(run)).life.dead
        assert set(executed.values()) <= {1, 2, 3}


def raise_in_process() -> None:
    """Pass the point at which the process dies."""
    hook = crash_point._hook
    assert hook is not None
    hook("poison")


async def double_text(text: str) -> str:
    effect(text)
    return text + text
