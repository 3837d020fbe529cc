"""Runs that are connected with other rows cost a few statements for a whole batch; those that are not cost none."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Iterable
from pathlib import Path
from typing import Any

import apsw
import pytest

from stepwell.domain.commit import Commit
from stepwell.domain.outcome import NEVER, Parked, Payload, Succeeded
from stepwell.domain.run import Lease
from stepwell.domain.session import SessionMessage, SessionWrite
from stepwell.ports.store import QuestionQuery, RunQuery
from stepwell.stores.sqlite import claims, lanes, look, queries, sessions, signals, ties, transactions, waits
from stepwell.stores.sqlite.operations import Operation
from stepwell.stores.sqlite.store import SqliteStore
from stepwell.testing.conformance import Harness
from stepwell.testing.conformance.harness import append, take
from tests.integration.sqlite.files import beside

DONE = Commit(9, outcome=Succeeded(Payload("1")))


async def statements(store: SqliteStore, calls: Iterable[Awaitable[Any]]) -> list[str]:
    """What the writer has SQLite do for calls that are made together: the first words of each statement."""
    texts: list[str] = []
    connection = store._use().writer._transactions._connection  # type: ignore[union-attr]
    connection.trace_v2(apsw.SQLITE_TRACE_STMT, lambda event: texts.append(event["sql"]))
    await asyncio.gather(*calls)
    connection.trace_v2(0, None)
    return [" ".join(text.split()[:3]) for text in texts]


async def families(harness: Harness, store: SqliteStore, number: int) -> list[tuple[Lease, Lease]]:
    """That many parents that wait for a child each, and the child, in the hands of a worker."""
    worker = await harness.worker(store)
    pairs = []
    for _ in range(number):
        lease = await harness.started(store)
        child = harness.child_of(await store.get(lease.run_id))
        await store.commit(lease, Commit(1, submits=(child,), opens=(harness.child_wait(child.id),)))
        [claim] = await take(store, worker, only=(child.id,))
        pairs.append((lease, claim.lease))
    return pairs


class TestRunsWithoutTies:
    async def test_their_end_is_one_insert_and_one_update(self, harness: Harness, store: SqliteStore) -> None:
        lease = await harness.started(store)
        await append(store, lease, 1, "x")
        written = await statements(store, [store.commit(lease, DONE)])
        assert [text.split()[0] for text in written] == ["BEGIN", "INSERT", "UPDATE", "COMMIT"]

    async def test_their_submission_is_two_inserts(self, harness: Harness, store: SqliteStore) -> None:
        worker = await harness.worker(store)
        await store.submit(harness.submission(start_on=worker))
        written = await statements(store, [store.submit(harness.submission(start_on=worker))])
        assert [text.split()[:3] for text in written if not text.startswith(("BEGIN", "COMMIT"))] == [
            ["INSERT", "INTO", "run"],
            ["INSERT", "INTO", "journal"],
        ]

    async def test_a_write_that_is_not_the_first_after_a_loss_touches_no_index(
        self, harness: Harness, store: SqliteStore
    ) -> None:
        lease = await harness.started(store)
        store.abandon_worker(lease.worker)
        harness.clock.advance(31)
        [claim] = await take(store, await harness.worker(store))
        assert (await store.get(lease.run_id)).life.losses == 1
        await append(store, claim.lease, 1, "x")
        assert (await store.get(lease.run_id)).life.losses == 0


class TestManyAtOnce:
    """The number of statements does not grow with the number of operations."""

    async def _compare(self, harness: Harness, store: SqliteStore, make: Any) -> None:
        few = await statements(store, [call() for call in await make(harness, store, 3)])
        many = await statements(store, [call() for call in await make(harness, store, 30)])
        assert few[0] == "BEGIN IMMEDIATE"
        assert many == few

    async def test_signals(self, harness: Harness, store: SqliteStore) -> None:
        async def make(harness: Harness, store: SqliteStore, number: int) -> list[Any]:
            runs = [await harness.parked(store, harness.signal_wait()) for _ in range(number)]
            return [lambda run=run: store.signal(run.id, harness.signal()) for run in runs]

        await self._compare(harness, store, make)

    async def test_answers(self, harness: Harness, store: SqliteStore) -> None:
        async def make(harness: Harness, store: SqliteStore, number: int) -> list[Any]:
            questions = [harness.question() for _ in range(number)]
            for question in questions:
                await harness.parked(store, question)
            return [lambda each=each: store.answer(each.id, Payload("1"), by="ann") for each in questions]

        await self._compare(harness, store, make)

    async def test_waits_that_are_opened_and_taken(self, harness: Harness, store: SqliteStore) -> None:
        async def make(harness: Harness, store: SqliteStore, number: int) -> list[Any]:
            leases = [await harness.started(store) for _ in range(number)]
            for lease in leases:
                await store.signal(lease.run_id, harness.signal("early"))
            return [
                lambda lease=lease: store.commit(
                    lease, Commit(1, opens=(harness.signal_wait("early"), harness.question()))
                )
                for lease in leases
            ]

        await self._compare(harness, store, make)

    async def test_children_that_are_made(self, harness: Harness, store: SqliteStore) -> None:
        async def make(harness: Harness, store: SqliteStore, number: int) -> list[Any]:
            leases = [await harness.started(store) for _ in range(number)]
            children = [harness.child_of(await store.get(lease.run_id)) for lease in leases]
            return [
                lambda lease=lease, child=child: store.commit(
                    lease, Commit(1, submits=(child,), opens=(harness.child_wait(child.id),))
                )
                for lease, child in zip(leases, children, strict=True)
            ]

        await self._compare(harness, store, make)

    async def test_children_that_end(self, harness: Harness, store: SqliteStore) -> None:
        async def make(harness: Harness, store: SqliteStore, number: int) -> list[Any]:
            pairs = await families(harness, store, number)
            for parent, _ in pairs:
                await store.commit(parent, Commit(2, outcome=Parked(NEVER, "[]")))
            return [lambda child=child: store.commit(child, DONE) for _, child in pairs]

        await self._compare(harness, store, make)

    async def test_parents_that_end(self, harness: Harness, store: SqliteStore) -> None:
        async def make(harness: Harness, store: SqliteStore, number: int) -> list[Any]:
            return [
                lambda parent=parent: store.commit(parent, DONE) for parent, _ in await families(harness, store, number)
            ]

        await self._compare(harness, store, make)

    async def test_pauses(self, harness: Harness, store: SqliteStore) -> None:
        async def make(harness: Harness, store: SqliteStore, number: int) -> list[Any]:
            return [
                lambda parent=parent: store.pause(parent.run_id, by="ann")
                for parent, _ in await families(harness, store, number)
            ]

        await self._compare(harness, store, make)

    async def test_what_sessions_keep(self, harness: Harness, store: SqliteStore) -> None:
        async def make(harness: Harness, store: SqliteStore, number: int) -> list[Any]:
            leases = [await harness.started(store, session=f"cust-{n}") for n in range(number)]
            return [
                lambda lease=lease, n=n: store.commit(
                    lease,
                    Commit(
                        1,
                        writes=(SessionWrite(f"cust-{n}", "plan", Payload("1"), None),),
                        messages=(SessionMessage(f"cust-{n}", "user", Payload("1"), None),),
                    ),
                )
                for n, lease in enumerate(leases)
            ]

        await self._compare(harness, store, make)


async def test_a_family_of_many_generations_is_paused_with_one_look(harness: Harness, store: SqliteStore) -> None:
    lease = await harness.started(store)
    top = parent = await store.get(lease.run_id)
    worker = await harness.worker(store)
    for _ in range(6):
        child = harness.child_of(parent)
        await store.commit(lease, Commit(1, submits=(child,)))
        [claim] = await take(store, worker, only=(child.id,))
        parent, lease = claim.run, claim.lease
    looks = [text for text in await statements(store, [store.pause(top.id, by="ann")]) if text.startswith("WITH REC")]
    assert looks == ["WITH RECURSIVE family"]
    assert (await store.get(parent.id)).life.pausing == 1


async def test_what_ended_in_a_batch_is_known_to_the_waits_of_the_same_batch(
    harness: Harness, store: SqliteStore
) -> None:
    """No wake-up is lost between a child's end and a parent that waits for it in the same moment."""
    [(parent, child)] = await families(harness, store, 1)
    again = harness.child_wait(child.run_id)
    before = store.stats().transactions
    _, _, parked = await asyncio.gather(
        store.commit(child, DONE),
        store.commit(parent, Commit(2, opens=(again,))),
        store.commit(parent, Commit(3, outcome=Parked(NEVER, "[]", at_seq=2))),
    )
    assert store.stats().transactions == before + 1
    [claim] = await take(store, await harness.worker(store))
    assert (claim.run.id, claim.run.life.seq) == (parent.run_id, parked.seq + 1)


