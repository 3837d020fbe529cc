"""The table of what may happen to a run, row by row. What arrives for its waits has a table of its own."""

from typing import Any

import pytest

from stepwell.domain import transitions
from stepwell.domain.commit import Commit
from stepwell.domain.errors import Conflict, LeaseLost, RunEnded
from stepwell.domain.event import Draft
from stepwell.domain.outcome import (
    NEVER,
    Cancelled,
    Exhausted,
    Failed,
    HandedBack,
    Held,
    Outcome,
    Parked,
    Payload,
    Retrying,
    Succeeded,
    TimedOut,
)
from stepwell.domain.run import MAX_CONSECUTIVE_LOSSES, MAX_LOSSES_AND_EXPIRIES, Lifecycle
from stepwell.domain.transitions import PAUSED_ON_REQUEST, Change
from stepwell.domain.values import loads
from tests.unit.domain.moves import (
    BACKING_OFF,
    CANCELLING,
    CHARGED,
    CLAIMED,
    DIVERGED,
    ENDS,
    ERROR,
    IN_DOUBT,
    LATER,
    NEW,
    NOW,
    OUTPUT,
    PAUSED,
    PAUSING,
    QUEUED,
    RUNNING,
    STEP,
    TOLD,
    WAITING,
    WAITING_PAUSED,
    Cause,
    Row,
    cancel,
    claim,
    committed,
    discard,
    ended,
    pause,
    resume,
    time_out,
    write,
)

DELAYED = NEW._replace(available_at=LATER)
DEAD = ENDS[0]._replace(status="failed", dead=1)

WAYS_TO_CANCEL: list[tuple[str, Outcome, str]] = [
    ("an error", Failed(ERROR), "cancelled"),
    ("an error that would be tried again", Retrying(ERROR, LATER), "cancelled"),
    ("parking", Parked(LATER, "[]"), "cancelled"),
    ("a drain", HandedBack(), "cancelled"),
    ("a limit", Exhausted("steps"), "cancelled"),
    ("the run timeout", TimedOut("timeout"), "cancelled"),
    ("a hold", Held("diverged", by="replay"), "cancelled"),
    ("a pause", PAUSED_ON_REQUEST, "cancelled"),
    ("parking although something arrived", Parked(LATER, "[]", at_seq=1), "cancelled"),
    ("the hook's end", Cancelled(by="ann", reason="why not"), "why not"),
]
WAYS_TO_LET_GO: list[tuple[str, Outcome]] = [
    ("it parks", Parked(NEVER, "[]")),
    ("an error", Failed(ERROR)),
    ("an error to try again", Retrying(ERROR, LATER)),
    ("its worker leaves", HandedBack()),
    ("a pause", PAUSED_ON_REQUEST),
]
ENDS_OF_A_PAUSING_RUN: list[tuple[str, Outcome, str, dict[str, Any]]] = [
    ("failed", Failed(ERROR), "agent.error", {"errors": 1}),
    ("timed_out", TimedOut("timeout"), "timeout", {}),
    ("exhausted", Exhausted("steps"), "steps", {}),
]

