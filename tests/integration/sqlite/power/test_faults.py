"""One write or sync of a workload fails, whichever: every call either keeps its promise or says what went wrong.

`POWER_SCALE` above 1 fails each position in turn instead of a sample (`make power`).
"""

from __future__ import annotations

import errno
import os
from collections import Counter
from pathlib import Path
from random import Random

import pytest

from stepwell.domain.errors import StoreError, StoreFull, StoreUnusable
from stepwell.stores.sqlite.store import SqliteStore
from stepwell.testing.conformance import Harness
from stepwell.testing.conformance.harness import LEASE, append, beat, take
from tests.integration.sqlite.power.failing_disk import FailingDisk, Kind
from tests.integration.sqlite.power.judgement import judge
from tests.integration.sqlite.power.workload import Workload

SCALE = int(os.environ.get("POWER_SCALE", "1"))
SEED = 11
MOVES = 30
SAMPLE = 20
REFUSALS = 3

EXPECTED = {errno.ENOSPC: "store.full", errno.EIO: "store.io_error"}
DOCUMENTED = {"store.full": StoreFull, "store.io_error": StoreUnusable}


@pytest.fixture(autouse=True)
def _small_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """Checkpoints, and a log that begins anew, in a short workload."""
    monkeypatch.setattr("stepwell.stores.sqlite.connection.CHECKPOINT_PAGES", 30)


async def _work(path: Path, disk: FailingDisk, seed: int = SEED) -> Workload:
    """Run the workload on this disk. It works again as soon as the store has refused something a few times."""
    workload = Workload(lambda clock: disk.store(str(path), clock=clock), seed)
    path.parent.mkdir()

    def lift(number: int) -> None:
        if len(workload.refusals) >= REFUSALS:
            disk.lift()

    disk.before = lift
    with disk.at_work():
        await workload.run(MOVES)
        disk.lift()
        disk.before = lambda number: None
        await _comes_back(workload)
        await workload.close()
    return workload


def _is_documented(error: StoreError) -> bool:
    return type(error) is DOCUMENTED.get(error.code)


async def _comes_back(workload: Workload) -> None:
    """Now that the disk works again, so does the store: at once, or when it is opened again if it said that it must."""
    store = workload.store
    if store is None or any(isinstance(refusal, StoreUnusable) for refusal in workload.refusals):
        store = await workload.harness.reopen()
    await workload.harness.submit(store)


async def _positions(folder: Path, kind: Kind) -> list[int]:
    """All writes or syncs of the workload, or a sample of them."""
    disk = FailingDisk(counts=(kind,))
    workload = await _work(folder / "whole" / "data.db", disk)
    assert not workload.refusals
    every = range(1, disk.lifted_at + 1)
    return list(every) if SCALE > 1 else sorted(Random(SEED).sample(every, SAMPLE))


@pytest.mark.parametrize("lasting", [False, True], ids=["once", "for-a-while"])
@pytest.mark.parametrize(("kind", "code"), [("write", errno.ENOSPC), ("write", errno.EIO), ("sync", errno.EIO)])
async def test_no_promise_is_broken_wherever_the_disk_fails(folder: Path, kind: Kind, code: int, lasting: bool) -> None:
    told: Counter[str] = Counter()
    reached = []
    positions = await _positions(folder, kind)
    for position in positions:
        disk = FailingDisk(position, code, counts=(kind,), lasting=lasting)
        path = folder / str(position) / "data.db"
        workload = await _work(path, disk)
        reached.append(disk.failures > 0)
        for refusal in workload.refusals:
            assert _is_documented(refusal), (position, repr(refusal))
            told[refusal.code] += 1
        assert workload.half_done == [], position
        verdict = await judge(path, workload.acknowledged)
        assert verdict.fine, (position, verdict)
    assert told[EXPECTED[code]]
    assert sum(reached) >= 0.9 * len(positions)  # the last ones are not reached when the log is moved less often


@pytest.mark.parametrize("lasting", [False, True], ids=["once", "for-a-while"])
@pytest.mark.parametrize(("kind", "code"), [("write", errno.ENOSPC), ("write", errno.EIO), ("sync", errno.EIO)])
async def test_a_store_is_made_whole_or_not_at_all(folder: Path, kind: Kind, code: int, lasting: bool) -> None:
    disk = FailingDisk(counts=(kind,))
    assert await _open(folder / "whole" / "data.db", disk)
    every = range(1, disk.count + 1)
    for position in every if SCALE > 1 else sorted(Random(SEED).sample(every, min(SAMPLE, len(every)))):
        path = folder / str(position) / "data.db"
        disk = FailingDisk(position, code, counts=(kind,), lasting=lasting)
        if not await _open(path, disk):
            assert [file.name for file in path.parent.iterdir() if file.name.endswith(".new")] == []
        verdict = await judge(path, ())
        assert verdict.fine, (position, verdict)


async def _open(path: Path, disk: FailingDisk) -> bool:
    """Open and close a store on this disk; tell whether that went well."""
    path.parent.mkdir()
    store = disk.store(str(path))
    with disk.at_work():
        try:
            await store.open()
        except (StoreFull, StoreUnusable) as error:
            assert _is_documented(error), (disk.fail_at, error)  # noqa: PT017 - either may be raised
            return False
        await store.close()
    return True


async def test_after_a_failed_sync_heartbeats_no_longer_keep_runs_from_others(folder: Path) -> None:
    syncs: Kind = "sync"
    disk = FailingDisk(counts=(syncs,))
    harness = Harness(lambda clock: disk.store(str(folder / "data.db"), clock=clock))
    store = await harness.make()
    lease = await harness.started(store)
    await beat(store, lease.worker)
    disk.fail_at = disk.count + 1
    with pytest.raises(StoreUnusable):
        await append(store, lease, 1, "unknown")
    with pytest.raises(StoreUnusable):
        await beat(store, lease.worker)
    elsewhere = SqliteStore(str(folder / "data.db"), clock=harness.clock)
    await elsewhere.open()
    harness.clock.advance(LEASE + 1)
    [claim] = await take(elsewhere, await harness.worker(elsewhere))
    assert (claim.run.id, claim.lease.fence) == (lease.run_id, lease.fence + 1)
    await elsewhere.close()
    await harness.close()
