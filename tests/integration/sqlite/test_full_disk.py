"""A worker whose disk is full: what it executes is not lost, and it goes on by itself when there is space again."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from stepwell import App, Context, Runtime, StoreFull
from stepwell.ports.store import Store
from stepwell.stores.sqlite.store import SqliteStore
from tests.integration.sqlite.faulty_disk import FaultyDisk

PATIENCE = 60
app = App("full")
effects: Counter[str] = Counter()
disk_is_full = asyncio.Event()


class OnDisk(Runtime[Any]):
    """A runtime whose store is on the disk."""

    disk: FaultyDisk
    path: Path

    def _make_store(self) -> Store:
        return SqliteStore(str(self.path), vfs=self.disk.name)


async def fill(name: str) -> str:
    effects[name] += 1
    OnDisk.disk.full = effects[name] == 1
    disk_is_full.set()
    return name


@app.agent
async def filling(ctx: Context) -> str:
    return await ctx.step(fill, "kept")


@app.agent
async def waiting(ctx: Context) -> str:
    return await ctx.wait_for("word", str)


async def test_it_reads_on_and_takes_its_work_up_again_when_there_is_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stepwell.engine.worker._AFTER_STORE_ERROR", 0.05)
    OnDisk.disk, OnDisk.path = FaultyDisk(), tmp_path / "data.db"
    async with OnDisk(app, lease=1) as runtime:
        idle = await runtime.start(waiting)
        run = await runtime.start(filling)
        async with asyncio.timeout(PATIENCE):
            await disk_is_full.wait()
        for refused in (runtime.start(filling), idle.signal("word", "now"), idle.cancel()):
            with pytest.raises(StoreFull):
                await refused
        assert (await run.refresh()).status == "running"
        assert [each.id for each in await runtime.runs.list()] == [run.id, idle.id]
        OnDisk.disk.full = False
        assert (await run.result(timeout=PATIENCE)).output == "kept"
        assert effects["kept"] == 2  # the result that could not be written: the step was executed again
        await idle.signal("word", "then")
        assert (await idle.result(timeout=PATIENCE)).output == "then"
