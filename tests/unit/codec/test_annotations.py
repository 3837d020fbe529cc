"""An annotation has one codec, and one that is not data is named as a wrong definition."""

import warnings
from dataclasses import dataclass
from typing import Annotated, Any

import pytest
from pydantic import (
    BaseModel,
    Field,
)

from stepwell.codec import codec_for, decode_input, json_schema
from stepwell.domain.errors import InvalidDefinition
from tests.unit.codec.samples import Item, Loose, Pool, refusal, remember, run_python

# --- annotations ------------------------------------------------------------------------------------------------------


def test_a_codec_is_built_once_for_each_annotation() -> None:
    assert codec_for(Item) is codec_for(Item)
    assert codec_for(list[Item]) is codec_for(list[Item])
    assert codec_for(Annotated[int, ["unhashable"]]).encode(1, "fetch") == "1"


def test_equal_annotations_of_another_order_keep_their_own_meaning() -> None:
    @dataclass
    class Left:
        a: int

    @dataclass
    class Right:
        a: int

    assert (Left | Right) == (Right | Left)
    assert type(codec_for(Left | Right).decode('{"a":1}', "fetch")) is Left
    assert type(codec_for(Right | Left).decode('{"a":1}', "fetch")) is Right


class Unfinished(BaseModel):
    missing: "Undefined"  # type: ignore[name-defined]  # noqa: F821 - that is the point


@pytest.mark.parametrize(
    "annotation",
    [Pool, list[Pool], dict[str, "Undefined"], Unfinished, bytearray],  # type: ignore[name-defined]  # noqa: F821 - that is the point
)
def test_an_annotation_that_is_not_data_is_a_wrong_definition(annotation: Any) -> None:
    for use in (
        lambda: remember(annotation, 1),
        lambda: codec_for(annotation).decode("1", "fetch"),
        lambda: decode_input(annotation, 1),
        lambda: json_schema(annotation),
    ):
        with pytest.raises(InvalidDefinition, match="cannot be stored") as caught:
            use()
        assert caught.value.code == "definition.type"
        assert caught.value.hint


def test_no_warning_of_pydantic_shows() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        annotation = Annotated[int, Field(default=3, alias="x")]
        assert remember(list[annotation], [1])[1] == [1]
        refusal(Item, Item(1))  # type: ignore[arg-type]  # that is the point
        json_schema(Loose)


def test_plain_values_never_import_pydantic() -> None:
    code = """
import sys
from dataclasses import dataclass
from typing import Any
from stepwell.codec import codec_for, decode_input, encode_input, fingerprint, json_schema

@dataclass
class Item:
    name: str

plain = [(str, "a"), (dict, {"a": [1]}), (Any, None), (list[Any], []), (float | None, 1.5), (None, None)]
for annotation, value in plain:
    codec = codec_for(annotation)
    assert codec.decode(codec.encode(value, "x"), "x") == value
    assert decode_input(annotation, value) == value
    encode_input(annotation, value)
    json_schema(annotation)
codec_for(Item)
fingerprint((1, "a", Item("x"), {1, 2}), "x")
assert "pydantic" not in sys.modules
codec_for(Item).encode(Item("x"), "x")
assert "pydantic" in sys.modules
"""
    assert run_python(code) == ""