TABLE: dict[str, Row] = {
    # queued, due | claim
    "a run that never started is claimed: its first attempt": Row(
        NEW, claim("due"), {**CLAIMED, "fence": 1, "attempt": 1}, ["run.started"]
    ),
    "a run that was handed back is claimed: the same attempt": Row(
        QUEUED, claim("due"), {**CLAIMED, "fence": 2}, ["run.resumed"]
    ),
    "a run whose attempt ended in an error is claimed: the next attempt": Row(
        BACKING_OFF, claim("due"), {**CLAIMED, "fence": 2, "attempt": 2}, ["run.started"]
    ),
    # waiting, due | claim
    "a waiting run is claimed: the same attempt": Row(WAITING, claim("due"), {**CLAIMED, "fence": 2}, ["run.resumed"]),
    "a waiting run that failed before is claimed: the same attempt": Row(
        WAITING._replace(errors=1, attempt=2), claim("due"), {**CLAIMED, "fence": 2}, ["run.resumed"]
    ),
    # running, owner proven dead | claim
    "the owner is dead: the next attempt, one loss more": Row(
        RUNNING,
        claim("lost"),
        {**CLAIMED, "fence": 3, "attempt": 2, "lost": 1, "losses": 1, **CHARGED},
        ["run.lost", "run.started"],
    ),
    "the owner is dead and a loss was before: both count": Row(
        RUNNING._replace(attempt=2, lost=1, losses=1),
        claim("lost"),
        {**CLAIMED, "fence": 3, "attempt": 3, "lost": 2, "losses": 2, **CHARGED},
        ["run.lost", "run.started"],
    ),
    "the owner is dead for the third time in a row: dead": Row(
        RUNNING._replace(lost=2, losses=MAX_CONSECUTIVE_LOSSES - 1),
        claim("lost"),
        ended("failed", "run.lost", dead=1, fence=3, lost=3, losses=3, **CHARGED),
        ["run.lost", "run.failed"],
    ),
    "the owner is dead, and losses and expiries are too many in all: dead": Row(
        RUNNING._replace(lost=9, expiries=MAX_LOSSES_AND_EXPIRIES - 10),
        claim("lost"),
        ended("failed", "run.lost", dead=1, fence=3, lost=10, losses=1, **CHARGED),
        ["run.lost", "run.failed"],
    ),
    "losses use up no attempts: a run with errors and losses goes on": Row(
        RUNNING._replace(attempt=6, errors=2, lost=3, losses=1),
        claim("lost"),
        {**CLAIMED, "fence": 3, "attempt": 7, "lost": 4, "losses": 2, **CHARGED},
        ["run.lost", "run.started"],
    ),
    # running, lease expired without proof | claim
    "the lease ran out: the same attempt, one expiry more": Row(
        RUNNING, claim("expired"), {**CLAIMED, "fence": 3, "expiries": 1, **CHARGED}, ["run.resumed"]
    ),
    "the lease ran out after losses: they stay as they are": Row(
        RUNNING._replace(attempt=3, lost=2, losses=2),
        claim("expired"),
        {**CLAIMED, "fence": 3, "expiries": 1, **CHARGED},
        ["run.resumed"],
    ),
    "the lease ran out for the last time: dead": Row(
        RUNNING._replace(expiries=MAX_LOSSES_AND_EXPIRIES - 1),
        claim("expired"),
        ended("failed", "run.lost", dead=1, fence=3, expiries=MAX_LOSSES_AND_EXPIRIES, **CHARGED),
        ["run.failed"],
    ),
    # running | commit
    "a commit appends and begins the row of losses anew": Row(
        RUNNING._replace(losses=2), write(None, STEP), {"commit_no": 4, "losses": 0, "held": TOLD}, ["step.completed"]
    ),
    # running | return
    "the agent returns": Row(RUNNING, write(Succeeded(OUTPUT)), committed(ended("succeeded", None)), ["run.succeeded"]),
    "the agent returns with its last step": Row(
        RUNNING,
        write(Succeeded(OUTPUT), STEP),
        committed(ended("succeeded", None)),
        ["step.completed", "run.succeeded"],
    ),
    "the agent returns before a cancel reaches it": Row(
        CANCELLING, write(Succeeded(OUTPUT)), committed(ended("succeeded", None)), ["run.succeeded"]
    ),
    "the agent returns before a pause reaches it": Row(
        PAUSING, write(Succeeded(OUTPUT)), committed(ended("succeeded", None)), ["run.succeeded"]
    ),
    # running | park
    "the run parks": Row(
        RUNNING,
        write(Parked(LATER, "[]")),
        committed({"status": "waiting", "worker": None, "available_at": LATER}),
        ["run.waiting"],
    ),
    "the run parks and is due at no time: only what arrives wakes it": Row(
        RUNNING,
        write(Parked(NEVER, "[]", at_seq=RUNNING.seq)),
        committed({"status": "waiting", "worker": None, "available_at": NEVER}),
        ["run.waiting"],
    ),
    "the run parks and something arrived that it has not seen: due at once": Row(
        RUNNING,
        write(Parked(LATER, "[]", at_seq=RUNNING.seq - 1)),
        committed({"status": "waiting", "worker": None, "available_at": NOW}),
        ["run.waiting"],
    ),
    "the run parks, and what the same write tells is nothing new to it": Row(
        RUNNING,
        write(Parked(LATER, "[]", at_seq=RUNNING.seq), STEP),
        committed({"status": "waiting", "worker": None, "available_at": LATER}),
        ["step.completed", "run.waiting"],
    ),
    # running | error
    "an error that is tried again": Row(
        RUNNING,
        write(Retrying(ERROR, LATER)),
        committed({"status": "queued", "worker": None, "available_at": LATER, "errors": 1, "reason": "agent.error"}),
        ["run.retrying"],
    ),
    "an error that is not tried again": Row(
        RUNNING, write(Failed(ERROR)), committed(ended("failed", "agent.error", errors=1)), ["run.failed"]
    ),
    "an error that uses up the attempts": Row(
        RUNNING,
        write(Failed(ERROR, dead=True)),
        committed(ended("failed", "agent.error", errors=1, dead=1)),
        ["run.failed"],
    ),
    # running | budget or step limit
    "a limit is used up": Row(
        RUNNING, write(Exhausted("steps")), committed(ended("exhausted", "steps")), ["run.exhausted"]
    ),
    # running | drain, hand-back
    "the worker hands back": Row(
        RUNNING, write(HandedBack()), committed({"status": "queued", "worker": None}), ["run.handed_back"]
    ),
    "the worker hands back a run that was woken before its time: due at once": Row(
        RUNNING._replace(available_at=LATER),
        write(HandedBack()),
        committed({"status": "queued", "worker": None, "available_at": NOW}),
        ["run.handed_back"],
    ),
    # running | replay differs, in doubt under "fail" / "ask"
    "the replay differs": Row(
        RUNNING,
        write(Held("diverged", by="replay")),
        committed({"status": "queued", "worker": None, "hold": "diverged"}),
        ["run.held"],
    ),
    "a step is in doubt": Row(
        RUNNING,
        write(Held("in_doubt", by="step")),
        committed({"status": "queued", "worker": None, "hold": "in_doubt"}),
        ["run.held"],
    ),
    "a step is in doubt and a person is asked: the run waits for the answer": Row(
        RUNNING,
        write(Parked(NEVER, '["q_1"]', at_seq=RUNNING.seq), Draft("wait.opened")),
        committed({"status": "waiting", "worker": None, "available_at": NEVER}),
        ["wait.opened", "run.waiting"],
    ),
    # held in_doubt | done, rerun, fail
    "the doubt is settled, the step was done": Row(
        IN_DOUBT, resume("done", STEP), {"hold": None}, ["step.completed", "run.released"]
    ),
    "the doubt is settled, the step runs again": Row(IN_DOUBT, resume("rerun"), {"hold": None}, ["run.released"]),
    "the doubt is settled, the step failed": Row(
        IN_DOUBT, resume("fail", Draft("step.failed")), {"hold": None}, ["step.failed", "run.released"]
    ),
    # queued, waiting, held | cancel
    **{
        f"a run is cancelled that is {name}": Row(
            before, cancel(), ended("cancelled", "why not", fence=before.fence + 1), ["run.cancelled"]
        )
        for name, before in {
            "new": NEW,
            "queued": QUEUED,
            "backing off": BACKING_OFF,
            "waiting": WAITING,
            "paused": PAUSED,
            "diverged": DIVERGED,
            "in doubt": IN_DOUBT,
        }.items()
    },
    "a run with a hook that never started is cancelled at once": Row(
        NEW, cancel(has_hook=True), ended("cancelled", "why not", fence=1), ["run.cancelled"]
    ),
    "a waiting run with a hook is queued for its hook": Row(
        WAITING, cancel(has_hook=True), {"status": "queued", "available_at": NOW, "cancelling": 1}, ["run.cancelling"]
    ),
    "a held run with a hook is queued for its hook, the hold is lifted": Row(
        WAITING_PAUSED,
        cancel(has_hook=True),
        {"status": "queued", "available_at": NOW, "cancelling": 1, "hold": None},
        ["run.cancelling"],
    ),
    # queued + cancelling | claim
    "the hook's turn: claimed with the same attempt": Row(
        QUEUED._replace(cancelling=1), claim("due"), {**CLAIMED, "fence": 2, "cancelling": 2}, ["run.resumed"]
    ),
    "the hook's turn after an error: the same attempt all the same": Row(
        BACKING_OFF._replace(cancelling=1), claim("due"), {**CLAIMED, "fence": 2, "cancelling": 2}, ["run.resumed"]
    ),
    "the hook's turn is cancelled by somebody who knows of no hook: ended": Row(
        QUEUED._replace(cancelling=1), cancel(), ended("cancelled", "why not", fence=2), ["run.cancelled"]
    ),
    # running | cancel
    "a cancel is asked for while the run executes": Row(RUNNING, cancel(), {"cancelling": 1}, ["run.cancelling"]),
    "a cancel is asked for while the run executes and has a hook: its holder runs it": Row(
        RUNNING, cancel(has_hook=True), {"cancelling": 1}, ["run.cancelling"]
    ),
    "a cancel wins over a pause that was asked for": Row(
        PAUSING, cancel(), {"cancelling": 1, "pausing": 0}, ["run.cancelling"]
    ),
    "the step in flight commits while a cancel is asked for": Row(
        CANCELLING, write(None, STEP), {"commit_no": 4, "held": TOLD}, ["step.completed"]
    ),
    # running + cancelling | error, park, drain, limit, hook ended or failed, grace over, worker lost
    **{
        f"a cancel is carried out, by {name}": Row(
            CANCELLING, write(outcome), committed(ended("cancelled", reason)), ["run.cancelled"]
        )
        for name, outcome, reason in WAYS_TO_CANCEL
    },
    **{
        f"a cancel that the attempt had not heard of when it let go of a run with a hook: {name}": Row(
            CANCELLING,
            write(outcome, has_hook=True),
            committed({"status": "queued", "worker": None, "available_at": NOW}),
            ["run.handed_back"],
        )
        for name, outcome in WAYS_TO_LET_GO
    },
    **{
        f"a run that was claimed for its hook is never queued again: {name}": Row(
            CANCELLING._replace(cancelling=2),
            write(outcome, has_hook=True),
            committed(ended("cancelled", "cancelled")),
            ["run.cancelled"],
        )
        for name, outcome in [*WAYS_TO_LET_GO, ("its journal cannot be read", Held("diverged", by="replay"))]
        if not isinstance(outcome, HandedBack)
    },
    "a run that was claimed for its hook is handed back untouched": Row(
        CANCELLING._replace(cancelling=2),
        write(HandedBack(), has_hook=True),
        committed({"status": "queued", "worker": None, "available_at": NOW, "cancelling": 1}),
        ["run.handed_back"],
    ),
    "a cancel of a run with a hook is carried out, by the end of its hook": Row(
        CANCELLING,
        write(Cancelled("ann", "late"), has_hook=True),
        committed(ended("cancelled", "late")),
        ["run.cancelled"],
    ),
    "a cancel of a run with a hook is carried out, by a limit": Row(
        CANCELLING,
        write(TimedOut("timeout"), has_hook=True),
        committed(ended("cancelled", "cancelled")),
        ["run.cancelled"],
    ),
    "a cancel is carried out, by the death of the worker": Row(
        CANCELLING, claim("lost"), ended("cancelled", "worker lost", fence=3, **CHARGED), ["run.cancelled"]
    ),
    "a cancel is carried out, by the end of the lease": Row(
        CANCELLING, claim("expired"), ended("cancelled", "worker lost", fence=3, **CHARGED), ["run.cancelled"]
    ),
    # queued, waiting | pause
    "a queued run is paused at once": Row(QUEUED, pause, {"hold": "paused"}, ["run.held"]),
    "a waiting run is paused at once and keeps its time": Row(WAITING, pause, {"hold": "paused"}, ["run.held"]),
    # running | pause
    "a pause is asked for while the run executes": Row(RUNNING, pause, {"pausing": 1}, []),
    "the step in flight commits while a pause is asked for": Row(
        PAUSING, write(None, STEP), {"commit_no": 4, "held": TOLD}, ["step.completed"]
    ),
    "a pause takes effect at a step boundary": Row(
        PAUSING,
        write(PAUSED_ON_REQUEST, STEP),
        committed({"status": "queued", "worker": None, "hold": "paused", "pausing": 0}),
        ["step.completed", "run.held"],
    ),
    "a pause takes effect when the run parks": Row(
        PAUSING,
        write(Parked(LATER, "[]")),
        committed({"status": "waiting", "worker": None, "available_at": LATER, "hold": "paused", "pausing": 0}),
        ["run.waiting", "run.held"],
    ),
    "a pause takes effect when the run parks, and what arrived is kept": Row(
        PAUSING,
        write(Parked(LATER, "[]", at_seq=RUNNING.seq - 1)),
        committed({"status": "waiting", "worker": None, "available_at": NOW, "hold": "paused", "pausing": 0}),
        ["run.waiting", "run.held"],
    ),
    "a pause that was taken back does not take effect: handed back": Row(
        RUNNING, write(PAUSED_ON_REQUEST), committed({"status": "queued", "worker": None}), ["run.handed_back"]
    ),
    "a run that is set aside for another reason has its pause, too": Row(
        PAUSING,
        write(Held("diverged", by="replay")),
        committed({"status": "queued", "worker": None, "hold": "diverged", "pausing": 0}),
        ["run.held"],
    ),
    "a pause takes effect when the worker hands back": Row(
        PAUSING,
        write(HandedBack()),
        committed({"status": "queued", "worker": None, "hold": "paused", "pausing": 0}),
        ["run.handed_back", "run.held"],
    ),
    "a pause takes effect when the attempt fails and is tried again": Row(
        PAUSING,
        write(Retrying(ERROR, LATER)),
        committed(
            {
                "status": "queued",
                "worker": None,
                "available_at": LATER,
                "errors": 1,
                "reason": "agent.error",
                "hold": "paused",
                "pausing": 0,
            }
        ),
        ["run.retrying", "run.held"],
    ),
    "a pause takes effect when the worker is dead": Row(
        PAUSING,
        claim("lost"),
        {
            "status": "queued",
            "worker": None,
            "hold": "paused",
            "pausing": 0,
            "fence": 3,
            "lost": 1,
            "losses": 1,
            **CHARGED,
        },
        ["run.lost", "run.held"],
    ),
    "a pause takes effect when the lease ran out": Row(
        PAUSING,
        claim("expired"),
        {
            "status": "queued",
            "worker": None,
            "hold": "paused",
            "pausing": 0,
            "fence": 3,
            "expiries": 1,
            **CHARGED,
        },
        ["run.held"],
    ),
    **{
        f"an end wins over a pause: {status}": Row(
            PAUSING, write(outcome), committed(ended(status, reason, **more)), [f"run.{status}"]
        )
        for status, outcome, reason, more in ENDS_OF_A_PAUSING_RUN
    },
    # held | resume
    "a paused run is resumed: due at once": Row(PAUSED, resume(), {"hold": None}, ["run.released"]),
    "a run that was paused while it backed off is resumed: due at once": Row(
        BACKING_OFF._replace(hold="paused"), resume(), {"hold": None, "available_at": NOW}, ["run.released"]
    ),
    "a run that was paused before its time to start is resumed: it starts at its time": Row(
        DELAYED._replace(hold="paused"), resume(), {"hold": None}, ["run.released"]
    ),
    "a pause is taken back before it takes effect": Row(PAUSING, resume(), {"pausing": 0}, []),
    "a diverged run is resumed": Row(DIVERGED, resume(), {"hold": None}, ["run.released"]),
    "a run that was paused while it waited is resumed: it waits on": Row(
        WAITING_PAUSED, resume(), {"hold": None}, ["run.released"]
    ),
    # not ended | run timeout, deadline
    "the run timeout is over, by its worker": Row(
        RUNNING, write(TimedOut("timeout")), committed(ended("timed_out", "timeout")), ["run.timed_out"]
    ),
    **{
        f"the deadline passes while a run is {name}": Row(
            before, time_out("deadline"), ended("timed_out", "deadline", fence=before.fence + 1), ["run.timed_out"]
        )
        for name, before in {
            "new": NEW,
            "queued": QUEUED,
            "waiting": WAITING,
            "paused": PAUSED,
            "diverged": DIVERGED,
            "in doubt": IN_DOUBT,
            "queued for its hook": QUEUED._replace(cancelling=1),
        }.items()
    },
    **{
        f"the deadline passes while a run is {name}: it is charged what its holder told of": Row(
            before, time_out("deadline"), ended("timed_out", "deadline", fence=3, **CHARGED), ["run.timed_out"]
        )
        for name, before in {"running": RUNNING, "cancelling": CANCELLING, "pausing": PAUSING}.items()
    },
    # ended | discard
    "a dead run is discarded: it stays failed": Row(DEAD, discard, {"dead": 0}, ["run.discarded"]),
}


