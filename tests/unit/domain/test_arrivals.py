"""What arrives for a run: signals, answers and the ends of children, whatever the run is at."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepwell.domain import transitions
from stepwell.domain.errors import RunEnded
from stepwell.domain.event import Draft
from stepwell.domain.outcome import NEVER, Parked, Payload
from stepwell.domain.run import Lifecycle
from stepwell.domain.transitions import PAUSED_ON_REQUEST
from stepwell.domain.values import loads
from stepwell.domain.wait import Wait
from tests.unit.domain.moves import (
    BACKING_OFF,
    CANCELLING,
    CHILD,
    DIVERGED,
    ENDS,
    IN_DOUBT,
    NEW,
    NOW,
    PAUSED,
    PAUSING,
    QUESTION,
    QUEUED,
    RUNNING,
    SIGNAL,
    WAIT,
    WAITING,
    WAITING_PAUSED,
    Cause,
    Row,
    answer,
    cancel,
    child_ends,
    claim,
    pause,
    receive,
    resume,
    write,
)

MATCHING: dict[str, tuple[Cause, list[str]]] = {
    "a signal": (receive(), ["signal.received", "wait.closed"]),
    "an answer": (answer(), ["wait.closed"]),
    "the end of a child": (child_ends(), ["child.ended"]),
}
JOINED: dict[str, tuple[Cause, list[str]]] = {
    "a signal": (receive(wakes=False), ["signal.received", "wait.closed"]),
    "an answer": (answer(wakes=False), ["wait.closed"]),
    "the end of a child": (child_ends(wakes=False), ["child.ended"]),
}
NOT_WAITING = {
    "new": NEW,
    "queued": QUEUED,
    "backing off": BACKING_OFF,
    "queued for its hook": QUEUED._replace(cancelling=1),
    "running": RUNNING,
    "cancelling": CANCELLING,
    "pausing": PAUSING,
    "paused": PAUSED,
    "diverged": DIVERGED,
    "in doubt": IN_DOUBT,
}

TABLE: dict[str, Row] = {
    # waiting | matching signal, answer, event or child's end
    **{
        f"a run waits for {what}: due now": Row(WAITING, cause, {"available_at": NOW}, events)
        for what, (cause, events) in MATCHING.items()
    },
    **{
        f"a run waits for no time at all and {what} comes: due now": Row(
            WAITING._replace(available_at=NEVER), cause, {"available_at": NOW}, events
        )
        for what, (cause, events) in MATCHING.items()
    },
    **{
        f"a run is due already and {what} comes: it keeps its place": Row(
            WAITING._replace(available_at=NOW - 1), cause, {}, events
        )
        for what, (cause, events) in MATCHING.items()
    },
    **{
        f"a run waits for more than {what}: it waits on": Row(WAITING, cause, {}, events)
        for what, (cause, events) in JOINED.items()
    },
    "a run waits, and a signal comes that it does not wait for: it waits on": Row(
        WAITING, receive(wait=None), {}, ["signal.received"]
    ),
    # held | arrival
    **{
        f"a run that waits is paused, and {what} comes: still paused, due when it is resumed": Row(
            WAITING_PAUSED, cause, {"available_at": NOW}, events
        )
        for what, (cause, events) in MATCHING.items()
    },
    **{
        f"a run that waits is paused, and {what} comes, which is not all it waits for": Row(
            WAITING_PAUSED, cause, {}, events
        )
        for what, (cause, events) in JOINED.items()
    },
    # anything else that has not ended | arrival
    **{
        f"{what} comes to a run that is {name}: kept": Row(before, cause, {}, events)
        for what, (cause, events) in MATCHING.items()
        for name, before in NOT_WAITING.items()
    },
}


@pytest.mark.parametrize("row", TABLE.values(), ids=TABLE)
def test_what_arrives_moves_a_run_as_the_table_says(row: Row) -> None:
    row.check()


class TestEnded:
    @pytest.mark.parametrize("before", ENDS, ids=str)
    @pytest.mark.parametrize("cause", [receive(), receive(wait=None), answer()], ids=["taken", "kept", "answer"])
    def test_a_run_that_has_ended_receives_nothing(self, before: Lifecycle, cause: Cause) -> None:
        with pytest.raises(RunEnded):
            cause(before)

    @pytest.mark.parametrize("before", ENDS, ids=str)
    def test_a_parent_that_has_ended_is_not_told(self, before: Lifecycle) -> None:
        assert child_ends()(before) is None


def told(cause: Cause) -> list[tuple[str, str | None, Any]]:
    """The facts that a waiting run gets by it: kind, step and data."""
    change = cause(WAITING)
    assert change is not None
    return [fact(draft) for draft in change.drafts]


def fact(draft: Draft) -> tuple[str, str | None, Any]:
    return draft.kind, draft.step, loads(draft.data)


def ended_child(end: Draft, status: str) -> Cause:
    child = CHILD._replace(life=CHILD.life._replace(status=status))
    return lambda life: transitions.child_ended(life, child, end, now=NOW, wakes=True)


class TestFacts:
    def test_a_signal_brings_its_value_and_the_wait_refers_to_it(self) -> None:
        assert told(receive()) == [
            ("signal.received", None, {"signal": "sig_1", "name": "go", "value": {"n": 1}}),
            ("wait.closed", "0/3", {"wait": "0/3", "outcome": "received", "signal": "sig_1"}),
        ]

    def test_a_signal_names_its_sender_where_it_has_one(self) -> None:
        signal = SIGNAL._replace(by="ann", value=Payload(None, "b1", 9))
        assert told(lambda life: transitions.received(life, signal, now=NOW)) == [
            (
                "signal.received",
                None,
                {"signal": "sig_1", "name": "go", "by": "ann", "ref": {"blob": "b1", "size": 9, "of": "value"}},
            )
        ]

    def test_an_answer_says_by_whom(self) -> None:
        data = {"wait": "q_1", "outcome": "answered", "by": "ann", "value": "done"}
        assert told(answer()) == [("wait.closed", "0/4", data)]

    def test_an_answer_that_lies_elsewhere_is_referred_to(self) -> None:
        value = Payload(None, "b1", 9)
        facts = told(lambda life: transitions.answered(life, QUESTION, value, by="ann", now=NOW))
        assert facts[0][2]["ref"] == {"blob": "b1", "size": 9, "of": "value"}

    def test_a_wait_whose_time_is_over_says_so(self) -> None:
        assert fact(transitions.expired(WAIT)) == ("wait.closed", "0/3", {"wait": "0/3", "outcome": "timed_out"})

    @pytest.mark.parametrize(
        ("end", "status", "rest"),
        [
            (Draft("run.succeeded", '{"output":"done"}'), "succeeded", {"output": "done"}),
            (Draft("run.succeeded", '{"ref":{"blob":"b1"}}'), "succeeded", {"ref": {"blob": "b1"}}),
            (
                Draft("run.failed", '{"error":{"code":"x"},"dead":true}'),
                "failed",
                {"error": {"code": "x"}, "dead": True},
            ),
            (Draft("run.exhausted"), "exhausted", {}),
        ],
        ids=["an output", "a large output", "an error", "nothing"],
    )
    def test_the_end_of_a_child_brings_how_it_ended_and_with_what(
        self, end: Draft, status: str, rest: dict[str, Any]
    ) -> None:
        assert told(ended_child(end, status)) == [("child.ended", "0/5", {"child": "run_c", "status": status, **rest})]

    def test_new_waits_are_told_of_unless_another_fact_does(self) -> None:
        child = Wait("run_c", "child", "run_c", step="0/5")
        assert [fact(draft) for draft in transitions.opened([WAIT, child, QUESTION])] == [
            ("wait.opened", "0/3", loads(WAIT.data)),
            ("wait.opened", "0/4", loads(QUESTION.data)),
        ]


def after(life: Lifecycle, *causes: Cause) -> Lifecycle:
    """The run when all this has happened."""
    for cause in causes:
        change = cause(life)
        assert change is not None
        life, _ = transitions.number(life, change, NOW)
    return life


def park(at_seq: int) -> Cause:
    """The holder has read so far, and waits for nothing but arrivals."""
    return write(Parked(NEVER, "[]", at_seq))


class TestWaitingAndSetAside:
    def test_what_arrives_while_a_waiting_run_is_paused_makes_it_due_when_it_is_resumed(self) -> None:
        life = after(WAITING, pause, receive())
        assert (life.shown, life.available_at) == ("paused", NOW)
        life = after(life, resume())
        assert (life.status, life.hold, life.available_at) == ("waiting", None, NOW)
        assert after(life, claim("due")).attempt == WAITING.attempt

    def test_a_run_that_parks_into_its_pause_is_woken_by_an_arrival_when_it_is_resumed(self) -> None:
        life = after(RUNNING, pause, park(RUNNING.seq), answer(), resume())
        assert (life.status, life.available_at) == ("waiting", NOW)

    def test_a_run_that_parks_into_its_pause_waits_on_when_it_is_resumed(self) -> None:
        life = after(RUNNING, pause, park(RUNNING.seq), resume())
        assert (life.status, life.available_at) == ("waiting", NEVER)

    def test_what_arrives_at_a_run_that_diverged_is_there_when_it_is_resumed(self) -> None:
        life = after(DIVERGED, receive(), resume())
        assert (life.status, life.available_at) == ("queued", DIVERGED.available_at)

    def test_a_pause_that_is_taken_back_too_late_costs_an_attempt_nothing(self) -> None:
        life = after(RUNNING, pause, resume(), write(PAUSED_ON_REQUEST), claim("due"))
        assert (life.status, life.attempt, life.hold) == ("running", RUNNING.attempt, None)

    def test_a_run_that_is_to_pause_and_then_to_end_ends_when_it_parks(self) -> None:
        life = after(RUNNING, pause, cancel(), receive(), park(RUNNING.seq))
        assert (life.status, life.pausing, life.cancelling) == ("cancelled", 0, 0)

    def test_a_waiting_run_with_a_hook_that_is_paused_and_cancelled_is_claimed_for_its_hook_alone(self) -> None:
        life = after(WAITING, pause, cancel(has_hook=True))
        assert (life.status, life.hold, life.available_at) == ("queued", None, NOW)
        assert pause(life) is None
        life = after(life, receive(), claim("due"))
        assert (life.status, life.cancelling, life.attempt) == ("running", 2, WAITING.attempt)
        assert after(life, claim("lost")).status == "cancelled"


ARRIVALS = st.lists(st.sampled_from([receive(), receive(wait=None), answer(), child_ends()]), max_size=3)


@given(ARRIVALS, ARRIVALS, ARRIVALS)
def test_whenever_something_arrives_around_parking_a_run_does_not_sleep_over_it(
    seen: list[Cause], missed: list[Cause], late: list[Cause]
) -> None:
    """Before the last look at the journal, between that and parking, and afterwards."""
    life = after(RUNNING, *seen)
    life = after(life, *missed, park(at_seq=life.seq))
    assert life.available_at == (NOW if missed else NEVER)
    life = after(life, receive(wait=None), receive(wakes=False))
    assert life.available_at == (NOW if missed else NEVER), "it does not wait for that"
    woken = after(life, *late, answer())
    assert (woken.status, woken.available_at) == ("waiting", NOW)


def test_a_woken_run_is_claimed_as_woken() -> None:
    change = claim("due")(after(WAITING, receive()))
    assert change is not None
    assert fact(change.drafts[0]) == ("run.resumed", None, {"fence": 2, "worker": "w2", "cause": "woken"})
