"""The clock that is moved by hand."""

import asyncio

import pytest

from stepwell.testing.clock import START, ManualClock


async def settled() -> None:
    """Let every task that can run do so."""
    for _ in range(3):
        await asyncio.sleep(0)


def test_both_scales_move_with_time_and_the_wall_clock_alone_with_a_jump() -> None:
    clock = ManualClock()
    assert (clock.now(), clock.elapsed()) == (START, 0)
    clock.advance(1.5)
    assert (clock.now(), clock.elapsed()) == (START + 1_500_000, 1.5)
    clock.jump(-3600)
    assert (clock.now(), clock.elapsed()) == (START - 3_598_500_000, 1.5)


async def test_sleepers_wake_when_their_time_has_come_and_not_before() -> None:
    clock = ManualClock()
    woken: list[str] = []

    async def sleep(name: str, seconds: float) -> None:
        await clock.sleep(seconds)
        woken.append(name)

    async with asyncio.TaskGroup() as tasks:
        for name, seconds in {"late": 20.0, "soon": 10.0, "soon too": 10.0, "at once": 0.0}.items():
            tasks.create_task(sleep(name, seconds))
        await settled()
        assert woken == ["at once"]
        clock.jump(3600)
        clock.advance(9.9)
        await settled()
        assert woken == ["at once"]
        clock.advance(0.1)
        await settled()
        assert woken == ["at once", "soon", "soon too"]
        clock.advance(10)
    assert woken == ["at once", "soon", "soon too", "late"]


async def test_a_sleeper_that_was_cancelled_disturbs_nobody() -> None:
    clock = ManualClock()
    cancelled, patient = asyncio.create_task(clock.sleep(1)), asyncio.create_task(clock.sleep(1))
    await settled()
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    clock.advance(1)
    await patient


async def test_it_tells_when_the_next_sleeper_wakes_and_wakes_it_then() -> None:
    clock = ManualClock()
    assert clock.next_wake() is None
    first, second = asyncio.create_task(clock.sleep(0.1)), asyncio.create_task(clock.sleep(0.3))
    await settled()
    clock.advance(0.05)
    assert clock.next_wake() == 50_000
    first.cancel()
    await settled()
    wake = clock.next_wake()
    assert wake == 250_000
    clock.advance_by(wake)
    await second
    assert clock.next_wake() is None
