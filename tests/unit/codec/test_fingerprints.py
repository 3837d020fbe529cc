"""Fingerprints of arguments: equal for equal data, in every process."""

from collections import deque
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from ipaddress import IPv4Address
from pathlib import Path, PurePosixPath
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from pydantic import (
    HttpUrl,
    SecretStr,
)

from stepwell.codec import fingerprint
from stepwell.domain.errors import InvalidValue
from tests.unit.codec.samples import (
    BERLIN,
    Colour,
    Item,
    Level,
    Loose,
    Mood,
    Opaque,
    Open,
    Page,
    Point,
    Pool,
    Right,
    SpecialItem,
    Ticket,
    anything,
    naive_second_hour,
    run_python,
)

# --- fingerprints -----------------------------------------------------------------------------------------------------

DIFFERENT: list[tuple[Any, ...]] = [
    (),
    (None,),
    (True,),
    (False,),
    (1,),
    (1.0,),
    (0,),
    ("1",),
    ("",),
    ("true",),
    ("null",),
    (1, 2),
    ("1 2",),
    ("1", "2"),
    ('"1" "2"',),
    (2**60,),
    (10**5000,),
    (-(10**5000),),
    ("\ud800",),
    ("\x00",),
    ([],),
    ((),),
    ({},),
    (set(),),
    ([1],),
    ((1,),),
    ({1},),
    (deque([1]),),
    ([[1]],),
    ([1, 2],),
    ([2, 1],),
    ({"a": 1},),
    ({"a": "1"},),
    ({1: "a"},),
    ({"1": "a"},),
    ({True: "a"},),
    (b"1",),
    (bytearray(b"1"),),
    (Item("a"),),
    (Item("b"),),
    (SpecialItem("a"),),
    ({"name": "a", "price": 0.0},),
    (Opaque("a"),),
    (Opaque("b"),),
    (Point(1, 2),),
    (Ticket(id=1),),
    (Ticket(id=2),),
    (Open(name="a", more=1),),  # type: ignore[call-arg]  # extra fields are allowed
    (Open(name="a"),),
    (Colour.RED,),
    (Colour.BLUE,),
    ("red",),
    (Mood.GOOD,),
    ("good",),
    (Level.LOW,),
    (Right.READ,),
    (Right.READ | Right.WRITE,),
    (Right(0),),
    (date(2026, 1, 2),),
    (datetime(2026, 1, 2, tzinfo=UTC),),
    (datetime(2026, 1, 2),),  # noqa: DTZ001 - naive on purpose
    (naive_second_hour,),
    (naive_second_hour.replace(fold=0),),
    ("2026-01-02",),
    (time(1),),
    (timedelta(1),),
    (BERLIN,),
    (Decimal(1),),
    (Decimal("1.0"),),
    (Fraction(1),),
    (UUID(int=1),),
    (str(UUID(int=1)),),
    (PurePosixPath("a"),),
    ("a",),
    (IPv4Address("127.0.0.1"),),
    (HttpUrl("https://example.org"),),
]


def test_different_arguments_have_different_fingerprints() -> None:
    assert len({fingerprint(args, "greet") for args in DIFFERENT}) == len(DIFFERENT)


@pytest.mark.parametrize("args", DIFFERENT)
def test_a_fingerprint_is_short_text_and_stays(args: tuple[Any, ...]) -> None:
    first = fingerprint(args, "greet")
    assert len(first) == 32
    assert fingerprint(args, "another step") == first


def test_order_counts_where_it_means_something() -> None:
    assert fingerprint(({"a": 1, "b": {2, 3}},), "x") == fingerprint(({"b": {3, 2}, "a": 1},), "x")
    assert fingerprint((frozenset("ab"),), "x") == fingerprint((set("ba"),), "x")
    assert fingerprint(([1, 2],), "x") != fingerprint(([2, 1],), "x")
    assert fingerprint((1, 2), "x") != fingerprint((2, 1), "x")


def test_a_secret_counts_by_its_mask() -> None:
    assert fingerprint((SecretStr("a"),), "x") == fingerprint((SecretStr("b"),), "x")


def test_a_parametrised_model_counts_as_its_model() -> None:
    assert fingerprint((Page[int](items=[1]),), "x") == fingerprint((Page(items=[1]),), "x")


@pytest.mark.parametrize(
    ("args", "says", "path", "code"),
    [
        ((Pool(),), "greet: argument 1 (Pool) is not data", "argument 1", "step.argument"),
        ((1, [Pool()]), "greet: argument 2[0] (Pool) is not data", "argument 2[0]", "step.argument"),
        ((Loose(print),), "argument 1.anything (builtin_function_or_method)", "argument 1.anything", "step.argument"),
        ((Item,), "argument 1 (type) is not data", "argument 1", "step.argument"),
        ((iter([1]),), "argument 1 (list_iterator) is not data", "argument 1", "step.argument"),
        ((1, float("nan")), "greet: argument 2 is not a finite number", "argument 2", "value.nan"),
        (([float("inf")],), "argument 1[0] is not a finite number", "argument 1[0]", "value.nan"),
        ((Decimal("NaN"),), "argument 1 is not a finite number", "argument 1", "value.nan"),
    ],
)
def test_arguments_that_are_not_data_are_named(args: tuple[Any, ...], says: str, path: str, code: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        fingerprint(args, "greet")
    assert says in caught.value.message
    assert (caught.value.path, caught.value.code) == (path, code)
    assert code != "step.argument" or "make the step a method of ctx.deps" in str(caught.value)


def test_an_argument_that_contains_itself_is_refused() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(InvalidValue) as caught:
        fingerprint((endless,), "greet")
    assert caught.value.code == "value.depth"


def test_a_fingerprint_is_the_same_in_another_process_and_module() -> None:
    code = """
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from enum import Enum
from pathlib import Path
from stepwell.codec import fingerprint

class Colour(Enum):
    RED = "red"

@dataclass
class Item:
    name: str
    price: float = 0.0

args = (1, "ü", {"x": {"b", "a", "c"}, "y": None}, frozenset({Colour.RED, "z"}), Item("a"), date(2026, 1, 2), Path("p"),
        Decimal("1.5"), (True, b"1"))
"""
    args = (
        1,
        "ü",
        {"y": None, "x": {"a", "b", "c"}},
        frozenset({Colour.RED, "z"}),
        Item("a"),
        date(2026, 1, 2),
        Path("p"),
        Decimal("1.5"),
        (True, b"1"),
    )
    for seed in ("0", "1", "2"):
        printed = run_python(code + "print(fingerprint(args, 'x'), end='')", PYTHONHASHSEED=seed, PYTHONUTF8="1")
        assert printed == fingerprint(args, "greet")


@given(anything)
def test_any_argument_has_a_fingerprint_or_is_refused(value: Any) -> None:
    try:
        first = fingerprint((value,), "x")
    except InvalidValue as error:
        refused = error
    else:
        assert fingerprint((value,), "x") == first
        assert fingerprint((value, None), "x") != first
        return
    assert refused.path.startswith("argument 1")
