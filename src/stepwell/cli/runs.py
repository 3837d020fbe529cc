"""`stepwell runs`: look at runs, read what they kept, and settle the ones that are held. No app is imported for it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import click

from stepwell.cli import records
from stepwell.cli.commands import Commands, json_option, person, store_option
from stepwell.cli.control import COMMANDS
from stepwell.cli.failures import NOT_ENDED, OK, UsageProblem, tell_problem
from stepwell.cli.given import json_or_text
from stepwell.cli.reading import history, opened, tail
from stepwell.cli.terminal import (
    DONE,
    age,
    command,
    cut,
    dim,
    ending,
    mark,
    one_line,
    say,
    short,
    show,
    size,
    status_text,
    table,
)
from stepwell.domain.errors import NotFound
from stepwell.domain.run import STATUSES, RunStatus

if TYPE_CHECKING:
    from stepwell.domain.event import Event
    from stepwell.runtime import Artifact, Question, Run, Runtime

Verdict = Literal["done", "rerun", "fail"]
_INTERNAL = ("digest", "function")  # how replay recognises a call: in the JSON, not in the lines for people


@click.group(cls=Commands, short_help="List, show and control runs.")
def runs() -> None:
    """Look at runs, read what they kept, stop them, and let them go on.

    RUN is an id, the ending of one (4 characters or more), or `last`.
    """


@runs.command("list", short_help="The newest runs.")
@click.option(
    "--status",
    type=click.Choice(STATUSES),
    metavar="STATUS",
    help=f"Only runs of this status: {', '.join(STATUSES)}.",
)
@click.option("--agent", metavar="NAME", help="Only runs of this agent.")
@click.option("--session", metavar="NAME", help="Only runs of this session.")
@click.option("--dead", is_flag=True, help="Only runs that were given up: attempts or losses used up.")
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="How many at most.")
@json_option
@store_option
def list_runs(
    status: str | None,
    agent: str | None,
    session: str | None,
    dead: bool,
    limit: int,
    as_json: bool,
    store: str | None,
) -> int:
    """The newest runs, newest first."""

    async def read() -> list[Run[Any]]:
        async with opened(store) as runtime:
            wanted = cast("RunStatus | None", status)
            return await runtime.runs.list(
                status=wanted, agent=agent, session=session, dead=True if dead else None, limit=limit
            )

    found = asyncio.run(read())
    if as_json:
        show(records.page([records.run_record(run) for run in found]))
    elif found:
        for line in table(("run", "agent", "status", "started", "reason"), [_row(run) for run in found]):
            show(line)
    else:
        say("no runs match" if status or agent or session or dead else "no runs yet")
    return OK


def _row(run: Run[Any]) -> tuple[str, str, str, str, str]:
    status = status_text(run.status) + (" (dead)" if run.dead else "")
    return short(run.id), run.agent, status, age(run.created_at), one_line(run.reason or "", 40)


@runs.command("show", short_help="One run: input, steps, what it waits for, output.")
@click.argument("run_id", metavar="RUN")
@json_option
@store_option
def show_run(run_id: str, as_json: bool, store: str | None) -> int:
    """One run: its input, steps, children, error, artifacts and output, why it waits and until when, and what to do
    when it asks or is held.
    """
    from stepwell.cli.story import Story, Surroundings

    async def read() -> Story:
        async with opened(store) as runtime:
            run = await runtime.runs.find(run_id)
            around = Surroundings(
                await run.children(),
                await runtime.questions.list(run=run.id),
                await runtime.queues.list(awaited_by=run.id),
            )
            return Story(run, await history(run), store, around)

    story = asyncio.run(read())
    if as_json:
        show(records.page(story.record()))
    else:
        for line in story.lines():
            show(line)
    return OK


@runs.command("events", short_help="The events of one run.")
@click.argument("run_id", metavar="RUN")
@click.option("--after", type=click.IntRange(min=0), default=0, help="Only events with a higher number.")
@click.option("--follow", is_flag=True, help="Wait for more until the run has ended.")
@json_option
@store_option
def show_events(run_id: str, after: int, follow: bool, as_json: bool, store: str | None) -> int:
    """The events of one run, in order: number, time, kind, step and data."""

    async def read() -> None:
        async with opened(store) as runtime:
            run = await runtime.runs.find(run_id)
            if follow:
                async with tail(run, after=after) as events:
                    async for event in events:
                        _show_event(event, as_json=as_json)
            else:
                for event in await history(run, after=after):
                    _show_event(event, as_json=as_json)

    asyncio.run(read())
    return OK


def _show_event(event: Event, *, as_json: bool) -> None:
    if as_json:
        show(records.line(records.event_record(event)))
        sys.stdout.flush()
        return
    clock = event.at.astimezone().strftime("%H:%M:%S.%f")[:-3]
    facts = {name: value for name, value in event.data.items() if name not in _INTERNAL}
    data = cut(records.line(facts), 100) if facts else ""
    show(f"{event.seq:>4}  {dim(clock)}  {event.kind:<16} {event.step or '':<8} {dim(data)}".rstrip())


@runs.command("artifact", short_help="A file that a run kept.")
@click.argument("run_id", metavar="RUN")
@click.argument("name")
@click.option("-o", "--output", "file", type=click.Path(path_type=Path), help="Write it to this file or folder.")
@store_option
def artifact(run_id: str, name: str, file: Path | None, store: str | None) -> int:
    """Write a file that a run kept to stdout, or with -o to a file."""

    async def read() -> tuple[Artifact, bytes] | None:
        async with opened(store) as runtime:
            run = await runtime.runs.find(run_id)
            if not run.ended:
                _refuse_unfinished(run, store)
                return None
            found = _choose(run, name, (await run.result()).artifacts)
            return found, await found.bytes()

    answer = asyncio.run(read())
    if answer is None:
        return NOT_ENDED
    chosen, content = answer
    _deliver(chosen, content, file)
    return OK


def _refuse_unfinished(run: Run[Any], store: str | None) -> None:
    tell_problem(
        "run.not_ended",
        f"run {short(run.id)} has not ended ({run.status}); its artifacts can be read when it has",
        [f"see: {command('runs', 'show', ending(run.id), store=store)}"],
    )


def _choose(run: Run[Any], name: str, artifacts: Sequence[Artifact]) -> Artifact:
    import difflib

    known = {kept.name: kept for kept in artifacts}
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, 1)
    hint = f"did you mean: {near[0]}" if near else f"it has: {', '.join(known) or 'none'}"
    raise NotFound(f"run {short(run.id)} has no artifact {name!r}", code="artifact.unknown", hint=hint)


def _deliver(kept: Artifact, content: bytes, file: Path | None) -> None:
    if file is not None:
        # Only the last part of the name: an artifact must not choose its folder.
        target = file / Path(kept.name).name if file.is_dir() else file
        target.write_bytes(content)
        say(f"{target}: {size(len(content))}")
        return
    if sys.stdout.isatty() and not kept.media_type.startswith("text/") and b"\x00" in content:
        raise UsageProblem(f"{kept.name} is not text", f"write it to a file: -o {Path(kept.name).name}")
    sys.stdout.buffer.write(content)
    sys.stdout.flush()


@runs.command("resume", short_help="Let a held run go on.")
@click.argument("run_id", metavar="RUN")
@click.argument("result", required=False)
@click.option(
    "--as",
    "verdict",
    type=click.Choice(("done", "rerun", "fail")),
    help="For a step in doubt: it happened and returns RESULT, it runs again, or it failed.",
)
@store_option
def resume(run_id: str, result: str | None, verdict: Verdict | None, store: str | None) -> int:
    """Lift the hold of a run, so that a worker or `stepwell run --continue` takes it up.

    A run with a step in doubt needs --as, also when it asks what became of the step. RESULT is JSON, or else text as
    it is.
    """
    if result is not None and verdict != "done":
        raise UsageProblem("RESULT goes with --as done", None)

    async def settle() -> Run[Any]:
        async with opened(store) as runtime:
            run = await runtime.runs.find(run_id)
            value = None if result is None else json_or_text(result)
            asked = None if verdict is None else await _asked_about_a_doubt(runtime, run)
            if asked is None:
                await run.resume(verdict=verdict, result=value, by=person())
            else:
                await asked.answer({"done": value} if verdict == "done" else verdict, by=person())
            return await run.refresh()

    run = asyncio.run(settle())
    say(f"{mark(DONE)} run {short(run.id)} of {run.agent} is {run.status} again")
    say(f"  a worker takes it up, or: {command('run', 'TARGET', '--continue', store=store)}")
    return OK


async def _asked_about_a_doubt(runtime: Runtime[Any], run: Run[Any]) -> Question[Any] | None:
    """The question that a run asks about a step in doubt, which a verdict answers as well."""
    questions = await runtime.questions.list(run=run.id)
    return next((question for question in questions if question.about_doubt), None)


for _command in COMMANDS:
    runs.add_command(_command)