@pytest.mark.parametrize("row", TABLE.values(), ids=TABLE)
def test_a_run_moves_as_the_table_says(row: Row) -> None:
    row.check()


class TestSubmit:
    def test_a_submitted_run_is_queued(self) -> None:
        change = submit()
        assert change.life == Lifecycle("queued", available_at=LATER, updated_at=NOW, timed_at=NOW)
        assert [draft.kind for draft in change.drafts] == ["run.queued"]

    def test_a_submitted_run_that_starts_at_once_is_in_its_first_attempt(self) -> None:
        submitted = submit()
        life, first = transitions.number(submitted.life, submitted, NOW)
        started = transitions.claim(life, worker="w2", cause="due", now=NOW)
        life, second = transitions.number(life, started, NOW)
        assert (life.status, life.attempt, life.fence, life.seq) == ("running", 1, 1, 2)
        assert [(entry.seq, entry.kind) for entry in first + second] == [(1, "run.queued"), (2, "run.started")]

    def test_the_first_event_tells_what_was_asked_for(self) -> None:
        data = {"agent": "a", "version": "1", "input": "x", "priority": 3, "available_at": LATER}
        assert loads(submit().drafts[0].data) == data
        assert loads(submit(trigger="nightly").drafts[0].data) == {**data, "trigger": "nightly"}

    def test_the_first_event_names_the_parent_or_the_run_that_is_tried_again(self) -> None:
        assert loads(submit(parent="run_p").drafts[0].data) == {**loads_of(submit()), "parent": "run_p"}
        assert loads(submit(retry_of="run_r").drafts[0].data) == {**loads_of(submit()), "retry_of": "run_r"}

    def test_what_a_run_inherits_stands_right_behind_its_first_event(self) -> None:
        change = submit(retry_of="run_r", inherited=(STEP, Draft("step.failed")))
        assert [draft.kind for draft in change.drafts] == ["run.queued", "step.completed", "step.failed"]
        assert change.drafts[1] is STEP
        life, entries = transitions.number(change.life, change, NOW)
        assert (life.seq, [entry.seq for entry in entries]) == (3, [1, 2, 3])


