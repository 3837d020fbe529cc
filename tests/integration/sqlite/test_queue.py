"""The queue in the file: what a claim reads does not grow with what it cannot take."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import apsw
import pytest

from stepwell.domain.commit import Commit
from stepwell.domain.errors import Busy
from stepwell.domain.outcome import HandedBack, TimedOut
from stepwell.domain.submission import KEY_LANE, Lane
from stepwell.ports.store import ClaimRequest
from stepwell.stores.sqlite import batch, claims, heartbeat, look, queries, statements, workers
from stepwell.stores.sqlite.store import SqliteStore
from stepwell.testing.conformance import Harness
from stepwell.testing.conformance.harness import AGENT, append, take
from tests.integration.sqlite.files import beside

NOTHING = json.dumps([])


def steps(path: Path, text: str, *arguments: Any) -> int:
    """How many instructions SQLite executes for a statement: time that no other process disturbs."""
    executed: list[int] = []
    with beside(path) as connection:
        connection.trace_v2(
            apsw.SQLITE_TRACE_PROFILE,
            lambda event: executed.append(event["stmt_status"]["SQLITE_STMTSTATUS_VM_STEP"]),
        )
        connection.execute(text, arguments).fetchall()
    return sum(executed)


async def backlog(harness: Harness, store: SqliteStore, number: int, **changes: Any) -> None:
    """That many runs in the queue."""
    await asyncio.gather(*(store.submit(harness.submission(**changes)) for _ in range(number)))


class TestCost:
    @pytest.mark.parametrize(
        "changes",
        [
            {"agent": "unserved"},
            {"delay": 3600},
            {"delay": 60, "priority": 100},
            {"delay": 60, "priority": -100},
            {"deadline": 2**60, "delay": 3600},
        ],
        ids=str,
    )
    async def test_a_look_does_not_read_what_cannot_be_taken(
        self, harness: Harness, store: SqliteStore, path: Path, changes: dict[str, Any]
    ) -> None:
        asked = json.dumps([AGENT]), harness.clock.now()
        await backlog(harness, store, 1, **changes)
        few = steps(path, look._LOOK, *asked)
        await backlog(harness, store, 1000, **changes)
        assert steps(path, look._LOOK, *asked) <= few * 1.5

    async def test_a_claim_reads_as_many_as_it_takes(self, harness: Harness, store: SqliteStore, path: Path) -> None:
        levels = json.dumps([(AGENT, 0)])
        await backlog(harness, store, 10)
        few = steps(path, claims._DUE, levels, harness.clock.now(), 5)
        await backlog(harness, store, 1000)
        assert steps(path, claims._DUE, levels, harness.clock.now(), 5) <= few * 1.5

    async def test_a_heartbeat_reads_what_the_worker_holds(
        self, harness: Harness, store: SqliteStore, path: Path
    ) -> None:
        lease = await harness.started(store)
        busy = await harness.worker(store)
        few = steps(path, heartbeat._HELD, lease.worker)
        await backlog(harness, store, 1000)
        await take(store, busy, limit=1000)
        assert steps(path, heartbeat._HELD, lease.worker) <= few * 1.5

    async def test_ended_runs_cost_nothing(self, harness: Harness, store: SqliteStore, path: Path) -> None:
        worker = await harness.worker(store)
        asked = json.dumps([AGENT]), harness.clock.now()
        few = steps(path, look._LOOK, *asked)
        await backlog(harness, store, 500, timeout=1)
        ended = Commit(1, outcome=TimedOut("timeout"), leased=10)
        await asyncio.gather(*(store.commit(claim.lease, ended) for claim in await take(store, worker, limit=500)))
        assert steps(path, look._LOOK, *asked) <= few * 1.5


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        (look._LOOK, (NOTHING, 0)),
        (look._LOST_AGENTS, (NOTHING,)),
        (claims._OVERDUE, (0, 1)),
        (claims._LOST, (NOTHING, NOTHING, 1, 0)),
        (claims._DUE, (NOTHING, 0, 1)),
        (workers._STRIKE_OFF, ()),
        (queries._GET, ("", "")),
        (queries._JOURNAL, ("", 0, 1)),
        (queries._LAST, ("", NOTHING)),
        (statements.LIVES_BY_ID, (NOTHING,)),
        (statements.RUNS_BY_ID, (NOTHING,)),
        (statements.KEYS, (NOTHING,)),
        (statements.COUNT_QUEUED, ()),
        (statements.JOURNALS, (NOTHING,)),
        (statements.LANDED, (1, 1, 1, "", "")),
    ],
)
async def test_no_statement_of_every_day_reads_all_runs_or_facts(
    store: SqliteStore, path: Path, text: str, arguments: tuple[Any, ...]
) -> None:
    with beside(path) as connection:
        plan = [str(row[3]) for row in connection.execute(f"EXPLAIN QUERY PLAN {text}", arguments).fetchall()]
    whole = [step for step in plan if step.startswith(("SCAN run", "SCAN journal")) and "INDEX run_" not in step]
    assert whole == []


class TestLongJournals:
    async def test_journals_longer_than_a_text_can_be_are_claimed_all_the_same(
        self, harness: Harness, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run = await harness.submit(store)
        worker = await harness.worker(store)
        [claim] = await take(store, worker)
        for number in range(1, 5):
            await append(store, claim.lease, number, "x" * 1000)
        await store.commit(claim.lease, Commit(5, outcome=HandedBack()))
        limited = batch.Batch.__init__

        def with_a_limit(self: batch.Batch, cursor: apsw.Cursor, *arguments: Any, **options: Any) -> None:
            cursor.connection.limit(apsw.SQLITE_LIMIT_LENGTH, 3000)
            limited(self, cursor, *arguments, **options)

        monkeypatch.setattr(batch.Batch, "__init__", with_a_limit)
        [claim] = await take(store, worker)
        assert claim.journal == await store.journal(run.id)


class TestOrder:
    async def test_priorities_are_merged_by_place(self, harness: Harness, store: SqliteStore) -> None:
        """One point of priority is worth 30 seconds: nothing starves."""
        old = await harness.submit(store)
        harness.clock.advance(29)
        young = await harness.submit(store, priority=1)
        harness.clock.advance(2)
        youngest = await harness.submit(store, priority=1)
        low = await harness.submit(store, priority=-1)
        worker = await harness.worker(store)
        taken = [(await take(store, worker, limit=1))[0].run.id for _ in range(4)]
        assert taken == [young.id, old.id, youngest.id, low.id]

    async def test_runs_of_many_agents_and_priorities_come_in_one_order(
        self, harness: Harness, store: SqliteStore
    ) -> None:
        worker = await harness.worker(store)
        runs = []
        for place in range(30):
            harness.clock.advance(7)
            runs.append(await harness.submit(store, agent=f"agent-{place % 3}", priority=place % 5))
        agents = [f"agent-{number}" for number in range(3)]
        taken = [claim.run.id for claim in await take(store, worker, limit=20, agents=agents)]
        by_place = sorted(runs, key=lambda run: run.life.available_at - run.priority * 30_000_000)
        assert taken == [run.id for run in by_place[:20]]


async def test_when_the_next_run_is_due_says_nothing_of_those_that_are(harness: Harness, store: SqliteStore) -> None:
    worker = await harness.worker(store)
    await backlog(harness, store, 3)
    later = await harness.submit(store, delay=60)
    claims_made = await store.claim(ClaimRequest(worker, 1, (AGENT,)))
    assert (len(claims_made.taken), claims_made.next_due_at) == (1, later.life.available_at)


class TestTheBound:
    @pytest.fixture
    def counted(self, monkeypatch: pytest.MonkeyPatch) -> list[int]:
        """What was found whenever all queued runs were counted."""
        found: list[int] = []
        count = batch.Batch._count

        def note(self: batch.Batch, bound: int) -> None:
            before = self._recall.counted_at
            count(self, bound)
            if self._recall.counted_at != before:
                found.append(self._recall.queued)

        monkeypatch.setattr(batch.Batch, "_count", note)
        return found

    async def test_it_is_kept_without_counting_every_time(
        self, harness: Harness, store: SqliteStore, counted: list[int]
    ) -> None:
        worker = await harness.worker(store)
        for _ in range(5):
            await harness.submit(store, queue_bound=5)
            harness.clock.advance(100)
        with pytest.raises(Busy):
            await harness.submit(store, queue_bound=5)
        [claim, *_] = await take(store, worker)
        await store.commit(claim.lease, Commit(1, outcome=HandedBack()))
        await harness.submit(store, queue_bound=2)
        with pytest.raises(Busy):
            await harness.submit(store, queue_bound=2)
        assert counted == [0]

    async def test_what_others_add_counts_at_once(
        self, harness: Harness, store: SqliteStore, counted: list[int]
    ) -> None:
        other = await harness.make()
        await harness.submit(other, queue_bound=4)
        for _ in range(3):
            await harness.submit(store, queue_bound=100)
        with pytest.raises(Busy):
            await harness.submit(other, queue_bound=4)
        assert counted == [0, 1]

    async def test_what_others_take_counts_after_a_second(
        self, harness: Harness, store: SqliteStore, counted: list[int]
    ) -> None:
        other = await harness.make()
        for _ in range(4):
            await harness.submit(other, queue_bound=4)
        await take(store, await harness.worker(store), limit=2)
        with pytest.raises(Busy):
            await harness.submit(other, queue_bound=4)
        harness.clock.advance(1)
        await harness.submit(other, queue_bound=4)
        assert counted == [0, 2]

    async def test_runs_in_line_for_a_lane_count(self, harness: Harness, store: SqliteStore) -> None:
        for _ in range(3):
            await harness.submit(store, queue_bound=3, lanes=(Lane(KEY_LANE, "eu", 1),))
        with pytest.raises(Busy):
            await harness.submit(store, queue_bound=3)
        other = await harness.make()
        with pytest.raises(Busy):
            await harness.submit(other, queue_bound=3)


async def test_what_a_claim_gives_includes_what_the_same_write_added(harness: Harness, store: SqliteStore) -> None:
    lease = await harness.started(store)
    worker = await harness.worker(store)
    await append(store, lease, 1, "x")
    handing_back = store.commit(lease, Commit(2, outcome=HandedBack()))
    _, claims_made = await asyncio.gather(handing_back, store.claim(ClaimRequest(worker, 1, (AGENT,))))
    [claim] = claims_made.taken
    told = [entry.kind for entry in claim.journal]
    assert told == ["run.queued", "run.started", "custom.note", "run.handed_back", "run.resumed"]
