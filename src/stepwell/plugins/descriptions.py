"""What an agent is, for people: its types as JSON Schema, its policies, where it stands; and what is wrong with it.

Looks at declarations only. It runs no agent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stepwell.agents.function import FunctionRunnable
from stepwell.app import Agent, App, FunctionAgent, Limit
from stepwell.codec import json_schema
from stepwell.domain.errors import InvalidDefinition
from stepwell.domain.retry import Retry
from stepwell.plugins.importing import shown
from stepwell.ports.runnable import SessionMode, WhenBusy


@dataclass(frozen=True, slots=True)
class AgentDescription:
    """An agent as declared. `place` is `file:line`; `input` and `output` are annotations; `timeout` is in
    seconds. `concurrency` is its own limit, `app_limit` that of its app; `cleans_up` says that it has a function for
    its cancel.
    """

    name: str
    version: str
    summary: str
    place: str
    takes_input: bool
    input: Any
    output: Any
    input_schema: Mapping[str, Any]
    output_schema: Mapping[str, Any]
    retry: Retry | None
    timeout: float
    concurrency: Limit | None
    app_limit: int | None
    session: SessionMode
    busy: WhenBusy
    children: int
    cleans_up: bool


@dataclass(frozen=True, slots=True)
class Problem:
    """A thing that is wrong with a declaration, and the `file:line` of it."""

    place: str
    error: InvalidDefinition


def describe(agent: Agent[Any, Any]) -> AgentDescription:
    """The agent's description. Raises `InvalidDefinition` when its annotations cannot be resolved or stored."""
    runnable = _runnable(agent)
    return AgentDescription(
        name=agent.name,
        version=agent.version,
        summary=runnable.summary,
        place=_place(agent),
        takes_input=runnable.takes_input,
        input=runnable.input_annotation,
        output=runnable.output_annotation,
        input_schema=json_schema(runnable.input_annotation),
        output_schema=json_schema(runnable.output_annotation),
        retry=agent.retry,
        timeout=agent.timeout / 1_000_000,
        concurrency=agent.concurrency,
        app_limit=None if agent.app is None else agent.app.limit,
        session=agent.session,
        busy=agent.busy,
        children=agent.children,
        cleans_up=agent.cancel_hook is not None,
    )


def check(app: App[Any]) -> list[Problem]:
    """Everything that is wrong with the declarations of an app, in their order; empty when nothing is."""
    return [problem for agent in app.agents.values() for problem in _problems(agent)]


def _problems(agent: Agent[Any, Any]) -> list[Problem]:
    try:
        runnable = _runnable(agent)
        annotations = (runnable.input_annotation, runnable.output_annotation)
    except InvalidDefinition as error:
        return [Problem(_place(agent), error)]
    found = []
    for annotation in annotations:
        try:
            json_schema(annotation)
        except InvalidDefinition as error:
            found.append(Problem(_place(agent), error))
    return found


def _runnable(agent: Agent[Any, Any]) -> FunctionRunnable:
    if isinstance(agent, FunctionAgent):
        return FunctionRunnable(agent)
    raise InvalidDefinition(f"agent {agent.name!r} is of a kind that is not known here", code="definition.kind")


def _place(agent: Agent[Any, Any]) -> str:
    if not isinstance(agent, FunctionAgent):
        return agent.name
    code = agent.fn.__code__
    return f"{shown(Path(code.co_filename))}:{code.co_firstlineno}"
