"""JSON Schemas in a few words, and the kinds of values that they take."""

from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from enum import IntEnum, StrEnum
from typing import Any, Literal

import pytest
from pydantic import BaseModel

from stepwell.cli.schemas import kinds, properties, summary
from stepwell.codec import json_schema


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


Many = IntEnum("Many", "ZERO ONE TWO THREE FOUR FIVE SIX SEVEN")


@dataclass
class Policy:
    allow: list[str]
    colour: Colour
    since: date | None = None


class Tree(BaseModel):
    name: str
    children: list["Tree"] = []


@pytest.mark.parametrize(
    ("annotation", "found", "text"),
    [
        (str, {"text"}, "text"),
        (int, {"number"}, "integer"),
        (bool, {"boolean"}, "boolean"),
        (date, {"word"}, "date"),
        (Colour, {"word"}, "red|blue"),
        (Many, {"word"}, "1|2|3|4|5|6|…"),
        (Literal["a"], {"word"}, "a"),
        (str | None, {"text", "null"}, "text|null"),
        (Decimal, {"number", "text"}, "number | text"),
        (list[int], {"array"}, "[integer]"),
        (dict[str, int], {"object"}, "object"),
        (Any, {"any"}, "any"),
        (None, {"null"}, "null"),
        (Policy, {"object"}, "allow=[text] colour=red|blue [since=date|null]"),
        (Policy | None, {"object", "null"}, "allow=[text] colour=red|blue [since=date|null] | null"),
        (Tree, {"object"}, "name=text [children=[object]]"),
    ],
)
def test_a_schema_in_a_few_words(annotation: Any, found: set[str], text: str) -> None:
    assert kinds(json_schema(annotation)) == found
    assert summary(json_schema(annotation)) == text


def test_the_fields_of_an_object() -> None:
    assert list(properties(json_schema(Policy))) == ["allow", "colour", "since"]
    assert list(properties(json_schema(Policy | None))) == ["allow", "colour", "since"]
    assert properties(json_schema(dict[str, int])) == {}
    assert properties(json_schema(str)) == {}
