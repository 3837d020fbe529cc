"""Waits beside everything else that a journal remembers: saved state, patches, failed attempts, limits of time."""

import asyncio
import contextlib
from typing import Any

import pytest

from stepwell.app import App
from stepwell.domain import event
from stepwell.domain.errors import AskTimeout, RunFailed, StepFailed
from stepwell.domain.outcome import Payload
from stepwell.domain.retry import Retry
from stepwell.ports.context import Context
from stepwell.ports.store import QuestionQuery
from stepwell.testing.clock import ManualClock
from tests.unit.engine.lives import AFTER_AGENT, Crash, Lives
from tests.unit.engine.samples import double, effect, executed, fail_first

RETRY = Retry(9, first_delay=0)


def lives_of(program: Any, *, lives: dict[str, Any] | None = None, **options: Any) -> Lives:
    app = App("test")
    app.agent(name="agent", **options)(program)

    @app.agent
    async def patient(ctx: Context) -> int:
        return await ctx.wait_for("end", int)

    return Lives(app, **(lives or {}))


class TestCheckpoints:
    @pytest.mark.parametrize("point", ["checkpoint.after_record", "wait.after_opening", "commit.after", AFTER_AGENT])
    async def test_what_was_waited_for_before_one_is_not_waited_for_again(self, point: str) -> None:
        async def program(ctx: Context) -> list[int]:
            got = await ctx.restore(list[int]) or []
            while len(got) < 4:
                got.append(await ctx.wait_for("go", int))
                await ctx.checkpoint(got)
            return got

        lives = lives_of(program)
        run = await lives.submit()
        async with lives.working():
            await lives.parked(run)
            await lives.signal(run, "go", 0)
            await lives.has(run, event.RUN_WAITING, 2)
        await lives.signal(run, "go", 1)
        await lives.signal(run, "go", 2)
        await lives.signal(run, "go", 3)
        await lives.live(run, crash=Crash(point))
        await lives.live(run)
        assert await lives.output(run) == [0, 1, 2, 3]
        opened = [entry.step for entry in await lives.journal(run, event.WAIT_OPENED)]
        assert opened == ["0/1", "1/1", "2/1", "3/1"]

    async def test_an_answer_under_a_key_stays_known(self) -> None:
        async def program(ctx: Context) -> list[int]:
            if await ctx.restore(int) is None:
                await ctx.ask("?", int, key="it")
                await ctx.checkpoint(1)
            return [await ctx.ask("?", int, key="it"), await ctx.wait_for("go", int)]

        lives = lives_of(program)
        run = await lives.submit()
        async with lives.working():
            await lives.answer(run, 5)
            await lives.has(run, event.CHECKPOINT_SAVED)
            await lives.parked(run)
            await lives.signal(run, "go", 6)
            await lives.settled(run)
        assert await lives.output(run) == [5, 6]
        assert len([entry for entry in await lives.facts(run, event.WAIT_OPENED) if entry["type"] == "question"]) == 1

    async def test_a_question_that_is_open_when_state_is_saved_is_found_by_its_key(self) -> None:
        async def program(ctx: Context) -> int:
            state = await ctx.restore(int)
            task = asyncio.create_task(ctx.ask("?", int, key="it"))
            if state is None:
                await ctx.step(double, 1)
                while not await lives.questions(ctx.run.id):
                    await asyncio.sleep(0)
                await ctx.checkpoint(1)
            await ctx.step(double, 2)
            return await task

        lives = lives_of(program)
        run = await lives.submit()
        async with lives.working():
            await lives.parked(run)
            await lives.answer(run, 5)
            await lives.settled(run)
        assert await lives.output(run) == 5
        assert executed == {"double 1": 1, "double 2": 1}
        assert len(await lives.journal(run, event.WAIT_OPENED)) == 1

    async def test_a_child_that_lives_when_state_is_saved_counts_as_live(self) -> None:
        async def program(ctx: Context) -> str:
            if await ctx.restore(int) is None:
                await ctx.spawn("patient")
                await ctx.checkpoint(1)
            await ctx.wait_for("go")
            try:
                await ctx.spawn("patient")
            except StepFailed as error:
                return error.code
            return "started"

        lives = lives_of(program, children=1)
        run = await lives.submit()
        async with lives.working():
            await lives.parked(run)
            await lives.signal(run, "go")
            await lives.settled(run)
        assert await lives.output(run) == "child.limit"


