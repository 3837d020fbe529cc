"""The small groups of a runtime: its agents, the workers of its store, and the lines that runs stand in."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from stepwell.app import Agent, App, Limit
from stepwell.ports.runnable import SessionMode, WhenBusy
from stepwell.ports.store import LaneInfo, Store, WorkerInfo


@dataclass(frozen=True, slots=True)
class AgentInfo:
    """An agent as its app declares it: its name and version, and the limits that its runs pass through.

    `concurrency` is its own limit, `app_limit` that of its whole app.
    """

    name: str
    version: str
    app: str
    concurrency: Limit | None
    app_limit: int | None
    session: SessionMode
    busy: WhenBusy
    children: int


class Agents:
    """`runtime.agents`."""

    def __init__(self, apps: Sequence[App[Any]]) -> None:
        self._apps = apps

    async def list(self) -> builtins.list[AgentInfo]:
        """The agents of the runtime's apps, in the order of their declaration."""
        return [_agent_info(agent, app) for app in self._apps for agent in app.agents.values()]


class Workers:
    """`runtime.workers`."""

    def __init__(self, store: Callable[[], Store]) -> None:
        self._store = store

    async def list(self) -> builtins.list[WorkerInfo]:
        """The processes that execute runs of this store and are not known to be dead, oldest first."""
        return await self._store().workers()


class Queues:
    """`runtime.queues`."""

    def __init__(self, store: Callable[[], Store]) -> None:
        self._store = store

    async def list(self, *, awaited_by: str | None = None) -> builtins.list[LaneInfo]:
        """The lanes in which somebody is or waits, by kind and name; runs without limits stand in none. With
        `awaited_by`, a run's id, only the one that this run stands in line for.
        """
        return await self._store().lanes(awaited_by=awaited_by)


def _agent_info(agent: Agent[Any, Any], app: App[Any]) -> AgentInfo:
    return AgentInfo(
        name=agent.name,
        version=agent.version,
        app=app.name,
        concurrency=agent.concurrency,
        app_limit=app.limit,
        session=agent.session,
        busy=agent.busy,
        children=agent.children,
    )
