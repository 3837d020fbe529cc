"""What a step returns comes back equal in value and type, or is refused with its place."""

from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from ipaddress import IPv4Address
from pathlib import Path
from typing import Annotated, Any, Literal, Optional, Union
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import (
    Field,
    HttpUrl,
    RootModel,
    SecretStr,
)

from stepwell.codec import codec_for, fingerprint
from stepwell.domain.errors import InvalidValue
from stepwell.domain.values import loads
from tests.unit.codec.samples import (
    ANNOTATIONS,
    BERLIN,
    EMPTY,
    Address,
    Aliased,
    Base64Blob,
    Blob,
    Box,
    Broken,
    Cached,
    Checked,
    Colour,
    Computed,
    Derived,
    Even,
    Hidden,
    Item,
    Level,
    Loose,
    Mood,
    Opaque,
    Open,
    Order,
    Page,
    Point,
    Pool,
    Renamed,
    Right,
    Rounded,
    Secretive,
    SpecialItem,
    Stamp,
    Ticket,
    Tree,
    Trimmed,
    UrgentTicket,
    UserId,
    anything,
    moments,
    naive_second_hour,
    orders,
    refusal,
    remember,
    tickets,
    words,
)

# --- what comes back --------------------------------------------------------------------------------------------------

KEPT: list[tuple[Any, Any, str]] = [
    (EMPTY, {"a": [1, 2.5, None, True, "ü"]}, '{"a":[1,2.5,null,true,"ü"]}'),
    (Any, "text", '"text"'),
    (object, [1], "[1]"),
    (None, None, "null"),
    (type(None), None, "null"),
    (str, "x", '"x"'),
    (int, -3, "-3"),
    (bool, False, "false"),
    (float, 1.5, "1.5"),
    (dict, {"a": {}}, '{"a":{}}'),
    (list, [[], {}], "[[],{}]"),
    (dict[str, Any], {"a": 1}, '{"a":1}'),
    (str | None, None, "null"),
    (Optional[dict[str, Any]], {"a": 1}, '{"a":1}'),  # noqa: UP045 - people write it this way too
    (Union[int, str], 1, "1"),  # noqa: UP007 - as above
    (UserId, UserId(5), "5"),
    (list[int], [1, 2], "[1,2]"),
    (dict[str, int], {"b": 1, "a": 2}, '{"b":1,"a":2}'),
    (Mapping[str, int], {"a": 1}, '{"a":1}'),
    (Sequence[int], [1], "[1]"),
    (tuple[int, str], (1, "a"), '[1,"a"]'),
    (tuple[int, ...], (1, 2), "[1,2]"),
    (tuple, (1, "a"), '[1,"a"]'),
    (set[int], {1}, "[1]"),
    (frozenset[date], frozenset({date(2026, 1, 2)}), '["2026-01-02"]'),
    (deque[int], deque([1]), "[1]"),
    (Counter[str], Counter("aab"), '{"a":2,"b":1}'),
    (OrderedDict[str, int], OrderedDict(a=1), '{"a":1}'),
    (defaultdict[str, list[int]], defaultdict(list, a=[1]), '{"a":[1]}'),
    (dict[int, str], {1: "a"}, '{"1":"a"}'),
    (dict[date, int], {date(2026, 1, 2): 1}, '{"2026-01-02":1}'),
    (dict[Colour, int], {Colour.RED: 1}, '{"red":1}'),
    (Colour, Colour.RED, '"red"'),
    (Mood, Mood.GOOD, '"good"'),
    (Level, Level.LOW, "1"),
    (Right, Right.READ | Right.WRITE, "3"),
    (Literal["a", 1], 1, "1"),
    (Annotated[int, Field(ge=0)], 1, "1"),
    (date, date(2026, 1, 2), '"2026-01-02"'),
    (datetime, datetime(2026, 1, 2, 3, 4, 5, 6), '"2026-01-02T03:04:05.000006"'),  # noqa: DTZ001 - naive on purpose
    (datetime, datetime(2026, 1, 2, tzinfo=UTC), '"2026-01-02T00:00:00Z"'),
    (datetime, datetime(2026, 7, 2, tzinfo=BERLIN), '"2026-07-02T00:00:00+02:00"'),
    (time, time(1, 2, 3), '"01:02:03"'),
    (timedelta, timedelta(days=1, seconds=2, microseconds=3), '"P1DT2.000003S"'),
    (timedelta, timedelta(microseconds=-1), '"-PT0.000001S"'),
    (UUID, UUID(int=1), '"00000000-0000-0000-0000-000000000001"'),
    (Decimal, Decimal("1.50"), '"1.50"'),
    (Path, Path("a/b"), '"a/b"'),
    (IPv4Address, IPv4Address("127.0.0.1"), '"127.0.0.1"'),
    (Fraction, Fraction(1, 3), '"1/3"'),
    (HttpUrl, HttpUrl("https://example.org/"), '"https://example.org/"'),
    (bytes, b"\xff\x00", '"_wA="'),
    (Item, Item("a", 1.5), '{"name":"a","price":1.5}'),
    (SpecialItem, SpecialItem("a"), '{"name":"a","price":0.0,"discount":10}'),
    (Item | SpecialItem, SpecialItem("a"), '{"name":"a","price":0.0,"discount":10}'),
    (Item | None, None, "null"),
    (
        Order,
        Order(items=[Item("a")], due=date(2026, 1, 2), tags=frozenset({"x"}), data=b"\xff"),
        '{"items":[{"name":"a","price":0.0}],"due":"2026-01-02","tags":["x"],"data":"_w=="}',
    ),
    (list[Item], [Item("a"), Item("b")], '[{"name":"a","price":0.0},{"name":"b","price":0.0}]'),
    (dict[str, tuple[Item, int]], {"k": (Item("a"), 1)}, '{"k":[{"name":"a","price":0.0},1]}'),
    (Tree, Tree([Tree(), Tree([Tree()])]), '{"children":[{"children":[]},{"children":[{"children":[]}]}]}'),
    (Box[date], Box(date(2026, 1, 2)), '{"content":"2026-01-02"}'),
    (Checked, Checked(1), '{"number":1}'),
    (Point, Point(1, 2), "[1,2]"),
    (Address, {"since": date(2026, 1, 2), "street": "x"}, '{"street":"x","since":"2026-01-02"}'),
    (Ticket, Ticket(id=1, colour=Colour.BLUE), '{"id":1,"title":"","colour":"blue","score":0.0}'),
    (Page[int], Page[int](items=[1]), '{"items":[1]}'),
    (Page[Item], Page(items=[Item("a")]), '{"items":[{"name":"a","price":0.0}]}'),
    (RootModel[list[int]], RootModel[list[int]]([1]), "[1]"),
    (Aliased, Aliased(number=1), '{"number":1}'),
    (Renamed, Renamed(no=1), '{"number":1}'),
    (Secretive, Secretive(name="a"), '{"name":"a"}'),
    (Computed, Computed(side=2), '{"side":2}'),
    (Open, Open(name="a", more=[1]), '{"name":"a","more":[1]}'),  # type: ignore[call-arg]  # extra fields are allowed
    (Blob, Blob(data=b"text"), '{"data":"text"}'),
    (Base64Blob, Base64Blob(data=b"\xff"), '{"data":"_w=="}'),
    (Cached, Cached("a"), '{"name":"a","cache":{}}'),
]


