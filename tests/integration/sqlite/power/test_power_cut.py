"""What a power cut may leave, and that a store which is not whole is seen: the tests of these tests' instruments."""

from __future__ import annotations

from pathlib import Path
from random import Random

import apsw

from tests.integration.sqlite.files import make_store
from tests.integration.sqlite.power.judgement import flaws, judge
from tests.integration.sqlite.power.power_cut import Surface
from tests.integration.sqlite.power.recording_disk import Change
from tests.integration.sqlite.power.workload import Acknowledged

WAL = "data.db-wal"
OLD, NEW = b"o" * 2_000, b"n" * 2_000
BEGINNING = [
    Change("make", 1, WAL),
    Change("write", 1, WAL, 0, OLD),
    Change("sync", 1, WAL),
    Change("sync_folder", 0, WAL),
]


def _left(*changes: Change, cuts: int = 300) -> set[bytes | None]:
    """Everything that may be found of the file."""
    log = [*BEGINNING, *changes]
    surface = Surface(log)
    surface.advance(len(log))
    return {surface.left(Random(seed)).get(WAL) for seed in range(cuts)}


def test_what_was_synced_is_there() -> None:
    assert _left() == {OLD}
    assert _left(Change("write", 1, WAL, 0, NEW), Change("sync", 1, WAL)) == {NEW}


def test_what_was_not_synced_may_be_there_or_not_or_in_part_and_in_any_order() -> None:
    left = _left(Change("write", 1, WAL, 0, NEW), Change("write", 1, WAL, 2_000, NEW))
    assert {OLD, NEW + NEW, OLD + bytes(2_000), OLD + NEW} <= left
    assert any(found is not None and found.startswith(OLD[:512] + NEW[:512]) for found in left)
    assert any(found is not None and 0 < found[:512].count(b"n") < 512 for found in left)


def test_a_size_may_be_old_or_new() -> None:
    assert _left(Change("truncate", 1, WAL, 100)) == {OLD, OLD[:100]}


def test_a_name_may_be_there_or_not_until_the_folder_is_synced() -> None:
    deleted = Change("delete", 1, WAL)
    assert _left(deleted) == {OLD, None}
    assert _left(deleted, Change("sync_folder", 0, WAL)) == {None}


def test_what_a_failed_sync_was_to_write_stays_in_doubt() -> None:
    failed = (Change("write", 1, WAL, 0, NEW), Change("sync_failed", 1, WAL), Change("sync", 1, WAL))
    assert {OLD, NEW} <= _left(*failed)
    assert _left(*failed, Change("write", 1, WAL, 0, OLD), Change("sync", 1, WAL)) == {OLD}


async def test_a_broken_promise_is_seen(folder: Path) -> None:
    await make_store(folder / "data.db")
    promises = [Acknowledged(0, "run_nobody_has", 1, "x"), Acknowledged(0, "b1b2", -1, "x")]
    assert (await judge(folder / "data.db", promises)).lost == promises


async def test_a_commit_that_is_there_in_part_is_seen(folder: Path) -> None:
    path = folder / "data.db"
    await make_store(path)
    assert flaws(path) == []
    assert not (await judge(path, (), legitimate={"another"})).fine
    for harm in (
        "DELETE FROM journal WHERE seq = 1 AND run = 1",
        "INSERT INTO journal (run, seq, at, kind, data) VALUES (2, 9, 1, 'custom.x', '{}')",
        "INSERT INTO blob (name, size, created_at, complete) VALUES ('b', 9, 1, 1)",
    ):
        connection = apsw.Connection(str(path))
        before = len(flaws(path))
        connection.execute(harm)
        connection.close()
        assert len(flaws(path)) == before + 1
