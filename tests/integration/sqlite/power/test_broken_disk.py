"""A disk that breaks under a store that is in use: it is written no more, and whoever works on it says so and ends."""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from stepwell.domain.errors import StoreFull, StoreUnusable
from stepwell.ports import system_clock
from stepwell.stores.sqlite import connection, doubt
from stepwell.stores.sqlite.store import SqliteStore
from stepwell.testing.conformance import Harness
from stepwell.testing.conformance.harness import append, beat, events
from tests.acceptance.audit import audit, output_of
from tests.integration.sqlite.power.failing_disk import FailingDisk, Kind

PROGRAM = Path(__file__).with_name("worker_on_disk.py")
PATIENCE = 60
WRITES: Kind = "write"
SYNCS: Kind = "sync"


@pytest.fixture
def disk() -> FailingDisk:
    """One whose writes to the database itself can fail, not those to its log."""
    return FailingDisk(counts=(WRITES,), only="data.db")


@pytest.fixture
async def harness(folder: Path, disk: FailingDisk) -> AsyncIterator[Harness]:
    harness = Harness(lambda clock: disk.store(str(folder / "data.db"), clock=clock))
    with disk.at_work():
        yield harness
        disk.lift()
        await harness.close()


async def _is_refused(harness: Harness, store: SqliteStore, disk: FailingDisk, worker: str) -> None:
    """Nothing is written any more, heartbeats included, and that takes no further look at the disk."""
    tried = disk.count
    for _ in range(3):
        with pytest.raises(StoreUnusable) as raised:
            await harness.submit(store)
        assert raised.value.code == "store.io_error"
        with pytest.raises(StoreUnusable):
            await beat(store, worker)
    await store.close()
    assert disk.count == tried


