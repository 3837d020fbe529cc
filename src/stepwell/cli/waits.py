"""What runs wait for, in words: one wait, one question and how it is answered, and why a run does not go on."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from stepwell.cli.answers import choices
from stepwell.cli.terminal import command, dim, duration, ending, moment, one_line, short
from stepwell.domain import event
from stepwell.domain.run import HOLDS, QUEUED, RUNNING, WAITING
from stepwell.domain.wait import CHILD, QUESTION, SIGNAL, TIME

if TYPE_CHECKING:
    from stepwell.domain.event import Event
    from stepwell.runtime import LaneInfo, Question, Run

Facts = Mapping[str, Any]

_DAY: Final = 86_400


def when(at: datetime) -> str:
    """A moment to come or past: the time of day where it is near, else with the date."""
    local = at.astimezone()
    near = abs((at - datetime.now(UTC)).total_seconds()) < _DAY / 2
    return local.strftime("%H:%M:%S") if near else moment(at)


def wait_text(facts: Facts) -> str:
    """A wait in a few words: `for signal paid, until 14:30:00`. `facts` is the data of its `wait.opened`, or what
    `run.waiting` says of it.
    """
    name = one_line(str(facts.get("name", "")), 80)
    match facts["type"]:
        case "more":
            return f"and for {facts['count']} more"
        case str() as kind if kind == TIME:
            return f"until {when(event.to_datetime(facts['until']))}"
        case str() as kind if kind == SIGNAL:
            words = f"for signal {name}"
        case str() as kind if kind == QUESTION:
            words = f"for an answer to {short(facts['wait'])}: {name}"
        case str() as kind if kind == CHILD:
            words = f"for run {short(name)}"
        case other:
            words = f"for {other} {name}"
    until = facts.get("until")
    return words if until is None else f"{words}, until {when(event.to_datetime(until))}"


def left(until: datetime | None) -> str:
    """How long somebody may still answer: `2 d 4 h left`; nothing where there is no limit."""
    if until is None:
        return ""
    seconds = (until - datetime.now(UTC)).total_seconds()
    return f"{duration(seconds * 1000)} left" if seconds > 0 else "time is over"


# ---------------------------------------------------------------- questions


def question_lines(question: Question[Any], store: str | None) -> list[str]:
    """A question for somebody who cannot be asked here: what it asks, its details, and the command that answers it."""
    return [
        f"{one_line(question.text, 160)}  {dim(f'[{choices(question.schema)}]')}",
        *(dim(line) for line in details_lines(question.details)),
        f"answer it with: {answer_command(question, store)}",
    ]


def details_lines(details: Any) -> list[str]:
    """What an agent gives to decide by, a line for each field."""
    if details is None:
        return []
    if isinstance(details, dict):
        return [f"{name}: {_plain(value)}" for name, value in details.items()]
    return [_plain(details)]


def answer_command(question: Question[Any], store: str | None) -> str:
    """The command that answers a question, with a value to be replaced where no choice can stand for it."""
    wanted = choices(question.schema).split("/")
    return command("answer", ending(question.id), wanted[0] if len(wanted) > 1 else "VALUE", store=store)


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


# ---------------------------------------------------------------- why a run does not go on


def open_waits(events: Sequence[Event]) -> list[Facts]:
    """What a parked run still waits for: what it said when it parked, without what has come since."""
    parked = next((number for number in reversed(range(len(events))) if events[number].kind == event.RUN_WAITING), None)
    if parked is None:
        return []
    came = {_about(told) for told in events[parked:] if told.kind in (event.WAIT_CLOSED, event.CHILD_ENDED)}
    return [facts for facts in events[parked].data["waits"] if facts.get("wait") not in came]


def _about(told: Event) -> str:
    return str(told.data["wait"] if told.kind == event.WAIT_CLOSED else told.data["child"])


def reasons(run: Run[Any], events: Sequence[Event], lanes: Iterable[LaneInfo]) -> list[str]:
    """Why a run that has not ended does not go on, and until when: a line for each thing that it waits for. `lanes` are
    those that it stands in line for.
    """
    if run.ended or run.status == RUNNING:
        return []
    waits = open_waits(events) if run.status == WAITING or run.status in HOLDS else []
    told = [wait_text(facts) for facts in waits]
    if run.status in HOLDS:
        return [f"for somebody to resume it: {run.status}", *told]
    due = run.available_at
    if run.status == QUEUED and due is not None and due > datetime.now(UTC):
        return [f"until {when(due)}" + (f", then tries again ({run.reason})" if run.reason else "")]
    if told and (due is None or due > datetime.now(UTC)):
        return told
    return [_lane_text(lane) for lane in lanes] or [f"for a worker that serves {run.agent} to take it up"]


def _lane_text(lane: LaneInfo) -> str:
    return f"in line for {lane_name(lane)} ({lane.taken} of {lane.capacity} taken, {lane.waiting} in line)"


def lane_name(lane: LaneInfo) -> str:
    """A lane as people know it: `session cust-42`, `agent report`, `key report:eu`, `app shop`."""
    return f"{'app' if lane.kind == 'global' else lane.kind} {lane.name}"
