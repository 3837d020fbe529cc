"""The log and its index beside the file: lost, foreign, or left by a process that died."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from stepwell.stores.sqlite.store import SqliteStore
from stepwell.testing.conformance import Harness
from stepwell.testing.conformance.harness import append, events
from tests.integration.sqlite.files import ask, make_store


async def _left_by_a_crash(folder: Path, name: str, notes: int) -> tuple[Path, str]:
    """A file with its log and index as a process that died left them, and the run in it."""
    harness = Harness(lambda clock: SqliteStore(str(folder / "live.db"), clock=clock))
    store = await harness.make()
    lease = await harness.started(store)
    for number in range(1, notes + 1):
        await append(store, lease, number, name)
    for ending in ("", "-wal", "-shm"):
        (folder / f"{name}.db{ending}").write_bytes((folder / f"live.db{ending}").read_bytes())
    await harness.close()
    (folder / "live.db").unlink()
    return folder / f"{name}.db", lease.run_id


async def _facts(path: Path, run_id: str) -> int:
    store = SqliteStore(str(path))
    await store.open()
    found = len(await events(store, run_id))
    await store.close()
    return found


@pytest.mark.parametrize("harm", ["left", "missing", "garbage", "empty"])
async def test_an_index_that_is_lost_or_wrong_is_made_anew(tmp_path: Path, harm: str) -> None:
    path, run_id = await _left_by_a_crash(tmp_path, "one", notes=5)
    index = Path(f"{path}-shm")
    if harm == "missing":
        index.unlink()
    elif harm == "garbage":
        index.write_bytes(os.urandom(index.stat().st_size))
    elif harm == "empty":
        index.write_bytes(b"")
    assert await _facts(path, run_id) == 7
    assert ask(path, "PRAGMA integrity_check") == "ok"


async def test_an_index_of_another_file_is_made_anew(tmp_path: Path) -> None:
    path, run_id = await _left_by_a_crash(tmp_path, "one", notes=5)
    other, _ = await _left_by_a_crash(tmp_path, "other", notes=20)
    Path(f"{path}-shm").write_bytes(Path(f"{other}-shm").read_bytes())
    assert await _facts(path, run_id) == 7


@pytest.mark.parametrize("garbage", [b"", b"frames", os.urandom(100_000)], ids=["empty", "short", "long"])
async def test_a_log_that_is_none_changes_nothing(path: Path, garbage: bytes) -> None:
    await make_store(path)
    Path(f"{path}-wal").write_bytes(garbage)
    store = SqliteStore(str(path))
    await store.open()
    await store.close()
    assert ask(path, "SELECT count(*) FROM run") == 3
    assert ask(path, "PRAGMA integrity_check") == "ok"


async def test_a_log_whose_end_was_torn_off_gives_what_is_whole(tmp_path: Path) -> None:
    path, run_id = await _left_by_a_crash(tmp_path, "one", notes=5)
    log = Path(f"{path}-wal")
    log.write_bytes(log.read_bytes()[:-1])
    assert 2 <= await _facts(path, run_id) < 7
    assert ask(path, "PRAGMA integrity_check") == "ok"
