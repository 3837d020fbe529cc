"""Wake-up hints: allowed to be lost, never allowed to be the truth. Whoever is woken reads the store.

Topics are run ids, `QUEUE` for "something may be claimable", and `CONTROL` for "somebody asked to cancel or pause a
running run".
"""

from __future__ import annotations

from types import TracebackType
from typing import Final, Protocol, Self

QUEUE: Final = "queue"
CONTROL: Final = "control"


class Listener(Protocol):
    """One waiter on one topic. A hint given since the last `wait` returned is not missed."""

    async def wait(self, seconds: float) -> bool:
        """Return true at a hint, false after `seconds`."""
        ...

    def wake(self) -> None:
        """Give this one listener a hint."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Notifier(Protocol):
    """Makes listeners. Hints come from this process at once; from others as the store can, within its poll at the
    latest.
    """

    def listen(self, topic: str) -> Listener: ...
