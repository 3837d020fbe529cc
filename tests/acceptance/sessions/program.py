"""A worker of its own process: `program.py STORE` executes runs that share what their session keeps."""

from __future__ import annotations

import asyncio
import sys
from functools import partial
from typing import NamedTuple

from pydantic import BaseModel

from stepwell import App, Context, Runtime

app = App("sessions")


class Move(NamedTuple):
    """What a run does with one key: "set" it, "add" to it, "get" it, or "say" a message."""

    verb: str
    key: str
    value: int


class Script(BaseModel):
    """What a run does, one after the other."""

    moves: list[Move]


def one_more(value: int) -> int:
    return value + 1


def plus(more: int, old: int | None) -> int:
    return more + (old or 0)


@app.agent
async def counting(ctx: Context, times: int) -> int:
    """Adds one to the session's count, so many times."""
    last = 0
    for _ in range(times):
        last = await ctx.session.state.update("count", one_more, default=0)
    return last


@app.agent(session="isolated")
async def alone(ctx: Context, times: int) -> list[int | str]:
    """The same, seen by nobody else; and what it sees of messages."""
    last: int = await ctx.session.state.get("count", int, default=0)
    for _ in range(times):
        last = await ctx.session.state.update("count", one_more, default=0)
    await ctx.session.add("user", ctx.run.id)
    return [last, *[message.text for message in await ctx.session.messages()]]


async def play(ctx: Context, script: Script) -> list[int | None]:
    seen: list[int | None] = []
    for verb, key, value in script.moves:
        match verb:
            case "set":
                await ctx.session.state.set(key, value)
            case "add":
                seen.append(await ctx.session.state.update(key, partial(plus, value)))
            case "get":
                seen.append(await ctx.session.state.get(key, int, default=-1))
            case _:
                await ctx.session.add("user", f"{key}:{value}")
    seen.append(len(await ctx.session.messages()))
    return seen


@app.agent
async def shared(ctx: Context, script: Script) -> list[int | None]:
    return await play(ctx, script)


@app.agent(session="synchronized")
async def in_turn(ctx: Context, script: Script) -> list[int | None]:
    return await play(ctx, script)


@app.agent(session="isolated")
async def apart(ctx: Context, script: Script) -> list[int | None]:
    return await play(ctx, script)


async def main() -> None:
    async with Runtime(app, store=sys.argv[1], capacity=50, lease=2):
        print("working", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