@pytest.mark.parametrize(("annotation", "value", "text"), KEPT)
def test_a_value_comes_back_equal_and_of_its_type(annotation: Any, value: Any, text: str) -> None:
    written, given = remember(annotation, value)
    assert loads(written) == loads(text)
    assert given == value
    assert type(given) is type(value) or isinstance(value, Page)
    again = codec_for(annotation).decode(written, "fetch")
    assert again == value
    assert type(again) is type(given)
    assert loads(codec_for(annotation).encode(again, "fetch")) == loads(written)


def test_lists_and_dicts_come_back_as_copies() -> None:
    for annotation in (EMPTY, dict, dict[str, list[int]]):
        value = {"a": [1]}
        _, given = remember(annotation, value)
        value["a"].append(2)
        assert given == {"a": [1]}


def test_an_int_returned_for_a_float_arrives_as_a_float() -> None:
    for annotation, value, expected in [(float, 3, 3.0), (float | None, 3, 3.0), (list[float], [3], [3.0])]:
        text, given = remember(annotation, value)
        assert repr(given) == repr(expected)
        assert repr(codec_for(annotation).decode(text, "fetch")) == repr(expected)
    assert repr(remember(float | int, 3)[1]) == "3"
    assert repr(remember(Item, Item("a", 1))[1]) == "Item(name='a', price=1.0)"


