"""Whether a store that was found after an accident is whole: its file, its journal, what was promised, and its use."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Final

import apsw

from stepwell.domain.commit import Commit
from stepwell.domain.errors import NotFound, StepwellError
from stepwell.domain.event import Entry
from stepwell.domain.outcome import Payload, Succeeded
from stepwell.stores.sqlite.store import SqliteStore
from stepwell.testing.conformance.harness import Harness, append, take
from tests.integration.sqlite.power.workload import BLOB, Acknowledged, digest_of

_DAY: Final = 86_400.0
_VOLATILE: Final = {"worker": {"heartbeat_at", "lease_until", "lease"}}  # written without waiting for the disk
_UNEVEN: Final = (
    "SELECT run.id FROM run LEFT JOIN journal ON journal.run = run.n"
    " GROUP BY run.n HAVING count(journal.seq) <> run.seq OR max(journal.seq) <> run.seq OR min(journal.seq) <> 1"
)
_ORPHANS: Final = "SELECT count(*) FROM journal WHERE run NOT IN (SELECT n FROM run)"
_HALF_BLOBS: Final = (
    "SELECT name FROM blob LEFT JOIN blob_chunk ON blob_chunk.blob = blob.n"
    " WHERE complete GROUP BY n HAVING coalesce(sum(length(data)), 0) <> size"
)


class Verdict:
    """What is wrong, in words; nothing when all is well. `lost` are the promises that do not hold."""

    def __init__(self) -> None:
        self.damage: list[str] = []
        self.lost: list[Acknowledged] = []

    def __repr__(self) -> str:
        return f"damage: {self.damage}, lost: {self.lost}"

    @property
    def fine(self) -> bool:
        return not self.damage and not self.lost


async def judge(
    path: Path,
    promises: Iterable[Acknowledged],
    *,
    vfs: str | None = None,
    day: int = 1,
    legitimate: Collection[str] | None = None,
) -> Verdict:
    """Open the store at the path as the next process would, look at everything, use it, and close it.

    `day` is how many days after the workload that is, each time after another start of the machine. `legitimate`: what
    the whole database may hold, as `digest_of_all` tells it.
    """
    verdict = Verdict()
    existed = path.exists()
    harness = Harness(lambda clock: SqliteStore(str(path), clock=clock, boot_id=f"day {day}", vfs=vfs))
    harness.clock.advance(day * _DAY)  # ids begin with the time: none is made twice
    try:
        store = await harness.make()
        assert isinstance(store, SqliteStore)
        verdict.lost = [promise for promise in latest(promises) if not await _holds(store, promise)]
        verdict.damage = flaws(path)
        if existed and legitimate is not None and digest_of_all(path) not in legitimate:
            verdict.damage.append("it is not what any of the possible commits left")
        await _use(harness, store)
    except StepwellError as error:
        verdict.damage.append(repr(error))
    finally:
        await harness.close()
    return verdict


def latest(promises: Iterable[Acknowledged]) -> Sequence[Acknowledged]:
    """For each run the one that says most: it says what all before it said."""
    found: dict[str, Acknowledged] = {}
    for promise in promises:
        before = found.get(promise.name)
        if before is None or promise.seq >= before.seq:
            found[promise.name] = promise
    return list(found.values())


def flaws(path: Path) -> list[str]:
    """What is wrong with the file, or with what is in it."""
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
    connection.set_busy_timeout(5000)
    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    try:
        found = [str(row[0]) for row in connection.execute("PRAGMA integrity_check").fetchall() if row[0] != "ok"]
        if found:
            return found
        for text in (_UNEVEN, _HALF_BLOBS):
            found += [f"uneven: {row[0]}" for row in connection.execute(text).fetchall()]
        if connection.execute(_ORPHANS).get:
            found.append("facts without a run")
        return found
    except apsw.Error as error:
        return [repr(error)]
    finally:
        connection.close()


def digest_of_all(path: Path) -> str:
    """Everything that the database holds, short: two equal ones went through the same commits. Changes nothing."""
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    try:
        found = hashlib.sha256()
        tables = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name").fetchall()
        for (table,) in tables:
            columns = [str(row[1]) for row in connection.execute(f"PRAGMA table_info({table})").fetchall()]
            chosen = ", ".join(f'"{name}"' for name in columns if name not in _VOLATILE.get(str(table), ()))
            for row in connection.execute(f'SELECT {chosen} FROM "{table}"').fetchall():
                found.update(repr((table, row)).encode())
        return found.hexdigest()
    finally:
        connection.close()


async def _holds(store: SqliteStore, promise: Acknowledged) -> bool:
    if promise.seq == BLOB:
        try:
            content = await store.get_blob(promise.name)
        except NotFound:
            return False
        return hashlib.sha256(content).hexdigest()[:16] == promise.digest
    entries: list[Entry] = await store.journal(promise.name, limit=promise.seq)
    return digest_of(entries) == promise.digest


async def _use(harness: Harness, store: SqliteStore) -> None:
    """A whole life of a run, on the store as it was found."""
    worker = await harness.worker(store)
    run = await harness.submit(store, agent="after")
    [claim] = await take(store, worker, agents=("after",), only=(run.id,))
    await append(store, claim.lease, 1, "after")
    await store.commit(claim.lease, Commit(2, outcome=Succeeded(Payload("1"))))
    assert (await store.get(run.id)).life.status == "succeeded"