def loads_of(change: Change) -> dict[str, Any]:
    """The data of the first event."""
    data = loads(change.drafts[0].data)
    assert isinstance(data, dict)
    return data


def submit(
    trigger: str | None = None,
    parent: str | None = None,
    retry_of: str | None = None,
    inherited: tuple[Draft, ...] = (),
) -> Change:
    return transitions.submit(
        agent="a",
        version="1",
        trigger=trigger,
        input_field=Payload('"x"').field("input"),
        priority=3,
        available_at=LATER,
        now=NOW,
        parent=parent,
        retry_of=retry_of,
        inherited=inherited,
    )


EVENTS: dict[str, tuple[Lifecycle, Cause, list[Any]]] = {
    "started": (NEW, claim("due"), [{"attempt": 1, "fence": 1, "worker": "w2"}]),
    "resumed from the queue": (QUEUED, claim("due"), [{"fence": 2, "worker": "w2", "cause": "queued"}]),
    "woken": (WAITING, claim("due"), [{"fence": 2, "worker": "w2", "cause": "woken"}]),
    "expired": (RUNNING, claim("expired"), [{"fence": 3, "worker": "w2", "cause": "lease_expired"}]),
    "lost": (
        RUNNING,
        claim("lost"),
        [{"attempt": 1, "worker": "w1", "losses": 1}, {"attempt": 2, "fence": 3, "worker": "w2"}],
    ),
    "returned": (RUNNING, write(Succeeded(OUTPUT)), [{"output": "done"}]),
    "returned something large": (
        RUNNING,
        write(Succeeded(Payload(None, "b1", 9))),
        [{"ref": {"blob": "b1", "size": 9, "of": "output"}}],
    ),
    "failed": (RUNNING, write(Failed(ERROR, dead=True)), [{"error": loads(ERROR.text()), "dead": True}]),
    "retrying": (
        RUNNING,
        write(Retrying(ERROR, LATER)),
        [{"attempt": 1, "error": loads(ERROR.text()), "available_at": LATER}],
    ),
    "parked": (RUNNING, write(Parked(LATER, '[{"type":"time"}]')), [{"waits": [{"type": "time"}]}]),
    "handed back": (RUNNING, write(HandedBack()), [{"worker": "w1"}]),
    "held": (RUNNING, write(Held("diverged", "replay", '{"at":3}')), [{"why": "diverged", "by": "replay", "at": 3}]),
    "held without detail": (RUNNING, write(Held("diverged", "replay")), [{"why": "diverged", "by": "replay"}]),
    "released": (PAUSED, resume(), [{"by": "ann"}]),
    "released with a verdict": (IN_DOUBT, resume("rerun"), [{"by": "ann", "verdict": "rerun"}]),
    "cancelling": (RUNNING, cancel(), [{"by": "ann", "reason": "why not"}]),
    "cancelled": (QUEUED, cancel(), [{"by": "ann", "reason": "why not"}]),
    "cancelled by its hook": (CANCELLING, write(Cancelled("ann", None)), [{"by": "ann", "reason": None}]),
    "cancelled while it parked": (
        CANCELLING,
        write(Parked(LATER, "[]")),
        [{"by": "request", "reason": None}],
    ),
    "cancelled by the loss of the worker": (CANCELLING, claim("lost"), [{"by": "worker lost", "reason": None}]),
    "paused": (QUEUED, pause, [{"why": "paused", "by": "ann"}]),
    "paused as it was asked for": (PAUSING, write(PAUSED_ON_REQUEST), [{"why": "paused", "by": "pause"}]),
    "discarded": (DEAD, discard, [{"by": "ann"}]),
    "timed out": (RUNNING, write(TimedOut("timeout")), [{"limit": "timeout"}]),
    "past the deadline": (WAITING, time_out("deadline"), [{"limit": "deadline"}]),
    "exhausted": (RUNNING, write(Exhausted("steps", '{"limit":"steps","used":9}')), [{"limit": "steps", "used": 9}]),
}


