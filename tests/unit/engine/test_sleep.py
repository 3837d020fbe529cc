"""`ctx.sleep` and `ctx.sleep_until`: a moment that is decided once, and waited for without holding anything."""

import asyncio
import contextlib
import math
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from stepwell.app import App
from stepwell.domain import event
from stepwell.domain.event import to_datetime
from stepwell.engine.worker import Worker
from stepwell.ports import crash_point
from stepwell.ports.context import Context
from stepwell.testing.clock import ManualClock
from tests.unit.engine.lives import AFTER_AGENT, Crash, Lives, twice
from tests.unit.engine.samples import add, double, effect, executed

HOUR = 3600.0


def sleeper(duration: Any = HOUR, *, clock: ManualClock | None = None) -> Lives:
    """An agent that does a step, sleeps, and does another."""
    app = App("test")

    @app.agent
    async def agent(ctx: Context) -> int:
        first = await ctx.step(double, 1)
        await ctx.sleep(duration)
        return await ctx.step(add, first, 1)

    return Lives(app, clock=clock)


async def woken_by_signals(clock: ManualClock) -> tuple[Lives, str]:
    """A run that waits for an hour at most, and is woken by signals meanwhile."""
    app = App("test")

    @app.agent
    async def agent(ctx: Context) -> None:
        async def steps() -> None:
            while True:
                await ctx.wait_for("step")

        async def limit() -> None:
            await ctx.wait_for("never", timeout=HOUR, default=None)

        await ctx.gather(limit(), steps())

    lives = Lives(app, clock=clock)
    return lives, await lives.submit()


async def set_back(lives: Lives, run: str, clock: ManualClock) -> None:
    """Set the clock back by ten hours, and return when a worker that looked at the queue has seen it."""
    before = (await lives.record(run)).life.available_at
    clock.jump(-10 * HOUR)
    lives.look()

    async def is_seen() -> bool:
        return (await lives.record(run)).life.available_at < before

    await lives.until(is_seen, run)


