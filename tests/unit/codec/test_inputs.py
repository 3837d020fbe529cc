"""Data from outside becomes typed input, or is refused line by line."""

from collections.abc import Callable
from datetime import date
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepwell.codec import codec_for, decode_input, encode_input, json_schema
from stepwell.domain.errors import InvalidDefinition, InvalidInput, InvalidValue
from tests.unit.codec.samples import (
    ANNOTATIONS,
    EMPTY,
    Address,
    Aliased,
    Colour,
    Even,
    Item,
    Mood,
    Order,
    Point,
    Renamed,
    SpecialItem,
    Ticket,
    anything,
    run_python,
)

# --- input ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("annotation", "plain", "typed"),
    [
        (EMPTY, {"a": 1}, {"a": 1}),
        (str, "a", "a"),
        (float, 1, 1.0),
        (str | None, None, None),
        (None, None, None),
        (date, "2026-01-02", date(2026, 1, 2)),
        (list[Colour], ["red"], [Colour.RED]),
        (tuple[int, str], [1, "a"], (1, "a")),
        (set[int], [1, 2], {1, 2}),
        (bytes, "_w==", b"\xff"),
        (dict[int, UUID], {"1": str(UUID(int=1))}, {1: UUID(int=1)}),
        (Item, {"name": "a"}, Item("a")),
        (Ticket, {"id": 1, "colour": "blue", "unknown": 1}, Ticket(id=1, colour=Colour.BLUE)),
        (Aliased, {"nr": 1}, Aliased(number=1)),
        (list[Item | Point], [{"name": "a"}, [1, 2]], [Item("a"), Point(1, 2)]),
    ],
)
def test_plain_data_from_outside_becomes_typed(annotation: Any, plain: Any, typed: Any) -> None:
    assert repr(decode_input(annotation, plain)) == repr(typed)
    text = encode_input(annotation, plain)
    assert repr(codec_for(annotation).decode(text, "input")) == repr(typed)
    assert encode_input(annotation, typed) == text


@pytest.mark.parametrize(
    ("annotation", "plain", "lines"),
    [
        (str, {"name": "Ada"}, ["input: Input should be a valid string (got {'name': 'Ada'})"]),
        (int, "5", ["input: Input should be a valid integer (got '5')"]),
        (int, True, ["input: Input should be a valid integer (got True)"]),
        (float, "1", ["input: Input should be a valid number (got '1')"]),
        (bool, 1, ["input: Input should be a valid boolean (got 1)"]),
        (None, 0, ["input: Input should be null (got 0)"]),
        (str | None, 1, ["input: Input should be a valid string or null (got 1)"]),
        (Item, "a", ["input: Input should be an object (got 'a')"]),
        (Item, {}, ["input.name: Field required"]),
        (Item, {"name": "a", "pirce": 1}, ["input.pirce: Unknown field"]),
        (
            Item,
            {"name": 1, "price": "x", "odd key": 2},
            [
                "input.name: Input should be a valid string (got 1)",
                "input.price: Input should be a valid number (got 'x')",
                'input["odd key"]: Unknown field',
            ],
        ),
        (
            Order,
            {"items": [{"name": "a"}, {}, {"name": 5}]},
            ["input.items[1].name: Field required", "input.items[2].name: Input should be a valid string (got 5)"],
        ),
        (Ticket, {"id": "1"}, ["input.id: Input should be a valid integer (got '1')"]),
        (Even, {"number": 3}, ["input.number: must be even (got 3)"]),
        (Renamed, {"number": 3}, ["input.no: Field required"]),
        (Address, {"since": 5}, ["input.since: Input should be a valid date (got 5)"]),
        (
            Item | Ticket,
            {"name": 1},
            ["input.name: Input should be a valid string (got 1)", "input.id: Field required"],
        ),
        (tuple[int, str], [1], ["input[1]: Field required"]),
        (list[int], [1, 2.5], ["input[1]: Input should be a valid integer (got 2.5)"]),
    ],
)
def test_input_that_does_not_fit_is_refused_line_by_line(annotation: Any, plain: Any, lines: list[str]) -> None:
    for take in (decode_input, encode_input):
        with pytest.raises(InvalidInput) as caught:
            take(annotation, plain)
        assert caught.value.message.split("\n") == lines
        assert caught.value.path == lines[0].split(": ")[0]
        assert caught.value.code == "input.invalid"


