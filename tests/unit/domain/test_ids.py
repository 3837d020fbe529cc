"""Ids: their bits, their order, and the tokens that are derived from texts."""

import secrets
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepwell.domain.ids import (
    ENTROPY_BYTES,
    NAME,
    QUESTION,
    RUN,
    SESSION,
    SIGNAL,
    WORKER,
    derived,
    derived_id,
    is_id,
    make_id,
    own_session,
)

ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
PREFIXES = (RUN, SESSION, WORKER, QUESTION, SIGNAL)
moments = st.integers(0, 2**48 * 1000 - 1)
entropies = st.binary(min_size=ENTROPY_BYTES, max_size=ENTROPY_BYTES)


def bits(text: str) -> int:
    """The number that an id's 26 characters spell."""
    number = 0
    for character in text.partition("_")[2]:
        number = number << 5 | ALPHABET.index(character)
    return number


@given(moments, entropies)
def test_an_id_is_a_uuid_of_version_7(at: int, entropy: bytes) -> None:
    number = bits(make_id(RUN, at, entropy))
    assert number < 2**128
    decoded = uuid.UUID(int=number)
    assert decoded.version == 7
    assert decoded.variant == uuid.RFC_4122
    assert number >> 80 == at // 1000
    assert number & 2**62 - 1 == int.from_bytes(entropy, "big") & 2**62 - 1


@given(moments, moments, entropies, entropies)
def test_ids_are_ordered_by_their_time(one: int, other: int, first: bytes, second: bytes) -> None:
    earlier, later = sorted((one, other))
    if earlier < later:
        assert make_id(RUN, earlier, first) < make_id(RUN, later, second)


@given(moments, entropies, entropies)
def test_ids_of_one_moment_differ_by_their_randomness(at: int, one: bytes, other: bytes) -> None:
    same = int.from_bytes(one, "big") & 2**62 - 1 == int.from_bytes(other, "big") & 2**62 - 1
    assert (make_id(RUN, at, one) == make_id(RUN, at, other)) == same


def test_ten_thousand_ids_of_one_moment_are_all_different() -> None:
    assert len({make_id(RUN, 1, secrets.token_bytes(ENTROPY_BYTES)) for _ in range(10_000)}) == 10_000


@given(st.sampled_from(PREFIXES), moments, entropies)
def test_an_id_is_recognised_by_its_own_prefix_alone(prefix: str, at: int, entropy: bytes) -> None:
    made = make_id(prefix, at, entropy)
    assert [other for other in PREFIXES if is_id(other, made)] == [prefix]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "run_",
        "run",
        "run_0123456789abcdefghjkmnpqrst",
        "run_" + "0" * 25,
        "run_" + "u" * 26,
        "run_" + "A" * 26,
        "run_" + "0" * 25 + "é",
        "run_" + "0" * 26 + "\n",
        " run_" + "0" * 26,
    ],
)
def test_anything_else_is_not_an_id(text: str) -> None:
    assert not is_id(RUN, text)


def test_a_session_of_its_own_follows_from_the_run() -> None:
    run = make_id(RUN, 1_767_225_600_000_000, bytes(ENTROPY_BYTES))
    session = own_session(run)
    assert is_id(SESSION, session)
    assert session.removeprefix(SESSION) == run.removeprefix(RUN)


@given(moments, entropies, st.lists(st.text(), min_size=1))
def test_an_id_that_is_derived_is_a_uuid_of_version_7_with_the_time_of_the_one_it_comes_from(
    at: int, entropy: bytes, parts: list[str]
) -> None:
    run = make_id(RUN, at, entropy)
    child = derived_id(RUN, run, *parts)
    assert is_id(RUN, child)
    decoded = uuid.UUID(int=bits(child))
    assert (decoded.version, decoded.variant) == (7, uuid.RFC_4122)
    assert bits(child) >> 64 == bits(run) >> 64


@given(st.lists(st.text(), min_size=1), st.lists(st.text(), min_size=1))
def test_derived_ids_are_equal_for_equal_parts_alone(one: list[str], other: list[str]) -> None:
    run = make_id(RUN, 1_767_225_600_000_000, bytes(ENTROPY_BYTES))
    assert (derived_id(RUN, run, *one) == derived_id(RUN, run, *other)) == (one == other)


def test_equal_parts_of_two_runs_of_one_moment_give_two_ids() -> None:
    runs = [make_id(RUN, 1_767_225_600_000_000, bytes([number] * ENTROPY_BYTES)) for number in range(2)]
    assert len({derived_id(RUN, run, "0/1", "1") for run in runs}) == 2


def test_derived_ids_do_not_depend_on_how_parts_would_join() -> None:
    run = make_id(RUN, 1_767_225_600_000_000, bytes(ENTROPY_BYTES))
    assert len({derived_id(RUN, run, *parts) for parts in (["ab", "c"], ["a", "bc"], ["abc"], ["abc", ""])}) == 4


def test_a_derived_id_can_name_something_else_than_it_comes_from() -> None:
    run = make_id(RUN, 1_767_225_600_000_000, bytes(ENTROPY_BYTES))
    assert is_id(QUESTION, derived_id(QUESTION, run, "0/1"))
    assert derived_id(RUN, own_session(run), "0/1") != derived_id(RUN, run, "0/1")


@given(st.lists(st.text(), min_size=1), st.lists(st.text(), min_size=1))
def test_derived_tokens_are_equal_for_equal_parts_alone(one: list[str], other: list[str]) -> None:
    assert (derived("x_", *one) == derived("x_", *other)) == (one == other)


def test_derived_tokens_do_not_depend_on_how_parts_would_join() -> None:
    assert len({derived("x_", *parts) for parts in (["ab", "c"], ["a", "bc"], ["abc"], ["abc", ""], ["", "abc"])}) == 5


@pytest.mark.parametrize(
    ("name", "is_name"),
    [
        ("a", True),
        ("nightly-2.report_x:@", True),
        ("9", True),
        ("x" * 128, True),
        ("x" * 129, False),
        ("", False),
        ("-a", False),
        ("a b", False),
        ("ä", False),
        ("a/b", False),
        ("a\n", False),
    ],
)
def test_a_name_is_short_and_plain(name: str, is_name: bool) -> None:
    assert bool(NAME.fullmatch(name)) is is_name
