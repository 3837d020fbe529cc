"""The process for suspects, started as `python -m stepwell.runtime.suspects` with what it needs as JSON in the last
argument. It executes nothing but suspects, one at a time, and ends when none is left.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Mapping
from typing import Any

from stepwell.plugins import load_target
from stepwell.runtime.aside import BEGUN
from stepwell.runtime.composition import Runtime


class _Aside(Runtime[Any]):
    """Executes suspects only, one at a time, until none is left."""

    _suspects_only = True

    async def work(self, stop: asyncio.Event) -> None:
        """Until none is left, until told to stop, or until the store is unusable."""
        assert self._worker is not None
        done = asyncio.create_task(self._worker.quarantine.none_left.wait())
        told = asyncio.create_task(stop.wait())
        broken = asyncio.create_task(self.broken())
        await asyncio.wait([done, told, broken], return_when=asyncio.FIRST_COMPLETED)
        for task in (done, told, broken):
            task.cancel()


async def _work(told: Mapping[str, Any]) -> None:
    apps = [load_target(target).app for target in told["targets"]]
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with _Aside(*apps, store=told["store"], capacity=1, lease=told["lease"]) as runtime:
        os.write(told["pipe"], BEGUN)
        os.close(told["pipe"])
        await runtime.work(stop)


if __name__ == "__main__":
    asyncio.run(_work(json.loads(sys.argv[-1])))
