"""The tree of errors: stable codes, hints that are shown, and what Python expects of each."""

import inspect
import re
from collections.abc import Callable

import pytest

from stepwell.domain import errors
from stepwell.domain.errors import (
    AlreadyAnswered,
    AskTimeout,
    Busy,
    Conflict,
    Fail,
    InvalidDefinition,
    InvalidInput,
    InvalidValue,
    LeaseLost,
    Misuse,
    NotExecuted,
    NotFound,
    RunEnded,
    RunFailed,
    StepFailed,
    StepwellError,
    StoreError,
    StoreFull,
    StoreUnavailable,
    StoreUnusable,
    WaitTimeout,
)

MADE: dict[type[StepwellError], Callable[[], StepwellError]] = {
    InvalidValue: lambda: InvalidValue("what happened", path="result.items[3]", hint="what to do"),
    InvalidInput: lambda: InvalidInput("what happened", path="ticket.id", hint="what to do"),
    InvalidDefinition: lambda: InvalidDefinition("what happened", hint="what to do"),
    NotFound: lambda: NotFound("what happened", hint="what to do"),
    Conflict: lambda: Conflict("what happened", hint="what to do"),
    RunEnded: lambda: RunEnded("what happened", hint="what to do"),
    AlreadyAnswered: lambda: AlreadyAnswered("what happened", hint="what to do"),
    Busy: lambda: Busy("what happened", hint="what to do"),
    RunFailed: lambda: RunFailed("what happened", run_id="run_1", status="failed", hint="what to do"),
    StepFailed: lambda: StepFailed("what happened", step="pay", error_type="ValueError"),
    WaitTimeout: lambda: WaitTimeout("what happened", run_id="run_1", hint="what to do"),
    AskTimeout: lambda: AskTimeout("what happened", hint="what to do"),
    Misuse: lambda: Misuse("what happened", hint="what to do"),
    LeaseLost: lambda: LeaseLost("what happened", hint="what to do"),
    StoreError: lambda: StoreError("what happened", hint="what to do"),
    StoreUnavailable: lambda: StoreUnavailable("what happened", hint="what to do"),
    StoreFull: lambda: StoreFull("what happened", hint="what to do"),
    StoreUnusable: lambda: StoreUnusable("what happened", hint="what to do"),
}


def every_error() -> set[type[StepwellError]]:
    """Every error class of the module below the base."""
    classes = (value for _, value in inspect.getmembers(errors, inspect.isclass))
    return {cls for cls in classes if issubclass(cls, StepwellError) and cls is not StepwellError}


def test_this_file_knows_every_error() -> None:
    assert every_error() == set(MADE)


def test_every_error_has_a_stable_code_of_its_own() -> None:
    codes = [StepwellError.default_code, *(cls.default_code for cls in MADE)]
    assert len(codes) == len(set(codes))
    assert [code for code in codes if not re.fullmatch(r"[a-z]+([._][a-z]+)*", code)] == []


@pytest.mark.parametrize("make", MADE.values(), ids=lambda make: type(make()).__name__)
def test_an_error_says_what_happened_and_then_what_to_do(make: Callable[[], StepwellError]) -> None:
    error = make()
    assert isinstance(error, StepwellError)
    assert error.message == "what happened"
    assert str(error) == ("what happened\n  what to do" if error.hint else "what happened")
    assert error.code == type(error).default_code
    assert error.retryable == type(error).default_retryable


def test_an_error_without_a_hint_shows_its_message_alone() -> None:
    assert str(NotFound("there is no run x")) == "there is no run x"


def test_code_and_retryable_can_be_narrowed() -> None:
    error = Conflict("x", code="run.changed", retryable=True)
    assert (error.code, error.retryable) == ("run.changed", True)
    assert Busy("x", retryable=False).retryable is False


def test_only_what_passes_by_itself_is_retryable() -> None:
    assert {cls for cls in MADE if cls.default_retryable} == {Busy, WaitTimeout, StoreUnavailable, StoreFull}


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (InvalidValue, ValueError),
        (InvalidInput, ValueError),
        (InvalidDefinition, ValueError),
        (NotFound, LookupError),
        (WaitTimeout, TimeoutError),
        (AskTimeout, TimeoutError),
        (AlreadyAnswered, Conflict),
        (Misuse, RuntimeError),
        (RunEnded, Conflict),
        (StoreFull, StoreUnavailable),
        (StoreUnavailable, StoreError),
        (StoreUnusable, StoreError),
    ],
)
def test_an_error_is_what_python_or_the_tree_expects(error: type[Exception], expected: type[Exception]) -> None:
    assert issubclass(error, expected)


def test_the_module_shows_the_tree_as_it_is() -> None:
    tree = (errors.__doc__ or "").partition("StepwellError\n")[2].partition("\n\n")[0]
    drawn = {match.group(2): len(match.group(1)) for match in re.finditer(r"^([ │├└─]+)(\w+)", tree, re.MULTILINE)}
    assert set(drawn) == {cls.__name__ for cls in every_error()}
    for cls in every_error():
        parent = cls.__mro__[1]
        above = drawn.get(parent.__name__, 4)
        assert drawn[cls.__name__] == above + 4, f"{cls.__name__} is not drawn below {parent.__name__}"


def test_what_agents_raise_is_not_an_error_of_the_runtime() -> None:
    assert not issubclass(Fail, StepwellError)
    assert not issubclass(NotExecuted, StepwellError)
    assert (Fail("x").code, Fail("x").retryable, Fail("x").retry_after) == ("agent.failed", False, None)
    assert str(Fail("no stock", code="shop.stock")) == "no stock"
