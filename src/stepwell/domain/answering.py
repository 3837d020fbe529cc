"""Whether a question may be answered. Both stores ask here, inside the write that would take the answer."""

from __future__ import annotations

from collections.abc import Collection

from stepwell.domain.errors import AlreadyAnswered, Conflict
from stepwell.domain.run import RUNNING, Lifecycle
from stepwell.domain.wait import ANSWERED, QUESTION, RUN_ENDED, WaitRecord


def refuse_answer(question: WaitRecord, life: Lifecycle, now: int) -> None:
    """Do nothing for a question that may be answered; raise for one that was, or whose time or run is over."""
    if question.outcome == ANSWERED:
        raise AlreadyAnswered(
            f"{question.by} answered the question before", hint=f"see: stepwell runs show {question.run_id}"
        )
    if question.outcome == RUN_ENDED or life.ended:
        over = "its run has ended"
    elif life.cancelling and life.status != RUNNING:
        over = "its run is being cancelled"
    elif question.outcome is not None or (question.wait.until is not None and question.wait.until <= now):
        over = "its time is over"
    else:
        return
    raise Conflict(
        f"the question is closed: {over}",
        code="question.closed",
        hint=f"see: stepwell runs show {question.run_id}",
    )


def takes_input(question: WaitRecord, life: Lifecycle, answers: Collection[str], now: int) -> bool:
    """Whether an input may be given as the answer: one that was found to fit, and of the agent's own, not a doubt."""
    if question.wait.type != QUESTION or question.wait.step is None or question.wait.id not in answers:
        return False
    try:
        refuse_answer(question, life, now)
    except Conflict:
        return False
    return True
