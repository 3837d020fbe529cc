"""`ctx.step`: done once, then remembered, with every option that it takes."""

import asyncio
import contextlib
import functools
import threading
from datetime import timedelta
from typing import Any

import pytest

from stepwell.app import App
from stepwell.domain import event
from stepwell.domain.errors import Fail, StepFailed
from stepwell.domain.retry import Retry
from stepwell.ports.context import Context, StepContext
from stepwell.testing.clock import ManualClock
from tests.unit.engine.lives import AFTER_AGENT, PATIENCE, Crash, Lives, twice
from tests.unit.engine.samples import add, double, effect, executed, fail, fail_first


class Till:
    """A service that steps use; itself it is not data."""

    def __init__(self) -> None:
        self.sold: list[str] = []

    async def sell(self, what: str) -> str:
        self.sold.append(what)
        return f"one {what}"

    async def __call__(self, what: str) -> str:
        return f"called {what}"


class TestDoneOnce:
    async def test_a_done_step_is_not_done_again(self) -> None:
        app = App("test")

        @app.agent
        async def agent(ctx: Context, n: int) -> int:
            return await ctx.step(add, await ctx.step(double, n), 1)

        lives, run = await twice(agent, 3)
        assert await lives.output(run) == 7
        assert executed == {"double 3": 1, "add 6 1": 1}

    async def test_equal_calls_are_two_steps(self) -> None:
        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> list[int]:
            return [await ctx.step(double, 1), await ctx.step(double, 1)]

        lives, run = await twice(agent)
        assert await lives.output(run) == [2, 2]
        assert executed == {"double 1": 2}

    async def test_a_step_that_was_cut_off_before_its_record_runs_again(self) -> None:
        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> int:
            return await ctx.step(double, 1)

        lives = Lives(app)
        run = await lives.run(crashes=(Crash("step.after_function"),))
        assert await lives.output(run) == 2
        assert executed == {"double 1": 2}

    async def test_a_step_that_was_cut_off_after_its_record_does_not(self) -> None:
        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> int:
            return await ctx.step(double, 1)

        lives = Lives(app)
        run = await lives.run(crashes=(Crash("commit.after"),))
        assert await lives.output(run) == 2
        assert executed == {"double 1": 1}

    async def test_what_steps_do_is_reported_in_this_process(self) -> None:
        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> None:
            await ctx.step(double, 1)
            await ctx.step(fail_first, "a", 1, retry=Retry(2, first_delay=0))

        lives, _ = await twice(agent)
        told = [(report.name, report.status) for report in lives.reports]
        assert told == [
            ("double", "started"),
            ("double", "done"),
            ("fail_first", "started"),
            ("fail_first", "retrying"),
            ("fail_first", "started"),
            ("fail_first", "done"),
            ("double", "remembered"),
            ("fail_first", "remembered"),
        ]

    async def test_an_observer_that_fails_changes_nothing(self) -> None:
        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> int:
            return await ctx.step(double, 1)

        def observe(report: object) -> None:
            raise RuntimeError("the terminal is gone")

        lives = Lives(app, observer=observe)
        assert await lives.output(await lives.run()) == 2


