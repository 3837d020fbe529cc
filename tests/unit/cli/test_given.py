"""What people type as input, by the agent's types: words, pairs, documents. Errors name the field and the place."""

import io
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

import pytest
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from stepwell.app import App
from stepwell.cli.given import input_for
from stepwell.domain.errors import InvalidInput, InvalidValue, NotFound, StepwellError
from stepwell.plugins import AgentDescription, describe
from stepwell.ports.context import Context


class Colour(StrEnum):
    RED = "red"
    DEEP_BLUE = "deep blue"


@dataclass
class Policy:
    allow: list[str]
    deny: list[str]
    since: date | None = None


class Address(BaseModel):
    street: str
    number: int = Field(gt=0)


class Order(BaseModel):
    amount: float
    day: date
    address: Address | None = None
    tags: list[str] = []
    gift: bool = False


class Point(TypedDict):
    x: int
    y: int


def agent_of(annotation: Any) -> AgentDescription:
    """An agent that takes this type."""

    async def agent(ctx: Context, value: Any) -> None: ...

    agent.__annotations__["value"] = annotation
    return describe(App("test").agent(agent))


def agent_without_input() -> AgentDescription:
    async def agent(ctx: Context) -> None: ...

    return describe(App("test").agent(agent))


def given(annotation: Any, *words: str, document: str | None = None) -> Any:
    return input_for(agent_of(annotation), words, document)


def refused(do: Callable[[], object]) -> StepwellError:
    with pytest.raises(StepwellError) as caught:
        do()
    return caught.value


# ---------------------------------------------------------------- words


@pytest.mark.parametrize(
    ("annotation", "words", "value"),
    [
        (str, ("Ada",), "Ada"),
        (str, ("Ada", "Lovelace"), "Ada Lovelace"),
        (str, ("",), ""),
        (str, ("12",), "12"),
        (str, ("a=b",), "a=b"),
        (int, ("12",), 12),
        (int, ("-5",), -5),
        (float, ("12.5",), 12.5),
        (bool, ("true",), True),
        (bool, ("no",), False),
        (date, ("2026-11-19",), date(2026, 11, 19)),
        (Colour, ("red",), Colour.RED),
        (Colour, ("deep", "blue"), Colour.DEEP_BLUE),
        (Decimal, ("1.10",), Decimal("1.10")),
        (UUID, ("5f3b1f6e-0000-4000-8000-000000000000",), UUID("5f3b1f6e-0000-4000-8000-000000000000")),
        (Path, ("a/b",), Path("a/b")),
        (Literal["a", "b"], ("b",), "b"),
        (int | str, ("5",), "5"),
        (int | None, ("5",), 5),
        (str | None, ("5",), "5"),
        (Any, ("some", "words"), "some words"),
    ],
)
def test_words_are_read_by_the_type_of_the_input(annotation: Any, words: tuple[str, ...], value: Any) -> None:
    read = given(annotation, *words)
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize("annotation", [str | None, Any, Policy | None])
def test_no_words_are_nothing_where_nothing_is_allowed(annotation: Any) -> None:
    assert given(annotation) is None


def test_an_agent_without_input_is_given_none() -> None:
    assert input_for(agent_without_input(), (), None) is None
    assert refused(lambda: input_for(agent_without_input(), ("Ada",), None)).code == "input.unexpected"
    assert refused(lambda: input_for(agent_without_input(), (), "1")).code == "input.unexpected"
    assert input_for(agent_without_input(), (), "null") is None


@pytest.mark.parametrize("annotation", [str, int, date, list[str]])
def test_missing_words_say_what_is_taken(annotation: Any) -> None:
    error = refused(lambda: given(annotation))
    assert error.code == "input.missing"
    assert "nothing was given" in error.message


def test_a_wrong_word_says_what_it_should_be() -> None:
    error = refused(lambda: given(int, "many"))
    assert isinstance(error, InvalidInput)
    assert error.message.startswith("input: Input should be a valid integer")


