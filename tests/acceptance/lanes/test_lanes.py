"""Lanes over four processes and under kills: no lane ever executes more runs than it has room for, sessions go in
order, nobody starves, and nobody waits for ever. All of it is read from the journal.
"""

from __future__ import annotations

import asyncio
import os
import random
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import apsw
import pytest

from stepwell import Agent, Run, Runtime
from stepwell.domain.submission import Submission
from stepwell.engine.submission import Options, Submitter
from stepwell.ports.runnable import Runnable
from stepwell.ports.store import Store
from tests.acceptance.audit import audit
from tests.acceptance.fleet import Fleet, all_of
from tests.acceptance.lanes.program import (
    AGENT,
    GLOBAL,
    Job,
    app,
    free,
    keyed,
    limited,
    narrow,
    plain,
    saturated,
    through,
    turn,
    unlimited,
)

PROGRAM = Path(__file__).parent / "program.py"
SCALE = int(os.environ.get("STORM_SCALE", "1"))
RUNS = 120 * SCALE
WORKERS, FACTS_PER_KILL = 4, 150
LIMIT = 60 * SCALE
FEW, CROWD, ROUNDS = 3000, 50_000 if SCALE == 1 else 1_000_000, 40 if SCALE == 1 else 150
KEYS = ("red", "green", "blue")
SESSIONS = ("ada", "bob", "cyd", "dan")
HOW = ("steps", "steps", "sleep", "call", "turn")

BEGINS = ("run.started", "run.resumed")
STOPS = ("run.waiting", "run.retrying", "run.handed_back", "run.held", "run.lost")
ENDS = ("run.succeeded", "run.failed", "run.cancelled", "run.timed_out", "run.exhausted")
SPARED = "select worker.pid from worker join run on run.worker = worker.id where status = 'running' and losses > 1"


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with Fleet(PROGRAM, tmp_path) as fleet:
        yield fleet


@dataclass
class Occupation:
    """The runs that are executed in one lane while the journal is read, and the most there ever were."""

    room: int
    now: set[int] = field(default_factory=set)
    most: int = 0


@dataclass
class Replay:
    """The journal of all runs, read in the order of its facts: who is executed when, in which lanes."""

    lanes: dict[tuple[str, str], Occupation] = field(default_factory=dict)
    turns: defaultdict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    ended: set[int] = field(default_factory=set)
    faults: list[str] = field(default_factory=list)

    def read(self, position: int, run: int, kind: str, lanes: list[tuple[str, str, int]]) -> None:
        for lane, name, room in lanes:
            occupation = self.lanes.setdefault((lane, name), Occupation(room))
            if kind in BEGINS:
                self._begin(position, run, lane, name, occupation)
            elif kind in STOPS or kind in ENDS:
                occupation.now.discard(run)
        if kind in ENDS:
            self.ended.add(run)

    def _begin(self, position: int, run: int, lane: str, name: str, occupation: Occupation) -> None:
        occupation.now.add(run)
        occupation.most = max(occupation.most, len(occupation.now))
        if len(occupation.now) > occupation.room:
            self.faults.append(f"{len(occupation.now)} runs of {occupation.room} in {lane} {name} at {position}")
        if lane == "session":
            turns = self.turns[name]
            if run not in turns:
                turns.append(run)
            if any(before not in self.ended for before in turns[: turns.index(run)]):
                self.faults.append(f"run {run} goes on in session {name} before its turn, at {position}")


LANES = """
    select run.n, run.agent, run.session, caller.agent, (
        select data ->> '$.input[1]' from journal where journal.run = run.n and seq = 1
    ) from run left join run as caller on caller.id = run.parent
"""


def replayed(fleet: Fleet) -> Replay:
    """Everything that happened, seen lane by lane."""
    lanes = {n: lanes_of(agent, session, caller, key) for n, agent, session, caller, key in fleet.query(LANES)}
    replay = Replay()
    for position, run, kind in fleet.query("select position, run, kind from journal order by position"):
        replay.read(position, run, kind, lanes[run])
    return replay


def lanes_of(agent: str, session: str, caller: str | None, key: str) -> list[tuple[str, str, int]]:
    """The lanes that a run of the program passes through, by its declarations."""
    lanes = [("global", "lanes", GLOBAL)] if agent in app.agents else []
    if agent in ("narrow", "inner"):
        lanes.append(("agent", agent, AGENT))
    elif agent == "keyed":
        lanes.append(("key", key, 1))
    elif agent == "turn" and caller != "turn":  # it is part of the turn of its caller
        lanes.append(("session", session, 1))
    return lanes


