"""Lanes: the rules, by hand."""

import pytest

from stepwell.domain import lane
from stepwell.domain.lane import (
    AWAY,
    BLOCKED,
    FREE,
    GRANTED,
    IN_LINE,
    LEAVING,
    LENT,
    Place,
    Room,
    enter,
    leave,
    place_again,
    place_of,
    release,
    resize,
    turns,
)
from stepwell.domain.run import PRIORITY_STEP, Lifecycle
from stepwell.domain.submission import AGENT_LANE, GLOBAL_LANE, KEY_LANE, LANE_ORDER, SESSION_LANE
from tests.unit.domain.lines import Rows, check


class TestOneLane:
    def test_a_run_without_tickets_is_free(self) -> None:
        rows = Rows()
        assert rows.add_and_enter("a")
        assert rows.gates() == {"a": FREE}

    def test_as_many_runs_as_there_are_tickets_are_free_and_the_next_one_is_blocked(self) -> None:
        rows = Rows((GLOBAL_LANE, 2))
        assert [rows.add_and_enter(run, 0) for run in "abc"] == [True, True, False]
        assert rows.gates() == {"a": FREE, "b": FREE, "c": BLOCKED}

    def test_who_leaves_makes_room_for_the_first_in_line(self) -> None:
        rows = Rows((GLOBAL_LANE, 1))
        for run in "abc":
            rows.add_and_enter(run, 0)
        leave(rows, "a")
        assert rows.gates() == {"b": FREE, "c": BLOCKED}
        assert rows.freed == ["a", "b"]

    def test_who_leaves_the_line_makes_no_room(self) -> None:
        rows = Rows((GLOBAL_LANE, 1))
        for run in "abc":
            rows.add_and_enter(run, 0)
        leave(rows, "b")
        assert rows.gates() == {"a": FREE, "c": BLOCKED}
        leave(rows, "a")
        assert rows.gates() == {"c": FREE}

    def test_to_enter_twice_changes_nothing(self) -> None:
        rows = Rows((GLOBAL_LANE, 1))
        for run in "abc":
            rows.add_and_enter(run, 0)
        lanes, line = dict(rows.lanes), dict(rows.lines[0])
        rows.runs["c"].place = Place(0, -99, 3)
        assert [enter(rows, run) for run in "abc"] == [True, False, False]
        assert (rows.lanes, rows.lines[0]) == (lanes, line)

    def test_a_run_that_started_before_goes_ahead_of_those_that_never_did(self) -> None:
        rows = Rows((GLOBAL_LANE, 1))
        rows.add_and_enter("a", 0)
        rows.add_and_enter("new", 0, at=-50)
        rows.add_and_enter("woken", 0, at=10, fresh=0)
        leave(rows, "a")
        assert rows.holders(0) == {"woken"}

    def test_else_it_goes_by_the_place_in_the_queue_and_then_by_the_order_of_submission(self) -> None:
        rows = Rows((GLOBAL_LANE, 1))
        for run, at in [("a", 0), ("late", 9), ("one", 5), ("two", 5), ("urgent", -20)]:
            rows.add_and_enter(run, 0, at=at)
        order: list[str] = []
        while rows.runs:
            order += rows.holders(0)
            leave(rows, order[-1])
        assert order == ["a", "urgent", "one", "two", "late"]

    def test_a_run_that_gave_its_ticket_back_must_enter_again(self) -> None:
        rows = Rows((KEY_LANE, 1))
        rows.add_and_enter("a", 0)
        rows.add_and_enter("b", 0)
        release(rows, "a", keep_session=True)
        assert rows.gates() == {"a": AWAY, "b": FREE}
        assert not enter(rows, "a")
        leave(rows, "b")
        assert rows.gates() == {"a": FREE}


