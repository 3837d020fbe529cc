"""Workers as rows: registering, leaving, and striking off those that are gone. Carried out by the writer thread."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from typing import Final

from stepwell.domain.errors import Conflict
from stepwell.domain.transitions import ClaimCause
from stepwell.ports.crash_point import CrashPoint
from stepwell.ports.store import WorkerInfo
from stepwell.stores.sqlite import worker_lock
from stepwell.stores.sqlite.batch import Batch
from stepwell.stores.sqlite.operations import Operation

_registered: Final = CrashPoint("worker.registered")

_REGISTER: Final = (
    "INSERT INTO worker (id, host, pid, capacity, started_at, heartbeat_at, boot_id, lease_until, lease)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING"
)
_NOT_GONE: Final = "SELECT id, boot_id FROM worker WHERE gone IS NULL"
_CLOSE: Final = "UPDATE worker SET gone = 'closed' WHERE id = ? AND gone IS NULL"
_DEAD: Final = "UPDATE worker SET gone = 'dead' WHERE gone IS NULL AND id IN (SELECT value FROM json_each(?))"
_STRIKE_OFF: Final = (
    "DELETE FROM worker WHERE gone IS NOT NULL AND NOT EXISTS"
    " (SELECT 1 FROM run INDEXED BY run_running WHERE run.status = 'running' AND run.worker = worker.id) RETURNING id"
)
_IDS: Final = "SELECT id FROM worker"


class Register(Operation):
    """A worker begins; those that died without holding anything are struck off."""

    kind = "worker"

    def __init__(self, worker: WorkerInfo, lease: int, boot_id: str) -> None:
        self._worker = worker
        self._lease = lease
        self._boot_id = boot_id

    def apply(self, batch: Batch) -> None:
        worker = self._worker
        registered = [(str(id_), str(boot_id)) for id_, boot_id in batch.connection.execute(_NOT_GONE).fetchall()]
        record_deaths(batch, {id_: "lost" for id_, boot_id in registered if batch.deaths.is_dead(id_, boot_id)})
        batch.connection.execute(
            _REGISTER,
            (
                *(worker.id, worker.host, worker.pid, worker.capacity, worker.started_at, batch.now, self._boot_id),
                *(batch.elapsed + self._lease, self._lease),
            ),
        )
        if not batch.connection.changes():
            raise Conflict(f"a worker {worker.id} is registered already", code="worker.exists")
        known = [str(id_) for (id_,) in batch.connection.execute(_IDS).fetchall()]
        batch.afterwards += (partial(worker_lock.sweep, batch.deaths.folder, known), _registered)


class Close(Operation):
    """A worker leaves. What it still holds is claimable at once."""

    kind = "worker"

    def __init__(self, worker_id: str) -> None:
        self._worker_id = worker_id

    def apply(self, batch: Batch) -> None:
        batch.save()
        batch.connection.execute(_CLOSE, (self._worker_id,))
        batch.claimable = True
        strike_off(batch)


def record_deaths(batch: Batch, causes: Mapping[str, ClaimCause]) -> None:
    """Note whose death was proven, and strike off whoever holds nothing any more."""
    dead = [worker_id for worker_id, cause in causes.items() if cause == "lost"]
    batch.connection.execute(_DEAD, (json.dumps(dead),))
    strike_off(batch)


def strike_off(batch: Batch) -> None:
    """Delete the rows of workers that are gone and hold nothing, and after the commit their files."""
    for (worker_id,) in batch.connection.execute(_STRIKE_OFF).fetchall():
        batch.afterwards += (
            partial(worker_lock.bury, batch.deaths.folder, str(worker_id)),
            partial(batch.deaths.forget, str(worker_id)),
        )
