"""`stepwell queues`: the limits that runs stand in line for. No app is imported for it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import click

from stepwell.cli import records
from stepwell.cli.commands import Commands, json_option, store_option
from stepwell.cli.failures import OK
from stepwell.cli.reading import opened
from stepwell.cli.terminal import say, show, table
from stepwell.cli.waits import lane_name

if TYPE_CHECKING:
    from stepwell.runtime import LaneInfo


@click.group(cls=Commands, short_help="The limits that runs stand in line for.")
def queues() -> None:
    """Limits of apps, agents, keys and synchronized sessions: who is in, and who stands in line."""


@queues.command("list", short_help="Limits that are in use.")
@json_option
@store_option
def list_queues(as_json: bool, store: str | None) -> int:
    """Every limit in which a place is taken or awaited: its capacity, how many are in, how many stand in line."""

    async def read() -> list[LaneInfo]:
        async with opened(store) as runtime:
            return await runtime.queues.list()

    found = asyncio.run(read())
    if as_json:
        show(records.page([_record(lane) for lane in found]))
    elif found:
        rows = [(lane_name(lane), f"{lane.taken} of {lane.capacity}", str(lane.waiting)) for lane in found]
        for line in table(("limit", "taken", "in line"), rows):
            show(line)
    else:
        say("no limit is in use")
    return OK


def _record(lane: LaneInfo) -> dict[str, Any]:
    return {
        "kind": lane.kind,
        "name": lane.name,
        "capacity": lane.capacity,
        "taken": lane.taken,
        "waiting": lane.waiting,
    }
