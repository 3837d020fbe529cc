"""Heartbeats: extend the leases of a worker and learn what it still holds, on a connection of their own."""

from __future__ import annotations

import threading
from typing import Final

import apsw

from stepwell.ports.clock import Clock
from stepwell.ports.crash_point import CrashPoint
from stepwell.ports.store import Control, Heartbeat
from stepwell.stores.sqlite import errors
from stepwell.stores.sqlite.connection import Checkpoints, Patience, connect, settle
from stepwell.stores.sqlite.statements import fetch

_PATIENCE_SECONDS: Final = 5.0

_before_commit: Final = CrashPoint("heartbeat.before_commit")
_after_commit: Final = CrashPoint("heartbeat.after_commit")

_EXTEND: Final = "UPDATE worker SET heartbeat_at = ?, lease_until = ?, lease = ? WHERE id = ? AND gone IS NULL"
_HELD: Final = (
    "SELECT json_group_object(id, json_array(fence, cancelling, pausing))"
    " FROM run INDEXED BY run_running WHERE status = 'running' AND worker = ?"
)


class Heartbeats:
    """The connection of the heartbeats, opened at the first one."""

    def __init__(self, path: str, clock: Clock, vfs: str | None) -> None:
        self._path = path
        self._clock = clock
        self._vfs = vfs
        self._lock = threading.Lock()
        self._connection: apsw.Connection | None = None
        self._checkpoints: Checkpoints | None = None
        self._closed = False

    def beat(self, worker_id: str, lease: int) -> Heartbeat:
        """Extend the leases by `lease` microseconds from now, and tell what the worker holds."""
        with self._lock:
            if self._closed:
                raise errors.closed(self._path)
            try:
                return self._beat(worker_id, lease)
            except apsw.Error as error:
                raise errors.translate(error, self._path, self._connection) or error from error

    def close(self) -> None:
        """No more heartbeats."""
        with self._lock:
            self._closed = True
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _beat(self, worker_id: str, lease: int) -> Heartbeat:
        connection = self._connection = self._connection or self._connect()
        now, elapsed = self._clock.now(), round(self._clock.elapsed() * 1_000_000)
        _before_commit()
        connection.execute(_EXTEND, (now, elapsed + lease, lease, worker_id))
        _after_commit()
        if self._checkpoints is not None and self._checkpoints.failed is not None:
            raise self._checkpoints.failed
        held = fetch(connection, _HELD, (worker_id,))
        return Heartbeat(
            {
                run_id: (fence, Control(bool(cancelling), bool(pausing)))
                for run_id, (fence, cancelling, pausing) in held.items()
            }
        )

    def _connect(self) -> apsw.Connection:
        connection = connect(self._path, self._vfs)
        connection.set_busy_handler(Patience(_PATIENCE_SECONDS))
        # A lease need not outlive a power cut, which ends every worker anyway: no wait for the disk.
        self._checkpoints = settle(connection, self._path, synchronous="normal")
        return connection
