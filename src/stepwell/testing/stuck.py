"""Says why nothing can ever happen: what each run that has not ended waits for, and what a test can do about it."""

from __future__ import annotations

import json
from typing import Any, Final

from stepwell.domain import event
from stepwell.domain.errors import StepwellError
from stepwell.domain.run import DIVERGED, IN_DOUBT, RUNNING, RunRecord
from stepwell.domain.wait import CHILD, SIGNAL
from stepwell.ports.store import QuestionQuery, RunQuery, Store

_MOST_RUNS: Final = 10
_ANSWER: Final = "answer with `await (await run.question()).answer(...)`, or give ctx.ask a timeout="
_SIGNAL: Final = "send it with `await run.signal({name!r}, ...)`, or give ctx.wait_for a timeout="
_RESUME: Final = "lift the hold with `await run.resume()`"
_SETTLE: Final = "settle it with `await run.resume(verdict=...)`"
_STEADY: Final = "put what is different each time into a step: time, randomness, files, the network, other state"
_LANES: Final = "let the runs that have the places end"


class Stuck(StepwellError, AssertionError):
    """A test waits for what can never happen. The message names what each run waits for."""

    default_code = "testing.stuck"


async def explain(store: Store, run_id: str) -> Stuck:
    """The error for a test that waits for this run in vain."""
    awaited = await store.get(run_id)
    others = [run for run in await store.find(RunQuery(ended=False, limit=_MOST_RUNS)) if run.id != run_id]
    lines: list[str] = []
    hints: dict[str, None] = {}
    for run in (awaited, *reversed(others)):
        told, hint = await _tell(store, run)
        lines += (f"  {run.id} ({run.agent}) {line}" for line in told)
        hints |= dict.fromkeys(hint)
    return Stuck("\n".join(["nothing can ever happen any more:", *lines]), hint="\n  ".join(hints))


async def _tell(store: Store, run: RunRecord) -> tuple[list[str], list[str]]:
    """What a run waits for, a line for each thing; and what to do."""
    life = run.life
    if life.ended:
        return [f"has ended: {life.status}"], []
    if life.hold is not None:
        return await _tell_hold(store, run)
    lines, hints = await _tell_questions(store, run)
    for wait in await _waits(store, run):
        if wait["type"] == SIGNAL:
            lines.append(f"waits for the signal {wait['name']!r}")
            hints.append(_SIGNAL.format(name=wait["name"]))
        elif wait["type"] == CHILD:
            lines.append(f"waits for the end of its child {wait['name']}")
    if not lines and life.status != RUNNING:
        lines, hints = await _tell_lanes(store)
    return lines or [f"is {life.status}, and nobody executes it"], hints


async def _tell_hold(store: Store, run: RunRecord) -> tuple[list[str], list[str]]:
    entry = await store.last_entry(run.id, (event.RUN_HELD,))
    facts = {} if entry is None else json.loads(entry.data)
    why = run.life.hold
    told = f"is held as {why}: {facts['message']}" if "message" in facts else f"is {why} by {facts.get('by')}"
    return [told], [{DIVERGED: _STEADY, IN_DOUBT: _SETTLE}.get(why or "", _RESUME)]


async def _tell_questions(store: Store, run: RunRecord) -> tuple[list[str], list[str]]:
    lines = []
    for question in await store.questions(QuestionQuery(tenant=run.tenant, run_id=run.id)):
        assignee = json.loads(question.wait.data).get("assignee")
        lines.append(f"asks {question.wait.name!r}{f' of {assignee}' if assignee else ''} ({question.wait.id})")
    return lines, [_ANSWER] if lines else []


async def _waits(store: Store, run: RunRecord) -> list[dict[str, Any]]:
    """What the run named when it was parked."""
    entry = await store.last_entry(run.id, (event.RUN_WAITING, event.RUN_STARTED))
    if run.life.status != "waiting" or entry is None or entry.kind != event.RUN_WAITING:
        return []
    waits: list[dict[str, Any]] = json.loads(entry.data)["waits"]
    return waits


async def _tell_lanes(store: Store) -> tuple[list[str], list[str]]:
    """A run that is due and is not executed stands in a line. Which one only the lanes know."""
    full = [
        f"{lane.kind} {lane.name} ({lane.taken} of {lane.capacity} taken)".replace("  ", " ")
        for lane in await store.lanes()
        if lane.waiting
    ]
    return [f"stands in line: {', '.join(full)}"] if full else [], [_LANES] if full else []
