"""Cancel: whatever a run is doing, it ends once, soon, and its clean-up runs once."""

import asyncio
import contextlib
import json
import threading
import time
from typing import Any

import pytest

from stepwell.app import App
from stepwell.domain import event
from stepwell.domain.commit import Commit
from stepwell.domain.errors import StoreUnavailable
from stepwell.domain.event import Draft
from stepwell.domain.outcome import NEVER, Cancelled, Parked
from stepwell.domain.retry import Retry
from stepwell.domain.run import CANCELLED, SUCCEEDED, Lease
from stepwell.engine import executor as executor_module
from stepwell.engine import worker as worker_module
from stepwell.ports.context import Context, StepContext
from stepwell.ports.store import ClaimRequest, Committed, Store, WorkerInfo
from stepwell.testing.clock import ManualClock
from tests.unit.engine import process_steps
from tests.unit.engine.lives import Crash, Lives
from tests.unit.engine.samples import double, effect, executed, fail_first

SOON = 1.0
"""Seconds within which whoever waits for a cancelled run must hear of its end."""


class World:
    """What an agent touches, and waits for, outside."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.open = asyncio.Event()

    async def gate(self) -> str:
        self.reached.set()
        await self.open.wait()
        return "passed"


def lives_of(program: Any, *, hook: Any = None, lives: dict[str, Any] | None = None, **options: Any) -> Lives:
    app = App("test")
    agent = app.agent(name="agent", **options)(program)
    if hook is not None:
        agent.on_cancel(hook)

    @app.agent
    async def patient(ctx: Context) -> int:
        return await ctx.wait_for("end", int)

    return Lives(app, **(lives or {}))


async def cancelled(lives: Lives, run: str) -> float:
    """Cancel a run, and give the seconds until it has ended. It ends once."""
    began = time.perf_counter()
    await lives.store.cancel(run, by="ada", reason="enough")
    await lives.settled(run)
    took = time.perf_counter() - began
    assert (await lives.record(run)).life.status == CANCELLED
    ends = [entry for entry in await lives.journal(run) if entry.kind in event.ENDS]
    assert [json.loads(entry.data) for entry in ends] == [{"by": "ada", "reason": "enough"}]
    return took


async def check_nothing_is_left(worker: Any) -> None:
    """No slot is taken, and no task is left of a run."""
    async with asyncio.timeout(2):
        await worker.idle()
        while any("execute" in repr(task) or "_serve" in repr(task) for task in asyncio.all_tasks()):
            await asyncio.sleep(0.01)
    assert worker.running == 0


class TestWhereverItIs:
    async def test_in_the_queue(self) -> None:
        async def program(ctx: Context) -> None:
            effect("executed")

        lives = lives_of(program)
        run = await lives.submit()
        await cancelled(lives, run)
        async with lives.working() as worker:
            await worker.idle()
        assert executed == {}

    async def test_waiting(self) -> None:
        async def program(ctx: Context) -> None:
            await ctx.gather(ctx.wait_for("go"), ctx.ask("?", bool), ctx.call("patient"))

        lives = lives_of(program)
        run = await lives.submit()
        async with lives.working() as worker:
            await lives.parked(run)
            assert await cancelled(lives, run) < SOON
            await check_nothing_is_left(worker)
        assert await lives.questions(run) == []
        (child,) = await lives.children(run)
        assert child.life.status == CANCELLED

    async def test_waiting_and_not_parked_yet(self) -> None:
        async def program(ctx: Context) -> None:
            await ctx.gather(ctx.wait_for("go"), ctx.ask("?", bool))

        lives = lives_of(program, lives={"park_after": 10})
        run = await lives.submit()
        async with lives.working() as worker:
            await lives.has(run, event.WAIT_OPENED, 2)
            assert await cancelled(lives, run) < SOON
            await check_nothing_is_left(worker)

    async def test_backing_off(self) -> None:
        async def program(ctx: Context) -> None:
            raise OSError("again")

        lives = lives_of(program, retry=Retry(3, first_delay=3600))
        run = await lives.submit()
        async with lives.working() as worker:
            await lives.has(run, event.RUN_RETRYING)
            assert await cancelled(lives, run) < SOON
            await check_nothing_is_left(worker)

    async def test_held(self) -> None:
        async def program(ctx: Context) -> None:
            await ctx.step(double, 1, in_doubt="fail")

        lives = lives_of(program)
        run = await lives.run(crashes=(Crash("step.after_function"),))
        assert (await lives.record(run)).life.hold == "in_doubt"
        await cancelled(lives, run)

    async def test_in_an_async_step(self) -> None:
        world = World()

        async def program(ctx: Context) -> None:
            await ctx.step(world.gate)

        lives = lives_of(program)
        run = await lives.submit()
        async with lives.working() as worker:
            await world.reached.wait()
            assert await cancelled(lives, run) < SOON
            await check_nothing_is_left(worker)

    async def test_in_a_step_that_takes_heed_of_it(self) -> None:
        async def work(step: StepContext) -> str:
            effect("begun")
            while not step.cancelled:
                await asyncio.sleep(0.001)
            effect("stopped in order")
            return "half of it"

        async def program(ctx: Context) -> None:
            await ctx.step(work)

        lives = lives_of(program)
        run = await lives.submit()
        async with lives.working() as worker:
            while not executed["begun"]:
                await asyncio.sleep(0)
            assert await cancelled(lives, run) < SOON
            await check_nothing_is_left(worker)
        assert executed["stopped in order"] == 1
        (done,) = await lives.facts(run, event.STEP_COMPLETED)
        assert done["result"] == "half of it"

    async def test_in_a_thread(self) -> None:
        let_go = threading.Event()

        def work() -> None:
            effect("begun")
            let_go.wait(10)

        async def program(ctx: Context) -> None:
            await ctx.step(work)

        lives = lives_of(program)
        run = await lives.submit()
        async with lives.working() as worker:
            while not executed["begun"]:
                await asyncio.sleep(0.001)
            assert await cancelled(lives, run) < SOON
            await worker.idle()
            let_go.set()

    async def test_in_another_process(self) -> None:
        async def program(ctx: Context) -> None:
            await ctx.step(process_steps.wait, 60, run_in="process")

        lives = lives_of(program)
        run = await lives.submit()
        async with lives.working() as worker:
            await lives.has(run, event.RUN_STARTED)
            while not all(holding.attempt.trying for holding in worker._held.values()):
                await asyncio.sleep(0)
            assert await cancelled(lives, run) < SOON + 0.5
            await check_nothing_is_left(worker)

    async def test_between_two_tries_of_a_step(self) -> None:
        async def program(ctx: Context) -> None:
            await ctx.step(fail_first, "flaky", 5, retry=Retry(9, first_delay=3600))

        lives = lives_of(program)
        run = await lives.submit()
        async with lives.working() as worker:
            await lives.has(run, event.STEP_FAILED)
            assert await cancelled(lives, run) < SOON
            await check_nothing_is_left(worker)

    async def test_in_the_agents_own_code(self) -> None:
        world = World()

        async def program(ctx: Context) -> None:
            await world.gate()

        lives = lives_of(program)
        run = await lives.submit()
        async with lives.working() as worker:
            await world.reached.wait()
            assert await cancelled(lives, run) < SOON
            await check_nothing_is_left(worker)

    async def test_in_branches(self) -> None:
        world = World()

        async def program(ctx: Context) -> None:
            async def own() -> None:
                await world.gate()

            await ctx.gather(ctx.step(world.gate), own(), ctx.wait_for("go"), ctx.gather(ctx.sleep(60), own()))

        lives = lives_of(program)
        run = await lives.submit()
        async with lives.working() as worker:
            await lives.has(run, event.WAIT_OPENED, 2)
            await world.reached.wait()
            assert await cancelled(lives, run) < SOON
            await check_nothing_is_left(worker)

    async def test_in_tasks_of_the_agents_own(self) -> None:
        world = World()

        async def program(ctx: Context) -> None:
            async with asyncio.TaskGroup() as group:
                group.create_task(ctx.ask("?", bool, key="a"))
                group.create_task(ctx.step(world.gate, key="b"))

        lives = lives_of(program)
        run = await lives.submit()
        async with lives.working() as worker:
            await lives.question(run)
            await world.reached.wait()
            assert await cancelled(lives, run) < SOON
            await check_nothing_is_left(worker)

    async def test_while_a_person_is_asked_about_a_step_in_doubt(self) -> None:
        async def lost() -> int:
            raise OSError("no answer")

        async def program(ctx: Context) -> None:
            await ctx.step(lost, in_doubt="ask")

        for park_after in (0.01, 10):
            lives = lives_of(program, lives={"park_after": park_after})
            run = await lives.submit()
            async with lives.working() as worker:
                await lives.question(run)
                assert await cancelled(lives, run) < SOON
                await check_nothing_is_left(worker)

    async def test_while_its_worker_is_dead(self) -> None:
        world = World()

        async def program(ctx: Context) -> None:
            await ctx.step(double, 1)
            await world.gate()

        lives = lives_of(program)
        run = await lives.submit()
        await lives.live(run, crash=Crash("step.after_record"))
        await lives.store.cancel(run, by="ada")
        async with lives.working():
            await lives.settled(run)
        assert (await lives.record(run)).life.status == CANCELLED

    async def test_an_agent_that_swallows_cancels_is_left_behind(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(worker_module, "CANCEL_GRACE", 0.1)
        world = World()

        async def program(ctx: Context) -> None:
            world.reached.set()
            while not world.open.is_set():
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.sleep(0.01)

        lives = lives_of(program, lives={"capacity": 1})
        run = await lives.submit()
        async with lives.working() as worker:
            await world.reached.wait()
            assert await cancelled(lives, run) < SOON
            await worker.idle()
            world.open.set()
            await check_nothing_is_left(worker)

    async def test_one_that_swallows_everything_that_unwinds_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(worker_module, "CANCEL_GRACE", 0.1)
        world = World()

        async def program(ctx: Context) -> None:
            while not world.open.is_set():
                try:
                    await ctx.gather(ctx.wait_for("go"), ctx.wait_for("again"))
                except BaseException:  # noqa: BLE001 - that is the point
                    effect("swallowed")

        lives = lives_of(program, lives={"capacity": 1, "park_after": 10})
        run = await lives.submit()
        async with lives.working() as worker:
            await lives.has(run, event.WAIT_OPENED, 2)
            assert await cancelled(lives, run) < SOON
            await worker.idle()
            world.open.set()
        assert len(await lives.journal(run, event.WAIT_OPENED)) == 2

    async def test_its_agent_knows_that_it_was_cancelled(self) -> None:
        world = World()

        async def program(ctx: Context) -> None:
            assert not ctx.cancelled
            try:
                await world.gate()
            finally:
                effect(f"cancelled: {ctx.cancelled}")

        lives = lives_of(program)
        run = await lives.submit()
        async with lives.working():
            await world.reached.wait()
            await cancelled(lives, run)
        assert executed == {"cancelled: True": 1}


class TestRaces:
    @pytest.mark.parametrize("turns", range(60))
    async def test_at_whatever_turn_it_comes_there_is_one_end_and_it_comes_soon(self, turns: int) -> None:
        async def program(ctx: Context) -> str:
            await ctx.step(double, 1)
            await ctx.wait_for("go")
            await ctx.gather(ctx.step(double, 2), ctx.sleep(0.0001), ctx.wait_for("go"))
            return "done"

        lives = lives_of(program, lives={"park_after": 0, "group_commits": turns})
        run = await lives.submit()
        for number in range(2):
            await lives.signal(run, "go", number)
        async with lives.working() as worker:
            for _ in range(turns):
                await asyncio.sleep(0)
            began = time.perf_counter()
            answer = await lives.store.cancel(run, by="ada")
            await lives.settled(run)
            assert time.perf_counter() - began < SOON
            await check_nothing_is_left(worker)
        status = (await lives.record(run)).life.status
        assert status in (CANCELLED, SUCCEEDED)
        assert answer != "already_ended" or status == SUCCEEDED
        journal = await lives.journal(run)
        assert sum(entry.kind in event.ENDS for entry in journal) == 1
        assert [entry.seq for entry in journal] == list(range(1, len(journal) + 1))

    async def test_a_second_cancel_changes_nothing(self) -> None:
        world = World()

        async def program(ctx: Context) -> None:
            await ctx.step(world.gate)

        lives = lives_of(program)
        run = await lives.submit()
        async with lives.working():
            await world.reached.wait()
            assert await lives.store.cancel(run, by="ada") == "cancelling"
            assert await lives.store.cancel(run, by="bob") == "cancelling"
            await lives.settled(run)
        assert await lives.store.cancel(run, by="ada") == "already_ended"
        assert len(await lives.journal(run, event.RUN_CANCELLING)) == 1


class TestRacesWithCleanUp:
    async def test_at_whatever_turn_it_comes_a_run_that_was_started_is_cleaned_up_after_once(self) -> None:
        async def program(ctx: Context) -> str:
            await ctx.step(double, 1)
            await ctx.wait_for("never")
            return "done"

        async def clean_up(ctx: Context) -> None:
            await ctx.step(effect, "cleaned up")

        for turns in range(60):
            executed.clear()
            lives = lives_of(program, hook=clean_up, lives={"park_after": 0, "group_commits": turns})
            run = await lives.submit()
            async with lives.working() as worker:
                for _ in range(turns):
                    await asyncio.sleep(0)
                await cancelled(lives, run)
                await check_nothing_is_left(worker)
            started = (await lives.record(run)).life.attempt > 0
            assert executed["cleaned up"] == started


class FailsToEnd:
    """A store that cannot write that a run was cancelled, the first time."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.failed = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def commit(self, lease: Lease, write: Commit) -> Committed:
        if isinstance(write.outcome, Cancelled) and not self.failed:
            self.failed = 1
            raise StoreUnavailable("another process writes", code="store.busy")
        return await self._store.commit(lease, write)


