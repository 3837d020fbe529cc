"""A worker of its own process: `program.py STORE` executes runs that pass through lanes until it is killed."""

from __future__ import annotations

import asyncio
import random
import sys
from typing import NamedTuple

from stepwell import App, Context, Limit, Runtime

LEASE = 2.0
GLOBAL, AGENT = 8, 3
app = App("lanes", limit=GLOBAL)
free = App("free")


class Job(NamedTuple):
    """What a run is to do: its number, the key that it is counted under, and how it goes about it."""

    number: int
    key: str = ""
    how: str = "steps"


def key_of(job: Job) -> str:
    return job.key


async def work(number: int, step: int) -> int:
    await asyncio.sleep(random.Random(number * 10 + step).uniform(0.001, 0.01))
    return step


async def do(ctx: Context, job: Job) -> int:
    await ctx.step(work, job.number, 0)
    if job.how == "sleep":
        await ctx.sleep(0.4)
    elif job.how == "call":
        await ctx.call(inner, job)
    elif job.how == "turn":
        await ctx.call(turn, Job(job.number, job.key))
    await ctx.step(work, job.number, 1)
    return job.number


@app.agent
async def plain(ctx: Context, job: Job) -> int:
    return await do(ctx, job)


@app.agent(concurrency=AGENT)
async def narrow(ctx: Context, job: Job) -> int:
    return await do(ctx, job)


@app.agent(concurrency=Limit(1, key=key_of))
async def keyed(ctx: Context, job: Job) -> int:
    return await do(ctx, job)


@app.agent(session="synchronized")
async def turn(ctx: Context, job: Job) -> int:
    return await do(ctx, job)


@app.agent(session="synchronized")
async def through(ctx: Context, sessions: list[str]) -> list[str]:
    """Goes through sessions, one inside the other; returns where it was."""
    first, *rest = [*sessions, ""]
    inside = await ctx.call(through, rest[:-1], session=first) if first else []
    await ctx.step(work, len(sessions), 0)
    return [ctx.run.session_id, *inside]


@app.agent(concurrency=AGENT)
async def inner(ctx: Context, job: Job) -> int:
    """A child that passes through lanes of its own, while its parent waits."""
    return await ctx.step(work, job.number, 2)


@free.agent(concurrency=Limit(1, key=key_of))
async def saturated(ctx: Context, job: Job) -> int:
    return await ctx.step(work, job.number, 0)


@free.agent
async def unlimited(ctx: Context, number: int) -> int:
    return number


@free.agent(concurrency=2)
async def limited(ctx: Context, number: int) -> int:
    return number


async def main() -> None:
    async with Runtime(app, free, store=sys.argv[1], capacity=10, lease=LEASE):
        print("working", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
