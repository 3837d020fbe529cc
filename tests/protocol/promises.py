"""What must be true of every run, and of every change: written from the design's words, not from the transitions.

Each function raises `Broken` with the promise that does not hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeAlias

from stepwell.domain import event
from stepwell.domain.event import Entry
from stepwell.domain.outcome import (
    NEVER,
    Cancelled,
    Exhausted,
    Failed,
    HandedBack,
    Held,
    Outcome,
    Parked,
    Retrying,
    Succeeded,
    TimedOut,
)
from stepwell.domain.run import CLEANING_UP, ENDED, HOLDS, Lifecycle
from stepwell.domain.transitions import PAUSED_ON_REQUEST
from tests.protocol.core import NOW, Bounds, Core
from tests.protocol.explorer import Broken

_COUNTERS: Final = ("attempt", "errors", "lost", "losses", "expiries")
_TELLS: Final = {
    "run.started": "running",
    "run.resumed": "running",
    "run.handed_back": "queued",
    "run.retrying": "queued",
    "run.waiting": "waiting",
    "run.cancelling": "queued",
    "run.succeeded": "succeeded",
    "run.failed": "failed",
    "run.cancelled": "cancelled",
    "run.timed_out": "timed_out",
    "run.exhausted": "exhausted",
}
_ENDS_BY: Final[dict[type, str]] = {
    Succeeded: "succeeded",
    Failed: "failed",
    TimedOut: "timed_out",
    Exhausted: "exhausted",
    Cancelled: "cancelled",
}
_Shown: TypeAlias = tuple[int, tuple[str, str | None]]
_CANCELLED: Final[_Shown] = 0, ("cancelled", None)
_TO_CLEAN_UP: Final[_Shown] = 0, ("queued", None)


def expect(holds: bool, promise: str) -> None:
    """Raise the promise unless it holds."""
    if not holds:
        raise Broken(promise)


# ---------------------------------------------------------------- a run as it stands


def check_run(core: Core) -> None:
    """What is true of a run at any time."""
    life = core.life
    expect((life.status == "running") == (life.worker is not None), "P8: a run is running just when a worker holds it")
    expect((life.status in ENDED) == life.ended, "P5: a run has ended just when its status is an end")
    if life.ended:
        expect(not (life.hold or life.cancelling or life.pausing), "P5: nothing is open of a run that has ended")
        expect(not core.waits, "P5: a run that has ended waits for nothing")
        expect(not life.dead or life.status == "failed", "P5: dead runs have failed")
        return
    expect(not life.dead, "P5: only a run that has ended is dead")
    expect(not life.hold or (life.hold in HOLDS and life.status != "running"), "P10: a held run is held by nobody else")
    expect(not life.pausing or life.status == "running", "P10: a pause that was asked for waits for the holder only")
    expect(not (life.pausing and life.cancelling), "P10: a cancel wins over a pause")
    if life.cancelling:
        expect(life.status in ("running", "queued"), "P10: a cancelled run waits for nothing but its clean-up")
        expect(life.status == "running" or is_due(life), "P10: a clean-up can be claimed at once")
        expect(life.status == "running" or core.hooked, "P10: a cancel without a clean-up ends at once")
        expect(life.attempt > 0, "P10: a run that never started has nothing to clean up")
    asleep = life.status in ("queued", "waiting") and not life.hold and life.available_at >= NEVER
    expect(not asleep or (life.status == "waiting" and bool(core.waits)), "P10: a run that sleeps waits for something")
    if life.status == "waiting" and core.unread:
        expect(life.available_at <= NOW, "P10: no wake-up is lost: what came makes the run due")
    if life.attempt and not life.cancelling and not core.fresh:
        expect(life.attempt == 1 + life.errors + life.lost, "attempts: one per error and per proven loss")


def is_due(life: Lifecycle) -> bool:
    """Whether a claim finds the run."""
    return life.status in ("queued", "waiting") and life.hold is None and life.available_at <= NOW


# ---------------------------------------------------------------- every change


def check_change(before: Lifecycle, after: Lifecycle, entries: Sequence[Entry]) -> None:
    """What is true of every change, whatever caused it."""
    numbers = [entry.seq for entry in entries]
    expect(numbers == list(range(before.seq + 1, after.seq + 1)), "P6: events are numbered 1..n without a gap")
    if before.ended:
        expect(
            after._replace(dead=0) == before._replace(dead=0, updated_at=after.updated_at, seq=after.seq),
            "P5: a run that has ended stays as it is",
        )
    kinds = [entry.kind for entry in entries]
    ends = [kind for kind in kinds if kind in event.ENDS]
    expect(len(ends) == (after.ended and not before.ended), "P5: one end, told once, with the status")
    expect(not ends or kinds[-1] == ends[0], "P6: the end is the last that is told")
    expect(after.fence >= before.fence, "P3: the fence never falls")
    _check_told(before, after, kinds)


def _check_told(before: Lifecycle, after: Lifecycle, kinds: Sequence[str]) -> None:
    """A status and what tells it are written together."""
    if after.hold != before.hold and not after.ended and not after.cancelling:
        tells = event.RUN_HELD if after.hold else event.RUN_RELEASED
        expect(tells in kinds, f"P6: {tells} and the hold commit together")
    if after.status != before.status and not after.hold:
        told = [_TELLS[kind] for kind in kinds if kind in _TELLS][-1:]
        expect(told == [after.status], f"P6: {after.status} and its event commit together")
    if after.cancelling and not before.cancelling:
        expect(event.RUN_CANCELLING in kinds, "P6: a cancel that was asked for is told")
    if before.cancelling and not after.cancelling:
        expect(after.ended, "P5: a cancel that was asked for is never forgotten")
        expect(
            after.status in ("cancelled", "succeeded", "timed_out"),
            "a cancelled run ends cancelled, done or out of time",
        )
    if before.pausing and not after.pausing:
        carried_out = bool(after.hold) or after.ended or bool(after.cancelling)
        expect(carried_out or (after.status == "running" and not kinds), "a pause that was asked for takes effect")


# ---------------------------------------------------------------- counters


def check_counters(before: Lifecycle, after: Lifecycle, what: str, **grown: int) -> None:
    """The fence and the counters grew by just so much; `losses=-1` puts them back to none."""
    for name in (*_COUNTERS, "fence"):
        was, by = getattr(before, name), grown.get(name, 0)
        expected = 0 if by < 0 else was + by
        expect(
            getattr(after, name) == expected,
            f"{what}: {name} goes from {was} to {getattr(after, name)}, not {expected}",
        )


def check_claim(core: Core, after: Lifecycle, cause: str, bounds: Bounds) -> None:
    """Which counters a claim raises, and what comes of it."""
    before, what = core.life, f"a claim ({cause})"
    if cause != "due":
        expect(
            (after.leased, after.held) == (before.leased + before.held, 0), f"{what}: a lost lease costs what was told"
        )
    if cause != "due" and before.cancelling:
        check_counters(before, after, what, fence=1)
        expect(after.status == "cancelled", f"{what}: a cancelled run whose worker is lost is cancelled")
        return
    counted = {"lost": {"lost": 1, "losses": 1}, "expired": {"expiries": 1}, "due": {}}[cause]
    lost, expiries = before.lost + counted.get("lost", 0), before.expiries + counted.get("expiries", 0)
    in_a_row = before.losses + counted.get("losses", 0)
    over = lost + expiries >= bounds.lost or (cause == "lost" and in_a_row >= bounds.in_a_row)
    if cause != "due" and (over or before.pausing):
        check_counters(before, after, what, fence=1, **counted)
        shown = ("failed", None, 1) if over else ("queued", "paused", 0)
        expect((after.status, after.hold, after.dead) == shown, f"{what}: it is {'dead' if over else 'paused'} then")
        return
    starts = not before.cancelling and (core.fresh or cause == "lost")
    check_counters(before, after, what, fence=1, attempt=int(starts), **counted)
    expect(after.status == "running", f"{what}: the run goes on")
    expect(
        (after.cancelling, after.commit_no) == (CLEANING_UP if before.cancelling else 0, 0),
        f"{what}: the lease begins with nothing written",
    )
    expect(not (before.cancelling and core.cleaning), f"{what}: the clean-up runs at most once")


def check_outcome(core: Core, after: Lifecycle, outcome: Outcome, *, overslept: bool) -> None:
    """What an outcome that is accepted makes of the run. `overslept`: something was written since the last look."""
    before = core.life
    if before.cancelling and not isinstance(outcome, (Succeeded, Cancelled)):
        had_not_heard = before.cancelling != CLEANING_UP and not isinstance(outcome, (TimedOut, Exhausted))
        to_clean_up = core.hooked and (had_not_heard or isinstance(outcome, HandedBack))
        counted, shown = _TO_CLEAN_UP if to_clean_up else _CANCELLED
        expect(after.ended or is_due(after), "P10: a clean-up can be claimed at once")
    else:
        counted, shown = _shown_after(before, outcome)
    what = f"{type(outcome).__name__} of a {'cancelling ' if before.cancelling else ''}run"
    check_counters(before, after, what, losses=-1, errors=counted)
    expect((after.status, after.hold) == shown, f"{what}: it is {after.status}, {after.hold}, not {shown}")
    expect(after.leased >= before.leased + before.held, f"{what}: leased time is never given back")
    if isinstance(outcome, Parked) and after.status == "waiting":
        at = min(outcome.wake_at, NOW) if overslept else outcome.wake_at
        expect(
            after.available_at == at,
            "P10: a run that parks behind its last event is due at once, any other at its time",
        )


def _shown_after(before: Lifecycle, outcome: Outcome) -> _Shown:
    """Whether an error is counted, and the status and hold that follow."""
    pause = "paused" if before.pausing else None
    match outcome:
        case Retrying():
            return 1, ("queued", pause)
        case Parked():
            return 0, ("waiting", pause)
        case HandedBack():
            return 0, ("queued", pause)
        case Held(why, _, _):
            return 0, ("queued", pause if outcome == PAUSED_ON_REQUEST else why)
    return int(isinstance(outcome, Failed)), (_ENDS_BY[type(outcome)], None)
