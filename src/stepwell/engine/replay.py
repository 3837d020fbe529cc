"""Replay: what a run's journal remembers, asked call by call while its agent starts from the top.

Nothing here writes. A call whose place holds a record of something else, or beyond whose place the journal goes on
although the place itself is empty, means that the program is not the one that wrote the journal: `Diverged`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple

from stepwell.domain import event, values
from stepwell.domain.errors import Misuse
from stepwell.domain.event import Draft, Entry
from stepwell.domain.run import SUCCEEDED
from stepwell.domain.wait import TIME, TIMED_OUT
from stepwell.engine.times import Times

_CALLS: Final = frozenset(
    {
        event.STEP_INTENDED,
        event.STEP_COMPLETED,
        event.STEP_FAILED,
        event.ARTIFACT_SAVED,
        event.TIME_READ,
        event.WAIT_OPENED,
        event.CHILD_STARTED,
        event.SESSION_READ,
        event.SESSION_CHANGED,
        event.TEXT_COMPLETED,
    }
)
ARRIVALS: Final = frozenset({event.WAIT_CLOSED, event.SIGNAL_RECEIVED, event.CHILD_ENDED})
_STEP: Final = "step"
WAIT: Final = "wait"
NOW: Final = "now"


class Call(NamedTuple):
    """A context call, as it is compared with the journal. `step` is its place, or `name:key`.

    `function` is `None` where it is not compared: a name given by hand settles a renamed function.
    """

    kind: str
    step: str
    name: str
    digest: str
    function: str | None = None
    keyed: bool = False


class Record:
    """What the journal holds of one call. `data` is the text of its newest event, `seq` and `at` its number and time.

    `completed` and `failed` are final; else `tries` have failed, the next is due at `retry_at`, and `intended` says
    that one began under a policy that must know. `soft` records were made on the way to an error that ended an
    attempt: recalled where they fit, else passed over.

    A wait and a child go on elsewhere: `opening` is the data of the event that began it, `awaits` the id of the wait or
    of the child.
    """

    __slots__ = (
        "at",
        "awaits",
        "completed",
        "data",
        "failed",
        "intended",
        "intents",
        "kind",
        "opening",
        "retry_at",
        "seq",
        "soft",
        "tries",
    )

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.data = "{}"
        self.opening: str | None = None
        self.awaits: str | None = None
        self.seq = 0
        self.at = 0
        self.completed = False
        self.failed = False
        self.intended = False
        self.intents = 0
        self.tries = 0
        self.retry_at: int | None = None
        self.soft = False

    @property
    def final(self) -> bool:
        return self.completed or self.failed

    @property
    def in_doubt(self) -> bool:
        return self.intended and not self.final

    def facts(self) -> dict[str, Any]:
        """The newest event's data."""
        facts: dict[str, Any] = json.loads(self.data)
        return facts


class Diverged(Exception):
    """The program differs from the journal. `detail` tells a person where and how."""

    def __init__(self, step: str, expected: str, found: str) -> None:
        message = f"at {step} the journal has {expected}, the program asks for {found}"
        super().__init__(message)
        self.detail = {"message": message, "step": step, "expected": expected, "found": found}


