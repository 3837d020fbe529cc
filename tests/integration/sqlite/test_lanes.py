"""Lanes in the file: what stands in line costs the others nothing, and the rows agree whatever happens at once."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Iterable
from pathlib import Path
from typing import Any

import apsw
import pytest

from stepwell.domain.commit import Commit
from stepwell.domain.errors import StepwellError
from stepwell.domain.outcome import NEVER, ErrorInfo, HandedBack, Outcome, Parked, Payload, Retrying, Succeeded
from stepwell.domain.run import Lease
from stepwell.domain.submission import AGENT_LANE, GLOBAL_LANE, KEY_LANE, SESSION_LANE, Lane
from stepwell.ports.store import ClaimRequest, LaneInfo, RunQuery
from stepwell.stores.sqlite.store import SqliteStore
from stepwell.testing.conformance import Harness
from stepwell.testing.conformance.harness import AGENT, append, take
from tests.integration.sqlite.files import ask, beside

DONE = Commit(9, outcome=Succeeded(Payload("1")))
KEY = (Lane(KEY_LANE, "eu", 1),)


async def backlog(harness: Harness, store: SqliteStore, number: int, lanes: tuple[Lane, ...] = KEY) -> None:
    """That many runs in the lanes."""
    await asyncio.gather(*(store.submit(harness.submission(lanes=lanes)) for _ in range(number)))


async def cost(store: SqliteStore, calls: Iterable[Awaitable[Any]]) -> int:
    """How many instructions SQLite executes for what the writer does for these calls."""
    executed: list[int] = []
    connection = store._use().writer._transactions._connection  # type: ignore[union-attr]
    connection.trace_v2(
        apsw.SQLITE_TRACE_PROFILE, lambda event: executed.append(event["stmt_status"]["SQLITE_STMTSTATUS_VM_STEP"])
    )
    for call in calls:
        await call
    connection.trace_v2(0, None)
    return sum(executed)


class TestCost:
    async def test_runs_in_line_cost_the_others_nothing(
        self, harness: Harness, store: SqliteStore, tmp_path: Path
    ) -> None:
        """Claims, submissions and commits of runs that do not pass through the lane."""
        empty = SqliteStore(str(tmp_path / "empty.db"), clock=harness.clock)
        await empty.open()
        await backlog(harness, store, 3000)
        costs = [await self._round(harness, each) for each in (store, empty)]
        await empty.close()
        assert costs[0] <= costs[1] * 1.5

    async def _round(self, harness: Harness, store: SqliteStore) -> int:
        worker = await harness.worker(store)
        await store.claim(ClaimRequest(worker, 10, (AGENT,)))
        await store.submit(harness.submission())  # counts what is queued, for a second
        await take(store, worker)
        submissions = [store.submit(harness.submission()) for _ in range(20)]
        spent = await cost(store, submissions)
        claiming = asyncio.ensure_future(take(store, worker))
        spent += await cost(store, [claiming])
        spent += await cost(store, (store.commit(claim.lease, DONE) for claim in await claiming))
        idle = (store.claim(ClaimRequest(worker, 10, (AGENT,))) for _ in range(20))
        return spent + await cost(store, idle)

    async def test_a_line_is_read_from_its_front(self, harness: Harness, store: SqliteStore) -> None:
        await backlog(harness, store, 20)
        worker = await harness.worker(store)
        few = await cost(store, [store.commit((await take(store, worker))[0].lease, DONE)])
        await backlog(harness, store, 2000)
        assert await cost(store, [store.commit((await take(store, worker))[0].lease, DONE)]) <= few * 1.5

    async def test_to_stand_in_line_costs_the_same_however_many_do(self, harness: Harness, store: SqliteStore) -> None:
        await backlog(harness, store, 20)
        few = await cost(store, [store.submit(harness.submission(lanes=KEY))])
        await backlog(harness, store, 2000)
        assert await cost(store, [store.submit(harness.submission(lanes=KEY))]) <= few * 1.5

    async def test_many_tickets_that_are_given_back_at_once_take_few_statements(
        self, harness: Harness, store: SqliteStore
    ) -> None:
        lanes = (Lane(KEY_LANE, "eu", 100),)
        await backlog(harness, store, 300, lanes)
        claims = await take(store, await harness.worker(store), limit=200)
        assert len(claims) == 100
        texts: list[str] = []
        connection = store._use().writer._transactions._connection  # type: ignore[union-attr]
        connection.trace_v2(apsw.SQLITE_TRACE_STMT, lambda event: texts.append(event["sql"]))
        await asyncio.gather(*(store.commit(claim.lease, DONE) for claim in claims))
        connection.trace_v2(0, None)
        assert len(texts) < 60
        assert await store.lanes() == [LaneInfo("", KEY_LANE, "eu", 100, 100, 100)]

    async def test_the_end_of_a_child_costs_the_same_however_many_live_on_the_turn(
        self, harness: Harness, store: SqliteStore
    ) -> None:
        lease = await harness.started(store, session="ses_a", lanes=(Lane(SESSION_LANE, "ses_a", 1),))
        parent, worker = await store.get(lease.run_id), await harness.worker(store)
        costs = []
        for first, last in ((0, 20), (20, 2000)):
            children = tuple(harness.child_of(parent, number) for number in range(first, last))
            await store.commit(lease, Commit(last, submits=children))
            [claim] = await take(store, worker, limit=1)
            costs.append(await cost(store, [store.commit(claim.lease, DONE)]))
        assert costs[1] <= costs[0] * 1.5

    async def test_runs_without_lanes_never_look_at_them(self, harness: Harness, store: SqliteStore) -> None:
        texts: list[str] = []
        connection = store._use().writer._transactions._connection  # type: ignore[union-attr]
        connection.trace_v2(apsw.SQLITE_TRACE_STMT, lambda event: texts.append(event["sql"]))
        worker = await harness.worker(store)
        await harness.submit(store)
        [claim] = await take(store, worker)
        child = harness.child_of(claim.run)
        await store.commit(claim.lease, Commit(1, submits=(child,)))
        await harness.finish(store, child.id, Succeeded(Payload("1")))
        await append(store, claim.lease, 2, "x")
        await store.commit(claim.lease, Commit(3, outcome=HandedBack()))
        [claim] = await take(store, worker)
        await store.commit(claim.lease, DONE)
        connection.trace_v2(0, None)
        assert [text for text in texts if " lane" in text or "ticket" in text] == []


async def test_a_lane_that_grows_lets_as_many_in(harness: Harness, store: SqliteStore) -> None:
    await backlog(harness, store, 20)
    await harness.submit(store, lanes=(Lane(KEY_LANE, "eu", 12),))
    assert await store.lanes() == [LaneInfo("", KEY_LANE, "eu", 12, 12, 9)]
    assert len(await take(store, await harness.worker(store))) == 12


async def test_who_comes_while_a_line_is_being_read_stands_at_its_end(harness: Harness, store: SqliteStore) -> None:
    """All in one write: a ticket is given back, somebody comes, and more tickets are given back than were read."""
    lanes = (Lane(KEY_LANE, "eu", 6),)
    worker, lease = await harness.worker(store), await harness.started(store)
    await backlog(harness, store, 6, lanes)
    claims = await take(store, worker)
    line = [(await harness.submit(store, lanes=lanes)).id for _ in range(12)]
    last = harness.submission(lanes=lanes)
    before = store.stats().transactions
    await asyncio.gather(
        store.commit(claims[0].lease, DONE),
        store.commit(lease, Commit(1, opens=(harness.question(),))),
        store.submit(last),
        *(store.commit(claim.lease, DONE) for claim in claims[1:]),
    )
    assert store.stats().transactions == before + 1
    assert [claim.run.id for claim in await take(store, worker)] == line[:6]


async def test_many_runs_that_become_due_at_once_enter_a_part_at_a_time(
    harness: Harness, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stepwell.stores.sqlite.claims._MOST_ENTERING_AT_ONCE", 10)
    lanes = (Lane(KEY_LANE, "eu", 100),)
    delayed = [store.submit(harness.submission(delay=5, lanes=lanes)) for _ in range(25)]
    runs = [submitted.run.id for submitted in await asyncio.gather(*delayed)]
    harness.clock.advance(5)
    worker = await harness.worker(store)
    taken = [[claim.run.id for claim in await take(store, worker)] for _ in range(4)]
    assert taken == [runs[:10], runs[10:20], runs[20:], []]


HELD = "(SELECT count(*) FROM ticket WHERE ticket.lane = lane.n AND ticket.state IN (2, 3))"
LENT = "(SELECT count(*) FROM ticket WHERE ticket.lane = lane.n AND ticket.state = 4)"
FAULTS = {
    "more or fewer taken than the tickets say": (
        f"SELECT count(*) FROM lane WHERE taken <> iif({HELD} > 0, {HELD}, min({LENT}, 1))"
    ),
    "more or fewer lent than the tickets say": f"SELECT count(*) FROM lane WHERE lent <> {LENT}",
    "a turn that is kept for nobody": (
        "SELECT count(*) FROM lane JOIN ticket ON ticket.lane = lane.n WHERE lane.lent = 0 AND ticket.state = 3"
    ),
    "more in a lane than it has room for": "SELECT count(*) FROM lane WHERE taken > capacity",
    "a line although a ticket is left": (
        "SELECT count(*) FROM lane WHERE taken < capacity"
        " AND EXISTS (SELECT 1 FROM ticket WHERE ticket.lane = lane.n AND ticket.state = 1)"
    ),
    "a free run that lacks a ticket": (
        "SELECT count(*) FROM run WHERE blocked = 0 AND ended_at IS NULL"
        " AND EXISTS (SELECT 1 FROM ticket WHERE ticket.run = run.n AND ticket.state NOT IN (2, 4))"
    ),
    "a blocked run that stands in no line, or in two": (
        "SELECT count(*) FROM run WHERE blocked = 1 AND ended_at IS NULL"
        " AND (SELECT count(*) FROM ticket WHERE ticket.run = run.n AND ticket.state = 1) <> 1"
    ),
    "a running run that is not free": "SELECT count(*) FROM run WHERE status = 'running' AND blocked <> 0",
    "a run that is away and keeps a ticket of a wide lane": (
        "SELECT count(*) FROM run JOIN ticket ON ticket.run = run.n JOIN lane ON lane.n = ticket.lane"
        " WHERE run.blocked = 2 AND ticket.state <> 0 AND lane.kind <> 'session'"
    ),
    "an ended run with tickets": (
        "SELECT count(*) FROM run JOIN ticket ON ticket.run = run.n WHERE run.ended_at IS NOT NULL"
    ),
    "two turns in one session": (
        "SELECT count(*) FROM lane WHERE kind = 'session' AND (SELECT count(DISTINCT coalesce(run.root, run.id))"
        " FROM ticket JOIN run ON run.n = ticket.run WHERE ticket.lane = lane.n AND run.status = 'running') > 1"
    ),
}


def faults(path: Path) -> list[str]:
    """What the rows of lanes, tickets and runs contradict each other in."""
    with beside(path) as connection:
        return [fault for fault, text in FAULTS.items() if connection.execute(text).get]


class Traffic:
    """Calls of all kinds, many of them at once, of two stores on one file."""

    def __init__(self, harness: Harness, stores: list[SqliteStore], seed: int) -> None:
        self._harness = harness
        self._stores = stores
        self._random = random.Random(seed)
        self._workers: list[str] = []
        self._held: dict[str, Lease] = {}
        self.runs: list[str] = []
        self._commits = 0
        self._children = 0

    async def open(self) -> None:
        self._workers = [await self._harness.worker(store) for store in self._stores]

    async def rush(self) -> None:
        """Several calls in one moment."""
        calls = [self._call() for _ in range(self._random.randrange(1, 12))]
        for answer in await asyncio.gather(*calls, return_exceptions=True):
            if isinstance(answer, BaseException) and not isinstance(answer, StepwellError):
                raise answer

    async def drain(self) -> None:
        """Resume what is set aside, and let everything end."""
        for run_id in self.runs:
            run = await self._stores[0].get(run_id)
            if run.life.hold is not None:
                await self._stores[0].resume(run_id, at_seq=run.life.seq, by="ann")
            if not run.life.ended:
                await self._stores[0].signal(run_id, self._harness.signal())
        for lease in self._held.values():
            await self._end(lease)
        for _ in range(len(self.runs) + 1):
            self._harness.clock.advance(10)
            for store, worker in zip(self._stores, self._workers, strict=True):
                await asyncio.gather(*(self._end(claim.lease) for claim in await take(store, worker)))

    async def _end(self, lease: Lease) -> None:
        self._commits += 1
        write = Commit(self._commits, outcome=Succeeded(Payload("1")))
        try:
            await self._stores[0].commit(lease, write)
        except StepwellError:
            life = (await self._stores[0].get(lease.run_id)).life
            assert life.ended or life.fence > lease.fence

    def _call(self) -> Awaitable[Any]:
        store = self._random.choice(self._stores)
        calls = [self._submit, self._submit, self._claim, self._claim, self._settle, self._settle, self._trouble]
        return self._random.choice([*calls, self._make_children])(store)

    async def _make_children(self, store: SqliteStore) -> None:
        if not self._held:
            return
        lease = self._random.choice(list(self._held.values()))
        parent = await store.get(lease.run_id)
        self._commits += 1
        children = []
        for _ in range(self._random.randrange(1, 4)):
            self._children += 1
            lanes = (Lane(AGENT_LANE, AGENT, 3),) if self._random.random() < 0.3 else ()
            hooked = self._random.choice([0, 1])
            children.append(self._harness.child_of(parent, self._children, lanes=lanes, hooked=hooked))
        await store.commit(lease, Commit(self._commits, submits=tuple(children)))
        made = {run.id for run in await store.find(RunQuery(parent=parent.id, limit=100))}
        self.runs += (child.id for child in children if child.id in made)  # not where a later write came before

    async def _submit(self, store: SqliteStore) -> None:
        pick = self._random
        lanes = [
            Lane(kind, pick.choice(names), capacity)
            for kind, names, capacity in [
                (SESSION_LANE, ["ses_a", "ses_b"], 1),
                (KEY_LANE, ["eu", "us"], 2),
                (AGENT_LANE, [AGENT], 3),
                (GLOBAL_LANE, ["all"], 4),
            ]
            if pick.random() < 0.6
        ]
        submission = self._harness.submission(
            lanes=tuple(lanes),
            delay=pick.choice([0, 0, 0, 3]),
            priority=pick.choice([0, 0, 1]),
            start_on=pick.choice([None, self._workers[self._stores.index(store)]]),
            busy=pick.choice(["queue", "queue", "reject", "interrupt"]),
        )
        submitted = await store.submit(submission)
        self.runs.append(submission.id)
        if submitted.lease is not None:
            self._held[submission.id] = submitted.lease

    async def _claim(self, store: SqliteStore) -> None:
        worker = self._workers[self._stores.index(store)]
        for claim in await take(store, worker, limit=self._random.randrange(1, 5)):
            self._held[claim.run.id] = claim.lease

    async def _settle(self, store: SqliteStore) -> None:
        if not self._held:
            return
        lease = self._held.pop(self._random.choice(list(self._held)))
        self._commits += 1
        wait = self._harness.signal_wait()
        now = self._harness.clock.now()
        outcomes: list[Outcome] = [
            Succeeded(Payload("1")),
            Succeeded(Payload("1")),
            HandedBack(),
            Parked(NEVER, "[]"),
            Parked(NEVER, "[]", release=True),
            Parked(now + 2_000_000, "[]"),
            Retrying(ErrorInfo("no", "no"), now + 2_000_000),
        ]
        outcome = self._random.choice(outcomes)
        opens = (wait,) if isinstance(outcome, Parked) else ()
        await store.commit(lease, Commit(self._commits, opens=opens, outcome=outcome))

    async def _trouble(self, store: SqliteStore) -> None:
        if not self.runs:
            return
        run_id = self._random.choice(self.runs)
        self._harness.clock.advance(self._random.choice([0, 0, 2]))
        match self._random.randrange(4):
            case 0:
                await store.cancel(run_id, by="ann")
            case 1:
                await store.pause(run_id, by="ann")
            case 2:
                run = await store.get(run_id)
                await store.resume(run_id, at_seq=run.life.seq, by="ann")
            case _:
                await store.signal(run_id, self._harness.signal())


@pytest.mark.parametrize("seed", range(8))
async def test_the_rows_agree_whatever_happens_at_once(
    harness: Harness, store: SqliteStore, path: Path, seed: int
) -> None:
    other = await harness.make()
    assert isinstance(other, SqliteStore)
    traffic = Traffic(harness, [store, other], seed)
    await traffic.open()
    for _ in range(60):
        await traffic.rush()
        assert faults(path) == []
    await traffic.drain()
    assert faults(path) == []
    assert ask(path, "SELECT count(*) FROM run WHERE ended_at IS NULL") == 0
    assert ask(path, "SELECT count(*) FROM ticket") == 0
    assert ask(path, "SELECT count(*) FROM lane WHERE taken <> 0") == 0
