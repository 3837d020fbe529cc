"""A clock that moves only when it is told to: for tests, where a second must not take a second."""

from __future__ import annotations

import asyncio
from heapq import heappop, heappush
from itertools import count
from typing import Final

START: Final = 1_767_225_600_000_000
"""Where a new clock stands: the first moment of 2026 (UTC), in microseconds since the epoch."""


class ManualClock:
    """The clock port, advanced by hand. Any thread may read `now` and `elapsed`; the rest belongs to the event loop."""

    def __init__(self, start: int = START) -> None:
        self._now = start
        self._elapsed = 0.0
        self._order = count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    def now(self) -> int:
        """Microseconds since the epoch, UTC."""
        return self._now

    def elapsed(self) -> float:
        """Seconds since the clock was made."""
        return self._elapsed

    async def sleep(self, seconds: float) -> None:
        """Return when the clock has been advanced by that much; at once for zero or less."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        woken = asyncio.get_running_loop().create_future()
        heappush(self._sleepers, (self._elapsed + seconds, next(self._order), woken))
        await woken

    def advance(self, seconds: float) -> None:
        """Let time pass: both scales move on, and sleepers whose time has come wake up."""
        self._elapsed += seconds
        self._now += round(seconds * 1_000_000)
        while self._sleepers and self._sleepers[0][0] <= self._elapsed:
            woken = heappop(self._sleepers)[2]
            if not woken.done():
                woken.set_result(None)

    def jump(self, seconds: float) -> None:
        """Set the wall clock forward or, if negative, back; no time passes."""
        self._now += round(seconds * 1_000_000)
