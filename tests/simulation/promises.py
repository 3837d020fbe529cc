"""What must hold when everything has ended, and why something has not."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

from stepwell.domain import event
from stepwell.domain.ids import derived
from stepwell.domain.run import CANCELLED, FAILED, SUCCEEDED
from stepwell.stores.memory.runs import Row
from tests.simulation.programs import Program, fits

if TYPE_CHECKING:
    from tests.simulation.world import World


def check_end(world: World) -> None:
    """Every run has ended: look at each, and at what they share."""
    for number, run_id in world.clients.accepted.items():
        if run_id not in world.store.rows:
            world.breaks("P1", f"run {number} was accepted and is gone")
    for (agent, key), run_ids in world.clients.keys.items():
        if len(run_ids) > 1:
            world.breaks("P9", f"the key {key} of {agent} made {len(run_ids)} runs")
    for row in world.store.rows.values():
        _check_run(world, row)
    _check_sessions(world)
    _check_lanes(world)


def _check_run(world: World, row: Row) -> None:
    run, name = row.run, world.audit.name(row.run.id)
    if run.life.status == SUCCEEDED:
        output = json.loads(row.journal[-1].data).get("output") if row.journal[-1].kind == event.RUN_SUCCEEDED else None
        why = fits(_program(row), _output(row) if output is None else output)
        if why is not None:
            world.breaks("P2", f"{name} returned what its program cannot give: {why}")
    elif run.life.status == CANCELLED:
        if not _was_asked(row):
            world.breaks("P5", f"{name} was cancelled, and nobody asked for it")
        if run.hooked and run.life.attempt and not world.effects.cleaned[run.id] and not _excused(world, row):
            world.breaks("P5", f"{name} was cancelled, and nothing was cleaned up after it")
    elif run.life.status != FAILED or not _may_fail(row):
        world.breaks("P5", f"{name} ended as {run.life.status} ({run.life.reason}): {row.journal[-1].data}")
    for entry in row.journal:
        if entry.kind == event.STEP_COMPLETED:
            _check_effect(world, row, entry.step or "", json.loads(entry.data))


def _program(row: Row) -> Program:
    program: Program = json.loads(row.journal[0].data)["input"]
    return program


def _output(row: Row) -> Any:
    return next(json.loads(entry.data)["output"] for entry in row.journal if entry.kind == event.RUN_SUCCEEDED)


def _was_asked(row: Row) -> bool:
    ends = [json.loads(entry.data) for entry in row.journal if entry.kind == event.RUN_CANCELLED]
    asked = any(entry.kind == event.RUN_CANCELLING for entry in row.journal)
    return asked or any(end["by"] in ("client", "parent", "session") for end in ends)


def _excused(world: World, row: Row) -> bool:
    """Whoever was to clean up after a run was taken for dead, or could not read its journal."""
    return world.network.broken_reads > 0 or bool(json.loads(row.journal[-1].data)["by"] == "worker lost")


def _may_fail(row: Row) -> bool:
    """Its attempts were used up by errors of its program, or its workers died, which the audit has counted."""
    if row.run.life.reason == "run.lost":
        return True
    return any(operation[0] == "raise" for operation in _program(row)["ops"])


def _check_effect(world: World, row: Row, step: str, facts: dict[str, Any]) -> None:
    """A step that is done had its effect, unless a person said so."""
    key = derived("idem_", row.run.origin or row.run.id, step, facts["name"], facts["digest"])
    if "verdict" not in facts and key not in world.effects.counted:
        world.breaks("P4", f"{world.audit.name(row.run.id)}: step {step} is done and never had its effect")


def _check_sessions(world: World) -> None:
    """A counter counts what was counted, and messages stand there once."""
    counted: Counter[tuple[str, str]] = Counter()
    said: Counter[str] = Counter()
    for row in world.store.rows.values():
        for entry in row.journal[world.audit.accounts[row.run.id].inherited :]:
            if entry.kind == event.SESSION_CHANGED:
                facts = json.loads(entry.data)
                if facts["key"] == "messages":
                    said[row.run.session] += 1
                else:
                    counted[row.run.session, facts["key"]] += 1
    sessions = world.store._tables.sessions
    for (session, key), times in counted.items():
        value = sessions.value("", session, key)
        if value is None or value.value.text != str(times):
            world.breaks("P2", f"session {session}: {key} was counted {times} times, and is {value}")
    for session, times in said.items():
        messages = sessions.messages("", session, last=None, upto=None)
        if [message.number for message in messages] != list(range(1, times + 1)):
            world.breaks("P2", f"session {session} has {len(messages)} messages, and {times} were said")


def _check_lanes(world: World) -> None:
    """Everything has ended: nobody holds a ticket."""
    taken = world.store._tables.lanes.infos("", None)
    if taken:
        world.breaks("P8", f"all runs have ended, and tickets are taken: {taken}")


def explain(world: World) -> str:
    """What is left, and what each of it waits for."""
    lines = ["not everything came to its end"]
    for row in world.store.rows.values():
        life = row.run.life
        if not life.ended:
            last = row.journal[-1]
            lines.append(
                f"{world.audit.name(row.run.id)} of {row.run.agent} is {life.shown} at {life.worker}, gate {row.gate}, "
                f"due in {(life.available_at - world.store_clock.now()) / 1e6:g} s, last {last.kind} {last.data}"
            )
    if world.clients.busy:
        lines.append("a client still waits for an answer")
    return "\n  ".join(lines)
