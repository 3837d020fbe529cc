"""Suspects: runs that were lost twice or more without progress in between. One of them may be what kills the workers,
so each is executed where it takes nobody along.

That is a process of its own where the worker was given a way to start one; else the worker begins nothing new, lets
what it executes come to its end, and then executes the suspect alone.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeAlias

from stepwell.domain.run import SUSPECT_AFTER

if TYPE_CHECKING:
    from stepwell.ports.store import Claims, Suspects

_log = logging.getLogger("stepwell.engine")

Aside: TypeAlias = Callable[[], Awaitable[None]]
"""Executes suspects in another process, one after the other, and returns when none is left or that process died.
Raises when it cannot be started.
"""


class Quarantine:
    """What one worker does about suspects. With `only`, it executes nothing else, until there is none left."""

    def __init__(self, *, aside: Aside | None = None, only: bool = False) -> None:
        self.none_left = asyncio.Event()
        self._aside = aside
        self._only = only
        self._seen = only
        self._alone = False
        self._task: asyncio.Task[None] | None = None

    def is_quiet(self, *, busy: bool) -> bool:
        """Whether nothing may begin beside what runs already."""
        return self._alone or (self._seen and self._aside is None and busy)

    def ask(self, free: int) -> tuple[Suspects, int]:
        """What to claim, and how many at most."""
        return ("alone", 1) if self._seen and self._aside is None else ("skip", free)

    def learn(self, asked: Suspects, claims: Claims, wake: Callable[[], None]) -> None:
        """What a claim gave. `wake` is called when it makes sense to claim again."""
        self._alone = asked == "alone" and any(claim.run.life.losses >= SUSPECT_AFTER for claim in claims.taken)
        self._seen = claims.suspects or self._only
        if asked == "alone" and not self._alone:  # what was taken instead is nothing to be set apart
            self.none_left.set()
        if self._seen and self._aside is not None and self._task is None:
            self._task = asyncio.create_task(self._set_aside(self._aside, wake), name="stepwell-suspects")

    def ended(self) -> None:
        """Nothing is being executed any more."""
        self._alone = False

    async def _set_aside(self, aside: Aside, wake: Callable[[], None]) -> None:
        try:
            await aside()
        except Exception as error:  # noqa: BLE001 - whatever keeps that process from starting, the suspects must be executed
            _log.warning("no process of their own for runs that were lost again and again; others wait: %s", error)
            self._aside = None
        finally:
            self._task = None
            wake()

    async def stop(self) -> None:
        """End the process that executes suspects; it hands back what it holds."""
        task = self._task
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
