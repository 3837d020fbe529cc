"""A clock that moves only when it is told to: for tests, where a second must not take a second."""

from __future__ import annotations

import asyncio
from heapq import heappop, heappush
from itertools import count
from typing import Final

START: Final = 1_767_225_600_000_000
"""Where a new clock stands: the first moment of 2026 (UTC), in microseconds since the epoch."""


class ManualClock:
    """The clock port, advanced by hand. Any thread may read `now` and `elapsed`; the rest belongs to the event loop.

    Inside it counts whole microseconds, so that whoever advances it to the moment of a sleeper wakes that sleeper.
    """

    def __init__(self, start: int = START) -> None:
        self._now = start
        self._passed = 0
        self._order = count()
        self._sleepers: list[tuple[int, int, asyncio.Future[None]]] = []

    def now(self) -> int:
        """Microseconds since the epoch, UTC."""
        return self._now

    def elapsed(self) -> float:
        """Seconds since the clock was made."""
        return self._passed / 1_000_000

    async def sleep(self, seconds: float) -> None:
        """Return when the clock has been advanced by that much; at once for zero or less."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        woken = asyncio.get_running_loop().create_future()
        heappush(self._sleepers, (self._passed + round(seconds * 1_000_000), next(self._order), woken))
        await woken

    def next_wake(self) -> int | None:
        """How many microseconds must pass until the next sleeper wakes; `None` when nobody sleeps."""
        while self._sleepers and self._sleepers[0][2].done():  # cancelled
            heappop(self._sleepers)
        return self._sleepers[0][0] - self._passed if self._sleepers else None

    def advance(self, seconds: float) -> None:
        """Let time pass: both scales move on, and sleepers whose time has come wake up."""
        self.advance_by(round(seconds * 1_000_000))

    def advance_by(self, microseconds: int) -> None:
        """The same in microseconds."""
        self._passed += microseconds
        self._now += microseconds
        while self._sleepers and self._sleepers[0][0] <= self._passed:
            woken = heappop(self._sleepers)[2]
            if not woken.done():
                woken.set_result(None)

    def jump(self, seconds: float) -> None:
        """Set the wall clock forward or, if negative, back; no time passes."""
        self._now += round(seconds * 1_000_000)
