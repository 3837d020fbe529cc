"""Ctrl-C and SIGTERM: the first asks to stop in good order, the second ends the process at once."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, Final

import click

from stepwell.cli.failures import INTERRUPTED

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def stop_requests(last_words: str) -> Iterator[asyncio.Event]:
    """An event of the running loop that is set by the first signal. Also heard while the loop is busy with the
    user's code. The second signal writes the last words to stderr.
    """
    loop = asyncio.get_running_loop()
    requested = asyncio.Event()
    heard = False

    def hear(number: int, frame: FrameType | None) -> None:
        nonlocal heard
        if heard:
            _write_last(last_words)
            os._exit(INTERRUPTED)
        heard = True
        loop.call_soon_threadsafe(requested.set)

    before: dict[signal.Signals, Any] = {number: signal.signal(number, hear) for number in _SIGNALS}
    try:
        yield requested
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _write_last(words: str) -> None:
    with suppress(OSError):  # nobody reads any more
        os.write(2, f"{click.unstyle(words)}\n".encode(getattr(sys.stderr, "encoding", None) or "ascii", "replace"))
