"""No wake-up is lost: whatever arrives at whatever turn of the event loop between the opening of a wait and the parked
run, and wherever a process dies meanwhile, the run goes on, and each arrival counts once.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepwell.app import App
from stepwell.domain import event
from stepwell.domain.run import SUCCEEDED
from stepwell.ports.context import Context
from tests.unit.engine.interleavings import Arrival, Interleaving

TURNS = 20
"""An arrival comes at each of the first so many turns of the event loop."""


class Program:
    """An agent, what arrives for it, and what it returns in the end."""

    def __init__(self, arrivals: Sequence[Arrival], expected: Any, agent: Callable[..., Any]) -> None:
        self.app = App("test")
        self.app.agent(name="agent")(agent)
        self.app.agent(name="child")(_child)
        self.arrivals = arrivals
        self.expected = expected


async def _child(ctx: Context) -> str:
    return await ctx.step(_value, "child")


async def _value(value: str) -> str:
    return value


def signal(name: str, value: Any) -> Arrival:
    return lambda world: world.signal(name, value, id=str(value))


def answer(text: str, value: Any) -> Arrival:
    return lambda world: world.answer(text, value)


async def time_passes(world: Interleaving) -> None:
    world.clock.advance(60)


async def one(ctx: Context) -> Any:
    return await ctx.wait_for("a")


async def three(ctx: Context) -> Any:
    return [await ctx.wait_for("a") for _ in range(3)]


async def both(ctx: Context) -> Any:
    return list(await ctx.gather(ctx.wait_for("a"), ctx.wait_for("b")))


async def question(ctx: Context) -> Any:
    return await ctx.ask("Well?", int)


async def joined(ctx: Context) -> Any:
    return await ctx.gather(ctx.ask("One?", int), ctx.ask("Two?", int), ctx.call("child"))


async def working(ctx: Context) -> Any:
    async def branch(name: str) -> Any:
        got: Any = await ctx.wait_for(name)
        return await ctx.step(_value, got)

    first, second, rest = await ctx.gather(branch("a"), branch("b"), ctx.gather(ctx.sleep(5), ctx.step(_value, "x")))
    return [first, second, *rest]


async def spawning(ctx: Context) -> Any:
    child = await ctx.spawn("child")
    got: Any = await ctx.wait_for("a")
    return [got, (await child.result()).output]


async def in_tasks(ctx: Context) -> Any:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(ctx.ask(f"{name}?", int, key=name)) for name in ("One", "Two")]
    return [task.result() for task in tasks]


async def timed(ctx: Context) -> Any:
    first = await ctx.wait_for("a", Any, timeout=60, default=None)
    second = await ctx.wait_for("a", Any, timeout=0, default=None)
    found = [value for value in (first, second) if value is not None]
    while len(found) < 2:
        found.append(await ctx.wait_for("a"))
    return found


PROGRAMS = {
    "one": Program([signal("a", 1)], 1, one),
    "three": Program([signal("a", 1), signal("a", 1), signal("a", 2), signal("a", 3)], [1, 2, 3], three),
    "both": Program([signal("a", 1), signal("b", 2)], [1, 2], both),
    "question": Program([answer("Well?", 5)], 5, question),
    "joined": Program([answer("One?", 1), answer("Two?", 2)], [1, 2, "child"], joined),
    "working": Program([signal("b", "y"), signal("a", "z")], ["z", "y", None, "x"], working),
    "spawning": Program([signal("a", 1)], [1, "child"], spawning),
    "in_tasks": Program([answer("One?", 1), answer("Two?", 2)], [1, 2], in_tasks),
    "timed": Program([signal("a", 1), time_passes, signal("a", 2)], [1, 2], timed),
}

schedules = st.lists(st.integers(0, 3), min_size=1, max_size=7)
crashes = st.none() | st.integers(1, 24)


async def check(world: Interleaving, life: Any, program: Program) -> None:
    """It succeeded with what it had to return; its journal has no gap; nothing was taken twice."""
    assert life.status == SUCCEEDED, await world.store.last_entry(world.run_id, [event.RUN_FAILED, event.RUN_HELD])
    journal = await world.store.journal(world.run_id, limit=10_000)
    assert [entry.seq for entry in journal] == list(range(1, len(journal) + 1))
    output = world.runnables["agent"].decode_output(journal[-1].data)["output"]
    assert output == program.expected
    opened = sum(entry.kind == event.WAIT_OPENED for entry in journal)
    closed = sum(entry.kind == event.WAIT_CLOSED for entry in journal)
    assert closed <= opened
    assert world.claims <= 4 + 2 * len(program.arrivals) + opened, "the run is woken for nothing, again and again"


@pytest.mark.parametrize("name", PROGRAMS)
@settings(max_examples=60, deadline=None)
@given(schedule=schedules, gaps=st.lists(st.integers(-6, 6), min_size=4, max_size=4), die_at=crashes)
async def test_every_arrival_at_every_turn_is_heard_once(
    name: str, schedule: list[int], gaps: list[int], die_at: int | None
) -> None:
    program = PROGRAMS[name]
    for turn in range(TURNS):
        world = Interleaving(program.app, schedule=schedule, die_at=die_at)
        moments = [max(0, turn + gap) for gap in gaps]
        if name in ("three", "timed"):  # their arrivals are told apart by their order
            moments.sort()
        run = await world.run(list(zip(moments, program.arrivals, strict=False)))
        await check(world, run.life, program)
