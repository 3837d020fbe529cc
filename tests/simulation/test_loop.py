"""The loop of the simulation: time is a number, order is drawn, the dead do nothing."""

import asyncio
from asyncio import sleep as pass_time  # of the time of the loop, which costs none
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from tests.simulation.loop import SimulatedLoop

Main = Callable[[SimulatedLoop, list[str]], Coroutine[Any, Any, None]]


def simulated(main: Main, seed: int = 0, *, shuffle: bool = True) -> list[str]:
    """What a program noted."""
    loop, noted = SimulatedLoop(seed, shuffle=shuffle), list[str]()
    loop.simulate(main(loop, noted))
    return noted


async def _note_thrice(noted: list[str], name: str) -> None:
    for _ in range(3):
        noted.append(name)
        await pass_time(0)


async def _side_by_side(loop: SimulatedLoop, noted: list[str]) -> None:
    await asyncio.gather(*[_note_thrice(noted, name) for name in "abc"])


def test_the_seed_decides_the_order_of_tasks() -> None:
    orders = {"".join(simulated(_side_by_side, seed)) for seed in range(50)}
    assert len(orders) > 25
    assert "".join(simulated(_side_by_side, 7)) == "".join(simulated(_side_by_side, 7))


def test_without_a_seed_s_order_tasks_take_turns_as_in_a_real_loop() -> None:
    assert "".join(simulated(_side_by_side, 1, shuffle=False)) == "abcabcabc"


def test_plain_callbacks_keep_their_order() -> None:
    async def main(loop: SimulatedLoop, noted: list[str]) -> None:
        for number in range(20):
            loop.call_soon(noted.append, str(number))
        await pass_time(1)

    for seed in range(10):
        assert simulated(main, seed) == [str(number) for number in range(20)]


def test_time_passes_only_when_nothing_is_ready_and_costs_nothing() -> None:
    async def main(loop: SimulatedLoop, noted: list[str]) -> None:
        await pass_time(86_400)
        noted.append(str(loop.time()))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3600):
                await asyncio.get_running_loop().create_future()
        noted.append(str(loop.time()))

    assert simulated(main) == ["86400.0", "90000.0"]


def test_nothing_of_a_dead_process_is_executed_not_even_its_finally() -> None:
    async def doomed(noted: list[str]) -> None:
        try:
            noted.append("begun")
            await pass_time(1)
        except BaseException:
            noted.append("unwound")
            raise
        finally:
            noted.append("cleaned up")

    async def main(loop: SimulatedLoop, noted: list[str]) -> None:
        process = loop.add_process("doomed")
        with loop.within(process):
            loop.begin(doomed(noted))
        await pass_time(0.5)
        process.die()
        await pass_time(5)
        assert noted == ["begun"]

    simulated(main)


def test_a_process_that_is_held_does_later_what_it_missed() -> None:
    async def main(loop: SimulatedLoop, noted: list[str]) -> None:
        process = loop.add_process("stopped")
        process.hold(whole=True)
        loop.send(process, 1, lambda: noted.append(f"at {loop.time():g}"))
        await pass_time(3)
        process.go_on(whole=True)
        await pass_time(1)

    assert simulated(main) == ["at 3"]


def test_what_one_process_begins_belongs_to_it() -> None:
    async def sleeper(noted: list[str]) -> None:
        await pass_time(1)
        noted.append("awake")

    async def starter(noted: list[str]) -> None:
        await asyncio.create_task(sleeper(noted))

    async def main(loop: SimulatedLoop, noted: list[str]) -> None:
        process = loop.add_process("one")
        with loop.within(process):
            loop.begin(starter(noted))
        await pass_time(0.5)
        process.die()
        await pass_time(5)

    assert simulated(main) == []


def test_there_is_one_thread() -> None:
    async def main(loop: SimulatedLoop, noted: list[str]) -> None:
        with pytest.raises(RuntimeError, match="one thread"):
            await asyncio.to_thread(noted.append, "elsewhere")

    assert simulated(main) == []


def test_a_program_that_waits_for_nothing_is_halted() -> None:
    loop = SimulatedLoop(0)

    async def main() -> None:
        await loop.create_future()

    loop.simulate(main())
    assert loop.halted == "nothing can ever happen any more"
