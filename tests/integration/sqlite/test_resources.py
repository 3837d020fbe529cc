"""Threads, files and blobs: what is opened is closed, and what is large is written in parts."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from stepwell.domain.errors import NotFound
from stepwell.stores.sqlite import blobs
from stepwell.stores.sqlite.store import SqliteStore
from stepwell.testing.conformance import Harness
from stepwell.testing.conformance.harness import beat
from tests.integration.sqlite.files import ask, change

FORGETFUL = """
import asyncio, sys
from stepwell.stores.sqlite.store import SqliteStore

async def main():
    store = SqliteStore(sys.argv[1])
    await store.open()
    await store.workers()

asyncio.run(main())
"""


def descriptors() -> int:
    """How many files this process has open."""
    return len(os.listdir("/proc/self/fd"))


class TestLeaks:
    async def test_closing_leaves_no_thread_and_no_file(self, path: Path) -> None:
        before = threading.active_count(), descriptors()
        harness = Harness(lambda clock: SqliteStore(str(path), clock=clock))
        for _ in range(3):
            store = await harness.make()
            lease = await harness.started(store)
            await asyncio.gather(*(store.get(lease.run_id) for _ in range(20)))
            await store.put_blob(b"x" * 600_000)
            await asyncio.to_thread(store.heartbeat, lease.worker, lease_seconds=30)
            await harness.worker(store)
            await harness.close()
        await asyncio.get_running_loop().shutdown_default_executor()
        assert (threading.active_count(), descriptors()) == before

    async def test_readers_are_few_and_start_when_they_are_needed(self, harness: Harness, store: SqliteStore) -> None:
        run = await harness.submit(store)
        assert _threads() == ["stepwell-sqlite-writer"]
        await store.get(run.id)
        await store.get(run.id)
        assert len(_threads()) == 2
        await asyncio.gather(*(store.get(run.id) for _ in range(100)))
        assert len(_threads()) == 4

    async def test_a_reader_whose_caller_went_away_goes_on(self, harness: Harness, store: SqliteStore) -> None:
        run = await harness.submit(store)
        reading = [asyncio.create_task(store.get(run.id)) for _ in range(10)]
        await asyncio.sleep(0)
        for task in reading[::2]:
            task.cancel()
        answers = await asyncio.gather(*reading, return_exceptions=True)
        assert sum(answer == run for answer in answers) == 5

    async def test_a_program_that_forgets_to_close_still_ends(self, path: Path) -> None:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", FORGETFUL, str(path)), env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        )
        async with asyncio.timeout(30):
            assert await process.wait() == 0

    async def test_an_idle_store_moves_its_log_into_the_file(
        self, harness: Harness, store: SqliteStore, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("stepwell.stores.sqlite.writer._CHECKPOINT_AFTER_IDLE", 0.01)
        await harness.submit(store)
        copy = path.with_name("copy.db")
        async with asyncio.timeout(10):
            while not copy.exists() or ask(copy, "SELECT count(*) FROM run") != 1:
                subprocess.run(["cp", str(path), str(copy)], check=True)  # this process must not open the file itself
                await asyncio.sleep(0.01)
        assert store.stats().checkpoints >= 1


def _threads() -> list[str]:
    return sorted(thread.name for thread in threading.enumerate() if thread.name.startswith("stepwell-sqlite"))


async def test_a_worker_whose_registration_was_given_up_is_not_taken_for_alive(
    harness: Harness, store: SqliteStore
) -> None:
    given_up = asyncio.create_task(harness.worker(store))
    await asyncio.sleep(0)
    given_up.cancel()
    await asyncio.wait([given_up])
    assert await store.workers() == []


class TestBlobs:
    @pytest.mark.parametrize("size", [0, 1, blobs.PART_BYTES, blobs.PART_BYTES + 1, 3 * blobs.PART_BYTES])
    async def test_they_lie_in_parts(self, store: SqliteStore, path: Path, size: int) -> None:
        content = os.urandom(size)
        before = store.stats().transactions
        name = await store.put_blob(content)
        parts = max(1, -(-size // blobs.PART_BYTES))
        assert store.stats().transactions - before == parts
        assert ask(path, "SELECT count(*), max(length(data)) <= 262144 FROM blob_chunk") == (parts, 1)
        assert await store.get_blob(name) == content

    async def test_the_same_bytes_are_kept_once(self, store: SqliteStore, path: Path) -> None:
        content = os.urandom(600_000)
        names = await asyncio.gather(*(store.put_blob(content) for _ in range(5)))
        transactions = store.stats().transactions
        assert await store.put_blob(content) == names[0]
        assert store.stats().transactions == transactions
        assert len(set(names)) == 1
        assert ask(path, "SELECT count(*) FROM blob_chunk") == 3

    async def test_an_unfinished_one_is_not_there_and_can_be_finished(self, store: SqliteStore, path: Path) -> None:
        content = os.urandom(600_000)
        name = await store.put_blob(content)
        change(path, "UPDATE blob SET complete = 0; DELETE FROM blob_chunk WHERE part = 2")
        with pytest.raises(NotFound):
            await store.get_blob(name)
        assert await store.put_blob(content) == name
        assert await store.get_blob(name) == content

    async def test_heartbeats_pass_a_large_one(self, harness: Harness, store: SqliteStore) -> None:
        lease = await harness.started(store)
        putting = asyncio.create_task(store.put_blob(os.urandom(4_000_000)))
        assert list((await beat(store, lease.worker)).held) == [lease.run_id]
        await putting
