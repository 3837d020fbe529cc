"""The heartbeat: extends all leases of a worker in one statement, from a thread of its own, so that a busy event loop
costs no lease.

It stops extending when the event loop has not ticked for the stall limit: a worker that cannot act must not keep its
runs from others. Fencing, not this thread, is the guarantee.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from stepwell.domain.errors import StoreError

if TYPE_CHECKING:
    from stepwell.ports.clock import Clock
    from stepwell.ports.store import Heartbeat, Store

_log = logging.getLogger("stepwell.engine")

BEATS_PER_LEASE: Final = 3
SELF_STOP: Final = 0.8
_MAX_STALL: Final = 10.0
_TICKS_PER_BEAT: Final = 5


class Heart:
    """One worker's heartbeat.

    `answer` is called on the event loop with each reply and the moment at which it was asked for.
    """

    def __init__(
        self,
        store: Store,
        worker_id: str,
        *,
        lease_seconds: float,
        clock: Clock,
        answer: Callable[[Heartbeat, float], None],
    ) -> None:
        self._store = store
        self._worker_id = worker_id
        self._lease = lease_seconds
        self._clock = clock
        self._answer = answer
        self._confirmed_at = clock.elapsed()
        self._ticked_at = clock.elapsed()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._loop = asyncio.get_running_loop()

    def start(self) -> None:
        """Begin to beat. The lease was given a moment ago, when the worker was registered."""
        self._confirmed_at = self._clock.elapsed()
        self._thread = threading.Thread(target=self._beat, name="stepwell-heartbeat", daemon=True)
        self._thread.start()

    async def stop(self) -> None:
        """Stop beating; returns when the thread has ended or its last statement takes too long to wait for."""
        self._stopping.set()
        thread, self._thread = self._thread, None
        if thread is not None:
            await asyncio.to_thread(thread.join, 5)

    def beat(self) -> None:
        """Extend the leases at once, from the event loop's thread. What the store raises goes to the caller."""
        self._tick()
        asked_at = self._clock.elapsed()
        self._confirm(self._store.heartbeat(self._worker_id, lease_seconds=self._lease), asked_at)

    def certain(self) -> bool:
        """Whether the leases were confirmed so recently that nobody else can hold our runs yet."""
        return self._clock.elapsed() - self._confirmed_at < SELF_STOP * self._lease

    def _beat(self) -> None:
        interval = self._lease / BEATS_PER_LEASE
        stall_limit = min(_MAX_STALL, self._lease / 2)
        next_beat = self._clock.elapsed() + interval
        while not self._stopping.wait(interval / _TICKS_PER_BEAT):
            if not self._ask_for_tick():
                return
            now = self._clock.elapsed()
            if now < next_beat:
                continue
            if now - self._ticked_at > stall_limit:
                _log.warning("the event loop has not run for %.1f s; leases are not extended", now - self._ticked_at)
                continue
            next_beat = now + interval
            self._extend(now)

    def _extend(self, asked_at: float) -> None:
        try:
            reply = self._store.heartbeat(self._worker_id, lease_seconds=self._lease)
        except StoreError as error:
            _log.warning("a heartbeat failed, the next is due soon: %s", error)
            return
        except Exception:  # noqa: BLE001 - without its heartbeat a worker would lose everything and never say why
            _log.exception("a heartbeat failed, the next is due soon")
            return
        self._call_soon(lambda: self._confirm(reply, asked_at))

    def _confirm(self, reply: Heartbeat, asked_at: float) -> None:
        """First learn which runs are lost, only then be certain of the others."""
        self._answer(reply, asked_at)
        self._confirmed_at = asked_at

    def _ask_for_tick(self) -> bool:
        return self._call_soon(self._tick)

    def _tick(self) -> None:
        self._ticked_at = self._clock.elapsed()

    def _call_soon(self, fn: Callable[[], None]) -> bool:
        try:
            self._loop.call_soon_threadsafe(fn)
        except RuntimeError:  # the loop was closed under us: the process is ending
            return False
        return True
