"""Types and values of every kind that a user may annotate and return."""

import inspect
import os
import subprocess
import sys
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum, Flag, IntEnum, StrEnum
from pathlib import Path
from typing import Any, Generic, NamedTuple, NewType, TypeVar
from zoneinfo import ZoneInfo

import pytest
from hypothesis import strategies as st
from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    computed_field,
    field_serializer,
    field_validator,
)
from pydantic.dataclasses import dataclass as pydantic_dataclass
from typing_extensions import TypedDict

import stepwell.codec
from stepwell.codec import codec_for
from stepwell.domain.errors import InvalidValue

EMPTY = inspect.Parameter.empty
BERLIN = ZoneInfo("Europe/Berlin")
T = TypeVar("T")


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Mood(StrEnum):
    GOOD = "good"


class Level(IntEnum):
    LOW = 1


class Right(Flag):
    READ = 1
    WRITE = 2


class Stamp(Enum):
    EPOCH = (1970, 1, 1)


@dataclass
class Item:
    name: str
    price: float = 0.0


@dataclass
class SpecialItem(Item):
    discount: int = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    items: list[Item]
    due: date | None = None
    tags: frozenset[str] = frozenset()
    data: bytes = b""


@dataclass(eq=False)
class Opaque:
    name: str


@dataclass
class Cached:
    name: str
    cache: dict[str, int] = field(default_factory=dict, init=False, compare=False)


@dataclass
class Derived:
    name: str
    length: int = field(init=False, default=0)


@dataclass
class Tree:
    children: list["Tree"] = field(default_factory=list)


@dataclass
class Loose:
    anything: Any


@dataclass
class Box(Generic[T]):
    content: T


@pydantic_dataclass
class Checked:
    number: int


class Point(NamedTuple):
    x: int
    y: int


class Address(TypedDict, total=False):
    street: str
    since: date


class Ticket(BaseModel):
    id: int
    title: str = ""
    colour: Colour = Colour.RED
    score: float = 0.0


class UrgentTicket(Ticket):
    deadline: date


class Page(BaseModel, Generic[T]):
    items: list[T]


class Aliased(BaseModel):
    number: int = Field(validation_alias=AliasChoices("number", "no", "nr"), serialization_alias="Number")


class Renamed(BaseModel):
    number: int = Field(alias="no")


class Secretive(BaseModel):
    _note: str = PrivateAttr("none")
    name: str = ""


class Hidden(BaseModel):
    shown: int
    hidden: int = Field(0, exclude=True)


class Computed(BaseModel):
    model_config = ConfigDict(extra="forbid")
    side: int

    @computed_field  # type: ignore[prop-decorator]  # pydantic's own way
    @property
    def area(self) -> int:
        return self.side**2


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    name: str


class Blob(BaseModel):
    data: bytes


class Base64Blob(BaseModel):
    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")
    data: bytes


class Rounded(BaseModel):
    number: float

    @field_serializer("number")
    def round(self, number: float) -> float:
        return round(number, 1)


class Trimmed(BaseModel):
    numbers: list[int]

    @field_serializer("numbers")
    def trim(self, numbers: list[int]) -> list[int]:
        return numbers[:2]


class Broken(BaseModel):
    number: int

    @field_serializer("number")
    def fail(self, number: int) -> int:
        raise KeyError(number)


class Even(BaseModel):
    number: int

    @field_validator("number")
    @classmethod
    def is_even(cls, number: int) -> int:
        if number % 2:
            raise ValueError("must be even")
        return number


class Pool:
    """Not data: an open thing."""


UserId = NewType("UserId", int)


naive_second_hour = datetime(2026, 10, 25, 2, 30, fold=1)  # noqa: DTZ001 - naive on purpose


def remember(annotation: Any, value: object) -> tuple[str, Any]:
    """What a step called `fetch` with that return annotation remembers and gives."""
    return codec_for(annotation).remember(value, "fetch")


def refusal(annotation: Any, value: object) -> InvalidValue:
    """The error with which the value is refused."""
    with pytest.raises(InvalidValue) as caught:
        remember(annotation, value)
    return caught.value


def run_python(code: str, **environment: str) -> str:
    """What a program that imports this package prints, in a process of its own."""
    source = str(Path(stepwell.codec.__file__).parents[2])
    full = {**os.environ, "PYTHONPATH": source, **environment}
    ran = subprocess.run([sys.executable, "-c", code], env=full, capture_output=True, text=True, check=True)
    return ran.stdout


# --- strategies ------------------------------------------------------------------------------------------------------

words = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=8)
moments = st.datetimes(timezones=st.none() | st.just(UTC) | st.just(BERLIN), allow_imaginary=False)
items = st.builds(Item, words, st.floats(allow_nan=False, allow_infinity=False))
orders = st.builds(
    Order, items=st.lists(items, max_size=3), due=st.none() | st.dates(), tags=st.frozensets(words), data=st.binary()
)
tickets = st.builds(Ticket, id=st.integers(0, 2**53 - 1), title=words, colour=st.sampled_from(Colour))


leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=3)
    | st.dates()
    | st.decimals()
    | st.sampled_from([Colour.RED, Mood.GOOD, Level.LOW, Point(1, 2), Pool(), print])
    | items
    | tickets
    | st.builds(SpecialItem, words)
)
anything = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3)
        | st.tuples(inner, inner)
        | st.builds(Loose, inner)
    ),
    max_leaves=8,
)
ANNOTATIONS: list[Any] = [
    EMPTY, str, int, float, dict, list, None, bool, list[int], list[Any], dict[str, Any] | list[date], dict[int, Any],
    tuple[Any, Any], Loose, Item, Ticket, Item | Ticket | None, float | list[float], Decimal | str, date | int,
    Mood | int, bytes | str | float, list[Item | SpecialItem | Loose], dict[str, list[Decimal] | float],
]  # fmt: skip
