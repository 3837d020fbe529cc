"""`ctx.wait_for`: the next signal of a name, in the order of arrival, live and on every replay."""

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from stepwell.app import App
from stepwell.domain import event
from stepwell.domain.errors import AskTimeout, InvalidInput, Misuse
from stepwell.domain.retry import Retry
from stepwell.ports.context import Context
from stepwell.testing.clock import ManualClock
from tests.unit.engine.lives import AFTER_AGENT, Crash, Lives
from tests.unit.engine.samples import add, double, effect, executed


@dataclass
class Parcel:
    number: int
    to: str


def waiter(count: int = 1, **options: Any) -> Lives:
    """An agent that waits for so many signals named `go`."""
    app = App("test")

    @app.agent
    async def agent(ctx: Context) -> list[Any]:
        return [await ctx.wait_for("go", **options) for _ in range(count)]

    return Lives(app)


class TestOrder:
    async def test_a_parked_run_is_woken_by_the_signal_it_waits_for(self) -> None:
        lives = waiter()
        run = await lives.submit()
        async with lives.working():
            await lives.parked(run)
            assert await lives.signal(run, "go", {"n": 1})
            await lives.settled(run)
        assert await lives.output(run) == [{"n": 1}]
        closed = await lives.facts(run, event.WAIT_CLOSED)
        assert [(facts["outcome"], facts["signal"]) for facts in closed] == [("received", "signal 1")]

    async def test_signals_of_another_name_wake_nobody(self) -> None:
        lives = waiter()
        run = await lives.submit()
        async with lives.working():
            await lives.parked(run)
            await lives.signal(run, "other", 1)
            assert (await lives.parked(run)).life.available_at == 2**62
            await lives.signal(run, "go", 2)
            await lives.settled(run)
        assert await lives.output(run) == [2]
        assert len(await lives.journal(run, event.RUN_RESUMED)) == 1

    async def test_signals_are_taken_in_the_order_of_their_arrival(self) -> None:
        lives = waiter(5)
        run = await lives.submit()
        for number in range(3):
            await lives.signal(run, "go", number)
        async with lives.working():
            await lives.parked(run)
            for number in range(3, 5):
                await lives.signal(run, "go", number)
            await lives.settled(run)
        assert await lives.output(run) == [0, 1, 2, 3, 4]

    async def test_what_came_before_the_wait_is_kept_for_it(self) -> None:
        lives = waiter()
        run = await lives.submit()
        await lives.signal(run, "go", "early")
        await lives.live(run)
        assert await lives.output(run) == ["early"]
        assert await lives.journal(run, event.RUN_WAITING) == []

    async def test_a_signal_that_is_sent_twice_is_received_once(self) -> None:
        lives = waiter(2)
        run = await lives.submit()
        async with lives.working():
            await lives.parked(run)
            assert await lives.signal(run, "go", 1, id="one")
            assert not await lives.signal(run, "go", 1, id="one")
            await lives.has(run, event.WAIT_OPENED, 2)
            assert not await lives.signal(run, "go", 1, id="one")
            await lives.signal(run, "go", 2, id="two")
            await lives.settled(run)
        assert await lives.output(run) == [1, 2]

    async def test_names_do_not_meet(self) -> None:
        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> list[int]:
            return [await ctx.wait_for("b", int), await ctx.wait_for("a", int)]

        lives = Lives(app)
        run = await lives.submit()
        await lives.signal(run, "a", 1)
        await lives.signal(run, "b", 2)
        await lives.live(run)
        assert await lives.output(run) == [2, 1]

    async def test_branches_take_signals_in_the_order_in_which_they_began_to_wait(self) -> None:
        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> list[int]:
            return await ctx.gather(*(ctx.wait_for("go", int) for _ in range(4)))

        lives = Lives(app)
        run = await lives.submit()
        async with lives.working():
            await lives.parked(run)
            for number in range(4):
                await lives.signal(run, "go", number)
            await lives.settled(run)
        assert await lives.output(run) == [0, 1, 2, 3]

    @pytest.mark.parametrize(
        "point", ["wait.after_opening", "executor.after_claim", "commit.before", "commit.after", AFTER_AGENT]
    )
    async def test_a_crash_takes_no_signal_twice_and_loses_none(self, point: str) -> None:
        lives = waiter(3)
        run = await lives.submit()
        for number in range(3):
            await lives.signal(run, "go", number)
        await lives.live(run, crash=Crash(point, passing=2 if point != "executor.after_claim" else 1))
        await lives.live(run)
        assert await lives.output(run) == [0, 1, 2]


