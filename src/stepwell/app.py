"""App: collects agents under one name, without input or output. `Agent` is what its decorator makes of a function,
`Limit` bounds how many runs of it execute at once.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import KW_ONLY, dataclass
from types import MappingProxyType
from typing import Any, Final, Generic, Protocol, get_args, overload

from typing_extensions import ParamSpec, TypeVar

from stepwell.domain.errors import InvalidDefinition, Seconds
from stepwell.domain.ids import NAME
from stepwell.domain.retry import Retry, micros
from stepwell.ports.child import Callee
from stepwell.ports.context import Context
from stepwell.ports.runnable import SessionMode, WhenBusy

D = TypeVar("D", default=Any)
I = TypeVar("I", default=str)  # noqa: E741  (an agent's input)
O = TypeVar("O", default=str)  # noqa: E741  (an agent's output)
I_contra = TypeVar("I_contra", contravariant=True, default=Any)
O_co = TypeVar("O_co", covariant=True, default=Any)
P = ParamSpec("P")

DEFAULT_TIMEOUT: Final = 3600
DEFAULT_VERSION: Final = "1"
DEFAULT_CHILDREN: Final = 100
_MOST: Final = 1_000_000

CancelHook = Callable[[Context[Any]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `n` runs of an agent execute at once, over all processes of a store; the others stand in line.

    With `key`, a function of the input that gives a text, at most `n` for each text. Raises `InvalidDefinition` for an
    `n` below 1 and for a key that is not a plain function.
    """

    n: int
    _: KW_ONLY
    key: Callable[[Any], str] | None = None

    def __post_init__(self) -> None:
        _check_count(self.n, "limit")
        if self.key is not None and (not callable(self.key) or inspect.iscoroutinefunction(self.key)):
            raise InvalidDefinition(
                f"key={self.key!r:.80} of a limit is not a plain function",
                code="definition.limit",
                hint="write key=lambda input: input.customer",
            )


class Agent(Callee[I_contra, O_co]):
    """Something that can be run: a name, a version, and policies. Made by `@app.agent`."""

    retry: Retry | None
    timeout: int
    concurrency: Limit | None
    session: SessionMode
    busy: WhenBusy
    children: int
    cancel_hook: CancelHook | None = None
    app: App[Any] | None = None

    def __repr__(self) -> str:
        return f"<agent {self.name} version {self.version}>"


class FunctionAgent(Agent[I_contra, O_co], Generic[P, I_contra, O_co]):
    """An agent written as an async function. Calling it calls the function, which is how it is unit-tested."""

    def __init__(
        self,
        fn: Callable[..., Coroutine[Any, Any, Any]],
        *,
        name: str | None,
        version: str | None,
        retry: Retry | None,
        timeout: Seconds | None,
        concurrency: int | Limit | None,
        session: SessionMode,
        busy: WhenBusy,
        children: int,
        local_names: Mapping[str, Any],
    ) -> None:
        self.name = name or fn.__name__
        _check_signature(fn, self.name)
        self.version = DEFAULT_VERSION if version is None else _checked_version(version, self.name)
        if retry is not None and not isinstance(retry, Retry):
            raise InvalidDefinition(
                f"agent {self.name!r}: retry={retry!r:.80} is not a Retry",
                code="definition.retry",
                hint="write retry=Retry(max_attempts=3)",
            )
        self.retry = retry
        self.timeout = micros(DEFAULT_TIMEOUT if timeout is None else timeout, what=f"agent {self.name}: timeout")
        self.concurrency = _checked_limit(concurrency, fn, self.name)
        self.session, self.busy = _checked_session(session, busy, self.name)
        self.children = _check_count(children, f"agent {self.name!r}: children")
        self.fn = fn
        self.local_names = local_names
        self.__doc__ = fn.__doc__
        self.__name__ = fn.__name__
        self.__qualname__ = fn.__qualname__
        self.__module__ = fn.__module__
        self.__wrapped__ = fn

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, O_co]:
        return self.fn(*args, **kwargs)

    def on_cancel(self, fn: CancelHook, /) -> CancelHook:
        """Declare the clean-up of a cancelled run: `async def clean_up(ctx)`. Returns the function.

        It runs once the agent itself has been stopped, or in its place where the run was parked; it may do steps, and
        its time is bounded. Raises `InvalidDefinition` for a plain function, other parameters, and a second clean-up.
        """
        if self.cancel_hook is not None:
            raise InvalidDefinition(
                f"agent {self.name!r} has two functions for its cancel", code="definition.duplicate", hint="join them"
            )
        _check_hook(fn, self.name)
        self.cancel_hook = fn
        return fn