class Replay:
    """The index over one run's journal.

    `generation` counts checkpoints, `checkpoint` is the newest one's entry. `arrived` holds what came from outside, by
    the id of the wait or the child that it is about, `signals` what was sent, by the sender's id, and `asked` the
    questions that are no calls of the agent's; `live_children` are those that have not ended. `shown` says how often
    each stream of text was begun.
    """

    def __init__(self, entries: Sequence[Entry] = ()) -> None:
        self.generation = 0
        self.checkpoint: Entry | None = None
        self.patches: dict[str, bool] = {}
        self.arrived: dict[str, Entry] = {}
        self.signals: dict[str, Entry] = {}
        self.asked: dict[str, str] = {}
        self.shown: dict[str, int] = {}
        self.live_children: set[str] = set()
        self._records: dict[str, Record] = {}
        self._branches: dict[str, int] = {}
        self._last: dict[str, int] = {}
        self._asked_keys: set[str] = set()
        self._went_on = False
        self._unasked: set[str] = set()
        self._unasked_keys: set[str] = set()
        self._times = Times(entries)
        for entry in entries:
            self._note(entry)
        if self._records:
            self._expect_records()

    def _expect_records(self) -> None:
        """All of the journal is read: from here on, what it holds is expected to be asked for."""
        hard = {step: record for step, record in self._records.items() if not record.soft}
        self._unasked = {step for step in hard if _is_place(step)}
        self._unasked_keys = {step for step in hard.keys() - self._unasked if self._is_recent(hard[step])}
        for place in self._unasked:
            self._mark(place)
        for place in self._branches.keys() & self._records.keys():
            if self._records[place].soft:  # a later attempt opened branches there instead
                del self._records[place]

    def begun_at(self, record: Record) -> int:
        """When a record was written, by a clock that may have been set back later."""
        return self._times.begun_at(record.seq, record.at)

    # ------------------------------------------------------------ reading the journal

    def _note(self, entry: Entry) -> None:
        kind = entry.kind
        if kind in ARRIVALS:
            self.note_arrival(entry)
        elif kind == event.TEXT_DELTA:
            facts = json.loads(entry.data)
            self.shown[facts["stream"]] = facts["attempt"]
        elif kind == event.WAIT_OPENED and entry.step is None:
            self.asked[json.loads(entry.data)["wait"]] = entry.data
        elif entry.step is not None and (kind in _CALLS or kind.startswith(event.CUSTOM)):
            self._note_call(entry, entry.step)
        elif kind == event.CHECKPOINT_SAVED:
            self.generation += 1
            self.checkpoint = entry
            self._records = {step: record for step, record in self._records.items() if not _is_place(step)}
        elif kind == event.PATCH_MARKED:
            facts = json.loads(entry.data)
            self.patches[facts["id"]] = facts["active"]
        elif kind == event.RUN_RETRYING:
            error = json.loads(entry.data)["error"]
            if "step" in error:
                self._forget([error["step"], *error.get("also", ())])

    def note_arrival(self, entry: Entry) -> str:
        """Something came from outside. Returns the id of the wait or child that it is about; for a signal, nothing."""
        facts = json.loads(entry.data)
        if entry.kind == event.SIGNAL_RECEIVED:
            self.signals[facts["signal"]] = entry
            return ""
        about = str(facts["wait"] if entry.kind == event.WAIT_CLOSED else facts["child"])
        self.arrived[about] = entry
        self.live_children.discard(about)
        record = None if entry.step is None else self._records.get(entry.step)
        if record is not None and record.awaits == about:
            record.data, record.seq, record.at = entry.data, entry.seq, entry.at
            record.failed = facts.get("outcome") == TIMED_OUT or facts.get("status", SUCCEEDED) != SUCCEEDED
            record.completed = not record.failed
        return about

    def _note_call(self, entry: Entry, step: str) -> None:
        record = self._records.get(step)
        if record is None or record.final or not _continues(record, entry):
            record = self._records[step] = Record(_kind_of_call(entry.kind))
        record.data = entry.data
        record.seq = entry.seq
        record.at = entry.at
        record.soft = False
        match entry.kind:
            case event.STEP_INTENDED:
                record.intended = True
                record.intents += 1
            case event.STEP_FAILED:
                facts = json.loads(entry.data)
                record.intended = False
                record.tries += facts.get("verdict") != "rerun"
                record.retry_at = facts.get("retry_at")
                record.failed = record.retry_at is None
            case event.WAIT_OPENED:
                record.opening = entry.data
                record.awaits = json.loads(entry.data)["wait"]
            case event.CHILD_STARTED:
                child = str(json.loads(entry.data)["child"])
                record.opening, record.awaits = entry.data, child
                self.live_children.add(child)
            case _:
                record.completed = True

    def _forget(self, steps: Iterable[str]) -> None:
        """The failures that ended an attempt are tried again by the next. What the program did about them may or may
        not come again: whatever comes later in their scopes, and in the scopes around these, is soft from now on.
        """
        failures = {step: record for step in steps if (record := self._records.get(step)) and record.failed}
        if not failures:
            return
        limits: dict[str, int] = {}
        for step in failures:
            del self._records[step]
            for scope, position in _line(step) if _is_place(step) else ():
                limits[scope] = min(position, limits.get(scope, position))
        since = min(record.seq for record in failures.values())
        placeless = min((record.seq for step, record in failures.items() if not _is_place(step)), default=None)
        for step, record in self._records.items():
            if not _is_place(step):
                record.soft |= record.seq > since
            elif placeless is not None and record.seq > placeless:
                record.soft = True
            else:
                record.soft |= any(scope in limits and position > limits[scope] for scope, position in _line(step))

    def _is_recent(self, record: Record) -> bool:
        """Whether a keyed call is one that the program, from the newest checkpoint on, will make again."""
        begun = record.final or record.awaits is not None
        return begun and (self.checkpoint is None or record.seq > self.checkpoint.seq)

    def _mark(self, place: str) -> None:
        """Note how far each scope goes, and how many branches were opened where."""
        scope, position = _split(place)
        self._last[scope] = max(self._last.get(scope, 0), position)
        opener, index = _opener(scope)
        while opener is not None:
            self._branches[opener] = max(self._branches.get(opener, 0), index + 1)
            scope, position = _split(opener)
            self._last[scope] = max(self._last.get(scope, 0), position)
            opener, index = _opener(scope)

    # ------------------------------------------------------------ answering calls

    def recall(self, call: Call) -> Record | None:
        """What is known of this call; `None` when it is new. Raises `Diverged`, and `Misuse` for a key used twice."""
        record = self._records.get(call.step)
        if record is not None and (difference := _difference(record, call)) is not None:
            if call.step in self._asked_keys:
                raise _key_used_twice(call, *difference)
            if not record.soft or record.in_doubt:
                raise Diverged(call.step, *difference)
            del self._records[call.step]
            record = None
        if call.keyed:
            self._asked_keys.add(call.step)
        if record is None:
            self._went_on = True
            if not call.keyed:
                self._expect_nothing(call)
            return None
        self._unasked.discard(call.step)
        self._unasked_keys.discard(call.step)
        return record

    def learn(self, step: str, draft: Draft) -> None:
        """Remember at once what this attempt writes of a step with a key: a second call must not do it again."""
        self._note_call(Entry(0, 0, draft.kind, step, None, draft.data), step)

    def open_branches(self, place: str, verb: str, count: int) -> None:
        """The program opens branches at this place. Raises `Diverged` when the journal knows it as something else.

        That the journal knows nothing of it means nothing: branches whose calls have keys, or that call nothing, leave
        no trace.
        """
        found = f"{verb} ({_branches_text(count)})"
        record = self._records.get(place)
        if record is not None:
            if not record.soft or record.in_doubt:
                raise Diverged(place, _shown(record), found)
            del self._records[place]
        known = self._branches.get(place, 0)
        if count < known:
            raise Diverged(place, f"gather or map ({_branches_text(known)})", found)

    def _expect_nothing(self, call: Call) -> None:
        if call.step in self._branches:
            raise Diverged(call.step, "gather or map", _asked(call))
        onward = self._onward(*_split(call.step))
        if onward is not None:
            raise Diverged(call.step, f"nothing, and goes on at {onward}", _asked(call))

    def _onward(self, scope: str, position: int) -> str | None:
        """Where the journal goes on after a place: in its own scope, or in one around it, which waited for this one."""
        for around, at in _around(scope, position):
            last = self._last.get(around, 0)
            if last > at:
                return f"{around}/{last}"
        return None

    def behind(self, scope: str, position: int) -> bool:
        """Whether the run has been further than this position of a scope."""
        return bool(self._unasked_keys) or self._onward(scope, position) is not None

    @property
    def repeating(self) -> bool:
        """Whether the program still repeats what is remembered."""
        return bool(self._unasked) or (bool(self._unasked_keys) and not self._went_on)

    def expect_end(self, scope: str, position: int) -> None:
        """The branch ends here. Raises `Diverged` when the journal of its scope goes on."""
        if self._last.get(scope, 0) > position:
            left = [step for step in self._unasked if any(own == scope and at > position for own, at in _line(step))]
            self._expect_none_of(left)

    def expect_done(self) -> None:
        """The program ends, or a numbering does. Raises `Diverged` when the journal holds calls that were not made."""
        self._expect_none_of(self._unasked)

    def _expect_none_of(self, steps: Iterable[str]) -> None:
        first = min(steps, key=_order, default=None)
        if first is not None:
            raise Diverged(first, _shown(self._records[first]), "nothing more")


