"""What is read in a session, made by hand: what its runs put there, and what they did not."""

from __future__ import annotations

import pytest

from tests.histories.appends import (
    ISOLATED,
    SHARED,
    SYNCHRONIZED,
    AppendsBroken,
    Hearing,
    Telling,
    check_session,
    check_total,
)

A = Telling("a", 2, SHARED, 10, 20, ("a:0", "a:1"), (1, 2))
B = Telling("b", 1, SHARED, 30, 40, ("a:0", "a:1", "b:0"), (3,))
LOST = Telling("c", 2, SHARED, 50)
ALL = ("a:0", "a:1", "b:0", "c:0")


def heard(*messages: str, at: int = 60) -> Hearing:
    return Hearing(at, at + 5, messages=messages)


def counted(count: int, at: int = 60) -> Hearing:
    return Hearing(at, at + 5, counted=count)


@pytest.mark.parametrize(
    ("tellings", "hearings"),
    [
        ([], [heard(), counted(0)]),
        ([A, B], [heard(*ALL[:3]), counted(3)]),
        ([A, B, LOST], [heard(*ALL), counted(3), counted(4, at=70)]),
        ([A, B, LOST], [heard(*ALL[:3]), counted(5)]),
        ([A, B], [heard(at=1), heard("a:0", at=12), heard("a:0", "a:1", at=25)]),
        ([A._replace(scope=ISOLATED), B._replace(read=("b:0",), counts=(1,))], [heard("b:0"), counted(1)]),
    ],
)
def test_what_runs_put_there_may_be_read(tellings: list[Telling], hearings: list[Hearing]) -> None:
    check_session(tellings, hearings)


IN_TURN = [
    Telling("a", 2, SYNCHRONIZED, 10, 90, ("a:0", "b:0", "a:1"), (1, 3)),
    Telling("b", 1, SYNCHRONIZED, 10, 90, ("a:0", "b:0"), (2,)),
]
APART = A._replace(scope=ISOLATED)

WRONG = {
    "a lost append": ([A, B], [heard("a:0", "a:1")], "acknowledged"),
    "a lost append in the middle": ([A, B._replace(read=("a:0", "b:0"))], [], "at place 1"),
    "an append twice": ([A], [heard("a:0", "a:1", "a:1")], "is there"),
    "appends out of order": ([A._replace(read=("a:1", "a:0"))], [], "is there"),
    "two orders": ([A, B], [heard("b:0")], "at place 0"),
    "what nobody said": ([A], [heard("a:0", "a:1", "x:0")], "nobody said it"),
    "a stale read": ([A, B], [heard(*ALL[:3], at=45), heard("a:0", "a:1", at=60)], "acknowledged before it began"),
    "a read that goes back": ([A, LOST], [heard("a:0", "a:1", "c:0", at=60), heard("a:0", "a:1", at=80)], "later"),
    "a read of the future": ([A, B], [heard(*ALL[:3], at=21)], "asked for only afterwards"),
    "not its own words": ([A._replace(read=("a:0",)), B], [heard(*ALL[:3])], "itself"),
    "spoken between": (IN_TURN, [], "in between"),
    "isolated, and heard": ([APART], [heard("a:0", "a:1")], "nobody said it"),
    "isolated, and hears": ([APART._replace(read=("b:0", "a:0", "a:1"))], [], "is alone"),
    "isolated, and counts with others": ([APART._replace(counts=(4, 5))], [], "is alone"),
    "a lost increment": ([A, B._replace(counts=(2,))], [], "same number"),
    "an increment too many": ([A, B], [counted(9)], "with 3 increments"),
    "a count that goes back": ([A, B, LOST], [counted(5), counted(4, at=80)], "later"),
    "a count that misses one": ([A], [counted(1)], "was seen later"),
    "a count of the past": ([A._replace(counts=(2, 3)), B._replace(counts=(1,))], [], "was seen later"),
    "a count in disorder": ([A._replace(counts=(2, 1))], [], "counted"),
}


@pytest.mark.parametrize(("tellings", "hearings", "why"), WRONG.values(), ids=WRONG)
def test_what_they_did_not_is_noticed(tellings: list[Telling], hearings: list[Hearing], why: str) -> None:
    with pytest.raises(AppendsBroken, match=why):
        check_session(tellings, hearings)


def test_when_all_has_ended_nothing_is_missing() -> None:
    check_total([A, B, APART], counted(3))
    check_total([A, B, APART], heard(*ALL[:3]))
    with pytest.raises(AppendsBroken, match="the count is 2"):
        check_total([A, B], counted(2))
    with pytest.raises(AppendsBroken, match="2 are there"):
        check_total([A, B], heard("a:0", "b:0"))
