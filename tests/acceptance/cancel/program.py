"""A worker of its own process: `program.py STORE` executes runs that are to be cancelled. Each leaves a file beside the
store when it has come to where it stays.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from itertools import count
from pathlib import Path

from stepwell import App, Context, Fail, Retry, Runtime, StepContext

CAPACITY = 8
HOUR = 3600
app = App("cancel")
elsewhere = App("elsewhere")
_ever_other = count()


def trace(run: str, word: str = "there") -> Path:
    """The file that tells what a run has come to."""
    return Path(sys.argv[1].removeprefix("sqlite:///")).parent / f"{run}.{word}"


async def same(number: int) -> int:
    return number


def plain(number: int) -> int:
    return number


async def endless(step: StepContext) -> None:
    trace(step.run.id).touch()
    await asyncio.Event().wait()


def obedient(step: StepContext) -> None:
    """Goes on until it is told to stop."""
    trace(step.run.id).touch()
    while not step.cancelled:
        time.sleep(0.002)


async def unclear() -> None:
    raise RuntimeError("who knows what has happened")


async def ever_other(number: int) -> int:
    return number


async def clean(step: StepContext) -> None:
    trace(step.run.id, "clean").touch()


async def stay(ctx: Context, how: str) -> None:
    """Come to a certain place and stay there."""
    match how:
        case "a step":
            await ctx.step(endless)
        case "a step in a thread":
            await ctx.step(obedient)  # type: ignore[call-arg, arg-type]  # typed for coroutine functions only
        case "its own code":
            trace(ctx.run.id).touch()
            await asyncio.Event().wait()
        case "a question":
            await ctx.ask("Go on?", bool)
        case "a sleep":
            await ctx.sleep(HOUR)
        case "a signal" | "a pause":
            await ctx.wait_for("go")
        case "several waits":
            await ctx.gather(ctx.ask("Go on?", bool), ctx.wait_for("go"), ctx.sleep(HOUR))
        case "a wait beside a step":
            await ctx.gather(ctx.wait_for("go"), ctx.step(endless))
        case "a failed attempt":
            raise Fail("not now", retryable=True, retry_after=HOUR)
        case "a doubt":
            await ctx.step(unclear, in_doubt="fail")
        case "a divergence":
            await ctx.step(ever_other, next(_ever_other))
            await ctx.wait_for("go")
        case "children":
            child = await ctx.spawn(subject, "a step")
            asking = ctx.call(subject, "a question")
            await ctx.gather(child.result(), asking, ctx.call(subject, "a grandchild"))
        case "a grandchild":
            await ctx.call(subject, "a step in a thread")
        case _:
            raise Fail(f"nobody knows {how}")


@app.agent(retry=Retry(5))
async def subject(ctx: Context, how: str) -> None:
    await ctx.step(same, 1)
    await stay(ctx, how)


@app.agent
async def hooked(ctx: Context, how: str) -> None:
    await ctx.step(same, 1)
    await stay(ctx, how)


@hooked.on_cancel
async def tidy(ctx: Context) -> None:
    await ctx.step(clean)


@app.agent(concurrency=1)
async def single(ctx: Context, how: str) -> None:
    await stay(ctx, how)


@elsewhere.agent
async def unserved(ctx: Context, how: str) -> None:
    await stay(ctx, how)


@app.agent
async def sprint(ctx: Context, steps: int) -> int:
    return sum([await ctx.step(same, number) for number in range(steps)])


@app.agent
async def chatty(ctx: Context, words: int) -> int:
    for number in range(words):
        await ctx.emit("word", number)
    return words


@app.agent
async def busy(ctx: Context, rounds: int) -> int:
    """A little of everything, for as long as it is left to."""
    for number in range(rounds):
        await ctx.step(plain, number)
        await ctx.gather(ctx.step(same, number), ctx.sleep(0.003))
        await ctx.call(sprint, 2)
        await ctx.session.state.set("round", number)
        await ctx.emit("round", number)
    return rounds


@sprint.on_cancel
@chatty.on_cancel
async def stand(ctx: Context) -> None:
    await ctx.step(clean)


@busy.on_cancel
async def wipe(ctx: Context) -> None:
    await ctx.step(clean)


_meeting = asyncio.Barrier(CAPACITY)


@app.agent
async def together(ctx: Context, number: int) -> list[int]:
    """Ends once every slot of the worker executes one of these; says how many tasks and step threads there are then."""
    await _meeting.wait()
    steps = [thread for thread in threading.enumerate() if thread.name.startswith("stepwell-step")]
    return [len(asyncio.all_tasks()), len(steps)]


async def main() -> None:
    async with Runtime(app, store=sys.argv[1], capacity=CAPACITY, lease=2):
        print("working", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