class TestPatches:
    def version(self, *, patched: bool, key: str | None) -> Lives:
        async def program(ctx: Context) -> list[Any]:
            before = patched and ctx.patched("before")
            if before:
                await ctx.step(double, 1)
            answer = await ctx.ask("?", int, key=key)
            after = patched and ctx.patched("after")
            if after:
                await ctx.step(double, 2)
            return [before, answer, after]

        return lives_of(program)

    @pytest.mark.parametrize("key", [None, "it"])
    async def test_a_run_that_waits_has_been_further_than_what_stands_before_its_wait(self, key: str | None) -> None:
        lives = self.version(patched=False, key=key)
        run = await lives.submit()
        worker = lives.make_worker(park_after=10)
        await worker.start()
        await lives.question(run)
        await worker.stop(drain=0)
        async with lives.working(self.version(patched=True, key=key).app):
            await lives.parked(run)
            await lives.answer(run, 5)
            await lives.settled(run)
        assert await lives.output(run) == [False, 5, True]
        assert executed == {"double 2": 1}

    async def test_a_new_run_takes_the_new_way_and_keeps_to_it(self) -> None:
        lives = self.version(patched=True, key=None)
        run = await lives.submit()
        async with lives.working():
            await lives.parked(run)
            await lives.answer(run, 5)
            await lives.settled(run)
        assert await lives.output(run) == [True, 5, True]
        assert executed == {"double 1": 1, "double 2": 1}


class TestAttempts:
    async def test_what_was_waited_for_before_the_failure_is_remembered(self) -> None:
        async def program(ctx: Context) -> list[Any]:
            got = [await ctx.wait_for("go", int), await ctx.ask("?", int)]
            return [*got, await ctx.step(fail_first, "flaky", 2)]

        lives = lives_of(program, retry=RETRY)
        run = await lives.submit()
        await lives.signal(run, "go", 1)
        async with lives.working():
            await lives.answer(run, 2)
            await lives.settled(run)
        assert await lives.output(run) == [1, 2, "flaky done"]
        assert len(await lives.journal(run, event.WAIT_OPENED)) == 2

    @pytest.mark.parametrize("kind", ["wait_for", "ask", "sleep", "call"])
    async def test_what_was_waited_for_on_the_way_to_it_may_come_again_or_not(self, kind: str) -> None:
        async def program(ctx: Context) -> list[Any]:
            try:
                first = await ctx.step(fail_first, "flaky", 2)
            except StepFailed:
                match kind:
                    case "wait_for":
                        await ctx.wait_for("go")
                    case "ask":
                        await ctx.ask("?", int)
                    case "sleep":
                        await ctx.sleep(0.001)
                    case "call":
                        await ctx.call("patient")
                raise
            return [first, await ctx.step(double, 1), await ctx.wait_for("last", int)]

        lives = lives_of(program, retry=RETRY)
        run = await lives.submit()
        async with lives.working():
            for number in range(2):
                if kind == "wait_for":
                    await lives.signal(run, "go", number)
                elif kind == "ask" and number == 0:
                    await lives.answer(run, 1)
                elif kind == "call" and number == 0:
                    await lives.has(run, event.CHILD_STARTED)
                    (child,) = await lives.children(run)
                    await lives.signal(child.id, "end", 1)
                await lives.has(run, event.RUN_RETRYING, number + 1)
            await lives.signal(run, "last", 7)
            await lives.settled(run)
        assert await lives.output(run) == ["flaky done", 2, 7]
        expected = 1 + (kind != "call")
        assert len(await lives.journal(run, event.WAIT_OPENED)) == expected, (
            "the first wait is recalled by the second try"
        )

    async def test_a_live_child_of_a_failed_attempt_is_adopted_by_the_next(self) -> None:
        async def program(ctx: Context) -> Any:
            child = await ctx.spawn("patient")
            await ctx.step(fail_first, "flaky", 2)
            return (await child.result()).output

        lives = lives_of(program, retry=RETRY)
        run = await lives.submit()
        async with lives.working():
            await lives.parked(run)
            (child,) = await lives.children(run)
            await lives.signal(child.id, "end", 4)
            await lives.settled(run)
        assert await lives.output(run) == 4

    async def test_an_answer_that_comes_between_two_attempts_is_heard(self) -> None:
        async def program(ctx: Context) -> Any:
            task = asyncio.create_task(ctx.ask("?", int, key="it"))
            while not await lives.questions(ctx.run.id) and executed["attempt"] == 0:
                await asyncio.sleep(0)
            if effect("attempt") == 1:
                task.cancel()
                raise OSError("again")
            return await task

        lives = lives_of(program, retry=Retry(3, first_delay=3600), lives={"clock": ManualClock()})
        run = await lives.submit()
        async with lives.working():
            await lives.has(run, event.RUN_RETRYING)
            await lives.answer(run, 3)
            assert isinstance(lives.clock, ManualClock)
            lives.clock.jump(3600)
            lives.look()
            await lives.settled(run)
        assert await lives.output(run) == 3

    async def test_several_failures_in_branches_are_all_made_anew(self) -> None:
        clock = ManualClock()

        async def program(ctx: Context) -> list[Any]:
            return list(
                await ctx.gather(
                    ctx.ask("?", int, timeout=60), ctx.wait_for("go", int, timeout=60), ctx.step(fail_first, "flaky", 1)
                )
            )

        lives = lives_of(program, retry=RETRY, lives={"clock": clock})
        run = await lives.submit()
        async with lives.working():
            await lives.parked(run)
            clock.jump(60)
            lives.look()
            await lives.has(run, event.RUN_RETRYING)
            await lives.has(run, event.WAIT_OPENED, 4)
            await lives.answer(run, 1)
            await lives.signal(run, "go", 2)
            await lives.settled(run)
        assert await lives.output(run) == [1, 2, "flaky done"]