class TestFunctions:
    async def test_a_plain_function_runs_off_the_event_loop(self) -> None:
        app = App("test")

        def where() -> bool:
            return threading.current_thread() is threading.main_thread()

        @app.agent
        async def agent(ctx: Context) -> bool:
            return await ctx.step(where)

        lives = Lives(app)
        assert await lives.output(await lives.run()) is False

    async def test_plain_functions_run_side_by_side(self) -> None:
        app = App("test")
        both = threading.Barrier(2, timeout=10)

        def meet(n: int) -> int:
            both.wait()
            return n

        @app.agent
        async def agent(ctx: Context) -> list[int]:
            return await ctx.map(meet, [1, 2])

        lives = Lives(app)
        assert await lives.output(await lives.run()) == [1, 2]

    async def test_a_method_of_the_deps_is_a_step(self) -> None:
        app = App("test")

        @app.agent
        async def agent(ctx: Context[Till]) -> str:
            return await ctx.step(ctx.deps.sell, "lamp")

        till = Till()
        lives, run = await twice(agent, deps=till)
        assert await lives.output(run) == "one lamp"
        assert till.sold == ["lamp"]

    async def test_a_partial_brings_its_arguments(self) -> None:
        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> list[int]:
            return [await ctx.step(functools.partial(add, 40), 2), await ctx.step(functools.partial(add, b=1), 2)]

        lives, run = await twice(agent)
        assert await lives.output(run) == [42, 3]
        [first, _] = await lives.facts(run, event.STEP_COMPLETED)
        assert first["name"] == "add"

    async def test_an_object_that_can_be_called_is_a_step(self) -> None:
        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> str:
            return await ctx.step(Till(), "lamp")

        lives, run = await twice(agent)
        assert await lives.output(run) == "called lamp"

    async def test_a_plain_function_that_returns_an_awaitable_is_awaited(self) -> None:
        app = App("test")

        def wrapped(a: int, b: int) -> Any:
            return add(a, b)

        @app.agent
        async def agent(ctx: Context) -> Any:
            return await ctx.step(wrapped, 1, 2)

        lives, run = await twice(agent)
        assert await lives.output(run) == 3

    @pytest.mark.parametrize(
        ("make", "code"),
        [
            (lambda: add(1, 2), "step.not_a_function"),
            (lambda: Till, "step.not_a_function"),
            (lambda: "add", "step.not_a_function"),
            (lambda: _generator, "step.generator"),
            (lambda: _async_generator, "step.generator"),
            (lambda: lambda: 1, "step.name"),
        ],
        ids=["a coroutine", "a class", "a text", "a generator", "an async generator", "a lambda without a name"],
    )
    async def test_what_cannot_be_a_step_is_refused(self, make: Any, code: str) -> None:
        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> None:
            fn = make()
            try:
                await ctx.step(fn)
            finally:
                if asyncio.iscoroutine(fn):
                    fn.close()

        lives = Lives(app)
        error = await lives.error(await lives.run())
        assert (error["type"], error["code"]) == ("Misuse", code)


def _generator() -> Any:
    yield 1


async def _async_generator() -> Any:
    yield 1


class TestName:
    async def test_a_name_given_by_hand_is_the_one_that_is_remembered(self) -> None:
        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> int:
            return await ctx.step(lambda: 5, name="draw")

        lives, run = await twice(agent)
        assert await lives.output(run) == 5
        assert [fact["name"] for fact in await lives.facts(run, event.STEP_COMPLETED)] == ["draw"]

    @pytest.mark.parametrize("name", ["", "x" * 201, "a\0b", "\ud800", 5, b"draw"])
    async def test_a_name_is_text_that_can_be_kept(self, name: Any) -> None:
        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> None:
            await ctx.step(double, 1, name=name)

        lives = Lives(app)
        assert (await lives.error(await lives.run()))["type"] in ("InvalidDefinition", "InvalidValue")
        assert executed == {}


