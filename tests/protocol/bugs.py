"""Transitions with one bug each, made of the real ones. The checker must find every one.

A bug replaces one public function of `stepwell.domain.transitions`, or one of its limits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple

from stepwell.domain import event, transitions
from stepwell.domain.commit import Commit
from stepwell.domain.errors import Conflict
from stepwell.domain.event import Draft, Entry
from stepwell.domain.outcome import HandedBack, Outcome, Parked, Retrying
from stepwell.domain.run import CANCELLED, DIVERGED, QUEUED, RUNNING, WAITING, Lifecycle, RunRecord
from stepwell.domain.transitions import CancelAnswer, Change, ClaimCause
from stepwell.domain.wait import Signal, Wait

_claim, _commit, _settle, _refusal = transitions.claim, transitions.commit, transitions.settle, transitions.refusal
_cancel, _pause, _resume, _time_out = transitions.cancel, transitions.pause, transitions.resume, transitions.time_out
_received, _child_ended, _number = transitions.received, transitions.child_ended, transitions.number


def _life(change: Change, **changes: Any) -> Change:
    return Change(change.life._replace(**changes), change.drafts)


# ---------------------------------------------------------------- fences


def checks_no_fence(life: Lifecycle, fence: int) -> str | None:
    """Whoever writes is taken for the holder."""
    return None if life.status == RUNNING else _refusal(life, fence)


def checks_no_status(life: Lifecycle, fence: int) -> str | None:
    """Whoever gave his lease back may write on, until the next claim."""
    return None if life.fence == fence and not life.ended else _refusal(life, fence)


def takes_an_older_fence(life: Lifecycle, fence: int) -> str | None:
    """The fence before the current one is good enough."""
    return None if life.status == RUNNING and fence >= life.fence - 1 else _refusal(life, fence)


def ends_without_a_fence(life: Lifecycle, **asked: Any) -> tuple[Change | None, CancelAnswer]:
    """A cancel that ends the run at once leaves the fence."""
    change, answer = _cancel(life, **asked)
    return (change and _life(change, fence=life.fence)), answer


def times_out_without_a_fence(life: Lifecycle, limit: str, now: int) -> Change:
    """A run that is ended for its limit while a worker holds it keeps the fence."""
    return _life(_time_out(life, limit, now), fence=life.fence)


def claims_without_a_fence(life: Lifecycle, *, worker: str, cause: ClaimCause, now: int) -> Change:
    """The claim of a run that was lost leaves the fence."""
    change = _claim(life, worker=worker, cause=cause, now=now)
    return change if cause == "due" else _life(change, fence=life.fence)


# ---------------------------------------------------------------- writes


def applies_twice(life: Lifecycle, write: Commit, *, fence: int, **more: Any) -> Change:
    """A write that had landed is not recognised."""
    number = max(write.number, life.commit_no + 1)
    return _commit(life, write._replace(number=number), fence=fence, **more)


def recognises_numbers_alone(life: Lifecycle, write: Commit, *, fence: int, **more: Any) -> Change:
    """A write with a number that was used is taken for one that had landed, whoever sends it."""
    return Change(life, ()) if write.number <= life.commit_no else _commit(life, write, fence=fence, **more)


def forgets_its_number(life: Lifecycle, write: Commit, *, fence: int, **more: Any) -> Change:
    """The last write, which gives the lease back, is not remembered."""
    change = _commit(life, write, fence=fence, **more)
    return change if write.outcome is None or change.life is life else _life(change, commit_no=life.commit_no)


def sleeps_over_what_came(life: Lifecycle, write: Commit, *, fence: int, **more: Any) -> Change:
    """Parks without a look at the number that the attempt had read up to."""
    if isinstance(write.outcome, Parked):
        write = write._replace(outcome=replace(write.outcome, at_seq=None))
    return _commit(life, write, fence=fence, **more)


def tells_nothing_of_the_end(life: Lifecycle, write: Commit, *, fence: int, **more: Any) -> Change:
    """The event of an outcome is left for another write."""
    change = _commit(life, write, fence=fence, **more)
    return Change(change.life, change.drafts[: len(write.drafts)])


def writes_in_two_parts(life: Lifecycle, write: Commit, *, fence: int, **more: Any) -> Change:
    """The facts are written first, and the run in a write of its own."""
    change = _commit(life, write, fence=fence, **more)
    return Change(life, write.drafts) if write.drafts and change.life is not life else change


# ---------------------------------------------------------------- counters


def counts_an_expiry_as_an_attempt(life: Lifecycle, *, worker: str, cause: ClaimCause, now: int) -> Change:
    """A lease that ran out makes a new attempt."""
    change = _claim(life, worker=worker, cause=cause, now=now)
    return _life(change, attempt=change.life.attempt + (cause == "expired"))


def blames_without_proof(life: Lifecycle, *, worker: str, cause: ClaimCause, now: int) -> Change:
    """A lease that ran out is taken for the death of a worker."""
    return _claim(life, worker=worker, cause="lost" if cause == "expired" else cause, now=now)


def counts_attempts_at_their_end(life: Lifecycle, *, worker: str, cause: ClaimCause, now: int) -> Change:
    """An attempt whose worker died has never been one."""
    change = _claim(life, worker=worker, cause=cause, now=now)
    return _life(change, attempt=life.attempt) if cause == "lost" else change


def never_forgives_losses(life: Lifecycle, write: Commit, *, fence: int, **more: Any) -> Change:
    """Progress does not put the losses in a row back to none."""
    change = _commit(life, write, fence=fence, **more)
    return change if change.life is life else _life(change, losses=life.losses)


def counts_no_errors(life: Lifecycle, write: Commit, *, fence: int, **more: Any) -> Change:
    """An attempt that ended in an error is not counted."""
    return _life(_commit(life, write, fence=fence, **more), errors=life.errors)


def charges_nothing(life: Lifecycle, *, worker: str, cause: ClaimCause, now: int) -> Change:
    """A lost lease costs no time."""
    return _claim(life._replace(held=0), worker=worker, cause=cause, now=now)


# ---------------------------------------------------------------- arrivals


def wakes_nobody(life: Lifecycle, signal: Signal, **more: Any) -> Change:
    """A signal closes its wait, and the run sleeps on."""
    return _life(_received(life, signal, **more), available_at=life.available_at)


def ignores_signals_while_leased(life: Lifecycle, signal: Signal, **more: Any) -> Change:
    """Who has a holder hears nothing."""
    return Change(life, ()) if life.status == RUNNING else _received(life, signal, **more)


def leaves_the_held_asleep(life: Lifecycle, signal: Signal, **more: Any) -> Change:
    """What comes while a run is held is forgotten when it is resumed."""
    change = _received(life, signal, **more)
    return _life(change, available_at=life.available_at) if life.hold else change


def wakes_for_anything(
    life: Lifecycle, signal: Signal, *, now: int, wait: Wait | None = None, wakes: bool = True
) -> Change:
    """A signal that nobody waits for wakes the run."""
    return _life(_received(life, signal, now=now, wait=wait, wakes=wakes), available_at=now)


def wakes_no_parent(life: Lifecycle, child: RunRecord, end: Draft, *, now: int, wakes: bool) -> Change | None:
    """A parent learns the end of its child, and sleeps on."""
    return _child_ended(life, child, end, now=now, wakes=False)


# ---------------------------------------------------------------- requests


def cancels_what_sleeps_for_later(life: Lifecycle, **asked: Any) -> tuple[Change | None, CancelAnswer]:
    """A parked run is marked as cancelled, and stays where it is."""
    if life.status != WAITING:
        return _cancel(life, **asked)
    told = Draft(event.RUN_CANCELLING, '{"by":"ann","reason":null}')
    return Change(life._replace(cancelling=1), (told,)), "cancelling"


def cancels_what_has_ended(life: Lifecycle, **asked: Any) -> tuple[Change | None, CancelAnswer]:
    """A cancel that comes too late wins."""
    if not life.ended:
        return _cancel(life, **asked)
    told = Draft(event.RUN_CANCELLED, '{"by":"ann","reason":null}')
    return Change(life._replace(status=CANCELLED), (told,)), "cancelled"


def cleans_up_again(life: Lifecycle, *, worker: str, cause: ClaimCause, now: int) -> Change:
    """A clean-up whose worker was lost runs once more."""
    return _claim(life, worker=worker, cause="due" if life.cancelling else cause, now=now)


def forgets_a_cancel(life: Lifecycle, outcome: Outcome, now: int, **more: Any) -> Change:
    """A cancelled run that is handed back is queued as if nothing had been asked."""
    if isinstance(outcome, HandedBack):
        life = life._replace(cancelling=0)
    return _settle(life, outcome, now, **more)


def forgets_a_pause(life: Lifecycle, *, worker: str, cause: ClaimCause, now: int) -> Change:
    """A pause that was asked for is gone with the worker."""
    return _claim(life._replace(pausing=0), worker=worker, cause=cause, now=now)


def overtakes_a_pause(life: Lifecycle, outcome: Outcome, now: int, **more: Any) -> Change:
    """An error that is tried again is stronger than a pause that was asked for."""
    if isinstance(outcome, Retrying):
        life = life._replace(pausing=0)
    return _settle(life, outcome, now, **more)


def pauses_the_cancelled(life: Lifecycle, *, by: str, now: int) -> Change | None:
    """A run that is being cancelled can be paused."""
    if life.cancelling and life.status == QUEUED:
        return _life(_pause(life._replace(cancelling=0), by=by, now=now) or Change(life, ()), cancelling=1)
    return _pause(life, by=by, now=now)


def resumes_for_good(life: Lifecycle, **asked: Any) -> Change:
    """A run that waited is queued at its old time, and no arrival will make it due."""
    change = _resume(life, **asked)
    return _life(change, status=QUEUED) if life.hold else change


def keeps_the_diverged(life: Lifecycle, **asked: Any) -> Change:
    """A run that diverged can be resumed by nobody."""
    if life.hold == DIVERGED:
        raise Conflict("it is held for good")
    return _resume(life, **asked)


def skips_a_number(before: Lifecycle, change: Change, now: int) -> tuple[Lifecycle, Sequence[Entry]]:
    """The number of an event is drawn, and lost."""
    life, entries = _number(before, change, now)
    return life.stamped(life.seq + (len(entries) > 1), now), entries


class Bug(NamedTuple):
    """What is replaced, and in which world by which promise the bug is found."""

    target: str
    replacement: Callable[..., Any] | int
    promise: str
    world: str = "claims"


BUGS: Final = {
    "no fence check": Bug("refusal", checks_no_fence, "P3"),
    "the fence before is good enough": Bug("refusal", takes_an_older_fence, "P3"),
    "a commit after the park is accepted": Bug("refusal", checks_no_status, "P3"),
    "no fence at a forced end": Bug("cancel", ends_without_a_fence, "fence goes from"),
    "a running run times out without a fence": Bug(
        "time_out", times_out_without_a_fence, "fence goes from", "limits and holds"
    ),
    "no fence at a claim": Bug("claim", claims_without_a_fence, "fence goes from"),
    "a repeated commit is applied twice": Bug("commit", applies_twice, "P2"),
    "a repeated commit is known by its number alone": Bug("commit", recognises_numbers_alone, "P3"),
    "the last commit of a lease is not remembered": Bug(
        "commit", forgets_its_number, "P2: a write that landed is remembered"
    ),
    "a park ignores what was read": Bug("commit", sleeps_over_what_came, "P10", "waits"),
    "an end without its event": Bug("commit", tells_nothing_of_the_end, "P5: one end"),
    "facts and run in two transactions": Bug("commit", writes_in_two_parts, "P"),
    "an attempt is counted at its end": Bug("claim", counts_attempts_at_their_end, "attempt goes from"),
    "a signal is ignored while leased": Bug("received", ignores_signals_while_leased, "P10", "waits"),
    "an expiry counts as an attempt": Bug("claim", counts_an_expiry_as_an_attempt, "attempt"),
    "an expiry is taken for a death": Bug("claim", blames_without_proof, "a claim (expired)"),
    "losses are never forgiven": Bug("commit", never_forgives_losses, "losses goes from"),
    "errors are not counted": Bug("commit", counts_no_errors, "errors goes from"),
    "dead after two losses": Bug("MAX_CONSECUTIVE_LOSSES", 2, "a claim (lost)"),
    "never dead of expiries": Bug("MAX_LOSSES_AND_EXPIRIES", 10_000, "a claim (expired)"),
    "a lost lease costs nothing": Bug("claim", charges_nothing, "costs what was told", "limits and holds"),
    "an arrival does not make due": Bug("received", wakes_nobody, "P10", "waits"),
    "an arrival at a held run is forgotten": Bug(
        "received", leaves_the_held_asleep, "P10: no wake-up is lost", "waits"
    ),
    "any signal wakes": Bug("received", wakes_for_anything, "wakes nobody", "waits"),
    "the end of a child wakes nobody": Bug("child_ended", wakes_no_parent, "P10", "families"),
    "a cancelled run sleeps on": Bug("cancel", cancels_what_sleeps_for_later, "cancel"),
    "a late cancel overwrites the end": Bug("cancel", cancels_what_has_ended, "P5"),
    "a clean-up runs again": Bug("claim", cleans_up_again, "a cancelled run whose worker is lost"),
    "a cancel is forgotten at hand-back": Bug("settle", forgets_a_cancel, "a cancelling run"),
    "a pause is lost with the worker": Bug("claim", forgets_a_pause, "it is paused then"),
    "a pause is lost at a retry": Bug("settle", overtakes_a_pause, "Retrying"),
    "a cancelled run is paused": Bug("pause", pauses_the_cancelled, "P10"),
    "a resumed run forgets that it waits": Bug("resume", resumes_for_good, "waits if it did"),
    "a diverged run is held for good": Bug("resume", keeps_the_diverged, "Conflict", "limits and holds"),
    "an event number is lost": Bug("number", skips_a_number, "P6"),
}
