"""The workers of one process: until when their leases last, and which of them are known to be dead."""

from __future__ import annotations

from dataclasses import dataclass, replace

from stepwell.domain.errors import Conflict
from stepwell.domain.transitions import ClaimCause
from stepwell.ports.store import WorkerInfo


@dataclass(slots=True)
class _Registered:
    info: WorkerInfo
    leased_until: float
    dead: bool = False


class Workers:
    """Who may hold runs. Moments are seconds on the scale of `Clock.elapsed`."""

    def __init__(self) -> None:
        self._registered: dict[str, _Registered] = {}

    def open(self, info: WorkerInfo, *, now: int, leased_until: float) -> None:
        """Register a worker; its leases begin."""
        if info.id in self._registered:
            raise Conflict(f"a worker {info.id} is registered already", code="worker.exists")
        self._registered[info.id] = _Registered(replace(info, heartbeat_at=now), leased_until)

    def close(self, worker_id: str) -> None:
        """Forget a worker that says it stops."""
        self._registered.pop(worker_id, None)

    def abandon(self, worker_id: str) -> None:
        """From now on the worker is known to be dead."""
        if worker_id in self._registered:
            self._registered[worker_id].dead = True

    def abandon_all(self) -> None:
        """Their process gives up, and with it every worker that did not close."""
        for worker_id in self._registered:
            self.abandon(worker_id)

    def extend(self, worker_id: str, *, now: int, leased_until: float) -> None:
        """Extend the leases of a worker that is registered and alive."""
        worker = self._registered.get(worker_id)
        if worker is not None and not worker.dead:
            worker.leased_until = leased_until
            worker.info = replace(worker.info, heartbeat_at=now)

    def why_lost(self, worker_id: str, elapsed: float) -> ClaimCause | None:
        """Why what this worker holds may be taken from it: it is dead, its leases ran out, or not at all."""
        worker = self._registered.get(worker_id)
        if worker is None:
            return "expired"
        if worker.dead:
            return "lost"
        return "expired" if elapsed >= worker.leased_until else None

    def alive(self) -> list[WorkerInfo]:
        """The registered ones that are not known to be dead, oldest first."""
        infos = [worker.info for worker in self._registered.values() if not worker.dead]
        return sorted(infos, key=lambda info: (info.started_at, info.id))
