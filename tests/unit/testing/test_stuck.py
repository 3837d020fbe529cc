"""Tests that wait for what can never happen, and agents whose way depends on what they do not record."""

import itertools
import logging
import random
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from stepwell import App, Context, StepwellError
from stepwell.testing import Stuck, runtime

app = App("stuck")


@app.agent
async def consent(ctx: Context) -> bool:
    return await ctx.ask("May we?", bool, assignee="sales")


@app.agent
async def parcel(ctx: Context) -> str:
    return await ctx.wait_for("delivered", str)


@app.agent
async def parent(ctx: Context) -> bool:
    return await ctx.call(consent)


async def stuck(agent: str) -> Stuck:
    """What a test hears that waits for this agent in vain."""
    async with runtime(app) as rt:
        with pytest.raises(Stuck) as raised:
            await rt.run(agent)
    return raised.value


async def test_a_question_that_nobody_answers_is_named_with_what_to_do() -> None:
    error = await stuck("consent")
    assert error.code == "testing.stuck"
    assert "(consent) asks 'May we?' of sales (q_" in error.message
    assert "run.question()).answer(" in str(error)
    assert isinstance(error, AssertionError)
    assert isinstance(error, StepwellError)


async def test_a_signal_that_nobody_sends_is_named() -> None:
    error = await stuck("parcel")
    assert "(parcel) waits for the signal 'delivered'" in error.message
    assert "run.signal('delivered'" in str(error)


async def test_a_parent_names_its_child_and_the_child_what_it_waits_for() -> None:
    error = await stuck("parent")
    first, second, third = error.message.splitlines()
    assert first == "nothing can ever happen any more:"
    assert "(parent) waits for the end of its child run_" in second
    assert "(consent) asks 'May we?'" in third
    assert second.split()[-1] in third


async def test_a_run_that_waits_for_a_question_that_comes_never_is_stuck_too() -> None:
    async with runtime(app) as rt:
        run = await rt.start(parcel)
        with pytest.raises(Stuck, match="waits for the signal 'delivered'"):
            await run.question()
        await run.signal("delivered", "today")
        assert (await run.result()).output == "today"


async def test_a_paused_run_is_stuck_even_if_others_have_plans() -> None:
    async with runtime(app) as rt:
        run = await rt.start(parcel)
        await rt.start(parcel, delay=3600)
        await rt.clock.advance(0)
        begin = rt.clock.now()
        await run.pause(by="ada")
        with pytest.raises(Stuck, match=r"\(parcel\) is paused by ada"):
            await run.result()
        assert rt.clock.now() == begin
        await run.resume()
        await run.signal("delivered", "today")
        assert (await run.result()).ok


async def test_a_step_in_doubt_says_how_it_is_settled() -> None:
    doubtful = App("doubtful")

    @doubtful.agent
    async def careful(ctx: Context) -> str:
        return await ctx.step(break_off, in_doubt="fail")

    def break_off() -> str:
        raise ConnectionError("the line is dead")

    async with runtime(doubtful) as rt:
        run = await rt.start(careful)
        with pytest.raises(Stuck, match=r"is held as in_doubt: .*the line is dead") as raised:
            await run.result()
        assert "verdict=" in str(raised.value)
        await run.resume(verdict="done", result="it went through")
        assert (await run.result()).output == "it went through"


async def test_a_run_that_stands_in_line_names_the_lane() -> None:
    held = App("held")

    @held.agent(session="synchronized")
    async def turn(ctx: Context) -> str:
        return await ctx.wait_for("go", str)

    async with runtime(held) as rt:
        first = await rt.start(turn, session="s")
        second = await rt.start(turn, session="s")
        with pytest.raises(Stuck, match=r"\(turn\) stands in line: session s \(1 of 1 taken\)"):
            await second.result()
        await first.signal("go", "one")
        await second.signal("go", "two")
        assert [(await run.result()).output for run in (first, second)] == ["one", "two"]


async def test_a_run_that_goes_on_for_ever_beside_the_awaited_one_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stepwell.testing.pace._MOST_JUMPS", 50)
    endless = App("endless")

    @endless.agent
    async def clockwork(ctx: Context) -> None:
        while True:
            await ctx.sleep(60)

    @endless.agent
    async def waits(ctx: Context) -> str:
        return await ctx.wait_for("never", str)

    async with runtime(endless) as rt:
        await rt.start(clockwork)
        with pytest.raises(Stuck, match="time has jumped 50 times"):
            await rt.run(waits)


# ---------------------------------------------------------------- the same way every time


def say(text: str) -> str:
    return text


counter = itertools.count()


@pytest.fixture(autouse=True)
def _count_from_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "counter", itertools.count(1))


async def by_argument(ctx: Context) -> str:
    return await ctx.step(say, f"number {next(counter)}")


async def by_choice(ctx: Context) -> str:
    first = await ctx.step(say, "first")
    if next(counter) % 2:
        await ctx.step(say, "sometimes", name="sometimes")
    return await ctx.step(say, first, name="last")


async def by_count(ctx: Context) -> list[str]:
    return await ctx.map(say, [str(number) for number in range(next(counter) % 2 + 1)])


async def by_branch(ctx: Context) -> tuple[str, str]:
    return await ctx.gather(ctx.step(say, "steady"), ctx.step(say, str(next(counter)), name="other"))


@pytest.mark.parametrize("agent", [by_argument, by_choice, by_count, by_branch])
async def test_an_agent_that_goes_another_way_when_it_is_repeated_fails_the_test(
    agent: Callable[[Context], Coroutine[Any, Any, Any]],
) -> None:
    unsteady = App("unsteady")
    unsteady.agent(agent)
    async with runtime(unsteady) as rt:
        run = await rt.start(agent.__name__)
        with pytest.raises(Stuck, match=r"is held as diverged: at 0[0-9./]* the journal has") as raised:
            await run.result()
        assert "put what is different each time into a step" in str(raised.value)
        assert (await run.refresh()).status == "diverged"


