"""The story of one run, from its events: what went in, what its steps did, what came out, and what holds it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from stepwell.cli.failures import frame_lines
from stepwell.cli.holds import explain
from stepwell.cli.records import question_record, run_record
from stepwell.cli.terminal import (
    ASKS,
    DONE,
    FAILED,
    NOTE,
    RETRYING,
    age,
    bold,
    command,
    dim,
    duration,
    ending,
    fields,
    mark,
    moment,
    one_line,
    short,
    size,
    status_text,
)
from stepwell.cli.waits import left, open_waits, question_lines, reasons
from stepwell.domain import event
from stepwell.domain.ids import RUN, SESSION
from stepwell.domain.run import HOLDS
from stepwell.domain.wait import ANSWERED, TIMED_OUT

if TYPE_CHECKING:
    from stepwell.domain.event import Event
    from stepwell.runtime import LaneInfo, Question, Run

_SHOWN_CHILDREN: Final = 10
_STEPS = (event.STEP_COMPLETED, event.STEP_FAILED)


def step_frames(events: Sequence[Event], step: str | None) -> Sequence[str]:
    """The user's frames inside the step whose failure ended a run; none when it was no step's."""
    failures = [told for told in events if told.kind == event.STEP_FAILED and told.step == step is not None]
    frames: Sequence[str] = failures[-1].data["error"].get("traceback", ()) if failures else ()
    return frames


class Surroundings(NamedTuple):
    """What stands around a run: its children, the questions it asks, and the limit that it stands in line for."""

    children: Sequence[Run[Any]] = ()
    questions: Sequence[Question[Any]] = ()
    lanes: Sequence[LaneInfo] = ()


class Story:
    """A run, its events and what stands around it, read together; `store` is the store that was named on the command
    line.
    """

    def __init__(
        self,
        run: Run[Any],
        events: Sequence[Event],
        store: str | None = None,
        around: Surroundings = Surroundings(),  # noqa: B008 - it cannot change
    ) -> None:
        self._run = run
        self._events = events
        self._store = store
        self._around = around

    # ------------------------------------------------------------ as JSON

    def record(self) -> dict[str, Any]:
        """The run, its input, steps, children, artifacts, output, error, hold and what it waits for as plain JSON."""
        end = self._last(*event.ENDS)
        hold = self._hold()
        return run_record(self._run) | {
            "input": self._facts(event.RUN_QUEUED).get("input"),
            "steps": [self._step_record(told) for told in self._events if told.kind in _STEPS],
            "artifacts": [dict(told.data) for told in self._events if told.kind == event.ARTIFACT_SAVED],
            "output": None if end is None else end.data.get("output"),
            "error": None if end is None else end.data.get("error"),
            "hold": None if hold is None else dict(hold.data),
            "waits": [] if self._run.ended else [dict(facts) for facts in open_waits(self._events)],
            "questions": [question_record(question) for question in self._around.questions],
            "children": [run_record(child) for child in self._around.children],
        }

    def _step_record(self, told: Event) -> dict[str, Any]:
        kept = {key: told.data[key] for key in ("ms", "error", "try", "retry_at") if key in told.data}
        done = told.kind == event.STEP_COMPLETED
        status = "done" if done else "retrying" if "retry_at" in told.data else "failed"
        return {"step": told.step, "name": told.data["name"], "status": status, **kept}

    # ------------------------------------------------------------ as text

    def lines(self) -> Iterator[str]:
        """The whole story for people."""
        yield from fields(self._header())
        timeline = [line for told in self._own_events() for line in self._line(told)]
        if timeline:
            yield from ("", bold("steps"), *timeline)
        yield from self._child_lines()
        yield from self._question_lines()
        yield from self._artifact_lines()
        yield from self._end_lines()
        hold = self._hold()
        if hold is not None:
            yield ""
            go_on = command("run", "TARGET", "--continue", store=self._store)
            yield from explain(self._run.id, self._run.agent, hold.data, go_on, self._store)

    def _header(self) -> list[tuple[str, str]]:
        run = self._run
        status = status_text(run.status) + (f" ({run.reason})" if run.reason else "") + (" (dead)" if run.dead else "")
        attempts = [("attempt", str(run.attempt))] if run.attempt > 1 else []
        metadata = [("metadata", json.dumps(dict(run.metadata), ensure_ascii=False))] if run.metadata else []
        return [
            ("run", run.id),
            ("agent", f"{run.agent}, version {run.version}"),
            ("status", status),
            ("started", f"{moment(run.created_at)} ({age(run.created_at)}){self._lasted()}"),
            *attempts,
            *self._relations(),
            *self._waiting(),
            *metadata,
            ("input", self._value(self._facts(event.RUN_QUEUED), "input")),
        ]

    def _relations(self) -> Iterator[tuple[str, str]]:
        run = self._run
        if run.parent_id is not None:
            yield "parent", run.parent_id
        if run.retry_of is not None:
            taken_over = sum(told.kind == event.STEP_COMPLETED for told in self._inherited())
            steps = "1 step" if taken_over == 1 else f"{taken_over} steps"
            yield "retries", f"{run.retry_of} ({steps} taken over)"
        if run.session_id.removeprefix(SESSION) != run.id.removeprefix(RUN):
            yield "session", run.session_id

    def _waiting(self) -> list[tuple[str, str]]:
        told = reasons(self._run, self._events, self._around.lanes)
        return [("waits", "\n".join(told))] if told else []

    def _inherited(self) -> Sequence[Event]:
        """What a retry took over: it stands between the run's first event and the first start of the run itself."""
        if self._run.retry_of is None:
            return ()
        own = (number for number, told in enumerate(self._events) if told.kind == event.RUN_STARTED)
        return self._events[: next(own, len(self._events))]

    def _own_events(self) -> Sequence[Event]:
        return self._events[len(self._inherited()) :]

    def _lasted(self) -> str:
        end = self._last(*event.ENDS)
        if end is None:
            return ""
        return f", ended after {duration((end.at - self._run.created_at).total_seconds() * 1000)}"

    def _line(self, told: Event) -> Iterator[str]:
        data = told.data
        match told.kind:
            case event.STEP_COMPLETED if "verdict" in data:
                yield self._timeline(DONE, self._label(told), dim("settled by a person"))
            case event.STEP_COMPLETED:
                yield self._timeline(DONE, self._label(told), duration(data.get("ms", 0)))
            case event.STEP_FAILED if "retry_at" in data:
                yield self._timeline(RETRYING, self._label(told), self._message(data))
            case event.STEP_FAILED:
                yield self._timeline(FAILED, self._label(told), self._message(data))
            case event.RUN_STARTED if data["attempt"] > 1:
                yield self._timeline(NOTE, f"attempt {data['attempt']}", "")
            case event.RUN_RETRYING:
                yield self._timeline(FAILED, f"attempt {data['attempt']}", self._message(data))
            case event.RUN_LOST:
                yield self._timeline(NOTE, "lost", dim("the process that executed it died"))
            case event.RUN_HANDED_BACK:
                yield self._timeline(NOTE, "handed back", "")
            case event.RUN_HELD:
                yield self._timeline(NOTE, "held", str(data.get("why", "")))
            case event.RUN_RELEASED:
                yield self._timeline(NOTE, "released", f"by {data['by']}")
            case event.RUN_CANCELLING:
                yield self._timeline(NOTE, "cancelling", _by(data))
            case event.RUN_DISCARDED:
                yield self._timeline(NOTE, "discarded", _by(data))
            case event.SIGNAL_RECEIVED:
                yield self._timeline(NOTE, "signal", one_line(f"{data['name']} {_value_of(data)}", 80))
            case event.WAIT_CLOSED if data["outcome"] == ANSWERED:
                yield self._timeline(DONE, "answer", f"{one_line(_value_of(data), 60)} {dim('by ' + data['by'])}")
            case event.WAIT_CLOSED if data["outcome"] == TIMED_OUT:
                yield self._timeline(NOTE, "wait", "nothing came in time")
            case kind if kind.startswith(event.CUSTOM):
                yield self._timeline(NOTE, kind.removeprefix(event.CUSTOM), dim(one_line(json.dumps(dict(data)), 80)))

    def _child_lines(self) -> Iterator[str]:
        children = self._around.children
        if not children:
            return
        yield from ("", bold("children"))
        for child in children[:_SHOWN_CHILDREN]:
            yield f"  {short(child.id)} {child.agent}, {status_text(child.status)}"
        if len(children) > _SHOWN_CHILDREN:
            counts = Counter(child.status for child in children)
            told = ", ".join(f"{count} {status_text(status)}" for status, count in counts.items())
            yield dim(f"  and {len(children) - _SHOWN_CHILDREN} more; in all: ") + told

    def _question_lines(self) -> Iterator[str]:
        if self._around.questions:
            yield from ("", bold("asks"))
        for question in self._around.questions:
            first, *more = question_lines(question, self._store)
            assignee = f" {dim('for ' + question.assignee)}" if question.assignee else ""
            yield f"  {mark(ASKS)} {first}{assignee}  {dim(left(question.until))}".rstrip()
            yield from (f"    {line}" for line in more)

    def _timeline(self, kind: str, label: str, detail: str) -> str:
        width = max([9, *(len(self._label(told)) for told in self._events if told.kind in _STEPS)])
        return f"  {mark(kind)} {label.ljust(width)} {detail}".rstrip()

    def _label(self, told: Event) -> str:
        key = (told.step or "").partition(":")[2]
        name = str(told.data["name"])
        return one_line(f"{name} {key}" if key and key != name else name, 40)

    def _message(self, data: Any) -> str:
        error = data["error"]
        kind = f"{error['type']}: " if error.get("type") else ""
        return one_line(f"{kind}{error['message']}", 120)

    def _artifact_lines(self) -> Iterator[str]:
        kept = {told.data["name"]: told.data for told in self._events if told.kind == event.ARTIFACT_SAVED}
        if kept:
            yield from ("", bold("artifacts"))
            yield from fields([(f"  {name}", self._artifact(name, data["size"])) for name, data in kept.items()])

    def _artifact(self, name: str, count: int) -> str:
        return f"{size(count):>9}  {command('runs', 'artifact', ending(self._run.id), name, store=self._store)}"

    def _end_lines(self) -> Iterator[str]:
        end = self._last(*event.ENDS)
        if end is None:
            return
        error = end.data.get("error")
        if error is not None:
            kind = f"{error['type']}: " if error.get("type") not in (None, "Fail", "StepFailed") else ""
            yield from ("", f"{bold('error')} {error['code']}")
            yield from (f"  {line}" for line in f"{kind}{error['message']}".split("\n"))
            frames = [*error.get("traceback", ()), *step_frames(self._events, error.get("step"))]
            yield from (f"  {line}" for line in frame_lines(frames))
        elif "output" in end.data or "ref" in end.data:
            yield from ("", bold("output"))
            yield from (f"  {line}" for line in self._value(end.data, "output").split("\n"))

    # ------------------------------------------------------------ finding facts

    def _value(self, facts: Any, name: str) -> str:
        if name in facts:
            value = facts[name]
            return value if isinstance(value, str) and name == "output" else json.dumps(value, ensure_ascii=False)
        if "ref" in facts:
            return dim(f"({size(facts['ref']['size'])}, kept beside the journal)")
        return ""

    def _facts(self, kind: str) -> Any:
        told = self._last(kind)
        return {} if told is None else told.data

    def _hold(self) -> Event | None:
        return self._last(event.RUN_HELD) if self._run.status in HOLDS else None

    def _last(self, *kinds: str) -> Event | None:
        return next((told for told in reversed(self._events) if told.kind in kinds), None)


def _by(data: Any) -> str:
    why = f": {one_line(data['reason'], 60)}" if data.get("reason") else ""
    return f"by {data['by']}{why}"


def _value_of(data: Any) -> str:
    """The value of an answer or a signal, in short."""
    if "ref" in data:
        return f"({size(data['ref']['size'])})"
    value = data.get("value")
    return "" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
