"""Parking: a run that does nothing but wait holds nothing, and one in which anything goes on is let go on."""

import asyncio
import contextlib
import gc
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from stepwell.app import App
from stepwell.domain import event
from stepwell.domain.errors import StoreUnavailable
from stepwell.domain.retry import Retry
from stepwell.domain.run import WAITING
from stepwell.engine import worker as worker_module
from stepwell.engine.attempt import Attempt
from stepwell.engine.waits import PARK_AFTER
from stepwell.ports.context import Context
from stepwell.testing.clock import ManualClock
from tests.unit.engine.lives import AFTER_AGENT, Crash, Lives
from tests.unit.engine.samples import double, effect, executed, turns

Program = Callable[[Context], Awaitable[Any]]


def lives_of(program: Program, **options: Any) -> Lives:
    app = App("test")

    @app.agent(name="agent")
    async def agent(ctx: Context) -> Any:
        return await program(ctx)

    @app.agent(name="child")
    async def child(ctx: Context) -> int:
        return await ctx.wait_for("end", int)

    return Lives(app, **options)


async def while_quiet(lives: Lives, run: str, *, seconds: float = 0.1) -> str:
    """The run's status after it had the time to be parked many times over."""
    for _ in range(20):
        await asyncio.sleep(seconds / 20)  # nothing tells that a run was not parked but that it could have been
    return (await lives.record(run)).life.status


