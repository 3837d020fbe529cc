"""What `stepwell doctor` says of lines, dead runs and suspects, and of what nobody serves."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from stepwell.cli.doctor import Findings, Seen, _look_at_lines, _look_at_workers
from stepwell.ports.store import Blockage
from stepwell.runtime import LaneInfo, StoreReport


def facts(**seen: Any) -> list[tuple[str, str]]:
    found = Findings()
    nothing: dict[str, Any] = {"report": None, "workers": [], "lanes": [], "dead": 0, "suspects": []}
    _look_at_lines(found, Seen(**(nothing | seen)))
    assert (found.problems, found.code) == ([], 0)
    return found.facts


def test_where_nobody_waits_nothing_is_said() -> None:
    assert facts(lanes=[LaneInfo("", "agent", "slow", 8, 8, 0)]) == []


def test_runs_in_line_are_mentioned_with_what_they_stand_in_line_for() -> None:
    lanes = [LaneInfo("", "agent", "slow", 8, 8, 120), LaneInfo("", "session", "cust-42", 1, 1, 1)]
    assert facts(lanes=lanes) == [
        ("in line", "120 runs for agent slow, 8 of 8 taken"),
        ("in line", "1 run for session cust-42, 1 of 1 taken"),
    ]


def test_the_dead_are_counted_up_to_a_bound() -> None:
    assert facts(dead=1) == [("dead", "1 run; see: stepwell runs list --dead")]
    assert facts(dead=1000) == [("dead", "1000 or more runs; see: stepwell runs list --dead")]


def test_suspects_are_named() -> None:
    run = SimpleNamespace(id="run_abcdefgh", agent="crasher", losses=2)
    [(name, told)] = facts(suspects=[run])
    assert name == "suspect"
    assert told.startswith("run …cdefgh of crasher: its worker died 2 times in a row without progress")


def test_who_stands_in_line_behind_runs_that_nobody_serves_is_told_so() -> None:
    found = Findings()
    blockage = Blockage(LaneInfo("", "session", "cust-42", 1, 1, 3), "chat", 1)
    _look_at_workers(found, StoreReport("sqlite:///x", "", 1, 0, unserved={"chat": 1}, blockages=[blockage]), [])
    assert [problem for problem, _ in found.problems] == [
        "1 run of chat: due, and nobody takes them up",
        "3 runs in line for session cust-42: kept from it by 1 run of chat that nobody serves",
    ]
    assert found.code == 1
