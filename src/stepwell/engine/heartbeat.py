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

from stepwell.domain.errors import StoreError, StoreUnusable

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

    `answer` is called on the event loop with each reply and the moment at which it was asked for, `broken` with the
    error of a store that will not be written any more; then it beats no more.
    """

    def __init__(
        self,
        store: Store,
        worker_id: str,
        *,
        lease_seconds: float,
        clock: Clock,
        answer: Callable[[Heartbeat, float], None],
        broken: Callable[[StoreUnusable], None],
    ) -> None:
        self._store = store
        self._worker_id = worker_id
        self._lease = lease_seconds
        self._clock = clock
        self._answer = answer
        self._broken = broken
        self._confirmed_at = clock.elapsed()
        self._without = 0.0
        self._ticked_at = clock.elapsed()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._loop = asyncio.get_running_loop()

    def leased_from_now(self) -> None:
        """The worker is about to be registered: its leases begin now, however late the answer comes."""
        self._confirmed_at = self._clock.elapsed()

    def start(self) -> None:
        """Begin to beat."""
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

    def in_force(self) -> float:
        """Seconds on a scale of durations that stands still while the leases have run out and are not confirmed again:
        a process that was stopped or suspended for long held nothing meanwhile, and nobody is charged for it.
        """
        now = self._clock.elapsed()
        return now - self._without - max(0.0, now - self._confirmed_at - self._lease)

    def _beat(self) -> None:
        next_beat: float | None = self._clock.elapsed() + self._lease / BEATS_PER_LEASE
        while next_beat is not None and not self._stopping.wait(self._lease / BEATS_PER_LEASE / _TICKS_PER_BEAT):
            next_beat = self._turn(next_beat)

    def _turn(self, next_beat: float) -> float | None:
        """Beat if it is time to and the event loop lives; when the next beat is due, `None` if the loop is closed."""
        if not self._ask_for_tick():
            return None
        now = self._clock.elapsed()
        if now < next_beat:
            return next_beat
        if now - self._ticked_at > min(_MAX_STALL, self._lease / 2):
            _log.warning("the event loop has not run for %.1f s; leases are not extended", now - self._ticked_at)
            return next_beat
        self._extend(now)
        return now + self._lease / BEATS_PER_LEASE

    def _extend(self, asked_at: float) -> None:
        try:
            reply = self._store.heartbeat(self._worker_id, lease_seconds=self._lease)
        except StoreUnusable as error:
            self._stopping.set()
            reason = error  # outlives this clause
            self._call_soon(lambda: self._broken(reason))
            return
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
        self._without += max(0.0, asked_at - self._confirmed_at - self._lease)
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