@pytest.mark.parametrize(("before", "cause", "data"), EVENTS.values(), ids=EVENTS)
def test_the_events_tell_what_happened(before: Lifecycle, cause: Cause, data: list[Any]) -> None:
    change = cause(before)
    assert change is not None
    assert [loads(draft.data) for draft in change.drafts] == data


class TestNothingHappens:
    def test_a_cancel_that_was_asked_for_is_not_asked_for_twice(self) -> None:
        for before in (CANCELLING, QUEUED._replace(cancelling=1)):
            answer = transitions.cancel(before, by="ann", reason=None, has_hook=True, now=NOW)
            assert answer == (None, "cancelling")

    def test_a_run_that_is_set_aside_or_will_be_is_not_paused_again(self) -> None:
        for before in (PAUSED, DIVERGED, IN_DOUBT, PAUSING):
            assert pause(before) is None

    def test_a_run_that_is_being_cancelled_is_not_paused(self) -> None:
        for before in (CANCELLING, QUEUED._replace(cancelling=1)):
            assert pause(before) is None

    def test_a_run_with_a_hook_that_executes_is_not_asked_twice_to_end(self) -> None:
        first, answer = transitions.cancel(RUNNING, by="ann", reason=None, has_hook=True, now=NOW)
        assert (first and first.life.cancelling, answer) == (1, "cancelling")
        assert first is not None
        assert transitions.cancel(first.life, by="bob", reason=None, has_hook=True, now=NOW) == (None, "cancelling")

    def test_the_cancel_of_an_idle_run_says_that_it_is_done(self) -> None:
        assert transitions.cancel(QUEUED, by="ann", reason=None, has_hook=False, now=NOW)[1] == "cancelled"
        assert transitions.cancel(RUNNING, by="ann", reason=None, has_hook=False, now=NOW)[1] == "cancelling"

    def test_a_commit_that_had_landed_changes_nothing(self) -> None:
        again = Commit(RUNNING.commit_no, (STEP,), Succeeded(OUTPUT))
        change = transitions.commit(RUNNING, again, fence=RUNNING.fence, now=NOW)
        assert change == Change(RUNNING, ())
        assert transitions.number(RUNNING, change, NOW) == (RUNNING, [])

    @pytest.mark.parametrize(
        "outcome", [Succeeded(OUTPUT), Failed(ERROR), HandedBack(), Parked(LATER, "[]"), Held("paused", by="ann")]
    )
    def test_an_outcome_that_had_landed_is_not_refused(self, outcome: Outcome) -> None:
        last = Commit(RUNNING.commit_no + 1, (), outcome)
        landed = transitions.commit(RUNNING, last, fence=RUNNING.fence, now=NOW).life
        assert transitions.commit(landed, last, fence=RUNNING.fence, now=NOW) == Change(landed, ())


