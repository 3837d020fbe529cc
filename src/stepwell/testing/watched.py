"""A memory store that knows whether a worker has looked for work since the last change. For the testing runtime."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from stepwell.ports.clock import Clock
from stepwell.ports.notifier import QUEUE
from stepwell.ports.store import ClaimRequest, Claims
from stepwell.stores.hints import Hints
from stepwell.stores.memory.store import MemoryStore

CHANGE: Final = "change"
"""The topic of everything that happens in a watched store."""


class _CountedHints(Hints):
    """Counts what was told: every change of a run is."""

    def __init__(self) -> None:
        super().__init__()
        self.changes = 0

    def give(self, topics: Iterable[str]) -> None:
        told = list(topics)
        if told:
            self.changes += 1
            self.pass_on((*told, CHANGE))

    def pass_on(self, topics: Iterable[str]) -> None:
        """Wake listeners although nothing has changed."""
        super().give(topics)


class WatchedStore(MemoryStore):
    """`next_due_at` is when the first run becomes due by itself, as of the last look of a worker that found nothing."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self._told = _CountedHints()
        self.notifier = self._told
        self._looked_at = -1
        self.next_due_at: int | None = None

    @property
    def changes(self) -> int:
        """A number that grows with every change, and when time passes."""
        return self._told.changes

    @property
    def looked(self) -> bool:
        """Whether a worker has looked for work since the last change, and there was none."""
        return self._looked_at == self._told.changes

    def rouse(self) -> None:
        """Have the worker look for work."""
        self._told.pass_on((QUEUE,))

    def time_passed(self, runs: Iterable[str]) -> None:
        """The clock was moved: whoever waits for a moment, these runs among them, is to look at it again."""
        self._told.give((QUEUE, *runs))

    async def claim(self, request: ClaimRequest) -> Claims:
        claims = await super().claim(request)
        if not claims.taken and not claims.suspects:
            self._looked_at = self._told.changes
            self.next_due_at = claims.next_due_at
        self._told.pass_on((CHANGE,))
        return claims
