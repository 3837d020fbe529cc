"""How long an attempt has held its run: what the run is charged for, and what its time limit bounds."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from stepwell.ports.clock import Clock

_TICK: Final = 0.001


class Leasing:
    """The time since an attempt took its run, without that in which its lease had run out: then it held nothing.

    `in_force` gives seconds on a scale that stands still meanwhile; without it the lease never runs out. `claimed_at`
    is the moment of the claim on the clock's scale of durations.
    """

    __slots__ = ("_clock", "_in_force", "_since", "claimed_at")

    def __init__(self, clock: Clock, in_force: Callable[[], float] | None) -> None:
        self._clock = clock
        self._in_force = in_force or clock.elapsed
        self._since = self._in_force()
        self.claimed_at = clock.elapsed()

    @property
    def seconds(self) -> float:
        """How long the run was held so far."""
        return self._in_force() - self._since

    @property
    def interrupted(self) -> bool:
        """Whether the lease ran out for a while, although nobody took the run."""
        return self._clock.elapsed() - self.claimed_at > self.seconds + _TICK
