"""A parent with many children, under kills of random workers: every child runs once, and each join wakes the parent
once.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from stepwell import Runtime
from tests.acceptance.audit import audit, output_of
from tests.acceptance.children.program import CAPACITY, app, parent
from tests.acceptance.fleet import Fleet, all_of

PROGRAM = Path(__file__).parent / "program.py"
SCALE = int(os.environ.get("STORM_SCALE", "1"))
CHILDREN = min(200 * SCALE, 1000)
WORKERS, JOINS = 3, 2
FACTS_PER_KILL = 200
CHILD_IDS = (
    "select data ->> '$.input', run.id from journal join run on run.n = journal.run"
    " where kind = 'run.queued' and parent is not null"
)
PARKED = "select count(*) from journal where kind = 'run.waiting' and run = (select n from run where parent is null)"
SPARED = "select worker.pid from worker join run on run.worker = worker.id where status = 'running' and losses > 1"
LIMIT = 60 * SCALE


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with Fleet(PROGRAM, tmp_path) as fleet:
        yield fleet


@pytest.mark.storm
@pytest.mark.parametrize("seed", range(1 + SCALE // 5))
async def test_each_child_runs_once_and_each_join_wakes_once_under_kills(fleet: Fleet, seed: int) -> None:
    log = fleet.folder / "effects"
    log.touch()
    async with Runtime(app, store=fleet.store, worker=False) as runtime:
        fleet.start_many(WORKERS, str(log))
        run = await runtime.start(parent, CHILDREN)
        kills = await rage(fleet, runtime, random.Random(seed), str(log))
        fleet.until_ended(CHILDREN + 1, LIMIT)
    assert output_of(fleet.database, run.id) == list(range(CHILDREN))
    facts = audit(fleet.database)
    assert facts.faults == []
    assert facts.by_status == {"succeeded": CHILDREN + 1}, "none was lost, none was given up"
    effects = Counter(line.split()[0] for line in log.read_text().splitlines())
    assert len(effects) == CHILDREN
    assert sum(effects.values()) - CHILDREN <= kills * CAPACITY, (
        "a kill repeats at most what was in that worker's hands"
    )

    journal = fleet.query(
        "select kind, data ->> '$.cause' from journal where run = (select n from run where id = ?) order by seq", run.id
    )
    of_parent = Counter(kind for kind, _ in journal)
    woken_at = [place for place, (_, cause) in enumerate(journal) if cause == "woken"]
    ended_by = [sum(kind == "child.ended" for kind, _ in journal[:place]) for place in woken_at]
    parkings = of_parent["run.waiting"]
    print(
        f"children: {CHILDREN} under {kills} kills; the parent parked {parkings} times, was woken {len(woken_at)} times"
        f" and lost {of_parent['run.lost']} times"
    )
    assert of_parent["child.started"] == of_parent["child.ended"] == CHILDREN
    assert fleet.number("select count(distinct parent_step) from run where parent = ?", run.id) == CHILDREN
    assert kills >= 8
    assert parkings == JOINS
    assert ended_by == [CHILDREN // 2, CHILDREN], "woken once for each join, by the last of its children"


async def rage(fleet: Fleet, runtime: Runtime, chance: random.Random, log: str) -> int:
    """Kill a random worker after each so many facts until the parent has ended; how many it were. Each time that the
    parent is parked at its next join, let the children go that it waits for there.

    A run whose workers die three times in a row without progress is given up: whoever holds one that is close to that
    is spared.
    """
    kills, next_kill = 0, FACTS_PER_KILL
    joins = [range(CHILDREN // 2), range(CHILDREN // 2, CHILDREN)]
    deadline = time.monotonic() + LIMIT
    while fleet.number("select count(*) from run where parent is null and ended_at is null"):
        assert time.monotonic() < deadline, fleet.told()
        if joins and fleet.number(PARKED) == JOINS - len(joins) + 1:
            await let_go(fleet, runtime, joins.pop(0))
        if fleet.number("select coalesce(max(position), 0) from journal") < next_kill:
            await asyncio.sleep(0.005)
            continue
        spared = {pid for (pid,) in fleet.query(SPARED)}
        able = [process for process in fleet.processes if process.pid not in spared]
        if not able:
            await asyncio.sleep(0.005)
            continue
        victim = chance.choice(able)
        assert victim.poll() is None, "a worker died of something else"
        fleet.kill(victim)
        fleet.begin(log)
        kills += 1
        next_kill = fleet.number("select max(position) from journal") + FACTS_PER_KILL
    return kills


async def let_go(fleet: Fleet, runtime: Runtime, numbers: range) -> None:
    """Give these children what they wait for."""
    ids = dict(fleet.query(CHILD_IDS))
    runs = [await runtime.runs.get(ids[number]) for number in numbers]
    assert await all_of([partial(run.signal, "go") for run in runs]) == [True] * len(runs)
