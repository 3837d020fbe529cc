"""Writes that wait together share a transaction, and what one of them does wrong is its own affair."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw
import pytest

from stepwell.domain.commit import Commit
from stepwell.domain.errors import Busy, Conflict, LeaseLost, NotFound, StepwellError, StoreError
from stepwell.domain.outcome import HandedBack, Payload, Succeeded
from stepwell.domain.run import Lease
from stepwell.ports import crash_point
from stepwell.ports.store import ClaimRequest
from stepwell.stores.sqlite.batch import Batch
from stepwell.stores.sqlite.operations import Append
from stepwell.stores.sqlite.statements import ROWS_AT_ONCE
from stepwell.stores.sqlite.store import SqliteStore
from stepwell.stores.sqlite.transactions import Transactions
from stepwell.testing.conformance import Harness
from stepwell.testing.conformance.harness import AGENT, append, events, kinds, note, take
from tests.integration.sqlite.files import ask, change


@pytest.fixture
async def worker(harness: Harness, store: SqliteStore) -> str:
    return await harness.worker(store)


async def leases(harness: Harness, store: SqliteStore, worker: str, number: int) -> list[Lease]:
    """That many runs in the hands of the worker."""
    submitted = [store.submit(harness.submission(start_on=worker)) for _ in range(number)]
    return [answer.lease for answer in await asyncio.gather(*submitted) if answer.lease]


class TestOneTransactionForAll:
    @pytest.mark.parametrize("number", [1, 2, 50, ROWS_AT_ONCE, ROWS_AT_ONCE + 1, 500])
    async def test_writes_of_one_moment(self, harness: Harness, store: SqliteStore, worker: str, number: int) -> None:
        held = await leases(harness, store, worker, number)
        before = store.stats()
        await asyncio.gather(*(append(store, lease, 1, str(place)) for place, lease in enumerate(held)))
        after = store.stats()
        assert after.operations - before.operations == number
        assert after.transactions - before.transactions == 1
        assert after.largest == number
        for place, lease in enumerate(held):
            [last] = await store.journal(lease.run_id, after=2)
            assert (last.seq, last.data) == (3, f'{{"text":"{place}"}}')

    async def test_writes_that_arrive_meanwhile_gather(self, harness: Harness, store: SqliteStore, worker: str) -> None:
        held = await leases(harness, store, worker, 50)
        before = store.stats().transactions

        async def write_ten(lease: Lease) -> None:
            for number in range(1, 11):
                await append(store, lease, number, "x")

        await asyncio.gather(*map(write_ten, held))
        assert store.stats().transactions - before <= 100
        assert [len(await events(store, lease.run_id)) for lease in held] == [12] * 50

    async def test_writes_of_one_run_are_joined_in_order(
        self, harness: Harness, store: SqliteStore, worker: str
    ) -> None:
        [lease] = await leases(harness, store, worker, 1)
        before = store.stats().transactions
        answers = await asyncio.gather(
            *(append(store, lease, number, str(number), "again") for number in range(1, 6)),
            store.commit(lease, Commit(6, (note("last"),), Succeeded(Payload("1")))),
        )
        assert store.stats().transactions - before <= 2, (
            "the first may go ahead, when the writer has nothing else to do"
        )
        assert [answer.seq for answer in answers] == [4, 6, 8, 10, 12, 14]
        told = [entry.data for entry in await events(store, lease.run_id)][2::2]
        assert told == [*(f'{{"text":"{number}"}}' for number in range(1, 6)), '{"text":"last"}']

    async def test_everything_at_once(self, harness: Harness, store: SqliteStore, worker: str) -> None:
        """Writes of all kinds in one transaction see each other, and claims see them all."""
        [lease, _] = await leases(harness, store, worker, 2)
        queued = harness.submission(agent="other")
        before = store.stats().transactions
        submitted, claimed, ended = await asyncio.gather(
            store.submit(queued),
            store.claim(ClaimRequest(worker, 10, ("other",))),
            store.commit(lease, Commit(1, outcome=Succeeded(Payload("1")))),
        )
        assert store.stats().transactions - before == 1
        assert submitted.run.life.status == "queued"
        assert [claim.run.id for claim in claimed.taken] == [queued.id]
        assert [entry.kind for entry in claimed.taken[0].journal] == ["run.queued", "run.started"]
        assert ended.seq == 3

    async def test_a_run_starts_at_once_only_if_nothing_of_the_same_moment_is_ahead(
        self, harness: Harness, store: SqliteStore, worker: str
    ) -> None:
        def ready(**changes: Any) -> Any:
            return store.submit(harness.submission(start_on=worker, **changes))

        plain = store.submit(harness.submission())
        first, behind, ahead, other = await asyncio.gather(plain, ready(), ready(priority=1), ready(agent="other"))
        assert [answer.lease is None for answer in (first, behind, ahead, other)] == [True, True, False, False]

    async def test_a_run_that_is_handed_back_in_the_same_moment_is_ahead(
        self, harness: Harness, store: SqliteStore, worker: str
    ) -> None:
        held = await leases(harness, store, worker, 3)
        _, submitted = await asyncio.gather(
            store.commit(held[0], Commit(1, outcome=HandedBack())),
            store.submit(harness.submission(start_on=worker)),
        )
        assert submitted.lease is None
        assert [claim.run.id for claim in await take(store, worker)] == [held[0].run_id, submitted.run.id]

    async def test_a_hint_comes_after_the_write(self, harness: Harness, store: SqliteStore, worker: str) -> None:
        [lease] = await leases(harness, store, worker, 1)
        with store.notifier.listen(lease.run_id) as listener:
            writing = asyncio.create_task(append(store, lease, 1, "x"))
            assert await listener.wait(10)
            assert [entry.seq for entry in await store.journal(lease.run_id, after=2)] == [3]
            await writing


class TestRefusals:
    async def test_a_refused_write_harms_no_other(self, harness: Harness, store: SqliteStore, worker: str) -> None:
        held = await leases(harness, store, worker, 3)
        stale = held[1]._replace(fence=7)
        unknown = Lease("run_unknown", 1, worker)
        taken = harness.submission(idempotency_key="k", input_digest="a")
        answers = await asyncio.gather(
            append(store, held[0], 1, "x"),
            append(store, stale, 1, "late"),
            append(store, unknown, 1, "lost"),
            append(store, held[2], 1, "x"),
            store.submit(taken),
            store.submit(harness.submission(idempotency_key="k", input_digest="b")),
            store.submit(harness.submission(queue_bound=0)),
            return_exceptions=True,
        )
        refused = [type(answer) for answer in answers if isinstance(answer, Exception)]
        assert refused == [LeaseLost, NotFound, Conflict, Busy]
        assert (store.stats().largest, store.stats().reruns) == (7, 0)
        assert [len(await events(store, lease.run_id)) for lease in held] == [3, 2, 3]

    async def test_each_is_tried_alone_when_the_batch_breaks(
        self, harness: Harness, store: SqliteStore, worker: str, path: Path
    ) -> None:
        """A write that breaks the rules of the schema is found out, whatever made it."""
        held = await leases(harness, store, worker, 10)
        change(path, f"UPDATE journal SET seq = 3 WHERE seq = 2 AND run = {_number(path, held[4])}")
        answers = await asyncio.gather(*(append(store, lease, 1, "x") for lease in held), return_exceptions=True)
        [error] = [answer for answer in answers if isinstance(answer, Exception)]
        assert answers.index(error) == 4
        assert isinstance(error, StoreError)
        assert error.code == "store.unexpected"
        assert store.stats().reruns == 10
        assert [len(await store.journal(lease.run_id)) for lease in held] == [3, 3, 3, 3, 2, 3, 3, 3, 3, 3]

    async def test_a_fault_in_one_operation_fails_that_one(
        self, harness: Harness, store: SqliteStore, worker: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        held = await leases(harness, store, worker, 3)
        apply = Append.apply

        def broken(self: Append, batch: Batch) -> None:
            apply(self, batch)
            if self._lease == held[1]:
                raise ZeroDivisionError

        monkeypatch.setattr(Append, "apply", broken)
        answers = await asyncio.gather(*(append(store, lease, 1, "x") for lease in held), return_exceptions=True)
        assert isinstance(answers[1], ZeroDivisionError)
        assert [len(await events(store, lease.run_id)) for lease in held] == [3, 2, 3]

    async def test_what_refused_an_operation_in_a_batch_that_broke_is_forgotten(
        self, harness: Harness, store: SqliteStore
    ) -> None:
        broken = harness.submission(idempotency_key="k", input_digest="a", metadata="\ud800")
        other = harness.submission(idempotency_key="k", input_digest="b")
        answers = await asyncio.gather(store.submit(broken), store.submit(other), return_exceptions=True)
        assert isinstance(answers[0], UnicodeEncodeError)
        assert not isinstance(answers[1], BaseException)
        assert answers[1].run == await store.get(other.id)

    async def test_a_submission_that_had_landed_is_not_made_twice(
        self, harness: Harness, store: SqliteStore, worker: str
    ) -> None:
        """The same id again is the same submission, whose answer got lost: with its lease, while nothing was done."""
        submission = harness.submission(start_on=worker, idempotency_key="k")
        first = await store.submit(submission)
        again = await store.submit(submission._replace(idempotency_key=None))
        assert (again.run, again.lease) == (first.run, first.lease)
        assert first.lease is not None
        await append(store, first.lease, 1, "x")
        assert (await store.submit(submission._replace(idempotency_key=None))).lease is None
        assert len(await events(store, submission.id)) == 3


class TestLostAnswers:
    """A commit whose result is not known is looked up in the file."""

    @pytest.fixture
    def commit(self, monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
        """Have the next commit report an error, after it has landed or instead of it."""
        real = Transactions._commit

        def arm(lands: bool) -> None:
            def broken(self: Transactions, batch: Batch) -> None:
                monkeypatch.setattr(Transactions, "_commit", real)
                connection = self._connection
                if lands:
                    connection.execute("COMMIT")
                else:
                    connection.execute("ROLLBACK")
                self._connection = _Failing(connection)  # type: ignore[assignment]
                try:
                    real(self, batch)
                finally:
                    self._connection = connection

            monkeypatch.setattr(Transactions, "_commit", broken)

        return arm

    @pytest.mark.parametrize("lands", [True, False])
    async def test_of_writes(
        self, harness: Harness, store: SqliteStore, worker: str, commit: Callable[[bool], None], lands: bool
    ) -> None:
        held = await leases(harness, store, worker, 3)
        commit(lands)
        answers = await asyncio.gather(*(append(store, lease, 1, "x") for lease in held))
        assert [answer.seq for answer in answers] == [3, 3, 3]
        assert [len(await events(store, lease.run_id)) for lease in held] == [3, 3, 3]
        assert store.stats().reruns == (0 if lands else 3)

    @pytest.mark.parametrize("lands", [True, False])
    async def test_of_claims_and_submissions(
        self, harness: Harness, store: SqliteStore, worker: str, commit: Callable[[bool], None], lands: bool
    ) -> None:
        waiting = await harness.submit(store, agent="other")
        commit(lands)
        submitted, claimed = await asyncio.gather(
            store.submit(harness.submission(start_on=worker)),
            store.claim(ClaimRequest(worker, 10, ("other",))),
        )
        assert submitted.lease is not None
        assert [claim.run.id for claim in claimed.taken] == [waiting.id]
        assert await kinds(store, waiting.id) == ["run.queued", "run.started"]
        assert await kinds(store, submitted.run.id) == ["run.queued", "run.started"]


class _Failing:
    """A connection that reports an error at every commit."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection

    def execute(self, text: str, *arguments: Any) -> Any:
        if text == "COMMIT":
            raise apsw.InterruptError("interrupted")
        return self._connection.execute(text, *arguments)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    async def test_an_answer_that_is_lost_on_the_way_keeps_nobody_waiting(
        self, harness: Harness, store: SqliteStore, worker: str
    ) -> None:
        held = await leases(harness, store, worker, 2)

        def fail(name: str) -> None:
            if name == "batch.before_reply":
                crash_point.install(None)
                raise ZeroDivisionError

        crash_point.install(fail)
        answers = await asyncio.gather(*(append(store, lease, 1, "x") for lease in held), return_exceptions=True)
        assert [type(answer) for answer in answers] == [ZeroDivisionError, ZeroDivisionError]
        again = await asyncio.gather(*(append(store, lease, 1, "x") for lease in held))
        assert [answer.seq for answer in again] == [3, 3]


