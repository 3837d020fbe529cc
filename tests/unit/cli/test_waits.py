"""Why a run does not go on, in words."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest

from stepwell.cli import waits
from stepwell.cli.waits import open_waits, reasons, wait_text
from stepwell.domain.event import Event, to_micros
from stepwell.runtime import LaneInfo

NOW = datetime.now(UTC)
SIGNAL = {"wait": "w_1", "type": "signal", "name": "go"}


def event(kind: str, **data: Any) -> Event:
    return Event(1, kind, NOW, "run_x", "cust-42", "narrow", None, None, None, data)


def run(status: str, *, due: timedelta | None = timedelta(0), reason: str | None = None) -> Any:
    """A run of agent `narrow` in session `cust-42`."""
    return SimpleNamespace(
        status=status,
        ended=status == "failed",
        reason=reason,
        session_id="cust-42",
        agent="narrow",
        available_at=None if due is None else NOW + due,
    )


def why(made: Any, events: Sequence[Event] = (), lanes: Sequence[LaneInfo] = ()) -> list[str]:
    return reasons(cast("Any", made), events, lanes)


class TestWaits:
    @pytest.mark.parametrize(
        ("facts", "text"),
        [
            (SIGNAL, "for signal go"),
            ({"wait": "q_123456", "type": "question", "name": "Sure?"}, "for an answer to …123456: Sure?"),
            ({"wait": "run_123456", "type": "child", "name": "run_123456"}, "for run …123456"),
            ({"type": "more", "count": 7}, "and for 7 more"),
            ({"wait": "x", "type": "event", "name": "paid"}, "for event paid"),
        ],
        ids=range(5),
    )
    def test_a_wait_is_told_by_what_it_waits_for(self, facts: dict[str, Any], text: str) -> None:
        assert wait_text(facts) == text

    def test_a_moment_is_told_with_its_date_when_it_is_far(self) -> None:
        far = NOW + timedelta(days=30)
        assert wait_text({"wait": "x", "type": "time", "name": "sleep", "until": to_micros(far)}) == (
            f"until {far.astimezone():%Y-%m-%d %H:%M:%S}"
        )
        near = NOW + timedelta(minutes=5)
        assert wait_text(SIGNAL | {"until": to_micros(near)}) == f"for signal go, until {near.astimezone():%H:%M:%S}"

    def test_what_came_since_is_waited_for_no_more(self) -> None:
        child = {"wait": "run_c", "type": "child", "name": "run_c"}
        parked = event("run.waiting", waits=[SIGNAL, child])
        assert open_waits([]) == []
        assert open_waits([parked]) == [SIGNAL, child]
        assert open_waits([parked, event("wait.closed", wait="w_1", outcome="received")]) == [child]
        assert open_waits([parked, event("child.ended", child="run_c", status="failed")]) == [SIGNAL]
        assert open_waits([parked, event("run.started"), event("run.waiting", waits=[])]) == []

    def test_the_time_that_is_left(self) -> None:
        assert waits.left(None) == ""
        assert waits.left(datetime.now(UTC) - timedelta(1)) == "time is over"
        assert waits.left(datetime.now(UTC) + timedelta(days=2, minutes=1)) == "2 d left"


class TestReasons:
    def test_a_run_that_has_ended_or_is_executed_waits_for_nothing(self) -> None:
        assert why(run("failed")) == []
        assert why(run("running"), [event("run.waiting", waits=[SIGNAL])]) == []

    def test_a_parked_run_waits_for_what_it_named(self) -> None:
        assert why(run("waiting", due=None), [event("run.waiting", waits=[SIGNAL])]) == ["for signal go"]

    def test_one_that_is_due_waits_for_a_worker(self) -> None:
        assert why(run("waiting"), [event("run.waiting", waits=[SIGNAL])]) == [
            "for a worker that serves narrow to take it up"
        ]
        assert why(run("queued")) == ["for a worker that serves narrow to take it up"]

    def test_one_that_is_delayed_waits_for_its_time(self) -> None:
        [told] = why(run("queued", due=timedelta(minutes=5)))
        assert told == f"until {(NOW + timedelta(minutes=5)).astimezone():%H:%M:%S}"
        [told] = why(run("queued", due=timedelta(minutes=5), reason="agent.error"))
        assert told.endswith(", then tries again (agent.error)")

    def test_a_held_run_waits_for_somebody_and_for_what_it_named(self) -> None:
        told = why(run("paused", due=None), [event("run.waiting", waits=[SIGNAL])])
        assert told == ["for somebody to resume it: paused", "for signal go"]

    @pytest.mark.parametrize(
        ("lane", "text"),
        [
            (LaneInfo("", "session", "cust-42", 1, 1, 2), "in line for session cust-42 (1 of 1 taken, 2 in line)"),
            (LaneInfo("", "agent", "narrow", 8, 9, 1), "in line for agent narrow (9 of 8 taken, 1 in line)"),
            (LaneInfo("", "key", "narrow a", 1, 1, 1), "in line for key narrow a (1 of 1 taken, 1 in line)"),
            (LaneInfo("", "global", "shop", 2, 2, 1), "in line for app shop (2 of 2 taken, 1 in line)"),
        ],
        ids=lambda value: value.kind if isinstance(value, LaneInfo) else "",
    )
    def test_a_run_in_line_says_for_what(self, lane: LaneInfo, text: str) -> None:
        assert why(run("queued"), (), [lane]) == [text]
