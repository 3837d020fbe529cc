"""Runs that end their worker, among hundreds that do not: the former are given up, none of the latter is, and those go
on soon. A store that cannot be reached is nobody's fault.
"""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import apsw
import pytest

from stepwell import Runtime
from tests.acceptance.audit import audit
from tests.acceptance.fleet import Fleet, all_of
from tests.acceptance.poison.program import STEPS, app, careful, lasting, ordinary, poison

PROGRAM = Path(__file__).parent / "program.py"
SCALE = int(os.environ.get("STORM_SCALE", "1"))
RUNS, POISON, WORKERS = min(60 * SCALE, 500), 5, 2
CAPACITY = 15 if SCALE == 1 else 50
LEASE = 15
SHORT_LEASE = 1
SEEDS = range(1 + SCALE // 5)
LIMIT = 60 * SCALE
PROGRESS = ("step.completed", "run.succeeded")


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with Fleet(PROGRAM, tmp_path) as fleet:
        yield fleet


class Recovery(NamedTuple):
    """The longest time from the death of a worker until every innocent run that it had in its hands has made progress
    again, in seconds; and how many such runs there were.
    """

    longest: float
    runs: int


@pytest.mark.storm
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("how", ["importable", "script"])
async def test_poison_dies_and_takes_nobody_along(fleet: Fleet, seed: int, how: str) -> None:
    log = fleet.folder / "log"
    log.touch()
    arguments = [str(log), str(CAPACITY), str(LEASE), *(["importable"] if how == "importable" else [])]
    async with Runtime(app, store=fleet.store, worker=False) as runtime:
        starts = [partial(runtime.start, ordinary, number) for number in range(RUNS)]
        harm = [partial(runtime.start, poison, "agent" if number % 2 else "step") for number in range(POISON)]
        both = [*starts, *harm]
        random.Random(seed).shuffle(both)
        await all_of(both, at_once=1)  # in this very order
    for _ in range(WORKERS):  # one of them may be dead before it says that it works
        fleet.begin(*arguments)
    deaths = 0
    live = "select count(*) from run where ended_at is null"
    deadline = time.monotonic() + LIMIT
    while fleet.number(live):
        assert time.monotonic() < deadline, fleet.told()
        for process in [process for process in fleet.processes if process.poll() is not None]:
            fleet.kill(process)
            fleet.begin(*arguments)
            deaths += 1
        time.sleep(0.002)

    facts = audit(fleet.database)
    assert facts.faults == []
    assert facts.by_status == {"succeeded": RUNS, "failed": POISON}
    assert fleet.query("select agent, dead, count(*) from run group by 1, 2") == [
        ("ordinary", 0, RUNS),
        ("poison", 1, POISON),
    ]
    recovery = recovered(fleet, log)
    most = fleet.number("select max(lost) from run where agent = 'ordinary'")
    print(
        f"poison ({how}): {RUNS} innocent runs and {POISON} others; {deaths} workers died, {recovery.runs} times an"
        f" innocent run was lost (at most {most} times the same); recovered within {recovery.longest:.2f} s,"
        f" lease {LEASE:g} s"
    )
    assert {step for run, step in facts.steps if facts.steps[run, step] > 1} == set()
    assert deaths >= POISON, "the first deaths take workers along"
    assert recovery.longest < 2 * LEASE


def recovered(fleet: Fleet, log: Path) -> Recovery:
    """Measured from the moment that a run notes before it ends its process, to the next progress in the journal."""
    lines = [line.split() for line in log.read_text().splitlines()]
    deaths = {pid: int(at) for _, _, pid, at in (line for line in lines if line[0] == "death")}
    died_at = {worker: deaths.get(pid) for _, worker, pid in (line for line in lines if line[0] == "worker")}
    longest, count = 0.0, 0
    for run, worker in fleet.query(
        "select journal.run, data ->> '$.worker' from journal join run on run.n = journal.run"
        " where kind = 'run.lost' and agent = 'ordinary'"
    ):
        died = died_at.get(worker)
        assert died is not None, "it was lost with a worker that no poison has ended"
        again = fleet.number(
            "select min(at) from journal where run = ? and at > ? and kind in ('step.completed', 'run.succeeded')",
            run,
            died,
        )
        longest, count = max(longest, (again - died) / 1e6), count + 1
    return Recovery(longest, count)


async def test_a_suspect_that_makes_progress_is_none_any_more_and_goes_on_with_the_others(fleet: Fleet) -> None:
    log = fleet.folder / "log"
    log.touch()
    async with Runtime(app, store=fleet.store, worker=False) as runtime:
        runs = [await runtime.start(careful, number) for number in range(3)]
        for deaths in range(2):
            worker = fleet.start(str(log), "4", str(LEASE))
            begun = partial(reached, log, 3 * (deaths + 1))
            fleet.until(begun, 30, "all of them have begun")
            fleet.kill(worker)
        fleet.start(str(log), "4", str(LEASE))
        fleet.until(partial(reached, log, 7), 30, "one of them has begun")
        executed = fleet.query("select count(*) from journal where kind = 'run.started' group by run order by 1")
        assert executed == [(2,), (2,), (3,)], "the suspect is alone"
        (fleet.folder / "gate").touch()
        assert [(await run.result(timeout=30)).output for run in runs] == [0, 2, 4]
    told = [kind for (kind,) in fleet.query("select kind from journal where run = 1 order by seq")]
    assert told[5:] == ["run.started", "step.completed", "run.handed_back", "run.resumed", "step.completed",
                        "run.succeeded"]  # fmt: skip
    assert audit(fleet.database).faults == []


def reached(log: Path, times: int) -> bool:
    """Whether runs have come to the gate so often."""
    return sum(line.startswith("there") for line in log.read_text().splitlines()) >= times


async def test_an_outage_of_the_store_makes_nobody_a_suspect(fleet: Fleet) -> None:
    log = fleet.folder / "log"
    log.touch()
    async with Runtime(app, store=fleet.store, worker=False) as runtime:
        fleet.start_many(WORKERS, str(log), "50", str(SHORT_LEASE))
        runs = await all_of([partial(runtime.start, lasting, 100)] * 40)
        runs += await all_of([partial(runtime.start, ordinary, number) for number in range(200)])
        fleet.until(lambda: fleet.kinds("step.completed") > 100, 30, "something has been done")
        blocker = apsw.Connection(str(fleet.database))
        blocker.set_busy_timeout(5000)
        blocker.execute("begin immediate")
        running = fleet.number("select count(*) from run where status = 'running'")
        over = time.monotonic() + 4 * SHORT_LEASE
        fleet.until(lambda: time.monotonic() > over, 5 * SHORT_LEASE, "four leases are over")
        blocker.execute("rollback")
        blocker.close()
        results = await all_of([partial(run.result, timeout=60) for run in runs])
    assert running > 0, "the outage hit runs"
    assert {result.status for result in results} == {"succeeded"}
    assert all(process.poll() is None for process in fleet.processes)
    told = fleet.query("select sum(lost), max(losses), sum(expiries), max(expiries), max(dead) from run")[0]
    print(f"outage of {4 * SHORT_LEASE:g} s: {running} runs were executed; lost {told[0]}, expiries {told[2]}")
    assert (told[0], told[1], told[4]) == (0, 0, 0)
    assert fleet.kinds("run.lost") == 0
    facts = audit(fleet.database)
    assert facts.faults == []
    effects = Counter(line for line in log.read_text().splitlines() if line.startswith("effect"))
    assert len(effects) == 200 * STEPS
    assert facts.by_status == {"succeeded": 240}
