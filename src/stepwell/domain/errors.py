"""Every public error, in one tree with stable codes.

    StepwellError
    ├── InvalidValue (ValueError)      a value cannot be stored as it is; names the path
    ├── InvalidInput (ValueError)      an input does not fit the agent; names the field
    ├── InvalidDefinition (ValueError) an agent, app or setting is declared wrongly
    ├── NotFound (LookupError)         no such run, agent, app or file
    ├── Conflict                       the request contradicts what is stored
    │   ├── RunEnded                   the run has ended and keeps its status
    │   └── AlreadyAnswered            somebody answered the question before
    ├── Busy                           a bound is reached; try again later
    ├── RunFailed                      the run ended without success
    ├── StepFailed                     a step failed for good
    ├── WaitTimeout (TimeoutError)     the caller waited long enough; the run goes on
    ├── AskTimeout (TimeoutError)      nothing came in time for what an agent waited for
    ├── Misuse (RuntimeError)          a context verb was used where it cannot be recorded
    ├── LeaseLost                      another worker holds the run now; nothing was written
    └── StoreError
        ├── StoreUnavailable           the store cannot be reached or written now
        │   └── StoreFull              no space is left
        └── StoreUnusable              damaged, newer than this code, or not a store

`Fail` and `NotExecuted` are raised *by* agents and steps, never by Stepwell.

Every error says what happened, why, and what to do: the message holds the first two, `hint` the third.
"""

from __future__ import annotations

from datetime import timedelta
from typing import ClassVar

Seconds = float | timedelta


class StepwellError(Exception):
    """Base of all errors that Stepwell raises.

    `code` is stable and dotted, `retryable` says whether the same call may succeed later, `hint` what to do.
    """

    default_code: ClassVar[str] = "stepwell.error"
    default_retryable: ClassVar[bool] = False

    def __init__(
        self, message: str, *, code: str | None = None, hint: str | None = None, retryable: bool | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.hint = hint
        self.retryable = self.default_retryable if retryable is None else retryable

    def __str__(self) -> str:
        return f"{self.message}\n  {self.hint}" if self.hint else self.message


class InvalidValue(StepwellError, ValueError):
    """A value cannot be stored as it is. `path` names the place, for example `result.items[3].price`."""

    default_code = "value.invalid"

    def __init__(self, message: str, *, path: str, code: str | None = None, hint: str | None = None) -> None:
        super().__init__(message, code=code, hint=hint)
        self.path = path


class InvalidInput(StepwellError, ValueError):
    """An input does not fit what the agent takes. The message names each field that is wrong."""

    default_code = "input.invalid"

    def __init__(
        self, message: str, *, code: str | None = None, hint: str | None = None, path: str | None = None
    ) -> None:
        super().__init__(message, code=code, hint=hint)
        self.path = path


class InvalidDefinition(StepwellError, ValueError):
    """An agent, an app or a setting is declared in a way that cannot work."""

    default_code = "definition.invalid"


class NotFound(StepwellError, LookupError):
    """There is no such run, agent, app or file."""

    default_code = "not_found"


class Conflict(StepwellError):
    """The request contradicts what is stored, and nothing was changed."""

    default_code = "conflict"


class RunEnded(Conflict):
    """The run has ended and keeps its status."""

    default_code = "run.ended"


class AlreadyAnswered(Conflict):
    """Somebody answered the question before; the first answer stays."""

    default_code = "question.answered"


class Busy(StepwellError):
    """A bound is reached. Nothing was stored; the same call may succeed later."""

    default_code = "busy"
    default_retryable = True


class RunFailed(StepwellError):
    """The run ended without success. Raised by `RunResult.output`, never by waiting for the result."""

    default_code = "run.failed"

    def __init__(
        self,
        message: str,
        *,
        run_id: str,
        status: str,
        code: str | None = None,
        hint: str | None = None,
        retryable: bool = False,
    ) -> None:
        super().__init__(message, code=code, hint=hint, retryable=retryable)
        self.run_id = run_id
        self.status = status


class StepFailed(StepwellError):
    """A step failed for good: its retries are used up, or its error is not one that is retried.

    Raised by `ctx.step` in place of the original exception, live and on replay alike, so that code never sees two
    shapes.
    """

    default_code = "step.failed"

    def __init__(
        self, message: str, *, step: str, error_type: str, code: str | None = None, retryable: bool = False
    ) -> None:
        super().__init__(message, code=code, retryable=retryable)
        self.step = step
        self.error_type = error_type


class WaitTimeout(StepwellError, TimeoutError):
    """The caller waited as long as it wanted to. The run itself goes on."""

    default_code = "wait.timeout"
    default_retryable = True

    def __init__(self, message: str, *, run_id: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.run_id = run_id


class AskTimeout(StepwellError, TimeoutError):
    """Nobody answered, or no signal came, in the `timeout` of `ctx.ask` or `ctx.wait_for`, and there was no default.

    Raised in the agent, live and on replay alike.
    """

    default_code = "ask.timeout"


class Misuse(StepwellError, RuntimeError):
    """A verb was used where what it does could not be recorded or replayed."""

    default_code = "context.misuse"


class LeaseLost(StepwellError):
    """Another worker holds the run now, or the run has ended. Nothing was written."""

    default_code = "lease.lost"


class StoreError(StepwellError):
    """The store refused or could not answer."""

    default_code = "store.error"


class StoreUnavailable(StoreError):
    """The store cannot be reached or written at this moment. Nothing was stored."""

    default_code = "store.unavailable"
    default_retryable = True


class StoreFull(StoreUnavailable):
    """No space is left where the store lives. Nothing was stored; reads still work."""

    default_code = "store.full"


class StoreUnusable(StoreError):
    """The store is damaged, newer than this code, or not a Stepwell store. It was left as it is."""

    default_code = "store.unusable"


class Fail(Exception):
    """Raise in an agent or a step to fail on purpose, with a code of your own.

    `retryable` decides whether the agent's or the step's retry policy applies; `retry_after` (seconds or timedelta)
    replaces the delay that the policy would choose.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str = "agent.failed",
        retryable: bool = False,
        retry_after: Seconds | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.retryable = retryable
        self.retry_after = retry_after


class NotExecuted(Exception):
    """Raise in a step or in its `in_doubt` function: the effect did not happen, running it (again) is safe."""
