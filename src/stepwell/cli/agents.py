"""`stepwell agents` and `stepwell check`: what an app declares, and whether it can work. Imports the app, executes
nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from stepwell.cli.commands import Commands, json_option
from stepwell.cli.failures import CONFIGURATION, OK, tell_problem
from stepwell.cli.records import page
from stepwell.cli.schemas import summary
from stepwell.cli.terminal import DONE, bold, duration, fields, mark, say, show, table

if TYPE_CHECKING:
    from stepwell.runtime import AgentDescription, Target


@click.group(cls=Commands, short_help="List and show the agents of an app.")
def agents() -> None:
    """What an app's agents are called, take and return."""


@agents.command("list", short_help="The agents of an app.")
@click.argument("target", required=False)
@json_option
def list_agents(target: str | None, as_json: bool) -> int:
    """The agents of an app: name, version, input, limits, and the first line of their documentation."""
    described = _described(_load(target))
    if as_json:
        show(page([_record(agent) for agent in described]))
        return OK
    if not described:
        say("the app has no agents")
        return OK
    rows = [(agent.name, agent.version, _input(agent), _limits(agent), agent.summary) for agent in described]
    for line in table(("agent", "version", "input", "limits", "what it does"), rows):
        show(line)
    return OK


@agents.command("show", short_help="One agent: schemas and policies.")
@click.argument("target", required=False)
@json_option
def show_agent(target: str | None, as_json: bool) -> int:
    """What an agent takes and returns, as JSON Schema, and its policies. All agents of the app when TARGET names
    none.
    """
    described = _described(_load(target))
    if as_json:
        records = [_record(agent) for agent in described]
        show(page(records[0] if len(records) == 1 else records))
        return OK
    for number, agent in enumerate(described):
        if number:
            show()
        for line in fields(_facts(agent)):
            show(line)
    return OK


@click.command(short_help="Check an app's code and settings.")
@click.argument("target", required=False)
def check(target: str | None) -> int:
    """Import an app, look at every agent, and tell everything that is wrong at once. Ends with 3 if something is."""
    from stepwell.config import find_store
    from stepwell.runtime import check as find_problems

    loaded = _load(target)
    problems = find_problems(loaded.app)
    for problem in problems:
        error = problem.error
        tell_problem(error.code, f"{problem.place}: {error.message}", (error.hint or "").split("\n"))
    if problems:
        return CONFIGURATION
    find_store()
    count = len(loaded.app.agents)
    say(f"{mark(DONE)} {loaded.origin}: {count} agent{'' if count == 1 else 's'}, nothing wrong")
    return OK


def _load(target: str | None) -> Target:
    from stepwell.runtime import load_target

    return load_target(target)


def _described(target: Target) -> list[AgentDescription]:
    from stepwell.runtime import describe

    chosen = [target.agent] if target.agent is not None else list(target.app.agents.values())
    return [describe(agent) for agent in chosen]


def _input(agent: AgentDescription) -> str:
    return summary(agent.input_schema) if agent.takes_input else "none"


def _limits(agent: AgentDescription) -> str:
    """What bounds the runs of an agent, in a few words; `none` for most."""
    found = []
    if agent.concurrency is not None:
        found.append(f"{agent.concurrency.n} at once{' per key' if agent.concurrency.key else ''}")
    if agent.app_limit is not None:
        found.append(f"{agent.app_limit} in the app")
    if agent.session == "synchronized":
        found.append("one per session" + (f", else {agent.busy}" if agent.busy != "queue" else ""))
    return "; ".join(found) or "none"


def _record(agent: AgentDescription) -> dict[str, Any]:
    return {
        "name": agent.name,
        "version": agent.version,
        "summary": agent.summary,
        "place": agent.place,
        "input": dict(agent.input_schema) if agent.takes_input else None,
        "output": dict(agent.output_schema),
        "timeout": agent.timeout,
        "max_attempts": agent.retry.max_attempts if agent.retry else 1,
        "concurrency": None if agent.concurrency is None else agent.concurrency.n,
        "concurrency_by_key": agent.concurrency is not None and agent.concurrency.key is not None,
        "app_limit": agent.app_limit,
        "session": agent.session,
        "busy": agent.busy,
        "children": agent.children,
        "cleans_up": agent.cleans_up,
    }


def _facts(agent: AgentDescription) -> list[tuple[str, str]]:
    retry = f"{agent.retry.max_attempts} attempts" if agent.retry else "no: an exception ends the run"
    return [
        ("agent", f"{bold(agent.name)}, version {agent.version}"),
        *([("", agent.summary)] if agent.summary else []),
        ("declared", agent.place),
        ("retry", retry),
        ("timeout", duration(agent.timeout * 1000)),
        ("limits", _limits(agent)),
        ("session", agent.session),
        ("children", f"{agent.children} at once"),
        ("on cancel", "cleans up" if agent.cleans_up else "just ends"),
        ("input", page(dict(agent.input_schema)) if agent.takes_input else "none"),
        ("output", page(dict(agent.output_schema))),
    ]
