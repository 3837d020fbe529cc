"""App: collects agents under one name, without input or output. `Agent` is what its decorator makes of a function."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager
from types import MappingProxyType
from typing import Any, Final, Generic, Protocol, overload

from typing_extensions import ParamSpec, TypeVar

from stepwell.domain.errors import InvalidDefinition, Seconds
from stepwell.domain.ids import NAME
from stepwell.domain.retry import Retry, micros
from stepwell.ports.context import Context

D = TypeVar("D", default=Any)
I = TypeVar("I", default=str)  # noqa: E741  (an agent's input)
O = TypeVar("O", default=str)  # noqa: E741  (an agent's output)
I_contra = TypeVar("I_contra", contravariant=True, default=Any)
O_co = TypeVar("O_co", covariant=True, default=Any)
P = ParamSpec("P")

DEFAULT_TIMEOUT: Final = 3600
DEFAULT_VERSION: Final = "1"


class Agent(Generic[I_contra, O_co]):
    """Something that can be run: a name, a version, and policies. Made by `@app.agent`."""

    name: str
    version: str
    retry: Retry | None
    timeout: int
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
        self.fn = fn
        self.local_names = local_names
        self.__doc__ = fn.__doc__
        self.__name__ = fn.__name__
        self.__qualname__ = fn.__qualname__
        self.__module__ = fn.__module__
        self.__wrapped__ = fn

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, O_co]:
        return self.fn(*args, **kwargs)


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
    entered.
    """

    @overload
    def __init__(self: App[Any], name: str) -> None: ...
    @overload
    def __init__(self, name: str, *, lifespan: Callable[[], AbstractAsyncContextManager[D]]) -> None: ...
    def __init__(self, name: str, *, lifespan: Callable[[], AbstractAsyncContextManager[Any]] | None = None) -> None:
        self.name = _checked_name(name, "app")
        self.lifespan = lifespan
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
    ) -> Any:
        """Declare an agent: `async def agent(ctx)` or `async def agent(ctx, input)`, with or without parentheses.

        `name` defaults to the function's, `version` to "1". `retry` tries the whole agent again after an exception
        (default: an exception ends the run). `timeout` bounds the time that workers spend on one run, over all
        attempts (default 1 h).

        Raises `InvalidDefinition` for a plain function, a wrong number of parameters, a name that is taken or not
        allowed.
        """
        local_names = _local_names(sys._getframe(1))

        def declare(fn: Callable[..., Coroutine[Any, Any, Any]]) -> FunctionAgent[..., Any, Any]:
            made: FunctionAgent[..., Any, Any] = FunctionAgent(
                fn, name=name, version=version, retry=retry, timeout=timeout, local_names=local_names
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
