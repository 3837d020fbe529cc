"""The value domain: what is accepted comes back unchanged, and what is refused is named with its place."""

import json
import subprocess
import sys
from enum import IntEnum, StrEnum
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import stepwell.domain.values as values_module
from stepwell.domain.errors import InvalidValue
from stepwell.domain.values import (
    MAX_DEPTH,
    MAX_INTEGER,
    Json,
    canonical,
    check,
    check_size,
    digest,
    dumps,
    loads,
    reread,
)


class Colour(StrEnum):
    RED = "red"


class Level(IntEnum):
    LOW = 1


class Named(dict[str, Any]):
    """A dict of a type of its own."""


def nested(levels: int, innermost: Any = None) -> Any:
    """Lists in lists: `nested(3)` is [[[None]]]."""
    value = innermost
    for _ in range(levels):
        value = [value]
    return value


text = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]))
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-MAX_INTEGER, MAX_INTEGER)
    | st.floats(allow_nan=False, allow_infinity=False)
    | text
)
values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(text, inner), max_leaves=30)


# --- what is accepted -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        0,
        -MAX_INTEGER,
        MAX_INTEGER,
        0.1,
        -0.0,
        1e308,
        5e-324,
        "",
        "é 漢 😀   \x01 \x7f \ufeff \uffff",
        [],
        {},
        {"": {"a b": [1, [2.5, None]]}},
        nested(MAX_DEPTH),
    ],
)
def test_a_value_of_the_domain_is_accepted_and_comes_back_the_same(value: Any) -> None:
    check(value)
    assert repr(loads(dumps(value))) == repr(value)
    assert repr(reread(dumps(value))) == repr(value)


@given(values)
def test_every_value_of_the_domain_comes_back_the_same(value: Any) -> None:
    check(value)
    written = dumps(value)
    assert repr(loads(written)) == repr(value)
    assert repr(loads(written.encode())) == repr(value)
    assert repr(reread(written)) == repr(value)
    assert repr(json.loads(canonical(value))) == repr(json.loads(json.dumps(value, sort_keys=True)))


def test_text_is_compact_keeps_the_order_of_keys_and_other_alphabets() -> None:
    assert dumps({"b": 1, "a": [True, None, "ü"]}) == '{"b":1,"a":[true,null,"ü"]}'


# --- what is refused --------------------------------------------------------------------------------------------------

nan, inf = float("nan"), float("inf")

REFUSED: list[tuple[Any, str, str]] = [
    (nan, "input", "value.nan"),
    ({"items": [1, 2, 3, {"price": nan}]}, "input.items[3].price", "value.nan"),
    ([inf], "input[0]", "value.nan"),
    ([-inf], "input[0]", "value.nan"),
    (MAX_INTEGER + 1, "input", "value.integer_range"),
    ({"id": -MAX_INTEGER - 1}, "input.id", "value.integer_range"),
    ({"id": 10**5000}, "input.id", "value.integer_range"),
    (["\ud800"], "input[0]", "value.surrogate"),
    (["é\udfff"], "input[0]", "value.surrogate"),
    ({"\ud800": 1}, 'input["\\ud800"]', "value.surrogate"),
    (["a\x00"], "input[0]", "value.nul"),
    (["é\x00"], "input[0]", "value.nul"),
    ({"a": {"\x00": 1}}, 'input.a["\\u0000"]', "value.nul"),
    ({"a": {1: 1}}, "input.a[1]", "value.key"),
    ({None: 1}, "input[None]", "value.key"),
    ({Colour.RED: 1}, "input.red", "value.key"),
    ({10**5000: 1}, "input[<int>]", "value.key"),
    ((1, 2), "input", "value.type"),
    ({"odd key": {1, 2}}, 'input["odd key"]', "value.type"),
    ({"class": b"x"}, "input.class", "value.type"),
    ({"2x": object()}, 'input["2x"]', "value.type"),
    ({"straße": object()}, 'input["stra\\u00dfe"]', "value.type"),
    ([Colour.RED], "input[0]", "value.type"),
    ([Level.LOW], "input[0]", "value.type"),
    ([Named()], "input[0]", "value.type"),
    (nested(MAX_DEPTH + 1), "input[0][0][0][0][0][0]…[0][0][0][0][0][0]", "value.depth"),
]


