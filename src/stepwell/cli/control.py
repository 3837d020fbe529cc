"""`stepwell runs cancel|pause|signal|retry|discard`: change one run, or all that match."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import click

from stepwell.cli.commands import person, store_option
from stepwell.cli.failures import OK, USAGE, UsageProblem, tell_problem
from stepwell.cli.given import json_or_text
from stepwell.cli.reading import opened
from stepwell.cli.terminal import DONE, NOTE, command, mark, say, short, status_text
from stepwell.domain.errors import Conflict
from stepwell.domain.run import HOLDS, STATUSES, SUCCEEDED, RunStatus

if TYPE_CHECKING:
    from stepwell.app import App
    from stepwell.runtime import Run, Runtime

F = TypeVar("F", bound=Callable[..., Any])
Verb = Callable[["Run[Any]"], Awaitable[str]]

_PAGE: Final = 500
_SHOWN: Final = 10


@dataclass(frozen=True, slots=True)
class Choice:
    """Which runs are meant: one that is named, or all that match."""

    run: str | None
    agent: str | None
    status: str | None
    dead: bool
    yes: bool

    @property
    def filters(self) -> bool:
        """Whether runs are chosen by what they are."""
        return bool(self.agent or self.status or self.dead)


def choosing(command: F) -> F:
    """`RUN`, or `--agent`, `--status`, `--dead` and `--yes`, as one parameter `choice`."""

    @functools.wraps(command)
    def with_choice(
        run_id: str | None, agent: str | None, status: str | None, dead: bool, yes: bool, **given: Any
    ) -> Any:
        return command(choice=Choice(run_id, agent, status, dead, yes), **given)

    made: Any = click.argument("run_id", metavar="[RUN]", required=False)(_filters(with_choice))
    return cast(F, made)


def _filters(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--yes", is_flag=True, help="Do it although more than one run matches."),
        click.option("--dead", is_flag=True, help="All runs that were given up: attempts or losses used up."),
        click.option("--status", type=click.Choice(STATUSES), metavar="STATUS", help="All runs of this status."),
        click.option("--agent", metavar="NAME", help="All runs of this agent that can be changed so."),
    ):
        command = option(command)
    return command


# ---------------------------------------------------------------- the verbs


@click.command("cancel", short_help="End a run and its children.")
@choosing
@click.option("--reason", metavar="TEXT", help="Why, for the record.")
@store_option
def cancel(choice: Choice, reason: str | None, store: str | None) -> int:
    """Ask runs and their children to end. What nobody executes ends at once; a worker ends what it executes, and lets
    the agent clean up.
    """

    async def verb(run: Run[Any]) -> str:
        answer = await run.cancel(reason=reason, by=person())
        if answer == "already_ended":
            return f"has ended already ({(await run.refresh()).status})"
        return "is cancelled" if answer == "cancelled" else "is told to end; it may succeed before it does"

    return _carry_out(choice, store, "cancel", lambda run: not run.ended, verb)


@click.command("pause", short_help="Set a run and its children aside.")
@choosing
@store_option
def pause(choice: Choice, store: str | None) -> int:
    """Set runs and their children aside until somebody resumes them. A step in flight is finished first."""

    async def verb(run: Run[Any]) -> str:
        await run.pause(by=person())
        now = await run.refresh()
        if now.status in HOLDS:
            return f"is {now.status}"
        return "is being cancelled" if now.cancelling else "is paused as soon as its step in flight is done"

    code = _carry_out(choice, store, "pause", lambda run: not run.ended and run.status not in HOLDS, verb)
    if code == OK:
        say(f"  to let one go on: {command('runs', 'resume', 'RUN', store=store)}")
    return code


@click.command("signal", short_help="Send a run a named message.")
@click.argument("words", metavar="[RUN] NAME [PAYLOAD]", nargs=-1, required=True)
@click.option("--id", "signal_id", metavar="ID", help="A name of your own: the same one is received once.")
@_filters
@store_option
def signal(
    words: tuple[str, ...],
    signal_id: str | None,
    agent: str | None,
    status: str | None,
    dead: bool,
    yes: bool,
    store: str | None,
) -> int:
    """Send runs a message for ctx.wait_for to take; it is kept until they take it. PAYLOAD is JSON, or else text as it
    is. With --agent or --status it goes to all runs that match, and RUN is left out.
    """
    choice = Choice(None, agent, status, dead, yes)
    if not choice.filters:
        choice, words = Choice(words[0], None, None, False, yes), words[1:]
    if len(words) not in (1, 2):
        raise UsageProblem(
            "NAME is missing" if not words else f"{words[2]!r} is one word too many",
            "for example: stepwell runs signal RUN paid '{\"amount\": 5}'",
        )
    payload = json_or_text(words[1]) if len(words) == 2 else None

    async def verb(run: Run[Any]) -> str:
        received = await run.signal(words[0], payload, id=signal_id, by=person())
        return f"received {words[0]}" if received else f"had received {signal_id} before"

    return _carry_out(choice, store, "signal", lambda run: not run.ended, verb)


@click.command("retry", short_help="Start again where a run failed.")
@choosing
@click.option("--app", "target", metavar="TARGET", help="The app of the agent; else STEPWELL_APP, or the project's.")
@store_option
def retry(choice: Choice, target: str | None, store: str | None) -> int:
    """Start new runs that go on where others ended without success: what these finished is not done again. A dead run
    is taken off the list of the dead.
    """
    from stepwell.runtime import load_target

    app = load_target(target).app

    async def verb(run: Run[Any]) -> str:
        made = await run.retry()
        return f"is retried by run {short(made.id)} ({made.id})"

    code = _carry_out(choice, store, "retry", lambda run: run.ended and run.status != SUCCEEDED, verb, app)
    if code == OK:
        say(f"  a worker takes it up, or: {command('run', target or 'TARGET', '--continue', store=store)}")
    return code


@click.command("discard", short_help="Take a dead run off the list of the dead.")
@choosing
@store_option
def discard(choice: Choice, store: str | None) -> int:
    """Take dead runs off the list of the dead; they stay failed."""

    async def carry_out() -> int:
        async with opened(store) as runtime:

            async def verb(run: Run[Any]) -> str:
                await runtime.runs.discard(run.id, by=person())
                return "is off the list of the dead"

            return await _change(runtime, choice, "discard", lambda run: run.dead, verb)

    return asyncio.run(carry_out())


COMMANDS: Final[Sequence[click.Command]] = (cancel, pause, signal, retry, discard)


# ---------------------------------------------------------------- one or many


def _carry_out(
    choice: Choice,
    store: str | None,
    word: str,
    fits: Callable[[Run[Any]], bool],
    verb: Verb,
    app: App[Any] | None = None,
) -> int:
    async def carry_out() -> int:
        async with opened(store, app) as runtime:
            return await _change(runtime, choice, word, fits, verb)

    return asyncio.run(carry_out())


async def _change(
    runtime: Runtime[Any], choice: Choice, word: str, fits: Callable[[Run[Any]], bool], verb: Verb
) -> int:
    """Do it to the run that is named, or to all that match; the exit code."""
    if choice.run is not None:
        if choice.filters:
            raise UsageProblem("RUN and filters are two ways to choose", "leave one out")
        run = await runtime.runs.find(choice.run)
        say(f"{mark(DONE)} run {short(run.id)} of {run.agent} {await verb(run)}")
        return OK
    if not choice.filters:
        raise UsageProblem("RUN is missing", "name one, or choose by --agent, --status or --dead")
    found = [run for run in await _matching(runtime, choice) if fits(run)]
    if not found:
        say(f"no run matches that one can {word}")
        return OK
    if len(found) > 1 and not choice.yes:
        _tell_many(found, word)
        return USAGE
    for run in found:
        try:
            say(f"{mark(DONE)} run {short(run.id)} of {run.agent} {await verb(run)}")
        except Conflict as error:  # it changed since it was listed
            say(f"{mark(NOTE)} run {short(run.id)} of {run.agent} was left: {error.message}")
    return OK


async def _matching(runtime: Runtime[Any], choice: Choice) -> list[Run[Any]]:
    """All that match, oldest first."""
    found: list[Run[Any]] = []
    wanted = cast("RunStatus | None", choice.status)
    while page := await runtime.runs.list(
        status=wanted,
        agent=choice.agent,
        dead=True if choice.dead else None,
        before=found[-1].id if found else None,
        limit=_PAGE,
    ):
        found += page
    return found[::-1]


def _tell_many(found: Sequence[Run[Any]], word: str) -> None:
    shown = [f"run {short(run.id)} of {run.agent}, {status_text(run.status)}" for run in found[:_SHOWN]]
    if len(found) > _SHOWN:
        shown.append(f"and {len(found) - _SHOWN} more")
    told = f"{len(found)} runs match; nothing was changed"
    tell_problem("runs.many", told, [*shown, f"to {word} them all: add --yes"])