async def test_without_replays_only_a_wait_or_a_crash_finds_it() -> None:
    unsteady = App("unsteady")
    unsteady.agent(by_argument)
    async with runtime(unsteady, replay_every_step=False) as rt:
        assert (await rt.run("by_argument")).ok
        rt.crash_after("say")
        with pytest.raises(Stuck, match="diverged"):
            await rt.run("by_argument")


async def test_an_agent_that_draws_from_its_context_goes_the_same_way() -> None:
    steady = App("steady")

    @steady.agent
    async def dice(ctx: Context) -> list[str]:
        thrown = []
        for _ in range(5):
            number = ctx.random.randint(1, 6)
            thrown.append(await ctx.step(say, f"{number} at {ctx.now()} as {ctx.uuid()}"))
            if number > 3:
                await ctx.emit("high", {"number": number})
        await ctx.artifact("dice.txt", "\n".join(thrown))
        await ctx.sleep(random.random())
        return thrown

    async with runtime(steady) as rt:
        run = await rt.start(dice)
        assert len((await run.result()).output) == 5
        assert rt.executed == ["say"] * 5


async def test_a_repetition_writes_nothing_and_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    talking = App("talking")

    @talking.agent
    async def talker(ctx: Context) -> str:
        for number in range(3):
            await ctx.step(say, str(number))
            ctx.log.info("said %d", number)
            await ctx.emit("said", {"number": number})
            await ctx.stream_text(f"said {number}\n")
            await ctx.session.add("assistant", str(number))
            await ctx.session.state.update("count", lambda count: count + 1, default=0)
        beside = await ctx.spawn(listener)
        heard = await ctx.call(listener)
        return heard if (await beside.result()).ok else "nothing"

    @talking.agent
    async def listener(ctx: Context) -> str:
        return await ctx.step(say, "heard")

    async def kinds(*, replay_every_step: bool) -> list[str]:
        async with runtime(talking, replay_every_step=replay_every_step) as rt:
            run = await rt.start(talker)
            assert (await run.result()).output == "heard"
            assert rt.executed == ["say"] * 5
            assert "".join([part async for part in run.text()]) == "said 0\nsaid 1\nsaid 2\n"
            session = await rt.sessions.get(run.session_id)
            assert [message.text for message in await session.messages()] == ["0", "1", "2"]
            assert await session.state.get("count", int) == 3
            told = [event.kind async for event in run.events()]
            # How often it is parked, and which child is first, depends on threads.
            return sorted(kind for kind in told if kind not in ("run.waiting", "run.resumed", "text.delta"))

    with caplog.at_level(logging.INFO, logger="stepwell.run"):
        repeated = await kinds(replay_every_step=True)
        assert [record.getMessage() for record in caplog.records] == ["said 0", "said 1", "said 2"]
    assert repeated == await kinds(replay_every_step=False)


async def test_a_long_run_is_repeated_often_enough_and_not_too_often() -> None:
    long = App("long")
    begins = 0

    @long.agent
    async def loop(ctx: Context, bend: int) -> int:
        nonlocal begins
        begins += 1
        again = begins > 1
        for number in range(300):
            await ctx.step(say, "other" if number == bend and again else str(number))
        return begins

    async with runtime(long) as rt:
        assert 100 < (await rt.run(loop, -1)).output < 300
        begins = 0
        with pytest.raises(Stuck, match="diverged: at 0/250"):
            await rt.run(loop, 249)


async def test_an_agent_that_saves_checkpoints_is_repeated_from_the_last_one() -> None:
    saving = App("saving")

    @saving.agent
    async def counts(ctx: Context) -> int:
        done = await ctx.restore(int) or 0
        while done < 5:
            await ctx.step(say, str(done))
            await ctx.step(say, f"and {done}")
            done += 1
            await ctx.checkpoint(done)
        return done

    async with runtime(saving) as rt:
        assert (await rt.run(counts)).output == 5
        assert rt.executed == ["say"] * 10


async def test_an_agent_that_fails_after_its_last_step_fails_as_itself() -> None:
    failing = App("failing")

    @failing.agent
    async def unlucky(ctx: Context) -> None:
        await ctx.step(say, "one")
        raise ZeroDivisionError("as every time")

    async with runtime(failing) as rt:
        result = await rt.run(unlucky)
        assert result.error is not None
        assert result.error.type == "ZeroDivisionError"


async def test_an_agent_that_swallows_its_unwinding_does_not_hang_its_repetition() -> None:
    stubborn = App("stubborn")
    released = False

    @stubborn.agent
    async def swallows(ctx: Context) -> int:
        done = 0
        while done < 2 and not released:
            try:
                await ctx.step(say, "again")
                done += 1
            except BaseException:  # noqa: BLE001 - that is what makes it stubborn
                continue
        return done

    async with runtime(stubborn) as rt:
        assert (await rt.run(swallows)).output == 2
        assert rt.executed == ["say", "say"]
    released = True


async def test_steps_side_by_side_are_executed_once_each() -> None:
    wide = App("wide")

    @wide.agent
    async def many(ctx: Context) -> list[str]:
        return await ctx.map(say, [str(number) for number in range(40)], key=str, limit=4)

    async with runtime(wide) as rt:
        assert (await rt.run(many)).output == [str(number) for number in range(40)]
        assert sorted(rt.executed) == sorted(f"say:{number}" for number in range(40))