class TestCallersThatGoAway:
    async def test_what_a_cancelled_claim_took_is_handed_back(
        self, harness: Harness, store: SqliteStore, worker: str
    ) -> None:
        run = await harness.submit(store)
        claiming = asyncio.create_task(store.claim(ClaimRequest(worker, 10, (AGENT,))))
        await asyncio.sleep(0)
        claiming.cancel()
        [claim] = await _taken_when_free(store, worker)
        assert claim.run.id == run.id
        told = [entry.kind for entry in claim.journal]
        assert told == ["run.queued", "run.started", "run.handed_back", "run.resumed"]

    async def test_a_run_that_started_for_a_cancelled_submission_is_handed_back(
        self, harness: Harness, store: SqliteStore, worker: str
    ) -> None:
        submitting = asyncio.create_task(store.submit(harness.submission(start_on=worker)))
        await asyncio.sleep(0)
        submitting.cancel()
        [claim] = await _taken_when_free(store, worker)
        assert claim.lease.fence == 2

    async def test_closing_finishes_what_was_accepted(self, harness: Harness, store: SqliteStore, path: Path) -> None:
        submitting = [asyncio.create_task(store.submit(harness.submission())) for _ in range(20)]
        await asyncio.sleep(0)
        await store.close()
        assert len(await asyncio.gather(*submitting)) == 20
        assert ask(path, "SELECT count(*) FROM run") == 20


