"""A line of runs that wait to be claimed: those whose time has come by their place, the others by their time.

An entry is never looked for and removed when its run moves on; it is recognised as stale when it comes up. So every
change costs O(log n), and what is due is decided by the run itself, not by the entry.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heapify, heappop, heappush
from typing import NamedTuple, TypeAlias

from stepwell.domain.outcome import NEVER
from stepwell.domain.run import QUEUED, WAITING, Lifecycle


class Place(NamedTuple):
    """Where a run stands: lower goes first, and of two in one place the one that was submitted first."""

    place: int
    number: int
    run_id: str
    available_at: int


class _Later(NamedTuple):
    available_at: int
    number: int
    place: Place


Waits: TypeAlias = Callable[[str, int], bool]
"""Whether a run still stands in the line, since the same moment."""


def claimable(life: Lifecycle) -> bool:
    """Whether a worker may take the run once it is due and its lanes have room."""
    return life.status in (QUEUED, WAITING) and life.hold is None


class Line:
    """The runs of one kind."""

    def __init__(self, waits: Waits) -> None:
        self._waits = waits
        self._due: list[Place] = []
        self._later: list[_Later] = []
        self._promoted_at = 0

    def add(self, place: Place) -> None:
        """Note that the run may be claimed when its time has come, if ever it comes by itself."""
        if place.available_at < NEVER:
            heappush(self._later, _Later(place.available_at, place.number, place))

    def first_due(self, now: int) -> Place | None:
        """The run that goes first among those that are due. It stays first until it moves on."""
        self._promote(now)
        while self._due:
            first = self._due[0]
            if self._waits(first.run_id, first.available_at):
                return first
            heappop(self._due)
        return None

    def all_due(self, now: int) -> list[str]:
        """Every run whose time has come, in no order."""
        self._promote(now)
        self._due = [place for place in self._due if self._waits(place.run_id, place.available_at)]
        heapify(self._due)
        return list(dict.fromkeys(place.run_id for place in self._due))

    def next_due_at(self, now: int) -> int | None:
        """When the first of those that are not due yet will be, if one becomes due by itself."""
        self._promote(now)
        while self._later:
            first = self._later[0].place
            if self._waits(first.run_id, first.available_at):
                return first.available_at
            heappop(self._later)
        return None

    def _promote(self, now: int) -> None:
        if now < self._promoted_at:  # the wall clock went back
            for place in self._due:
                self.add(place)
            self._due.clear()
        self._promoted_at = now
        while self._later and self._later[0].available_at <= now:
            heappush(self._due, heappop(self._later).place)