class TestCleanUp:
    async def test_it_runs_once_also_when_its_end_cannot_be_written_at_first(self) -> None:
        async def program(ctx: Context) -> None:
            await ctx.wait_for("never")

        async def clean_up(ctx: Context) -> None:
            effect("cleaned up")

        lives = lives_of(program, hook=clean_up, lives={"lease_seconds": 1.0})
        store = FailsToEnd(lives.store)
        run = await lives.submit()
        async with lives.working(store=store):
            await lives.parked(run)
            await lives.store.cancel(run, by="ada", reason="enough")
            await lives.settled(run)
        assert (await lives.record(run)).life.status == CANCELLED
        assert (store.failed, executed["cleaned up"]) == (1, 1)

    async def test_a_run_whose_journal_this_program_cannot_read_is_cancelled_without_it(self) -> None:
        async def program(ctx: Context) -> None:
            await ctx.wait_for("never")

        async def clean_up(ctx: Context) -> None:
            effect("cleaned up")

        lives = lives_of(program, hook=clean_up)
        run = await lives.submit()
        worker = WorkerInfo("wrk_newer", "host", 1, 1, lives.clock.now())
        await lives.store.open_worker(worker, lease_seconds=30)
        claims = await lives.store.claim(ClaimRequest(worker.id, 1, ("agent",)))
        novel = Draft(event.WAIT_OPENED, '{"novel":1}', "0/1")
        await lives.store.commit(claims.taken[0].lease, Commit(1, (novel,), Parked(NEVER, "[]")))
        async with lives.working():
            await cancelled(lives, run)
        assert executed == {}
        assert len(await lives.journal(run, event.RUN_RESUMED)) == 1

    async def test_it_runs_once_with_what_was_remembered(self) -> None:
        async def program(ctx: Context) -> None:
            await ctx.step(double, 4, key="reserved")
            await ctx.wait_for("go")

        async def clean_up(ctx: Context) -> None:
            reserved = await ctx.step(double, 4, key="reserved")
            await ctx.step(effect, f"gave back {reserved}")
            assert ctx.cancelled

        for park_after in (0.01, 10):
            executed.clear()
            lives = lives_of(program, hook=clean_up, lives={"park_after": park_after})
            run = await lives.submit()
            async with lives.working() as worker:
                await lives.has(run, event.WAIT_OPENED)
                if park_after < 1:
                    await lives.parked(run)
                assert await cancelled(lives, run) < SOON
                await check_nothing_is_left(worker)
            assert executed == {"double 4": 1, "gave back 8": 1}

    async def test_not_for_a_run_that_never_started(self) -> None:
        async def program(ctx: Context) -> None:
            effect("executed")

        async def clean_up(ctx: Context) -> None:
            effect("cleaned up")

        lives = lives_of(program, hook=clean_up)
        run = await lives.submit()
        assert await lives.store.cancel(run, by="ada") == "cancelled"
        async with lives.working() as worker:
            await worker.idle()
        assert executed == {}

    async def test_not_for_one_that_has_returned(self) -> None:
        async def program(ctx: Context) -> None:
            effect("executed")

        async def clean_up(ctx: Context) -> None:
            effect("cleaned up")

        lives = lives_of(program, hook=clean_up)
        run = await lives.run()
        assert await lives.store.cancel(run, by="ada") == "already_ended"
        assert executed == {"executed": 1}

    async def test_its_own_failure_changes_nothing(self) -> None:
        async def program(ctx: Context) -> None:
            await ctx.wait_for("go")

        async def clean_up(ctx: Context) -> None:
            effect("cleaned up")
            raise SystemExit(3)

        lives = lives_of(program, hook=clean_up)
        run = await lives.submit()
        async with lives.working() as worker:
            await lives.parked(run)
            assert await cancelled(lives, run) < SOON
            await check_nothing_is_left(worker)
        assert executed == {"cleaned up": 1}

    @pytest.mark.parametrize("parked", [True, False])
    @pytest.mark.parametrize("stubborn", [True, False])
    async def test_its_time_is_bounded(self, parked: bool, stubborn: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(executor_module, "CLEAN_UP", 0.1)
        monkeypatch.setattr(worker_module, "CLEAN_UP", 0.1)
        monkeypatch.setattr(worker_module, "CANCEL_GRACE", 0.1)
        world = World()

        async def program(ctx: Context) -> None:
            await ctx.wait_for("go")

        async def clean_up(ctx: Context) -> None:
            effect("cleaning up")
            while not world.open.is_set():
                try:
                    await asyncio.sleep(0.01)
                except asyncio.CancelledError:
                    if not stubborn:
                        raise

        lives = lives_of(program, hook=clean_up, lives={"park_after": 0.01 if parked else 10})
        run = await lives.submit()
        async with lives.working() as worker:
            await lives.has(run, event.WAIT_OPENED)
            if parked:
                await lives.parked(run)
            assert await cancelled(lives, run) < SOON
            await worker.idle()
            world.open.set()
            await check_nothing_is_left(worker)
        assert executed == {"cleaning up": 1}

    async def test_it_may_ask_and_wait_within_its_time(self) -> None:
        async def program(ctx: Context) -> None:
            await ctx.ask("Go on?", bool)

        async def clean_up(ctx: Context) -> None:
            keep = await ctx.ask("Keep what was made?", bool)
            effect(f"keep: {keep}")
            await ctx.gather(ctx.step(double, 1), ctx.sleep(0.001), ctx.ask("Sure?", bool))
            effect(f"got {await ctx.wait_for('thing', int)}")

        clock = ManualClock()
        for park_after in (0.01, 10):
            executed.clear()
            lives = lives_of(program, hook=clean_up, lives={"park_after": park_after, "clock": clock})
            run = await lives.submit()
            async with lives.working() as worker:
                await lives.question(run, "Go on?")
                if park_after < 1:
                    await lives.parked(run)
                await lives.store.cancel(run, by="ada")
                await lives.answer(run, True, text="Keep what was made?")
                await lives.answer(run, True, text="Sure?")
                clock.jump(1)
                await lives.signal(run, "thing", 7)
                await lives.settled(run)
                await check_nothing_is_left(worker)
            assert executed == {"keep: True": 1, "double 1": 1, "got 7": 1}
            assert await lives.questions(run) == []

    @pytest.mark.parametrize("point", ["step.before_function", "step.after_record", "executor.after_outcome"])
    async def test_a_worker_that_is_lost_in_it_ends_the_run_and_it_is_not_begun_again(self, point: str) -> None:
        async def program(ctx: Context) -> None:
            await ctx.wait_for("go")

        async def clean_up(ctx: Context) -> None:
            effect("cleaning up")
            await ctx.step(double, 1)

        lives = lives_of(program, hook=clean_up)
        run = await lives.submit()
        async with lives.working() as worker:
            await lives.parked(run)
            await worker.idle()
        await lives.store.cancel(run, by="ada")
        await lives.live(run, crash=Crash(point))
        async with lives.working():
            await lives.settled(run)
        assert (await lives.record(run)).life.status == CANCELLED
        assert executed["cleaning up"] == 1

    async def test_it_begins_when_steps_in_the_air_have_ended(self) -> None:
        order: list[str] = []
        world = World()

        async def work() -> None:
            try:
                await world.gate()
            finally:
                order.append("step")

        async def program(ctx: Context) -> None:
            await ctx.gather(ctx.step(work), ctx.wait_for("go"))

        async def clean_up(ctx: Context) -> None:
            order.append("clean-up")

        lives = lives_of(program, hook=clean_up)
        run = await lives.submit()
        async with lives.working():
            await world.reached.wait()
            await cancelled(lives, run)
        assert order == ["step", "clean-up"]

    async def test_a_held_run_that_was_started_is_cleaned_up_after(self) -> None:
        async def program(ctx: Context) -> None:
            await ctx.step(double, 1, in_doubt="fail")

        async def clean_up(ctx: Context) -> None:
            effect("cleaned up")

        lives = lives_of(program, hook=clean_up)
        run = await lives.run(crashes=(Crash("step.after_function"),))
        assert (await lives.record(run)).life.hold == "in_doubt"
        async with lives.working():
            await cancelled(lives, run)
        assert executed["cleaned up"] == 1

    async def test_a_drain_during_it_is_bounded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(worker_module, "CLEAN_UP", 0.1)
        monkeypatch.setattr(worker_module, "CANCEL_GRACE", 0.1)
        world = World()

        async def program(ctx: Context) -> None:
            await ctx.wait_for("go")

        async def clean_up(ctx: Context) -> None:
            await world.gate()

        lives = lives_of(program, hook=clean_up)
        run = await lives.submit()
        worker = lives.make_worker()
        await worker.start()
        await lives.parked(run)
        await lives.store.cancel(run, by="ada")
        await world.reached.wait()
        await asyncio.wait_for(worker.stop(drain=0), 2)
        world.open.set()
        assert (await lives.record(run)).life.status == CANCELLED
