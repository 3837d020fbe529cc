"""A worker of its own process: `program.py STORE EFFECTS` executes parents and their children until it is killed."""

from __future__ import annotations

import asyncio
import os
import random
import sys

from stepwell import App, Context, Runtime

LEASE = 2.0
CAPACITY = 20
app = App("children")


async def effect(child: int) -> int:
    """One effect outside the store, and a little work before its record."""
    line = f"{child} {os.getpid()}\n".encode()
    fd = os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(fd, line)
    finally:
        os.close(fd)
    await asyncio.sleep(random.Random(child).uniform(0.005, 0.03))
    return child


@app.agent
async def child(ctx: Context, number: int) -> int:
    await ctx.wait_for("go")
    return await ctx.step(effect, number)


@app.agent(children=1000)
async def parent(ctx: Context, count: int) -> list[int]:
    """Half of the children are called, half are spawned first and joined later: two joins."""
    spawned = [await ctx.spawn(child, number) for number in range(count // 2, count)]
    called = await ctx.gather(*[ctx.call(child, number) for number in range(count // 2)])
    joined = await ctx.gather(*[each.result() for each in spawned])
    return [*called, *[result.output for result in joined]]


async def main() -> None:
    async with Runtime(app, store=sys.argv[1], capacity=CAPACITY, lease=LEASE):
        print("working", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
