"""A program with a step that runs in a process of its own.

    processes.py endless|exhausted STORE FILE

`endless`: the step writes its process id to FILE and never ends. `exhausted`: all file descriptors are taken while it
is to be started; the program prints with what the step failed, what a write of the store gives meanwhile, and what a
step gives when they are free again.
"""

from __future__ import annotations

import asyncio
import os
import resource
import sys
import time
from pathlib import Path

from stepwell import App, Context, Runtime, StepFailed

app = App("processes")


def stay(file: str) -> None:
    Path(file).write_text(f"{os.getpid()}\n")
    while True:
        time.sleep(0.05)


def work() -> str:
    return "done"


async def write() -> str:
    return "written"


@app.agent
async def endless(ctx: Context, file: str) -> None:
    await ctx.step(stay, file, run_in="process")


@app.agent
async def exhausted(ctx: Context, file: str) -> list[str]:
    told = []
    taken = take_all()
    try:
        await ctx.step(work, run_in="process")
    except StepFailed as error:
        told.append(error.error_type)
    told.append(await ctx.step(write))
    for descriptor in taken:
        os.close(descriptor)
    return [*told, await ctx.step(work, run_in="process")]


def take_all() -> list[int]:
    """Take every descriptor that there is."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128))
    taken = []
    while True:
        try:
            taken.append(os.dup(2))
        except OSError:
            return taken


async def main(mode: str, store: str, file: str) -> None:
    async with Runtime(app, store=store) as runtime:
        result = await runtime.run(mode, file)
        print(*result.output)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
