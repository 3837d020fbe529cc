"""`stepwell inbox` and `stepwell answer`: what runs ask people, and the people's answers. No app is imported for it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import click

from stepwell.cli import records
from stepwell.cli.answers import choices, read_answer
from stepwell.cli.commands import json_option, person, store_option
from stepwell.cli.failures import OK, UsageProblem
from stepwell.cli.reading import opened
from stepwell.cli.terminal import DONE, age, command, ending, mark, one_line, say, short, show, table
from stepwell.cli.waits import answer_command, left

if TYPE_CHECKING:
    from stepwell.runtime import Question, WorkerInfo


@click.command(short_help="What runs ask people.")
@click.option("--assignee", metavar="NAME", help="Only questions for this person or group.")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="How many at most.")
@json_option
@store_option
def inbox(assignee: str | None, limit: int, as_json: bool, store: str | None) -> int:
    """The open questions of all runs, oldest first."""

    async def read() -> list[Question[Any]]:
        async with opened(store) as runtime:
            return await runtime.questions.list(assignee=assignee, limit=limit)

    found = asyncio.run(read())
    if as_json:
        show(records.page([records.question_record(question) for question in found]))
    elif found:
        for line in table(("question", "agent", "run", "asked", "for", "time", "what it asks"), [*map(_row, found)]):
            show(line)
        say(f"answer one with: {answer_command(found[0], store)}")
    else:
        say("no open questions" + (f" for {assignee}" if assignee else ""))
    return OK


def _row(question: Question[Any]) -> tuple[str, ...]:
    asks = f"{one_line(question.text)}  [{one_line(choices(question.schema), 40)}]"
    assignee, time = question.assignee or "anybody", left(question.until)
    return short(question.id), question.agent, short(question.run_id), age(question.asked_at), assignee, time, asks


@click.command(short_help="Answer a question.")
@click.argument("question_id", metavar="QUESTION")
@click.argument("words", metavar="VALUE...", nargs=-1)
@click.option("--by", metavar="NAME", help="Who answers, for the record; else the user of this process.")
@store_option
def answer(question_id: str, words: tuple[str, ...], by: str | None, store: str | None) -> int:
    """Answer a question of a run: yes or no, a choice, a number, text as it is, or JSON, by what it asks for.

    QUESTION is an id, the ending of one (4 characters or more), or `last` for the newest. The first answer counts.
    """

    async def settle() -> tuple[Question[Any], list[WorkerInfo]]:
        async with opened(store) as runtime:
            question = await runtime.questions.find(question_id)
            if not words:
                raise UsageProblem(
                    f"VALUE is missing: {one_line(question.text, 160)}", f"it asks for: {choices(question.schema)}"
                )
            await question.answer(read_answer(question.schema, " ".join(words)), by=by or person())
            return question, await runtime.workers.list()

    question, workers = asyncio.run(settle())
    say(f"{mark(DONE)} answered {short(question.id)}; run {short(question.run_id)} of {question.agent} goes on")
    if not workers:
        go_on = command("run", "TARGET", "--continue", store=store)
        say(f"  nobody executes runs now: start a worker, or: {go_on}")
        say(f"  see: {command('runs', 'show', ending(question.run_id), store=store)}")
    return OK
