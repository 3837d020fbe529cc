"""How a run of `stepwell run` is told when there is nothing more to follow: its output, its error, its hold, or how
to continue.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from stepwell.cli.failures import INTERRUPTED, NOT_ENDED, OK, UNSUCCESSFUL, frame_lines, tell_problem
from stepwell.cli.holds import explain
from stepwell.cli.order import Broken, Order
from stepwell.cli.output import Write, as_text
from stepwell.cli.reading import history
from stepwell.cli.records import page, result_record, unfinished_record
from stepwell.cli.story import step_frames
from stepwell.cli.terminal import STOPPED, bold, command, duration, ending, mark, one_line, say, short
from stepwell.cli.waits import answer_command
from stepwell.domain.run import HOLDS

if TYPE_CHECKING:
    from stepwell.domain.event import Event
    from stepwell.runtime import Question, Run, RunResult

_SHOWN_QUESTIONS: Final = 5


def submitted(run: Run[Any], write: Write, *, as_json: bool) -> int:
    """The run is queued and left to a worker."""
    write(page(unfinished_record(run)) if as_json else run.id)
    return OK


async def tell(
    run: Run[Any],
    order: Order,
    write: Write,
    *,
    held: Event | None,
    broken: Broken,
    questions: Sequence[Question[Any]] = (),
) -> int:
    """Say how it stands with the run, and what it asks; the exit code."""
    if run.ended:
        return await _tell_end(run, await run.result(), order, write)
    if order.form == "json":
        write(page(unfinished_record(run)))
    if run.status in HOLDS:
        facts = held.data if held is not None else {"why": run.status}
        for line in explain(run.id, run.agent, facts, order.continue_with, order.store):
            say(line)
        return NOT_ENDED
    return _tell_handed_back(run, order, broken, questions)


async def _tell_end(run: Run[Any], result: RunResult[Any], order: Order, write: Write) -> int:
    output = _plain_output(run, result, order) if result.ok else None
    if order.form == "json":
        write(page(result_record(result, output)))
    elif order.form == "text" and result.ok:
        text = as_text(output)
        if text is not None:
            write(text)
    if not result.ok:
        tell_unsuccessful(run, result, await history(run), order.store)
    return OK if result.ok else UNSUCCESSFUL


def _plain_output(run: Run[Any], result: RunResult[Any], order: Order) -> Any:
    """The output as plain JSON: what is stored, whatever types the agent gives it."""
    from stepwell.codec import codec_for
    from stepwell.domain.values import loads
    from stepwell.runtime import describe

    annotation = describe(order.target.app.agents[run.agent]).output
    return loads(codec_for(annotation).encode(result.output, "output"), what="output")


def tell_unsuccessful(run: Run[Any], result: RunResult[Any], events: Sequence[Event], store: str | None) -> None:
    """Print why a run ended without success, with the user's frames: those of the agent, then those of the step that
    failed.
    """
    error = result.error
    see = f"see: {command('runs', 'show', ending(run.id), store=store)}"
    if error is None:
        tell_problem(f"run.{result.status}", f"{run.agent} {_sentence(result)}", [see])
        return
    kind = "" if error.type in (None, "Fail", "StepFailed") else f"{error.type}: "
    more = [*frame_lines([*error.traceback, *step_frames(events, error.step)]), see]
    if run.dead:
        more.insert(0, f"given up after {run.attempt} attempts")
    tell_problem(error.code, f"{run.agent} failed: {kind}{error.message}", more)


def _sentence(result: RunResult[Any]) -> str:
    why = f" ({result.reason})" if result.reason else ""
    words = {"timed_out": "was ended: its time is over", "cancelled": "was cancelled", "exhausted": "used up a limit"}
    return words.get(result.status, result.status) + why


def last_words(order: Order) -> str:
    """What a second Ctrl-C ends with."""
    return f"  {mark(STOPPED)} ended at once; finished steps are kept\n    continue with: {order.continue_with}"


def _tell_handed_back(run: Run[Any], order: Order, broken: Broken, questions: Sequence[Question[Any]]) -> int:
    if broken == "timeout":
        say(
            f"  {mark(STOPPED)} run {short(run.id)} of {run.agent} has not ended "
            f"after {duration((order.timeout or 0) * 1000)}"
        )
    else:
        say(f"  {mark(STOPPED)} stopped; run {short(run.id)} of {run.agent} keeps its finished steps ({run.id})")
    say(f"    continue it with: {bold(order.continue_with)}")
    for question in questions[:_SHOWN_QUESTIONS]:
        say(f"    it asks: {one_line(question.text, 120)}")
        say(f"      answer it with: {bold(answer_command(question, order.store))}")
    if len(questions) > _SHOWN_QUESTIONS:
        see = command("inbox", store=order.store)
        say(f"    and {len(questions) - _SHOWN_QUESTIONS} more questions; see: {see}")
    return NOT_ENDED if broken == "timeout" else INTERRUPTED
