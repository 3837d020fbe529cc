"""Histories: what no sequence of causes can ever bring about."""

from hypothesis import given
from hypothesis import strategies as st

from stepwell.domain import transitions
from stepwell.domain.commit import Commit
from stepwell.domain.errors import Conflict, LeaseLost
from stepwell.domain.outcome import (
    NEVER,
    Cancelled,
    Exhausted,
    Failed,
    HandedBack,
    Held,
    Parked,
    Retrying,
    Succeeded,
    TimedOut,
)
from stepwell.domain.run import ENDED, Lifecycle
from stepwell.domain.transitions import PAUSED_ON_REQUEST
from tests.unit.domain.moves import (
    ENDS,
    ERROR,
    NEW,
    NOW,
    OUTPUT,
    STEP,
    Cause,
    answer,
    cancel,
    child_ends,
    claim,
    discard,
    pause,
    receive,
    resume,
    time_out,
    write,
)

OUTCOMES = st.one_of(
    st.builds(Succeeded, st.just(OUTPUT)),
    st.builds(Failed, st.just(ERROR), st.booleans()),
    st.builds(Retrying, st.just(ERROR), st.integers(0, 2_000)),
    st.builds(Parked, st.integers(0, 2_000) | st.just(NEVER), st.just("[]"), st.none() | st.integers(0, 9)),
    st.just(HandedBack()),
    st.builds(Held, st.sampled_from(["paused", "diverged", "in_doubt"]), st.just("x")),
    st.just(PAUSED_ON_REQUEST),
    st.builds(TimedOut, st.just("timeout")),
    st.builds(Exhausted, st.just("steps")),
    st.builds(Cancelled, st.just("ann")),
)
ARRIVALS: st.SearchStrategy[Cause] = st.builds(
    lambda arrive, wakes: arrive(wakes=wakes), st.sampled_from([receive, answer, child_ends]), st.booleans()
)
CAUSES: st.SearchStrategy[Cause] = st.one_of(
    st.builds(
        lambda outcome, drafts: write(outcome, *drafts), st.none() | OUTCOMES, st.lists(st.just(STEP), max_size=2)
    ),
    st.sampled_from([cancel(), cancel(has_hook=True), pause, time_out("deadline"), discard]),
    ARRIVALS,
    st.builds(resume, st.none() | st.sampled_from(["done", "rerun", "fail"])),
    st.builds(
        lambda fence, number: lambda life: transitions.commit(life, Commit(number, (STEP,)), fence=fence, now=NOW),
        st.integers(0, 5),
        st.integers(0, 5),
    ),
)


def happen(life: Lifecycle, cause: Cause) -> Lifecycle:
    """The run after the cause; as it was when the cause is refused, or when a claim could not have found the run."""
    try:
        change = cause(life)
    except (Conflict, LeaseLost):
        return life
    if change is None:
        return life
    after, entries = transitions.number(life, change, NOW)
    assert [entry.seq for entry in entries] == list(range(life.seq + 1, after.seq + 1))
    return after


def possible(life: Lifecycle, cause: Cause) -> bool:
    """Whether a store would offer the run to that kind of claim: one that waits as due, one that executes as lost."""
    if cause is DUE:
        return life.status in ("queued", "waiting") and life.hold is None
    return cause not in GONE or life.status == "running" or life.ended


DUE, *GONE = claim("due"), claim("lost"), claim("expired")
EVERY_CAUSE = st.lists(CAUSES | st.sampled_from([DUE, DUE, *GONE]), max_size=40)


@given(EVERY_CAUSE)
def test_no_sequence_changes_the_status_of_an_ended_run(causes: list[Cause]) -> None:
    for life in ENDS:
        for cause in causes:
            assert happen(life, cause) == life
    dead = ENDS[0]._replace(status="failed", dead=1)
    for cause in causes:
        after = happen(dead, cause)
        assert after._replace(dead=1, seq=dead.seq, updated_at=dead.updated_at) == dead


@given(EVERY_CAUSE)
def test_whatever_happens_a_run_stays_in_order(causes: list[Cause]) -> None:
    life = NEW
    for cause in causes:
        if not possible(life, cause):
            continue
        before, life = life, happen(life, cause)
        assert life.fence >= before.fence
        assert life.seq >= before.seq
        assert life.attempt >= before.attempt
        assert life.attempt <= 1 + life.errors + life.lost
        assert life.losses <= life.lost
        if before.ended:
            shown = before._replace(dead=0, seq=life.seq, updated_at=life.updated_at)  # the dead may be discarded
            assert life._replace(dead=0) == shown
            assert life.dead <= before.dead
        assert life.ended == (life.status in ENDED)
        assert (life.worker is not None) == (life.status == "running")
        assert life.hold is None or life.status in ("queued", "waiting")
        assert not life.dead or life.status == "failed"
        assert life.status in ("queued", "running") or not life.cancelling
        assert life.status == "running" or not life.pausing
        assert not (life.hold and life.cancelling)
        assert not (life.pausing and life.cancelling)
        assert life.held == 0 or life.status == "running"
        assert life.leased + life.held >= before.leased


@given(EVERY_CAUSE, ARRIVALS)
def test_whatever_happened_before_an_arrival_does_no_more_than_make_a_waiting_run_due(
    causes: list[Cause], arrive: Cause
) -> None:
    life = NEW
    for cause in causes:
        if possible(life, cause):
            life = happen(life, cause)
    after = happen(life, arrive)
    assert after._replace(seq=life.seq, updated_at=life.updated_at, available_at=life.available_at) == life
    assert after.available_at == life.available_at or (life.status == "waiting" and after.available_at == NOW)
    assert after.seq > life.seq or life.ended


@given(EVERY_CAUSE)
def test_a_run_that_is_to_end_never_begins_another_attempt(causes: list[Cause]) -> None:
    life = NEW
    for cause in causes:
        if possible(life, cause):
            before, life = life, happen(life, cause)
            assert not before.cancelling or life.attempt == before.attempt
            assert not before.cancelling or life.cancelling or life.ended


@given(EVERY_CAUSE)
def test_a_lease_that_was_lost_is_never_good_again(causes: list[Cause]) -> None:
    life = happen(NEW, DUE)
    fence, lost = life.fence, False
    for cause in causes:
        if possible(life, cause):
            life = happen(life, cause)
        good = transitions.refusal(life, fence) is None
        assert not (lost and good)
        lost = lost or not good