class TestValues:
    async def test_a_signal_is_of_the_type_that_was_waited_for(self) -> None:
        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> str:
            parcel = await ctx.wait_for("parcel", Parcel)
            assert isinstance(parcel, Parcel)
            return f"{parcel.number} to {parcel.to}"

        lives = Lives(app)
        run = await lives.submit()
        await lives.signal(run, "parcel", {"number": 7, "to": "Ada"})
        await lives.live(run, crash=Crash(AFTER_AGENT))
        await lives.live(run)
        assert await lives.output(run) == "7 to Ada"

    async def test_without_a_type_it_is_plain_data(self) -> None:
        lives = waiter()
        run = await lives.submit()
        await lives.signal(run, "go", {"a": [1, None, "x"]})
        await lives.live(run)
        assert await lives.output(run) == [{"a": [1, None, "x"]}]

    async def test_one_that_does_not_fit_raises_in_the_agent_the_same_on_every_replay(self) -> None:
        app = App("test")
        seen: list[tuple[str, str | None]] = []

        @app.agent
        async def agent(ctx: Context) -> int:
            try:
                return await ctx.wait_for("go", int)
            except InvalidInput as error:
                seen.append((error.code, error.path))
            await ctx.step(double, 1)
            return await ctx.wait_for("go", int)

        lives = Lives(app)
        run = await lives.submit()
        await lives.signal(run, "go", {"not": "a number"})
        await lives.signal(run, "go", 5)
        await lives.live(run, crash=Crash(AFTER_AGENT))
        await lives.live(run)
        assert await lives.output(run) == 5
        assert len(seen) == 2
        assert len(set(seen)) == 1
        assert seen[0][0] == "signal.invalid"
        assert executed == {"double 1": 1}

    async def test_one_that_does_not_fit_and_is_not_caught_ends_the_run_without_another_attempt(self) -> None:
        app = App("test")

        @app.agent(retry=Retry(3, first_delay=0))
        async def agent(ctx: Context) -> int:
            return await ctx.wait_for("go", int)

        lives = Lives(app)
        run = await lives.submit()
        await lives.signal(run, "go", "five")
        await lives.live(run)
        error = await lives.error(run)
        assert error["code"] == "signal.invalid"
        assert not error["retryable"]

    @pytest.mark.parametrize("name", ["", " ", "a b", "-", None, 3, "x" * 200])
    async def test_what_cannot_name_a_signal_is_refused(self, name: Any) -> None:
        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> Any:
            return await ctx.wait_for(name)

        lives = Lives(app)
        assert (await lives.error(await lives.run()))["code"] == "input.signal"


