"""A worker of its own process: `program.py STORE LOG CAPACITY LEASE [importable]` executes runs, some of which end it.
With `importable` its app is one that another process can import, too.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import random
import sys
import time
from pathlib import Path

from stepwell import App, Context, Runtime

STEPS = 10
LOG = "STEPWELL_TEST_LOG"
app = App("poison")


def note(*words: object) -> None:
    """Leave a line outside the store."""
    fd = os.open(os.environ[LOG], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(fd, (" ".join(map(str, words)) + "\n").encode())
    os.close(fd)


async def work(run: int, step: int) -> int:
    await asyncio.sleep(random.Random(run * 100 + step).uniform(0.002, 0.008))
    note("effect", run, step)
    return step


def end_the_process(run: str) -> None:
    """What no handler sees: a segmentation fault in an extension, the kernel out of memory."""
    note("death", run, os.getpid(), time.time_ns() // 1000)
    os._exit(1)


async def fatal(run: str) -> None:
    end_the_process(run)


@app.agent
async def ordinary(ctx: Context, run: int) -> int:
    return sum([await ctx.step(work, run, step) for step in range(STEPS)])


@app.agent
async def poison(ctx: Context, where: str) -> None:
    if where == "agent":
        end_the_process(ctx.run.id)
    await ctx.step(work, -1, 0)
    await ctx.step(fatal, ctx.run.id)


async def slow(moments: int) -> int:
    for _ in range(moments):
        await asyncio.sleep(0.01)
    return moments


@app.agent
async def lasting(ctx: Context, moments: int) -> int:
    """Is in a step for so long, twice."""
    return await ctx.step(slow, moments) + await ctx.step(slow, moments)


async def gated(run: int) -> int:
    """Ends once the gate is open."""
    note("there", run)
    while not Path(os.environ[LOG]).with_name("gate").exists():
        await asyncio.sleep(0.005)
    return run


@app.agent
async def careful(ctx: Context, run: int) -> int:
    return await ctx.step(gated, run) + await ctx.step(gated, run)


async def main() -> None:
    async with Runtime(app, store=sys.argv[1], capacity=int(sys.argv[3]), lease=float(sys.argv[4])) as runtime:
        (worker,) = [worker.id for worker in await runtime.workers.list() if worker.pid == os.getpid()]
        note("worker", worker, os.getpid())
        print("working", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    os.environ[LOG] = sys.argv[2]
    if sys.argv[5:] == ["importable"]:
        sys.path.insert(0, str(Path(__file__).parent))
        asyncio.run(importlib.import_module("program").main())
    else:
        asyncio.run(main())
