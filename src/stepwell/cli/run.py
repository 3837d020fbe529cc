"""`stepwell run`: start a run of an agent, or continue one, and stay with it until it ends."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from stepwell.cli.commands import Duration, json_option, store_option
from stepwell.cli.failures import UsageProblem
from stepwell.domain.errors import InvalidDefinition, InvalidInput

if TYPE_CHECKING:
    from stepwell.app import Agent
    from stepwell.cli.order import Form, Order
    from stepwell.runtime import Target

EXAMPLES = """\b
Examples:
  stepwell run hello.py Ada                   text: the words as they are
  stepwell run shop.py:refund id=17 sum=12.5  an object: key=value, key:=JSON
  stepwell run audit.py --input @policy.yaml  a document: JSON or YAML
  stepwell run audit.py --continue            the newest unfinished run
  stepwell run count.py --json -- -5          a word that begins with -
\b
TARGET is FILE.py[:AGENT], a folder, MODULE:APP[:AGENT], or an agent of the
project's app. The output goes to stdout, progress to stderr.
\b
Ends with 0 when the run succeeded, 1 when it ended otherwise, 2 for wrong
usage or input, 3 for wrong code or settings, 4 when something is not found,
5 when the store is unavailable, 6 when the run has not ended, 130 on Ctrl-C.
"""


@click.command(epilog=EXAMPLES, short_help="Run an agent, or continue a run.")
@click.argument("target", required=False)
@click.argument("words", metavar="[INPUT]...", nargs=-1)
@click.option("--input", "document", metavar="JSON|@FILE|-", help="The input as a document; - reads JSON from stdin.")
@click.option("--continue", "continues", is_flag=True, help="Go on with the agent's newest unfinished run.")
@click.option("--detach", is_flag=True, help="Only submit: print the run's id and leave it to a worker.")
@click.option("--timeout", type=Duration(), help="Wait this long (30s, 5m, 1h), then hand the run back and end with 6.")
@click.option("--key", metavar="KEY", help="Idempotency key: the same key gives the same run.")
@click.option("--events", "as_events", is_flag=True, help="Write the run's events as JSON lines, as they come.")
@json_option
@store_option
def run(
    target: str | None,
    words: tuple[str, ...],
    document: str | None,
    continues: bool,
    detach: bool,
    timeout: float | None,
    key: str | None,
    as_events: bool,
    as_json: bool,
    store: str | None,
) -> int:
    """Run an agent, and write what it returns.

    Executes this run and no other. Ctrl-C hands the run back; its finished steps are kept.
    """
    given = {"INPUT": bool(words), "--input": document is not None, "--detach": detach, "--key": key is not None}
    _refuse_contradictions(target, given, continues=continues, both_forms=as_events and as_json)
    if detach and (as_events or timeout is not None):
        raise UsageProblem("--detach does not stay with the run, so --events and --timeout say nothing")

    from stepwell.cli.execution import execute
    from stepwell.cli.order import Order
    from stepwell.cli.output import output_only
    from stepwell.runtime import load_target

    with output_only() as write:
        loaded = load_target(target)
        form: Form = "events" if as_events else "json" if as_json else "text"
        order = Order(loaded, target, store, form, key=key, detach=detach, timeout=timeout)
        if not continues:
            order = _with_input(order, words, document)
        return asyncio.run(execute(order, write))


def _refuse_contradictions(target: str | None, given: dict[str, bool], *, continues: bool, both_forms: bool) -> None:
    if both_forms:
        raise UsageProblem("--json and --events are two forms of the same output", "leave one out")
    if target is None and not continues:
        raise UsageProblem("TARGET is missing", "for example: stepwell run hello.py Ada")
    for name, present in given.items():
        if continues and present:
            raise UsageProblem(f"--continue takes up a run that exists, so {name} says nothing", "leave one out")


def _with_input(order: Order, words: tuple[str, ...], document: str | None) -> Order:
    """Choose the agent and read its input, before any store is opened."""
    from stepwell.cli.given import input_for
    from stepwell.runtime import describe

    description = describe(_one_agent(order.target))
    return replace(order, agent=description, value=input_for(description, words, document))


def _one_agent(target: Target) -> Agent[Any, Any]:
    if target.agent is not None:
        return target.agent
    agents = list(target.app.agents.values())
    if not agents:
        raise InvalidDefinition(
            f"the app in {target.origin} has no agents", code="app.empty", hint="declare one with @app.agent"
        )
    if len(agents) > 1:
        names = ", ".join(agent.name for agent in agents)
        raise InvalidInput(
            f"{target.origin} has {len(agents)} agents: {names}",
            code="agent.unspecified",
            hint=f"name one: stepwell run {target.origin}:{agents[0].name}",
        )
    return agents[0]
