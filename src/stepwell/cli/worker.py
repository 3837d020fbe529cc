"""`stepwell worker`: execute whatever the app's agents have to do, until told to stop."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import click

from stepwell.cli.commands import store_option
from stepwell.cli.failures import OK
from stepwell.cli.terminal import say

if TYPE_CHECKING:
    from stepwell.app import App
    from stepwell.runtime import Runtime


@click.command(short_help="Execute queued runs until stopped.")
@click.argument("target", required=False)
@click.option("--capacity", type=click.IntRange(min=1), default=16, show_default=True, help="Runs executed at once.")
@store_option
def worker(target: str | None, capacity: int, store: str | None) -> int:
    """Execute the runs of an app's agents, those that were left by others too, until SIGTERM or Ctrl-C.

    Then it takes nothing new, lets what runs finish for up to 30 seconds, and hands the rest back. A second signal
    ends it at once.
    """
    from stepwell.runtime import load_target

    if not logging.getLogger().handlers:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    loaded = load_target(target)
    return asyncio.run(_work(loaded.app, capacity, store))


async def _work(app: App[Any], capacity: int, store: str | None) -> int:
    from stepwell.cli.interrupts import stop_requests
    from stepwell.config import find_store
    from stepwell.runtime import Runtime

    setting = find_store(store)
    with stop_requests("ended at once; others, or a restart, take up what it executed") as stop:
        async with Runtime(app, store=setting.value, capacity=capacity) as runtime:
            say(f"working on {', '.join(app.agents) or 'nothing'}; capacity {capacity}; store {setting.value}")
            await _until(stop, runtime)
            say("draining: nothing new is taken; a second signal ends at once")
        say("stopped")
    return OK


async def _until(stop: asyncio.Event, runtime: Runtime[Any]) -> None:
    """Until told to stop. Raises `StoreUnusable` when the store becomes so: to go on would help nobody."""
    stopping = asyncio.create_task(stop.wait())
    breaking = asyncio.create_task(runtime.broken())
    try:
        await asyncio.wait((stopping, breaking), return_when=asyncio.FIRST_COMPLETED)
        if breaking.done():
            raise await breaking
    finally:
        stopping.cancel()
        breaking.cancel()
        await asyncio.wait((stopping, breaking))