class TestKey:
    async def test_steps_with_keys_are_remembered_in_any_order(self) -> None:
        app = App("test")
        order = [1, 2, 3]

        @app.agent
        async def agent(ctx: Context) -> list[int]:
            return [await ctx.step(double, n, key=str(n)) for n in order]

        lives = Lives(app)
        run = await lives.submit()
        await lives.live(run, crash=Crash(AFTER_AGENT))
        order.reverse()
        await lives.live(run)
        assert await lives.output(run) == [6, 4, 2]
        assert executed == {"double 1": 1, "double 2": 1, "double 3": 1}

    async def test_a_key_stands_for_one_call_however_often_it_is_used(self) -> None:
        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> list[int]:
            return [await ctx.step(double, 1, key="a"), await ctx.step(double, 1, key="a")]

        lives, run = await twice(agent)
        assert await lives.output(run) == [2, 2]
        assert executed == {"double 1": 1}
        assert len(await lives.journal(run, event.STEP_COMPLETED)) == 1

    async def test_a_step_of_a_foreign_task_is_remembered_whatever_is_written_in_the_same_turn(self) -> None:
        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> list[int]:
            opened = asyncio.Event()

            async def when_open(name: str) -> int:
                await opened.wait()
                return effect(name)

            foreign = asyncio.create_task(ctx.step(when_open, "foreign", key="a"))
            await asyncio.sleep(0)
            asyncio.get_running_loop().call_later(0.01, opened.set)
            own = await ctx.step(when_open, "own")
            return [await foreign, own]

        lives, run = await twice(agent)
        assert await lives.output(run) == [1, 1]
        assert executed == {"foreign": 1, "own": 1}
        assert len(await lives.journal(run, event.STEP_COMPLETED)) == 2

    async def test_a_key_stands_for_one_call_also_at_the_same_time(self) -> None:
        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> list[int]:
            a, b = await ctx.gather(ctx.step(add, 1, 2, key="a"), ctx.step(add, 1, 2, key="a"))
            return [a, b]

        lives, run = await twice(agent)
        assert await lives.output(run) == [3, 3]
        assert executed == {"add 1 2": 1}

    async def test_a_failure_under_a_key_is_the_same_for_all_who_use_it(self) -> None:
        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> list[str]:
            told = []
            for _ in range(2):
                try:
                    await ctx.step(fail, "no", key="a")
                except StepFailed as error:
                    told.append(error.message)
            return told

        lives, run = await twice(agent)
        first, second = await lives.output(run)
        assert first == second
        assert executed == {"fail no": 1}

    async def test_a_key_cannot_stand_for_two_calls(self) -> None:
        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> None:
            await ctx.step(double, 1, key="a")
            await ctx.step(double, 2, key="a")

        lives = Lives(app)
        for crashes in ((), (Crash("step.after_record"),)):
            error = await lives.error(await lives.run(crashes=crashes))
            assert (error["type"], error["code"]) == ("Misuse", "step.key_used_twice")

    async def test_one_key_may_serve_functions_of_two_names(self) -> None:
        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> list[int]:
            return [
                await ctx.step(double, 1, key="1", name="a"),
                await ctx.step(add, 1, 4, key="1", name="b"),
                await ctx.step(double, 3, key="b:1", name="a"),
                await ctx.step(double, 4, key="1", name="a:b"),
            ]

        lives, run = await twice(agent)
        assert await lives.output(run) == [2, 5, 6, 8]

    @pytest.mark.parametrize("key", ["", "x" * 1001, 7, b"k", "\ud800", "\0"])
    async def test_a_key_is_text_that_can_be_kept(self, key: Any) -> None:
        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> None:
            await ctx.step(double, 1, key=key)

        lives = Lives(app)
        assert (await lives.error(await lives.run()))["type"] in ("InvalidDefinition", "InvalidValue")
        assert executed == {}


class TestTimeout:
    @pytest.mark.parametrize("timeout", [0.01, timedelta(milliseconds=10)])
    async def test_a_try_that_takes_too_long_fails(self, timeout: Any) -> None:
        app = App("test")

        async def hang() -> None:
            await asyncio.get_running_loop().create_future()

        @app.agent
        async def agent(ctx: Context) -> str:
            try:
                await ctx.step(hang, timeout=timeout)
            except StepFailed as error:
                return f"{error.code} {error.error_type}"
            return "done"

        lives, run = await twice(agent)
        assert await lives.output(run) == "step.timeout StepTimeout"

    async def test_a_thread_that_takes_too_long_is_left_to_itself(self) -> None:
        app = App("test")
        release = threading.Event()

        def hang() -> None:
            release.wait(10)

        @app.agent
        async def agent(ctx: Context) -> str:
            try:
                await ctx.step(hang, timeout=0.01)
            except StepFailed as error:
                return error.code
            return "done"

        lives = Lives(app)
        assert await lives.output(await lives.run()) == "step.timeout"
        release.set()

    async def test_a_timeout_error_of_the_step_itself_is_told_apart(self) -> None:
        app = App("test")

        async def give_up() -> None:
            raise TimeoutError("the service did not answer")

        @app.agent
        async def agent(ctx: Context) -> str:
            try:
                await ctx.step(give_up, timeout=10)
            except StepFailed as error:
                return f"{error.code} {error.error_type}"
            return "done"

        lives = Lives(app)
        assert await lives.output(await lives.run()) == "step.error TimeoutError"

    async def test_every_try_has_the_whole_time(self) -> None:
        app = App("test")

        async def hang_once() -> str:
            if effect("hang") == 1:
                await asyncio.get_running_loop().create_future()
            return "done"

        @app.agent
        async def agent(ctx: Context) -> str:
            return await ctx.step(hang_once, timeout=0.01, retry=Retry(2, first_delay=0))

        lives = Lives(app)
        assert await lives.output(await lives.run()) == "done"