class TestRefusals:
    @pytest.mark.parametrize("before", [NEW, QUEUED, WAITING, PAUSED, DIVERGED, IN_DOUBT, *ENDS], ids=str)
    def test_a_run_that_nobody_executes_accepts_no_write(self, before: Lifecycle) -> None:
        with pytest.raises(LeaseLost):
            write(None, STEP)(before)

    @pytest.mark.parametrize("fence", [0, 1, 3, 99])
    def test_another_fence_than_the_current_one_is_refused(self, fence: int) -> None:
        for outcome in (None, Succeeded(OUTPUT)):
            with pytest.raises(LeaseLost) as refused:
                transitions.commit(RUNNING, Commit(4, (STEP,), outcome), fence=fence, now=NOW)
            assert f"fence {fence}" in str(refused.value)

    def test_an_old_fence_is_refused_even_with_an_old_number(self) -> None:
        with pytest.raises(LeaseLost):
            transitions.commit(RUNNING, Commit(1, (STEP,)), fence=RUNNING.fence - 1, now=NOW)

    @pytest.mark.parametrize("before", ENDS, ids=str)
    def test_an_ended_run_refuses_everything(self, before: Lifecycle) -> None:
        causes: list[Cause] = [claim("due"), claim("lost"), claim("expired"), pause, resume(), time_out("deadline")]
        for cause in causes:
            with pytest.raises(RunEnded) as refused:
                cause(before)
            assert refused.value.code == "run.ended"

    @pytest.mark.parametrize("before", ENDS, ids=str)
    def test_the_cancel_of_an_ended_run_says_so(self, before: Lifecycle) -> None:
        assert transitions.cancel(before, by="ann", reason=None, has_hook=True, now=NOW) == (None, "already_ended")

    @pytest.mark.parametrize("before", [NEW, QUEUED, WAITING, RUNNING], ids=str)
    def test_a_run_that_is_not_held_is_not_resumed(self, before: Lifecycle) -> None:
        with pytest.raises(Conflict) as refused:
            resume()(before)
        assert refused.value.code == "run.not_held"

    def test_a_pause_that_has_not_taken_effect_leaves_nothing_to_decide(self) -> None:
        with pytest.raises(Conflict) as refused:
            resume("done")(PAUSING)
        assert refused.value.code == "run.not_held"

    @pytest.mark.parametrize("before", [NEW, QUEUED, RUNNING, WAITING, PAUSED, *ENDS], ids=str)
    def test_only_a_dead_run_is_discarded(self, before: Lifecycle) -> None:
        with pytest.raises(Conflict) as refused:
            discard(before)
        assert refused.value.code == "run.not_dead"

    @pytest.mark.parametrize(("before", "verdict"), [(IN_DOUBT, None), (PAUSED, "done"), (DIVERGED, "rerun")], ids=str)
    def test_a_verdict_belongs_to_a_doubt_and_to_nothing_else(self, before: Lifecycle, verdict: str | None) -> None:
        with pytest.raises(Conflict) as refused:
            resume(verdict)(before)
        assert refused.value.code == "run.verdict"
        assert ("--as done RESULT" in str(refused.value.hint)) == (verdict is None)


