"""A worker of its own process: `program.py STORE LOG [tomorrow]` executes runs that wait until it is killed. In
`tomorrow` its clock is a day ahead.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from stepwell import App, Context, Runtime
from stepwell.ports.system_clock import SystemClock

DAY = 24 * 3600
app = App("parked")


@app.agent
async def parked(ctx: Context, how: str) -> str:
    match how:
        case "ask":
            return await ctx.ask("What next?", str)
        case "sleep":
            await ctx.sleep(DAY / 2)
            return "rested"
        case _:
            return await ctx.wait_for("go", str)


async def same(number: int) -> int:
    return number


@app.agent
async def patient(ctx: Context, steps: int) -> list[int]:
    """Does many steps, waits for `a`, and then takes what came of `b`."""
    with open(sys.argv[2], "ab") as log:
        log.write(f"{ctx.run.id}\n".encode())
    for number in range(steps):
        await ctx.step(same, number)
    first = await ctx.wait_for("a", int)
    return [first, *[await ctx.wait_for("b", int) for _ in range(3)]]


@app.agent
async def quick(ctx: Context, number: int) -> int:
    return number


class Tomorrow(SystemClock):
    """Everything is a day later. How long things take is the same."""

    def now(self) -> int:
        return super().now() + DAY * 1_000_000


class Later(Runtime[Any]):
    """A runtime of the next day."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._clock = Tomorrow()


async def main() -> None:
    make = Later if sys.argv[3:] == ["tomorrow"] else Runtime
    async with make(app, store=sys.argv[1], capacity=250):
        print("working", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
