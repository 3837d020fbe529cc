"""Answers as people type them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from enum import IntEnum, StrEnum
from typing import Any, Literal

import pytest

from stepwell.cli.answers import choices, read_answer
from stepwell.codec import json_schema
from stepwell.domain.errors import InvalidInput


class Verdict(StrEnum):
    ALLOW = "allow"
    DENY = "deny"


class Level(IntEnum):
    LOW = 1
    HIGH = 2


class Cased(StrEnum):
    UPPER = "A"
    LOWER = "a"


@dataclass
class Line:
    item: str
    count: int = 1


READ: list[tuple[Any, str, Any]] = [
    (bool, "yes", True),
    (bool, "Y", True),
    (bool, "true", True),
    (bool, " no ", False),
    (bool, "n", False),
    (bool, "False", False),
    (str, "yes", "yes"),
    (str, "5", "5"),
    (str, '"quoted"', '"quoted"'),
    (str, "", ""),
    (str | None, "null", "null"),
    (int, "5", 5),
    (int, "-5", -5),
    (float, "5", 5),
    (float, "2.5", 2.5),
    (Verdict, "deny", "deny"),
    (Verdict, "DENY", "deny"),
    (Level, "2", 2),
    (Cased, "A", "A"),
    (Cased, "a", "a"),
    (Literal["yes", "no"], "yes", "yes"),
    (int | None, "none", None),
    (int | None, "null", None),
    (int | bool, "yes", True),
    (int | bool, "1", 1),
    (date, "2026-11-19", "2026-11-19"),
    (Line, '{"item": "nut"}', {"item": "nut"}),
    (list[int], "[1, 2]", [1, 2]),
    (Any, '{"a": 1}', {"a": 1}),
    (Any, "plain words", "plain words"),
]


@pytest.mark.parametrize(("annotation", "text", "value"), READ, ids=range(len(READ)))
def test_a_text_is_read_by_what_is_asked_for(annotation: Any, text: str, value: Any) -> None:
    read = read_answer(json_schema(annotation), text)
    assert (type(read), read) == (type(value), value)


REFUSED: list[tuple[Any, str, str, str]] = [
    (bool, "maybe", "answer: 'maybe' is not yes/no", "it asks for: yes/no"),
    (bool, "1", "answer: should be true or false (got 1)", "it asks for: yes/no"),
    (Verdict, "al", "answer: should be 'allow' or 'deny' (got 'al')", "it asks for: allow/deny"),
    (int, "five", "answer: 'five' is not integer", "it asks for: integer"),
    (int, "5.5", "answer: should be a whole number (got 5.5)", "it asks for: integer"),
    (date, "tomorrow", "answer: should be a date like 2026-11-19 (got 'tomorrow')", "it asks for: date"),
    (Line, '{"count": 1}', "answer.item: is missing", "it asks for: JSON (item=text [count=integer])"),
    (list[int], "1, 2", "answer: '1, 2' is not JSON", "it asks for: JSON ([integer])"),
]


@pytest.mark.parametrize(("annotation", "text", "told", "hint"), REFUSED, ids=range(len(REFUSED)))
def test_what_does_not_fit_is_refused_with_what_is_asked_for(annotation: Any, text: str, told: str, hint: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        read_answer(json_schema(annotation), text)
    assert (refused.value.code, refused.value.message) == ("answer.invalid", told)
    assert refused.value.hint == hint


def test_a_choice_may_stand_beside_an_object() -> None:
    from stepwell.domain.wait import VERDICT

    assert choices(VERDICT) == "rerun/fail or JSON (done=any)"
    assert read_answer(VERDICT, "Rerun") == "rerun"
    assert read_answer(VERDICT, '{"done": [1]}') == {"done": [1]}
    with pytest.raises(InvalidInput):
        read_answer(VERDICT, "done")


def test_numbers_that_json_cannot_carry_are_refused() -> None:
    with pytest.raises(InvalidInput) as refused:
        read_answer(json_schema(int), "9" * 20)
    assert refused.value.code == "answer.invalid"


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        (bool, "yes/no"),
        (Verdict, "allow/deny"),
        (str, "text"),
        (int, "integer"),
        (Line, "JSON (item=text [count=integer])"),
    ],
    ids=range(5),
)
def test_what_may_be_typed_is_told_in_a_few_words(annotation: Any, text: str) -> None:
    assert choices(json_schema(annotation)) == text
