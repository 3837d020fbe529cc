"""A worker of its own process whose wall clock is not the machine's: `program.py STORE FOLDER [BUG]` executes runs.

How many seconds its wall clock is ahead stands in FOLDER/ahead, and may change at any moment. All that the process asks
for the wall time is answered so, whoever asks and however; scales that never jump are the machine's. BUG plants one,
to show that it is found.
"""

from __future__ import annotations

import asyncio
import datetime as datetimes
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

_time, _time_ns, _gettime, _gettime_ns = time.time, time.time_ns, time.clock_gettime, time.clock_gettime_ns
_datetime = datetimes.datetime


def fake_the_wall_clock(ahead: Path) -> None:
    """Answer every question for the wall time of this process with another one."""

    def offset() -> float:
        return float(ahead.read_text() or 0)

    class Datetime(_datetime):
        @classmethod
        def now(cls, tz: datetimes.tzinfo | None = None) -> Any:
            return cls.fromtimestamp(_time() + offset(), tz)

        @classmethod
        def utcnow(cls) -> Any:
            return cls.now(datetimes.UTC).replace(tzinfo=None)

    time.time = lambda: _time() + offset()
    time.time_ns = lambda: _time_ns() + round(offset() * 1_000_000_000)
    time.clock_gettime = lambda clock: time.time() if clock == time.CLOCK_REALTIME else _gettime(clock)
    time.clock_gettime_ns = lambda clock: time.time_ns() if clock == time.CLOCK_REALTIME else _gettime_ns(clock)
    datetimes.datetime = Datetime  # type: ignore[misc]


if __name__ == "__main__":
    fake_the_wall_clock(Path(sys.argv[2]) / "ahead")

from stepwell import App, Context, Retry, Runtime  # noqa: E402 - they are to see the other clock

LEASE = 3.0
SHORT = 1.5
"""Seconds that a delay takes."""
LONG = 5.0
"""Seconds that a long one takes: the clock jumps, and jumps back, while it lasts."""
LONG_WAYS = ("long sleep", "long ask", "long wait for")
WAYS = ("sleep", "sleep until", "ask", "wait for", "signal", "step retry", "run retry", "at work")
app = App("clock")
_tries: dict[str, int] = {}


def note(what: str, run: str) -> None:
    """Leave a line outside the store, with a time that never jumps."""
    fd = os.open(Path(sys.argv[2]) / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(fd, f"{what} {run} {os.getpid()} {time.monotonic():.6f}\n".encode())
    os.close(fd)


async def effect(run: str, what: str) -> str:
    note(what, run)
    return what


async def lasting(run: str, what: str) -> str:
    """Goes on for longer than a lease."""
    note(what, run)
    for _ in range(25):
        await asyncio.sleep(LEASE / 20)
    return what


async def failing_first(run: str) -> str:
    """Fails when it is tried for the first time."""
    note("try", run)
    _tries[run] = _tries.get(run, 0) + 1
    if _tries[run] == 1:
        raise ConnectionError("the first try fails")
    return "done"


@app.agent(retry=Retry(3, first_delay=SHORT, max_delay=SHORT))
async def waiting(ctx: Context, how: str) -> str:
    """Waits in one way, and has one effect before and one after."""
    run = ctx.run.id
    await ctx.step(effect, run, "before")
    length = LONG if how in LONG_WAYS else SHORT
    match how.removeprefix("long "):
        case "sleep":
            await ctx.sleep(length)
        case "sleep until":
            await ctx.sleep_until(ctx.now() + datetimes.timedelta(seconds=SHORT))
        case "ask":
            await ctx.ask("Well?", str, timeout=length, default="nobody")
        case "wait for":
            await ctx.wait_for("go", int, timeout=length, default=0)
        case "signal":
            await ctx.wait_for("go", int)
        case "step retry":
            await ctx.step(failing_first, run, retry=Retry(3, first_delay=SHORT, max_delay=SHORT))
        case "run retry":
            note("attempt", run)
            if ctx.attempt == 1:
                raise ConnectionError("the first attempt fails")
        case "at work":
            await ctx.step(lasting, run, "long")
        case _:
            pass
    await ctx.step(effect, run, "after")
    return how


def _plant_wall_clock_leases() -> None:
    from stepwell.ports.system_clock import SystemClock

    SystemClock.elapsed = lambda self: self.now() / 1_000_000  # type: ignore[method-assign]


def _plant_making_up_for_good() -> None:
    from stepwell.domain import due
    from stepwell.domain.run import Lifecycle

    made_up = due.made_up

    def for_good(life: Lifecycle, now: int) -> Lifecycle | None:
        return life._replace(made_up=0) if life.made_up and life.timed_at <= now else made_up(life, now)

    due.made_up = for_good


def _plant_believing_the_clock() -> None:
    from stepwell.stores.sqlite.put_off import PutOff

    PutOff.is_possible = lambda self, connection, now: False  # type: ignore[method-assign]


BUGS: dict[str, Callable[[], None]] = {
    "wall-clock lease": _plant_wall_clock_leases,
    "put off": _plant_believing_the_clock,
    "brought forward": _plant_making_up_for_good,
}


async def main() -> None:
    store, _, *bugs = sys.argv[1:]
    for bug in bugs:
        BUGS[bug]()
    async with Runtime(app, store=store, capacity=16, lease=LEASE):
        print("working", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