def submission(runtime: Runtime, number: int, chance: random.Random) -> partial[Any]:
    """A run of some agent that does something."""
    agent: Agent[Job, int] = chance.choice([plain, narrow, keyed, turn])
    job = Job(number, chance.choice(KEYS), chance.choice(HOW))
    session = chance.choice(SESSIONS)
    return partial(runtime.start, agent, job, session=session, priority=chance.choice([0, 0, 5, -5]))


async def rage(fleet: Fleet, chance: random.Random, runs: int) -> int:
    """Kill a random worker after each so many facts until so many runs have ended; how many it were. Runs that are
    close to being given up for their workers' deaths are spared.
    """
    kills, next_kill = 0, FACTS_PER_KILL
    deadline = time.monotonic() + LIMIT
    while fleet.number("select count(*) from run where parent is null and ended_at is not null") < runs:
        assert time.monotonic() < deadline, fleet.told()
        if fleet.number("select coalesce(max(position), 0) from journal") < next_kill:
            await asyncio.sleep(0.01)
            continue
        spared = {pid for (pid,) in fleet.query(SPARED)}
        able = [process for process in fleet.processes if process.pid not in spared]
        if able:
            fleet.kill(chance.choice(able))
            fleet.begin()
            kills += 1
        next_kill = fleet.number("select max(position) from journal") + FACTS_PER_KILL
    return kills