class TestRetry:
    async def test_a_step_is_tried_again_after_errors(self) -> None:
        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> str:
            return await ctx.step(fail_first, "a", 2, retry=Retry(3, first_delay=0))

        lives, run = await twice(agent)
        assert await lives.output(run) == "a done"
        failures = await lives.facts(run, event.STEP_FAILED)
        assert [(fact["try"], "retry_at" in fact) for fact in failures] == [(1, True), (2, True)]

    async def test_without_retry_one_error_is_the_end(self) -> None:
        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> str:
            return await ctx.step(fail_first, "a", 1)

        lives = Lives(app)
        error = await lives.error(await lives.run())
        assert (error["type"], error["step"]) == ("StepFailed", "0/1")
        assert executed == {"a": 1}

    async def test_tries_are_counted_over_crashes(self) -> None:
        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> str:
            try:
                return await ctx.step(fail_first, "a", 9, retry=Retry(3, first_delay=0))
            except StepFailed as error:
                return error.message

        lives = Lives(app)
        run = await lives.run(crashes=(Crash("step.after_failure"), Crash("step.after_failure")))
        assert await lives.output(run) == "step fail_first failed: ValueError: a failed (3)"
        assert executed == {"a": 3}

    async def test_the_delay_is_kept_over_a_crash(self) -> None:
        app = App("test")
        clock = ManualClock()

        @app.agent
        async def agent(ctx: Context) -> str:
            return await ctx.step(fail_first, "a", 1, retry=Retry(2, first_delay=3600, max_delay=3600))

        lives = Lives(app, clock=clock, lease_seconds=100_000)
        run = await lives.submit()
        await lives.live(run, crash=Crash("step.after_failure"))
        async with lives.working():

            async def is_claimed_again() -> bool:
                return len(await lives.journal(run, event.RUN_STARTED)) == 2

            await lives.until(is_claimed_again, run)
            assert executed == {"a": 1}
            [failure] = await lives.facts(run, event.STEP_FAILED)
            clock.advance((failure["retry_at"] - clock.now()) / 1_000_000)
            await lives.settled(run)
        assert await lives.output(run) == "a done"

    async def test_a_clock_that_was_set_back_does_not_prolong_the_delay(self) -> None:
        app = App("test")
        clock = ManualClock()

        @app.agent
        async def agent(ctx: Context) -> str:
            return await ctx.step(fail_first, "a", 1, retry=Retry(2, first_delay=0, max_delay=0))

        lives = Lives(app, clock=clock)
        run = await lives.submit()
        await lives.live(run, crash=Crash("step.after_failure"))
        clock.jump(-1_000_000)
        await lives.live(run)
        assert await lives.output(run) == "a done"

    async def test_only_the_named_errors_are_tried_again(self) -> None:
        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> None:
            for retry in (Retry(2, first_delay=0, on=(OSError,)), Retry(2, first_delay=0, never_on=(ValueError,))):
                with pytest.raises(StepFailed):
                    await ctx.step(fail, "no", retry=retry)

        lives = Lives(app)
        await lives.output(await lives.run())
        assert executed == {"fail no": 2}

    @pytest.mark.parametrize("retry", [3, "three", {"max_attempts": 3}, Retry])
    async def test_only_a_retry_is_one(self, retry: Any) -> None:
        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> None:
            await ctx.step(double, 1, retry=retry)

        lives = Lives(app)
        assert (await lives.error(await lives.run()))["code"] == "definition.retry"
        assert executed == {}

    async def test_a_fail_decides_by_itself_whether_and_when(self) -> None:
        app = App("test")

        async def busy(name: str, retryable: bool) -> str:
            if effect(name) == 1:
                raise Fail("busy", code="shop.busy", retryable=retryable, retry_after=timedelta(0))
            return "open"

        @app.agent
        async def agent(ctx: Context) -> list[str]:
            retry = Retry(3, first_delay=3600, max_delay=3600)
            first = await ctx.step(busy, "a", True, retry=retry)
            try:
                await ctx.step(busy, "b", False, retry=retry)
            except StepFailed as error:
                return [first, error.code, error.error_type]
            return []

        lives, run = await twice(agent)
        assert await lives.output(run) == ["open", "shop.busy", "Fail"]

    async def test_retry_after_may_be_longer_than_any_delay_of_the_policy(self) -> None:
        app = App("test")

        async def busy() -> str:
            if effect("busy") == 1:
                raise Fail("busy", retryable=True, retry_after=10)
            return "open"

        @app.agent
        async def agent(ctx: Context) -> str:
            return await ctx.step(busy, retry=Retry(2, first_delay=1, max_delay=1))

        for crash in (None, Crash("step.after_failure")):
            executed.clear()
            clock = ManualClock()
            lives = Lives(app, clock=clock)
            run = await lives.submit()
            if crash is not None:
                await lives.live(run, crash=crash)
            async with lives.working():
                await _until_somebody_waits(clock, 10)
                assert executed == {"busy": 1}
                clock.advance(10)
                await lives.settled(run)
            assert await lives.output(run) == "open"

    async def test_a_policy_that_cannot_be_applied_fails_the_step(self) -> None:
        app = App("test")
        names: Any = ("OSError",)
        retry = Retry(3, on=names)

        @app.agent
        async def agent(ctx: Context) -> str:
            with pytest.raises(StepFailed) as caught:
                await ctx.step(fail, "no", retry=retry)
            return caught.value.error_type

        lives, run = await twice(agent)
        assert await lives.output(run) == "TypeError"
        assert executed == {"fail no": 1}

    async def test_a_result_that_is_not_data_is_not_tried_again(self) -> None:
        app = App("test")

        async def thing() -> Any:
            effect("thing")
            return object()

        @app.agent
        async def agent(ctx: Context) -> None:
            await ctx.step(thing, retry=Retry(5, first_delay=0))

        lives = Lives(app)
        error = await lives.error(await lives.run())
        assert error["code"] == "value.type"
        assert executed == {"thing": 1}

    async def test_spontaneous_cancellation_is_an_error_like_others(self) -> None:
        app = App("test")

        async def wait_for_the_cancelled() -> None:
            effect("cancelled")
            gone = asyncio.get_running_loop().create_future()
            gone.cancel()
            await gone

        @app.agent
        async def agent(ctx: Context) -> str:
            try:
                await ctx.step(wait_for_the_cancelled, retry=Retry(3, first_delay=0))
            except StepFailed as error:
                return error.error_type
            return "done"

        lives, run = await twice(agent)
        assert await lives.output(run) == "CancelledError"
        assert executed == {"cancelled": 1}