class TestLimits:
    async def test_time_that_a_run_is_parked_is_not_time_that_it_uses(self) -> None:
        clock = ManualClock()

        async def program(ctx: Context) -> int:
            await ctx.sleep(86_400)
            await ctx.sleep(86_400)
            return await ctx.step(double, 1)

        lives = lives_of(program, timeout=60, lives={"clock": clock})
        run = await lives.submit()
        for count in range(1, 3):
            async with lives.working():
                await lives.has(run, event.RUN_WAITING, count)
            clock.advance(86_400)
        await lives.live(run)
        assert await lives.output(run) == 2
        assert (await lives.record(run)).life.leased < 1_000_000

    async def test_a_run_that_waits_and_works_past_its_time_is_ended(self) -> None:
        async def program(ctx: Context) -> None:
            async def hang() -> None:
                await asyncio.get_running_loop().create_future()

            await ctx.gather(ctx.wait_for("go"), ctx.step(hang))

        lives = lives_of(program, timeout=0.1)
        run = await lives.run()
        assert (await lives.record(run)).life.status == "timed_out"

    async def test_more_arrivals_than_are_read_at_once_are_all_heard(self) -> None:
        count = 1500

        async def program(ctx: Context) -> int:
            return sum(await ctx.gather(*(ctx.ask(f"{n}?", int) for n in range(count))))

        lives = lives_of(program, lives={"park_after": 60})
        run = await lives.submit()
        async with lives.working():
            await lives.has(run, event.WAIT_OPENED, count)
            for question in await lives.store.questions(QuestionQuery(run_id=run, limit=count)):
                await lives.store.answer(question.wait.id, Payload("1"), by="ada")
            await lives.settled(run)
        assert await lives.output(run) == count


class TestFailures:
    async def test_errors_in_branches_wait_for_the_waits_of_others_and_come_in_their_order(self) -> None:
        async def program(ctx: Context) -> str:
            async def late() -> None:
                await ctx.wait_for("go")
                raise ValueError("late, and first in order")

            async def soon() -> None:
                raise KeyError("soon")

            try:
                await ctx.gather(late(), soon(), ctx.call("patient"))
            except (ValueError, KeyError, RunFailed) as error:
                return str(error)
            return ""

        lives = lives_of(program)
        run = await lives.submit()
        async with lives.working():
            await lives.parked(run)
            (child,) = await lives.children(run)
            await lives.store.cancel(child.id, by="ada")
            await lives.has(run, event.RUN_WAITING, 2)
            await lives.signal(run, "go")
            await lives.settled(run)
        assert await lives.output(run) == "late, and first in order"

    async def test_a_timeout_that_a_branch_catches_lets_it_go_on(self) -> None:
        async def program(ctx: Context) -> list[Any]:
            async def patient() -> int:
                with contextlib.suppress(AskTimeout):
                    return await ctx.ask("First?", int, timeout=0.01)
                return await ctx.ask("Second?", int)

            return list(await ctx.gather(patient(), ctx.step(double, 1)))

        lives = lives_of(program)
        run = await lives.submit()
        async with lives.working():
            await lives.answer(run, 3, text="Second?")
            await lives.settled(run)
        assert await lives.output(run) == [3, 2]
