"""A program that passes every crash point: run by the kill tests in a process of its own, killed, and run again.

    workload.py MODE STORE EFFECTS

Each executed step appends one line to the file EFFECTS, outside the store. MODE `all` starts (or finds, by its
idempotency key) one run and prints its output; `hold` does the same for a run that stops in doubt; `resume` settles
that doubt and waits for the end. `people` starts runs that wait for others, and does what others do: it sends, answers,
cancels, pauses, resumes, discards and deletes. Each of these may have been done by a process that was killed.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from contextlib import suppress
from pathlib import Path

from stepwell import AlreadyAnswered, App, Conflict, Context, NotExecuted, NotFound, Retry, Run, Runtime, StepContext

MODE, STORE, EFFECTS = sys.argv[1], sys.argv[2], Path(sys.argv[3])
BIG = 400_000
app = App("workload")
runtime = Runtime(app, store=STORE, lease=1)


def note(effect: str) -> int:
    """Leave a trace that no crash takes back; returns how often this effect has happened."""
    with EFFECTS.open("ab") as log:
        log.write(f"{effect}\n".encode())
    return EFFECTS.read_text().split().count(effect)


def plain(name: str) -> str:
    note(name)
    return name.upper()


async def stubborn(name: str) -> str:
    if note(f"{name}-try") == 1:
        raise ConnectionError("the first try always fails")
    return name


async def charge(step: StepContext, amount: int) -> str:
    note(f"charge-{step.idempotency_key}")
    return f"charged {amount}"


async def find_charge(step: StepContext, amount: int) -> str:
    if f"charge-{step.idempotency_key}" not in EFFECTS.read_text().split():
        raise NotExecuted
    return f"charged {amount}"


async def big() -> str:
    note("big")
    return "b" * BIG


async def heartbeats() -> int:
    """Until the heartbeat of this process has come round once more."""
    before = await beaten_at()
    while await beaten_at() == before:
        await asyncio.sleep(0.01)
    return note("heartbeats")


async def beaten_at() -> int:
    (worker,) = [worker for worker in await runtime.workers.list() if worker.pid == os.getpid()]
    return worker.heartbeat_at


@app.agent
async def everything(ctx: Context, name: str) -> dict[str, object]:
    first = await ctx.restore(str)
    if first is None:
        first = await ctx.step(plain, name)
        await ctx.step(stubborn, "stubborn", retry=Retry(3, first_delay=0.001))
        await ctx.step(charge, 42, in_doubt=find_charge)
        await ctx.emit("progress", {"done": 3})
        await ctx.artifact("note.txt", "kept\n" * 100)
        await ctx.step(heartbeats)
        await ctx.checkpoint(first)
    rest = await ctx.map(plain, ["x", "y", "z"], key=str, limit=1)
    pair = await ctx.gather(ctx.step(plain, "left"), ctx.step(plain, "right"))
    size = len(await ctx.step(big))
    return {"first": first, "rest": rest, "pair": list(pair), "size": size}


@app.agent
async def doubtful(ctx: Context, name: str) -> str:
    return await ctx.step(plain_async, name, in_doubt="fail")


async def plain_async(name: str) -> str:
    note(name)
    return name.upper()


# ------------------------------------------------------------ runs that wait for others


@app.agent
async def child(ctx: Context, name: str) -> str:
    return await ctx.step(plain, name)


@app.agent
async def meeting(ctx: Context) -> dict[str, object]:
    early = await ctx.wait_for("early", int, timeout=0.01, default=0)
    talk = await ctx.gather(ctx.wait_for("go", int), ctx.ask("Well?", bool), ctx.call(child, "called"))
    beside = await ctx.spawn(child, "spawned", key="beside")
    await ctx.session.state.update("meetings", lambda before: (before or 0) + 1)
    await ctx.session.add("user", "hello")
    met = await ctx.session.state.get("meetings", int)
    return {"early": early, "talk": list(talk), "beside": (await beside.result()).output, "met": met}


@app.agent
async def endless(ctx: Context) -> None:
    await ctx.wait_for("never")


@app.agent(retry=Retry(1))
async def doomed(ctx: Context) -> None:
    raise ValueError("no good")


async def people() -> dict[str, object]:
    """What somebody outside does to runs, each thing if it was not done before."""
    run = await runtime.start(meeting, session="room", idempotency_key="meeting")
    victim = await runtime.start(endless, idempotency_key="victim")
    sleeper = await runtime.start(endless, idempotency_key="sleeper")
    dead = await runtime.start(doomed, idempotency_key="doomed")
    await victim.cancel(by="test")
    await pause_and_resume(sleeper)
    await sleeper.cancel(by="test")
    with suppress(AlreadyAnswered, Conflict):
        await run.signal("go", 7, id="one")
        await (await run.question(timeout=20)).answer(True, by="test")
    await dead.result(timeout=20)
    with suppress(Conflict):
        await runtime.runs.discard(dead.id, by="test")
    result = await run.result(timeout=30)
    with suppress(NotFound):
        await runtime.sessions.delete("room")
    return {
        "output": result.output,
        "victim": (await victim.result(timeout=20)).status,
        "sleeper": (await sleeper.result(timeout=20)).status,
        "dead": (await dead.refresh()).dead,
    }


async def pause_and_resume(run: Run[None]) -> None:
    with suppress(Conflict):
        if (await run.refresh()).status != "paused":
            await run.pause(by="test")
        while (await run.refresh()).status != "paused":
            await asyncio.sleep(0.01)
        await run.resume(by="test")


async def main() -> None:
    async with runtime:
        if MODE == "people":
            print(json.dumps(await people()))
            return
        agent = everything if MODE == "all" else doubtful
        run = await runtime.start(agent, "one", idempotency_key="the run")
        if MODE == "resume" and (await run.refresh()).status == "in_doubt":
            await run.resume(verdict="done", result="SETTLED", by="test")
        if MODE == "hold":
            while (await run.refresh()).status != "in_doubt":
                await asyncio.sleep(0.01)
            print(json.dumps({"run": run.id, "status": "in_doubt"}))
            return
        result = await run.result(timeout=30)
        print(json.dumps({"run": run.id, "output": result.output}))


if __name__ == "__main__":
    os.umask(0o077)
    asyncio.run(main())