def test_an_aware_time_keeps_its_offset() -> None:
    east = timezone(timedelta(hours=5, minutes=30))
    moment = datetime(2026, 1, 2, 3, 4, tzinfo=east)
    _, given = remember(datetime, moment)
    assert given.isoformat() == moment.isoformat()
    assert given.utcoffset() == timedelta(hours=5, minutes=30)


def test_both_hours_of_a_night_in_which_clocks_go_back_are_kept() -> None:
    first = datetime(2026, 10, 25, 2, 30, tzinfo=BERLIN)
    second = first.replace(fold=1)
    assert remember(datetime, first)[1].isoformat() == "2026-10-25T02:30:00+02:00"
    assert remember(datetime, second)[1].isoformat() == "2026-10-25T02:30:00+01:00"


def test_objects_without_equality_are_compared_by_what_they_hold() -> None:
    assert remember(Opaque, Opaque("a"))[1].name == "a"
    assert [one.name for one in remember(list[Opaque], [Opaque("a"), Opaque("b")])[1]] == ["a", "b"]
    assert {one.name for one in remember(set[Opaque], {Opaque("a"), Opaque("b")})[1]} == {"a", "b"}


def test_a_cache_that_its_class_neither_takes_nor_compares_may_be_lost() -> None:
    value = Cached("a")
    value.cache["x"] = 1
    assert remember(Cached, value)[1] == Cached("a")


def test_stored_text_may_lack_new_fields_and_hold_old_ones() -> None:
    assert codec_for(Item).decode('{"name":"a","old":1}', "fetch") == Item("a")
    assert codec_for(Ticket).decode('{"id":1,"old":1}', "fetch") == Ticket(id=1)


# --- what is refused --------------------------------------------------------------------------------------------------

nan = float("nan")
derived = Derived("abc")
derived.length = 3
unset = Ticket(id=1)
del unset.__dict__["title"]
private = Secretive()
private._note = "mine"

