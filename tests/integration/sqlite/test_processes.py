"""Several processes over one file: proofs of life and death, leases, and hints."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TypeAlias

import pytest

from stepwell.domain.commit import Commit
from stepwell.domain.errors import LeaseLost
from stepwell.domain.outcome import NEVER, Parked, Payload, Succeeded
from stepwell.domain.run import Lease
from stepwell.domain.submission import KEY_LANE, Lane
from stepwell.ports.notifier import CONTROL, QUEUE
from stepwell.ports.store import Control
from stepwell.ports.system_clock import SystemClock
from stepwell.stores.sqlite import worker_lock
from stepwell.stores.sqlite.store import SqliteStore
from stepwell.testing.conformance import Harness
from stepwell.testing.conformance.harness import append, beat, kinds, take, take_over
from tests.integration.sqlite.files import ask, change
from tests.integration.sqlite.neighbour import Neighbour

OTHER = "wrk_00000000000000000000000009"

Starter: TypeAlias = Callable[[], Awaitable[Neighbour]]


@pytest.fixture
async def neighbours(path: Path) -> AsyncIterator[Starter]:
    """A way to start processes that have the store open."""
    started: list[Neighbour] = []

    async def start() -> Neighbour:
        started.append(await Neighbour.start(path))
        return started[-1]

    yield start
    for neighbour in started:
        await neighbour.end()


@pytest.fixture
async def harness(path: Path) -> AsyncIterator[Harness]:
    """Stores over the file that live by the system's clock, as the other processes do."""
    harness = Harness(lambda _: SqliteStore(str(path)))
    yield harness
    await harness.close()


def lock_files(path: Path) -> list[str]:
    """The lock files beside the store."""
    return sorted(os.listdir(f"{path}-workers"))