class TestOverdue:
    @pytest.mark.parametrize(
        ("life", "limit"),
        [
            (QUEUED, None),
            (QUEUED._replace(leased=60), "timeout"),
            (WAITING._replace(leased=61), "timeout"),
            (PAUSED._replace(leased=60), "timeout"),
            (RUNNING._replace(leased=60), None),
            (ENDS[0]._replace(leased=60), None),
        ],
        ids=str,
    )
    def test_leased_time_bounds_what_nobody_executes(self, life: Lifecycle, limit: str | None) -> None:
        assert transitions.overdue(life, timeout=60, deadline=None, now=NOW) == limit

    @pytest.mark.parametrize("life", [NEW, QUEUED, WAITING, RUNNING, PAUSED, DIVERGED, IN_DOUBT], ids=str)
    def test_a_deadline_bounds_every_run_that_has_not_ended(self, life: Lifecycle) -> None:
        assert transitions.overdue(life, timeout=60, deadline=NOW, now=NOW - 1) is None
        assert transitions.overdue(life, timeout=60, deadline=NOW, now=NOW) == "deadline"

    @pytest.mark.parametrize("life", ENDS, ids=str)
    def test_an_ended_run_is_never_overdue(self, life: Lifecycle) -> None:
        assert transitions.overdue(life, timeout=60, deadline=NOW - 1, now=NOW) is None


class TestNumber:
    def test_facts_get_the_numbers_that_follow(self) -> None:
        drafts = (Draft("custom.a", '{"n":1}', step="0/1", node="x"), Draft("custom.b"))
        life, entries = transitions.number(RUNNING, Change(RUNNING._replace(commit_no=4), drafts), NOW)
        assert entries == [(7, NOW, "custom.a", "0/1", "x", '{"n":1}'), (8, NOW, "custom.b", None, None, "{}")]
        assert life == RUNNING._replace(commit_no=4, seq=8, updated_at=NOW)

    def test_a_change_without_facts_moves_the_time_alone(self) -> None:
        life, entries = transitions.number(RUNNING, Change(RUNNING._replace(pausing=1), ()), NOW)
        assert entries == []
        assert life == PAUSING._replace(updated_at=NOW)
