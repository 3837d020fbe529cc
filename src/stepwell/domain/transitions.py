"""What may happen to a run: pure functions from what is stored and a cause to what is stored next and the facts that
say so.

Both stores call these inside the transaction that holds the run's row, so the rules exist once. A `Change` is the new
lifecycle and its events, in order; `number` gives the events their sequence numbers. The table in the design's
appendix B is the test.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final, Literal, NamedTuple, TypeAlias

from stepwell.domain import event
from stepwell.domain.commit import Commit
from stepwell.domain.due import made_up
from stepwell.domain.errors import Conflict, LeaseLost, RunEnded
from stepwell.domain.event import Draft, Entry
from stepwell.domain.outcome import (
    Cancelled,
    ErrorInfo,
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
from stepwell.domain.run import (
    CANCELLED,
    CLEANING_UP,
    ENDED,
    EXHAUSTED,
    FAILED,
    IN_DOUBT,
    MAX_CONSECUTIVE_LOSSES,
    MAX_LOSSES_AND_EXPIRIES,
    PAUSED,
    QUEUED,
    RUNNING,
    SUCCEEDED,
    TIMED_OUT,
    WAITING,
    Lifecycle,
    RunRecord,
)
from stepwell.domain.values import dumps
from stepwell.domain.wait import ANSWERED, RECEIVED, Signal, Wait
from stepwell.domain.wait import TIMED_OUT as TIMED_OUT_WAIT

ClaimCause: TypeAlias = Literal["due", "lost", "expired"]
CancelAnswer: TypeAlias = Literal["cancelled", "cancelling", "already_ended"]

RUN_TIMEOUT: Final = "timeout"
DEADLINE: Final = "deadline"

PAUSED_ON_REQUEST: Final = Held(PAUSED, by="pause")
"""How an attempt stops because a pause was asked for. If that was taken back meanwhile, the run is handed back."""


_LETS_GO: Final = (Parked, Retrying, HandedBack, Held, Failed)
"""The outcomes that a cancel undoes. Who passed a limit has no time left for a clean-up."""


class Change(NamedTuple):
    """The lifecycle after a transition (its `seq` not yet advanced) and the facts that tell it."""

    life: Lifecycle
    drafts: tuple[Draft, ...]


def number(before: Lifecycle, change: Change, now: int) -> tuple[Lifecycle, list[Entry]]:
    """Give the facts the numbers that follow the run's last one, and the lifecycle the number it ends with and its
    time.

    A change that changes nothing leaves the time as well.
    """
    if change.life is before and not change.drafts:
        return before, []
    seq = before.seq
    entries = []
    for kind, data, step, node in change.drafts:
        seq += 1
        entries.append(Entry(seq, now, kind, step, node, data))
    return change.life.stamped(seq, now), entries


# ---------------------------------------------------------------- into the queue


def queued(available_at: int, now: int) -> Lifecycle:
    """A run that was just submitted."""
    return Lifecycle(QUEUED, available_at, now, timed_at=now)


def submit(
    *,
    agent: str,
    version: str,
    trigger: str | None,
    input_field: str,
    priority: int,
    available_at: int,
    now: int,
    parent: str | None = None,
    retry_of: str | None = None,
    inherited: tuple[Draft, ...] = (),
) -> Change:
    """A run enters the queue. `input_field` is one member of a JSON object: `Payload.field("input")`. What it inherits
    stands right behind its first fact.
    """
    data = f'{_door(agent, version, trigger)},{input_field},"priority":{priority},"available_at":{available_at}'
    if parent is not None:
        data += f',"parent":{_text(parent)}'
    if retry_of is not None:
        data += f',"retry_of":{_text(retry_of)}'
    return Change(queued(available_at, now), (Draft(event.RUN_QUEUED, data + "}"), *inherited))


@lru_cache(maxsize=256)
def _door(agent: str, version: str, trigger: str | None) -> str:
    """How the data of `run.queued` begins: the same for all runs that come in through one door."""
    return dumps({"agent": agent, "version": version} | ({} if trigger is None else {"trigger": trigger}))[:-1]


# ---------------------------------------------------------------- claims


def overdue(life: Lifecycle, *, timeout: int, deadline: int | None, now: int) -> str | None:
    """The limit that a run which nobody executes has passed, if any. A running one is its worker's to end until the
    deadline.
    """
    if life.ended:
        return None
    if deadline is not None and now >= deadline:
        return DEADLINE
    if life.status != RUNNING and life.leased >= timeout:
        return RUN_TIMEOUT
    return None


def claim(life: Lifecycle, *, worker: str, cause: ClaimCause, now: int) -> Change:
    """A worker takes the run, or the losses are too many and it ends here. Due, lost or expired is for the store to
    establish.
    """
    _refuse_ended(life)
    if cause == "due":
        return _start(life, worker, now, "woken" if life.status == WAITING else "queued")
    charged = _charge(life)
    if life.cancelling:
        data = '{"by":"worker lost","reason":null}'
        return _force_end(charged, now, CANCELLED, "worker lost", event.RUN_CANCELLED, data)
    if cause == "lost":
        return _claim_lost(charged, worker, now)
    return _claim_expired(charged, worker, now)


def _charge(life: Lifecycle) -> Lifecycle:
    """A lease that its holder cannot settle any more costs what he had told of it."""
    return life._replace(leased=life.leased + life.held, held=0)


def _claim_lost(life: Lifecycle, worker: str, now: int) -> Change:
    told = Draft(event.RUN_LOST, dumps({"attempt": life.attempt, "worker": life.worker, "losses": life.losses + 1}))
    lost = life._replace(lost=life.lost + 1, losses=life.losses + 1)
    if lost.losses >= MAX_CONSECUTIVE_LOSSES or _too_many(lost):
        return _dead(lost, now, told, f"its worker died {lost.losses} times in a row without progress")
    if lost.pausing:
        return Change(_take_away(lost), (told, _held_draft(PAUSED_ON_REQUEST)))
    started = _start(lost, worker, now, "lost")
    return Change(started.life, (told, *started.drafts))


def _claim_expired(life: Lifecycle, worker: str, now: int) -> Change:
    expired = life._replace(expiries=life.expiries + 1)
    if _too_many(expired):
        return _dead(expired, now, None, "its leases ran out again and again")
    if expired.pausing:
        return Change(_take_away(expired), (_held_draft(PAUSED_ON_REQUEST),))
    return _start(expired, worker, now, "lease_expired")


def _take_away(life: Lifecycle) -> Lifecycle:
    """A pause that was asked for takes effect when the worker is lost; the fence grows, since the lease was not given
    back.
    """
    return _set_aside(life, PAUSED)._replace(fence=life.fence + 1)


def _too_many(life: Lifecycle) -> bool:
    return life.lost + life.expiries >= MAX_LOSSES_AND_EXPIRIES


def _start(life: Lifecycle, worker: str, now: int, cause: str) -> Change:
    """An attempt starts, or the one that was interrupted goes on: attempts are one per error or proven loss."""
    attempt = life.attempt if life.cancelling else 1 + life.errors + life.lost
    running = life._replace(
        status=RUNNING,
        reason=None,
        cancelling=CLEANING_UP if life.cancelling else 0,
        worker=worker,
        fence=life.fence + 1,
        commit_no=0,
        claimed_at=now,
        attempt=attempt,
        held=0,
    )
    holder = f'"fence":{running.fence},"worker":{_text(worker)}'
    if attempt != life.attempt:
        draft = Draft(event.RUN_STARTED, f'{{"attempt":{attempt},{holder}}}')
    else:
        draft = Draft(event.RUN_RESUMED, f'{{{holder},"cause":{_text(cause)}}}')
    return Change(running, (draft,))


_text = lru_cache(maxsize=256)(dumps)


def _dead(life: Lifecycle, now: int, told: Draft | None, why: str) -> Change:
    error = ErrorInfo("run.lost", f"the run was given up: {why}")
    change = _force_end(life, now, FAILED, error.code, event.RUN_FAILED, f'{{"error":{error.text()},"dead":true}}')
    return Change(change.life._replace(dead=1), (*((told,) if told else ()), *change.drafts))


# ---------------------------------------------------------------- commits of the lease holder


def refusal(life: Lifecycle, fence: int) -> str | None:
    """Why a write with this fence must be refused, or nothing when it may pass."""
    if life.fence == fence and life.status == RUNNING:
        return None
    if life.ended:
        return f"the run has ended ({life.status})"
    if life.fence != fence:
        return f"the run was claimed again (fence {life.fence} after {fence})"
    return f"the lease was given back (the run is {life.shown})"


def commit(life: Lifecycle, write: Commit, *, fence: int, now: int, has_hook: bool = False) -> Change:
    """Apply one write of the lease holder; one that had landed changes nothing again, also when it gave the lease back.
    `has_hook` says whether the run's agent has a clean-up for cancels.

    Raises `LeaseLost` when the fence is not the current one or the lease was given back, and changes nothing then.
    """
    if life.fence == fence and write.number <= life.commit_no:
        return Change(life, ())  # it had landed, only its answer was lost
    why = refusal(life, fence)
    if why is not None:
        raise LeaseLost(f"a write with fence {fence} was refused: {why}", hint="nothing was written")
    if write.outcome is None:
        return Change(life._replace(commit_no=write.number, losses=0, held=write.leased), write.drafts)
    noted = life._replace(commit_no=write.number, losses=0, leased=life.leased + write.leased, held=0)
    change = settle(noted, write.outcome, now, has_hook=has_hook)
    return Change(change.life, write.drafts + change.drafts)


def settle(life: Lifecycle, outcome: Outcome, now: int, *, has_hook: bool = False) -> Change:
    """How an attempt stops. A cancel that was asked for wins over everything but a return; a pause over everything but
    an end.

    An attempt that lets go of its run before it heard of the cancel has not cleaned up (one that has says `Cancelled`):
    the run is due for that at once. Who claimed it for that has the last word, unless it hands the run back untouched.
    """
    if life.cancelling and not isinstance(outcome, (Succeeded, Cancelled)):
        if has_hook and isinstance(outcome, HandedBack if life.cancelling == CLEANING_UP else _LETS_GO):
            told = Draft(event.RUN_HANDED_BACK, dumps({"worker": life.worker}))
            return Change(_due(life, now, now)._replace(status=QUEUED, worker=None, cancelling=1), (told,))
        return _end(life, now, CANCELLED, "cancelled", event.RUN_CANCELLED, '{"by":"request","reason":null}')
    match outcome:
        case Succeeded(output):
            return _end(life, now, SUCCEEDED, None, event.RUN_SUCCEEDED, f"{{{output.field('output')}}}")
        case Failed(error, dead):
            data = f'{{"error":{error.text()},"dead":{"true" if dead else "false"}}}'
            change = _end(life, now, FAILED, error.code, event.RUN_FAILED, data)
            return Change(change.life._replace(dead=int(dead), errors=life.errors + 1), change.drafts)
        case Retrying(error, available_at):
            return _retry(_due(life, now, now), error, available_at)
        case Parked(wake_at, waits, at_seq):
            draft = Draft(event.RUN_WAITING, f'{{"waits":{waits}}}')
            unread = at_seq is not None and life.seq != at_seq
            return _release(_due(life, now if unread else wake_at, now)._replace(status=WAITING), draft)
        case HandedBack():
            return _hand_back(life, now)
        case Held(why, _, _):
            if outcome == PAUSED_ON_REQUEST and not life.pausing:
                return _hand_back(life, now)
            return Change(_set_aside(life, why), (_held_draft(outcome),))
        case TimedOut(limit):
            return _end(life, now, TIMED_OUT, limit, event.RUN_TIMED_OUT, dumps({"limit": limit}))
        case Exhausted(limit, data):
            return _end(life, now, EXHAUSTED, limit, event.RUN_EXHAUSTED, data)
        case Cancelled(by, reason):
            return _end(life, now, CANCELLED, reason, event.RUN_CANCELLED, dumps({"by": by, "reason": reason}))


def _hand_back(life: Lifecycle, now: int) -> Change:
    told = Draft(event.RUN_HANDED_BACK, dumps({"worker": life.worker}))
    return _release(_due_now(life, now)._replace(status=QUEUED), told)


def _retry(life: Lifecycle, error: ErrorInfo, available_at: int) -> Change:
    told = Draft(
        event.RUN_RETRYING, f'{{"attempt":{life.attempt},"error":{error.text()},"available_at":{available_at}}}'
    )
    failed = life._replace(status=QUEUED, reason=error.code, available_at=available_at, errors=life.errors + 1)
    return _release(failed, told)


def _due(life: Lifecycle, at: int, now: int) -> Lifecycle:
    """The run is due at that moment, as is decided now."""
    return life._replace(available_at=at, timed_at=now, made_up=0)


def _due_now(life: Lifecycle, now: int) -> Lifecycle:
    """The run is due at once; one that is due already keeps its place."""
    return life if life.available_at + life.made_up <= now else _due(life, min(life.available_at, now), now)


def _release(life: Lifecycle, told: Draft) -> Change:
    if life.pausing:
        return Change(_set_aside(life, PAUSED), (told, _held_draft(PAUSED_ON_REQUEST)))
    return Change(life._replace(worker=None), (told,))


def _set_aside(life: Lifecycle, why: str) -> Lifecycle:
    status = WAITING if life.status == WAITING else QUEUED
    return life._replace(status=status, hold=why, worker=None, pausing=0)


def _held_draft(held: Held) -> Draft:
    rest = f",{held.detail[1:]}" if held.detail != "{}" else "}"
    return Draft(event.RUN_HELD, f"{dumps({'why': held.why, 'by': held.by})[:-1]}{rest}")


def _end(life: Lifecycle, now: int, status: str, reason: str | None, kind: str, data: str) -> Change:
    ended = life._replace(status=status, reason=reason, hold=None, worker=None, cancelling=0, pausing=0, ended_at=now)
    return Change(ended, (Draft(kind, data),))


def _force_end(life: Lifecycle, now: int, status: str, reason: str | None, kind: str, data: str) -> Change:
    """An end that is not the lease holder's: the fence grows, so that whoever still believes to hold the run learns
    it.
    """
    return _end(life._replace(fence=life.fence + 1), now, status, reason, kind, data)


# ---------------------------------------------------------------- waits and what arrives for them


def opened(waits: Sequence[Wait]) -> tuple[Draft, ...]:
    """The facts that tell of new waits."""
    return tuple(Draft(event.WAIT_OPENED, wait.data, wait.step) for wait in waits if wait.data)


def received(life: Lifecycle, signal: Signal, *, now: int, wait: Wait | None = None, wakes: bool = True) -> Change:
    """A signal arrives, and closes the wait that it is for, if there is one.

    `wakes` says that nothing else is open that this wait is joined with. A run that is held keeps what arrives, and is
    due once it is resumed.
    """
    _refuse_ended(life)
    data = dumps({"signal": signal.id, "name": signal.name} | ({} if signal.by is None else {"by": signal.by}))
    told = Draft(event.SIGNAL_RECEIVED, f"{data[:-1]},{signal.value.field('value')}}}")
    if wait is None:
        return Change(life, (told,))
    return Change(_wake(life, wakes, now), (told, taken(wait, signal.id)))


def taken(wait: Wait, signal_id: str) -> Draft:
    """The fact that a wait was closed by a signal, whose value stands in its own `signal.received`."""
    return Draft(event.WAIT_CLOSED, dumps({"wait": wait.id, "outcome": RECEIVED, "signal": signal_id}), wait.step)


def answered(life: Lifecycle, wait: Wait, value: Payload, *, by: str, now: int, wakes: bool = True) -> Change:
    """A person answers a question."""
    _refuse_ended(life)
    data = dumps({"wait": wait.id, "outcome": ANSWERED, "by": by})
    told = Draft(event.WAIT_CLOSED, f"{data[:-1]},{value.field('value')}}}", wait.step)
    return Change(_wake(life, wakes, now), (told,))


def expired(wait: Wait) -> Draft:
    """The fact that nothing came for a wait in its time."""
    return Draft(event.WAIT_CLOSED, dumps({"wait": wait.id, "outcome": TIMED_OUT_WAIT}), wait.step)


def child_ended(life: Lifecycle, child: RunRecord, end: Draft, *, now: int, wakes: bool) -> Change | None:
    """A child has ended with this fact; its parent learns it, unless it has ended itself.

    `wakes` says that the parent waits for this child, and for no other that is joined with it.
    """
    if life.ended:
        return None
    return Change(_wake(life, wakes, now), (end_of_child(child, end.data),))


def end_of_child(child: RunRecord, data: str) -> Draft:
    """How the end of a child is told to its parent; `data` is that of its own last fact."""
    told = dumps({"child": child.id, "status": child.life.status})
    return Draft(event.CHILD_ENDED, told[:-1] + ("}" if data == "{}" else f",{data[1:]}"), child.parent_step)


def _wake(life: Lifecycle, wakes: bool, now: int) -> Lifecycle:
    """A waiting run is due at once; any other finds what arrived in its journal when it looks."""
    return _due_now(life, now) if wakes and life.status == WAITING else life


# ---------------------------------------------------------------- requests from outside


def time_out(life: Lifecycle, limit: str, now: int) -> Change:
    """The run passed a limit: it ends, whoever held it, and is charged what its holder told of."""
    _refuse_ended(life)
    return _force_end(_charge(life), now, TIMED_OUT, limit, event.RUN_TIMED_OUT, dumps({"limit": limit}))


def cancel(
    life: Lifecycle, *, by: str, reason: str | None, has_hook: bool, now: int
) -> tuple[Change | None, CancelAnswer]:
    """Ask for an end. What nobody executes ends at once, unless it ever started and has a clean-up hook to run.

    A pause that was asked for before is void.
    """
    if life.ended:
        return None, "already_ended"
    told = Draft(event.RUN_CANCELLING, dumps({"by": by, "reason": reason}))
    if life.status == RUNNING:
        if life.cancelling:
            return None, "cancelling"
        return Change(life._replace(cancelling=1, pausing=0), (told,)), "cancelling"
    if has_hook and life.attempt:
        if life.cancelling:
            return None, "cancelling"
        asked = _due(life, now, now)._replace(status=QUEUED, hold=None, cancelling=1)
        return Change(asked, (told,)), "cancelling"
    data = dumps({"by": by, "reason": reason})
    return _force_end(life, now, CANCELLED, reason, event.RUN_CANCELLED, data), "cancelled"


def pause(life: Lifecycle, *, by: str, now: int) -> Change | None:
    """Set the run aside: at once when nobody executes it, else at its next step boundary.

    Nothing when it is aside already, or when a cancel was asked for, which wins.
    """
    _refuse_ended(life)
    if life.hold is not None or life.pausing or life.cancelling:
        return None
    if life.status == RUNNING:
        return Change(life._replace(pausing=1), ())
    return Change(_set_aside(life, PAUSED), (_held_draft(Held(PAUSED, by=by)),))


def resume(life: Lifecycle, *, by: str, drafts: tuple[Draft, ...], verdict: str | None, now: int) -> Change:
    """Lift the hold, with the facts that settle a doubt in front. The run is due at once; one that waits, or whose
    start was put off, is due at its time. A pause that was asked for and has not taken effect is void.
    """
    _refuse_ended(life)
    if life.pausing and verdict is None:
        return Change(life._replace(pausing=0), ())
    if life.hold is None:
        raise Conflict(f"the run is {life.shown}, not held", code="run.not_held", hint="only a held run can be resumed")
    if verdict is None and life.hold == IN_DOUBT:
        raise Conflict(
            f"the run is held as {life.hold} and needs a verdict",
            code="run.verdict",
            hint="find out whether the step had its effect, then say so: --as done RESULT, --as rerun or --as fail",
        )
    if verdict is not None and life.hold != IN_DOUBT:
        raise Conflict(
            f"the run is held as {life.hold}, and nothing is in doubt",
            code="run.verdict",
            hint="resume it without a verdict",
        )
    keeps_its_time = life.status == WAITING or not life.attempt
    released = life._replace(hold=None)
    due = made_up(released, now) or released if keeps_its_time else _due_now(released, now)
    data = {"by": by} | ({"verdict": verdict} if verdict else {})
    return Change(due, (*drafts, Draft(event.RUN_RELEASED, dumps(data))))


def discard(life: Lifecycle, *, by: str) -> Change:
    """Take a dead run off the list of the dead. It stays failed."""
    if not life.dead:
        raise Conflict(
            f"the run is {life.shown}, and not on the list of the dead",
            code="run.not_dead",
            hint="only a failed run whose attempts or losses are used up can be discarded",
        )
    return Change(life._replace(dead=0), (Draft(event.RUN_DISCARDED, dumps({"by": by})),))


def _refuse_ended(life: Lifecycle) -> None:
    if life.status in ENDED:
        raise RunEnded(f"the run has ended ({life.status}) and stays as it is", hint="start a new run")
