"""What an exception becomes in the journal: a stable code, a message, the user's frames."""

from __future__ import annotations

import builtins
import os
import sysconfig
import traceback
from typing import Final

from stepwell.domain.errors import Fail, StepFailed, StepwellError
from stepwell.domain.outcome import ErrorInfo
from stepwell.engine.offload import RemoteError

_MAX_MESSAGE: Final = 4000
_MAX_FRAMES: Final = 20
_PACKAGE: Final = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_STDLIB: Final = sysconfig.get_paths()["stdlib"] + os.sep


def describe_error(error: BaseException, *, code: str) -> ErrorInfo:
    """The error as a value. `Fail` and Stepwell's own errors bring code and `retryable`; all others get `code`, and may pass."""
    retryable = True
    if isinstance(error, Fail):
        code, retryable = error.code, error.retryable
    elif isinstance(error, StepwellError):
        code, retryable = error.code, error.retryable
    step = error.step if isinstance(error, StepFailed) else None
    type_name = error.type_name if isinstance(error, RemoteError) else type(error).__name__
    return ErrorInfo(code, _message(error), retryable, type_name, step, _frames(error))


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
        text = error.message if isinstance(error, (StepwellError, Fail)) else str(error)
    except Exception as broken:  # a user's __str__ may raise anything; the failure must still be told
        text = f"(its message could not be made: {type(broken).__name__})"
    text = text or type(error).__name__
    clean = text.encode("utf-8", "replace").decode("utf-8").replace("\x00", "\N{REPLACEMENT CHARACTER}")
    return clean if len(clean) <= _MAX_MESSAGE else clean[: _MAX_MESSAGE - 1] + "…"


def _frames(error: BaseException) -> tuple[str, ...]:
    """The user's frames, innermost last: neither ours nor the standard library's."""
    if isinstance(error, RemoteError):
        return error.frames[-_MAX_FRAMES:]
    frames = [
        f"{frame.filename}:{frame.lineno} in {frame.name}"
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith((_PACKAGE, _STDLIB, "<"))
    ]
    return tuple(frame.encode("utf-8", "replace").decode() for frame in frames[-_MAX_FRAMES:])
