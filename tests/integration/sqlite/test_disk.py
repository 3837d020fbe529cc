"""Disks that are full or broken, and locks that others hold too long."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import apsw
import pytest

from stepwell.domain.errors import StoreFull, StoreUnavailable, StoreUnusable
from stepwell.ports.store import ClaimRequest, RunQuery
from stepwell.stores.sqlite import errors
from stepwell.stores.sqlite.connection import Patience
from stepwell.stores.sqlite.store import SqliteStore
from stepwell.testing.conformance import Harness
from stepwell.testing.conformance.harness import AGENT, append, beat, events, take
from tests.integration.sqlite.faulty_disk import FaultyDisk
from tests.integration.sqlite.files import ask, beside, fingerprint, make_store


@pytest.fixture
def disk() -> FaultyDisk:
    return FaultyDisk()


@pytest.fixture
async def harness(path: Path, disk: FaultyDisk) -> AsyncIterator[Harness]:
    harness = Harness(lambda clock: SqliteStore(str(path), clock=clock, vfs=disk.name))
    yield harness
    disk.full = disk.broken = False
    await harness.close()


class TestNoSpace:
    async def test_writes_are_refused_and_reads_go_on(
        self, harness: Harness, store: SqliteStore, disk: FaultyDisk
    ) -> None:
        worker = await harness.worker(store)
        held = [await harness.started(store) for _ in range(3)]
        disk.full = True
        answers = await asyncio.gather(
            *(append(store, lease, 1, "x") for lease in held),
            store.submit(harness.submission()),
            return_exceptions=True,
        )
        assert [type(answer) for answer in answers] == [StoreFull] * 4
        error = answers[0]
        assert isinstance(error, StoreFull)
        assert (error.code, error.retryable) == ("store.full", True)
        assert error.hint
        assert [len(await events(store, lease.run_id)) for lease in held] == [2, 2, 2]
        assert worker in [info.id for info in await store.workers()]
        harness.clock.advance(1)
        with pytest.raises(StoreFull):
            await beat(store, worker)

    async def test_it_goes_on_by_itself_when_space_returns(
        self, harness: Harness, store: SqliteStore, disk: FaultyDisk, path: Path
    ) -> None:
        lease = await harness.started(store)
        disk.full = True
        with pytest.raises(StoreFull):
            await append(store, lease, 1, "x")
        disk.full = False
        assert (await append(store, lease, 1, "x")).seq == 3
        assert ask(path, "PRAGMA integrity_check") == "ok"

    async def test_a_claim_that_cannot_be_written_is_not_made(
        self, harness: Harness, store: SqliteStore, disk: FaultyDisk
    ) -> None:
        worker = await harness.worker(store)
        run = await harness.submit(store)
        disk.full = True
        with pytest.raises(StoreFull):
            await take(store, worker)
        assert (await store.get(run.id)).life.status == "queued"
        disk.full = False
        assert [claim.run.id for claim in await take(store, worker)] == [run.id]

    async def test_a_blob_that_does_not_fit_is_not_there(
        self, harness: Harness, store: SqliteStore, disk: FaultyDisk
    ) -> None:
        disk.full = True
        with pytest.raises(StoreFull):
            await store.put_blob(b"x" * 1_000_000)
        disk.full = False
        assert len(await store.get_blob(await store.put_blob(b"x" * 1_000_000))) == 1_000_000


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB of its own where mounting is allowed, else an ordinary folder."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", "size=2m", "stepwell-test", str(folder)]
    mounted = os.getuid() == 0 and subprocess.run(mounting, capture_output=True).returncode == 0
    yield folder
    if mounted:
        subprocess.run(["umount", str(folder)], check=True)


@contextlib.contextmanager
def filled(folder: Path, disk: FaultyDisk) -> Iterator[None]:
    """No space is left: on the small disk itself, or because the faulty one says so."""
    if not folder.is_mount():
        disk.full = True
        yield
        disk.full = False
        return
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 4096)
    yield
    filler.unlink()


class TestAFileSystemThatIsFull:
    async def test_everything_acknowledged_is_there_when_space_returns(
        self, small_disk: Path, disk: FaultyDisk
    ) -> None:
        path = small_disk / "data.db"
        vfs = None if small_disk.is_mount() else disk.name
        harness = Harness(lambda clock: SqliteStore(str(path), clock=clock, vfs=vfs))
        store = await harness.make()
        lease = await harness.started(store)
        acknowledged = 0
        with filled(small_disk, disk):
            while True:
                try:
                    await append(store, lease, acknowledged + 1, "x" * 2000)
                except StoreFull:
                    break
                acknowledged += 1
            assert len(await events(store, lease.run_id)) == 2 + acknowledged
        for number in range(acknowledged + 1, acknowledged + 11):
            await append(store, lease, number, "x" * 2000)
        assert len(await events(store, lease.run_id)) == 2 + acknowledged + 10
        await harness.close()
        assert ask(path, "PRAGMA integrity_check") == "ok"

    async def test_a_store_that_has_no_room_to_begin_with_is_not_made(self, small_disk: Path, disk: FaultyDisk) -> None:
        vfs = None if small_disk.is_mount() else disk.name
        with filled(small_disk, disk):
            with pytest.raises(StoreFull):
                await SqliteStore(str(small_disk / "data.db"), vfs=vfs).open()
            assert [entry.name for entry in small_disk.iterdir() if entry.name != "filler"] == []


class _IndexCannotGrow(apsw.IOError):
    extendedresult = apsw.SQLITE_IOERR_SHMSIZE


def test_a_log_whose_index_cannot_grow_is_a_full_disk() -> None:
    assert isinstance(errors.translate(_IndexCannotGrow("disk I/O error"), "data.db"), StoreFull)


class TestABrokenDisk:
    async def test_after_a_failed_flush_nothing_is_written(
        self, harness: Harness, store: SqliteStore, disk: FaultyDisk
    ) -> None:
        """A flush that failed must not be tried again: the second one may say yes without having written anything."""
        lease = await harness.started(store)
        disk.broken = True
        with pytest.raises(StoreUnusable) as raised:
            await append(store, lease, 1, "x")
        assert raised.value.code == "store.io_error"
        disk.broken = False
        flushes = disk.flushes
        for _ in range(3):
            with pytest.raises(StoreUnusable) as raised:
                await harness.submit(store)
            assert raised.value.code == "store.io_error"
        assert disk.flushes == flushes
        assert (await store.get(lease.run_id)).id == lease.run_id

    async def test_after_opening_again_what_was_acknowledged_is_there(
        self, harness: Harness, store: SqliteStore, disk: FaultyDisk
    ) -> None:
        lease = await harness.started(store)
        await append(store, lease, 1, "kept")
        disk.broken = True
        with pytest.raises(StoreUnusable):
            await append(store, lease, 2, "unknown")
        disk.broken = False
        again = await harness.reopen()
        told = [entry.data for entry in await events(again, lease.run_id)]
        assert told[2] == '{"text":"kept"}'
        await append(again, lease, 2, "unknown")
        assert len(await events(again, lease.run_id)) == 4


class TestDamageFoundLater:
    async def test_it_stops_the_store_and_leaves_the_file(self, path: Path) -> None:
        await make_store(path, runs=50)
        root = int(ask(path, "SELECT rootpage FROM sqlite_schema WHERE name = 'run'"))
        content = bytearray(path.read_bytes())
        content[(root - 1) * 4096 : root * 4096] = os.urandom(4096)
        path.write_bytes(content)
        harness = Harness(lambda clock: SqliteStore(str(path), clock=clock))
        store = await harness.make()
        with pytest.raises(StoreUnusable) as raised:
            await harness.submit(store)
        assert raised.value.code == "store.damaged"
        before = fingerprint(path)
        with pytest.raises(StoreUnusable):
            await store.find(_all())
        with pytest.raises(StoreUnusable):
            await harness.submit(store)
        await harness.close()
        assert fingerprint(path) == before

    async def test_doctor_is_told(self, path: Path) -> None:
        await make_store(path, runs=50)
        index = int(ask(path, "SELECT rootpage FROM sqlite_schema WHERE name = 'run_session'"))
        content = bytearray(path.read_bytes())
        content[(index - 1) * 4096 + 2000 : index * 4096] = os.urandom(2096)
        path.write_bytes(content)
        store = SqliteStore(str(path))
        await store.open()
        assert any("damaged" in problem for problem in (await store.report()).problems)
        await store.close()


class TestLocksOfOthers:
    @pytest.fixture
    def hold(self, path: Path) -> Iterator[Callable[[], apsw.Connection]]:
        """Another program that holds the write lock."""
        with contextlib.ExitStack() as stack:

            def begin() -> apsw.Connection:
                connection = stack.enter_context(beside(path))
                connection.execute("BEGIN IMMEDIATE")
                return connection

            yield begin

    async def test_a_write_waits_for_its_turn(
        self, harness: Harness, store: SqliteStore, hold: Callable[[], apsw.Connection]
    ) -> None:
        holder = hold()
        writing = asyncio.create_task(harness.submit(store))
        assert await store.find(_all()) == []
        holder.execute("COMMIT")
        assert (await writing).life.status == "queued"

    async def test_it_gives_up_in_the_end(
        self, harness: Harness, store: SqliteStore, hold: Callable[[], apsw.Connection]
    ) -> None:
        holder = hold()
        store._patience.seconds = 0.05
        with pytest.raises(StoreUnavailable) as raised:
            await harness.submit(store)
        assert (raised.value.code, raised.value.retryable) == ("store.busy", True)
        holder.execute("COMMIT")
        assert (await harness.submit(store)).life.status == "queued"

    async def test_nothing_to_claim_needs_no_lock(
        self, harness: Harness, store: SqliteStore, hold: Callable[[], apsw.Connection]
    ) -> None:
        worker = await harness.worker(store)
        later = await harness.submit(store, delay=60)
        transactions = store.stats().transactions
        hold()
        store._patience.seconds = 0
        claims = await store.claim(ClaimRequest(worker, 10, (AGENT,)))
        assert claims == ([], later.life.available_at, False)
        assert store.stats().transactions == transactions

    async def test_closing_is_bounded(
        self,
        harness: Harness,
        store: SqliteStore,
        hold: Callable[[], apsw.Connection],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr("stepwell.stores.sqlite.store.CLOSING_PATIENCE_SECONDS", 0.05)
        hold()
        writing = asyncio.create_task(harness.submit(store))
        await asyncio.sleep(0)
        async with asyncio.timeout(10):
            await store.close()
        with pytest.raises(StoreUnavailable):
            await writing

    def test_patience_looks_often_and_ends(self) -> None:
        patience = Patience(0.02)
        tries = 0
        while patience(tries):
            tries += 1
        assert 3 <= tries <= 100


def _all() -> RunQuery:

    return RunQuery()