class TestMoment:
    async def test_a_run_sleeps_until_its_time_has_come_and_not_longer(self) -> None:
        clock = ManualClock()
        lives = sleeper(clock=clock)
        run = await lives.submit()
        async with lives.working():
            life = (await lives.parked(run)).life
            assert life.available_at == clock.now() + HOUR * 1_000_000
            clock.jump(HOUR - 1)
            lives.look()
            for _ in range(20):
                await asyncio.sleep(0)
            assert executed == {"double 1": 1}
            clock.jump(1)
            lives.look()
            await lives.settled(run)
        assert await lives.output(run) == 3
        assert executed == {"double 1": 1, "add 2 1": 1}

    async def test_what_a_parked_run_waits_for_is_told(self) -> None:
        clock = ManualClock()
        lives = sleeper(clock=clock)
        run = await lives.submit()
        async with lives.working():
            await lives.parked(run)
        (told,) = await lives.facts(run, event.RUN_WAITING)
        until = clock.now() + HOUR * 1_000_000
        assert told == {"waits": [{"wait": "0/2", "type": "time", "name": "sleep", "until": until}]}
        (opened,) = await lives.journal(run, event.WAIT_OPENED)
        assert opened.step == "0/2"

    async def test_the_moment_of_the_first_attempt_counts(self) -> None:
        clock = ManualClock()
        lives = sleeper(clock=clock)
        run = await lives.submit()
        await lives.live(run, crash=Crash("wait.after_opening"))
        clock.jump(HOUR / 2)
        async with lives.working():
            life = (await lives.parked(run)).life
            assert life.available_at == clock.now() + HOUR / 2 * 1_000_000
            clock.jump(HOUR / 2)
            lives.look()
            await lives.settled(run)
        assert await lives.output(run) == 3
        assert len(await lives.journal(run, event.WAIT_OPENED)) == 1

    async def test_a_clock_that_is_set_back_does_not_make_a_sleep_longer_than_it_is(self) -> None:
        clock = ManualClock()
        lives = sleeper(clock=clock)
        run = await lives.submit()
        async with lives.working():
            await lives.parked(run)
            await set_back(lives, run, clock)
            clock.jump(HOUR)
            lives.look()
            await lives.has(run, event.RUN_RESUMED, 1)
            await lives.parked(run)
            clock.jump(HOUR)
            lives.look()
            await lives.settled(run)
        assert await lives.output(run) == 3
        assert executed == {"double 1": 1, "add 2 1": 1}

    async def test_nor_does_it_while_the_run_is_in_hand(self) -> None:
        clock = ManualClock()
        lives = sleeper(clock=clock)
        run = await lives.submit()
        async with lives.working(park_after=math.inf, lease_seconds=1e6) as worker:
            await lives.has(run, event.WAIT_OPENED, 1)
            clock.jump(-10 * HOUR)
            clock.advance(HOUR)
            for attempt in worker.attempts:
                attempt.waits.wake()
            await lives.settled(run)
        assert await lives.output(run) == 3

    async def test_nor_when_it_is_set_back_before_the_wait_begins(self) -> None:
        clock = ManualClock()
        lives = sleeper(clock=clock)
        run = await lives.submit()
        jumps = [-10 * HOUR]
        crash_point.install(lambda name: clock.jump(jumps.pop()) if jumps and name == "wait.after_opening" else None)
        async with lives.working():
            assert (await lives.parked(run)).life.available_at == clock.now() + HOUR * 1_000_000
            clock.jump(HOUR)
            lives.look()
            await lives.settled(run)
        assert await lives.output(run) == 3

    async def test_a_clock_that_is_wrong_for_a_moment_wakes_nobody(self) -> None:
        clock = ManualClock()
        lives = sleeper(clock=clock)
        run = await lives.submit()
        async with lives.working():
            until = (await lives.parked(run)).life.available_at
            await set_back(lives, run, clock)
            clock.jump(10 * HOUR + 5)
            lives.look()

            async def is_set_right() -> bool:
                return (await lives.record(run)).life.available_at == until

            await lives.until(is_set_right, run)
            assert await lives.journal(run, event.RUN_RESUMED) == []
            clock.jump(HOUR - 5)
            lives.look()
            await lives.settled(run)
        assert await lives.output(run) == 3

    async def test_a_moment_stays_one_when_the_clock_is_set_back(self) -> None:
        clock = ManualClock()
        when = to_datetime(clock.now()) + timedelta(hours=1)
        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> int:
            await ctx.sleep_until(when)
            return await ctx.step(double, 1)

        lives = Lives(app, clock=clock)
        run = await lives.submit()
        async with lives.working():
            until = (await lives.parked(run)).life.available_at
            await set_back(lives, run, clock)
            clock.jump(HOUR)
            lives.look()
            await lives.has(run, event.RUN_RESUMED, 1)
            assert (await lives.parked(run)).life.available_at == until
            assert executed == {}
            clock.jump(10 * HOUR)
            lives.look()
            await lives.settled(run)
        assert await lives.output(run) == 2

    async def test_a_sleep_that_is_over_is_over_on_every_replay(self) -> None:
        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> int:
            await ctx.sleep(0.001)
            return await ctx.step(double, 4)

        lives = Lives(app)
        run = await lives.run(crashes=(Crash("step.after_record"),))
        assert await lives.output(run) == 8
        assert executed == {"double 4": 1}
        (closed,) = await lives.facts(run, event.WAIT_CLOSED)
        assert closed == {"wait": "0/1", "outcome": "due"}

    async def test_two_sleeps_are_two(self) -> None:
        clock = ManualClock()
        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> None:
            await ctx.sleep(HOUR)
            await ctx.sleep(HOUR)

        lives = Lives(app, clock=clock)
        run = await lives.submit()
        async with lives.working():
            for woken in range(1, 3):
                await lives.parked(run)
                clock.jump(HOUR)
                lives.look()
                await lives.has(run, event.RUN_RESUMED, woken)
            await lives.settled(run)
        opened = await lives.facts(run, event.WAIT_OPENED)
        assert opened[1]["until"] - opened[0]["until"] == HOUR * 1_000_000


class TestWrongForAMoment:
    """Something else is done for the run while its clock is wrong: a wait that goes on keeps its length."""

    @pytest.mark.parametrize("park_after", [0.0, math.inf])
    async def test_a_length_that_began_before_is_not_shorter(self, park_after: float) -> None:
        clock = ManualClock()
        lives, run = await woken_by_signals(clock)
        async with lives.working(lease_seconds=1e6):
            await lives.parked(run)
        clock.jump(-2 * HOUR)
        await lives.signal(run, "step")
        async with lives.working(park_after=park_after, lease_seconds=1e6) as worker:
            await lives.has(run, event.WAIT_OPENED, 3)
            clock.jump(2 * HOUR + 5)
            await self._goes_on(lives, run, worker)
            assert await self._is_open(lives, run)
            clock.jump(HOUR - 5)
            await self._goes_on(lives, run, worker)
            await self._closes(lives, run)
            await lives.store.cancel(run, by="ann")
            await lives.settled(run)

    async def test_what_was_made_up_for_a_clock_that_was_right_again_since_does_not_count(self) -> None:
        clock = ManualClock()
        lives, run = await woken_by_signals(clock)
        async with lives.working(lease_seconds=1e6):
            await lives.parked(run)
            for waits, jump in enumerate((-2 * HOUR, 2 * HOUR + 5, -30 * 60), 3):
                clock.jump(jump)
                await lives.signal(run, "step", id=f"signal {waits}")
                await lives.has(run, event.WAIT_OPENED, waits)
                await lives.parked(run)
                assert await self._is_open(lives, run)
            clock.jump(HOUR + 30 * 60 - 5)  # an hour by the right clock: no later than by how much it was set back
            lives.look()
            await self._closes(lives, run)
            await lives.store.cancel(run, by="ann")
            await lives.settled(run)

    async def _goes_on(self, lives: Lives, run: str, worker: Worker) -> None:
        """Let the worker see what time it is, and do what it does then."""
        lives.look()
        for attempt in worker.attempts:
            attempt.waits.wake()
        for _ in range(20):
            await asyncio.sleep(0)

    async def _closes(self, lives: Lives, run: str) -> None:
        async def is_closed() -> bool:
            return not await self._is_open(lives, run)

        await lives.until(is_closed, run)

    async def _is_open(self, lives: Lives, run: str) -> bool:
        closed = await lives.facts(run, event.WAIT_CLOSED)
        return all(facts["outcome"] == "received" for facts in closed)


