"""The time of a testing runtime: it stands still, jumps while the test waits, and passes when it is told to."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from stepwell import App, Context, InvalidDefinition, Misuse, Retry, WaitTimeout
from stepwell.testing import Stuck, runtime

app = App("time")
DAYS = timedelta(days=3)


@app.agent
async def nap(ctx: Context, days: int) -> str:
    await ctx.sleep(timedelta(days=days))
    return f"slept {days} days"


@app.agent
async def diary(ctx: Context) -> list[datetime]:
    dates = [ctx.now()]
    for _ in range(3):
        await ctx.sleep(3600)
        dates.append(ctx.now())
    return dates


@app.agent
async def consent(ctx: Context) -> bool:
    return await ctx.ask("May we?", bool, timeout=DAYS, default=False)


async def test_days_pass_at_once_and_the_clock_shows_them() -> None:
    began = time.monotonic()
    async with runtime(app) as rt:
        begin = rt.clock.now()
        assert (await rt.run(nap, 3)).output == "slept 3 days"
        assert rt.clock.now() - begin == DAYS
    assert time.monotonic() - began < 10


async def test_time_stands_still_while_the_test_does_not_wait_for_it() -> None:
    async with runtime(app) as rt:
        begin = rt.clock.now()
        run = await rt.start(nap, 3)
        while (await run.refresh()).status != "waiting":
            await asyncio.sleep(0)
        for _ in range(100):
            await asyncio.sleep(0)
        assert rt.clock.now() == begin
        assert (await run.refresh()).available_at == begin + DAYS


async def test_time_that_is_told_to_pass_brings_what_is_due_and_no_more() -> None:
    async with runtime(app) as rt:
        run = await rt.start(nap, 3)
        await rt.clock.advance(timedelta(days=2, hours=23))
        assert (await run.refresh()).status == "waiting"
        await rt.clock.advance(3600)
        assert (await run.refresh()).status == "succeeded"


async def test_what_becomes_due_on_the_way_is_done_at_its_moment() -> None:
    async with runtime(app, now=datetime(2030, 1, 2, tzinfo=UTC)) as rt:
        run = await rt.start(diary)
        await rt.clock.advance(timedelta(days=1))
        assert rt.clock.now() == datetime(2030, 1, 3, tzinfo=UTC)
        assert (await run.result()).output == [datetime(2030, 1, 2, hour, tzinfo=UTC) for hour in range(4)]


async def test_a_delayed_run_starts_when_its_time_has_come() -> None:
    async with runtime(app) as rt:
        begin = rt.clock.now()
        run = await rt.start(diary, delay=timedelta(hours=5))
        assert (await run.result()).output[0] == begin + timedelta(hours=5)


async def test_waiting_has_a_limit_in_the_same_time() -> None:
    async with runtime(app) as rt:
        begin = rt.clock.now()
        run = await rt.start(nap, 3)
        with pytest.raises(WaitTimeout, match="it is waiting"):
            await run.result(timeout=60)
        with pytest.raises(WaitTimeout, match="has asked nothing after 30 s"):
            await run.question(timeout=30)
        assert rt.clock.now() - begin == timedelta(seconds=90)
        assert (await run.result(timeout=DAYS)).ok


async def test_a_person_who_is_waiting_for_the_question_answers_before_its_time_is_over() -> None:
    async with runtime(app) as rt:
        begin = rt.clock.now()
        run = await rt.start(consent)

        async def person() -> None:
            await (await run.question()).answer(True)

        result, _ = await asyncio.gather(run.result(), person())
        assert result.output is True
        assert rt.clock.now() == begin


async def test_without_an_answer_the_time_of_the_question_passes() -> None:
    async with runtime(app) as rt:
        begin = rt.clock.now()
        assert (await rt.run(consent)).output is False
        assert rt.clock.now() - begin == DAYS


async def test_runs_that_wait_side_by_side_each_end_at_their_own_time() -> None:
    async with runtime(app) as rt:
        begin = rt.clock.now()
        runs = [await rt.start(nap, days) for days in (3, 1, 2)]
        ends = []
        for run in (runs[1], runs[2], runs[0]):
            await run.result()
            ends.append(rt.clock.now() - begin)
        assert ends == [timedelta(days=days) for days in (1, 2, 3)]


async def test_the_pause_between_two_tries_of_a_step_passes_at_once() -> None:
    flaky = App("flaky")
    moments: list[datetime] = []

    @flaky.agent(timeout=timedelta(days=1))
    async def patient(ctx: Context) -> str:
        return await ctx.step(knock, retry=Retry(max_attempts=3, first_delay=3600, max_delay=86400))

    async with runtime(flaky) as rt:

        def knock() -> str:
            moments.append(rt.clock.now())
            if len(moments) < 3:
                raise ConnectionError("nobody opens")
            return "open"

        assert (await rt.run(patient)).output == "open"
        assert rt.executed == ["knock"] * 3
        first, second = (later - earlier for earlier, later in pairwise(moments))
        assert timedelta() < first <= timedelta(hours=1)
        assert timedelta() < second <= timedelta(hours=2)
        assert rt.clock.now() == moments[-1]


async def test_a_run_that_sleeps_and_one_that_backs_off_do_not_stand_in_each_others_way() -> None:
    mixed = App("mixed")
    tries: list[timedelta] = []

    @mixed.agent
    async def both(ctx: Context) -> tuple[str, str]:
        return await ctx.gather(sleeper(ctx), ctx.step(stubborn, retry=Retry(max_attempts=4, first_delay=600)))

    async def sleeper(ctx: Context) -> str:
        await ctx.sleep(60)
        await ctx.sleep(3600)
        return "awake"

    async with runtime(mixed) as rt:
        begin = rt.clock.now()

        def stubborn() -> str:
            tries.append(rt.clock.now() - begin)
            if len(tries) < 4:
                raise ConnectionError
            return "done"

        assert (await rt.run(both)).output == ("awake", "done")
        assert tries == sorted(tries)
        assert rt.clock.now() - begin >= timedelta(seconds=3660)


async def test_a_run_uses_up_its_time_while_a_step_backs_off() -> None:
    limited = App("limited")

    @limited.agent(timeout=3600)
    async def hopeless(ctx: Context) -> None:
        await ctx.step(fail, retry=Retry(max_attempts=100, first_delay=1800, max_delay=86400))

    def fail() -> None:
        raise ConnectionError

    async with runtime(limited) as rt:
        begin = rt.clock.now()
        assert (await rt.run(hopeless)).status == "timed_out"
        assert timedelta(hours=1) <= rt.clock.now() - begin < timedelta(hours=1, seconds=1)


async def test_a_real_wait_of_a_step_is_waited_for_and_moves_no_clock() -> None:
    real = App("real")

    @real.agent
    async def calls(ctx: Context) -> str:
        await ctx.step(fetch)
        await asyncio.sleep(0.02)  # nobody should do this outside a step, and it must not disturb
        await ctx.step(compute)
        return "done"

    async def fetch() -> None:
        await asyncio.sleep(0.02)

    def compute() -> None:
        time.sleep(0.02)

    @real.agent
    async def later(ctx: Context) -> None:
        await ctx.sleep(1)

    async with runtime(real) as rt:
        begin = rt.clock.now()
        await rt.start(later, delay=3600)
        assert (await rt.run(calls)).output == "done"
        assert rt.clock.now() == begin


async def test_the_time_at_the_start_can_be_chosen_and_must_be_exact() -> None:
    with pytest.raises(InvalidDefinition, match="no time zone"):
        runtime(app, now=datetime(2026, 1, 1))  # noqa: DTZ001 - that is the mistake
    async with runtime(app) as rt:
        assert rt.clock.now() == datetime(2026, 1, 1, tzinfo=UTC)


async def test_everything_drawn_is_the_same_in_every_test() -> None:
    async def ids() -> list[str]:
        async with runtime(app) as rt:
            return [(await rt.start(nap, 1)).id for _ in range(3)]

    first = await ids()
    assert len(set(first)) == 3
    assert await ids() == first


async def test_without_deps_the_lifespan_of_the_app_gives_them() -> None:
    opened: list[str] = []

    @asynccontextmanager
    async def connect() -> AsyncGenerator[str]:
        opened.append("opened")
        yield "real"
        opened.append("closed")

    served = App("served", lifespan=connect)

    @served.agent
    async def tell(ctx: Context[str]) -> str:
        return ctx.deps

    async with runtime(served) as rt:
        assert (await rt.run(tell)).output == "real"
    assert opened == ["opened", "closed"]
    async with runtime(served, deps="fake") as rt:
        assert (await rt.run(tell)).output == "fake"
    assert opened == ["opened", "closed"]


async def test_leaving_the_runtime_takes_no_time_whatever_still_waits() -> None:
    began = time.monotonic()
    backing_off = App("backing-off")

    @backing_off.agent
    async def waits(ctx: Context) -> None:
        await ctx.step(fail, retry=Retry(max_attempts=5, first_delay=3600))

    def fail() -> None:
        raise ConnectionError

    async with runtime(backing_off) as rt:
        run = await rt.start(waits)
        await rt.clock.advance(0)
        assert (await run.refresh()).status == "running"
        await rt.drain()
        assert (await run.refresh()).status == "queued"
        with pytest.raises(Misuse, match="nothing works here"):
            await rt.crash()
        with pytest.raises(Stuck, match="is queued, and nobody executes it"):
            await run.result()
        await rt.start(waits)
    assert time.monotonic() - began < 10