def test_a_list_cannot_be_said_in_words() -> None:
    error = refused(lambda: given(list[str], "a", "b"))
    assert (error.code, "--input" in (error.hint or "")) == ("input.shape", True)


def test_half_a_character_is_refused() -> None:
    error = refused(lambda: given(str, "\udcff"))
    assert (error.code, isinstance(error, InvalidValue)) == ("value.surrogate", True)


# ---------------------------------------------------------------- pairs


def test_pairs_are_read_by_the_types_of_the_fields() -> None:
    order = given(Order, "amount=12.5", "day=2026-11-19", "gift=yes")
    assert order == Order(amount=12.5, day=date(2026, 11, 19), gift=True)


def test_a_pair_of_json_may_stand_among_others() -> None:
    order = given(Order, "amount=12.5", "day=2026-11-19", 'tags:=["a", "b"]', "gift=yes")
    assert order == Order(amount=12.5, day=date(2026, 11, 19), tags=["a", "b"], gift=True)


def test_a_dotted_key_reaches_inside() -> None:
    order = given(Order, "amount=1", "day=2026-11-19", "address.street=Main St", "address.number=7")
    assert order.address == Address(street="Main St", number=7)


def test_a_value_may_hold_anything_behind_the_first_equals_sign() -> None:
    assert given(dict[str, str], "url=http://x/?a=b:=c", "empty=") == {"url": "http://x/?a=b:=c", "empty": ""}


def test_objects_of_all_kinds() -> None:
    assert given(Point, "x=1", "y=2") == {"x": 1, "y": 2}
    assert given(dict, "x=1", "y:=2") == {"x": "1", "y": 2}
    assert given(Policy, 'allow:=["MIT"]', "deny:=[]", "since=2026-01-01") == Policy(["MIT"], [], date(2026, 1, 1))
    assert given(Policy | None, 'allow:=["MIT"]', "deny:=[]") == Policy(["MIT"], [])


def test_text_or_object_is_told_apart_by_the_words() -> None:
    assert given(str | Point, "x=1", "y=2") == {"x": 1, "y": 2}
    assert given(str | Point, "hello") == "hello"


def test_every_wrong_field_is_named() -> None:
    error = refused(lambda: given(Order, "amount=lots", "day=never"))
    assert [line.split(":")[0] for line in error.message.split("\n")] == ["input.amount", "input.day"]


def test_missing_fields_are_named_also_when_nothing_was_given() -> None:
    error = refused(lambda: given(Order))
    assert error.message == "input.amount: Field required\ninput.day: Field required"


def test_a_wrong_field_inside_is_named_with_its_path() -> None:
    error = refused(lambda: given(Order, "amount=1", "day=2026-11-19", "address.street=x", "address.number=0"))
    assert error.message.startswith("input.address.number: Input should be greater than 0")


def test_an_unknown_field_is_answered_with_a_near_one() -> None:
    error = refused(lambda: given(Order, "amout=1"))
    assert error.message == "input.amout: agent 'agent' has no such field"
    assert error.hint == "did you mean: amount"
    assert refused(lambda: given(Policy, "x=1")).hint == "fields: allow, deny, since"


@pytest.mark.parametrize("words", [("amount=1", "amount=2"), ("address=x", "address.street=y")])
def test_a_field_that_is_given_twice_is_refused(words: tuple[str, ...]) -> None:
    assert refused(lambda: given(Order, *words)).code == "input.twice"


def test_a_word_that_is_no_pair_is_refused() -> None:
    error = refused(lambda: given(Order, "amount=1", "today"))
    assert error.code == "input.shape"
    assert "amount=number day=date" in error.message


def test_a_broken_pair_of_json_is_refused_with_its_place() -> None:
    error = refused(lambda: given(Order, "tags:=[1"))
    assert (error.code, "input.tags" in error.message) == ("value.json", True)


# ---------------------------------------------------------------- documents


def test_a_document_may_be_json_on_the_command_line() -> None:
    assert given(Point, document='{"x": 1, "y": 2}') == {"x": 1, "y": 2}
    assert given(str, document='"Ada"') == "Ada"


