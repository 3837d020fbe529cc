"""What a storm's processes run: `program.py worker STORE EFFECTS` executes until it is killed; `submit STORE N` makes
N runs.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from pathlib import Path

from stepwell import App, Context, Runtime, StoreError
from stepwell.domain.errors import Busy

STEPS = 12
LEASE = 2.0
app = App("storm")


async def effect(run: int, step: int) -> int:
    """One effect outside the store, and a little work before its record."""
    line = f"{run} {step} {os.getpid()}\n".encode()
    fd = os.open(sys.argv[3], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(fd, line)
    finally:
        os.close(fd)
    await asyncio.sleep(random.Random(run * 100 + step).uniform(0.005, 0.04))
    return run * 1000 + step


@app.agent
async def stormy(ctx: Context, run: int) -> list[int]:
    return [await ctx.step(effect, run, step) for step in range(STEPS)]


async def work(store: str) -> None:
    async with Runtime(app, store=store, capacity=1, lease=LEASE):
        print("working", flush=True)
        await asyncio.Event().wait()


async def submit(store: str, n: int) -> None:
    """As a client does: an idempotency key per run, and again on any error."""
    async with Runtime(app, store=store, worker=False) as runtime:
        for number in range(n):
            while True:
                try:
                    run = await runtime.start(stormy, number, idempotency_key=f"run-{number}")
                    break
                except (StoreError, Busy):
                    await asyncio.sleep(0.05)
            print(run.id, flush=True)


def main() -> None:
    mode, store = sys.argv[1], sys.argv[2]
    if mode == "worker":
        Path(sys.argv[3]).touch(0o600)
        asyncio.run(work(store))
    else:
        asyncio.run(submit(store, int(sys.argv[3])))


if __name__ == "__main__":
    main()
