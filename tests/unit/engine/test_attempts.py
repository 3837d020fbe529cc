"""How attempts end, and what follows: retries of agents, `Fail`, limits of time, and agents that do not behave."""

import asyncio
import contextlib
import gc
import threading
from datetime import timedelta
from typing import Any

import pytest

from stepwell.app import App
from stepwell.domain import event
from stepwell.domain.commit import Commit
from stepwell.domain.errors import Fail, InvalidDefinition, StepFailed, StoreUnavailable
from stepwell.domain.retry import Retry
from stepwell.domain.run import Lease
from stepwell.engine import worker as worker_module
from stepwell.ports.context import Context
from stepwell.testing.clock import ManualClock
from tests.unit.engine.lives import Crash, Lives, twice
from tests.unit.engine.samples import double, effect, executed, turns


@pytest.fixture
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attempts that do not stop are left behind soon."""
    monkeypatch.setattr(worker_module, "CANCEL_GRACE", 0.02)


class BrokenText(Exception):
    """Nobody can say what went wrong."""

    def __str__(self) -> str:
        raise SystemExit("even this breaks")


class TestErrors:
    async def failed(self, error: BaseException, **options: Any) -> tuple[dict[str, Any], Lives, str]:
        app = App("test")

        @app.agent(**options)
        async def agent(ctx: Context) -> None:
            effect("attempt")
            raise error

        lives = Lives(app)
        run = await lives.run()
        return await lives.error(run), lives, run

    @pytest.mark.parametrize(
        ("error", "message"),
        [
            (ValueError("no such order"), "no such order"),
            (ValueError(), "ValueError"),
            (ValueError("\ud800 \0"), "? \N{REPLACEMENT CHARACTER}"),
            (ValueError("x" * 10_000), "x" * 3999 + "…"),
            (BrokenText(), "(its message could not be made: SystemExit)"),
            (SystemExit(3), "3"),
            (KeyboardInterrupt(), "KeyboardInterrupt"),
            (asyncio.CancelledError(), "CancelledError"),
            (TimeoutError("late"), "late"),
            (GeneratorExit(), "GeneratorExit"),
            (MemoryError(), "MemoryError"),
            (StopAsyncIteration(), "StopAsyncIteration"),
            (ExceptionGroup("two", [ValueError("a"), OSError("b")]), "two (2 sub-exceptions)"),
        ],
        ids=range(13),
    )
    async def test_whatever_an_agent_raises_ends_its_run_and_is_told(self, error: BaseException, message: str) -> None:
        told, lives, run = await self.failed(error)
        assert message in told["message"]
        assert (told["code"], told["retryable"]) == ("agent.error", True)
        life = (await lives.record(run)).life
        assert (life.status, life.reason, life.dead) == ("failed", "agent.error", 0)

    async def test_the_users_frames_are_told_and_no_others(self) -> None:
        told, _, _ = await self.failed(ValueError("x"))
        assert len(told["traceback"]) == 1
        assert told["traceback"][0].endswith(" in agent")
        assert "test_attempts.py:" in told["traceback"][0]

    @pytest.mark.parametrize("retryable", [True, False])
    async def test_a_fail_brings_its_own_code(self, retryable: bool) -> None:
        told, _, _ = await self.failed(Fail("sold out", code="shop.sold_out", retryable=retryable))
        assert told == {
            "code": "shop.sold_out",
            "message": "sold out",
            "retryable": retryable,
            "type": "Fail",
            "traceback": told["traceback"],
        }

    @pytest.mark.parametrize("fail", [Fail(5), Fail("a", code=5), Fail("\ud800", code="\ud800")], ids=range(3))  # type: ignore[arg-type]
    async def test_a_fail_that_is_no_text_is_told_all_the_same(self, fail: Fail) -> None:
        told, _, _ = await self.failed(fail)
        assert told["type"] == "Fail"


class TestRetries:
    async def test_the_agent_is_tried_again_and_its_errors_are_counted(self) -> None:
        app = App("test")

        @app.agent(retry=Retry(3, first_delay=0))
        async def agent(ctx: Context) -> int:
            await ctx.step(double, 1)
            if effect("attempt") < 3:
                raise OSError("volatile")
            return ctx.attempt

        lives = Lives(app)
        run = await lives.run()
        assert await lives.output(run) == 3
        assert executed == {"double 1": 1, "attempt": 3}
        retrying = await lives.facts(run, event.RUN_RETRYING)
        assert [(fact["attempt"], fact["error"]["message"]) for fact in retrying] == [(1, "volatile"), (2, "volatile")]
        assert (await lives.record(run)).life.errors == 2

    async def test_with_its_attempts_used_up_the_run_is_dead(self) -> None:
        app = App("test")

        @app.agent(retry=Retry(3, first_delay=0))
        async def agent(ctx: Context) -> None:
            effect("attempt")
            raise OSError("for good")

        lives = Lives(app)
        run = await lives.run()
        life = (await lives.record(run)).life
        assert (life.status, life.dead, life.errors, life.attempt) == ("failed", 1, 3, 3)
        assert executed == {"attempt": 3}

    async def test_crashes_use_up_no_attempts(self) -> None:
        app = App("test")

        @app.agent(retry=Retry(2, first_delay=0))
        async def agent(ctx: Context) -> int:
            for n in range(4):
                await ctx.step(double, n)
            if effect("attempt") == 1:
                raise OSError("volatile")
            return ctx.attempt

        lives = Lives(app)
        run = await lives.run(crashes=tuple(Crash("step.after_record") for _ in range(4)))
        assert await lives.output(run) == 6

    async def test_without_retry_an_error_is_the_end_and_not_dead(self) -> None:
        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> None:
            effect("attempt")
            raise OSError("once")

        lives = Lives(app)
        run = await lives.run()
        assert (await lives.record(run)).life.dead == 0
        assert executed == {"attempt": 1}

    @pytest.mark.parametrize(
        ("error", "attempts"),
        [
            (OSError("x"), 3),
            (FileNotFoundError("x"), 1),
            (ValueError("x"), 1),
            (Fail("x"), 1),
            (Fail("x", retryable=True), 3),
            (SystemExit(1), 1),
            (asyncio.CancelledError(), 1),
            (InvalidDefinition("x"), 1),
        ],
        ids=range(8),
    )
    async def test_which_errors_are_tried_again(self, error: BaseException, attempts: int) -> None:
        app = App("test")

        @app.agent(retry=Retry(3, first_delay=0, on=(OSError, Fail), never_on=(FileNotFoundError,)))
        async def agent(ctx: Context) -> None:
            effect("attempt")
            raise error

        lives = Lives(app)
        run = await lives.run()
        assert executed == {"attempt": attempts}
        assert (await lives.record(run)).life.dead == (attempts == 3)

    async def test_the_delay_lies_between_zero_and_its_ceiling_and_others_run_meanwhile(self) -> None:
        app = App("test")

        @app.agent(retry=Retry(2, first_delay=60, max_delay=60))
        async def agent(ctx: Context, name: str) -> str:
            if effect(name) == 1:
                raise OSError("volatile")
            return name

        clock = ManualClock()
        lives = Lives(app, clock=clock, lease_seconds=100_000, capacity=1)
        first, second = await lives.submit(value="a"), await lives.submit(value="b")
        async with lives.working():

            async def both_failed_once() -> bool:
                return executed == {"a": 1, "b": 1}

            await lives.until(both_failed_once, second)
            clock.advance(60)
            assert (await lives.settled(first)).life.status == "succeeded"
            assert (await lives.settled(second)).life.status == "succeeded"
        [told] = await lives.facts(first, event.RUN_RETRYING)
        [failed] = await lives.journal(first, event.RUN_RETRYING)
        assert 0 <= told["available_at"] - failed.at < 60_000_000

    async def test_a_policy_that_cannot_be_applied_ends_the_run(self) -> None:
        app = App("test")

        @app.agent(retry=Retry(3))
        async def agent(ctx: Context) -> None:
            effect("agent")
            raise Fail("busy", retryable=True, retry_after=-1)

        lives = Lives(app)
        run = await lives.run()
        assert (await lives.record(run)).life.status == "failed"
        assert executed == {"agent": 1}

    async def test_retry_after_replaces_the_delay(self) -> None:
        app = App("test")

        @app.agent(retry=Retry(2, first_delay=0))
        async def agent(ctx: Context) -> None:
            raise Fail("busy", retryable=True, retry_after=timedelta(hours=1))

        lives = Lives(app, clock=ManualClock())
        run = await lives.submit()
        async with lives.working():

            async def is_waiting() -> bool:
                return bool(await lives.facts(run, event.RUN_RETRYING))

            await lives.until(is_waiting, run)
        [told] = await lives.facts(run, event.RUN_RETRYING)
        [entry] = await lives.journal(run, event.RUN_RETRYING)
        assert told["available_at"] - entry.at == 3_600_000_000


class TestTimeLimit:
    @pytest.mark.parametrize("catch", [(), (Exception,), (BaseException,)], ids=["nothing", "Exception", "everything"])
    async def test_a_run_that_takes_too_long_is_timed_out(self, catch: tuple[type[BaseException], ...]) -> None:
        app = App("test")

        @app.agent(timeout=0.02)
        async def agent(ctx: Context) -> str:
            with contextlib.suppress(*catch):
                await asyncio.get_running_loop().create_future()
            return "in spite of it"

        lives = Lives(app)
        run = await lives.run()
        life = (await lives.record(run)).life
        assert (life.status, life.reason) == ("timed_out", "timeout")
        assert life.leased >= 20_000

    async def test_a_step_in_flight_is_cut_off(self) -> None:
        app = App("test")

        async def hang() -> None:
            effect("hang")
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                effect("cut off")

        @app.agent(timeout=0.02, retry=Retry(3))
        async def agent(ctx: Context) -> None:
            await ctx.gather(ctx.step(hang), ctx.step(hang))

        lives = Lives(app)
        run = await lives.run()
        assert (await lives.record(run)).life.status == "timed_out"
        assert executed == {"hang": 2, "cut off": 2}

    async def test_the_time_of_all_attempts_counts_and_that_in_between_does_not(self) -> None:
        app = App("test")
        clock = ManualClock()

        @app.agent(timeout=100, retry=Retry(9, first_delay=0))
        async def agent(ctx: Context) -> None:
            effect("attempt")
            clock.advance(40)
            raise OSError("volatile")

        lives = Lives(app, clock=clock, lease_seconds=100_000)
        run = await lives.run()
        life = (await lives.record(run)).life
        assert (life.status, life.leased) == ("timed_out", 120_000_000)
        assert executed == {"attempt": 3}

    async def test_a_timeout_of_its_own_making_is_an_error_like_others(self) -> None:
        app = App("test")

        @app.agent(timeout=3600)
        async def agent(ctx: Context) -> None:
            async with asyncio.timeout(0.01):
                await asyncio.get_running_loop().create_future()

        lives = Lives(app)
        assert (await lives.error(await lives.run()))["type"] == "TimeoutError"


class TestOwnCancellation:
    """Nobody could say on a replay how far a call had come that the agent cancelled itself."""

    @pytest.mark.parametrize(
        ("call", "name"),
        [
            (lambda ctx: ctx.step(_hang), "step _hang"),
            (lambda ctx: ctx.step(_hang, key="a"), "step _hang"),
            (lambda ctx: ctx.gather(ctx.step(_hang), ctx.step(turns, "x", 1)), "step _hang"),
            (lambda ctx: ctx.gather(_hang()), "ctx.gather"),
            (lambda ctx: ctx.map(_hang_with, [1, 2]), "step _hang_with"),
        ],
        ids=["step", "keyed step", "gather of steps", "gather of its own", "map"],
    )
    async def test_no_other_call_may_follow(self, call: Any, name: str) -> None:
        app = App("test")

        @app.agent(retry=Retry(3, first_delay=0))
        async def agent(ctx: Context) -> None:
            try:
                async with asyncio.timeout(0.01):
                    await call(ctx)
            except TimeoutError:
                await ctx.step(double, 1)

        lives = Lives(app)
        error = await lives.error(await lives.run())
        assert (error["type"], error["code"]) == ("Misuse", "context.cancelled")
        assert name in error["message"] or "ctx.map" in error["message"] or "ctx.gather" in error["message"]
        assert "double 1" not in executed

    async def test_the_agent_may_give_up_and_return(self) -> None:
        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> str:
            try:
                async with asyncio.timeout(0.01):
                    await ctx.step(_hang)
            except TimeoutError:
                return "gave up"
            return "done"

        lives = Lives(app)
        assert await lives.output(await lives.run()) == "gave up"

    async def test_an_uncaught_one_is_tried_again_like_any_error(self) -> None:
        app = App("test")

        async def hang_first() -> str:
            if effect("hang") == 1:
                await asyncio.get_running_loop().create_future()
            return "done"

        @app.agent(retry=Retry(2, first_delay=0))
        async def agent(ctx: Context) -> str:
            async with asyncio.timeout(0.01):
                return await ctx.step(hang_first)

        lives = Lives(app)
        assert await lives.output(await lives.run()) == "done"

    async def test_a_write_that_notes_ride_on_outlasts_its_call(self, monkeypatch: pytest.MonkeyPatch) -> None:
        app = App("test")
        cancelled = asyncio.Event()

        async def wait_for_that() -> str:
            await cancelled.wait()
            return "done"

        @app.agent(retry=Retry(2, first_delay=0))
        async def agent(ctx: Context) -> list[str]:
            async def notes() -> str:
                ctx.now()
                return await ctx.step(wait_for_that)

            async def writes() -> str:
                try:
                    async with asyncio.timeout(0.01):
                        await ctx.emit("written")
                finally:
                    cancelled.set()
                return "written"

            return list(await ctx.gather(notes(), writes()))

        lives = Lives(app)
        run = await lives.submit()
        commit = lives.store.commit
        slow: list[Commit] = []
        one_by_one = asyncio.Lock()

        async def commit_slowly(lease: Lease, write: Commit) -> Any:
            async with one_by_one:
                slow.append(write)
                await cancelled.wait()
                return await commit(lease, write)

        monkeypatch.setattr(lives.store, "commit", commit_slowly)
        await lives.live(run)
        assert [draft.kind for draft in slow[0].drafts] == [event.TIME_READ, "custom.written"]
        assert await lives.output(run) == ["done", "written"]
        assert len(await lives.journal(run, event.TIME_READ)) == 1
        assert len(await lives.journal(run, "custom.written")) == 1
        assert len(await lives.journal(run, event.STEP_COMPLETED)) == 1

    async def test_a_bound_that_does_not_bite_is_harmless(self) -> None:
        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> list[int]:
            async with asyncio.timeout(60):
                return [await ctx.step(double, 1), *await ctx.gather(ctx.step(double, 2))]

        lives, run = await twice(agent)
        assert await lives.output(run) == [2, 4]

    async def test_an_agent_that_cancels_itself_fails_and_does_not_run_for_ever(self) -> None:
        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> None:
            effect("attempt")
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await asyncio.sleep(0)

        lives = Lives(app)
        assert (await lives.error(await lives.run()))["type"] == "CancelledError"
        assert executed == {"attempt": 1}


async def _hang() -> None:
    await asyncio.get_running_loop().create_future()


async def _hang_with(n: int) -> int:
    await asyncio.get_running_loop().create_future()
    return n


class TestMisbehaviour:
    """Attempts that must stop do, whatever their agents catch."""

    async def check_left_behind(self, lives: Lives, run: str, status: str) -> None:
        async with lives.working() as worker:
            await lives.settled(run)
            assert (await lives.record(run)).life.shown == status
            await worker.idle()

    @pytest.mark.usefixtures("short_grace")
    async def test_an_agent_that_swallows_its_time_limit_in_a_loop_is_left_behind(self) -> None:
        app = App("test")
        agents: list[asyncio.Task[Any]] = []
        release = asyncio.Event()

        @app.agent(timeout=0.02)
        async def agent(ctx: Context) -> None:
            task = asyncio.current_task()
            assert task is not None
            agents.append(task)
            while not release.is_set():
                with contextlib.suppress(BaseException):
                    await ctx.step(_hang)

        lives = Lives(app)
        run = await lives.submit()
        await self.check_left_behind(lives, run, "timed_out")
        assert not agents[0].done()
        release.set()
        agents[0].cancel()
        await asyncio.wait(agents)
        assert [entry.kind for entry in await lives.journal(run)][-1] == event.RUN_TIMED_OUT

    @pytest.mark.usefixtures("short_grace")
    async def test_an_agent_that_swallows_its_hold_is_left_behind_and_held(self) -> None:
        old, new = App("test"), App("test")

        @old.agent(name="agent")
        async def before(ctx: Context) -> None:
            await ctx.step(double, 1)

        release = asyncio.Event()
        agents: list[asyncio.Task[Any]] = []

        @new.agent(name="agent")
        async def after(ctx: Context) -> None:
            task = asyncio.current_task()
            assert task is not None
            agents.append(task)
            while not release.is_set():
                with contextlib.suppress(BaseException):
                    await ctx.step(double, 2)

        lives = Lives(old)
        run = await lives.submit()
        await lives.live(run, crash=Crash("step.after_record"))
        async with lives.working(new):
            await lives.settled(run)
        assert (await lives.hold(run))["why"] == "diverged"
        release.set()
        agents[0].cancel()
        await asyncio.wait(agents)

    @pytest.mark.usefixtures("short_grace")
    async def test_its_slot_is_free_for_others(self) -> None:
        app = App("test")
        agents: list[asyncio.Task[Any]] = []
        release = asyncio.Event()

        @app.agent(timeout=0.02)
        async def agent(ctx: Context, stubborn: bool) -> str:
            task = asyncio.current_task()
            assert task is not None
            while stubborn and not release.is_set():
                agents.append(task)
                with contextlib.suppress(BaseException):
                    await release.wait()
            return "done"

        lives = Lives(app, capacity=1)
        stubborn, other = await lives.submit(value=True), await lives.submit(value=False)
        async with lives.working():
            assert (await lives.settled(other)).life.status == "succeeded"
            assert (await lives.record(stubborn)).life.status == "timed_out"
        release.set()
        await asyncio.wait(agents)

    async def test_finally_blocks_that_act_through_the_context_only_unwind(self) -> None:
        old, new = App("test"), App("test")

        @old.agent(name="agent")
        async def before(ctx: Context) -> None:
            await ctx.step(double, 1)

        @new.agent(name="agent")
        async def after(ctx: Context) -> str:
            try:
                await ctx.step(double, 2)
            finally:
                try:
                    await ctx.emit("clean-up")
                finally:
                    await ctx.gather(ctx.step(double, 3), ctx.step(double, 4))
            return "done"

        lives = Lives(old)
        run = await lives.submit()
        await lives.live(run, crash=Crash("step.after_record"))
        await lives.live(run, app=new)
        assert (await lives.hold(run))["why"] == "diverged"
        assert executed == {"double 1": 1}

    async def test_a_branch_that_swallows_the_end_takes_nobody_with_it(self) -> None:
        old, new = App("test"), App("test")

        @old.agent(name="agent")
        async def before(ctx: Context) -> None:
            await ctx.gather(ctx.step(double, 1), ctx.step(double, 2))

        @new.agent(name="agent")
        async def after(ctx: Context) -> str:
            async def swallow() -> str:
                try:
                    await ctx.step(double, 3)
                except BaseException:  # noqa: BLE001 - what this test is about
                    return "swallowed"
                return "done"

            a, b = await ctx.gather(swallow(), swallow())
            return a + b

        lives = Lives(old)
        run = await lives.submit()
        await lives.live(run, crash=Crash("step.after_record", passing=2))
        await lives.live(run, app=new)
        assert (await lives.hold(run))["why"] == "diverged"
        assert executed == {"double 1": 1, "double 2": 1}

    async def test_a_generator_exit_of_its_own_is_an_error_of_the_step(self) -> None:
        app = App("test")

        async def leave() -> None:
            raise GeneratorExit

        @app.agent
        async def agent(ctx: Context) -> str:
            try:
                await ctx.step(leave)
            except StepFailed as error:
                return error.error_type
            return ""

        lives, run = await twice(agent)
        assert await lives.output(run) == "GeneratorExit"

    @pytest.mark.parametrize("error", [SystemExit(2), KeyboardInterrupt("now")])
    @pytest.mark.parametrize("in_thread", [True, False])
    async def test_a_step_that_wants_to_end_the_process_only_fails(self, error: BaseException, in_thread: bool) -> None:
        app = App("test")

        async def leave() -> None:
            raise error

        def leave_thread() -> None:
            raise error

        @app.agent
        async def agent(ctx: Context) -> str:
            fn: Any = leave_thread if in_thread else leave
            try:
                await ctx.gather(ctx.step(fn))
            except StepFailed as failed:
                return failed.error_type
            return ""

        lives, run = await twice(agent)
        assert await lives.output(run) == type(error).__name__

    async def test_an_event_loop_that_cancels_everything_hands_the_run_back(self) -> None:
        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> None:
            effect("begun")
            await ctx.gather(ctx.step(_hang), _hang())

        lives = Lives(app)
        run = await lives.submit()
        worker = lives.make_worker()
        mine = asyncio.all_tasks()
        await worker.start()
        while not executed["begun"]:
            await asyncio.sleep(0)
        others = asyncio.all_tasks() - mine
        for task in others:
            task.cancel()
        await asyncio.wait(others)
        await worker.kill()
        assert [entry.kind for entry in await lives.journal(run)][-1] == event.RUN_HANDED_BACK

    def test_a_loop_that_is_closed_over_a_run_writes_nothing(self) -> None:
        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> None:
            effect("begun")
            try:
                await ctx.gather(ctx.step(_hang), _hang())
            finally:
                effect("thrown away")

        lives = Lives(app, lease_seconds=0.03)

        async def begin() -> str:
            run = await lives.submit()
            await lives.make_worker().start()
            while not executed["begun"]:
                await asyncio.sleep(0)
            await asyncio.sleep(0)
            return run

        loop = asyncio.new_event_loop()
        run = loop.run_until_complete(begin())
        loop.close()
        del loop
        lives.store.notifier._listeners.clear()  # type: ignore[attr-defined]
        for thread in threading.enumerate():
            if thread.name == "stepwell-heartbeat":
                thread.join()
        gc.collect()
        assert executed["thrown away"] == 1
        life = asyncio.run(lives.record(run)).life
        assert (life.status, life.fence) == ("running", 1)


class TestStores:
    @pytest.mark.parametrize("landed", [True, False], ids=["the write landed", "it did not"])
    @pytest.mark.parametrize("error", [StoreUnavailable("away"), RuntimeError("odd")])
    async def test_a_write_that_fails_stops_the_attempt_and_the_agent_cannot_go_on(
        self, error: Exception, landed: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> list[int]:
            done = []
            for n in range(3):
                try:
                    done.append(await ctx.step(double, n))
                except Exception:  # noqa: BLE001 - an agent that goes on whatever happens
                    done.append(-1)
            return done

        lives = Lives(app)
        run = await lives.submit()
        commit = lives.store.commit
        failures = [error]

        async def commit_badly(lease: Lease, write: Commit) -> Any:
            if write.number == 2 and failures:
                if landed:
                    await commit(lease, write)
                raise failures.pop()
            return await commit(lease, write)

        monkeypatch.setattr(lives.store, "commit", commit_badly)
        worker = lives.make_worker()
        await worker.start()
        while failures or worker.running:
            await asyncio.sleep(0)
        assert (await lives.record(run)).life.status == "running"
        await worker.kill()
        await lives.live(run)
        assert await lives.output(run) == [0, 2, 4]
        assert executed == {"double 0": 1, "double 1": 1 if landed else 2, "double 2": 1}

    async def test_an_outcome_that_cannot_be_written_leaves_the_run_to_be_taken_up_again(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> int:
            return await ctx.step(double, 1)

        lives = Lives(app)
        run = await lives.submit()
        commit = lives.store.commit
        failures = [StoreUnavailable("away")]

        async def commit_badly(lease: Lease, write: Commit) -> Any:
            if write.outcome is not None and failures:
                raise failures.pop()
            return await commit(lease, write)

        monkeypatch.setattr(lives.store, "commit", commit_badly)
        worker = lives.make_worker()
        await worker.start()
        while failures or worker.running:
            await asyncio.sleep(0)
        await worker.kill()
        await lives.live(run)
        assert await lives.output(run) == 2
        assert executed == {"double 1": 1}
