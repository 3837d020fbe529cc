"""Replay: what a run's journal remembers, asked call by call while its agent starts from the top.

Nothing here writes. A call whose place holds a record of something else, or whose scope's journal goes on although this place is
empty, means that the program is not the one that wrote the journal: `Diverged`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from stepwell.domain import event, values
from stepwell.domain.event import Entry

_CALLS: Final = frozenset(
    {event.STEP_INTENDED, event.STEP_COMPLETED, event.STEP_FAILED, event.ARTIFACT_SAVED, event.TIME_READ}
)
_STEP: Final = "step"
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
    """What the journal holds of one call. `data` is the text of its newest event.

    `completed` and `failed` are final; else `tries` have failed, the next is due at `retry_at`, and `intended` says that one began under
    a policy that must know. `soft` records were made on the way to an error that ended an attempt: recalled where they fit, else passed over.
    """

    __slots__ = ("completed", "data", "failed", "intended", "kind", "retry_at", "soft", "tries")

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.data = "{}"
        self.completed = False
        self.failed = False
        self.intended = False
        self.tries = 0
        self.retry_at: int | None = None
        self.soft = False

    @property
    def final(self) -> bool:
        return self.completed or self.failed

    def facts(self) -> dict[str, Any]:
        """The newest event's data."""
        facts: dict[str, Any] = json.loads(self.data)
        return facts


class Diverged(Exception):
    """The program differs from the journal. `detail` tells a person where and how."""

    def __init__(self, message: str, detail: dict[str, Any]) -> None:
        super().__init__(message)
        self.detail = {"message": message, **detail}


class Replay:
    """The index over one run's journal.

    `generation` counts checkpoints, `checkpoint` is the newest one's entry; `remaining` counts the records that no call has asked for
    yet: while there are some, the agent is repeating itself.
    """

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self.generation = 0
        self.checkpoint: Entry | None = None
        self.patches: dict[str, bool] = {}
        self._records: dict[str, Record] = {}
        self._branches: set[str] = set()
        self._last: dict[str, int] = {}
        self._asked: set[str] = set()
        for entry in entries:
            self._note(entry)
        for step, record in self._records.items():
            if not record.soft and _is_place(step):
                self._mark(step)
        self.remaining = sum(record.final for record in self._records.values())

    # ------------------------------------------------------------ reading the journal

    def _note(self, entry: Entry) -> None:
        kind = entry.kind
        if entry.step is not None and (kind in _CALLS or kind.startswith(event.CUSTOM)):
            self._note_call(entry, entry.step)
        elif kind == event.CHECKPOINT_SAVED:
            self.generation += 1
            self.checkpoint = entry
            self._records = {step: record for step, record in self._records.items() if not _is_place(step)}
        elif kind == event.PATCH_MARKED:
            facts = json.loads(entry.data)
            self.patches[facts["id"]] = facts["active"]
        elif kind == event.RUN_RETRYING:
            step = json.loads(entry.data)["error"].get("step")
            if step is not None:
                self._forget_failure(step)

    def _note_call(self, entry: Entry, step: str) -> None:
        call_kind = _STEP if entry.kind.startswith("step.") else entry.kind
        record = self._records.get(step)
        if record is None or record.final or record.kind != call_kind:
            record = self._records[step] = Record(call_kind)
        record.data = entry.data
        match entry.kind:
            case event.STEP_INTENDED:
                record.intended = True
            case event.STEP_FAILED:
                facts = json.loads(entry.data)
                record.intended = False
                record.tries += facts.get("verdict") != "rerun"
                record.retry_at = facts.get("retry_at")
                record.failed = record.retry_at is None
            case _:
                record.completed = True

    def _forget_failure(self, step: str) -> None:
        """The failure that ended an attempt is tried again by the next; what the program did about it may or may not come again."""
        record = self._records.get(step)
        if record is None or not record.failed:
            return
        del self._records[step]
        if not _is_place(step):
            return
        scope, position = _split(step)
        for other, later in self._records.items():
            if _is_place(other):
                other_scope, other_position = _split(other)
                if other_scope == scope and other_position > position:
                    later.soft = True

    def _mark(self, place: str) -> None:
        scope, position = _split(place)
        self._last[scope] = max(self._last.get(scope, 0), position)
        parts = scope.rsplit(".", 2)
        if len(parts) == 3:
            opener = f"{parts[0]}/{parts[1]}"
            if opener not in self._branches:
                self._branches.add(opener)
                self._mark(opener)

    # ------------------------------------------------------------ answering calls

    def recall(self, call: Call) -> Record | None:
        """What is known of this call; `None` when it is new. Raises `Diverged`."""
        record = self._records.get(call.step)
        if record is None:
            if not call.keyed:
                self._expect_nothing(call)
            return None
        difference = _difference(record, call)
        if difference is not None:
            if record.soft:
                del self._records[call.step]
                return None
            raise Diverged(
                f"at {call.step} the journal has {difference['expected']}, the program asks for {difference['found']}",
                {"step": call.step, **difference},
            )
        if record.final and call.step not in self._asked:
            self._asked.add(call.step)
            self.remaining -= 1
        return record

    def open_branches(self, place: str, verb: str) -> None:
        """The program opens branches at this place. Raises `Diverged` when the journal knows it as something else.

        That the journal knows nothing of it means nothing: branches whose calls have keys, or that call nothing, leave no trace.
        """
        record = self._records.get(place)
        if record is not None and not record.soft:
            found = f"{verb} (branches)"
            raise Diverged(
                f"at {place} the journal has {_shown(record)}, the program asks for {found}",
                {"step": place, "expected": _shown(record), "found": found},
            )

    def _expect_nothing(self, call: Call) -> None:
        scope, position = _split(call.step)
        if call.step in self._branches:
            expected = "branches (gather or map)"
        elif position < self._last.get(scope, 0):
            expected = f"nothing, and goes on at {scope}/{self._last[scope]}"
        else:
            return
        raise Diverged(
            f"at {call.step} the journal has {expected}, the program asks for {_asked(call)}",
            {"step": call.step, "expected": expected, "found": _asked(call)},
        )

    def behind(self, scope: str, position: int) -> bool:
        """Whether the journal of this scope goes on after the position."""
        return position < self._last.get(scope, 0)

    def expect_end(self, scope: str, position: int) -> None:
        """The program ends here. Raises `Diverged` when the journal goes on."""
        if self.behind(scope, position):
            place = f"{scope}/{position + 1}"
            record = self._records.get(place)
            expected = _shown(record) if record is not None else "more calls"
            raise Diverged(
                f"at {place} the journal has {expected}, the program has ended",
                {"step": place, "expected": expected, "found": "the end of the program"},
            )


