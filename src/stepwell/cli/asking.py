"""Questions of a run that is followed: asked in place on a terminal, else shown with the command that answers them."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import click

from stepwell.cli.answers import choices, read_answer
from stepwell.cli.commands import person
from stepwell.cli.terminal import ASKS, bold, command, dim, mark, one_line, say, short
from stepwell.cli.waits import details_lines, left, question_lines
from stepwell.domain.errors import Conflict, InvalidInput
from stepwell.domain.run import HOLDS

if TYPE_CHECKING:
    from stepwell.cli.progress import Progress
    from stepwell.runtime import Question, Run, Runtime

_POLL: Final = 0.25
_READ: Final = 65_536
_MOST: Final = 1000
_SHOWN: Final = 5


def can_ask() -> bool:
    """Whether somebody is there to be asked: both what is typed and what is shown belong to a terminal."""
    return all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stderr))


async def open_questions(runtime: Runtime[Any], run: Run[Any]) -> list[Question[Any]]:
    """The open questions of a run and of everything below it that goes on, the oldest first."""
    found = await runtime.questions.list(run=run.id)
    for child in await runtime.runs.list(parent=run.id, ended=False, limit=_MOST):
        if child.status not in HOLDS:
            found += await open_questions(runtime, child)
    return sorted(found, key=lambda question: question.asked_at)


class Asker:
    """Asks what a run and its children ask, one question after the other, the oldest first."""

    def __init__(self, runtime: Runtime[Any], progress: Progress, *, store: str | None, in_place: bool) -> None:
        self._runtime = runtime
        self._progress = progress
        self._store = store
        self._in_place = in_place
        self._told: set[str] = set()

    async def ask_all(self, run: Run[Any]) -> None:
        """Go on until cancelled: the run that is followed decides how long."""
        while True:
            questions = [each for each in await open_questions(self._runtime, run) if each.id not in self._told]
            if not self._in_place:
                self._tell(questions)
            elif questions and await self._ask(questions[0]):
                continue  # others may have come, or gone
            await asyncio.sleep(_POLL)

    def _tell(self, questions: Sequence[Question[Any]]) -> None:
        """Show what is asked, for somebody elsewhere."""
        self._told |= {question.id for question in questions}
        for question in questions[:_SHOWN]:
            self._progress.tell(ASKS, question_lines(question, self._store))
        if len(questions) > _SHOWN:
            see = command("inbox", store=self._store)
            self._progress.tell(ASKS, [f"and {len(questions) - _SHOWN} more questions; see: {see}"])

    async def _ask(self, question: Question[Any]) -> bool:
        """Ask until there is an answer that fits; true when the question is settled, by whomever."""
        with self._progress.quietly():
            _show(question)
            while True:
                line = await self._line(question)
                if line is None:
                    return True
                if line == "":  # the end of what is typed: nobody is there any more
                    self._in_place = False
                    return False
                text = line.rstrip("\n")
                if not text.strip() and not _takes_anything(question):
                    _prompt(question)
                    continue
                try:
                    await question.answer(read_answer(question.schema, text), by=person())
                except InvalidInput as error:
                    say(f"    {error.message}")
                    _prompt(question)
                except Conflict as error:
                    say(f"    {error.message}")
                    return True
                else:
                    return True

    async def _line(self, question: Question[Any]) -> str | None:
        """What is typed: a line, nothing at its end; `None` when the question was settled elsewhere meanwhile."""
        typing = asyncio.create_task(_typed_line())
        try:
            while True:
                await asyncio.wait((typing,), timeout=_POLL)
                if typing.done():
                    return typing.result()
                if (await self._runtime.questions.get(question.id)).outcome is not None:
                    say("\n    it was settled elsewhere")
                    return None
        finally:
            typing.cancel()


def _show(question: Question[Any]) -> None:
    time = left(question.until)
    about = f"{question.agent} {short(question.run_id)}" + (f", {time}" if time else "")
    say(f"  {mark(ASKS)} {bold(question.text)}  {dim(about)}")
    for line in details_lines(question.details):
        say(dim(f"    {one_line(line, 160)}"))
    _prompt(question)


def _prompt(question: Question[Any]) -> None:
    click.echo(f"    [{choices(question.schema)}] ", nl=False, err=True)


def _takes_anything(question: Question[Any]) -> bool:
    try:
        read_answer(question.schema, "")
    except InvalidInput:
        return False
    return True


async def _typed_line() -> str:
    """A line from the terminal, without a thread that would wait for it for ever; nothing at its end."""
    loop = asyncio.get_running_loop()
    descriptor = sys.stdin.fileno()
    read: asyncio.Future[bytes] = loop.create_future()
    typed = bytearray()

    def readable() -> None:
        piece = os.read(descriptor, _READ)
        typed.extend(piece)
        if (not piece or b"\n" in piece) and not read.done():
            read.set_result(bytes(typed))

    loop.add_reader(descriptor, readable)
    try:
        return (await read).decode(errors="replace")
    finally:
        loop.remove_reader(descriptor)
