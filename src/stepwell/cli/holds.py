"""A run that is set aside, explained: what it waits for, why, and what to type next."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from stepwell.cli.terminal import command, ending, short
from stepwell.domain.run import DIVERGED, IN_DOUBT

Facts = Mapping[str, Any]


def explain(run_id: str, agent: str, facts: Facts, continue_with: str, store: str | None = None) -> list[str]:
    """The lines about a hold. `facts` is the data of the run's last `run.held`; `continue_with` is the command that
    goes on; `store` is the store that was named on the command line.
    """
    why = str(facts.get("why", ""))
    reasons = _diverged(facts) if why == DIVERGED else _in_doubt(facts) if why == IN_DOUBT else _paused(facts)
    steps = _next_steps(run_id, why, continue_with, store)
    width = max(len(words) for words, _ in steps)
    return [
        f"{click.style(f'held[{why}]', fg='yellow', bold=True)}: run {short(run_id)} of {agent} is set aside",
        *(f"  {reason}" for reason in reasons),
        *(f"    {words.ljust(width)}  {meaning}".rstrip() for words, meaning in steps),
    ]


def _diverged(facts: Facts) -> list[str]:
    return [
        "its program is not the one that wrote its journal:",
        f"{facts.get('message', 'the program has changed')}",
        "no finished step was executed again, and no attempt was counted",
        'put the program back, or guard the change with ctx.patched("name"), then:',
    ]


def _in_doubt(facts: Facts) -> list[str]:
    return [
        f"its step {facts.get('name', '?')} may have had its effect, and no record says so:",
        f"{facts.get('message', 'its end was not recorded')}",
        "find out whether it happened, and say so:",
    ]


def _paused(facts: Facts) -> list[str]:
    return [f"by {facts.get('by', 'somebody')}; to let it go on:"]


def _next_steps(run_id: str, why: str, continue_with: str, store: str | None) -> list[tuple[str, str]]:
    def resume(*words: str) -> str:
        return command("runs", "resume", ending(run_id), *words, store=store)

    if why == DIVERGED:
        return [(continue_with, "")]
    if why == IN_DOUBT:
        return [
            (resume("--as", "done", "RESULT"), "it happened, with RESULT"),
            (resume("--as", "rerun"), "it did not: run it again"),
            (resume("--as", "fail"), "let it fail"),
            (continue_with, "then, to go on"),
        ]
    return [(resume(), ""), (continue_with, "then, to go on")]