class Gate:
    """Something outside that a step or the agent's own code waits for."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.open = asyncio.Event()

    async def __call__(self) -> str:
        self.reached.set()
        await self.open.wait()
        return "passed"


class TestWhen:
    def test_a_quarter_of_a_second_is_the_default(self) -> None:
        assert PARK_AFTER == 0.25

    async def test_a_wait_shorter_than_that_is_not_parked(self) -> None:
        async def program(ctx: Context) -> int:
            effect("begun")
            await ctx.sleep(0.02)
            return await ctx.step(double, 1)

        lives = lives_of(program, park_after=0.2)
        run = await lives.run()
        assert await lives.output(run) == 2
        assert executed["begun"] == 1
        assert await lives.journal(run, event.RUN_WAITING) == []

    async def test_nor_is_one_whose_end_is_that_near_when_it_could_be_parked(self) -> None:
        async def program(ctx: Context) -> str:
            effect("begun")
            return str(await ctx.wait_for("go", timeout=0.1, default="nobody"))

        lives = lives_of(program, park_after=0.06)
        assert await lives.output(await lives.run()) == "nobody"
        assert executed["begun"] == 1

    async def test_an_arrival_before_that_finds_the_agent_where_it_is(self) -> None:
        async def program(ctx: Context) -> Any:
            effect("begun")
            return await ctx.wait_for("go")

        lives = lives_of(program, park_after=10)
        run = await lives.submit()
        async with lives.working():
            await lives.has(run, event.WAIT_OPENED)
            await lives.signal(run, "go", 1)
            await lives.settled(run)
        assert await lives.output(run) == 1
        assert executed["begun"] == 1

    async def test_waiting_near_the_end_of_a_wait_does_not_keep_asking_the_store(self) -> None:
        async def program(ctx: Context) -> None:
            await ctx.sleep(0.3)

        lives = lives_of(program, park_after=0.2)
        asked = 0
        journal = lives.store.journal

        async def counting(run_id: str, **options: Any) -> Any:
            nonlocal asked
            asked += 1
            return await journal(run_id, **options)

        lives.store.journal = counting  # type: ignore[method-assign]
        run = await lives.submit()
        async with lives.working() as worker:
            while not worker.running:
                await asyncio.sleep(0)
            await worker.idle()
        assert (await lives.record(run)).life.status == "succeeded"
        assert asked < 10


class TestSlots:
    async def test_a_parked_run_holds_no_slot(self) -> None:
        async def program(ctx: Context) -> Any:
            return await ctx.wait_for("go", int)

        lives = lives_of(program, capacity=1)
        runs = [await lives.submit() for _ in range(50)]
        async with lives.working() as worker:
            for run in runs:
                await lives.parked(run)
            await worker.idle()
            assert worker.running == 0
            for number, run in enumerate(runs):
                await lives.signal(run, "go", number)
            for run in runs:
                await lives.settled(run)
        assert [await lives.output(run) for run in runs] == list(range(50))

    async def test_nor_anything_in_memory(self) -> None:
        async def program(ctx: Context) -> Any:
            left, _ = await ctx.gather(ctx.wait_for("go", int), ctx.ask("Well?", bool))
            return left

        lives = lives_of(program)
        runs = [await lives.submit() for _ in range(10)]
        async with lives.working() as worker:
            for run in runs:
                await lives.parked(run)
            await worker.idle()
            async with asyncio.timeout(2):
                while any(isinstance(thing, Attempt) and thing.record.id in runs for thing in gc.get_objects()):
                    await asyncio.sleep(0.01)
                    gc.collect()

    async def test_a_run_may_park_again_and_again(self) -> None:
        async def program(ctx: Context) -> list[int]:
            return [await ctx.wait_for("go", int) for _ in range(10)]

        lives = lives_of(program, capacity=1)
        run = await lives.submit()
        async with lives.working():
            for number in range(10):
                await lives.parked(run)
                await lives.signal(run, "go", number)
                await lives.has(run, event.RUN_RESUMED, number + 1)
            await lives.settled(run)
        assert await lives.output(run) == list(range(10))
        life = (await lives.record(run)).life
        assert (life.attempt, life.losses) == (1, 0)


class TestWhatGoesOn:
    async def test_an_open_step_beside_a_wait_keeps_the_run(self) -> None:
        gate = Gate()

        async def program(ctx: Context) -> list[Any]:
            return list(await ctx.gather(ctx.wait_for("go"), ctx.step(gate)))

        lives = lives_of(program)
        run = await lives.submit()
        async with lives.working():
            await gate.reached.wait()
            assert await while_quiet(lives, run) == "running"
            gate.open.set()
            await lives.parked(run)
            await lives.signal(run, "go", 1)
            await lives.settled(run)
        assert await lives.output(run) == [1, "passed"]

    async def test_so_does_a_step_that_will_be_tried_again(self) -> None:
        clock = ManualClock()

        async def flaky() -> str:
            if effect("tried") == 1:
                raise OSError("not yet")
            return "done"

        async def program(ctx: Context) -> list[Any]:
            step = ctx.step(flaky, retry=Retry(3, first_delay=60))
            return list(await ctx.gather(ctx.wait_for("go"), step))

        lives = lives_of(program, clock=clock, lease_seconds=10_000)
        run = await lives.submit()
        async with lives.working():
            await lives.has(run, event.STEP_FAILED)
            assert await while_quiet(lives, run) == "running"
            clock.advance(60)
            await lives.parked(run)

    async def test_so_does_a_branch_whose_own_code_goes_on(self) -> None:
        gate = Gate()

        async def program(ctx: Context) -> list[Any]:
            async def branch() -> int:
                await gate()
                return await ctx.step(double, 1)

            return list(await ctx.gather(ctx.wait_for("go"), branch()))

        lives = lives_of(program)
        run = await lives.submit()
        async with lives.working():
            await gate.reached.wait()
            assert await while_quiet(lives, run) == "running"
            gate.open.set()
            await lives.parked(run)
        assert executed == {"double 1": 1}

    @pytest.mark.parametrize("depth", [1, 2, 3])
    async def test_so_does_a_branch_at_any_depth(self, depth: int) -> None:
        gate = Gate()

        async def program(ctx: Context) -> Any:
            async def nest(level: int) -> Any:
                if level == 0:
                    await gate()
                    return 0
                return await ctx.gather(nest(level - 1), ctx.wait_for(f"go{level}"), ctx.sleep(3600))

            return await nest(depth)

        lives = lives_of(program)
        run = await lives.submit()
        async with lives.working():
            await lives.has(run, event.WAIT_OPENED, 2 * depth)
            assert await while_quiet(lives, run) == "running"
            gate.open.set()
            await lives.parked(run)

    async def test_the_agents_own_code_between_two_waits_is_let_go_on(self) -> None:
        gate = Gate()

        async def program(ctx: Context) -> Any:
            await ctx.wait_for("one")
            await gate()
            return await ctx.wait_for("two")

        lives = lives_of(program)
        run = await lives.submit()
        await lives.signal(run, "one")
        async with lives.working():
            await gate.reached.wait()
            assert await while_quiet(lives, run) == "running"
            gate.open.set()
            await lives.parked(run)

    async def test_a_branch_that_was_woken_goes_on_although_the_others_wait(self) -> None:
        gate = Gate()

        async def program(ctx: Context) -> list[Any]:
            async def branch() -> str:
                await ctx.wait_for("one")
                await gate()
                return "done"

            return list(await ctx.gather(branch(), ctx.wait_for("two"), ctx.wait_for("three")))

        lives = lives_of(program)
        run = await lives.submit()
        async with lives.working():
            await lives.parked(run)
            await lives.signal(run, "one")
            await gate.reached.wait()
            assert await while_quiet(lives, run) == "running"
            gate.open.set()
            await lives.has(run, event.RUN_WAITING, 2)


class TestWhatParks:
    """Programs that do nothing but wait in the end, in whatever way they came there."""

    async def parks(self, program: Program, **options: Any) -> tuple[Lives, str]:
        lives = lives_of(program, **options)
        run = await lives.submit()
        async with lives.working() as worker:
            await lives.parked(run)
            await worker.idle()
        return lives, run

    async def test_one_wait(self) -> None:
        await self.parks(lambda ctx: ctx.wait_for("go"))

    async def test_several_kinds_at_once(self) -> None:
        async def program(ctx: Context) -> Any:
            return await ctx.gather(ctx.wait_for("go"), ctx.ask("?", bool), ctx.sleep(3600), ctx.call("child"))

        lives, run = await self.parks(program)
        (told,) = await lives.facts(run, event.RUN_WAITING)
        assert [wait["type"] for wait in told["waits"]] == ["time", "signal", "question", "child"]

    async def test_beside_steps_and_branches_that_have_ended(self) -> None:
        async def program(ctx: Context) -> Any:
            async def empty() -> None:
                return None

            return await ctx.gather(
                ctx.step(double, 1),
                empty(),
                ctx.map(double, [2, 3]),
                ctx.gather(),
                ctx.wait_for("go"),
                ctx.step(turns, "x", 3),
            )

        await self.parks(program)

    async def test_beside_a_branch_that_failed(self) -> None:
        async def program(ctx: Context) -> Any:
            async def broken() -> None:
                raise ValueError("mine")

            return await ctx.gather(broken(), ctx.wait_for("go"), broken())

        lives, run = await self.parks(program)
        await lives.signal(run, "go")
        await lives.live(run)
        assert (await lives.error(run))["message"] == "mine"

    async def test_nested_branches(self) -> None:
        async def program(ctx: Context) -> Any:
            async def inner(name: str) -> Any:
                await ctx.step(turns, name, 2)
                return await ctx.gather(ctx.wait_for(name), ctx.gather(ctx.wait_for(name), ctx.step(double, 1)))

            return await ctx.gather(inner("a"), inner("b"), ctx.gather(ctx.gather(ctx.wait_for("c"))))

        await self.parks(program)

    @pytest.mark.parametrize("limit", [None, 1, 2])
    async def test_a_branch_after_a_map(self, limit: int | None) -> None:
        async def program(ctx: Context) -> Any:
            async def branch() -> Any:
                await ctx.map(double, [1, 2, 3], limit=limit)
                return await ctx.wait_for("go")

            return await ctx.gather(branch(), branch())

        await self.parks(program)

    async def test_after_branches_have_come_together_again(self) -> None:
        async def program(ctx: Context) -> Any:
            for _ in range(3):
                await ctx.gather(ctx.step(double, 1), ctx.gather(ctx.step(double, 2), ctx.sleep(0)), ctx.sleep(0.001))
            return await ctx.wait_for("go")

        await self.parks(program)

    async def test_after_a_wait_that_was_cut_short_by_its_branchs_own_timeout(self) -> None:
        async def program(ctx: Context) -> Any:
            async def impatient() -> None:
                try:
                    async with asyncio.timeout(0.001):
                        await asyncio.get_running_loop().create_future()
                except TimeoutError:
                    pass

            return await ctx.gather(impatient(), ctx.wait_for("go"))

        await self.parks(program)

    async def test_two_branches_that_wait_for_one_child(self) -> None:
        async def program(ctx: Context) -> Any:
            child = await ctx.spawn("child")
            left, right = await ctx.gather(child.result(), child.result())
            return [left.output, right.output]

        lives, run = await self.parks(program)
        (child,) = await lives.children(run)
        async with lives.working():
            await lives.signal(child.id, "end", 7)
            await lives.settled(run)
        assert await lives.output(run) == [7, 7]

    async def test_a_question_about_a_step_that_two_branches_ask_for(self) -> None:
        async def lost() -> int:
            effect("lost")
            raise OSError("no answer")

        async def program(ctx: Context) -> Any:
            async def branch() -> int:
                return await ctx.step(lost, key="it", in_doubt="ask")

            return await ctx.gather(branch(), branch(), ctx.sleep(0.001))

        lives, run = await self.parks(program)
        async with lives.working():
            await lives.answer(run, {"done": 3})
            await lives.settled(run)
        assert (await lives.output(run))[:2] == [3, 3]
        assert executed == {"lost": 1}


class TestTasksOfTheAgentsOwn:
    """What has a key may be called in tasks that the agent started itself."""

    @pytest.mark.parametrize("count", [1, 2, 5])
    async def test_an_agent_that_waits_for_questions_in_tasks_is_parked(self, count: int) -> None:
        async def program(ctx: Context) -> list[int]:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(ctx.ask(f"{n}?", int, key=str(n))) for n in range(count)]
            return [task.result() for task in tasks]

        lives = lives_of(program)
        run = await lives.submit()
        async with lives.working() as worker:
            await lives.parked(run)
            await worker.idle()
            for number in range(count):
                await lives.answer(run, number, text=f"{number}?")
            await lives.settled(run)
        assert await lives.output(run) == list(range(count))

    async def test_so_is_one_that_waits_itself_beside_such_a_task(self) -> None:
        async def program(ctx: Context) -> list[Any]:
            task = asyncio.create_task(ctx.ask("?", int, key="it"))
            return [await ctx.wait_for("go"), await task]

        lives = lives_of(program)
        run = await lives.submit()
        async with lives.working():
            await lives.parked(run)
            await lives.signal(run, "go", 1)
            await lives.has(run, event.RUN_WAITING, 2)
            await lives.answer(run, 2)
            await lives.settled(run)
        assert await lives.output(run) == [1, 2]

    async def test_a_step_in_such_a_task_keeps_the_run(self) -> None:
        gate = Gate()

        async def program(ctx: Context) -> list[Any]:
            task = asyncio.create_task(ctx.step(gate, key="it"))
            return [await ctx.wait_for("go"), await task]

        lives = lives_of(program)
        run = await lives.submit()
        async with lives.working():
            await gate.reached.wait()
            assert await while_quiet(lives, run) == "running"
            gate.open.set()
            await lives.parked(run)

    async def test_so_does_such_a_task_between_its_calls(self) -> None:
        gate = Gate()

        async def program(ctx: Context) -> list[Any]:
            async def work() -> int:
                await ctx.step(double, 1, key="first")
                await gate()
                return await ctx.step(double, 2, key="second")

            async with asyncio.TaskGroup() as group:
                asked, worked = group.create_task(ctx.ask("?", int, key="it")), group.create_task(work())
            return [asked.result(), worked.result()]

        lives = lives_of(program)
        run = await lives.submit()
        async with lives.working():
            await gate.reached.wait()
            assert await while_quiet(lives, run) == "running"
            gate.open.set()
            await lives.parked(run)
        assert executed == {"double 1": 1, "double 2": 1}

    async def test_an_agent_may_return_while_such_a_task_waits(self) -> None:
        tasks: list[asyncio.Task[int]] = []

        async def program(ctx: Context) -> str:
            tasks.append(asyncio.create_task(ctx.ask("?", int, key="it")))
            while not executed["asked"]:
                await asyncio.sleep(0)
            return "done"

        lives = lives_of(program, park_after=10)
        run = await lives.submit()
        async with lives.working():
            await lives.question(run)
            assert await while_quiet(lives, run) == "running"
            effect("asked")
            await lives.settled(run)
            assert await lives.output(run) == "done"
            await asyncio.wait(tasks, timeout=1)
            assert tasks[0].done(), "a task that was left behind waits for ever"
        assert await lives.questions(run) == []

    async def test_what_such_a_task_does_later_comes_too_late(self) -> None:
        gate = Gate()
        ended: list[BaseException | None] = []

        async def program(ctx: Context) -> str:
            async def late() -> None:
                try:
                    await gate()
                    await ctx.ask("?", int, key="it")
                except BaseException as error:  # noqa: BLE001 - that is the point
                    ended.append(error)

            task = asyncio.create_task(late())
            await gate.reached.wait()
            ended.append(None) if task.done() else None
            return "done"

        lives = lives_of(program)
        run = await lives.run()
        gate.open.set()
        while not ended:
            await asyncio.sleep(0)
        assert type(ended[0]).__name__ == "AttemptStopped"
        assert await lives.journal(run, event.WAIT_OPENED) == []


class TestUnwinding:
    @pytest.fixture(autouse=True)
    def short_grace(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(worker_module, "CANCEL_GRACE", 0.1)

    async def test_an_agent_that_swallows_the_unwinding_and_returns_has_not_returned(self) -> None:
        async def program(ctx: Context) -> str:
            try:
                return str(await ctx.wait_for("go"))
            except BaseException:  # noqa: BLE001 - that is the point
                return "swallowed"

        lives = lives_of(program)
        run = await lives.submit()
        async with lives.working() as worker:
            await lives.parked(run)
            await worker.idle()
            await lives.signal(run, "go", 1)
            await lives.settled(run)
        assert await lives.output(run) == "1"

    async def test_one_that_swallows_it_and_goes_on_changes_nothing(self) -> None:
        async def program(ctx: Context) -> int:
            got = 0
            while not got:
                try:
                    got = await ctx.wait_for("go", int)
                    await ctx.step(double, got)
                except BaseException:
                    if executed["enough"]:
                        raise
            return got

        lives = lives_of(program)
        run = await lives.submit()
        async with lives.working() as worker:
            await lives.parked(run)
            await worker.idle()
            effect("enough")
        assert (await lives.record(run)).life.status == WAITING
        assert len(await lives.journal(run, event.RUN_WAITING)) == 1
        assert executed["double 0"] == 0

    async def test_one_that_does_not_stop_is_left_behind_and_parked_all_the_same(self) -> None:
        async def program(ctx: Context) -> Any:
            try:
                return await ctx.wait_for("go")
            finally:
                while not executed["enough"]:
                    with contextlib.suppress(asyncio.CancelledError):
                        await asyncio.sleep(0.01)

        lives = lives_of(program, capacity=1)
        run = await lives.submit()
        async with lives.working() as worker:
            await lives.parked(run)
            await worker.idle()
            await lives.signal(run, "go", 1)
            await lives.has(run, event.RUN_RESUMED)
            effect("enough")

    async def test_what_finally_blocks_do_through_the_context_is_refused(self) -> None:
        async def program(ctx: Context) -> Any:
            try:
                return await ctx.wait_for("go")
            finally:
                await ctx.step(double, 1)

        lives = lives_of(program)
        run = await lives.submit()
        async with lives.working() as worker:
            await lives.parked(run)
            await worker.idle()
            assert executed == {}
            await lives.signal(run, "go", 5)
            await lives.settled(run)
        assert await lives.output(run) == 5
        assert executed == {"double 1": 1}

    async def test_a_store_that_gives_no_news_ends_the_attempt_and_not_the_run(self) -> None:
        async def program(ctx: Context) -> Any:
            return await ctx.wait_for("go")

        lives = lives_of(program, park_after=10)
        run = await lives.submit()
        journal = lives.store.journal

        async def broken(run_id: str, **options: Any) -> Any:
            if "kinds" in options:
                raise StoreUnavailable("no answer")
            return await journal(run_id, **options)

        async with lives.working() as worker:
            await lives.has(run, event.WAIT_OPENED)
            lives.store.journal = broken  # type: ignore[method-assign]
            await worker.idle()
        lives.store.journal = journal  # type: ignore[method-assign]
        async with lives.working():
            await lives.signal(run, "go", 1)
            await lives.settled(run)
        assert await lives.output(run) == 1


class TestHandingBack:
    async def test_a_worker_that_drains_lets_go_of_runs_that_wait(self) -> None:
        async def program(ctx: Context) -> Any:
            return await ctx.wait_for("go")

        lives = lives_of(program, park_after=10)
        run = await lives.submit()
        worker = lives.make_worker()
        await worker.start()
        await lives.has(run, event.WAIT_OPENED)
        await worker.stop(drain=0)
        life = (await lives.record(run)).life
        assert (life.status, life.attempt, life.losses, life.worker) == ("queued", 1, 0, None)
        await lives.signal(run, "go", 1)
        await lives.live(run)
        assert await lives.output(run) == 1
        assert len(await lives.journal(run, event.WAIT_OPENED)) == 1

    async def test_or_parks_them_while_it_has_time(self) -> None:
        async def program(ctx: Context) -> Any:
            return await ctx.wait_for("go")

        lives = lives_of(program, park_after=0.05)
        run = await lives.submit()
        worker = lives.make_worker()
        await worker.start()
        await lives.has(run, event.WAIT_OPENED)
        await worker.stop(drain=10)
        assert (await lives.record(run)).life.status == "waiting"

    @pytest.mark.parametrize("point", ["wait.after_opening", AFTER_AGENT, "executor.after_outcome"])
    async def test_a_worker_that_is_lost_around_parking_loses_nothing(self, point: str) -> None:
        async def program(ctx: Context) -> list[Any]:
            return list(await ctx.gather(ctx.wait_for("a"), ctx.ask("?", int)))

        lives = lives_of(program)
        run = await lives.submit()
        await lives.live(run, crash=Crash(point))
        await lives.signal(run, "a", 1)
        async with lives.working():
            await lives.answer(run, 2)
            await lives.settled(run)
        assert await lives.output(run) == [1, 2]
        assert len(await lives.journal(run, event.WAIT_OPENED)) == 2


class TestLog:
    async def test_it_is_quiet_while_a_run_that_was_parked_comes_back_to_where_it_was(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level("INFO", logger="stepwell.run")

        async def program(ctx: Context) -> None:
            ctx.log.info("begun")
            await ctx.step(double, 1)
            ctx.log.info("asking")
            await ctx.ask("?", int)
            ctx.log.info("asked")
            await ctx.gather(ctx.wait_for("go"), ctx.sleep(0))
            ctx.log.info("asking with a key")
            await ctx.ask("Again?", int, key="it")
            ctx.log.info("done")

        lives = lives_of(program)
        run = await lives.submit()
        async with lives.working():
            await lives.parked(run)
            await lives.answer(run, 1)
            await lives.has(run, event.RUN_WAITING, 2)
            await lives.signal(run, "go")
            await lives.has(run, event.RUN_WAITING, 3)
            await lives.signal(run, "nothing that it waits for")
            await lives.answer(run, 1)
            await lives.settled(run)
        said = [record.message for record in caplog.records if record.name == "stepwell.run"]
        assert said == ["begun", "asking", "asked", "asking with a key", "done"]