async def _taken_when_free(store: SqliteStore, worker: str) -> list[Any]:
    async with asyncio.timeout(10):
        while not (taken := await take(store, worker)):
            await asyncio.sleep(0.01)
    return taken


class TestWhatTheWriterRemembers:
    """Rows are kept between transactions only while no other connection writes."""

    async def test_a_foreign_write_is_seen(self, harness: Harness, store: SqliteStore, worker: str, path: Path) -> None:
        [lease] = await leases(harness, store, worker, 1)
        await append(store, lease, 1, "x")
        change(path, "UPDATE run SET cancelling = 1")
        assert (await append(store, lease, 2, "x")).control.cancelling

    async def test_a_foreign_claim_is_seen(self, harness: Harness, store: SqliteStore, worker: str) -> None:
        [lease] = await leases(harness, store, worker, 1)
        other = await harness.make()
        harness.clock.advance(31)
        [claim] = await take(other, await harness.worker(other))
        with pytest.raises(LeaseLost):
            await append(store, lease, 1, "late")
        await append(other, claim.lease, 1, "x")
        assert (await append(other, claim.lease, 2, "y")).seq == 5

    async def test_a_batch_that_was_rolled_back_is_forgotten(
        self, harness: Harness, store: SqliteStore, worker: str
    ) -> None:
        held = await leases(harness, store, worker, 2)
        await asyncio.gather(*(append(store, lease, 1, "x") for lease in held))

        def fail(name: str) -> None:
            crash_point.install(None)
            raise StepwellError(name)

        crash_point.install(fail)
        answers = await asyncio.gather(*(append(store, lease, 2, "y") for lease in held))
        assert [answer.seq for answer in answers] == [4, 4]
        assert store.stats().reruns == 2

    async def test_writing_on_reads_nothing(self, harness: Harness, store: SqliteStore, worker: str) -> None:
        [lease] = await leases(harness, store, worker, 1)
        statements: list[str] = []
        connection = store._use().writer._transactions._connection  # type: ignore[union-attr]
        connection.trace_v2(apsw.SQLITE_TRACE_STMT, lambda event: statements.append(event["sql"]))
        await append(store, lease, 1, "x")
        connection.trace_v2(0, None)
        assert [text.split()[0] for text in statements] == ["BEGIN", "INSERT", "UPDATE", "COMMIT"]


def _number(path: Path, lease: Lease) -> int:
    return int(ask(path, "SELECT n FROM run WHERE id = ?", lease.run_id))
