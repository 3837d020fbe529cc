"""Another process comes to a halt while it holds a lock of the file: what still works, what waits, and for how long.

`POWER_SCALE` above 1 waits as long as the real bounds say (`make power`).
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from stepwell.domain.errors import StoreUnavailable
from stepwell.domain.run import Lease
from stepwell.ports.store import ClaimRequest, RunQuery, Store
from stepwell.stores.sqlite import heartbeat
from stepwell.stores.sqlite import store as module
from stepwell.stores.sqlite.store import SqliteStore
from stepwell.testing.conformance import Harness
from stepwell.testing.conformance.harness import AGENT, append, beat, events
from tests.integration.sqlite.power.judgement import judge

PROGRAM = Path(__file__).with_name("holder.py")
LONG = int(os.environ.get("POWER_SCALE", "1")) > 1
WRITER_BOUND = module.WRITER_PATIENCE_SECONDS if LONG else 0.3
HEARTBEAT_BOUND = heartbeat._PATIENCE_SECONDS if LONG else 0.2
SLACK = 5.0


class Holder:
    """One running `holder.py`, which holds what it was asked to hold."""

    def __init__(self, process: subprocess.Popen[str], mode: str) -> None:
        self._process = process
        self._stops_itself = mode in ("commit", "checkpoint")
        assert self._line() == "held"

    def stop(self) -> None:
        """Freeze the process, if it has not done so itself, and wait until it is."""
        if not self._stops_itself:
            self._process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WNOWAIT)

    def go_on(self) -> None:
        """Let the process finish what it was about to do, and wait until it is through with that."""
        self._process.send_signal(signal.SIGCONT)
        assert self._line() == "through"

    def kill(self) -> None:
        """End the process at once."""
        self._process.kill()
        self._process.wait()

    def end(self) -> None:
        """Let the process end by itself."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        assert self._process.wait(30) == 0

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WRITER_PATIENCE_SECONDS", WRITER_BOUND)
    monkeypatch.setattr(heartbeat, "_PATIENCE_SECONDS", HEARTBEAT_BOUND)


@pytest.fixture
async def harness(path: Path) -> AsyncIterator[Harness]:
    harness = Harness(lambda clock: SqliteStore(str(path), clock=clock))
    yield harness
    await harness.close()


@pytest.fixture
def hold(path: Path) -> Iterator[Callable[[str], Holder]]:
    """Start a process that comes to a halt in this mode."""
    with ExitStack() as stack:

        def start(mode: str) -> Holder:
            process = subprocess.Popen(
                [sys.executable, str(PROGRAM), str(path), mode],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            return Holder(process, mode)

        yield start


async def _refused(call: Awaitable[object]) -> float:
    """How long it took until the call was refused because of the lock."""
    began = time.monotonic()
    with pytest.raises(StoreUnavailable) as raised:
        await call
    error = raised.value
    assert (error.code, error.retryable) == ("store.busy", True)
    assert "another process has been writing for too long" in str(error)
    assert error.hint is not None
    assert "stopped or suspended" in error.hint
    return time.monotonic() - began


async def _appended(store: Store, lease: Lease, number: int) -> None:
    for each in range(1, number + 1):
        await append(store, lease, each, "x" * 2_000)


async def _is_whole(harness: Harness, path: Path) -> bool:
    await harness.close()
    return (await judge(path, ())).fine


@pytest.mark.parametrize("mode", ["write", "commit"])
class TestTheWriteLock:
    async def test_of_a_stopped_process_refuses_writes_after_the_bound_and_is_free_when_that_is_killed(
        self, harness: Harness, store: Store, hold: Callable[[str], Holder], path: Path, mode: str
    ) -> None:
        lease = await harness.started(store)
        holder = hold(mode)
        holder.stop()
        assert WRITER_BOUND <= await _refused(append(store, lease, 1, "a")) < WRITER_BOUND + SLACK
        assert len(await events(store, lease.run_id)) == 2
        holder.kill()
        assert (await append(store, lease, 1, "a")).seq == 3
        assert await _is_whole(harness, path)

    async def test_of_a_stopped_process_is_free_when_that_goes_on(
        self, harness: Harness, store: Store, hold: Callable[[str], Holder], path: Path, mode: str
    ) -> None:
        lease = await harness.started(store)
        holder = hold(mode)
        holder.stop()
        await _refused(append(store, lease, 1, "a"))
        holder.go_on()
        holder.end()
        assert (await append(store, lease, 1, "a")).seq == 3
        assert await _is_whole(harness, path)

    async def test_leaves_reading_and_looking_for_work_alone(
        self, harness: Harness, store: Store, hold: Callable[[str], Holder], path: Path, mode: str
    ) -> None:
        lease = await harness.started(store)
        hold(mode).stop()
        async with asyncio.timeout(SLACK):
            assert [run.id for run in await store.find(RunQuery())] == [lease.run_id]
            assert (await store.claim(ClaimRequest(lease.worker, 1, (AGENT,)))).taken == []
            another = await harness.make()  # a process that starts meanwhile
            assert (await another.get(lease.run_id)).life.status == "running"

    async def test_refuses_heartbeats_after_their_own_bound(
        self, harness: Harness, store: Store, hold: Callable[[str], Holder], mode: str
    ) -> None:
        lease = await harness.started(store)
        hold(mode).stop()
        assert HEARTBEAT_BOUND <= await _refused(beat(store, lease.worker)) < HEARTBEAT_BOUND + SLACK

    async def test_a_call_that_came_while_another_waited_waits_for_two_bounds_at_most(
        self, harness: Harness, store: Store, hold: Callable[[str], Holder], mode: str
    ) -> None:
        lease = await harness.started(store)
        hold(mode).stop()
        first = asyncio.ensure_future(append(store, lease, 1, "a"))
        assert isinstance(store, SqliteStore)
        while not store._patience._began:  # until it waits for the lock
            await asyncio.sleep(0.001)
        second = asyncio.ensure_future(harness.submit(store))
        took = await asyncio.gather(_refused(first), _refused(second))
        assert 1.5 * WRITER_BOUND < max(took) < 2 * WRITER_BOUND + SLACK


class TestOtherLocks:
    async def test_a_process_stopped_in_a_checkpoint_stops_nobody(
        self, harness: Harness, store: Store, hold: Callable[[str], Holder], path: Path
    ) -> None:
        lease = await harness.started(store)
        holder = hold("checkpoint")
        holder.stop()
        await _appended(store, lease, 50)
        holder.go_on()
        holder.end()
        assert len(await events(store, lease.run_id)) == 52
        assert await _is_whole(harness, path)

    async def test_a_process_killed_in_a_checkpoint_leaves_a_whole_file(
        self, harness: Harness, store: Store, hold: Callable[[str], Holder], path: Path
    ) -> None:
        lease = await harness.started(store)
        holder = hold("checkpoint")
        await _appended(store, lease, 50)
        holder.kill()
        assert await _is_whole(harness, path)

    async def test_a_stopped_reader_keeps_the_log_and_stops_nobody(
        self, harness: Harness, store: Store, hold: Callable[[str], Holder], path: Path
    ) -> None:
        lease = await harness.started(store)
        holder = hold("read")
        holder.stop()
        await _appended(store, lease, 50)
        await harness.close()
        assert Path(f"{path}-wal").stat().st_size > 50 * 2_000
        holder.kill()
        assert await _is_whole(harness, path)
        assert not Path(f"{path}-wal").exists()
