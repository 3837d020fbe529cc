"""What an agent and a step are handed: `Context` and `StepContext`, as types with their promises.

The engine implements them; agents, steps and type checkers see only this. Nothing here does anything.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from logging import Logger, LoggerAdapter
from random import Random
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeAlias, overload
from uuid import UUID

from typing_extensions import TypeVar, TypeVarTuple

from stepwell.domain.errors import Seconds
from stepwell.domain.retry import Retry
from stepwell.ports.child import Callee, ChildRun
from stepwell.ports.session import Session

if TYPE_CHECKING:
    AnyLog = LoggerAdapter[Logger]
else:
    AnyLog = LoggerAdapter

D = TypeVar("D", default=Any)
T = TypeVar("T")
E = TypeVar("E")
R = TypeVar("R")
Ts = TypeVarTuple("Ts")
I = TypeVar("I", default=str)  # noqa: E741  (an agent's input)
O = TypeVar("O", default=str)  # noqa: E741  (an agent's output)

Json: TypeAlias = Any
InDoubt: TypeAlias = Literal["rerun", "ask", "fail"]
RunIn: TypeAlias = Literal["thread", "process"]


@dataclass(frozen=True, slots=True)
class RunInfo:
    """The run that an agent or a step belongs to. `metadata` is what the caller gave at the start, unchanged."""

    id: str
    agent: str
    version: str
    session_id: str
    created_at: datetime
    metadata: Mapping[str, str]


class StepContext(Generic[D]):
    """What a step may ask for, by annotating its first parameter with this type. There is no step inside a step.

    `idempotency_key` is the same on every try of this very step, in whatever process: hand it to the service that you
    call, so that a second try has no second effect. `attempt` is the number of this try, starting at 1, one more with
    every try that ended in an error. `deps` is what the app's lifespan yielded. `log` carries the run's id. `cancelled`
    turns true when somebody asked to cancel the run: a long step may look at it, and stop early.
    """

    __slots__ = ("_cancelled", "attempt", "deps", "idempotency_key", "log", "run")

    def __init__(
        self,
        *,
        run: RunInfo,
        deps: D,
        idempotency_key: str,
        attempt: int,
        log: AnyLog,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> None:
        self._cancelled = cancelled
        self.run = run
        self.deps: D = deps
        self.idempotency_key = idempotency_key
        self.attempt = attempt
        self.log = log

    @property
    def cancelled(self) -> bool:
        """Whether somebody asked to cancel the run. Any thread may look."""
        return self._cancelled()


class Context(Protocol[D]):
    """What an agent does through its run. Verbs are remembered: done once, and given back on every later attempt.

    An agent function starts from the top on every attempt. What it awaits through the context is not done again but
    recalled, in the order of the program; **code between those calls may run again**. Positioned calls belong to the
    task that opened their scope: to do several things at once use `gather` or `map`, each of whose branches is a scope
    of its own.
    """

    @property
    def run(self) -> RunInfo:
        """The run: id, agent, version, session, metadata."""
        ...

    @property
    def deps(self) -> D:
        """What the app's lifespan yielded in this process."""
        ...

    @property
    def attempt(self) -> int:
        """The number of this attempt, from 1. Volatile: it differs between attempts, so do not branch on it."""
        ...

    @property
    def log(self) -> AnyLog:
        """A logger that carries the run's id and is quiet while the agent replays what is remembered."""
        ...

    @property
    def random(self) -> Random:
        """A random generator seeded by the run and the scope: the same numbers on every attempt."""
        ...

    @property
    def cancelled(self) -> bool:
        """Whether somebody asked to cancel the run. Volatile: for code between calls that takes long."""
        ...

    @property
    def session(self) -> Session:
        """What the runs of the session share: messages and state. Never `None`."""
        ...

    def now(self) -> datetime:
        """The time, aware UTC, remembered: a later attempt is given the same. Recorded with the next write."""
        ...

    def uuid(self) -> UUID:
        """A UUID (version 8) derived from the run and the place of the call: the same on every attempt."""
        ...

    def patched(self, id: str, /) -> bool:
        """Mark an intended change of the program. True where the change applies, false in runs that passed this place
        before it.

        Runs that reach the mark for the first time are recorded as changed and stay so; runs whose journal goes on
        after this place without the mark keep to the old branch.
        """
        ...

    @overload
    async def step(
        self,
        fn: Callable[[StepContext[D], *Ts], Coroutine[Any, Any, R]],
        /,
        *args: *Ts,
        name: str | None = None,
        key: str | None = None,
        timeout: Seconds | None = None,
        retry: Retry | None = None,
        in_doubt: InDoubt | Callable[[StepContext[D], *Ts], Awaitable[R | None]] = "rerun",
    ) -> R: ...
    @overload
    async def step(
        self,
        fn: Callable[[*Ts], Coroutine[Any, Any, R]],
        /,
        *args: *Ts,
        name: str | None = None,
        key: str | None = None,
        timeout: Seconds | None = None,
        retry: Retry | None = None,
        in_doubt: InDoubt | Callable[[*Ts], Awaitable[R | None]] = "rerun",
    ) -> R: ...
    @overload
    async def step(
        self,
        fn: Callable[[*Ts], R],
        /,
        *args: *Ts,
        name: str | None = None,
        key: str | None = None,
        timeout: Seconds | None = None,
        retry: Retry | None = None,
        in_doubt: InDoubt | Callable[[*Ts], R | None] = "rerun",
        run_in: RunIn = "thread",
    ) -> R: ...
    async def step(  # type: ignore[misc]  # mypy does not see that *args: Any takes every *Ts
        self,
        fn: Any,
        /,
        *args: Any,
        name: str | None = None,
        key: str | None = None,
        timeout: Seconds | None = None,
        retry: Retry | None = None,
        in_doubt: Any = "rerun",
        run_in: RunIn = "thread",
    ) -> Any:
        """Call `fn(*args)` once and remember its result; on later attempts give the remembered result back.

        `fn` is a coroutine function, or a plain function that runs off the event loop: in a thread, or with
        `run_in="process"` in a spawned interpreter that is killed at the timeout. Arguments and result are data. The
        result is typed by the function's return annotation, and is what was stored, also the first time.

        `name` (default: the function's) and the place identify the step; with `key` the name and the key do, and the
        order is free. `timeout` bounds one try (seconds or timedelta; default none). `retry` tries again after errors
        (default: no). `in_doubt` says what happens when a try may have had its effect but has no record, after a
        crash, a timeout or an error: `"rerun"` (default) tries again, a function of the same arguments finds out (it
        returns the result, or raises `NotExecuted`, or returns `None` where the step never does), `"ask"` asks a
        person in the inbox, `"fail"` holds the run until a person resumes it.

        Raises `StepFailed` when the step failed for good, `InvalidValue` when an argument or the result is not data,
        `Misuse` when called from a task that the scope did not start.
        """
        ...

    @overload
    async def map(
        self,
        fn: Callable[[E], Coroutine[Any, Any, R]],
        items: Iterable[E],
        /,
        *,
        name: str | None = None,
        key: Callable[[E], str] | None = None,
        limit: int | None = None,
    ) -> list[R]: ...
    @overload
    async def map(
        self,
        fn: Callable[[E], R],
        items: Iterable[E],
        /,
        *,
        name: str | None = None,
        key: Callable[[E], str] | None = None,
        limit: int | None = None,
    ) -> list[R]: ...
    async def map(
        self,
        fn: Any,
        items: Iterable[Any],
        /,
        *,
        name: str | None = None,
        key: Callable[[Any], str] | None = None,
        limit: int | None = None,
    ) -> Any:
        """One step per item, at most `limit` at once (default: all), results in the order of the items.

        With `key` each item's step is remembered under `key(item)`, whatever the order of the items; keys must differ.
        All steps end before the first failure, in the order of the items, is raised.
        """
        ...

    @overload
    async def gather(self, a: Coroutine[Any, Any, T], b: Coroutine[Any, Any, E], /) -> tuple[T, E]: ...
    @overload
    async def gather(self, *branches: Coroutine[Any, Any, T]) -> list[T]: ...
    async def gather(self, *branches: Any) -> Any:
        """Run coroutines at once, each in a scope of its own, numbered in argument order.

        Two branches give a tuple, any other number a list. All branches end before the first error, in argument order,
        is raised: which error it is does not depend on timing.
        """
        ...

    async def sleep(self, duration: Seconds, /) -> None:
        """Wait that long (seconds or timedelta), from the first time on that the agent comes here.

        A run that waits for more than a moment holds nothing but its row: no slot, no task, no memory; a worker takes
        it up again when the time has come.
        """
        ...

    async def sleep_until(self, when: datetime, /) -> None:
        """Wait until a moment, an aware datetime; return at once when it has passed."""
        ...

    async def wait_for(
        self, name: str, type: type[T] = ..., /, *, timeout: Seconds | None = None, default: T = ...
    ) -> T:
        """Wait for a signal of that name and return its payload as `type`, holding nothing meanwhile.

        Signals of one name are taken in the order of their arrival, also those that came before the wait. When none
        comes within `timeout` (seconds or timedelta; default: no limit): `default`, else `AskTimeout`. Raises
        `InvalidInput` when the payload does not fit the type.
        """
        ...

    async def ask(
        self,
        question: str,
        type: type[T],
        /,
        *,
        details: Json = None,
        key: str | None = None,
        assignee: str | None = None,
        timeout: Seconds | None = None,
        default: T = ...,
        release: bool = False,
    ) -> T:
        """Ask a person and wait for the answer, holding nothing meanwhile. The answer is checked against `type` when it
        is given, so `bool` makes an approval and an enum a choice.

        `details` (JSON data) and `assignee` are shown to who answers. With `key` the question is identified by the key
        and not by its place. When nobody answers within `timeout` (seconds or timedelta; default: no limit):
        `default`, else `AskTimeout`. `release` gives up the run's turn in a synchronized session while it waits: at
        once, or when the last of its children has ended that are part of the turn. A child keeps the turn it lives on.
        """
        ...

    @overload
    async def call(
        self, agent: Callee[I, O], input: I = ..., /, *, key: str | None = None, session: str | None = None
    ) -> O: ...
    @overload
    async def call(
        self, agent: str, input: Json = ..., /, *, key: str | None = None, session: str | None = None
    ) -> Any: ...
    async def call(
        self, agent: Any, input: Any = None, /, *, key: str | None = None, session: str | None = None
    ) -> Any:
        """Run another agent as a child and return what it returns, holding nothing meanwhile.

        The child is a run of its own, in the same session unless `session` names another, and part of its parent's
        turn: that is not over before the child is. Where it needs a turn of its own it stands in line, whatever its
        agent's `busy` says. It is started once, whatever happens to the parent; a new attempt of the parent makes a
        child that failed anew. Raises `RunFailed` when the child did not succeed, `StepFailed` (`child.depth`,
        `child.limit`) when it may not be started, `NotFound` for an agent that this worker does not serve,
        `InvalidInput`, and `Misuse` (`child.session`) for a turn in another synchronized session while this run has
        one.
        """
        ...

    @overload
    async def spawn(
        self,
        agent: Callee[I, O],
        input: I = ...,
        /,
        *,
        key: str | None = None,
        session: str | None = None,
        detach: bool = False,
    ) -> ChildRun[O]: ...
    @overload
    async def spawn(
        self,
        agent: str,
        input: Json = ...,
        /,
        *,
        key: str | None = None,
        session: str | None = None,
        detach: bool = False,
    ) -> ChildRun[Any]: ...
    async def spawn(
        self,
        agent: Any,
        input: Any = None,
        /,
        *,
        key: str | None = None,
        session: str | None = None,
        detach: bool = False,
    ) -> ChildRun[Any]:
        """Start a child and go on; `await child.result()` waits for its end.

        At the parent's end its children are cancelled, but for those started with `detach`. Raises as `call` does for
        a child that may not be started.
        """
        ...

    async def stream_text(self, text: str, /) -> None:
        """Show a piece of text to whoever watches the run, at once and once.

        Pieces are joined (about 50 ms or 2 KiB) before they are numbered. The pieces between two other calls are one
        stream; what a lost attempt had shown of it is shown again by the next, marked as such.
        """
        ...

    async def emit(self, name: str, data: Json = None, /) -> None:
        """Append the event `custom.<name>` with JSON data (an object, or any value, which then stands under `value`),
        once.
        """
        ...

    async def artifact(self, name: str, content: str | bytes, /, *, media_type: str | None = None) -> None:
        """Keep a file with the run, once: at most 64 MiB, text as UTF-8. The media type is guessed from the name when
        not given.
        """
        ...

    async def checkpoint(self, state: Json, /) -> None:
        """Save `state`, a value of the type given to `restore`, and begin a new numbering.

        Later attempts need not repeat, and do not expect, positioned calls made before. The agent must begin with
        `restore`, and go on from what it gives. Steps with a `key` stay remembered.
        """
        ...

    async def restore(self, type: type[T], /) -> T | None:
        """The last state saved by `checkpoint`, as `type`, or `None`. Must be the agent's first call through the
        context.
        """
        ...


__all__ = [
    "AnyLog",
    "Context",
    "InDoubt",
    "Json",
    "RunIn",
    "RunInfo",
    "StepContext",
]
