"""A worker of its own process: `shared.py STORE LOG` executes runs until it is told to stop, and notes who executed
what.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys

from stepwell import App, Context, Runtime

STORE, LOG = sys.argv[1], sys.argv[2]
app = App("shared")


async def note(run: int, step: int) -> int:
    with open(LOG, "ab") as log:
        log.write(f"{run} {step} {os.getpid()}\n".encode())
    return step


@app.agent
async def shared(ctx: Context, run: int) -> int:
    return sum([await ctx.step(note, run, step) for step in range(3)])


async def main() -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with Runtime(app, store=STORE, capacity=4):
        sys.stdout.write("working\n")
        sys.stdout.flush()
        await stop.wait()


if __name__ == "__main__":
    asyncio.run(main())
