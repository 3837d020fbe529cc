"""Events: the closed list of kinds, and times."""

from datetime import UTC, datetime, timedelta, timezone

from hypothesis import given
from hypothesis import strategies as st

from stepwell.domain.event import ENDS, KINDS, to_datetime, to_micros

RUN_KINDS = [
    *("queued", "started", "resumed", "lost", "handed_back", "retrying", "waiting", "held", "released", "cancelling"),
    *("succeeded", "failed", "cancelled", "timed_out", "exhausted", "discarded"),
]
STEP_KINDS = ["step.intended", "step.completed", "step.failed"]
WAIT_KINDS = ["wait.opened", "wait.closed", "signal.received", "child.started", "child.ended"]
TEXT_KINDS = ["text.delta", "text.completed"]
SESSION_KINDS = ["session.changed", "session.read"]
OTHER_KINDS = ["artifact.saved", "checkpoint.saved", "patch.marked", "time.read"]


def test_the_kinds_are_a_closed_list() -> None:
    kinds = [*STEP_KINDS, *WAIT_KINDS, *TEXT_KINDS, *SESSION_KINDS, *OTHER_KINDS]
    assert sorted(KINDS) == sorted([*(f"run.{kind}" for kind in RUN_KINDS), *kinds])


def test_the_ends_are_the_five_ways_in_which_a_run_ends() -> None:
    assert ENDS <= KINDS
    assert sorted(ENDS) == ["run.cancelled", "run.exhausted", "run.failed", "run.succeeded", "run.timed_out"]


@given(st.integers(0, 4_102_444_800_000_000))
def test_a_time_survives_to_the_microsecond(at: int) -> None:
    when = to_datetime(at)
    assert when.tzinfo is UTC
    assert to_micros(when) == at


def test_a_time_of_another_zone_is_the_same_moment() -> None:
    there = datetime(2026, 1, 1, 2, 0, tzinfo=timezone(timedelta(hours=2)))
    assert to_datetime(to_micros(there)) == datetime(2026, 1, 1, tzinfo=UTC)