@pytest.mark.parametrize(("value", "path", "code"), REFUSED)
def test_what_is_outside_the_domain_is_refused_with_its_place(value: Any, path: str, code: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        check(value, what="input")
    assert (caught.value.path, caught.value.code) == (path, code)
    assert path in caught.value.message
    assert caught.value.hint
    caught.value.message.encode()  # the message itself is clean text
    assert "\x00" not in caught.value.message


@pytest.mark.parametrize(("value", "name"), [((1,), "tuple"), ({1}, "set"), (b"", "bytes"), (Colour.RED, "Colour")])
def test_a_refused_type_is_named(value: Any, name: str) -> None:
    with pytest.raises(InvalidValue, match=rf"\b{name}\b"):
        check(value)


def test_a_long_key_is_shortened_in_the_path() -> None:
    with pytest.raises(InvalidValue) as caught:
        check({"k" * 10_000: nan})
    assert len(caught.value.message) < 200


def test_a_value_whose_repr_fails_is_still_reported() -> None:
    class Hostile:
        def __repr__(self) -> str:
            raise RuntimeError("no")

    with pytest.raises(InvalidValue, match=r"value\[<Hostile instance"):
        check({Hostile(): 1})


def test_structures_that_contain_themselves_are_refused() -> None:
    a_list: list[Any] = [1]
    a_list.append(a_list)
    a_dict: dict[str, Any] = {"a": {}}
    a_dict["a"]["b"] = a_dict
    for value in (a_list, a_dict, [a_list, a_list]):
        with pytest.raises(InvalidValue, match="contains itself") as caught:
            check(value)
        assert caught.value.code == "value.depth"


@pytest.mark.parametrize("limit", [0, 1, 5])
def test_the_depth_that_is_allowed_can_be_chosen(limit: int) -> None:
    check(nested(limit), max_depth=limit)
    loads(dumps(nested(limit)), max_depth=limit)
    with pytest.raises(InvalidValue, match=f"more than {limit} levels"):
        check(nested(limit + 1), max_depth=limit)
    with pytest.raises(InvalidValue, match=f"more than {limit} levels"):
        loads(dumps(nested(limit + 1)), max_depth=limit)


@given(values, st.data())
def test_a_fault_planted_anywhere_is_found_at_its_place(value: Any, data: st.DataObject) -> None:
    root: list[Any] = [value]
    container: Any = root
    key: Any = 0
    while isinstance(container[key], list | dict) and container[key] and data.draw(st.booleans()):
        container = container[key]
        keys = list(range(len(container))) if isinstance(container, list) else list(container)
        key = data.draw(st.sampled_from(keys))
    container[key] = nan
    with pytest.raises(InvalidValue) as caught:
        check(root)
    assert caught.value.code == "value.nan"
    container[key] = None
    check(root)


@pytest.mark.parametrize("write", [dumps, canonical, digest])
@pytest.mark.parametrize("value", [[nan], [object()], {("a",): 1}, nested(100_000)])
def test_writing_what_was_not_checked_names_the_fault(write: Any, value: Any) -> None:
    with pytest.raises(InvalidValue):
        write(value)


# --- reading ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "path", "code"),
    [
        ('{"a":1,"a":2}', "input.a", "value.duplicate_key"),
        ('[{"b":{"x y":1,"z":0,"x y":1}}]', 'input[0].b["x y"]', "value.duplicate_key"),
        ("[NaN]", "input[0]", "value.nan"),
        ('{"a":Infinity}', "input.a", "value.nan"),
        ("-Infinity", "input", "value.nan"),
        ('{"a":[1e999]}', "input.a[0]", "value.nan"),
        ("9007199254740992", "input", "value.integer_range"),
        ("[0,-9007199254740992]", "input[1]", "value.integer_range"),
        (f'{{"a":[{"9" * 30}]}}', "input.a[0]", "value.integer_range"),
        (f'{{"a":[1,{"9" * 5000}]}}', "input.a[1]", "value.integer_range"),
        (f'{{"a":[1,-{"9" * 5000}],"b":1,"b":1}}', "input.b", "value.duplicate_key"),
        ('["\\ud800"]', "input[0]", "value.surrogate"),
        ('{"\\udc00":1}', 'input["\\udc00"]', "value.surrogate"),
        ('["\\u0000"]', "input[0]", "value.nul"),
        ("[" * 65 + "]" * 65, "input[0][0][0][0][0][0]…[0][0][0][0][0][0]", "value.depth"),
        ("[" * 100_000 + "]" * 100_000, "input", "value.depth"),
        ('{"a":' * 100_000, "input", "value.depth"),
        ("", "input", "value.json"),
        ("{", "input", "value.json"),
        ("[1,]", "input", "value.json"),
        ("1 2", "input", "value.json"),
        ("'a'", "input", "value.json"),
        ('"a\nb"', "input", "value.json"),
        ("\ufeff1", "input", "value.json"),
        (b"\xff", "input", "value.json"),
        (b'"\xed\xa0\x80"', "input", "value.json"),
        (b"\xef\xbb\xbf1", "input", "value.json"),
    ],
)
def test_text_that_is_no_value_is_refused_with_its_place(text: str | bytes, path: str, code: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        loads(text, what="input")
    assert (caught.value.path, caught.value.code) == (path, code)
    assert "\n" not in caught.value.message


def test_where_the_text_stops_being_json_is_said() -> None:
    with pytest.raises(InvalidValue, match=r"input is not JSON: .* \(line 2, column 3\)"):
        loads('{"a":1,\n  b:2}', what="input")


def test_a_duplicate_among_very_many_keys_is_found() -> None:
    pairs = ",".join(f'"k{number}":{number}' for number in range(200_000))
    with pytest.raises(InvalidValue, match=r"input\.k7 is given twice"):
        loads(f'{{{pairs},"k7":0}}', what="input")


@given(st.text() | st.binary())
def test_any_text_is_a_value_or_refused(text: str | bytes) -> None:
    try:
        value = loads(text)
    except InvalidValue:
        return
    check(value)


@pytest.mark.parametrize("text", ["", "{", "1 2", '"a'])
def test_rereading_damaged_text_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        reread(text)


# --- sizes and digests ------------------------------------------------------------------------------------------------


def test_a_size_counts_bytes_and_its_error_speaks_in_units() -> None:
    check_size("x" * 1024, 1024, "result")
    check_size("é" * 512, 1024, "result")
    check_size(b"x" * 1024, 1024, "result")
    for text in ("x" * 1025, "é" * 513, b"x" * 1025):
        with pytest.raises(InvalidValue) as caught:
            check_size(text, 1024, "result")
        assert (caught.value.path, caught.value.code) == ("result", "value.size")
    in_words = r"input is 2\.4 MiB, and the limit is 1 MiB \(2,500,000 and 1,048,576 bytes\)"
    with pytest.raises(InvalidValue, match=in_words):
        check_size("x" * 2_500_000, 1024 * 1024, "input")
    with pytest.raises(InvalidValue, match=r"input is 11 bytes, and the limit is 10 bytes"):
        check_size("x" * 11, 10, "input")


def test_canonical_text_does_not_depend_on_the_order_of_keys() -> None:
    assert canonical({"b": {"d": 1, "c": "ü"}, "a": 2}) == '{"a":2,"b":{"c":"ü","d":1}}'.encode()


@given(st.dictionaries(text, scalars | st.lists(scalars)), st.randoms())
def test_equal_objects_have_equal_digests(value: dict[str, Json], random: Any) -> None:
    pairs = list(value.items())
    random.shuffle(pairs)
    assert digest(dict(pairs)) == digest(value)


def test_different_values_have_different_digests() -> None:
    different: list[Any] = [None, True, False, 0, 1, 1.0, "1", "", "true", [], [1], [[1]], {}, {"1": 1}, {"1": "1"}]
    assert len({digest(value) for value in different}) == len(different)


def test_a_digest_is_the_same_in_another_process() -> None:
    value = {"b": [1, 2.5, None, True], "a": {"ü": "x"}}
    code = f"from stepwell.domain.values import digest; print(digest({value!r}), end='')"
    source = str(Path(values_module.__file__).parents[2])
    for seed in ("0", "1"):
        environment = {"PYTHONHASHSEED": seed, "PYTHONPATH": source, "PYTHONUTF8": "1"}
        ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        assert ran.stdout == digest(value)
