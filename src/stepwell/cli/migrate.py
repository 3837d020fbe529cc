"""`stepwell migrate`: bring a store to the schema of this version, before workers do it at their start."""

from __future__ import annotations

import asyncio

import click

from stepwell.cli.commands import store_option
from stepwell.cli.failures import OK
from stepwell.cli.terminal import show


@click.command(short_help="Create the store, or bring its schema up to date.")
@store_option
def migrate(store: str | None) -> int:
    """Create the store if there is none, and bring its schema to what this version writes.

    Every command does this when it opens a store; a deployment may want it done, and refused, at a time of its own.
    """
    return asyncio.run(_migrate(store))


async def _migrate(store: str | None) -> int:
    from stepwell.app import App
    from stepwell.config import find_store, store_file
    from stepwell.runtime import Runtime

    setting = find_store(store)
    file = store_file(setting.value)
    existed = file is not None and file.exists()
    async with Runtime(App("commands"), store=setting.value, worker=False) as runtime:
        report = await runtime.report()
    show(f"{setting.value}: {'is at' if existed else 'created with'} schema {report.schema}")
    return OK
