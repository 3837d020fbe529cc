"""A file of an earlier schema is opened with everything that it holds."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import apsw
import pytest

from stepwell.domain.commit import Commit
from stepwell.domain.ids import own_session
from stepwell.domain.outcome import NEVER, Parked, Payload, Succeeded
from stepwell.domain.session import SessionRecord
from stepwell.stores.sqlite import schema
from stepwell.stores.sqlite.store import SqliteStore
from stepwell.testing.conformance import Harness
from stepwell.testing.conformance.harness import HOUR, append, kinds, take
from tests.integration.sqlite.files import ask

PROGRAM = Path(__file__).with_name("opener.py")
QUEUED, RUNNING, ENDED, NAMED = (f"run_0000000000000000000000000{number}" for number in range(1, 5))
INPUT = '{"agent":"audit","version":"1","input":1,"priority":0,"available_at":5}'


def insert(connection: apsw.Connection, table: str, **columns: Any) -> None:
    names = ", ".join(columns)
    places = ", ".join("?" * len(columns))
    connection.execute(f"INSERT INTO {table} ({names}) VALUES ({places})", tuple(columns.values()))


def insert_run(connection: apsw.Connection, number: int, run_id: str, *told: str, **columns: Any) -> None:
    """A run as the first schema kept it, and its journal."""
    usual = {
        "n": number,
        "id": run_id,
        "tenant": "",
        "agent": "audit",
        "version": "1",
        "session": own_session(run_id),
        "created_at": 5,
        "timeout": HOUR,
        "status": "queued",
        "available_at": 5,
        "updated_at": 7,
        "seq": 1 + len(told),
    }
    insert(connection, "run", **(usual | columns))
    for seq, kind in enumerate(("run.queued", *told), 1):
        insert(connection, "journal", run=number, seq=seq, at=5, kind=kind, data=INPUT if seq == 1 else "{}")


@pytest.fixture
def old_file(path: Path) -> Path:
    """A file of the first schema: a run that waits to be claimed, one that a worker held, one that has ended, and one
    of a session with a name.
    """
    [first, *_] = schema.migrations()
    connection = apsw.Connection(str(path))
    connection.pragma("journal_mode", "wal")
    connection.execute(first.sql)
    insert(connection, "migration", version=1, name=first.name, checksum=first.checksum, applied_at=1)
    connection.pragma("application_id", schema.APPLICATION_ID)
    connection.pragma("user_version", 1)
    insert_run(connection, 1, QUEUED, idempotency_key="k-1")
    insert(
        connection,
        "idempotency",
        tenant="",
        scope="agent:audit",
        key="k-1",
        run=QUEUED,
        input_digest="wheel",
        created_at=5,
    )
    held = {"status": "running", "worker": "wrk_gone", "fence": 1, "attempt": 1, "leased": 3}
    insert_run(connection, 2, RUNNING, "run.started", **held)
    insert_run(connection, 3, ENDED, "run.started", "run.succeeded", status="succeeded", ended_at=6)
    insert_run(connection, 4, NAMED, "run.held", session="cust-1", hold="diverged")
    connection.close()
    path.chmod(0o600)
    return path


async def test_what_it_holds_is_there(old_file: Path, harness: Harness) -> None:
    store = await harness.make()
    assert ask(old_file, "PRAGMA user_version") == schema.latest()
    shown = {run_id: (await store.get(run_id)).life.shown for run_id in (QUEUED, RUNNING, ENDED, NAMED)}
    assert list(shown.values()) == ["queued", "running", "succeeded", "diverged"]
    assert await kinds(store, ENDED) == ["run.queued", "run.started", "run.succeeded"]
    assert (await store.get(RUNNING)).life.held == 0
    again = await store.submit(harness.submission(idempotency_key="k-1"))
    assert (again.run.id, again.created) == (QUEUED, False)


async def test_its_runs_go_on(old_file: Path, harness: Harness) -> None:
    store = await harness.make()
    worker = await harness.worker(store)
    claims = {claim.run.id: claim.lease for claim in await take(store, worker)}
    assert claims.keys() == {QUEUED, RUNNING}
    assert claims[RUNNING].fence == 2
    await append(store, claims[QUEUED], 1, "x")
    wait = harness.signal_wait()
    await store.commit(claims[QUEUED], Commit(2, opens=(wait,), outcome=Parked(NEVER, "[]")))
    await store.signal(QUEUED, harness.signal())
    [claim] = await take(store, worker)
    child = harness.child_of(claim.run)
    await store.commit(claim.lease, Commit(1, submits=(child,)))
    await store.commit(claim.lease, Commit(2, outcome=Succeeded(Payload("1"))))
    assert (await store.get(child.id)).life.status == "cancelled"
    await store.resume(NAMED, at_seq=2, by="ann")
    assert [claim.run.id for claim in await take(store, worker)] == [NAMED]


async def test_its_sessions_are_those_of_its_runs(old_file: Path, harness: Harness) -> None:
    store = await harness.make()
    assert await store.sessions() == [SessionRecord("cust-1", "", 5, 5)]
    assert await store.session("cust-1") == SessionRecord("cust-1", "", 5, 5)
    assert await store.session(own_session(QUEUED)) == SessionRecord(own_session(QUEUED), "", 5, 5)


@pytest.mark.parametrize("point", ["migrate.before_commit", "migrate.after_commit"])
async def test_a_kill_in_the_middle_leaves_it_to_the_next_process(old_file: Path, harness: Harness, point: str) -> None:
    command = [sys.executable, "-m", "stepwell.testing.crash", point, str(PROGRAM), str(old_file)]
    killed = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    store = await harness.make()
    assert ask(old_file, "PRAGMA integrity_check") == "ok"
    assert ask(old_file, "SELECT count(*) FROM migration") == len(schema.migrations())
    shown = {run_id: (await store.get(run_id)).life.shown for run_id in (QUEUED, RUNNING, ENDED, NAMED)}
    assert list(shown.values()) == ["queued", "running", "succeeded", "diverged"]


async def test_two_that_open_it_at_once_migrate_it_once(old_file: Path, harness: Harness) -> None:
    one, other = await harness.views()
    assert isinstance(one, SqliteStore)
    assert await other.get(QUEUED) == await one.get(QUEUED)
    assert ask(old_file, "SELECT count(*) FROM migration") == len(schema.migrations())