class TestStepFailed:
    async def test_the_first_run_and_a_replay_raise_the_same(self) -> None:
        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> list[Any]:
            try:
                await ctx.step(fail, "no")
            except StepFailed as error:
                seen.append((error.message, error.code, error.retryable, error.step, error.error_type))
            return list(seen[-1])

        seen: list[tuple[Any, ...]] = []
        await twice(agent)
        assert seen[0] == seen[1] == ("step fail failed: ValueError: no", "step.error", True, "0/1", "ValueError")
        assert executed == {"fail no": 1}

    async def test_a_caught_failure_is_remembered_over_attempts(self) -> None:
        app = App("test")

        @app.agent(retry=Retry(2, first_delay=0))
        async def agent(ctx: Context) -> int:
            with contextlib.suppress(StepFailed):
                await ctx.step(fail, "caught")
            await ctx.step(fail_first, "later", 1)
            return ctx.attempt

        lives = Lives(app)
        assert await lives.output(await lives.run()) == 2
        assert executed == {"fail caught": 1, "later": 2}

    async def test_the_cause_of_the_first_raise_is_the_original(self) -> None:
        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> str:
            try:
                await ctx.step(fail, "no")
            except StepFailed as error:
                return type(error.__cause__).__name__
            return ""

        lives = Lives(app)
        assert await lives.output(await lives.run()) == "ValueError"


