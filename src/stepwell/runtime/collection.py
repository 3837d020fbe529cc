"""The agents of a runtime's apps, by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stepwell.agents.function import FunctionRunnable
from stepwell.app import App, FunctionAgent
from stepwell.domain.errors import InvalidDefinition, NotFound
from stepwell.ports.runnable import Runnable


def collect(apps: Sequence[App[Any]]) -> tuple[dict[str, Runnable], dict[str, App[Any]]]:
    """What can be run, and the app of each. Raises `InvalidDefinition` when two apps have an agent of one name."""
    runnables: dict[str, Runnable] = {}
    app_of: dict[str, App[Any]] = {}
    for app in apps:
        for name, agent in app.agents.items():
            if name in runnables:
                raise InvalidDefinition(
                    f"apps {app_of[name].name!r} and {app.name!r} both have an agent named {name!r}",
                    code="definition.duplicate",
                    hint="rename one: @app.agent(name=...)",
                )
            assert isinstance(agent, FunctionAgent)
            runnables[name] = FunctionRunnable(agent)
            app_of[name] = app
    return runnables, app_of


def unknown_agent(name: str, apps: Sequence[App[Any]]) -> NotFound:
    """The error for a name that no app has, with the nearest one."""
    import difflib

    known = [agent for app in apps for agent in app.agents]
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean: {near[0]}" if near else f"known agents: {', '.join(known) or 'none'}"
    shown = ", ".join(repr(app.name) for app in apps)
    return NotFound(f"no agent {name!r} in app {shown}", code="agent.unknown", hint=hint)
