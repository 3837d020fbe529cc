"""The process for suspects, started as `python -m stepwell.runtime.suspects` with what it needs as JSON in the last
argument. It executes nothing but suspects, one at a time, and ends when none is left.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from typing import Any

from stepwell.app import App
from stepwell.plugins import load_target
from stepwell.runtime.aside import CANNOT_LOAD
from stepwell.runtime.composition import Runtime


class _Aside(Runtime[Any]):
    """Executes suspects only, one at a time, until none is left."""

    _suspects_only = True

    async def work(self, stop: asyncio.Event) -> None:
        """Until none is left, or until told to stop."""
        assert self._worker is not None
        done = asyncio.create_task(self._worker.quarantine.none_left.wait())
        told = asyncio.create_task(stop.wait())
        await asyncio.wait([done, told], return_when=asyncio.FIRST_COMPLETED)
        for task in (done, told):
            task.cancel()


async def _work(apps: list[App[Any]], store: str, lease: float) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with _Aside(*apps, store=store, capacity=1, lease=lease) as runtime:
        await runtime.work(stop)


def main() -> int:
    """The process: 3 when the apps cannot be loaded."""
    told = json.loads(sys.argv[-1])
    try:
        apps = [load_target(target).app for target in told["targets"]]
    except Exception as error:  # noqa: BLE001 - a user's module may raise anything; the worker goes on without us
        sys.stderr.write(f"the apps cannot be loaded here: {error}\n")
        return CANNOT_LOAD
    asyncio.run(_work(apps, told["store"], told["lease"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
