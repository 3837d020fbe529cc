"""The processes of a recorded history: `program.py STORE worker LEASE` executes until it is ended, `program.py STORE
client SLOT GENERATION` is several clients, who write down what they ask and what they are told, until there is a file
named `stop` beside the store.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from pydantic import BaseModel

sys.path.insert(0, str(Path(__file__).parents[3]))

from stepwell import App, Context, Fail, Retry, Runtime
from tests.histories.run_model import ASKS, FAILING

app = App("histories")


class Tale(BaseModel):
    """What a run says in its session: so many messages under its name."""

    name: str
    size: int


class Told(BaseModel):
    """What a run read in the end, and the numbers that its increments gave."""

    read: list[str]
    counts: list[int]


def length(text: str) -> int:
    return len(text)


def one_more(count: int) -> int:
    return count + 1


async def go(ctx: Context, plan: str) -> list[str]:
    """Wait for what the plan names, one after the other; fail when told to."""
    got: list[str] = []
    for place, what in enumerate(plan):
        if what == ASKS:
            got.append(await ctx.ask(str(plan[:place].count(ASKS)), str))
        else:
            got.append(await ctx.wait_for(what, str))
        if what == ASKS and got[-1] == FAILING:
            raise Fail("a person said so", retryable=True)
        await ctx.step(length, got[-1])
    return got


@app.agent(retry=Retry(2, first_delay=0.01))
async def errand(ctx: Context, plan: str) -> list[str]:
    return await go(ctx, plan)


@app.agent(retry=Retry(2, first_delay=0.01))
async def careful(ctx: Context, plan: str) -> list[str]:
    return await go(ctx, plan)


@careful.on_cancel
async def tidy(ctx: Context) -> None:
    await ctx.step(length, ctx.run.id)


async def tell(ctx: Context, tale: Tale) -> Told:
    counts = []
    for number in range(tale.size):
        await ctx.session.add("user", f"{tale.name}:{number}")
        counts.append(await ctx.session.state.update("count", one_more, default=0))
    return Told(read=[message.text for message in await ctx.session.messages()], counts=counts)


@app.agent
async def shared(ctx: Context, tale: Tale) -> Told:
    return await tell(ctx, tale)


@app.agent(session="synchronized")
async def synchronized(ctx: Context, tale: Tale) -> Told:
    return await tell(ctx, tale)


@app.agent(session="isolated")
async def isolated(ctx: Context, tale: Tale) -> Told:
    return await tell(ctx, tale)


async def work(store: str, lease: float) -> None:
    async with Runtime(app, store=store, capacity=8, lease=lease):
        print("working", flush=True)
        await asyncio.Event().wait()


async def record(store: str, slot: str, generation: str) -> None:
    from tests.acceptance.histories import program  # this module again, under the name that the clients know
    from tests.acceptance.histories.clients import Party, left_at
    from tests.acceptance.histories.recorder import Log

    folder = Path(store.removeprefix("sqlite:///")).parent
    with Log(folder / f"{slot}-{generation}.log") as log:
        async with Runtime(program.app, store=store, worker=False) as runtime:
            print("working", flush=True)
            party = Party(runtime, log, slot, generation, stop=(folder / "stop").exists)
            await party.go_on(left_at(folder, slot))


async def main() -> None:
    store, role, *rest = sys.argv[1:]
    if role == "worker":
        await work(store, float(rest[0]))
    else:
        await record(store, rest[0], rest[1])


if __name__ == "__main__":
    asyncio.run(main())