REFUSED: list[tuple[Any, Any, str, str]] = [
    (EMPTY, (1, 2), "fetch", "value.type"),
    (EMPTY, {"a": [{1}]}, "fetch.a[0]", "value.type"),
    (EMPTY, Item("a"), "fetch", "value.type"),
    (EMPTY, [Ticket(id=1)], "fetch[0]", "value.type"),
    (EMPTY, {"when": date(2026, 1, 2)}, "fetch.when", "value.type"),
    (EMPTY, b"x", "fetch", "value.type"),
    (EMPTY, Mood.GOOD, "fetch", "value.type"),
    (EMPTY, {1: "a"}, "fetch[1]", "value.key"),
    (dict, {"a": {2: 1}}, "fetch.a[2]", "value.key"),
    (list, [(1,)], "fetch[0]", "value.type"),
    (dict[str, int], {1: 2}, "fetch[1]", "value.round_trip"),
    (dict[Mood, int], {"good": 2}, "fetch.good", "value.round_trip"),
    (dict[int, int], {1.0: 2}, "fetch[1.0]", "value.round_trip"),
    (dict[tuple[int, int], int], {(1, 2): 3}, "fetch.", "value.round_trip"),
    (None, 1, "fetch", "value.round_trip"),
    (str, 1, "fetch", "value.round_trip"),
    (str, None, "fetch", "value.round_trip"),
    (str, Mood.GOOD, "fetch", "value.round_trip"),
    (int, True, "fetch", "value.round_trip"),
    (int, 1.0, "fetch", "value.round_trip"),
    (int, "1", "fetch", "value.round_trip"),
    (bool, 1, "fetch", "value.round_trip"),
    (float, True, "fetch", "value.round_trip"),
    (float, "1", "fetch", "value.round_trip"),
    (dict, [1], "fetch", "value.round_trip"),
    (list, (1,), "fetch", "value.round_trip"),
    (dict | None, OrderedDict(), "fetch", "value.round_trip"),
    (UserId, True, "fetch", "value.round_trip"),
    (list[int], (1, 2), "fetch", "value.round_trip"),
    (list[int], [1, True], "fetch[1]", "value.round_trip"),
    (list[int], [1, "2"], "fetch[1]", "value.round_trip"),
    (list[int], (number for number in (1, 2)), "fetch", "value.round_trip"),
    (list[bool], [1], "fetch[0]", "value.round_trip"),
    (list[str], [Mood.GOOD], "fetch[0]", "value.round_trip"),
    (list[Mood], ["good"], "fetch[0]", "value.round_trip"),
    (tuple[int, ...], [1], "fetch", "value.round_trip"),
    (tuple[int, int], (1, 2, 3), "fetch", "value.round_trip"),
    (tuple, (date(2026, 1, 2),), "fetch[0]", "value.round_trip"),
    (Sequence[int], (1,), "fetch", "value.round_trip"),
    (Iterable[int], [1], "fetch", "value.round_trip"),
    (set[int], frozenset({1}), "fetch", "value.round_trip"),
    (set[int], [1], "fetch", "value.round_trip"),
    (set[int], {True}, "fetch", "value.round_trip"),
    (set[str], {Mood.GOOD}, "fetch", "value.round_trip"),
    (dict[str, Any] | list[date], {"a": date(2026, 1, 2)}, "fetch.a", "value.round_trip"),
    (Colour, "red", "fetch", "value.round_trip"),
    (Stamp, Stamp.EPOCH, "fetch", "value.round_trip"),
    (Literal["a"], "b", "fetch", "value.round_trip"),
    (date, datetime(2026, 1, 2, tzinfo=UTC), "fetch", "value.round_trip"),
    (datetime, date(2026, 1, 2), "fetch", "value.round_trip"),
    (datetime, naive_second_hour, "fetch", "value.round_trip"),
    (time, time(1, 2, tzinfo=BERLIN), "fetch", "value.round_trip"),
    (date | str, "2026-01-02", "fetch", "value.round_trip"),
    (Decimal, 1, "fetch", "value.round_trip"),
    (Path, "a", "fetch", "value.round_trip"),
    (bytes, "text", "fetch", "value.round_trip"),
    (bytes, bytearray(b"x"), "fetch", "value.round_trip"),
    (Item, {"name": "a", "price": 0.0}, "fetch", "value.round_trip"),
    (Item, SpecialItem("a"), "fetch", "value.round_trip"),
    (list[Item], [Item("a"), SpecialItem("b")], "fetch[1]", "value.round_trip"),
    (Item, Item("a", True), "fetch.price", "value.round_trip"),
    (Item, Item(1), "fetch.name", "value.round_trip"),  # type: ignore[arg-type]  # that is the point
    (Item, Ticket(id=1), "fetch.name", "value.round_trip"),
    (Order, Order(items=(Item("a"),)), "fetch.items", "value.round_trip"),  # type: ignore[arg-type]  # that is the point
    (Order, Order(items=[Item("a"), SpecialItem("b")]), "fetch.items[1]", "value.round_trip"),
    (Derived, derived, "fetch.length", "value.round_trip"),
    (Loose, Loose((1,)), "fetch.anything", "value.round_trip"),
    (Loose, Loose({"x y": [Item("a")]}), 'fetch.anything["x y"][0]', "value.round_trip"),
    (Opaque, SpecialItem("a"), "fetch", "value.round_trip"),
    (Point, (1, 2), "fetch", "value.round_trip"),
    (Point, Point(1, True), "fetch.y", "value.round_trip"),
    (Address, {"street": "x", "number": 1}, "fetch.number", "value.round_trip"),
    (Ticket, UrgentTicket(id=1, deadline=date(2026, 1, 2)), "fetch", "value.round_trip"),
    (Ticket, Ticket.model_construct(id=1, title=None), "fetch.title", "value.round_trip"),
    (Ticket, Ticket.model_construct(title="x"), "fetch.id", "value.round_trip"),
    (Ticket, unset, "fetch.title", "value.round_trip"),
    (Trimmed, Trimmed(numbers=[1, 2, 3]), "fetch.numbers[2]", "value.round_trip"),
    (Hidden, Hidden(shown=1, hidden=2), "fetch.hidden", "value.round_trip"),
    (Secretive, private, "fetch._note", "value.round_trip"),
    (Rounded, Rounded(number=1.25), "fetch.number", "value.round_trip"),
    (Even, Even.model_construct(number=3), "fetch.number", "value.round_trip"),
    (Open, Open(name="a", more=(1,)), "fetch.more", "value.round_trip"),  # type: ignore[call-arg]  # extra is allowed
    (SecretStr, SecretStr("s"), "fetch", "value.round_trip"),
    (Ticket, Ticket(id=1, score=nan), "fetch.score", "value.nan"),
    (list[float], [0.0, nan], "fetch[1]", "value.nan"),
    (list[float | None], [float("inf")], "fetch[0]", "value.nan"),
    (dict[float, int], {nan: 1}, "fetch[nan]", "value.nan"),
    (Decimal, Decimal("NaN"), "fetch", "value.nan"),
    (list[Decimal], [Decimal("-Infinity")], "fetch[0]", "value.nan"),
    (list[int], [2**53], "fetch[0]", "value.integer_range"),
    (list[int], [10**5000], "fetch[0]", "value.integer_range"),
    (Item, Item("a\x00"), "fetch.name", "value.nul"),
    (Item, Item("\ud800"), "fetch.name", "value.surrogate"),
    (dict[str, Item], {"\x00": Item("a")}, 'fetch["\\u0000"]', "value.nul"),
    (Loose, Loose(Pool()), "fetch.anything", "value.type"),
    (list[Any] | date, [1, Pool()], "fetch[1]", "value.type"),
    (Callable[[], int], print, "fetch", "value.type"),
    (Blob, Blob(data=b"\xff"), "fetch.data", "value.type"),
    (Broken, Broken(number=1), "fetch", "value.type"),
]