class _AgentDecorator(Protocol[D]):
    @overload
    def __call__(
        self, fn: Callable[[Context[D], I], Coroutine[Any, Any, O]], /
    ) -> FunctionAgent[[Context[D], I], I, O]: ...
    @overload
    def __call__(
        self, fn: Callable[[Context[D]], Coroutine[Any, Any, O]], /
    ) -> FunctionAgent[[Context[D]], None, O]: ...


class App(Generic[D]):
    """A named collection of agents.

    `lifespan` is an async context manager function; every process that executes runs enters it once, and what it
    yields is `ctx.deps`: pools, clients, whatever agents and steps share. Nothing is opened before a `Runtime` is
    entered. `limit` is how many runs of the app execute at once, over all processes of a store (default: no limit);
    runs that wait, back off or are held do not count.
    """

    @overload
    def __init__(self: App[Any], name: str, *, limit: int | None = None) -> None: ...
    @overload
    def __init__(
        self, name: str, *, lifespan: Callable[[], AbstractAsyncContextManager[D]], limit: int | None = None
    ) -> None: ...
    def __init__(
        self,
        name: str,
        *,
        lifespan: Callable[[], AbstractAsyncContextManager[Any]] | None = None,
        limit: int | None = None,
    ) -> None:
        self.name = _checked_name(name, "app")
        self.lifespan = lifespan
        self.module = str(sys._getframe(1).f_globals.get("__name__", ""))
        self.limit = None if limit is None else _check_count(limit, f"app {name!r}: limit")
        self._agents: dict[str, Agent[Any, Any]] = {}

    @property
    def agents(self) -> Mapping[str, Agent[Any, Any]]:
        """The agents by name, in the order of their declaration."""
        return MappingProxyType(self._agents)

    @overload
    def agent(
        self, fn: Callable[[Context[D], I], Coroutine[Any, Any, O]], /
    ) -> FunctionAgent[[Context[D], I], I, O]: ...
    @overload
    def agent(self, fn: Callable[[Context[D]], Coroutine[Any, Any, O]], /) -> FunctionAgent[[Context[D]], None, O]: ...
    @overload
    def agent(
        self,
        fn: None = None,
        /,
        *,
        name: str | None = None,
        version: str | None = None,
        retry: Retry | None = None,
        timeout: Seconds | None = None,
        concurrency: int | Limit | None = None,
        session: SessionMode = "shared",
        busy: WhenBusy = "queue",
        children: int = DEFAULT_CHILDREN,
    ) -> _AgentDecorator[D]: ...
    def agent(
        self,
        fn: Any = None,
        /,
        *,
        name: str | None = None,
        version: str | None = None,
        retry: Retry | None = None,
        timeout: Seconds | None = None,
        concurrency: int | Limit | None = None,
        session: SessionMode = "shared",
        busy: WhenBusy = "queue",
        children: int = DEFAULT_CHILDREN,
    ) -> Any:
        """Declare an agent: `async def agent(ctx)` or `async def agent(ctx, input)`, with or without parentheses.

        `name` defaults to the function's, `version` to "1". `retry` tries the whole agent again after an exception
        (default: an exception ends the run). `timeout` bounds the time that workers spend on one run, over all
        attempts (default 1 h). `concurrency` is how many runs execute at once, over all processes: a number, or a
        `Limit` that counts by a key of the input (default: no limit). `children` is how many live children one run may
        have.

        `session` says how runs of one session meet: "shared" at once, each seeing what the others write;
        "synchronized" one after the other, in the order of their start; "isolated" at once, each seeing only what it
        wrote itself. `busy` says what a start does in a synchronized session that is not free: "queue" stands in line,
        "reject" raises `Busy` (`session.busy`), "interrupt" cancels those in it and in line, "answer" gives the input
        to the question that the run in it asks, and stands in line if it asks none or the input does not fit. Children
        of other runs always stand in line.

        Raises `InvalidDefinition` for a plain function, a wrong number of parameters, a name that is taken or not
        allowed, a limit below 1, and `busy` without a synchronized session.
        """
        local_names = _local_names(sys._getframe(1))

        def declare(fn: Callable[..., Coroutine[Any, Any, Any]]) -> FunctionAgent[..., Any, Any]:
            made: FunctionAgent[..., Any, Any] = FunctionAgent(
                fn,
                name=name,
                version=version,
                retry=retry,
                timeout=timeout,
                concurrency=concurrency,
                session=session,
                busy=busy,
                children=children,
                local_names=local_names,
            )
            self._add(made)
            return made

        return declare if fn is None else declare(fn)

    def _add(self, agent: Agent[Any, Any]) -> None:
        _checked_name(agent.name, "agent")
        if agent.name in self._agents:
            raise InvalidDefinition(
                f"app {self.name!r} has two agents named {agent.name!r}",
                code="definition.duplicate",
                hint="rename one, or give it a name: @app.agent(name=...)",
            )
        self._agents[agent.name] = agent
        agent.app = self

    def __repr__(self) -> str:
        return f"<app {self.name}: {', '.join(self._agents) or 'no agents'}>"