class TestSessions:
    def test_a_run_that_waits_keeps_its_turn(self) -> None:
        rows = Rows((SESSION_LANE, 1), (GLOBAL_LANE, 1))
        rows.add_and_enter("a", 0, 1)
        rows.add_and_enter("b", 0, 1)
        release(rows, "a", keep_session=True)
        assert rows.gates() == {"a": AWAY, "b": BLOCKED}
        assert rows.lanes[1].taken == 0
        assert enter(rows, "a")

    def test_a_run_that_gives_its_turn_up_lets_the_next_one_in_and_comes_before_those_after_it(self) -> None:
        rows = Rows((SESSION_LANE, 1))
        for run in "abc":
            rows.add_and_enter(run, 0)
        release(rows, "a", keep_session=False)
        assert rows.gates() == {"a": AWAY, "b": FREE, "c": BLOCKED}
        enter(rows, "a")
        leave(rows, "b")
        assert rows.gates() == {"a": FREE, "c": BLOCKED}

    def test_priority_and_an_earlier_start_do_not_change_the_order(self) -> None:
        rows = Rows((SESSION_LANE, 1))
        rows.add_and_enter("a", 0)
        rows.add_and_enter("b", 0, at=50)
        rows.add_and_enter("urgent", 0, at=-50, fresh=0)
        leave(rows, "a")
        assert rows.holders(0) == {"b"}

    def test_who_is_set_aside_in_the_line_keeps_his_place_and_takes_no_other_ticket_when_his_turn_comes(self) -> None:
        rows = Rows((SESSION_LANE, 1), (GLOBAL_LANE, 9))
        for run in "abc":
            rows.add_and_enter(run, 0, 1)
        release(rows, "b", keep_session=True)
        leave(rows, "a")
        assert rows.gates() == {"b": AWAY, "c": BLOCKED}
        assert (rows.holders(0), rows.holders(1)) == ({"b"}, set())
        assert enter(rows, "b")

    def test_who_is_set_aside_with_his_session_and_comes_back_before_his_turn_stands_in_line_as_before(self) -> None:
        rows = Rows((SESSION_LANE, 1), (GLOBAL_LANE, 9))
        for run in "abc":
            rows.add_and_enter(run, 0, 1)
        release(rows, "b", keep_session=True)
        assert not enter(rows, "b")
        leave(rows, "a")
        assert rows.gates() == {"b": FREE, "c": BLOCKED}


class TestSeveralLanes:
    def test_a_run_takes_no_wide_ticket_before_it_has_the_narrow_one(self) -> None:
        rows = Rows((KEY_LANE, 1), (GLOBAL_LANE, 2))
        rows.add_and_enter("a", 0, 1)
        rows.add_and_enter("b", 0, 1)
        assert rows.holders(1) == {"a"}
        assert rows.add_and_enter("other", 1)

    def test_a_run_keeps_its_narrow_tickets_while_it_stands_in_line_for_a_wide_one(self) -> None:
        rows = Rows((KEY_LANE, 1), (AGENT_LANE, 1), (GLOBAL_LANE, 1))
        rows.add_and_enter("a", 2)
        rows.add_and_enter("b", 0, 1, 2)
        assert rows.runs["b"].states == {0: GRANTED, 1: GRANTED, 2: IN_LINE}

    def test_a_run_that_gets_its_narrow_ticket_goes_on_to_its_wide_lanes(self) -> None:
        rows = Rows((KEY_LANE, 1), (AGENT_LANE, 2), (GLOBAL_LANE, 3))
        rows.add_and_enter("a", 0, 1)
        rows.add_and_enter("b", 0, 1, 2)
        leave(rows, "a")
        assert rows.runs["b"].states == {0: GRANTED, 1: GRANTED, 2: GRANTED}
        assert rows.gates() == {"b": FREE}

    def test_a_run_that_gets_its_narrow_ticket_may_have_to_stand_in_the_next_line(self) -> None:
        rows = Rows((KEY_LANE, 1), (GLOBAL_LANE, 1))
        rows.add_and_enter("x", 1)
        rows.add_and_enter("a", 0)
        rows.add_and_enter("b", 0, 1)
        leave(rows, "a")
        assert rows.gates() == {"x": FREE, "b": BLOCKED}
        leave(rows, "x")
        assert rows.gates() == {"b": FREE}

    def test_one_end_can_set_several_runs_free(self) -> None:
        rows = Rows((SESSION_LANE, 1), (KEY_LANE, 1), (AGENT_LANE, 1), (GLOBAL_LANE, 9))
        rows.add_and_enter("a", 0, 1, 2, 3)
        for run, narrow in [("next", 0), ("same key", 1), ("same agent", 2)]:
            rows.add_and_enter(run, narrow, 3)
        assert rows.freed == ["a"]
        leave(rows, "a")
        assert rows.freed == ["a", "next", "same key", "same agent"]
        check(rows)

    def test_a_ticket_that_is_given_back_goes_to_the_first_of_all_who_reach_the_lane(self) -> None:
        rows = Rows((KEY_LANE, 1), (GLOBAL_LANE, 1))
        rows.add_and_enter("a", 0, 1)
        rows.add_and_enter("next", 0, 1, at=-5)
        rows.add_and_enter("other", 1)
        leave(rows, "a")
        assert rows.gates() == {"next": FREE, "other": BLOCKED}

    def test_nobody_who_comes_from_a_narrow_lane_overtakes_whoever_stands_in_the_wide_one(self) -> None:
        rows = Rows((KEY_LANE, 1), (GLOBAL_LANE, 1))
        rows.add_and_enter("a", 0, 1)
        rows.add_and_enter("next", 0, 1, at=5)
        rows.add_and_enter("other", 1)
        leave(rows, "a")
        assert rows.gates() == {"next": BLOCKED, "other": FREE}