async def test_a_run_that_a_claim_ends_takes_its_children_with_it_before_they_are_claimed(
    harness: Harness, store: SqliteStore
) -> None:
    lease = await harness.started(store, deadline=harness.clock.now() + 5_000_000)
    child = harness.child_of(await store.get(lease.run_id))
    await store.commit(lease, Commit(1, submits=(child,)))
    harness.clock.advance(6)
    assert await take(store, await harness.worker(store)) == []
    assert [run.life.status for run in await store.find(RunQuery())] == ["cancelled", "timed_out"]


def _plain_texts(*modules: Any) -> list[tuple[str, str]]:
    """Every statement of these modules that needs nothing filled in."""
    found = []
    for module in modules:
        for name, text in vars(module).items():
            if isinstance(text, str) and re.match(r"\s*(SELECT|WITH|DELETE|UPDATE)\b", text) and "{" not in text:
                found.append((f"{module.__name__.rsplit('.', 1)[1]}.{name}", text))
    return found


EVERY_STATEMENT = _plain_texts(claims, lanes, look, queries, sessions, signals, ties, waits)
FOR_PEOPLE = ("queries._STATUSES", "queries._UNSERVED", "queries._BLOCKAGES")
LARGE = ("run", "journal", "wait", "signal", "ticket", "lane", "session", "session_value", "session_message")


