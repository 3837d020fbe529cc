"""The search for an order, with the plainest object there is: a cell that is written and read."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from tests.histories.history import OK, UNKNOWN, Operation
from tests.histories.linearizability import MOST_OPERATIONS, GaveUp, NotLinearizable, Refused, linearize


class Cell:
    """Holds what was written last; in the beginning 0."""

    def start(self) -> int:
        return 0

    def after(self, state: int, operation: Operation) -> int | Refused:
        if operation.verb == "write":
            return int(operation.given["value"])
        return state if operation.value == state else Refused(f"it holds {state}")

    def perhaps(self, state: int, operation: Operation) -> Iterable[int]:
        return (int(operation.given["value"]),)


def write(value: int, called: int, returned: int | None) -> Operation:
    return Operation("w", "write", "cell", {"value": value}, called, returned, OK if returned else UNKNOWN)


def read(value: Any, called: int, returned: int) -> Operation:
    return Operation("r", "read", "cell", {}, called, returned, OK, value)


RIGHT: dict[str, list[Operation]] = {
    "nothing": [],
    "the beginning": [read(0, 1, 2)],
    "one after the other": [write(1, 1, 2), read(1, 3, 4)],
    "a write between two reads": [write(1, 1, 10), read(0, 2, 3), read(1, 4, 5)],
    "two writes, either way round": [write(1, 1, 10), write(2, 1, 10), read(2, 2, 3), read(1, 4, 5)],
    "an unknown write that never was": [write(1, 1, None), read(0, 2, 3), read(0, 4, 5)],
    "an unknown write, much later": [write(1, 1, None), read(0, 2, 3), read(1, 100, 101)],
    "an unknown write over another": [write(1, 1, 2), write(2, 3, None), read(1, 4, 5), read(2, 6, 7)],
    "a touch": [write(1, 1, 5), read(1, 5, 6)],
    "a touch the other way": [read(1, 1, 5), write(1, 5, 6)],
}

WRONG = {
    "never written": [read(1, 1, 2)],
    "lost": [write(1, 1, 2), read(0, 3, 4)],
    "before its cause": [read(1, 1, 2), write(1, 3, 4)],
    "seen and gone": [write(1, 1, 10), read(1, 2, 3), read(0, 4, 5)],
    "two values of one": [write(1, 1, 10), write(2, 1, 10), read(2, 12, 13), read(1, 14, 15)],
    "there and back": [write(1, 1, 10), write(2, 1, 10), read(2, 2, 3), read(1, 4, 5), read(2, 6, 7)],
    "an unknown one seen and gone": [write(1, 1, None), read(1, 2, 3), read(0, 4, 5)],
    "an unknown one before its call": [read(1, 1, 2), write(1, 3, None)],
}


@pytest.mark.parametrize("operations", RIGHT.values(), ids=RIGHT)
def test_an_order_is_found_where_there_is_one(operations: list[Operation]) -> None:
    order = linearize(Cell(), operations)
    required = [each for each in operations if each.returned is not None]
    assert all(each in order for each in required)
    state = 0
    for each in order:
        after = Cell().after(state, each)
        assert isinstance(after, int)
        state = after
    for place, late in enumerate(order):
        assert all(early.returned is None or early.returned >= late.called for early in order[place + 1 :])


@pytest.mark.parametrize("operations", WRONG.values(), ids=WRONG)
def test_no_order_is_found_where_there_is_none(operations: list[Operation]) -> None:
    with pytest.raises(NotLinearizable, match="no order explains this history"):
        linearize(Cell(), operations)


def test_it_is_told_how_far_one_comes_and_why_not_farther() -> None:
    with pytest.raises(NotLinearizable) as raised:
        linearize(Cell(), [write(7, 1, 2), read(7, 3, 4), read(0, 5, 6)])
    assert "explains 2 of 3 operations" in str(raised.value)
    assert "r: read -> ok 0: it holds 7" in str(raised.value)


def test_the_search_gives_up_clearly_instead_of_going_on_for_ever() -> None:
    operations = [write(number, 1, 1000) for number in range(1, 25)] + [read(-1, 1, 1000)]
    with pytest.raises(GaveUp, match="no verdict after 500 places"):
        linearize(Cell(), operations, at_most=500)


def test_more_operations_than_are_promised_are_refused() -> None:
    operations = [write(1, number, number + 1) for number in range(1, MOST_OPERATIONS + 2)]
    assert len(linearize(Cell(), operations[1:])) == MOST_OPERATIONS
    with pytest.raises(GaveUp, match="301 operations on one object"):
        linearize(Cell(), operations)
