"""The workloads, for Stepwell and for the ceiling. Each prints one JSON line; `python -m bench.workloads CONTESTANT
WORKLOAD FOLDER N CONCURRENCY`.

W1: durable runs of an agent that does nothing, N in all, so many submissions in flight. W2: runs of ten steps. W3: one
run at a time after idle gaps, from the call to the agent's first line.
"""

from __future__ import annotations

import asyncio
import json
import random
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from bench.ceiling import Ceiling, CeilingRuntime
from stepwell import App, Context, Runtime

RESULT = {"k": "x" * 100}
RESULT_TEXT = json.dumps(RESULT)
STEPS = 10
SLOTS = 200

app = App("bench")
started: dict[int, asyncio.Event] = {}
executed: list[int] = []


async def work() -> dict[str, str]:
    return RESULT


@app.agent
async def ten_steps(ctx: Context, n: int) -> int:
    for _ in range(STEPS):
        await ctx.step(work)
    return n


@app.agent
async def nothing(ctx: Context, n: int) -> int:
    executed.append(n)
    if n in started:
        started[n].set()
    return n


async def side_by_side(n: int, concurrency: int, one: Callable[[int], Awaitable[object]]) -> None:
    """Call `one` for 0..n-1, so many at a time."""
    numbers = iter(range(n))

    async def lane() -> None:
        for number in numbers:
            await one(number)

    await asyncio.gather(*(lane() for _ in range(concurrency)))


async def stepwell(workload: str, folder: Path, n: int, concurrency: int) -> dict[str, float]:
    """One measurement of Stepwell on a fresh file."""
    store = f"sqlite:///{folder}/stepwell.db"
    async with Runtime(app, store=store, capacity=SLOTS) as runtime:
        await runtime.run(nothing, -1)  # what is imported at first use is not what is measured
        await runtime.run(ten_steps, -1)
        if workload == "w3":
            return await _starts(n, lambda number: runtime.start(nothing, number))
        began = time.perf_counter()
        if workload == "w1":
            await side_by_side(n, concurrency, lambda number: runtime.start(nothing, number))
            while len(executed) <= n or (await runtime.report()).runs.get("succeeded", 0) <= n + 1:
                await asyncio.sleep(0.001)
            return {"per_second": n / (time.perf_counter() - began)}
        await side_by_side(n, concurrency, lambda number: runtime.run(ten_steps, number))
        return {"per_second": STEPS * n / (time.perf_counter() - began)}


async def ceiling(workload: str, folder: Path, n: int, concurrency: int) -> dict[str, float]:
    """The same measurement of the bare code."""
    store = Ceiling(folder)
    runtime = CeilingRuntime(store, SLOTS, started)
    if workload == "w3":
        return await _starts(n, runtime.start)
    if workload == "w1":
        began = time.perf_counter()
        await side_by_side(n, concurrency, runtime.start)
        while runtime.done < n:
            await asyncio.sleep(0.001)
        return {"per_second": n / (time.perf_counter() - began)}

    async def ten(number: int) -> None:
        await store.enqueue(number)
        for k in range(STEPS):
            await store.step(number, k, RESULT_TEXT)
        await store.finish(number)

    await ten(-1)
    began = time.perf_counter()
    await side_by_side(n, concurrency, ten)
    return {"per_second": STEPS * n / (time.perf_counter() - began)}


async def _starts(n: int, start: Callable[[int], Awaitable[object]]) -> dict[str, float]:
    latencies = []
    gaps = random.Random(1)
    for number in range(1, n + 1):
        await asyncio.sleep(0.02 + gaps.random() * 0.05)
        started[number] = asyncio.Event()
        began = time.perf_counter()
        call = asyncio.ensure_future(start(number))
        await started[number].wait()
        latencies.append((time.perf_counter() - began) * 1000)
        await call
    latencies.sort()
    return {"p50_ms": statistics.median(latencies), "p99_ms": latencies[int(len(latencies) * 0.99)]}


def main() -> None:
    """Run one measurement and print it."""
    contestant, workload, folder, n, concurrency = sys.argv[1:]
    measure = {"stepwell": stepwell, "ceiling": ceiling}[contestant]
    coroutine = measure(workload, Path(folder), int(n), int(concurrency))
    try:
        import uvloop
    except ImportError:
        print(json.dumps(asyncio.run(coroutine)))
    else:
        print(json.dumps(uvloop.run(coroutine)))


if __name__ == "__main__":
    main()
