"""One line of the memory store: who is due comes first, what moved on is forgotten, and nothing is kept for ever."""

from stepwell.domain.outcome import NEVER
from stepwell.stores.memory.queue import Line, Place


class Standing:
    """A line, and the runs that stand in it."""

    def __init__(self) -> None:
        self.places: dict[str, Place] = {}
        self.line = Line(lambda run_id, at: run_id in self.places and self.places[run_id].available_at == at)

    def add(self, run_id: str, available_at: int, *, boost: int = 0) -> None:
        place = Place(available_at - boost, len(self.places), run_id, available_at)
        self.places[run_id] = place
        self.line.add(place)

    def first(self, now: int) -> str | None:
        place = self.line.first_due(now)
        return place and place.run_id


def test_the_first_of_those_that_are_due_goes_first() -> None:
    standing = Standing()
    standing.add("later", 20)
    standing.add("second", 10)
    standing.add("first", 12, boost=5)
    assert [standing.first(9), standing.first(10), standing.first(12)] == [None, "second", "first"]
    assert standing.line.next_due_at(12) == 20


def test_who_moved_on_is_passed_over() -> None:
    standing = Standing()
    standing.add("gone", 10)
    standing.add("there", 11)
    standing.add("gone later", 30)
    standing.add("there later", 31)
    del standing.places["gone"], standing.places["gone later"]
    assert standing.first(20) == "there"
    assert standing.line.next_due_at(20) == 31
    assert standing.line.all_due(20) == ["there"]


def test_who_came_twice_is_named_once() -> None:
    standing = Standing()
    standing.add("run", 10)
    standing.line.add(standing.places["run"])
    assert standing.line.all_due(10) == ["run"]


def test_a_wall_clock_that_goes_back_makes_nobody_due_before_his_time() -> None:
    standing = Standing()
    standing.add("run", 10)
    assert standing.first(10) == "run"
    assert standing.first(5) is None
    assert standing.line.next_due_at(5) == 10


def test_who_waits_for_an_arrival_leaves_nothing_in_the_line() -> None:
    standing = Standing()
    for number in range(100):
        standing.add(str(number), NEVER)
    assert standing.line.next_due_at(0) is None
    assert standing.line._later == []


def test_a_line_forgets_those_that_moved_on() -> None:
    standing = Standing()
    for number in range(100):
        standing.add(str(number), 10)
    standing.places.clear()
    assert standing.line.all_due(10) == []
    assert standing.line._due == []
