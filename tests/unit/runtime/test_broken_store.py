"""A store that becomes unusable under a runtime: whoever waits is told, and nothing is executed any more."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from stepwell import App, Context, Misuse, Runtime, StoreUnusable
from stepwell.ports.store import ClaimRequest, Claims, Store
from stepwell.stores.memory.store import MemoryStore

PATIENCE = 30
app = App("broken")


@app.agent
async def waiting(ctx: Context) -> str:
    return await ctx.ask("Well?", str)


class Breakable(MemoryStore):
    """A store whose claims say that it is damaged, once it is."""

    damaged: StoreUnusable | None = None

    async def claim(self, request: ClaimRequest) -> Claims:
        if self.damaged is not None:
            raise self.damaged
        return await super().claim(request)


class OnBreakable(Runtime[Any]):
    """A runtime on such a store."""

    def _make_store(self) -> Store:
        self.breakable = Breakable(clock=self._clock)
        return self.breakable


async def test_whoever_waits_is_told_why() -> None:
    async with OnBreakable(app) as runtime:
        run = await runtime.start(waiting)
        question = await run.question(timeout=PATIENCE)
        read = [question.id]

        async def follow() -> None:
            async for event in run.events():
                read.append(event.kind)

        waits = [run.result(timeout=PATIENCE), follow(), runtime.broken(), other(runtime)]
        tasks = [asyncio.create_task(wait) for wait in waits]
        await asyncio.sleep(0)
        runtime.breakable.damaged = StoreUnusable("the file is damaged", code="store.damaged")
        async with asyncio.timeout(PATIENCE):
            told = await asyncio.gather(*tasks, return_exceptions=True)
        assert told == [runtime.breakable.damaged] * 4
        assert not (await run.refresh()).ended  # what can be read is read


async def other(runtime: Runtime[Any]) -> None:
    """Wait for a question of a run that asks none."""
    run = await runtime.start(waiting, delay=3600)
    await run.question()


async def test_where_nothing_is_executed_nothing_breaks() -> None:
    async with OnBreakable(app, worker=False) as runtime:
        with pytest.raises(Misuse) as raised:
            await runtime.broken()
        assert raised.value.code == "runtime.no_worker"