class TestTimeout:
    def lives(self, clock: ManualClock, **options: Any) -> Lives:
        app = App("test")

        @app.agent(retry=options.pop("retry", None))
        async def agent(ctx: Context) -> Any:
            try:
                got = await ctx.wait_for("go", int, timeout=timedelta(days=1), **options)
            except AskTimeout as error:
                effect(f"timeout {error.code}")
                raise
            return await ctx.step(add, got, 1)

        return Lives(app, clock=clock)

    async def test_after_it_the_default_is_given(self) -> None:
        clock = ManualClock()
        lives = self.lives(clock, default=10)
        run = await lives.submit()
        async with lives.working():
            assert (await lives.parked(run)).life.available_at == clock.now() + 86_400_000_000
            clock.jump(86_400)
            lives.look()
            await lives.settled(run)
        assert await lives.output(run) == 11
        (closed,) = await lives.facts(run, event.WAIT_CLOSED)
        assert closed["outcome"] == "timed_out"

    async def test_without_a_default_it_raises(self) -> None:
        clock = ManualClock()
        lives = self.lives(clock)
        run = await lives.submit()
        async with lives.working():
            await lives.parked(run)
            clock.jump(86_400)
            lives.look()
            await lives.settled(run)
        error = await lives.error(run)
        assert (error["code"], error["type"], error["step"]) == ("ask.timeout", "AskTimeout", "0/1")
        assert executed == {"timeout ask.timeout": 1}

    async def test_what_comes_in_time_is_taken(self) -> None:
        clock = ManualClock()
        lives = self.lives(clock, default=10)
        run = await lives.submit()
        async with lives.working():
            await lives.parked(run)
            clock.jump(86_399)
            await lives.signal(run, "go", 1)
            await lives.settled(run)
        assert await lives.output(run) == 2

    async def test_what_came_in_time_counts_even_if_nobody_looked_until_later(self) -> None:
        clock = ManualClock()
        lives = self.lives(clock, default=10)
        run = await lives.submit()
        async with lives.working():
            await lives.parked(run)
        await lives.signal(run, "go", 1)
        clock.jump(86_400)
        await lives.live(run)
        assert await lives.output(run) == 2

    async def test_what_comes_too_late_is_kept_for_the_next_wait(self) -> None:
        clock = ManualClock()
        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> list[Any]:
            first = await ctx.wait_for("go", str, timeout=10, default="nobody")
            return [first, await ctx.wait_for("go", str)]

        lives = Lives(app, clock=clock)
        run = await lives.submit()
        async with lives.working():
            await lives.parked(run)
            clock.jump(10)
            lives.look()
            await lives.has(run, event.WAIT_OPENED, 2)
            await lives.signal(run, "go", "late")
            await lives.settled(run)
        assert await lives.output(run) == ["nobody", "late"]

    @pytest.mark.parametrize("point", ["wait.after_expiry", AFTER_AGENT, "commit.before", "commit.after"])
    async def test_that_it_was_too_late_is_remembered(self, point: str) -> None:
        clock = ManualClock()
        lives = self.lives(clock, default=10)
        run = await lives.submit()
        async with lives.working():
            await lives.parked(run)
        clock.jump(86_400)
        await lives.live(run, crash=Crash(point))
        if not (await lives.record(run)).life.ended:
            await lives.signal(run, "go", 1)
        await lives.live(run)
        expected = 2 if point == "commit.before" else 11
        assert await lives.output(run) == expected

    async def test_no_time_at_all_takes_what_is_there_and_waits_for_nothing(self) -> None:
        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> list[Any]:
            return [await ctx.wait_for("go", timeout=0, default=None) for _ in range(3)]

        lives = Lives(app)
        run = await lives.submit()
        await lives.signal(run, "go", 1)
        await lives.signal(run, "go", 2)
        await lives.live(run, crash=Crash(AFTER_AGENT))
        await lives.live(run)
        assert await lives.output(run) == [1, 2, None]
        assert await lives.journal(run, event.RUN_WAITING) == []

    @pytest.mark.parametrize("default", [None, 0, False, ""])
    async def test_any_value_is_a_default(self, default: Any) -> None:
        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> list[Any]:
            return [await ctx.wait_for("go", Any, timeout=0, default=default)]

        lives = Lives(app)
        assert await lives.output(await lives.run()) == [default]

    async def test_a_default_is_data_like_what_is_waited_for(self) -> None:
        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> str:
            given = Parcel(1, "Ada")
            got = await ctx.wait_for("go", Parcel, timeout=0, default=given)
            return f"{got == given} {got is given}"

        lives = Lives(app)
        assert await lives.output(await lives.run()) == "True False"

    @pytest.mark.parametrize("timeout", [-1, "5", float("nan"), timedelta(seconds=-1)])
    async def test_what_is_no_duration_is_refused(self, timeout: Any) -> None:
        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> None:
            await ctx.wait_for("go", timeout=timeout)

        lives = Lives(app)
        assert (await lives.error(await lives.run()))["code"] == "definition.duration"

    async def test_one_that_ended_an_attempt_is_waited_for_anew_by_the_next(self) -> None:
        clock = ManualClock()
        lives = self.lives(clock, retry=Retry(3, first_delay=0))
        run = await lives.submit()
        async with lives.working():
            await lives.parked(run)
            clock.jump(86_400)
            lives.look()
            await lives.has(run, event.RUN_RETRYING)
            await lives.has(run, event.RUN_WAITING, 2)
            await lives.signal(run, "go", 4)
            await lives.settled(run)
        assert await lives.output(run) == 5
        assert (await lives.record(run)).life.attempt == 2


class TestRefusals:
    async def test_in_a_task_that_the_agent_started_itself_it_has_no_place(self) -> None:
        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> None:
            await asyncio.create_task(ctx.wait_for("go"))

        lives = Lives(app)
        run = await lives.submit()
        await lives.live(run)
        error = await lives.error(run)
        assert (error["code"], error["type"]) == ("context.foreign_task", "Misuse")

    async def test_inside_a_step_it_is_refused(self) -> None:
        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> str:
            async def nested() -> str:
                try:
                    await ctx.wait_for("go")
                except Misuse as error:
                    return error.code
                return "allowed"

            return await ctx.step(nested)

        lives = Lives(app)
        assert await lives.output(await lives.run()) == "context.nested"
