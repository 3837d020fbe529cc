"""A worker of its own process: `program.py FOLDER CAPACITY [BUG]` executes runs, and is stopped in the middle.

Each run comes to a place and stays there in the worker that brings it there first, until somebody has stopped that
process, let it go on, and said so. Whoever executes the run later passes the place. What is done outside the store is
noted in FOLDER/log with the time of CLOCK_BOOTTIME. BUG plants one, to show that it is found.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path

import apsw

from stepwell import App, Context, Runtime
from stepwell.domain import transitions
from stepwell.engine.heartbeat import Heart
from stepwell.ports import crash_point

LEASE = 1.5
STAYING = ("step", "thread", "wait", "stream", "before", "return")
"""Places at which a run stays until it is let go: inside of a try, in a step's thread, in a wait, while it streams
text, before it calls a step, and before it returns.
"""
STOPPING = ("stop before", "stop after try", "stop in thread", "stop before return")
"""Places at which a run stops its process by itself, in the very moment, once all others are where they stay."""
app = App("zombies")
_folder: ContextVar[Path] = ContextVar("folder")
_stopping: set[str] = set()


def store_of(folder: Path) -> str:
    """The URL of the store."""
    return f"sqlite:///{folder / 'zombies.db'}"


def note(what: str, run: str, step: str) -> None:
    """Leave a line outside the store."""
    moment = time.clock_gettime(time.CLOCK_BOOTTIME)
    fd = os.open(_folder.get() / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(fd, f"{what} {run} {step} {os.getpid()} {moment:.6f}\n".encode())
    os.close(fd)


def is_first(run: str) -> bool:
    """Whether the run comes to its place for the first time."""
    try:
        os.close(os.open(_folder.get() / f"at-{run}", os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        return False
    note("place", run, "-")
    return True


def may_go(round: str) -> bool:
    """Whether the round's processes have been stopped and let go."""
    return (_folder.get() / f"go-{round}").exists()


def are_there(round: str) -> bool:
    """Whether all of a round that stay somewhere are there."""
    return (_folder.get() / f"there-{round}").exists()


async def stay(round: str) -> None:
    while not may_go(round):
        await asyncio.sleep(0.005)


async def effect(run: str, step: str) -> int:
    """Something that is done outside the store."""
    note("effect", run, step)
    await asyncio.sleep(0)
    return os.getpid()


async def staying(run: str, round: str) -> int:
    note("effect", run, "staying")
    if is_first(run):
        await stay(round)
    return os.getpid()


def staying_thread(run: str, round: str) -> int:
    note("effect", run, "staying")
    if is_first(run):
        while not may_go(round):
            time.sleep(0.005)
    return os.getpid()


async def stop_when_all_are_there(run: str, round: str) -> None:
    while not are_there(round):
        await asyncio.sleep(0.005)
    note("stop", run, "-")


def stop() -> None:
    """Stop this process, as somebody outside would: no thread of it goes on until it gets SIGCONT.

    Not while a thread of it writes to the store, as far as one sees: that would stop everybody.
    """
    db = apsw.Connection(str(_folder.get() / "zombies.db"))
    db.set_busy_timeout(5000)
    db.execute("BEGIN IMMEDIATE")
    db.execute("ROLLBACK")
    db.close()
    os.kill(os.getpid(), signal.SIGSTOP)


async def stop_after(run: str, round: str) -> int:
    """Its process is stopped between this try and its record."""
    note("effect", run, "staying")
    if is_first(run):
        await stop_when_all_are_there(run, round)
        _stopping.add("step.after_function")
    return os.getpid()


def stop_within(run: str, round: str) -> int:
    note("effect", run, "staying")
    if is_first(run):
        while not are_there(round):
            time.sleep(0.005)
        note("stop", run, "-")
        stop()
    return os.getpid()


def at_crash_point(name: str) -> None:
    if name in _stopping:
        _stopping.discard(name)
        stop()


@app.agent
async def zombie(ctx: Context, where: dict[str, str]) -> list[int]:
    """Does a step, comes to its place, and does two more; everything that it writes tells which process did it."""
    _folder.set(Path(where["folder"]))
    run, place, round = ctx.run.id, where["place"], where["round"]
    note("attempt", run, "-")
    done = [await ctx.step(effect, run, "first")]
    await come_to(ctx, place, run, round)
    if place in ("return", "stop before return"):
        return done
    done.append(await ctx.step(effect, run, "second"))
    if where["slow"] == "yes":  # the heir is still at it when the other process goes on
        await stay(round)
    done.append(await ctx.step(effect, run, "third"))
    return done


@app.agent(timeout=4 * LEASE)
async def limited(ctx: Context, where: dict[str, str]) -> list[int]:
    """Comes to its place, and does a step. It may take no longer than four leases."""
    _folder.set(Path(where["folder"]))
    await come_to(ctx, where["place"], ctx.run.id, where["round"])
    return [await ctx.step(effect, ctx.run.id, "last")]


async def come_to(ctx: Context, place: str, run: str, round: str) -> None:
    match place:
        case "step":
            await ctx.step(staying, run, round)
        case "thread":
            await ctx.step(staying_thread, run, round)
        case "wait":
            await ctx.gather(ctx.wait_for("go", int), ctx.step(staying, run, round))
        case "stream":
            first = is_first(run)
            while first and not may_go(round):
                await ctx.stream_text(f"{os.getpid()} ")
                await asyncio.sleep(0.02)
            await ctx.stream_text(f"{os.getpid()} ")
        case "before" | "return":
            if is_first(run):
                await stay(round)
        case "stop before" | "stop before return":
            if is_first(run):
                await stop_when_all_are_there(run, round)
                stop()
        case "stop after try":
            await ctx.step(stop_after, run, round)
        case "stop in thread":
            await ctx.step(stop_within, run, round)


def _plant_no_self_stop() -> None:
    Heart.certain = lambda self: True  # type: ignore[method-assign]


def _plant_no_fence() -> None:
    transitions.refusal = lambda life, fence: None


def _plant_stopped_time() -> None:
    Heart.in_force = lambda self: self._clock.elapsed()  # type: ignore[method-assign]


BUGS: dict[str, Callable[[], None]] = {
    "no self-stop": _plant_no_self_stop,
    "no fence": _plant_no_fence,
    "stopped time": _plant_stopped_time,
}


async def main() -> None:
    folder, capacity, *bugs = sys.argv[1:]
    for bug in bugs:
        BUGS[bug]()
    crash_point.install(at_crash_point)
    async with Runtime(app, store=store_of(Path(folder)), capacity=int(capacity), lease=LEASE):
        print("working", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
