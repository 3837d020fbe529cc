"""Answers at the door: what fits the schema of a question is taken as plain data, what does not is told where."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from enum import Enum, IntEnum, StrEnum
from typing import Annotated, Any, Literal
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from stepwell.codec import codec_for, json_schema
from stepwell.codec.answers import encode_answer, plain_data
from stepwell.codec.schema_check import check_schema
from stepwell.domain.errors import InvalidInput, InvalidValue
from stepwell.domain.values import loads


class Verdict(StrEnum):
    ALLOW = "allow"
    DENY = "deny"


class Level(IntEnum):
    LOW = 1
    HIGH = 2


class Mixed(Enum):
    ONE = 1
    TEXT = "x"


@dataclass(frozen=True)
class Line:
    item: str
    count: int = 1


@dataclass
class Order:
    lines: list[Line]
    note: str | None = None
    totals: dict[str, float] = field(default_factory=dict)


class Card(BaseModel):
    kind: Literal["card"]
    number: Annotated[str, Field(pattern="^[0-9]+$", min_length=4)]


class Cash(BaseModel):
    kind: Literal["cash"]
    amount: Annotated[int, Field(gt=0, le=500, multiple_of=5)]


class Tree(BaseModel):
    name: str
    kids: list[Tree] = []


class Renamed(BaseModel):
    day: date = Field(alias="theDay")


Payment = Annotated[Card | Cash, Field(discriminator="kind")]

TAKEN: list[tuple[Any, Any, str]] = [
    (bool, True, "true"),
    (str, "", '""'),
    (int, 3, "3"),
    (float, 3, "3"),
    (float, 2.5, "2.5"),
    (Verdict, Verdict.DENY, '"deny"'),
    (Verdict, "deny", '"deny"'),
    (Level, Level.HIGH, "2"),
    (Mixed, Mixed.TEXT, '"x"'),
    (Literal["a", 2], 2, "2"),
    (int | None, None, "null"),
    (Line, Line("nut"), '{"item":"nut","count":1}'),
    (Line, {"item": "nut"}, '{"item":"nut"}'),
    (list[Line], [Line("nut", 2)], '[{"item":"nut","count":2}]'),
    (Order, Order([Line("a")], totals={"eur": 1}), '{"lines":[{"item":"a","count":1}],"note":null,"totals":{"eur":1}}'),
    (Card | Cash, Cash(kind="cash", amount=5), '{"kind":"cash","amount":5}'),
    (Payment, {"kind": "card", "number": "1234"}, '{"kind":"card","number":"1234"}'),
    (Tree, {"name": "a", "kids": [{"name": "b"}]}, '{"name":"a","kids":[{"name":"b"}]}'),
    (Renamed, Renamed(theDay=date(2026, 11, 21)), '{"theDay":"2026-11-21"}'),
    (date, date(2026, 11, 21), '"2026-11-21"'),
    (datetime, "2026-11-21T10:00:00Z", '"2026-11-21T10:00:00Z"'),
    (UUID, UUID(int=1), '"00000000-0000-0000-0000-000000000001"'),
    (tuple[int, str], (1, "a"), '[1,"a"]'),
    (tuple[int, ...], [1, 2, 3], "[1,2,3]"),
    (dict[str, int], {"a": 1}, '{"a":1}'),
    (Any, {"a": [1, None]}, '{"a":[1,null]}'),
    (bytes, b"\0\1", '"AAE="'),
]


@pytest.mark.parametrize(("annotation", "value", "text"), TAKEN, ids=range(len(TAKEN)))
def test_what_fits_is_taken_as_plain_data_that_the_type_can_read(annotation: Any, value: Any, text: str) -> None:
    assert encode_answer(json_schema(annotation), value) == text
    codec_for(annotation).accept(loads(text), "answer")


REFUSED: list[tuple[Any, Any, str]] = [
    (bool, 1, "answer: should be true or false (got 1)"),
    (bool, "yes", "answer: should be true or false (got 'yes')"),
    (str, 5, "answer: should be text (got 5)"),
    (int, True, "answer: should be a whole number (got True)"),
    (int, 1.0, "answer: should be a whole number (got 1.0)"),
    (float, "2.5", "answer: should be a number (got '2.5')"),
    (Verdict, "maybe", "answer: should be 'allow' or 'deny' (got 'maybe')"),
    (Level, True, "answer: should be 1 or 2 (got True)"),
    (Literal["a"], "b", "answer: should be 'a' (got 'b')"),
    (int | None, "x", "answer: should be a whole number or null (got 'x')"),
    (Line, {}, "answer.item: is missing"),
    (Line, [], "answer: should be an object (got [])"),
    (Line, {"item": "a", "cuont": 2}, "answer.cuont: is not a field that is known"),
    (list[Line], [{"item": "a"}, {"item": 2}], "answer[1].item: should be text (got 2)"),
    (Order, {"lines": [], "totals": {"eur": "1"}}, "answer.totals.eur: should be a number (got '1')"),
    (Card | Cash, {"kind": "cash"}, "answer.amount: is missing"),
    (Card | Cash, 7, "answer: should be an object (got 7)"),
    (Payment, {"kind": "card", "number": "12"}, "answer.number: should have at least 4 characters (got '12')"),
    (Payment, {"kind": "card", "number": "12x4"}, "answer.number: should match ^[0-9]+$ (got '12x4')"),
    (Payment, {"kind": "cash", "amount": 0}, "answer.amount: should be greater than 0 (got 0)"),
    (Payment, {"kind": "cash", "amount": 505}, "answer.amount: should be at most 500 (got 505)"),
    (Payment, {"kind": "cash", "amount": 7}, "answer.amount: should be a multiple of 5 (got 7)"),
    (Tree, {"name": "a", "kids": [{"nam": "b"}]}, "answer.kids[0].name: is missing"),
    (date, "tomorrow", "answer: should be a date like 2026-11-19 (got 'tomorrow')"),
    (datetime, "noon", "answer: should be a date and time like 2026-11-19T14:30:00Z (got 'noon')"),
    (UUID, "1", "answer: should be a UUID (got '1')"),
    (tuple[int, str], [1], "answer: should have at least 2 items (got [1])"),
    (tuple[int, str], [1, "a", 2], "answer: should have at most 2 items (got [1, 'a', 2])"),
    (tuple[int, str], ["a", 1], "answer[0]: should be a whole number (got 'a')"),
    (dict[Verdict, int], {"other": 1}, "answer.other: should be named 'allow', 'deny'"),
]


@pytest.mark.parametrize(("annotation", "value", "first"), REFUSED, ids=range(len(REFUSED)))
def test_what_does_not_fit_is_refused_with_its_place(annotation: Any, value: Any, first: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        encode_answer(json_schema(annotation), value)
    assert refused.value.code == "answer.invalid"
    assert refused.value.message.split("\n")[0] == first
    assert refused.value.path == first.partition(":")[0]


def test_all_that_is_wrong_is_told_at_once_up_to_a_bound() -> None:
    problems = check_schema(json_schema(list[int]), ["x"] * 100)
    assert len(problems) == 20
    assert [problem.path for problem in problems[:2]] == ["answer[0]", "answer[1]"]


def test_what_the_schema_does_not_say_may_be_anything() -> None:
    assert check_schema({}, {"a": [1]}) == []
    assert check_schema({"type": "object"}, {"a": [1]}) == []
    assert check_schema({"type": "string", "format": "unheard-of", "x": 1}, "a") == []
    assert check_schema({"type": "string", "pattern": r"^\p{L}+$"}, "a") == []  # not a pattern of Python's


def test_names_may_be_bound_by_patterns() -> None:
    schema = {"type": "object", "patternProperties": {"^x": {"type": "integer"}}}
    assert check_schema(schema, {"xa": 1}) == []
    assert [str(problem) for problem in check_schema(schema, {"xa": "1", "ya": 1})] == [
        "answer.xa: should be a whole number (got '1')",
        "answer.ya: is not a field that is known",
    ]


@pytest.mark.parametrize("value", [object(), float("nan"), {1: 2}, "\ud800"])
def test_what_is_no_data_is_refused(value: Any) -> None:
    with pytest.raises(InvalidInput):
        plain_data(value, "payload")


def test_data_inside_of_typed_objects_is_checked_too() -> None:
    with pytest.raises(InvalidInput, match="item"):
        plain_data(Line("a\0"), "payload")


def test_a_place_begins_with_the_name_of_what_is_sent() -> None:
    [problem] = check_schema({"type": "integer"}, "x", "payload")
    assert problem.path == "payload"


ANNOTATIONS: list[Any] = [bool, str, int, float, Verdict, Level, Line, list[int], Line | None, dict[str, int]]
leaves = st.none() | st.booleans() | st.integers(-5, 5) | st.floats(-2, 2) | st.sampled_from(["a", "allow"])
names = st.sampled_from(["item", "count", "x"])
json_values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=6,
)


@given(json_values, st.sampled_from(ANNOTATIONS))
def test_the_check_and_the_type_agree_on_what_fits(value: Any, annotation: Any) -> None:
    problems = check_schema(json_schema(annotation), value)
    try:
        codec_for(annotation).accept(value, "answer")
    except (InvalidInput, InvalidValue):
        assert problems
    else:
        assert problems == []


def test_an_aware_time_keeps_its_zone() -> None:
    moment = datetime(2026, 11, 21, 10, tzinfo=UTC)
    assert encode_answer(json_schema(datetime), moment) == '"2026-11-21T10:00:00Z"'
