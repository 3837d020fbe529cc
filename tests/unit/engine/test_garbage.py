"""A run that has ended leaves nothing behind that only the garbage collector could free."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Iterator

import pytest

from stepwell import App, Context, Runtime

app = App("garbage")
RUNS = 20


async def same(value: int) -> int:
    return value


@app.agent
async def busy(ctx: Context, value: int) -> int:
    left, right = await ctx.gather(ctx.step(same, value), ctx.step(same, value))
    return sum(await ctx.map(same, [left, right], key=str if left != right else None))


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
