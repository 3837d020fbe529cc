"""The end of a worker whose store became unusable: damaged, gone, or on a device that failed.

Trying again could only do harm there, so the worker stops everything, and whoever runs it is told.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from stepwell.domain.errors import StoreUnusable

_log = logging.getLogger("stepwell.engine")


class Breakdown:
    """Whether the store of one worker became unusable, and why. `stop` is called once, when that is first known."""

    def __init__(self, stop: Callable[[], None]) -> None:
        self.error: StoreUnusable | None = None
        self._stop = stop
        self._known = asyncio.Event()

    def note(self, error: StoreUnusable) -> None:
        """The store said so. On the event loop."""
        if self.error is not None:
            return
        self.error = error
        _log.error("the store is unusable, nothing more is executed here: %s", error)
        self._known.set()
        self._stop()

    async def wait(self) -> StoreUnusable:
        """Wait until the store is unusable; the first error that said so."""
        await self._known.wait()
        assert self.error is not None
        return self.error
