"""Seeded schedules of parents, children, lanes, sessions, signals, answers and cancels over two workers: whatever comes
when, every run ends.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from stepwell import AlreadyAnswered, App, Conflict, Context, Limit, RunEnded
from stepwell.agents.function import FunctionRunnable
from stepwell.app import FunctionAgent
from stepwell.domain.event import ENDS
from stepwell.domain.outcome import Payload
from stepwell.domain.wait import Signal
from stepwell.engine.submission import Options, Submitter
from stepwell.engine.worker import Worker
from stepwell.ports.runnable import Runnable
from stepwell.ports.store import QuestionQuery, RunQuery, Store
from stepwell.ports.system_clock import SystemClock
from stepwell.stores import make_store

SCALE = int(os.environ.get("STORM_SCALE", "1"))
SCHEDULES = min(100 * SCALE, 500)
AT_ONCE = 10
PATIENCE = 30.0
CANCELS_UPTO = 15
GO = "go"

Plan = list[Any]
app = App("schedules", limit=3)


async def number(value: int) -> int:
    await asyncio.sleep(0)
    return value


async def act(ctx: Context, move: Plan) -> None:
    """One move of a plan."""
    match move:
        case ["step"]:
            await ctx.step(number, 1)
        case ["sleep", seconds]:
            await ctx.sleep(seconds)
        case ["wait"]:
            await ctx.wait_for(GO)
        case ["ask"]:
            await ctx.ask("Go on?", bool)
        case ["call", agent, plan]:
            result = await (await ctx.spawn(agent, plan)).result()
            assert result.status in ("succeeded", "cancelled"), result.status
        case ["both", first, second]:
            await ctx.gather(act(ctx, first), act(ctx, second))
        case ["leave", agent, plan, detach]:
            await ctx.spawn(agent, plan, detach=detach)
        case _:
            raise AssertionError(move)


async def carry_out(ctx: Context, plan: Plan) -> int:
    for move in plan:
        await act(ctx, move)
    return len(plan)


@app.agent
async def plain(ctx: Context, plan: Plan) -> int:
    return await carry_out(ctx, plan)


@app.agent(concurrency=2)
async def narrow(ctx: Context, plan: Plan) -> int:
    return await carry_out(ctx, plan)


def key_of(plan: Plan) -> str:
    return str(len(plan) % 2)


@app.agent(concurrency=Limit(1, key=key_of))
async def keyed(ctx: Context, plan: Plan) -> int:
    return await carry_out(ctx, plan)


@app.agent(session="synchronized")
async def turn(ctx: Context, plan: Plan) -> int:
    return await carry_out(ctx, plan)


@turn.on_cancel
async def tidy(ctx: Context) -> None:
    await ctx.step(number, 2)


AGENTS = tuple(app.agents)


def make_plan(chance: random.Random, depth: int = 0) -> Plan:
    return [make_move(chance, depth) for _ in range(chance.randint(0, 3))]


def make_move(chance: random.Random, depth: int) -> Plan:
    kinds = ["step", "sleep", "wait", "ask", "both"] + (["call", "call", "leave"] if depth < 2 else [])
    match chance.choice(kinds):
        case "sleep":
            return ["sleep", chance.choice([0, 0.001, 0.01])]
        case "both" if depth < 3:
            return ["both", make_move(chance, depth + 1), make_move(chance, depth + 1)]
        case "call":
            return ["call", chance.choice(AGENTS), make_plan(chance, depth + 1)]
        case "leave":
            return ["leave", chance.choice(AGENTS), make_plan(chance, depth + 1), chance.random() < 0.5]
        case "both":
            return ["step"]
        case kind:
            return [kind]


def waits_in(plan: Plan) -> int:
    """How many signals a run with this plan takes itself."""
    return sum(
        1 if move[0] == "wait" else waits_in(move[1:]) if move[0] == "both" else 0
        for move in plan
        if isinstance(move, list) and move
    )


class World:
    """A store with two workers, and people who send, answer and cancel."""

    def __init__(self, store: Store, other: Store) -> None:
        self.store = store
        self.views = (store, other)
        self.runnables: Mapping[str, Runnable] = {
            name: FunctionRunnable(agent) for name, agent in app.agents.items() if isinstance(agent, FunctionAgent)
        }
        self._submitter = Submitter(store, clock=SystemClock(), entropy=os.urandom, worker=None)

    async def play(self, seed: int) -> Counter[str]:
        """One schedule, to its end; how its runs ended."""
        chance = random.Random(seed)
        tops = []
        for n in range(chance.randint(2, 4)):
            runnable = self.runnables[chance.choice(AGENTS)]
            options = Options(session=f"{seed}-{chance.choice('xy')}", priority=chance.choice([0, 0, 3, -3]))
            tops.append((await self._submitter.submit(runnable, make_plan(chance), options)).run.id)
            if n % 2:
                await asyncio.sleep(0)
        served: set[str] = set()
        deadline = time.monotonic() + PATIENCE
        family: list[str] = []
        rounds = 0
        while (grown := await self.families(tops)) != family or await self.live(family):
            family = grown
            live = await self.live(family)
            assert time.monotonic() < deadline, f"schedule {seed}: {live} never end"
            rounds += 1
            await self.tend(live, served, chance, may_cancel=rounds < CANCELS_UPTO)
        return Counter([(await self.store.get(run)).life.status for run in family])

    async def families(self, runs: list[str]) -> list[str]:
        found = list(runs)
        for run in found:
            found += [child.id for child in await self.store.find(RunQuery(parent=run, limit=1000))]
        return found

    async def live(self, runs: list[str]) -> list[str]:
        return [run for run in runs if not (await self.store.get(run)).life.ended]

    async def tend(self, live: list[str], served: set[str], chance: random.Random, *, may_cancel: bool) -> None:
        """Give runs what they wait for, in any order and at any moment, and cancel one now and then. In the end nobody
        cancels any more: a run that waits for ever must be seen.
        """
        chance.shuffle(live)
        for run in live:
            view = chance.choice(self.views)
            with suppress(RunEnded, Conflict, AlreadyAnswered):
                if run not in served and chance.random() < 0.5:
                    served.add(run)
                    await self.send_all(view, run)
                for question in await view.questions(QuestionQuery(run_id=run)):
                    await view.answer(question.wait.id, Payload("true"), by="somebody")
                if may_cancel and chance.random() < 0.05:
                    await view.cancel(run, by="somebody")
            await asyncio.sleep(chance.choice([0, 0, 0.001]))

    async def send_all(self, view: Store, run: str) -> None:
        queued = (await view.journal(run, limit=1))[0]
        for n in range(waits_in(json.loads(queued.data)["input"])):
            await view.signal(run, Signal(str(n), GO, Payload("1")))


@asynccontextmanager
async def world(url: str) -> AsyncIterator[World]:
    """Two workers over one store: of one process in memory, over two connections to a file."""
    store = make_store(url)
    other = store if url.startswith("memory") else make_store(url)
    stores = {id(each): each for each in (store, other)}.values()
    for each in stores:
        await each.open()
    made = World(store, other)
    workers = [
        Worker(
            each,
            made.runnables,
            capacity=3,
            clock=SystemClock(),
            entropy=os.urandom,
            deps=lambda _: None,
            park_after=0.002,
        )
        for each in (store, other)
    ]
    for worker in workers:
        await worker.start()
    try:
        yield made
    finally:
        for worker in workers:
            await worker.stop(drain=0)
        for each in stores:
            await each.close()


@pytest.mark.storm
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_no_schedule_ends_in_a_deadlock(kind: str, tmp_path: Path) -> None:
    url = "memory://" if kind == "memory" else f"sqlite:///{tmp_path}/schedules.db"
    ends: Counter[str] = Counter()
    async with world(url) as played:
        for first in range(0, SCHEDULES, AT_ONCE):
            for counted in await asyncio.gather(*[played.play(first + n) for n in range(AT_ONCE)]):
                ends += counted
        assert await played.store.lanes() == [], "nobody is left in a lane"
        for run in await played.store.find(RunQuery(limit=100_000)):
            told = [entry.kind for entry in await played.store.journal(run.id, limit=100_000) if entry.kind in ENDS]
            assert told == [f"run.{run.life.status}"]
    print(f"schedules ({kind}): {SCHEDULES}; their {ends.total()} runs ended: {dict(ends)}")
    assert ends.keys() == {"succeeded", "cancelled"}