@pytest.mark.parametrize(("annotation", "value", "path", "code"), REFUSED)
def test_what_would_come_back_otherwise_is_refused_with_its_place(
    annotation: Any, value: Any, path: str, code: str
) -> None:
    error = refusal(annotation, value)
    assert error.code == code
    assert error.path == path or (path == "fetch." and error.path.startswith("fetch"))
    assert error.message.startswith(("fetch", "the key of fetch"))
    assert "pydantic" not in str(error).replace("pydantic_", "")
    assert not error.retryable


@pytest.mark.parametrize(
    "value", [(1,), {1}, Item("a"), Ticket(id=1), date(2026, 1, 2), b"x", {1: 2}, [Colour.RED], {"a": Decimal(1)}]
)
def test_a_value_that_needs_an_annotation_says_so(value: Any) -> None:
    assert "annotate the return type of fetch" in str(refusal(EMPTY, value))


@pytest.mark.parametrize(
    ("annotation", "value", "says"),
    [
        (list[int], (1,), "fetch is of type tuple and would come back as list\n  return list, or annotate tuple"),
        (Item, SpecialItem("a"), "fetch is of type SpecialItem and would come back as Item\n  convert it to Item, or"),
        (int, True, "fetch is of type bool, and its annotation says int\n  convert it with int(…), or annotate bool"),
        (dict[str, int], {1: 1}, "the key of fetch[1] is of type int and would come back as str"),
        (datetime, naive_second_hour, "convert it to UTC"),
        (Blob, Blob(data=b"\xff"), "fetch.data holds bytes that are not UTF-8 text"),
        (Rounded, Rounded(number=1.25), "fetch.number is 1.25 and would come back as 1.2"),
        (Address, {"number": 1}, "fetch.number would not come back\n  leave it out, or annotate fetch"),
    ],
)
def test_a_refusal_says_what_to_do(annotation: Any, value: Any, says: str) -> None:
    assert says in str(refusal(annotation, value))


def test_structures_that_contain_themselves_are_refused() -> None:
    tree = Tree()
    tree.children.append(tree)
    endless: list[Any] = []
    endless.append(endless)
    for annotation, value in [(Tree, tree), (list[list[Any]], endless), (EMPTY, endless), (Loose, Loose(endless))]:
        assert refusal(annotation, value).code == "value.depth"