class TestMovingTheLog:
    async def test_a_device_that_fails_after_a_commit_stops_the_store_and_the_commit_stays(
        self, harness: Harness, disk: FailingDisk, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = await harness.make()
        assert isinstance(store, SqliteStore)
        lease = await harness.started(store)
        monkeypatch.setattr(connection, "CHECKPOINT_PAGES", 1)
        disk.fail_at, disk.lasting = disk.count + 1, True
        assert (await append(store, lease, 1, "kept")).seq == 3
        assert disk.failures == 1
        await _is_refused(harness, store, disk, lease.worker)
        disk.lift()
        again = await harness.reopen()
        assert [entry.data for entry in await events(again, lease.run_id)][2] == '{"text":"kept"}'

    async def test_a_device_that_fails_while_nothing_else_is_done_stops_the_store(
        self, harness: Harness, disk: FailingDisk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("stepwell.stores.sqlite.writer._CHECKPOINT_AFTER_IDLE", 0.01)
        disk.fail_at, disk.lasting = 1_000_000, True
        store = await harness.make()
        assert isinstance(store, SqliteStore)
        worker = await harness.worker(store)
        disk.fail_at = disk.count + 1
        await harness.submit(store)
        async with asyncio.timeout(PATIENCE):
            while store._use().writer.failed is None:
                await asyncio.sleep(0.005)
        await _is_refused(harness, store, disk, worker)

    async def test_a_device_that_fails_under_a_heartbeat_stops_the_store(
        self, harness: Harness, disk: FailingDisk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = await harness.make()
        assert isinstance(store, SqliteStore)
        worker = await harness.worker(store)
        monkeypatch.setattr(connection, "CHECKPOINT_PAGES", 1)
        disk.fail_at, disk.lasting = disk.count + 1, True
        harness.clock.advance(1)
        with pytest.raises(StoreUnusable) as raised:
            await beat(store, worker)
        assert raised.value.code == "store.io_error"
        await _is_refused(harness, store, disk, worker)

    async def test_without_space_the_store_goes_on_and_the_next_one_moves_it(
        self, harness: Harness, disk: FailingDisk, monkeypatch: pytest.MonkeyPatch, folder: Path
    ) -> None:
        disk.code = errno.ENOSPC
        store = await harness.make()
        assert isinstance(store, SqliteStore)
        lease = await harness.started(store)
        monkeypatch.setattr(connection, "CHECKPOINT_PAGES", 1)
        disk.fail_at, disk.lasting = disk.count + 1, True
        for number in range(1, 4):
            await append(store, lease, number, "x")
        assert disk.failures == 3
        disk.lift()
        moved = disk.count
        await append(store, lease, 4, "x")
        assert disk.count > moved
        assert len(await events(store, lease.run_id)) == 6


@pytest.mark.parametrize(("code", "kind"), [(errno.EIO, StoreUnusable), (errno.ENOSPC, StoreFull)])
async def test_what_the_system_says_of_the_logs_index_is_told(folder: Path, code: int, kind: type[Exception]) -> None:
    await (store := SqliteStore(str(folder / "data.db"))).open()
    await store.close()
    disk = FailingDisk(1, code, counts=(WRITES,), only="-shm", lasting=True)
    with disk.at_work(), pytest.raises(kind) as raised:
        await disk.store(str(folder / "data.db")).open()
    assert raised.value.code == ("store.full" if code == errno.ENOSPC else "store.io_error")  # type: ignore[attr-defined]
    assert disk.failures


def _start(folder: Path, mode: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(PROGRAM), mode],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        cwd=folder,
    )


async def _exists(path: Path) -> None:
    async with asyncio.timeout(PATIENCE):
        while not path.exists():
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("command", ["worker", "run"])
async def test_a_process_whose_disk_breaks_says_so_and_ends_and_another_takes_over(folder: Path, command: str) -> None:
    """It does not log for ever, and it asks the broken disk for nothing a second time."""
    told = folder / "syncs-that-failed"
    with _start(folder, command) as first:
        await _exists(folder / "begun")
        (folder / "broken").touch()
        (folder / "go").touch()
        _, said = await asyncio.to_thread(first.communicate, timeout=PATIENCE)
    assert first.returncode == 5, said
    assert "error[store.io_error]" in said
    assert said.count("error[") == 1
    assert told.read_text() == "1"
    (folder / "broken").unlink()
    with _start(folder, "finish") as second:
        output, said = await asyncio.to_thread(second.communicate, timeout=PATIENCE)
    assert second.returncode == 0, said
    facts = audit(folder / "data.db")
    assert facts.faults == []
    assert facts.by_status == {"succeeded": 1}
    assert output_of(folder / "data.db", output.strip()) == "done"
    effects = (folder / "effects").read_text().split()
    assert effects in (
        ["begin", "end"],
        ["begin", "end", "end"],
    )  # a write whose sync failed may have landed all the same


class TestWhatAFailedSyncLeaves:
    @pytest.fixture
    def disk(self) -> FailingDisk:
        """One whose syncs can fail."""
        return FailingDisk(counts=(SYNCS,))

    async def _broken(self, harness: Harness, disk: FailingDisk) -> None:
        store = await harness.make()
        lease = await harness.started(store)
        await append(store, lease, 1, "x" * 100_000)
        disk.fail_at = disk.count + 1
        with pytest.raises(StoreUnusable):
            await append(store, lease, 2, "unknown")
        disk.lift()
        await store.close()

    async def test_is_noted_and_the_log_is_written_again_before_anything_else(
        self, harness: Harness, disk: FailingDisk, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What the system takes for written may not be on the disk, and nothing must be written behind it."""
        written: list[int] = []
        write_again = doubt._write_again

        def note(log: str, vfs: str | None) -> None:
            written.append(os.stat(log).st_size)
            write_again(log, vfs)

        monkeypatch.setattr(doubt, "_write_again", note)
        await self._broken(harness, disk)
        log = folder / "data.db-wal"
        before = log.read_bytes()
        assert before, "closing a broken store writes nothing"
        assert (folder / "data.db-doubt").exists()
        syncs = disk.count
        again = await harness.reopen()
        assert written == [len(before)]
        assert disk.count > syncs
        assert not (folder / "data.db-doubt").exists()
        await harness.submit(again)
        await harness.reopen()
        assert len(written) == 1
        assert sorted(file.name for file in folder.iterdir() if file.is_file()) == [
            "data.db",
            "data.db-shm",
            "data.db-wal",
        ]

    async def test_stays_noted_while_the_disk_fails(self, harness: Harness, disk: FailingDisk, folder: Path) -> None:
        await self._broken(harness, disk)
        disk.fail_at, disk.lasting = disk.count + 1, True
        with pytest.raises(StoreUnusable):
            await disk.store(str(folder / "data.db"), boot_id=system_clock.boot_id()).open()
        assert (folder / "data.db-doubt").exists()
        disk.lift()
        disk.lasting = False
        await harness.reopen()
        assert not (folder / "data.db-doubt").exists()

    async def test_means_nothing_when_the_machine_was_started_again(
        self, harness: Harness, disk: FailingDisk, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await self._broken(harness, disk)
        (folder / "data.db-doubt").write_text("another boot")
        monkeypatch.setattr(doubt, "_write_again", lambda log, vfs: pytest.fail("it was written again"))
        await harness.reopen()
        assert not (folder / "data.db-doubt").exists()


async def test_a_device_that_fails_when_a_store_is_closed_is_noted(folder: Path) -> None:
    """SQLite keeps that to itself. Everything is in the log, and that is written again by whoever opens it next."""
    disk = FailingDisk(counts=(WRITES,), only="data.db")
    harness = Harness(lambda clock: disk.store(str(folder / "data.db"), clock=clock))
    with disk.at_work():
        store = await harness.make()
        run = await harness.submit(store)
        disk.fail_at, disk.lasting = disk.count + 1, True
        await store.close()
        assert disk.failures == 1
        assert (folder / "data.db-doubt").exists()
        disk.lift()
        again = await harness.reopen()
        assert (await again.get(run.id)).id == run.id
        await harness.close()
    assert [file.name for file in folder.iterdir()] == ["data.db"]
