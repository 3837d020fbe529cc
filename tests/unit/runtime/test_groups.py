"""The groups of a runtime: agents, workers, queues and sessions, as those outside of a run see them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from stepwell.app import App, Limit
from stepwell.domain.errors import Conflict, InvalidValue, NotFound
from stepwell.ports.context import Context
from stepwell.ports.session import Message
from stepwell.runtime import AgentInfo, LaneInfo, Run, Runtime

MEMORY = "memory://"


@dataclass(frozen=True)
class Cart:
    items: list[str]


app = App("shop", limit=9)


@app.agent(session="shared")
async def chat(ctx: Context, text: str) -> int:
    await ctx.session.add("user", text)
    await ctx.session.add("assistant", text.upper())
    await ctx.session.state.set("cart", {"items": [text]})
    return len(await ctx.session.messages())


@app.agent(concurrency=Limit(1, key=str), session="synchronized", busy="reject", version="2", children=3)
async def slow(ctx: Context, key: str) -> None:
    while not opened.is_set():
        await ctx.step(opened.wait)


@app.agent
async def patient(ctx: Context) -> None:
    await ctx.wait_for("go")


opened = asyncio.Event()


@pytest.fixture
async def runtime() -> AsyncIterator[Runtime[Any]]:
    global opened
    opened = asyncio.Event()
    async with Runtime(app, store=MEMORY) as made:
        yield made


class TestAgents:
    async def test_they_are_listed_with_their_limits(self) -> None:
        other = App("other")
        other.agent(name="plain")(chat.fn)
        found = await Runtime(app, other, store=MEMORY).agents.list()
        assert [(agent.name, agent.app) for agent in found] == [
            ("chat", "shop"),
            ("slow", "shop"),
            ("patient", "shop"),
            ("plain", "other"),
        ]
        assert found[1] == AgentInfo(
            name="slow",
            version="2",
            app="shop",
            concurrency=slow.concurrency,
            app_limit=9,
            session="synchronized",
            busy="reject",
            children=3,
        )
        assert (found[3].concurrency, found[3].app_limit, found[3].busy) == (None, None, "queue")


class TestWorkers:
    async def test_those_that_live_are_listed(self, runtime: Runtime[Any]) -> None:
        [worker] = await runtime.workers.list()
        assert worker.capacity == 16

    async def test_there_is_none_where_nobody_works(self) -> None:
        async with Runtime(app, store=MEMORY, worker=False) as idle:
            assert await idle.workers.list() == []


class TestQueues:
    async def test_limits_that_are_in_use_are_listed(self, runtime: Runtime[Any]) -> None:
        first = await runtime.start(slow, "a")
        second = await runtime.start(slow, "a")
        lanes = {(lane.kind, lane.name): lane for lane in await runtime.queues.list()}
        assert lanes["key", "slow a"] == LaneInfo("", "key", "slow a", 1, 1, 1)
        assert lanes["global", "shop"].capacity == 9
        assert ("session", first.session_id) in lanes
        opened.set()
        assert [(await run.result(timeout=10)).status for run in (first, second)] == ["succeeded"] * 2
        assert [lane for lane in await runtime.queues.list() if lane.taken or lane.waiting] == []

    @pytest.mark.parametrize("kind", ["memory", "sqlite"])
    async def test_a_run_in_line_is_told_which_limit_it_stands_in_line_for(self, kind: str, tmp_path: Path) -> None:
        url = MEMORY if kind == "memory" else f"sqlite:///{tmp_path}/s.db"
        async with Runtime(app, store=url, worker=False) as idle:
            first, second, other = [await idle.start(slow, key) for key in ("a", "a", "b")]
            [lane] = await idle.queues.list(awaited_by=second.id)
            assert (lane.kind, lane.name, lane.taken, lane.waiting) == ("key", "slow a", 1, 1)
            assert await idle.queues.list(awaited_by=first.id) == []
            assert await idle.queues.list(awaited_by=other.id) == []


class TestSessions:
    async def test_a_session_gives_what_its_runs_keep(self, runtime: Runtime[Any]) -> None:
        for text in ("hello", "bye"):
            await runtime.run(chat, text, session="cust-42")
        session = await runtime.sessions.get("cust-42")
        assert (session.id, session.message_count, session.keys) == ("cust-42", 4, ("cart",))
        assert session.updated_at - session.created_at >= timedelta(0)
        assert await session.messages() == [
            Message("user", "hello"),
            Message("assistant", "HELLO"),
            Message("user", "bye"),
            Message("assistant", "BYE"),
        ]
        assert await session.messages(last=1) == [Message("assistant", "BYE")]

    async def test_values_are_read_by_their_type(self, runtime: Runtime[Any]) -> None:
        await runtime.run(chat, "pen", session="cust-42")
        state = (await runtime.sessions.get("cust-42")).state
        assert await state.get("cart") == {"items": ["pen"]}
        assert await state.get("cart", Cart) == Cart(["pen"])
        assert await state.get("other") is None
        assert await state.get("other", Cart, default=Cart([])) == Cart([])
        with pytest.raises(InvalidValue):
            await state.get("cart", int)

    async def test_large_values_and_messages_are_read_from_beside_the_journal(self, runtime: Runtime[Any]) -> None:
        text = "x" * 200_000
        await runtime.run(chat, text, session="big")
        session = await runtime.sessions.get("big")
        assert (await session.messages(last=2))[0] == Message("user", text)
        assert await session.state.get("cart") == {"items": [text]}

    async def test_sessions_are_listed_the_last_changed_first(self, runtime: Runtime[Any]) -> None:
        for name in ("one", "two", "one"):
            await runtime.run(chat, "x", session=name)
        assert [session.id for session in await runtime.sessions.list()] == ["one", "two"]
        assert [session.id for session in await runtime.sessions.list(limit=1)] == ["one"]

    async def test_nobody_knows_a_session_that_never_was(self, runtime: Runtime[Any]) -> None:
        with pytest.raises(NotFound) as unknown:
            await runtime.sessions.get("nobody")
        assert unknown.value.code == "session.unknown"

    async def test_a_session_can_be_forgotten_once_its_runs_have_ended(self, runtime: Runtime[Any]) -> None:
        await runtime.run(chat, "x", session="s")
        run: Run[Any] = await runtime.start(patient, session="s")
        with pytest.raises(Conflict) as refused:
            await runtime.sessions.delete("s")
        assert refused.value.code == "session.busy"
        await run.cancel()
        await run.result(timeout=10)
        await runtime.sessions.delete("s")
        session = await runtime.sessions.get("s")
        assert (session.message_count, session.keys, await session.messages()) == (0, (), [])
