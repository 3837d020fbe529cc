"""Time and randomness, as the core asks for them. Nothing in the core reads a clock or draws a number on its own."""

from __future__ import annotations

from typing import Protocol


class Clock(Protocol):
    """The time, and a way to wait.

    `now` is for people and timers: microseconds since the epoch, UTC; it may jump. `elapsed` is for leases and
    durations: seconds on a scale that never jumps and, where the system offers it, counts time asleep
    (CLOCK_BOOTTIME); only differences mean anything.
    """

    def now(self) -> int: ...

    def elapsed(self) -> float: ...

    async def sleep(self, seconds: float) -> None: ...


class Entropy(Protocol):
    """`n` random bytes, unpredictable to others in production and seeded in a simulation."""

    def __call__(self, n: int, /) -> bytes: ...