@pytest.mark.storm
@pytest.mark.parametrize("seed", range(1 + SCALE // 5))
async def test_no_lane_is_ever_overfull_under_kills(fleet: Fleet, seed: int) -> None:
    chance = random.Random(seed)
    async with Runtime(app, free, store=fleet.store, worker=False) as runtime:
        fleet.start_many(WORKERS)
        starts = [submission(runtime, number, chance) for number in range(RUNS)]
        submitting = asyncio.create_task(all_of(starts, at_once=10))
        kills = await rage(fleet, chance, RUNS)
        runs: list[Run[int]] = await submitting
        results = [await run.result(timeout=30) for run in runs]
    assert [result.output for result in results] == list(range(RUNS))
    facts = audit(fleet.database)
    assert facts.faults == []
    assert set(facts.by_status) == {"succeeded"}
    replay = replayed(fleet)
    print(
        f"lanes: {facts.runs} runs under {kills} kills by {WORKERS} processes; the most at once: "
        + ", ".join(f"{lane} {name}: {seen.most} of {seen.room}" for (lane, name), seen in sorted(replay.lanes.items()))
    )
    assert replay.faults == []
    assert kills >= 4
    assert replay.lanes["global", "lanes"].most == GLOBAL, "the limit was reached"
    assert replay.lanes["agent", "narrow"].most == AGENT
    for name, turns in replay.turns.items():
        assert turns == sorted(turns), f"session {name} went in the order of the starts"
    assert fleet.number("select count(*) from ticket") == 0
    assert fleet.number("select count(*) from lane where taken <> 0") == 0


async def test_a_call_that_comes_back_into_the_session_of_its_caller_does_not_wait_for_it(fleet: Fleet) -> None:
    async with Runtime(app, free, store=fleet.store, worker=False) as runtime:
        fleet.start_many(2)
        ways = [["a"], ["a", "a", "a"]]
        runs = [await runtime.start(through, way, session="a") for way in ways]
        for way, run in zip(ways, runs, strict=True):
            assert (await run.result(timeout=20)).output == ["a", *way]
        crossing = [await runtime.start(through, [other], session=own) for own, other in (("a", "b"), ("b", "a"))]
        for run in crossing:
            error = (await run.result(timeout=20)).error
            assert error is not None
            assert error.code == "child.session"
    assert fleet.number("select count(*) from ticket") == 0
    assert audit(fleet.database).faults == []


async def test_low_priority_is_served_within_its_bound(fleet: Fleet) -> None:
    """A point of priority is worth 30 s of waiting: a run of priority -1 that is older than that goes ahead of all
    newer ones, however many keep coming; a newer one of -1 goes after them.
    """
    ahead = 40
    async with Runtime(app, free, store=fleet.store, worker=False) as runtime:
        holder = await runtime.start(keyed, Job(0, "red"))
        low = await runtime.start(keyed, Job(0, "red"), priority=-1)
        make_older(fleet, low.id, seconds=31)
        high = await all_of([partial(runtime.start, keyed, Job(number, "red")) for number in range(ahead)], at_once=1)
        late = await runtime.start(keyed, Job(0, "red"), priority=-1)
        urgent = await runtime.start(keyed, Job(0, "red"), priority=1)
        fleet.start_many(2)
        for run in [holder, low, *high, late, urgent]:
            assert (await run.result(timeout=60)).ok
    order = fleet.query(
        "select run.id from journal join run on run.n = journal.run where kind = 'run.started' order by position"
    )
    assert [run for (run,) in order] == [run.id for run in [holder, urgent, low, *high, late]]


def make_older(fleet: Fleet, run: str, *, seconds: int) -> None:
    """As if the run had been waiting for so long."""
    older = (seconds * 1_000_000, run)
    with changing(fleet.database) as db:
        db.execute("update run set available_at = available_at - ? where id = ?", older)
        db.execute("update ticket set at = at - ? where run = (select n from run where id = ?)", older)


@contextmanager
def changing(database: Path) -> Iterator[apsw.Connection]:
    """A transaction of a connection of its own."""
    db = apsw.Connection(str(database))
    db.set_busy_timeout(30_000)
    try:
        with db:
            yield db
    finally:
        db.close()


# ---------------------------------------------------------------- a saturated key


class Roomy(Submitter):
    """Submits beyond the bound of the queue."""

    async def _submission(self, runnable: Runnable, text: str, options: Options) -> Submission:
        return (await super()._submission(runnable, text, options))._replace(queue_bound=10_000_000)


class RoomyRuntime(Runtime[Any]):
    """A runtime whose queue has no bound to speak of."""

    def _make_submitter(self, store: Store) -> Submitter:
        return Roomy(store, clock=self._clock, entropy=self._entropy, worker=None)


async def crowd(fleet: Fleet, runtime: Runtime[Any], count: int) -> None:
    """Let so many runs stand in line for one key: some are submitted, the others are copies of the last of them."""
    runs = [await runtime.start(saturated, Job(1, "busy")) for _ in range(3)]
    (last,) = fleet.query("select n, id from run where id = ?", runs[-1].id)
    with changing(fleet.database) as db:
        for table, replaced in (
            ("run", {"n": "n + k", "id": "substr(id, 1, 20) || printf('%010d', k)"}),
            ("ticket", {"run": "run + k", "number": "number + k"}),
            ("journal", {"position": "null", "run": "run + k"}),
        ):
            columns = [name for _, name, *_ in db.execute(f"pragma table_info({table})")]
            values = ", ".join(replaced.get(name, f'"{name}"') for name in columns)
            which = "n" if table == "run" else "run"
            db.execute(
                f"with recursive more (k) as (select 1 union all select k + 1 from more where k < {count})"
                f" insert into {table} select {values} from more cross join {table} where {which} = {last[0]}"
            )
    in_line = "select count(*) from run where blocked = 1 and agent = 'saturated'"
    assert fleet.number(in_line) == count + 2


class Times(NamedTuple):
    """Seconds until a start was acknowledged, and until its end was known."""

    submitted: float
    ended: float


async def timed(runtime: Runtime[Any], agent: Agent[int, int]) -> Times:
    began = time.perf_counter()
    run = await runtime.start(agent, 1)
    submitted = time.perf_counter() - began
    assert (await run.result(timeout=30)).ok
    return Times(submitted, time.perf_counter() - began)


@pytest.mark.storm
async def test_a_saturated_key_does_not_slow_others(tmp_path: Path) -> None:
    (tmp_path / "few").mkdir()
    (tmp_path / "many").mkdir()
    with Fleet(PROGRAM, tmp_path / "few") as few, Fleet(PROGRAM, tmp_path / "many") as many:
        async with (
            RoomyRuntime(free, store=few.store, worker=False) as calm,
            RoomyRuntime(free, store=many.store, worker=False) as crowded,
        ):
            await crowd(few, calm, FEW)
            await crowd(many, crowded, CROWD)
            few.start()
            many.start()
            found: defaultdict[tuple[str, bool], list[Times]] = defaultdict(list)
            for number in range(ROUNDS * 2):
                for runtime in (calm, crowded) if number % 2 else (crowded, calm):
                    for agent in (unlimited, limited):
                        found[agent.name, runtime is crowded].append(await timed(runtime, agent))
        ended = [fleet.number("select count(*) from run where agent = 'saturated' and ended_at is not null")
                 for fleet in (few, many)]  # fmt: skip
        left = few.number("select count(*) from run where agent = 'saturated' and ended_at is null")
    assert left > 0, "the key was saturated all the time"
    assert min(ended) > 0, "its line moved on meanwhile"
    for name in ("unlimited", "limited"):
        for what in Times._fields:
            beside_few, beside_many = (
                statistics.median(getattr(times, what) for times in found[name, crowded]) for crowded in (False, True)
            )
            print(
                f"{name}, {what}: {beside_few * 1000:.2f} ms beside {FEW} in line, {beside_many * 1000:.2f} ms beside"
                f" {CROWD}: x {beside_many / beside_few:.2f} (medians of {len(found[name, True])})"
            )
            assert beside_many < 1.5 * beside_few