def step_call(step: str, name: str, digest: str, function: str | None, *, keyed: bool) -> Call:
    """The call of a step."""
    return Call(_STEP, step, name, digest, function, keyed)


def keyed_step(name: str, key: str) -> str:
    """What stands for a step with a key: `name:key`, with the colons of the name written so that no two pairs meet."""
    return f"{name.replace('%', '%25').replace(':', '%3A')}:{key}" if ":" in name or "%" in name else f"{name}:{key}"


def _is_place(step: str) -> bool:
    return ":" not in step


def _split(place: str) -> tuple[str, int]:
    scope, _, position = place.rpartition("/")
    return scope, int(position)


def _difference(record: Record, call: Call) -> dict[str, Any] | None:
    if record.kind != call.kind:
        return {"expected": _shown(record), "found": _asked(call)}
    name, digest, function = _identity(record)
    same_function = call.function is None or function is None or function == call.function
    if name == call.name and digest == call.digest and same_function:
        return None
    found = _asked(call)
    if name == call.name and same_function:
        found += " with other arguments" if record.kind == _STEP else " with other content"
    return {"expected": _shown(record), "found": found}


def _identity(record: Record) -> tuple[str, str, str | None]:
    """Name, digest and function of what was recorded, as far as its kind has them."""
    facts = record.facts()
    match record.kind:
        case "step":
            return facts["name"], facts["digest"], facts.get("function")
        case event.ARTIFACT_SAVED:
            return facts["name"], facts["artifact"], None
        case event.TIME_READ:
            return NOW, "", None
    return record.kind[len(event.CUSTOM) :], values.digest(facts), None


def _shown(record: Record) -> str:
    name, _, function = _identity(record)
    return f"{_noun(record.kind)} {function or name}".strip()


def _asked(call: Call) -> str:
    return f"{_noun(call.kind)} {call.function or call.name}".strip()


def _noun(kind: str) -> str:
    if kind.startswith(event.CUSTOM):
        return "emit"
    return {event.ARTIFACT_SAVED: "artifact", event.TIME_READ: ""}.get(kind, kind)
