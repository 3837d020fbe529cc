"""Inheritance: what a run that retries another one takes over from its journal. Pure; called by the submission.

A retry goes on as another attempt would: what was finished is remembered, what ended the run is tried again, what may
have had its effect without a record is in doubt again. Nothing that only the old run can receive is taken over: its
open waits, signals that it never took, children that it started in vain.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from stepwell.domain import event
from stepwell.domain.event import Draft, Entry
from stepwell.domain.run import CANCELLED, SUCCEEDED
from stepwell.domain.values import dumps
from stepwell.domain.wait import CHILD, TIME
from stepwell.engine.scope import CLEAN_UP_SCOPE

_RUN: Final = "run."
_OF_A_CLEAN_UP: Final = (f"{CLEAN_UP_SCOPE}/", f"{CLEAN_UP_SCOPE}.")
_FAILURE: Final = ("code", "message", "retryable", "type", "traceback")


def detached(journal: Sequence[Entry]) -> list[str]:
    """The children that go on without the run, and whose end its journal does not tell."""
    known = _survey(journal)
    return [child for child in known.started if child in known.detached and child not in known.ended]


def inherited(journal: Sequence[Entry], ends: Mapping[str, Draft] | None = None) -> tuple[Draft, ...]:
    """The facts of an ended run that a retry begins with, in their order. `ends` tells how detached children ended
    since; one that is not named there goes on.

    The failures that ended the run, and children that did not succeed, are followed by a `run.retrying` that names
    them: so they are forgotten exactly as those that end an attempt are. What a clean-up did is not part of it.
    """
    journal = [entry for entry in journal if not (entry.step or "").startswith(_OF_A_CLEAN_UP)]
    known = _survey(journal, ends)
    drafts = [_draft(entry) for entry in journal if _passes(entry, known)]
    for child, step in known.started.items():
        if child in (ends or {}):
            drafts.append((ends or {})[child])
        elif child not in known.ended and child not in known.detached:  # it was cancelled at its parent's end
            drafts.append(Draft(event.CHILD_ENDED, dumps({"child": child, "status": CANCELLED}), step))
    return (*drafts, *_told_again(journal, known))


class _Known(NamedTuple):
    """What has to be known of the whole journal before one of its facts can be judged: the waits that were closed and
    the signals that closed them, where children were started, and how they ended.
    """

    closed: set[str]
    taken: set[str]
    started: dict[str, str | None]
    ended: dict[str, str]
    detached: set[str]


def _survey(journal: Iterable[Entry], ends: Mapping[str, Draft] | None = None) -> _Known:
    known = _Known(set(), set(), {}, {}, set())
    for child, end in (ends or {}).items():
        known.ended[child] = json.loads(end.data)["status"]
    for entry in journal:
        match entry.kind:
            case event.WAIT_CLOSED:
                facts = json.loads(entry.data)
                known.closed.add(facts["wait"])
                known.taken.add(facts.get("signal", ""))
            case event.CHILD_STARTED:
                facts = json.loads(entry.data)
                known.started[facts["child"]] = entry.step
                if facts["mode"] == "detach":
                    known.detached.add(facts["child"])
            case event.CHILD_ENDED:
                facts = json.loads(entry.data)
                known.ended[facts["child"]] = facts["status"]
    return known


def _passes(entry: Entry, known: _Known) -> bool:
    match entry.kind:
        case event.WAIT_OPENED:
            return entry.step is not None and _goes_on(json.loads(entry.data), known)
        case event.WAIT_CLOSED:
            return entry.step is not None  # without a step it settled a doubt, whose outcome the step's own fact tells
        case event.SIGNAL_RECEIVED:
            return json.loads(entry.data)["signal"] in known.taken
        case kind:
            return kind == event.RUN_RETRYING or not kind.startswith(_RUN)


def _draft(entry: Entry) -> Draft:
    """The fact as the retry begins with it. The next try of a step is due: somebody asked for it now."""
    data = entry.data
    if entry.kind == event.STEP_FAILED:
        facts = json.loads(data)
        if "retry_at" in facts:
            data = dumps(facts | {"retry_at": 0})
    return Draft(entry.kind, data, entry.step, entry.node)


def _goes_on(wait: dict[str, Any], known: _Known) -> bool:
    """A wait that was closed is remembered; one for time alone has no row, and its moment stays the same."""
    if wait["type"] == CHILD:
        return known.ended.get(wait["name"]) == SUCCEEDED
    return wait["type"] == TIME or wait["wait"] in known.closed


def _told_again(journal: Sequence[Entry], known: _Known) -> Iterable[Draft]:
    end = next((entry for entry in reversed(journal) if entry.kind in event.ENDS), None)
    error = {} if end is None else json.loads(end.data).get("error", {})
    in_vain = [
        step
        for child, step in known.started.items()
        if step and known.ended.get(child) != SUCCEEDED and (child in known.ended or child not in known.detached)
    ]
    steps = list(dict.fromkeys([*filter(None, [error.get("step")]), *error.get("also", ()), *in_vain]))
    if end is None or not steps:
        return
    cause = {name: error[name] for name in _FAILURE if name in error} or _without_error(end)
    told = cause | {"step": steps[0]} | ({"also": steps[1:]} if len(steps) > 1 else {})
    yield Draft(event.RUN_RETRYING, dumps({"attempt": _last_attempt(journal), "error": told, "available_at": end.at}))


def _without_error(end: Entry) -> dict[str, Any]:
    code = f"run.{end.kind.removeprefix(_RUN)}"
    return {"code": code, "message": "the run ended before its children did", "retryable": True}


def _last_attempt(journal: Sequence[Entry]) -> int:
    starts = (json.loads(entry.data) for entry in reversed(journal) if entry.kind == event.RUN_STARTED)
    started: int = next((facts["attempt"] for facts in starts), 0)
    return started