class TestNothingToWaitFor:
    @pytest.mark.parametrize("duration", [0, 0.0, timedelta()])
    async def test_no_time_at_all_is_not_waited_for(self, duration: Any) -> None:
        lives = sleeper(duration)
        run = await lives.run(crashes=(Crash(AFTER_AGENT),))
        assert await lives.output(run) == 3
        assert set(executed.values()) == {1}
        assert await lives.journal(run, event.RUN_WAITING) == []

    async def test_it_costs_no_write_of_its_own(self) -> None:
        lives = sleeper(0)
        process = await lives.live(await lives.submit())
        assert process.passed.count("commit.before") == 3  # two steps and the end

    async def test_a_moment_that_has_passed_is_not_waited_for(self) -> None:
        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> int:
            await ctx.sleep_until(datetime(2001, 1, 1, tzinfo=UTC))
            return await ctx.step(double, 1)

        lives, run = await twice(agent)
        assert await lives.output(run) == 2
        assert await lives.journal(run, event.RUN_WAITING) == []


class TestSleepUntil:
    async def test_a_run_sleeps_until_a_moment_whatever_zone_it_is_given_in(self) -> None:
        clock = ManualClock()
        when = to_datetime(clock.now()) + timedelta(days=2)
        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> int:
            await ctx.sleep_until(when.astimezone(timezone(timedelta(hours=5, minutes=30))))
            return await ctx.step(double, 1)

        lives = Lives(app, clock=clock)
        run = await lives.submit()
        async with lives.working():
            assert to_datetime((await lives.parked(run)).life.available_at) == when
            clock.jump(2 * 24 * HOUR)
            lives.look()
            await lives.settled(run)
        assert await lives.output(run) == 2

    async def test_another_moment_on_the_replay_changes_nothing(self) -> None:
        clock = ManualClock()
        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> None:
            days = effect("asked")
            await ctx.sleep_until(to_datetime(clock.now()) + timedelta(days=days))

        lives = Lives(app, clock=clock)
        run = await lives.submit()
        async with lives.working():
            first = (await lives.parked(run)).life.available_at
            clock.jump(25 * HOUR)
            lives.look()
            await lives.settled(run)
        assert clock.now() < first + 2 * HOUR * 1_000_000
        assert executed == {"asked": 2}
        assert (await lives.record(run)).life.status == "succeeded"

    @pytest.mark.parametrize("when", [datetime(2030, 1, 1), "2030-01-01", 5, None])  # noqa: DTZ001 - that is the point
    async def test_what_is_no_moment_is_refused(self, when: Any) -> None:
        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> None:
            await ctx.sleep_until(when)

        lives = Lives(app)
        assert (await lives.error(await lives.run()))["code"] == "input.datetime"


class TestDurations:
    @pytest.mark.parametrize("duration", [-1, math.nan, math.inf, "5m", None, True, timedelta(seconds=-1), 1e300])
    async def test_what_is_no_duration_is_refused(self, duration: Any) -> None:
        lives = sleeper(duration)
        run = await lives.run()
        error = await lives.error(run)
        assert error["code"] == "definition.duration"
        assert await lives.journal(run, event.WAIT_OPENED) == []

    async def test_seconds_and_timedelta_mean_the_same(self) -> None:
        clock = ManualClock()
        moments = []
        for duration in (90, 90.0, timedelta(minutes=1, seconds=30)):
            lives = sleeper(duration, clock=clock)
            run = await lives.submit()
            async with lives.working():
                moments.append((await lives.parked(run)).life.available_at)
        assert set(moments) == {clock.now() + 90_000_000}

    async def test_a_call_that_was_refused_takes_no_place(self) -> None:
        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> int:
            with contextlib.suppress(ValueError):
                await ctx.sleep(-1)
            return await ctx.step(double, 1)

        lives, run = await twice(agent)
        assert await lives.output(run) == 2
        (done,) = await lives.journal(run, event.STEP_COMPLETED)
        assert done.step == "0/1"