class TestDeath:
    async def test_a_killed_worker_is_known_to_be_dead_at_once(
        self, harness: Harness, store: SqliteStore, neighbours: Starter, path: Path
    ) -> None:
        neighbour = await neighbours()
        await neighbour.ask("work", OTHER, 3600)
        run = await harness.submit(store, agent="audit", delay=-1e9)
        [[_, fence, _]] = await neighbour.ask("claim", OTHER)
        worker = await harness.worker(store)
        assert await take(store, worker) == [], "as long as it lives, what it holds is its own"
        await neighbour.kill()
        [claim] = await take_over(store, worker)
        assert (claim.run.id, claim.lease.fence) == (run.id, fence + 1)
        assert await kinds(store, run.id) == ["run.queued", "run.started", "run.lost", "run.started"]
        assert [info.id for info in await store.workers()] == [worker]
        assert ask(path, "SELECT id FROM worker") == worker
        assert lock_files(path) == [f"{worker}.lock"]

    async def test_idle_workers_that_were_killed_are_struck_off_by_the_next_one(
        self, harness: Harness, store: SqliteStore, neighbours: Starter, path: Path
    ) -> None:
        neighbour = await neighbours()
        await neighbour.ask("work", OTHER, 3600)
        assert [info.id for info in await store.workers()] == [OTHER]
        await neighbour.kill()
        assert await store.workers() == []
        worker = await harness.worker(store)
        assert ask(path, "SELECT id FROM worker") == worker
        assert lock_files(path) == [f"{worker}.lock"]

    async def test_a_frozen_worker_loses_its_runs_when_its_lease_is_over_and_learns_it(
        self, harness: Harness, store: SqliteStore, neighbours: Starter
    ) -> None:
        neighbour = await neighbours()
        await neighbour.ask("work", OTHER, 0.2)
        run = await harness.submit(store, delay=-1e9)
        [lease] = await neighbour.ask("claim", OTHER)
        neighbour.stop()
        [claim] = await take_over(store, await harness.worker(store))
        assert claim.run.life.expiries == 1
        assert await kinds(store, run.id) == ["run.queued", "run.started", "run.resumed"]
        neighbour.go_on()
        assert await neighbour.ask("append", lease, 1) == {"refused": "lease.lost"}
        assert len(await kinds(store, run.id)) == 3
        assert (await append(store, claim.lease, 1, "x")).seq == 4

    async def test_a_missing_lock_file_proves_nothing(self, harness: Harness, store: SqliteStore, path: Path) -> None:
        first, second = await harness.worker(store), await harness.worker(store)
        await harness.submit(store, delay=-1e9)
        assert len(await take(store, first)) == 1
        os.unlink(worker_lock.lock_path(f"{path}-workers", first))
        assert await take(store, second) == []
        assert {info.id for info in await store.workers()} == {first, second}

    async def test_every_process_of_another_boot_is_dead(
        self, harness: Harness, store: SqliteStore, path: Path
    ) -> None:
        first = await harness.worker(store)
        await harness.submit(store, delay=-1e9)
        assert len(await take(store, first)) == 1
        rebooted = SqliteStore(str(path), boot_id="another boot")
        await rebooted.open()
        [claim] = await take_over(rebooted, await harness.worker(rebooted))
        assert claim.run.life.lost == 1
        await rebooted.close()

    async def test_a_lease_of_a_clock_that_started_again_is_over(
        self, harness: Harness, store: SqliteStore, path: Path
    ) -> None:
        """Where the system names no boots, a lease that ends later than it can have begun gives it away."""
        first, second = await harness.worker(store), await harness.worker(store)
        await harness.submit(store, delay=-1e9)
        assert len(await take(store, first)) == 1
        change(path, f"UPDATE worker SET lease_until = lease_until + 3600000000 WHERE id = '{first}'")
        [claim] = await take(store, second)
        assert claim.run.life.expiries == 1

    async def test_proofs_are_not_looked_for_all_the_time(
        self, harness: Harness, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first, second = await harness.worker(store), await harness.worker(store)
        await harness.submit(store, delay=-1e9)
        assert len(await take(store, first)) == 1
        looked: list[str] = []
        monkeypatch.setattr(worker_lock, "is_dead", lambda _, worker_id: looked.append(worker_id))
        later = time.monotonic() + 1000
        monkeypatch.setattr(time, "monotonic", lambda: later)
        for _ in range(10):
            assert await take(store, second) == []
        assert looked == [first]

    async def test_what_a_process_left_that_died_while_registering_is_swept(
        self, harness: Harness, store: SqliteStore, path: Path
    ) -> None:
        first = await harness.worker(store)
        for name in ("wrk_unregistered.lock", "wrk_unfinished.lock.0a1b2c3d.new", "notes.txt"):
            (Path(f"{path}-workers") / name).touch()
        second = await harness.worker(store)
        assert lock_files(path) == sorted(["notes.txt", f"{first}.lock", f"{second}.lock"])

    async def test_a_worker_that_leaves_leaves_nothing(self, harness: Harness, store: SqliteStore, path: Path) -> None:
        await store.close_worker(await harness.worker(store))
        assert lock_files(path) == []
        assert ask(path, "SELECT count(*) FROM worker") == 0

    async def test_a_worker_that_left_stays_on_record_until_its_runs_are_taken(
        self, harness: Harness, store: SqliteStore, path: Path
    ) -> None:
        first, second = await harness.worker(store), await harness.worker(store)
        await harness.submit(store, delay=-1e9)
        assert len(await take(store, first)) == 1
        await store.close_worker(first)
        assert ask(path, "SELECT gone FROM worker WHERE id = ?", first) == "closed"
        assert len(await take(store, second)) == 1
        assert ask(path, "SELECT id FROM worker") == second

    async def test_runs_of_a_worker_that_was_never_registered_are_not_stuck(
        self, harness: Harness, store: SqliteStore
    ) -> None:
        await harness.submit(store, delay=-1e9)
        assert len(await take(store, "wrk_nobody")) == 1
        assert len(await take(store, await harness.worker(store))) == 1


class TestHeartbeats:
    async def test_they_do_not_wait_for_the_event_loop_or_the_writer(
        self, harness: Harness, store: SqliteStore, path: Path
    ) -> None:
        lease = await harness.started(store, delay=-1e9)
        before = ask(path, "SELECT lease_until FROM worker WHERE id = ?", lease.worker)
        transactions = store.stats().transactions
        heard = store.heartbeat(lease.worker, lease_seconds=60)  # on the loop's own thread: nothing else can run
        assert list(heard.held) == [lease.run_id]
        assert int(ask(path, "SELECT lease_until FROM worker WHERE id = ?", lease.worker)) > int(before)
        assert store.stats().transactions == transactions

    async def test_leases_are_on_the_scale_that_no_clock_jump_moves(
        self, harness: Harness, store: SqliteStore, path: Path
    ) -> None:
        worker = await harness.worker(store)
        await beat(store, worker, lease_seconds=30)
        until = int(ask(path, "SELECT lease_until FROM worker"))
        assert 0 < until - SystemClock().elapsed() * 1e6 <= 30_000_000

    async def test_a_worker_that_is_known_to_be_gone_cannot_come_back(
        self, harness: Harness, store: SqliteStore, path: Path
    ) -> None:
        worker = await harness.worker(store)
        change(path, "UPDATE worker SET gone = 'dead', lease_until = 7")
        await beat(store, worker)
        assert ask(path, "SELECT lease_until FROM worker") == 7


class TestHints:
    async def test_a_change_by_another_process_wakes_whoever_waits(
        self, harness: Harness, store: SqliteStore, neighbours: Starter
    ) -> None:
        neighbour = await neighbours()
        with store.notifier.listen(QUEUE) as listener:
            waiting = asyncio.create_task(listener.wait(30))
            await asyncio.sleep(0)
            await neighbour.ask("submit")
            assert await waiting

    async def test_it_works_both_ways(self, harness: Harness, store: SqliteStore, neighbours: Starter) -> None:
        neighbour = await neighbours()
        assert await neighbour.ask("wait", "run_anything") == "listening"
        await harness.submit(store)
        assert await neighbour.answer() is True

    async def test_a_change_that_comes_with_a_write_of_ones_own_is_not_missed(
        self, harness: Harness, store: SqliteStore, path: Path
    ) -> None:
        lease = await harness.started(store, delay=-1e9)
        other = await harness.submit(store, agent="other")
        with store.notifier.listen(other.id) as listener:
            change(path, f"UPDATE run SET cancelling = 1 WHERE id = '{other.id}'")
            await append(store, lease, 1, "x")
            assert await listener.wait(10)

    async def test_nobody_looks_while_nobody_waits(self, harness: Harness, store: SqliteStore) -> None:
        await harness.submit(store)
        before = store.stats().looks
        for _ in range(20):
            await asyncio.sleep(0.01)
        assert store.stats().looks == before
        with store.notifier.listen(QUEUE) as listener:
            assert not await listener.wait(0.1)
        assert store.stats().looks > before
        after = store.stats().looks
        for _ in range(5):
            await asyncio.sleep(0.01)
        assert store.stats().looks - after <= 1

    async def test_a_process_that_sleeps_deeply_wakes_up_for_a_new_listener(
        self, harness: Harness, store: SqliteStore, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("stepwell.stores.sqlite.writer._CHECKPOINT_AFTER_IDLE", 0.0)
        run = await harness.submit(store)
        async with asyncio.timeout(10):
            while not store.stats().checkpoints:
                await asyncio.sleep(0.01)
        with store.notifier.listen(run.id) as listener:
            waiting = asyncio.create_task(listener.wait(10))
            await asyncio.sleep(0)
            change(path, "UPDATE run SET priority = 1")
            assert await waiting

    async def test_hints_flow_while_the_writer_is_busy(
        self, harness: Harness, store: SqliteStore, neighbours: Starter
    ) -> None:
        neighbour = await neighbours()
        lease = await harness.started(store, delay=-1e9)
        writing = asyncio.create_task(_write_on(store, lease))
        with store.notifier.listen("run_of_somebody_else") as listener:
            neighbour.tell("submit")
            assert await listener.wait(10)
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        await neighbour.answer()


async def _write_on(store: SqliteStore, lease: Lease) -> None:
    number = 0
    while True:
        number += 1
        await append(store, lease, number, "x")


class TestTogether:
    async def test_two_processes_share_the_work_and_write_at_once(
        self, harness: Harness, store: SqliteStore, neighbours: Starter
    ) -> None:
        neighbour = await neighbours()
        await neighbour.ask("work", OTHER, 3600)
        for _ in range(10):
            await harness.submit(store, delay=-1e9)
        worker = await harness.worker(store)
        neighbour.tell("claim", OTHER)
        mine = await take(store, worker)
        theirs = await neighbour.answer()
        assert len(mine) + len(theirs) == 10
        assert not {claim.run.id for claim in mine} & {lease[0] for lease in theirs}
        for lease in theirs:
            neighbour.tell("append", lease, 1)
        answers = await asyncio.gather(*(append(store, claim.lease, 1, "x") for claim in mine))
        assert [answer.seq for answer in answers] == [3] * len(mine)
        assert [await neighbour.answer() for _ in theirs] == [3] * len(theirs)

    async def test_an_old_fence_is_refused_whoever_holds_it(
        self, harness: Harness, store: SqliteStore, neighbours: Starter
    ) -> None:
        neighbour = await neighbours()
        await neighbour.ask("work", OTHER, 3600)
        stale = await harness.started(store, delay=-1e9)
        await store.close_worker(stale.worker)
        [lease] = await neighbour.ask("claim", OTHER)
        with pytest.raises(LeaseLost):
            await append(store, stale, 1, "late")
        assert await neighbour.ask("append", lease, 1) == 4


class TestArrivals:
    async def test_signals_of_several_processes_reach_one_run_once_each(
        self, harness: Harness, store: SqliteStore, neighbours: Starter
    ) -> None:
        waits = [harness.signal_wait("go") for _ in range(5)]
        run = await harness.parked(store, *waits)
        others = [await neighbours() for _ in range(2)]
        sent = await asyncio.gather(*(other.ask("send_many", run.id, "go", 20) for other in others))
        assert sent == [20, 20]
        told = await kinds(store, run.id)
        assert (told.count("signal.received"), told.count("wait.closed")) == (40, 5)
        [claim] = await take(store, await harness.worker(store))
        assert claim.run.id == run.id

    async def test_one_of_several_answers_wins(self, harness: Harness, store: SqliteStore, neighbours: Starter) -> None:
        question = harness.question()
        run = await harness.parked(store, question)
        others = [await neighbours() for _ in range(2)]
        answers = await asyncio.gather(*(other.ask("answer", question.id) for other in others))
        assert sorted(map(str, answers)) == ["answered", "{'refused': 'question.answered'}"]
        assert (await kinds(store, run.id)).count("wait.closed") == 1

    async def test_an_arrival_from_elsewhere_is_not_slept_over(
        self, harness: Harness, store: SqliteStore, neighbours: Starter
    ) -> None:
        """The writer knows the run from its last commit; what another process wrote since counts all the same."""
        lease = await harness.started(store)
        opened = await store.commit(lease, Commit(1, opens=(harness.signal_wait("go"),)))
        neighbour = await neighbours()
        assert await neighbour.ask("send", lease.run_id, "go", 1)
        await store.commit(lease, Commit(2, outcome=Parked(NEVER, "[]", opened.seq)))
        [claim] = await take(store, await harness.worker(store))
        assert claim.run.id == lease.run_id


class TestRequests:
    async def test_a_cancel_from_elsewhere_is_heard_and_told(
        self, harness: Harness, store: SqliteStore, neighbours: Starter
    ) -> None:
        lease = await harness.started(store)
        neighbour = await neighbours()
        with store.notifier.listen(CONTROL) as listener:
            assert await neighbour.ask("cancel", lease.run_id) == "cancelling"
            assert await listener.wait(10)
        assert await store.controls(lease.worker) == {lease.run_id: (1, Control(cancelling=True))}
        assert (await append(store, lease, 1, "x")).control.cancelling

    async def test_a_parent_that_ends_here_ends_a_child_that_runs_elsewhere(
        self, harness: Harness, store: SqliteStore, neighbours: Starter
    ) -> None:
        lease = await harness.started(store)
        child = harness.child_of(await store.get(lease.run_id))
        await store.commit(lease, Commit(1, submits=(child,)))
        neighbour = await neighbours()
        await neighbour.ask("work", OTHER, 30)
        assert [claimed[0] for claimed in await neighbour.ask("claim", OTHER)] == [child.id]
        await store.commit(lease, Commit(2, outcome=Succeeded(Payload("1"))))
        assert await store.controls(OTHER) == {child.id: (1, Control(cancelling=True))}


class TestLanes:
    async def test_processes_together_keep_a_limit(
        self, harness: Harness, store: SqliteStore, neighbours: Starter, path: Path
    ) -> None:
        for _ in range(60):
            await harness.submit(store, lanes=(Lane(KEY_LANE, "eu", 2),), delay=-1e9)
        others = [await neighbours() for _ in range(2)]
        for number, other in enumerate(others):
            await other.ask("work", f"{OTHER[:-1]}{number}", 30)
        for number, other in enumerate(others):
            other.tell("pass_through", f"{OTHER[:-1]}{number}")
        spans = [span for other in others for span in await other.answer()]
        assert len(spans) == 60
        assert max(sum(began <= at < ended for began, ended in spans) for at, _ in spans) == 2
        assert ask(path, "SELECT count(*) FROM ticket") == 0
