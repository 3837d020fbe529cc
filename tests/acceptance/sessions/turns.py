"""A worker of its own process: `turns.py STORE` executes runs that take turns in their session, with children that
outlast them.
"""

from __future__ import annotations

import asyncio
import random
import sys
from typing import NamedTuple

from stepwell import App, Context, Runtime

LEASE = 2.0
HOW = ("steps", "call", "leave", "leave", "give up", "nest")
app = App("turns")


class Job(NamedTuple):
    """What a run is to do: its number, and how it goes about its children."""

    number: int
    how: str = "steps"


async def work(number: int, step: int) -> int:
    await asyncio.sleep(random.Random(number * 10 + step).uniform(0.001, 0.02))
    return step


@app.agent(session="synchronized")
async def turn(ctx: Context, job: Job) -> int:
    await ctx.step(work, job.number, 0)
    match job.how:
        case "call":
            await ctx.call(helper, job.number)
        case "leave":
            await ctx.spawn(helper, job.number)
            await ctx.spawn(nested, job.number)
            await ctx.step(work, job.number, 1)
        case "give up":
            await ctx.spawn(helper, job.number)
            await ctx.ask("Go on?", bool, timeout=0.4, default=True, release=True)
        case "nest":
            await ctx.call(nested, job.number)
    return await ctx.step(work, job.number, 2)


@app.agent
async def helper(ctx: Context, number: int) -> int:
    for step in range(3, 8):
        await ctx.step(work, number, step)
    return number


@helper.on_cancel
async def tidy(ctx: Context) -> None:
    for step in range(8, 10):
        await ctx.step(work, 1, step)


@app.agent(session="synchronized")
async def nested(ctx: Context, number: int) -> int:
    await ctx.step(work, number, 9)
    return await ctx.call(helper, number)


async def main() -> None:
    async with Runtime(app, store=sys.argv[1], capacity=10, lease=LEASE):
        print("working", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
