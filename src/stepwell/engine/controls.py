"""What others ask of a worker's runs while it executes them, a cancel or a pause: heard soon, by looking when the store
hints at it. The next commit and the next heartbeat would tell as well.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from stepwell.domain.errors import StoreError, StoreUnusable
from stepwell.ports.notifier import CONTROL
from stepwell.ports.store import Control

if TYPE_CHECKING:
    from stepwell.ports.clock import Clock
    from stepwell.ports.store import Store

_log = logging.getLogger("stepwell.engine")

_POLL: Final = 0.25
_AFTER_STORE_ERROR: Final = 1.0


class Controls:
    """One worker's ear. Looks only while it is `busy`; `obey` gets what was asked of which run and fence, `broken` the
    error of a store that cannot be used any more, after which nothing is looked for.
    """

    def __init__(
        self,
        store: Store,
        worker_id: str,
        *,
        clock: Clock,
        busy: Callable[[], bool],
        obey: Callable[[Mapping[str, tuple[int, Control]]], None],
        broken: Callable[[StoreUnusable], None],
    ) -> None:
        self._store = store
        self._worker_id = worker_id
        self._clock = clock
        self._busy = busy
        self._obey = obey
        self._broken = broken
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to listen."""
        self._task = asyncio.create_task(self._listen(), name="stepwell-control")

    async def stop(self) -> None:
        """Listen no more. Twice is fine."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def _listen(self) -> None:
        with self._store.notifier.listen(CONTROL) as listener:
            while True:
                try:
                    if self._busy():
                        self._obey(await self._store.controls(self._worker_id))
                except StoreUnusable as error:
                    self._broken(error)
                    return
                except StoreError as error:
                    _log.warning("what others ask of our runs could not be read: %s", error)
                    await self._clock.sleep(_AFTER_STORE_ERROR)
                except Exception:  # noqa: BLE001 - without this loop no cancel would be heard, and nobody would say why
                    _log.exception("what others ask of our runs could not be read")
                    await self._clock.sleep(_AFTER_STORE_ERROR)
                await listener.wait(_POLL)
