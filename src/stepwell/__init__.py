"""Stepwell: a durable runtime for AI agents.

    from stepwell import App, Context

    app = App("hello")

    @app.agent
    async def hello(ctx: Context, name: str) -> str:
        return await ctx.step(str.upper, name)

Names are loaded when they are first used, so that importing the package costs little.
"""

import typing as _typing
from importlib import import_module as _import_module

if _typing.TYPE_CHECKING:
    from stepwell.app import Agent as Agent
    from stepwell.app import App as App
    from stepwell.app import Limit as Limit
    from stepwell.domain.errors import AlreadyAnswered as AlreadyAnswered
    from stepwell.domain.errors import AskTimeout as AskTimeout
    from stepwell.domain.errors import Busy as Busy
    from stepwell.domain.errors import Conflict as Conflict
    from stepwell.domain.errors import Fail as Fail
    from stepwell.domain.errors import InvalidDefinition as InvalidDefinition
    from stepwell.domain.errors import InvalidInput as InvalidInput
    from stepwell.domain.errors import InvalidValue as InvalidValue
    from stepwell.domain.errors import LeaseLost as LeaseLost
    from stepwell.domain.errors import Misuse as Misuse
    from stepwell.domain.errors import NotExecuted as NotExecuted
    from stepwell.domain.errors import NotFound as NotFound
    from stepwell.domain.errors import RunEnded as RunEnded
    from stepwell.domain.errors import RunFailed as RunFailed
    from stepwell.domain.errors import StepFailed as StepFailed
    from stepwell.domain.errors import StepwellError as StepwellError
    from stepwell.domain.errors import StoreError as StoreError
    from stepwell.domain.errors import StoreFull as StoreFull
    from stepwell.domain.errors import StoreUnavailable as StoreUnavailable
    from stepwell.domain.errors import StoreUnusable as StoreUnusable
    from stepwell.domain.errors import WaitTimeout as WaitTimeout
    from stepwell.domain.event import Event as Event
    from stepwell.domain.outcome import ErrorInfo as ErrorInfo
    from stepwell.domain.retry import Retry as Retry
    from stepwell.domain.run import RunStatus as RunStatus
    from stepwell.ports.child import ChildResult as ChildResult
    from stepwell.ports.child import ChildRun as ChildRun
    from stepwell.ports.context import Context as Context
    from stepwell.ports.context import RunInfo as RunInfo
    from stepwell.ports.context import StepContext as StepContext
    from stepwell.ports.session import Message as Message
    from stepwell.ports.session import Session as Session
    from stepwell.ports.session import SessionState as SessionState
    from stepwell.runtime import AgentInfo as AgentInfo
    from stepwell.runtime import Artifact as Artifact
    from stepwell.runtime import LaneInfo as LaneInfo
    from stepwell.runtime import Question as Question
    from stepwell.runtime import Run as Run
    from stepwell.runtime import RunResult as RunResult
    from stepwell.runtime import Runtime as Runtime
    from stepwell.runtime import StoredSession as StoredSession
    from stepwell.runtime import StoredState as StoredState
    from stepwell.runtime import TextPart as TextPart
    from stepwell.runtime import WorkerInfo as WorkerInfo
    from stepwell.runtime import run_sync as run_sync

_ERRORS = (
    "AlreadyAnswered AskTimeout Busy Conflict Fail InvalidDefinition InvalidInput InvalidValue LeaseLost Misuse "
    "NotExecuted NotFound RunEnded RunFailed StepFailed StepwellError StoreError StoreFull StoreUnavailable "
    "StoreUnusable WaitTimeout"
)
_HOMES = {
    "stepwell.app": "Agent App Limit",
    "stepwell.domain.errors": _ERRORS,
    "stepwell.domain.event": "Event",
    "stepwell.domain.outcome": "ErrorInfo",
    "stepwell.domain.retry": "Retry",
    "stepwell.domain.run": "RunStatus",
    "stepwell.ports.child": "ChildResult ChildRun",
    "stepwell.ports.context": "Context RunInfo StepContext",
    "stepwell.ports.session": "Message Session SessionState",
    "stepwell.runtime": (
        "AgentInfo Artifact LaneInfo Question Run RunResult Runtime StoredSession StoredState TextPart WorkerInfo "
        "run_sync"
    ),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names.split()}

__all__ = [*sorted(_HOME_OF)]


def __getattr__(name: str) -> _typing.Any:
    module = _HOME_OF.get(name)
    if module is None:
        raise AttributeError(f"module 'stepwell' has no attribute {name!r}")
    value = globals()[name] = getattr(_import_module(module), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME_OF})