def wait_name(type: str, name: str) -> str:
    """What a wait is called where it is compared and shown."""
    return name if type == TIME else f"{type} {name}"


def wait_call(step: str, type: str, name: str, digest: str = "", *, keyed: bool = False) -> Call:
    """The call of a wait."""
    return Call(WAIT, step, wait_name(type, name), digest, None, keyed)


def step_call(step: str, name: str, digest: str, function: str | None, *, keyed: bool) -> Call:
    """The call of a step."""
    return Call(_STEP, step, name, digest, function, keyed)


def keyed_step(name: str, key: str) -> str:
    """What stands for a step with a key: `name:key`, with the colons of the name written so that no two pairs meet."""
    return f"{name.replace('%', '%25').replace(':', '%3A')}:{key}" if ":" in name or "%" in name else f"{name}:{key}"


# ------------------------------------------------------------ places


def _is_place(step: str) -> bool:
    return ":" not in step


def _split(place: str) -> tuple[str, int]:
    scope, _, position = place.rpartition("/")
    return scope, int(position)


def _order(place: str) -> list[int]:
    return [int(part) for part in place.replace("/", ".").split(".")]


def _opener(scope: str) -> tuple[str | None, int]:
    """The place at which a branch was opened, and its index there; of the agent's own scope, nothing."""
    parts = scope.rsplit(".", 2)
    return (f"{parts[0]}/{parts[1]}", int(parts[2])) if len(parts) == 3 else (None, 0)