class TestStepContext:
    async def test_it_is_injected_where_the_first_parameter_asks_for_it(self) -> None:
        app = App("test")

        async def ask(step: StepContext[Till], what: str) -> list[Any]:
            step.log.info("asked")
            return [step.run.agent, step.run.metadata, step.attempt, await step.deps.sell(what), step.idempotency_key]

        @app.agent
        async def agent(ctx: Context[Till]) -> list[Any]:
            assert ctx.run.agent == "agent"
            return await ctx.step(ask, "lamp")

        lives = Lives(app, deps=Till())
        run = await lives.submit(metadata={"desk": "3"})
        await lives.live(run)
        name, metadata, attempt, sold, key = await lives.output(run)
        assert [name, metadata, attempt, sold] == ["agent", {"desk": "3"}, 1, "one lamp"]
        assert key.startswith("idem_")

    async def test_a_plain_function_is_given_it_too(self) -> None:
        app = App("test")

        def ask(step: "StepContext[Any]", n: int) -> int:
            return n + step.attempt

        @app.agent
        async def agent(ctx: Context) -> int:
            plain: Any = ask
            result: int = await ctx.step(plain, 4)
            return result

        lives, run = await twice(agent)
        assert await lives.output(run) == 5

    async def test_the_idempotency_key_is_the_same_on_every_try_and_attempt(self) -> None:
        app = App("test")
        keys: list[str] = []
        tries: list[int] = []

        async def call(step: StepContext, name: str) -> None:
            keys.append(step.idempotency_key)
            tries.append(step.attempt)
            if effect(name) < 4:
                raise OSError("lost")

        @app.agent(retry=Retry(3, first_delay=0))
        async def agent(ctx: Context) -> None:
            await ctx.step(call, "a", retry=Retry(3, first_delay=0))

        lives = Lives(app)
        run = await lives.run(crashes=(Crash("step.after_failure"), Crash("step.after_function")))
        await lives.output(run)
        assert len(set(keys)) == 1
        assert tries == [1, 2, 3, 1, 1]

    async def test_two_steps_never_share_an_idempotency_key(self) -> None:
        app = App("test")

        async def call(step: StepContext, n: int) -> str:
            return step.idempotency_key

        @app.agent
        async def agent(ctx: Context) -> list[str]:
            keys = [await ctx.step(call, 1), await ctx.step(call, 1), await ctx.step(call, 1, key="a")]
            mapped: Any = call
            return keys + await ctx.map(mapped, [1, 2])

        lives, run = await twice(agent)
        keys = await lives.output(run)
        assert len(set(keys)) == 5

    async def test_another_step_in_the_place_of_a_forgotten_one_has_another_key(self) -> None:
        app = App("test")
        keys: dict[str, str] = {}

        async def call(step: StepContext, what: str) -> None:
            keys[what] = step.idempotency_key

        @app.agent(retry=Retry(2, first_delay=0))
        async def agent(ctx: Context) -> None:
            try:
                await ctx.step(fail_first, "a", 1)
            except StepFailed:
                await ctx.step(call, "apologise")
                raise
            await ctx.step(call, "ship")

        lives = Lives(app)
        await lives.output(await lives.run())
        assert keys["apologise"] != keys["ship"]


class TestArguments:
    @pytest.mark.parametrize(
        "argument",
        [object(), Till(), threading.Lock(), lambda: 1, float("nan"), [[object()]]],
        ids=["an object", "a service", "a lock", "a function", "no number", "an object inside"],
    )
    async def test_an_argument_that_is_not_data_is_refused_before_anything_happens(self, argument: Any) -> None:
        app = App("test")

        async def take(value: Any) -> None:
            effect("take")

        @app.agent
        async def agent(ctx: Context) -> None:
            await ctx.step(take, argument)

        lives = Lives(app)
        error = await lives.error(await lives.run())
        assert error["type"] == "InvalidValue"
        assert "argument 1" in error["message"] or "take" in error["message"]
        assert executed == {}


async def _until_somebody_waits(clock: ManualClock, seconds: float) -> None:
    """Return when somebody waits for the clock to be advanced by that much."""
    async with asyncio.timeout(PATIENCE):
        while clock.next_wake() != round(seconds * 1_000_000):
            await asyncio.sleep(0)
