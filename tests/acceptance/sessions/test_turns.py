"""Turns in synchronized sessions over three processes, under kills and cancels: no two turns of a session meet, and
children are part of the turn, also those that outlast the run that made them. All of it is read from the journal.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from stepwell import App, Context, Run, Runtime, testing
from stepwell.ports.runnable import WhenBusy
from tests.acceptance.audit import audit
from tests.acceptance.fleet import Fleet, all_of
from tests.acceptance.lanes.test_lanes import BEGINS, ENDS, STOPS, rage
from tests.acceptance.sessions.turns import HOW, Job, app, turn

PROGRAM = Path(__file__).parent / "turns.py"
SCALE = int(os.environ.get("STORM_SCALE", "1"))
RUNS = 60 * SCALE
SESSIONS = ("ada", "bob", "cyd")


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with Fleet(PROGRAM, tmp_path) as fleet:
        yield fleet


@dataclass
class Session:
    """Who is executed and which children live while the journal is read: run by run, the root of each. `outlasted`
    counts the children that were executed when the run at their root had ended.
    """

    executed: dict[str, str] = field(default_factory=dict)
    children: dict[str, str] = field(default_factory=dict)
    ended: set[str] = field(default_factory=set)
    outlasted: int = 0
    faults: list[str] = field(default_factory=list)

    def read(self, position: int, run: str, root: str, kind: str) -> None:
        if kind == "run.queued" and run != root:
            self.children[run] = root
        elif kind in BEGINS:
            self.executed[run] = root
            others = {other for other in (*self.executed.values(), *self.children.values()) if other != root}
            if others:
                self.faults.append(f"{run} begins in the turn of {root} beside that of {others}, at {position}")
        elif kind in STOPS or kind in ENDS:
            self.executed.pop(run, None)
        if kind in ENDS:
            self.children.pop(run, None)
            self.ended.add(run)
            self.outlasted += run in self.executed.values()


JOURNAL = (
    "select position, run.session, run.id, coalesce(run.root, run.id), kind"
    " from journal join run on run.n = journal.run order by position"
)


def replayed(fleet: Fleet) -> dict[str, Session]:
    """Everything that happened, session by session."""
    sessions: dict[str, Session] = {}
    for position, session, run, root, kind in fleet.query(JOURNAL):
        sessions.setdefault(session, Session()).read(position, run, root, kind)
    return sessions


async def cancel_some(runs: list[Run[int]], chance: random.Random) -> None:
    for run in runs:
        if chance.random() < 0.3:
            await asyncio.sleep(chance.uniform(0, 0.1))
            await run.cancel()


@pytest.mark.storm
@pytest.mark.parametrize("seed", range(1 + SCALE // 5))
async def test_no_two_turns_of_a_session_meet_under_kills_and_cancels(fleet: Fleet, seed: int) -> None:
    chance = random.Random(seed)
    async with Runtime(app, store=fleet.store, worker=False) as runtime:
        fleet.start_many(3)
        jobs = [Job(number, chance.choice(HOW)) for number in range(RUNS)]
        starts = [partial(runtime.start, turn, job, session=chance.choice(SESSIONS)) for job in jobs]
        runs = await all_of(starts, at_once=1)
        cancelling = asyncio.create_task(cancel_some(runs, chance))
        kills = await rage(fleet, chance, RUNS)
        await cancelling
        fleet.until(lambda: not fleet.number("select count(*) from run where ended_at is null"), 60, "all have ended")
    facts = audit(fleet.database)
    assert facts.faults == []
    assert set(facts.by_status) == {"succeeded", "cancelled"}
    sessions = replayed(fleet)
    outlasted = sum(session.outlasted for session in sessions.values())
    print(f"turns: {facts.runs} runs of {RUNS} turns under {kills} kills; {outlasted} turns were outlasted by a child")
    assert [fault for session in sessions.values() for fault in session.faults] == []
    assert outlasted >= 5
    assert kills >= 2
    assert fleet.number("select count(*) from ticket") == 0
    assert fleet.number("select count(*) from lane where taken <> 0 or lent <> 0") == 0


@pytest.mark.parametrize("busy", ["reject", "interrupt", "answer"])
async def test_a_child_stands_in_line_whatever_its_agent_says_of_a_busy_session(busy: WhenBusy) -> None:
    app = App("doors")

    @app.agent(session="synchronized", busy=busy)
    async def talk(ctx: Context, asks: bool) -> bool:
        return await ctx.ask("Go on?", bool) if asks else False

    @app.agent
    async def router(ctx: Context, asks: bool) -> bool:
        return await ctx.call(talk, asks, session="cust-42")

    async with testing.runtime(app) as rt:
        first = await rt.start(talk, True, session="cust-42")
        question = await first.question()
        routed = await rt.start(router, False)
        async for event in routed.events():
            if event.kind == "run.waiting":
                break
        [child] = await routed.children()
        assert [lane.waiting for lane in await rt.queues.list(awaited_by=child.id)] == [1]
        assert (await first.refresh()).status == "waiting"
        await question.answer(True)
        assert (await first.result()).output is True
        assert (await routed.result()).output is False
