"""What clients wrote down, read again."""

from __future__ import annotations

from typing import Any

from tests.histories.history import FAIL, OK, UNKNOWN, Operation, by_object, told_by


def call(client: str, n: int, at: int, on: str = "x") -> dict[str, Any]:
    return {"client": client, "n": n, "at": at, "verb": "get", "on": on, "given": {"run": "r"}}


def back(client: str, n: int, at: int, outcome: str, value: Any = None) -> dict[str, Any]:
    return {"client": client, "n": n, "at": at, "outcome": outcome, "value": value}


def test_a_call_and_its_return_are_one_operation() -> None:
    lines = [call("a", 1, 10), call("b", 1, 11), back("b", 1, 12, OK, 7), back("a", 1, 13, FAIL, "run.ended")]
    given = {"run": "r"}
    assert told_by(lines) == [
        Operation("a", "get", "x", given, 10, 13, FAIL, "run.ended"),
        Operation("b", "get", "x", given, 11, 12, OK, 7),
    ]


def test_what_never_returned_is_unknown_and_has_no_end() -> None:
    killed, impatient = told_by([call("a", 1, 10), call("a", 2, 20), back("a", 2, 25, UNKNOWN)])
    assert (killed.outcome, killed.returned) == (UNKNOWN, None)
    assert (impatient.outcome, impatient.returned) == (UNKNOWN, None)


def test_operations_are_sorted_by_their_object() -> None:
    operations = told_by([call("a", 1, 10, "x"), call("a", 2, 20, "y"), call("b", 1, 30, "x")])
    assert {on: len(found) for on, found in by_object(operations).items()} == {"x": 2, "y": 1}


def test_an_operation_is_shown_in_one_line() -> None:
    (operation,) = told_by([call("a", 1, 10_000_000), back("a", 1, 12_500_000, OK, 7)])
    assert str(operation) == "[10.000 .. 12.500] a: get run='r' -> ok 7"
    assert str(operation._replace(outcome=UNKNOWN, returned=None)) == "[10.000 .. ?] a: get run='r' -> ?"
