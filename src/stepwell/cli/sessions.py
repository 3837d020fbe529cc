"""`stepwell sessions`: what runs of one session share. No app is imported for it."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import click

from stepwell.cli import records
from stepwell.cli.commands import Commands, json_option, store_option
from stepwell.cli.failures import OK
from stepwell.cli.reading import opened
from stepwell.cli.terminal import DONE, age, bold, dim, fields, mark, moment, one_line, say, short, show, status_text
from stepwell.cli.terminal import table as table_of

if TYPE_CHECKING:
    from stepwell.runtime import Run, StoredSession


@click.group(cls=Commands, short_help="List, show and delete sessions.")
def sessions() -> None:
    """What the runs of a session keep together: messages and values. SESSION is its name."""


@sessions.command("list", short_help="The sessions, the last changed first.")
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="How many at most.")
@json_option
@store_option
def list_sessions(limit: int, as_json: bool, store: str | None) -> int:
    """The sessions, the one that changed last first."""

    async def read() -> list[StoredSession]:
        async with opened(store) as runtime:
            return await runtime.sessions.list(limit=limit)

    found = asyncio.run(read())
    if as_json:
        show(records.page([records.session_record(session) for session in found]))
    elif found:
        rows = [
            (session.id, age(session.updated_at), str(session.message_count), one_line(", ".join(session.keys)))
            for session in found
        ]
        for line in table_of(("session", "changed", "messages", "values"), rows):
            show(line)
    else:
        say("no sessions yet")
    return OK


@sessions.command("show", short_help="One session: messages, values, runs.")
@click.argument("session_id", metavar="SESSION")
@click.option("--last", type=click.IntRange(min=1), default=20, show_default=True, help="How many messages and runs.")
@json_option
@store_option
def show_session(session_id: str, last: int, as_json: bool, store: str | None) -> int:
    """One session: its newest messages, its values, and its newest runs."""

    async def read() -> tuple[StoredSession, dict[str, Any]]:
        async with opened(store) as runtime:
            session = await runtime.sessions.get(session_id)
            values: dict[str, Any] = {key: await session.state.get(key) for key in session.keys}
            kept = {
                "messages": [(said.role, said.text) for said in await session.messages(last=last)],
                "values": values,
                "runs": await runtime.runs.list(session=session_id, limit=last),
            }
            return session, kept

    session, kept = asyncio.run(read())
    if as_json:
        said = [{"role": role, "text": text} for role, text in kept["messages"]]
        runs = [records.run_record(run) for run in kept["runs"]]
        show(records.page(records.session_record(session) | {"messages": said, "values": kept["values"], "runs": runs}))
        return OK
    for line in _story(session, kept["messages"], kept["values"], kept["runs"]):
        show(line)
    return OK


def _story(
    session: StoredSession, messages: list[tuple[str, str]], values: dict[str, Any], runs: list[Run[Any]]
) -> list[str]:
    lines = fields([("session", session.id), ("created", moment(session.created_at))])
    if messages:
        more = session.message_count - len(messages)
        lines += ["", bold("messages") + (dim(f"  ({more} older)") if more else "")]
        lines += fields([(f"  {role}", text) for role, text in messages])
    if values:
        lines += ["", bold("values")]
        lines += fields(
            [(f"  {key}", one_line(json.dumps(value, ensure_ascii=False), 100)) for key, value in values.items()]
        )
    if runs:
        lines += ["", bold("runs")]
        lines += [f"  {short(run.id)} {run.agent}, {status_text(run.status)}, {age(run.created_at)}" for run in runs]
    return lines


@sessions.command("delete", short_help="Forget what a session keeps.")
@click.argument("session_id", metavar="SESSION")
@store_option
def delete_session(session_id: str, store: str | None) -> int:
    """Forget the messages and values of a session. Its runs stay; while one of them has not ended, nothing is
    forgotten.
    """

    async def forget() -> None:
        async with opened(store) as runtime:
            await runtime.sessions.delete(session_id)

    asyncio.run(forget())
    say(f"{mark(DONE)} session {session_id} is forgotten; its runs stay")
    return OK
