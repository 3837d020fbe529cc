"""What an exception becomes in the journal: a stable code, a message, the user's frames."""

from __future__ import annotations

import asyncio
import builtins
import os
import sysconfig
import traceback
from collections import deque
from collections.abc import Sequence
from typing import Any, Final, TypeVar

from stepwell.domain.errors import Fail, StepFailed, StepwellError
from stepwell.domain.outcome import ErrorInfo
from stepwell.engine.offload import RemoteError

E = TypeVar("E", bound=BaseException)

_MAX_MESSAGE: Final = 4000
_MAX_FRAMES: Final = 20
_MAX_ALSO: Final = 1000
_TOGETHER: Final = "__stepwell_together__"
_PLACE: Final = "__stepwell_place__"
_PACKAGE: Final = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_STDLIB: Final = sysconfig.get_paths()["stdlib"] + os.sep


def describe_error(error: BaseException, *, code: str) -> ErrorInfo:
    """The error as a value. `Fail` and Stepwell's own errors bring code and `retryable`, others get `code`."""
    retryable = True
    if isinstance(error, (Fail, StepwellError)):
        code, retryable = _clean(error.code), bool(error.retryable)
    type_name = error.type_name if isinstance(error, RemoteError) else type(error).__name__
    steps = failed_steps(error)
    step, also = (steps[0], steps[1 : 1 + _MAX_ALSO]) if steps else (None, [])
    return ErrorInfo(code, _message(error), retryable, _clean(type_name), step, _frames(error), tuple(also))


def placed(error: E, place: str) -> E:
    """The error, marked as the failure of the call at a place: a new attempt makes that call anew."""
    vars(error)[_PLACE] = place
    return error


def mark_together(errors: Sequence[BaseException]) -> None:
    """These errors ended branches side by side, and the first is raised for all of them."""
    if len(errors) > 1:
        vars(errors[0]).setdefault(_TOGETHER, []).extend(errors[1:])  # the first may have come through branches before


def failed_steps(error: BaseException) -> list[str]:
    """The steps whose failure this error is or grew from, in the order of their discovery."""
    steps: dict[str, None] = {}
    seen: set[int] = set()
    left = deque([error])
    while left:
        one = left.popleft()
        if id(one) in seen:
            continue
        seen.add(id(one))
        left += vars(one).get(_TOGETHER, ())
        place = one.step if isinstance(one, StepFailed) else vars(one).get(_PLACE)
        if place is not None:
            steps[place] = None
        else:
            left += _grown_from(one)
    return list(steps)


def _grown_from(error: BaseException) -> list[BaseException]:
    found: list[BaseException] = list(error.exceptions) if isinstance(error, BaseExceptionGroup) else []
    cause = error.__cause__ if error.__suppress_context__ else error.__context__
    return found if cause is None else [*found, cause]


def is_being_closed(task: asyncio.Task[Any] | None) -> bool:
    """Whether a GeneratorExit comes from whoever throws the task's coroutine away, and not from the code inside it."""
    try:
        return asyncio.current_task() is not task
    except RuntimeError:  # no loop runs any more
        return True


def as_local(error: BaseException) -> BaseException:
    """For a retry policy: an exception from another interpreter, as the builtin type of its name where there is one."""
    if isinstance(error, RemoteError):
        kind = getattr(builtins, error.type_name, None)
        if isinstance(kind, type) and issubclass(kind, Exception):
            try:
                return kind(str(error))
            except TypeError:  # a builtin that takes other arguments (UnicodeDecodeError)
                return error
    return error


def _message(error: BaseException) -> str:
    try:
        text = _clean(error.message if isinstance(error, (StepwellError, Fail)) else error)
    except BaseException as broken:  # noqa: BLE001 - a user's __str__ may raise anything; the failure must still be told
        text = f"(its message could not be made: {type(broken).__name__})"
    text = text or _clean(type(error).__name__)
    return text if len(text) <= _MAX_MESSAGE else text[: _MAX_MESSAGE - 1] + "…"


def _clean(text: object) -> str:
    """Text that a store can keep."""
    return str(text).encode("utf-8", "replace").decode("utf-8").replace("\x00", "\N{REPLACEMENT CHARACTER}")


def _frames(error: BaseException) -> tuple[str, ...]:
    """The user's frames, innermost last: neither ours nor the standard library's."""
    if isinstance(error, RemoteError):
        return error.frames[-_MAX_FRAMES:]
    frames = [
        f"{frame.filename}:{frame.lineno} in {frame.name}"
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith((_PACKAGE, _STDLIB, "<"))
    ]
    return tuple(map(_clean, frames[-_MAX_FRAMES:]))