def test_structures_nested_too_deeply_are_refused() -> None:
    tree = Tree()
    for _ in range(31):
        tree = Tree([tree])
    assert remember(Tree, tree)[1] == tree
    assert refusal(Tree, Tree([tree])).code == "value.depth"


def test_a_key_that_is_a_member_of_a_str_enum_comes_back_as_its_text_where_that_is_annotated() -> None:
    text, back = remember(dict[str, int], {Mood.GOOD: 2})
    assert text == '{"good":2}'
    assert [type(key) for key in back] == [str]
    assert back[Mood.GOOD] == 2


def test_a_secret_does_not_show_in_the_refusal() -> None:
    assert "hunter2" not in str(refusal(SecretStr, SecretStr("hunter2")))


# --- stored text that does not fit ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("annotation", "text", "path", "code"),
    [
        (str, "1", "fetch", "value.undecodable"),
        (int, "true", "fetch", "value.undecodable"),
        (None, "1", "fetch", "value.undecodable"),
        (dict, "[]", "fetch", "value.undecodable"),
        (Item, '{"name":1}', "fetch.name", "value.undecodable"),
        (Item, "{}", "fetch.name", "value.undecodable"),
        (list[Item], '[{"name":"a"},{"name":"b","price":"1"}]', "fetch[1].price", "value.undecodable"),
        (str, '"a', "fetch", "value.json"),
        (EMPTY, "", "fetch", "value.json"),
        (EMPTY, "1 2", "fetch", "value.json"),
        (Item, '{"name":', "fetch", "value.json"),
    ],
)
def test_stored_text_that_does_not_fit_is_refused_with_its_place(
    annotation: Any, text: str, path: str, code: str
) -> None:
    with pytest.raises(InvalidValue) as caught:
        codec_for(annotation).decode(text, "fetch")
    assert (caught.value.path, caught.value.code) == (path, code)


# --- for any value ----------------------------------------------------------------------------------------------------


@given(orders)
def test_every_dataclass_comes_back(order: Order) -> None:
    text, given_back = remember(Order, order)
    assert given_back == order
    assert codec_for(Order).decode(text, "fetch") == order
    assert fingerprint((given_back,), "x") == fingerprint((order,), "x")


@given(st.lists(tickets) | st.dictionaries(words, tickets))
def test_every_model_comes_back(value: Any) -> None:
    annotation = list[Ticket] | dict[str, Ticket]
    assert remember(annotation, value)[1] == value


@given(moments)
def test_every_moment_comes_back_or_is_refused(moment: datetime) -> None:
    try:
        given_back = remember(datetime, moment)[1]
    except InvalidValue:
        offset = moment.utcoffset()
        is_naive_second_hour = offset is None and bool(moment.fold)
        has_seconds_in_offset = offset is not None and bool(offset.seconds % 60)  # local mean time, before railways
        assert is_naive_second_hour or has_seconds_in_offset
    else:
        assert given_back.isoformat() == moment.isoformat()


@given(st.timedeltas() | st.dates() | st.times() | st.uuids() | st.decimals(allow_nan=False, allow_infinity=False))
def test_every_leaf_comes_back(value: Any) -> None:
    try:
        given_back = remember(type(value), value)[1]
    except InvalidValue:
        assert isinstance(value, time)
        assert value.fold  # a naive time that cannot say which of two equal hours it means
    else:
        assert repr(given_back) == repr(value)


@given(anything, st.sampled_from(ANNOTATIONS))
def test_any_value_under_any_annotation_comes_back_as_it_was_or_is_refused(value: Any, annotation: Any) -> None:
    try:
        text, given_back = remember(annotation, value)
    except InvalidValue as error:
        refused = error
    else:
        assert widened(repr(given_back)) == widened(repr(value))
        assert repr(codec_for(annotation).decode(text, "fetch")) == repr(given_back)
        return
    assert refused.path.startswith("fetch")


def widened(shown: str) -> str:
    """The repr of a value, in which an int and the equal float look alike."""
    return shown.replace(".0", "")
