"""The search itself: over worlds so small that the answer is plain."""

import pytest

from tests.protocol.explorer import Broken, Edge, Violation, explore

HELPS, HINDERS = 1, 0


class Steps:
    """A world given by its edges; the end is 9, and whoever comes to 13 breaks a promise."""

    def __init__(self, edges: dict[int, list[Edge]]) -> None:
        self._edges = edges

    def starts(self) -> list[int]:
        return [0]

    def steps(self, state: int) -> list[Edge]:
        found = self._edges.get(state, [])
        if any(after == 13 for _, after in found):
            raise Broken("thirteen is avoided")
        return found

    def has_ended(self, state: int) -> bool:
        return state == 9

    def label(self, label: int) -> str:
        return "forward" if label else "astray"

    def describe(self, state: int) -> str:
        return f"at {state}"


def test_every_state_is_counted_once() -> None:
    report = explore(Steps({0: [(HELPS, 1), (HELPS, 2)], 1: [(HELPS, 9)], 2: [(HELPS, 9), (HINDERS, 0)]}))
    assert report[:3] == (4, 5, 2)


def test_the_shortest_way_to_a_broken_promise_is_told() -> None:
    edges = {0: [(HELPS, 1), (HINDERS, 3)], 1: [(HELPS, 2)], 2: [(HELPS, 13)], 3: [(HELPS, 13)]}
    with pytest.raises(Violation) as caught:
        explore(Steps(edges))
    told = str(caught.value).splitlines()
    assert told[0] == "thirteen is avoided"
    assert [line.split("|")[1].strip() for line in told[2:-1]] == ["at 0", "at 3"]
    assert "astray" in told[3]


def test_a_state_that_no_end_can_be_reached_from_is_found() -> None:
    with pytest.raises(Violation, match="no end can be reached"):
        explore(Steps({0: [(HELPS, 9), (HINDERS, 4)], 4: [(HELPS, 5)], 5: [(HELPS, 4)]}))


def test_an_end_that_only_a_fault_leads_to_does_not_count() -> None:
    with pytest.raises(Violation, match="no end can be reached"):
        explore(Steps({0: [(HINDERS, 9)]}))


def test_a_way_to_the_end_may_be_long_and_turn_back() -> None:
    edges = {n: [(HELPS, n - 1), (HINDERS, n + 1)] for n in range(100, 200)} | {200: [(HELPS, 199)], 99: [(HELPS, 9)]}
    assert explore(Steps({0: [(HELPS, 150)]} | edges)).states == 104


def test_a_world_without_bounds_is_given_up() -> None:
    class Endless(Steps):
        def steps(self, state: int) -> list[Edge]:
            return [(HELPS, state + 20)]

    with pytest.raises(Violation, match="more than 50 states"):
        explore(Endless({}), at_most=50)
