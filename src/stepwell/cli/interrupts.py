"""Ctrl-C and SIGTERM: the first asks to stop in good order, the second ends the process at once."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final

from stepwell.cli.failures import INTERRUPTED

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def stop_requests() -> Iterator[asyncio.Event]:
    """An event of the running loop that is set by the first signal. Also heard while the loop is busy with the
    user's code.
    """
    loop = asyncio.get_running_loop()
    requested = asyncio.Event()
    heard = False

    def hear(number: int, frame: FrameType | None) -> None:
        nonlocal heard
        if heard:
            os._exit(INTERRUPTED)
        heard = True
        loop.call_soon_threadsafe(requested.set)

    before: dict[signal.Signals, Any] = {number: signal.signal(number, hear) for number in _SIGNALS}
    try:
        yield requested
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
