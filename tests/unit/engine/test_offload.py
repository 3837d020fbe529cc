"""Plain functions run in threads, or in an interpreter of their own that can be killed."""

import asyncio
import json
import math
import os
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from stepwell.app import App
from stepwell.domain import event
from stepwell.domain.errors import StepFailed
from stepwell.domain.retry import Retry
from stepwell.engine import offload
from stepwell.engine.offload import Offload
from stepwell.ports.context import Context
from tests.unit.engine.lives import PATIENCE, Lives, twice
from tests.unit.engine.process_steps import Order, break_down, coroutine, not_data, process_id, total, wait


async def test_a_process_whose_parent_died_before_it_began_does_nothing(tmp_path: Path) -> None:
    made = tmp_path / "made"
    request = {"path": sys.path, "args": [str(made)], "parent": os.getpid() + 1, "module": "os", "name": "mkdir"}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "stepwell.engine.process_child"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate(json.dumps(request).encode())
    assert (process.returncode, output, made.exists()) == (1, b"", False)


class TestThreads:
    async def test_threads_are_reused(self) -> None:
        threads = Offload()
        names = {await threads.in_thread(lambda: threading.current_thread().name, (), {}) for _ in range(20)}
        threads.close()
        assert len(names) == 1

    async def test_no_more_threads_than_the_limit_and_everything_is_done(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(offload, "_MAX_THREADS", 3)
        threads = Offload()
        names: set[str] = set()

        def work(n: int) -> int:
            names.add(threading.current_thread().name)
            return n

        results = await asyncio.gather(*[threads.in_thread(work, (n,), {}) for n in range(50)])
        threads.close()
        assert results == list(range(50))
        assert len(names) <= 3

    async def test_what_was_given_up_before_a_thread_was_free_is_never_done(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(offload, "_MAX_THREADS", 1)
        threads = Offload()
        release = threading.Event()
        done: list[str] = []
        busy = asyncio.create_task(threads.in_thread(release.wait, (PATIENCE,), {}))
        await asyncio.sleep(0)
        waiting = asyncio.create_task(threads.in_thread(done.append, ("given up",), {}))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        release.set()
        await busy
        await threads.in_thread(done.append, ("later",), {})
        threads.close()
        assert done == ["later"]

    @pytest.mark.parametrize("error", [ValueError("x"), SystemExit(1), KeyboardInterrupt(), asyncio.CancelledError()])
    async def test_whatever_a_thread_raises_is_given_to_the_caller(self, error: BaseException) -> None:
        threads = Offload()

        def work() -> None:
            raise error

        with pytest.raises(type(error)):
            await threads.in_thread(work, (), {})
        assert await threads.in_thread(lambda: 1, (), {}) == 1
        threads.close()

    async def test_an_end_of_iteration_is_told_as_an_error(self) -> None:
        threads = Offload()
        with pytest.raises(RuntimeError, match="StopIteration"):
            await threads.in_thread(next, (iter(()),), {})
        threads.close()

    async def test_the_threads_end_when_they_are_let_go(self) -> None:
        threads = Offload()
        thread = await threads.in_thread(threading.current_thread, (), {})
        threads.close()
        thread.join(PATIENCE)
        assert not thread.is_alive()


async def in_process(fn: Any, *args: Any, **options: Any) -> Any:
    """What a step in another interpreter gives, on the first run and on a replay."""
    app = App("test")

    @app.agent
    async def agent(ctx: Context) -> Any:
        try:
            result = await ctx.step(fn, *args, run_in="process", **options)
        except StepFailed as error:
            return [error.error_type, error.code, error.message]
        return result.id if isinstance(result, Order) else result

    lives, run = await twice(agent)
    return await lives.output(run)


class TestProcesses:
    async def test_it_is_another_process_and_it_is_remembered(self) -> None:
        assert await in_process(process_id) not in (os.getpid(), None)

    async def test_arguments_and_result_are_typed_there_and_here(self) -> None:
        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> float:
            result = await ctx.step(total, [Order("a", 1.5), Order("b", 2.0)], run_in="process")
            return result.price

        lives, run = await twice(agent)
        assert await lives.output(run) == 3.5

    async def test_a_function_of_the_standard_library_can_run_there(self) -> None:
        assert await in_process(math.factorial, 5) == 120

    async def test_at_the_timeout_it_is_killed(self) -> None:
        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> str:
            try:
                await ctx.step(wait, 3600.0, run_in="process", timeout=0.2)
            except StepFailed as error:
                return error.code
            return ""

        lives = Lives(app)
        assert await lives.output(await lives.run()) == "step.timeout"

    @pytest.mark.parametrize(
        ("how", "told"),
        [
            ("break", ["FileNotFoundError", "step.error", "no file"]),
            ("fail", ["Fail", "shop.sold_out", "sold out"]),
            ("exit", ["SystemExit", "step.error", "3"]),
            ("die", ["ProcessDied", "step.error", "exit code 4"]),
            ("killed", ["ProcessDied", "step.error", "signal 9"]),
            ("odd text", ["ValueError", "step.error", "?"]),
        ],
    )
    async def test_what_it_raises_is_told_as_itself(self, how: str, told: list[str]) -> None:
        kind, code, message = await in_process(break_down, how)
        assert [kind, code] == told[:2]
        assert told[2] in message

    async def test_its_errors_follow_the_retry_policy_by_their_names(self) -> None:
        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> None:
            for how, retry in [
                ("break", Retry(2, first_delay=0, on=(OSError,))),
                ("break", Retry(2, first_delay=0, never_on=(OSError,))),
                ("fail", Retry(2, first_delay=3600, max_delay=3600)),
            ]:
                with pytest.raises(StepFailed):
                    await ctx.step(break_down, how, run_in="process", retry=retry)

        lives = Lives(app)
        run = await lives.run()
        await lives.output(run)
        failures = await lives.facts(run, event.STEP_FAILED)
        assert [fact["try"] for fact in failures] == [1, 2, 1, 1, 2]

    async def test_not_executed_is_understood(self) -> None:
        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> str:
            try:
                await ctx.step(break_down, "not executed", run_in="process", in_doubt="fail")
            except StepFailed as error:
                return error.error_type
            return ""

        lives = Lives(app)
        assert await lives.output(await lives.run()) == "NotExecuted"

    async def test_a_result_that_is_not_data_is_refused(self) -> None:
        kind, _, message = await in_process(not_data)
        assert kind == "InvalidValue"
        assert "result" in message

    @pytest.mark.parametrize(
        ("make", "code"),
        [
            (lambda: coroutine, "definition.run_in"),
            (lambda: lambda: 1, "step.not_importable"),
            (lambda: Lives(App("x")).make_worker, "step.not_importable"),
        ],
        ids=["a coroutine function", "a lambda", "a method"],
    )
    async def test_only_plain_functions_of_a_module_can_run_there(self, make: Any, code: str) -> None:
        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> None:
            await ctx.step(make(), name="step", run_in="process")

        lives = Lives(app)
        assert (await lives.error(await lives.run()))["code"] == code

    @pytest.mark.parametrize("run_in", ["subprocess", None, "THREAD"])
    async def test_only_what_exists_can_be_asked_for(self, run_in: Any) -> None:
        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> None:
            await ctx.step(process_id, run_in=run_in)

        lives = Lives(app)
        assert (await lives.error(await lives.run()))["code"] == "definition.run_in"