@pytest.mark.parametrize(("name", "text"), EVERY_STATEMENT, ids=[name for name, _ in EVERY_STATEMENT])
async def test_no_statement_reads_a_whole_table(store: SqliteStore, path: Path, name: str, text: str) -> None:
    """Each goes through an index. What people ask for with `doctor` may take its time."""
    if name in FOR_PEOPLE:
        return
    places = max([text.count("?"), *map(int, re.findall(r"\?(\d)", text))])
    numbered = re.findall(r"\?(\d)", text)
    with beside(path) as connection:
        arguments = ["[]"] * (max(map(int, numbered)) if numbered else places)
        plan = [str(row[3]) for row in connection.execute(f"EXPLAIN QUERY PLAN {text}", arguments).fetchall()]
    assert plan
    whole = [step for step in plan if re.fullmatch(rf"SCAN ({'|'.join(LARGE)})( USING INDEX sqlite_auto.*)?", step)]
    assert whole == []


@pytest.mark.parametrize(
    ("query", "index"),
    [
        (QuestionQuery(), "wait_question"),
        (QuestionQuery(assignee="ann"), "wait_assigned"),
        (QuestionQuery(run_id="run_1"), "wait_open"),
    ],
    ids=["all", "assignee", "run"],
)
async def test_open_questions_are_found_by_an_index(
    store: SqliteStore, path: Path, query: QuestionQuery, index: str
) -> None:
    assert index in await _plan(store, path, lambda connection: queries.questions(connection, query))


async def test_children_are_found_by_an_index(store: SqliteStore, path: Path) -> None:
    assert "run_family" in await _plan(
        store, path, lambda connection: queries.find(connection, RunQuery(parent="run_1"))
    )


async def _plan(store: SqliteStore, path: Path, ask: Any) -> str:
    """How SQLite goes about a question."""
    texts: list[str] = []
    with beside(path) as connection:
        connection.trace_v2(apsw.SQLITE_TRACE_STMT, lambda event: texts.append(event["sql"]))
        ask(connection)
        connection.trace_v2(0, None)
        [text] = texts
        arguments = [1] * text.count("?")
        return "\n".join(str(row[3]) for row in connection.execute(f"EXPLAIN QUERY PLAN {text}", arguments).fetchall())


def test_every_kind_of_write_has_its_crash_points() -> None:
    def kinds(operation: type[Operation]) -> set[str]:
        known = {operation.kind} if "kind" in vars(operation) else set()
        return known.union(*(kinds(each) for each in operation.__subclasses__()))

    assert kinds(Operation) == set(transactions._KINDS)