class TestResize:
    def test_a_lane_that_grows_takes_more_in(self) -> None:
        rows = Rows((AGENT_LANE, 1), (GLOBAL_LANE, 2))
        for run in "abcd":
            rows.add_and_enter(run, 0, 1)
        resize(rows, 0, 3)
        assert rows.gates() == {"a": FREE, "b": FREE, "c": BLOCKED, "d": BLOCKED}
        assert (rows.lanes[0], rows.lanes[1]) == (Room(3, 3), Room(2, 2))

    def test_a_lane_that_shrinks_sends_nobody_away_and_takes_nobody_in_until_it_has_room(self) -> None:
        rows = Rows((AGENT_LANE, 3))
        for run in "abcd":
            rows.add_and_enter(run, 0)
        resize(rows, 0, 1)
        assert rows.gates() == {"a": FREE, "b": FREE, "c": FREE, "d": BLOCKED}
        leave(rows, "a")
        leave(rows, "b")
        assert rows.gates() == {"c": FREE, "d": BLOCKED}
        leave(rows, "c")
        assert rows.gates() == {"d": FREE}

    def test_a_lane_that_keeps_its_size_is_only_looked_at(self) -> None:
        rows = Rows((AGENT_LANE, 3))
        resize(rows, 0, 3)
        assert rows.operations == 1

    def test_a_lane_that_grows_by_very_much_fills_in_several_operations(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(lane, "MOST_PROMOTED", 3)
        rows = Rows((AGENT_LANE, 1))
        names = [f"r{number:02}" for number in range(20)]
        for run in names:
            rows.add_and_enter(run, 0)
        resize(rows, 0, 1_000)
        assert rows.freed == names[:4]
        assert not rows.add_and_enter("late", 0), "those who stand in line come first"
        leave(rows, "r00")
        assert rows.freed == names[:7]
        while rows.runs:
            leave(rows, next(iter(rows.holders(0))))
        assert (len(rows.freed), rows.lanes[0].taken) == (21, 0)


class TestTurns:
    """The ticket of a session, and the children that live on it."""

    def rows(self) -> Rows:
        """A run has its turn and a child, another waits for its own."""
        rows = Rows((SESSION_LANE, 1), (AGENT_LANE, 9))
        rows.add_and_enter("a", 0, 1)
        rows.add_and_enter("b", 0, 1)
        assert rows.add_child("child", "a", 1), "a child waits for no turn"
        return rows

    def test_a_turn_is_over_with_the_last_who_lives_on_it(self) -> None:
        rows = self.rows()
        assert rows.add_child("grandchild", "child")
        for run in ["child", "a"]:
            leave(rows, run)
            check(rows)
            assert rows.gates()["b"] == BLOCKED
        leave(rows, "grandchild")
        check(rows)
        assert rows.gates() == {"b": FREE}

    def test_who_gives_up_a_turn_has_it_until_its_children_have_gone(self) -> None:
        rows = self.rows()
        release(rows, "a", keep_session=False)
        check(rows)
        assert (rows.with_ticket(0, LEAVING), rows.gates()["b"]) == ({"a"}, BLOCKED)
        leave(rows, "child")
        check(rows)
        assert (rows.holders(0), rows.gates()["b"]) == ({"b"}, FREE)
        assert not enter(rows, "a")

    def test_who_comes_back_before_its_children_have_gone_has_its_turn(self) -> None:
        rows = self.rows()
        release(rows, "a", keep_session=False)
        assert enter(rows, "a")
        leave(rows, "child")
        check(rows)
        assert rows.holders(0) == {"a"}

    def test_a_child_keeps_what_it_lives_on_and_gives_back_the_rest(self) -> None:
        rows = self.rows()
        release(rows, "child", keep_session=False)
        check(rows)
        assert (rows.with_ticket(0, LENT), rows.holders(1)) == ({"child"}, {"a"})

    def test_who_stands_in_line_for_a_turn_has_none_to_lend(self) -> None:
        assert turns(self.rows().entrant("b").tickets) == []

    def test_a_wide_lane_is_not_lent(self) -> None:
        assert turns(self.rows().entrant("a").tickets) == [0]


class TestWork:
    @pytest.mark.parametrize("operation", ["enter", "park", "leave", "leave the line", "grow"])
    def test_the_work_of_an_operation_does_not_depend_on_how_many_stand_in_line(self, operation: str) -> None:
        assert work(operation, standing=3) == work(operation, standing=300)

    def test_an_operation_touches_few_rows(self) -> None:
        assert work("enter", standing=3) <= 5
        assert work("leave", standing=3) <= 26

    def test_who_has_nothing_to_give_back_changes_no_ticket(self) -> None:
        rows = crowd(standing=3)
        rows.add("late", 0, 1, 2)
        rows.operations = 0
        release(rows, "late", keep_session=False)
        assert rows.operations == len(["entrant", "set_gate"])

    def test_a_ticket_that_only_changes_hands_leaves_the_row_of_the_lane_alone(self) -> None:
        rows = Rows((KEY_LANE, 1))
        rows.add_and_enter("a", 0)
        rows.add_and_enter("b", 0)
        room = rows.lanes[0]
        leave(rows, "a")
        assert rows.holders(0) == {"b"}
        assert rows.lanes[0] is room

    def test_what_a_lane_that_grows_does_at_once_is_bounded(self) -> None:
        rows = crowd(standing=lane.MOST_PROMOTED + 50)
        rows.freed.clear()
        resize(rows, 1, 10_000)
        assert len(rows.freed) == lane.MOST_PROMOTED


def crowd(standing: int) -> Rows:
    """One run that sits in all lanes, and many that stand in line for each of two."""
    rows = Rows((SESSION_LANE, 1), (KEY_LANE, 1), (GLOBAL_LANE, 10_000))
    rows.add_and_enter("a", 0, 1, 2)
    for number in range(standing):
        rows.add_and_enter(f"s{number}", 0, 2)
        rows.add_and_enter(f"k{number}", 1, 2)
    return rows


def work(operation: str, standing: int) -> int:
    """How many row operations it takes."""
    rows = crowd(standing)
    rows.add("late", 0, 1, 2)
    rows.operations = 0
    match operation:
        case "enter":
            enter(rows, "late")
        case "park":
            release(rows, "a", keep_session=True)
        case "leave":
            leave(rows, "a")
        case "leave the line":
            leave(rows, "k1")
        case "grow":
            resize(rows, 1, 2)
    return rows.operations


def test_a_run_that_is_due_at_another_moment_stands_elsewhere_in_line_but_not_in_that_of_a_session() -> None:
    for kind, first in ((KEY_LANE, "late"), (SESSION_LANE, "early")):
        rows = Rows((kind, 1))
        for run in ("holder", "early", "late"):
            rows.add_and_enter(run, 0)
        rows.runs["late"].place = Place(1, -1, rows.runs["late"].place.number)
        place_again(rows, "late")
        assert rows.first(0) == first
        assert rows.runs["late"].states == {0: IN_LINE}


def test_the_place_of_a_run_says_whether_it_started_its_place_in_the_queue_and_its_number() -> None:
    life = Lifecycle("queued", available_at=1_000_000_000, updated_at=0)
    assert place_of(life, 0, 7) == Place(1, 1_000_000_000, 7)
    assert place_of(life, 2, 7) == Place(1, 1_000_000_000 - 2 * PRIORITY_STEP, 7)
    assert place_of(life._replace(attempt=1), 0, 7) == Place(0, 1_000_000_000, 7)


def test_the_lanes_are_ordered_from_narrow_to_wide() -> None:
    assert LANE_ORDER == (SESSION_LANE, KEY_LANE, AGENT_LANE, GLOBAL_LANE)
