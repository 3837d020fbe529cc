"""A run that has ended leaves nothing behind that only the garbage collector could free."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Iterator

import pytest

from stepwell import App, Context, Runtime
from stepwell.domain import event
from tests.unit.engine.lives import Lives

app = App("garbage")
RUNS = 20


async def same(value: int) -> int:
    return value


@app.agent
async def busy(ctx: Context, value: int) -> int:
    left, right = await ctx.gather(ctx.step(same, value), ctx.step(same, value))
    return sum(await ctx.map(same, [left, right], key=str if left != right else None))


@app.agent
async def waiting(ctx: Context) -> None:
    await ctx.gather(ctx.sleep(0.001), ctx.wait_for("go", timeout=0.002, default=None))
    await ctx.wait_for("go")
    await ctx.gather(ctx.ask("Well?", bool), ctx.wait_for("go"))


@pytest.fixture
def kept_garbage() -> Iterator[list[object]]:
    """What the collector finds while it may not run by itself."""
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    yield gc.garbage
    gc.set_debug(0)
    gc.garbage.clear()
    gc.enable()


async def test_runs_leave_no_cycles_behind(kept_garbage: list[object]) -> None:
    async with Runtime(app, store="memory://") as runtime:
        await runtime.run(busy, 1)
        gc.collect()
        kept_garbage.clear()
        for number in range(RUNS):
            await runtime.run(busy, number)
        gc.collect()
        found = Counter(type(thing).__name__ for thing in kept_garbage)
    assert sum(found.values()) < RUNS, f"cycles of {found.most_common(8)}"


async def test_nor_do_those_that_wait_and_are_parked(kept_garbage: list[object]) -> None:
    lives = Lives(app)
    async with lives.working():
        for number in range(RUNS + 1):
            run = await lives.submit(waiting)
            for count in (1, 2):
                await lives.has(run, event.RUN_WAITING, count)
                await lives.signal(run, "go")
            await lives.answer(run, True)
            await lives.settled(run)
            if number == 0:
                gc.collect()
                kept_garbage.clear()
        gc.collect()
        found = Counter(type(thing).__name__ for thing in kept_garbage)
    assert (await lives.record(run)).life.status == "succeeded"
    assert sum(found.values()) < RUNS, f"cycles of {found.most_common(8)}"