def _local_names(frame: Any) -> Mapping[str, Any]:
    """The names of an enclosing function, in which an agent's annotations may have to be looked up later."""
    return frame.f_locals if frame.f_code.co_name != "<module>" else {}


def _checked_name(name: str, what: str) -> str:
    if not isinstance(name, str) or NAME.fullmatch(name) is None:
        raise InvalidDefinition(
            f"{name!r} cannot name an {what}",
            code="definition.name",
            hint="use a letter or digit, then up to 127 letters, digits, _ . : @ or -",
        )
    return name


def _checked_version(version: str, agent: str) -> str:
    if not isinstance(version, str) or NAME.fullmatch(version) is None:
        raise InvalidDefinition(
            f"agent {agent!r}: version {version!r} is not a text like '2' or '2026-11-21'", code="definition.version"
        )
    return version


def _check_count(count: int, what: str) -> int:
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= _MOST:
        raise InvalidDefinition(
            f"{what} {count!r:.80} is not a whole number from 1 to {_MOST:,}", code="definition.limit"
        )
    return count


def _checked_limit(concurrency: int | Limit | None, fn: Callable[..., Any], agent: str) -> Limit | None:
    if isinstance(concurrency, Limit) and concurrency.key is not None and len(inspect.signature(fn).parameters) == 1:
        raise InvalidDefinition(
            f"agent {agent!r} takes no input, so its limit has nothing to count by",
            code="definition.limit",
            hint="leave the key out",
        )
    if concurrency is None or isinstance(concurrency, Limit):
        return concurrency
    return Limit(_check_count(concurrency, f"agent {agent!r}: concurrency"))


def _checked_session(session: SessionMode, busy: WhenBusy, agent: str) -> tuple[SessionMode, WhenBusy]:
    for name, given, known in (("session", session, get_args(SessionMode)), ("busy", busy, get_args(WhenBusy))):
        if given not in known:
            raise InvalidDefinition(
                f"agent {agent!r}: {name}={given!r:.80} is none of {', '.join(known)}", code="definition.session"
            )
    if busy != "queue" and session != "synchronized":
        raise InvalidDefinition(
            f"agent {agent!r}: busy={busy!r} says nothing: runs of a {session} session do not wait for each other",
            code="definition.session",
            hint='write session="synchronized", or leave busy out',
        )
    return session, busy


def _check_hook(fn: Callable[..., Any], agent: str) -> None:
    parameters = list(inspect.signature(fn).parameters.values()) if callable(fn) else []
    takes_context = len(parameters) == 1 and parameters[0].kind in (
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
    )
    if not takes_context or not inspect.iscoroutinefunction(fn):
        raise InvalidDefinition(
            f"the clean-up of agent {agent!r} is not an async function of ctx alone",
            code="definition.on_cancel",
            hint=f"write `async def {getattr(fn, '__name__', 'clean_up')}(ctx)`",
        )


def _check_signature(fn: Callable[..., Any], name: str) -> None:
    if not inspect.iscoroutinefunction(fn):
        raise InvalidDefinition(
            f"agent {name!r} is not an async function",
            code="definition.not_async",
            hint=f"write `async def {getattr(fn, '__name__', name)}(ctx, ...)`; steps may be plain functions",
        )
    parameters = list(inspect.signature(fn).parameters.values())
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if len(positional) != len(parameters) or not 1 <= len(positional) <= 2:
        shown = ", ".join(p.name for p in parameters)
        raise InvalidDefinition(
            f"agent {name!r} takes ({shown})",
            code="definition.signature",
            hint="an agent takes ctx, and at most one input: put several values into one dataclass or model",
        )