def _around(scope: str, position: int) -> Iterator[tuple[str, int]]:
    """A position of a scope, and those of the scopes around it at which the way to it was opened."""
    yield scope, position
    opener, _ = _opener(scope)
    while opener is not None:
        scope, position = _split(opener)
        yield scope, position
        opener, _ = _opener(scope)


def _line(place: str) -> Iterator[tuple[str, int]]:
    return _around(*_split(place))


# ------------------------------------------------------------ comparing


def _kind_of_call(kind: str) -> str:
    if kind.startswith("step.") or kind == event.CHILD_STARTED:
        return _STEP
    return WAIT if kind == event.WAIT_OPENED else kind


def _continues(record: Record, entry: Entry) -> bool:
    """Whether a fact is the next one of the same call. In the place of a soft record another call may have come."""
    if record.kind != _kind_of_call(entry.kind):
        return False
    if not record.soft:
        return True
    facts = json.loads(entry.data)
    if record.kind == WAIT:
        name = wait_name(facts["type"], facts["name"])
    else:
        name = facts["name"] if "name" in facts else facts["agent"]
    return _identity(record)[:2] == (name, facts.get("digest", ""))


def _difference(record: Record, call: Call) -> tuple[str, str] | None:
    """What the journal has and what the program asks for, where these are not the same call."""
    name, digest, function = _identity(record)
    if record.kind != call.kind or name != call.name:
        return _shown(record), _asked(call)
    if call.function is not None and function is not None and function != call.function:
        return f"{_shown(record)} of function {function}", f"{_asked(call)} of function {call.function}"
    if digest != call.digest:
        return _shown(record), f"{_asked(call)} with other {'arguments' if call.kind == _STEP else 'content'}"
    return None


def _identity(record: Record) -> tuple[str, str, str | None]:
    """Name, digest and function of what was recorded, as far as its kind has them."""
    facts: dict[str, Any] = record.facts() if record.opening is None else json.loads(record.opening)
    match record.kind:
        case "step":
            return facts["name"] if "name" in facts else facts["agent"], facts["digest"], facts.get("function")
        case "wait":
            return wait_name(facts["type"], facts["name"]), facts.get("digest", ""), None
        case event.ARTIFACT_SAVED:
            return facts["name"], facts["artifact"], None
        case event.TIME_READ:
            return NOW, "", None
        case event.TEXT_COMPLETED:
            return "text", "", None
        case event.SESSION_READ:
            return facts["key"], str(facts.get("last", "")), None
        case event.SESSION_CHANGED:
            return facts["key"], "", None
    return record.kind[len(event.CUSTOM) :], values.digest(facts), None


def _shown(record: Record) -> str:
    return _named(record.kind, _identity(record)[0])


def _asked(call: Call) -> str:
    return _named(call.kind, call.name)


def _named(kind: str, name: str) -> str:
    if kind == event.TIME_READ:
        return NOW
    if kind == event.TEXT_COMPLETED:
        return "streamed text"
    if kind in (event.SESSION_READ, event.SESSION_CHANGED):
        return f"{'read' if kind == event.SESSION_READ else 'write'} of session value {name}"
    if kind == WAIT:
        return name
    if kind.startswith(event.CUSTOM):
        return f"emit {name}"
    return f"{'artifact' if kind == event.ARTIFACT_SAVED else kind} {name}"


def _branches_text(count: int) -> str:
    return "1 branch" if count == 1 else f"{count} branches"


def _key_used_twice(call: Call, expected: str, found: str) -> Misuse:
    return Misuse(
        f"{call.step} stands for {expected} already, and is used for {found}",
        code="step.key_used_twice",
        hint="a key names one call: give the other one a key of its own",
    )