def test_a_document_is_not_read_leniently() -> None:
    error = refused(lambda: given(Point, document='{"x": "1", "y": 2}'))
    assert error.message.startswith("input.x: Input should be a valid integer")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("policy.json", '{"allow": ["MIT"], "deny": [], "since": "2026-01-01"}'),
        ("policy.yaml", "allow: [MIT]  # comment\ndeny: []\nsince: 2026-01-01\n"),
        ("policy.YML", "allow:\n  - MIT\ndeny: []\nsince: 2026-01-01\n"),
        ("policy", '{"allow": ["MIT"], "deny": [], "since": "2026-01-01"}'),
    ],
)
def test_a_document_may_be_a_file_json_or_yaml_by_its_ending(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    assert given(Policy, document=f"@{tmp_path / name}") == Policy(["MIT"], [], date(2026, 1, 1))


def test_a_document_may_come_from_stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b'{"x": 1, "y": 2}')))
    assert given(Point, document="-") == {"x": 1, "y": 2}


def test_a_wrong_field_in_a_file_says_which_file(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text("allow: MIT\ndeny: []\n")
    error = refused(lambda: given(Policy, document=f"@{file}"))
    assert error.message.startswith("input.allow: ")
    assert error.__notes__ == [f"in {file}"]


@pytest.mark.parametrize(
    ("name", "text", "part"),
    [
        ("x.json", '{"x": 1,}', "line 1, column"),
        ("x.json", '{\n"x" 1}', "line 2, column 5"),
        ("x.yaml", "x: [1\n", "x.yaml:2:1"),
        ("x.yaml", "x: 1\nx: 2\n", "x.yaml:2:1"),
        ("x.yaml", b"\xff", "x.yaml is not UTF-8"),
        ("x.json", b"\xff", "x.json is not UTF-8"),
    ],
)
def test_a_broken_file_is_refused_with_its_place(tmp_path: Path, name: str, text: str | bytes, part: str) -> None:
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    error = refused(lambda: given(Point, document=f"@{tmp_path / name}"))
    assert isinstance(error, InvalidInput)
    assert part in error.message
    assert str(tmp_path / name) in error.message


@pytest.mark.parametrize(
    ("document", "code"),
    [
        ('{"x": NaN}', "value.nan"),
        ('{"x": 1e999}', "value.nan"),
        ('{"x": "a\\u0000b"}', "value.nul"),
        ('{"x": "\\ud800"}', "value.surrogate"),
        ('{"x": 9007199254740993}', "value.integer_range"),
        ('{"x": 1, "x": 2}', "value.duplicate_key"),
        ("[" * 100 + "]" * 100, "value.depth"),
        ("[" * 100_000, "value.depth"),
    ],
)
def test_what_is_no_value_is_refused_with_its_path(document: str, code: str) -> None:
    error = refused(lambda: given(Any, document=document))
    assert error.code == code
    assert error.message.startswith("input")


def test_text_that_is_no_json_says_how_plain_words_are_given() -> None:
    error = refused(lambda: given(str, document="Ada"))
    assert "without --input" in (error.hint or "")


def test_a_missing_file_is_answered_with_a_near_match(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text("")
    error = refused(lambda: given(Policy, document=f"@{tmp_path / 'polcy.yaml'}"))
    assert isinstance(error, NotFound)
    assert error.hint == f"did you mean: {tmp_path / 'policy.yaml'}"
    assert refused(lambda: given(Policy, document="@nowhere/at/all.json")).code == "input.file"


def test_a_folder_is_no_document(tmp_path: Path) -> None:
    assert refused(lambda: given(Policy, document=f"@{tmp_path}")).code == "input.file"


def test_an_endless_file_is_not_read_to_its_end() -> None:
    assert refused(lambda: given(str, document="@/dev/zero")).code == "input.size"


def test_words_and_a_document_contradict_each_other() -> None:
    assert refused(lambda: given(str, "Ada", document='"Ada"')).code == "input.twice"