def test_very_many_faults_are_counted_and_not_listed() -> None:
    with pytest.raises(InvalidInput) as caught:
        decode_input(list[int], ["x"] * 1000)
    lines = caught.value.message.split("\n")
    assert len(lines) == 21
    assert lines[-1] == "input: and 980 more"


def test_a_long_value_is_shortened_in_the_error() -> None:
    with pytest.raises(InvalidInput) as caught:
        decode_input(list[int], ["x" * 100_000])
    assert len(caught.value.message) < 200


@pytest.mark.parametrize("take", [decode_input, encode_input])
@pytest.mark.parametrize(
    ("annotation", "plain", "path", "code"),
    [
        (EMPTY, {"a": float("nan")}, "input.a", "value.nan"),
        (Ticket, {"id": 1, "score": float("nan")}, "input.score", "value.nan"),
        (Item, {"name": "\x00"}, "input.name", "value.nul"),
        (list[str], ["\ud800"], "input[0]", "value.surrogate"),
        (int, 2**53, "input", "value.integer_range"),
    ],
)
def test_input_that_is_no_value_is_refused(take: Any, annotation: Any, plain: Any, path: str, code: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        take(annotation, plain)
    assert (caught.value.path, caught.value.code) == (path, code)


@pytest.mark.parametrize(
    ("annotation", "value", "path"),
    [
        (Item, SpecialItem("a"), "input"),
        (Item, Ticket(id=1), "input.name"),
        (Item, Item(1), "input.name"),  # type: ignore[arg-type]  # that is the point
        (Item, {"name": date(2026, 1, 2)}, "input"),
        (list[int], (1, 2), "input"),
        (EMPTY, Item("a"), "input"),
        (str, Mood.GOOD, "input"),
        (dict[str, int], {1: 1}, "input[1]"),
    ],
)
def test_an_object_of_another_type_is_no_input(annotation: Any, value: Any, path: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        encode_input(annotation, value)
    assert caught.value.path == path
    assert "pass " in str(caught.value)


def test_equal_inputs_have_equal_text_in_every_process() -> None:
    code = """
from dataclasses import dataclass
from stepwell.codec import encode_input

@dataclass(frozen=True)
class Tags:
    names: frozenset[str]

words = ["a", "b", "c", "d", "e"]
value = {1: [Tags(frozenset(words))], 2: [Tags(frozenset()), Tags(frozenset("z"))]}
print(encode_input(dict[int, list[Tags]], value))
print(encode_input(set[Tags], {Tags(frozenset(words[:n])) for n in range(5)}))
print(encode_input(tuple[set[str], list[str]], [words, ["b", "a"]]))
"""
    printed = {run_python(code, PYTHONHASHSEED=seed) for seed in ("0", "1", "2", "3")}
    assert len(printed) == 1
    last = printed.pop().splitlines()[-1]
    assert last == '[["a","b","c","d","e"],["b","a"]]'


def test_the_text_of_an_input_reads_back_also_where_fields_have_aliases() -> None:
    text = encode_input(Renamed, {"no": 1})
    assert codec_for(Renamed).decode(text, "input") == Renamed(no=1)


def test_the_schema_of_an_input_is_json_schema() -> None:
    assert json_schema(EMPTY) == {}
    assert json_schema(str) == {"type": "string"}
    assert json_schema(str | None) == {"type": ["string", "null"]}
    assert json_schema(date) == {"type": "string", "format": "date"}
    described = json_schema(Item)
    assert described["required"] == ["name"]
    assert described["additionalProperties"] is False
    assert json_schema(Ticket)["properties"]["id"]["type"] == "integer"
    with pytest.raises(InvalidDefinition, match="no JSON Schema"):
        json_schema(Callable[[], int])


@given(anything, st.sampled_from(ANNOTATIONS))
def test_any_value_is_an_input_or_refused(value: Any, annotation: Any) -> None:
    try:
        text = encode_input(annotation, value)
    except (InvalidInput, InvalidValue) as error:
        refused = error
    else:
        codec_for(annotation).decode(text, "input")
        return
    assert (refused.path or "").startswith("input")
