"""Runtime: joins apps, a store and a worker. The only place where an engine and a store meet."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Final, Generic, Literal, Self, overload

from typing_extensions import TypeVar

from stepwell.agents.function import FunctionRunnable
from stepwell.app import Agent, App, FunctionAgent
from stepwell.config import find_store
from stepwell.domain.errors import InvalidDefinition, Misuse, NotFound, Seconds
from stepwell.domain.retry import seconds
from stepwell.domain.run import RunRecord
from stepwell.engine.executor import Ending
from stepwell.engine.report import Observer
from stepwell.engine.submission import Options, Submitter
from stepwell.engine.worker import DRAIN, LEASE_SECONDS, Worker
from stepwell.ports.clock import Clock
from stepwell.ports.runnable import Runnable
from stepwell.ports.store import Store, StoreReport, WorkerInfo
from stepwell.ports.system_clock import SystemClock
from stepwell.runtime.run import Run, RunResult
from stepwell.runtime.runs import Runs
from stepwell.stores import make_store

D = TypeVar("D", default=Any)
I = TypeVar("I", default=str)  # noqa: E741  (an agent's input)
O = TypeVar("O", default=str)  # noqa: E741  (an agent's output)

CAPACITY: Final = 16
_SHORTEST_LEASE: Final = 0.2


class _NoInput:
    """Stands for an input that was not given."""


_NOT_GIVEN: Final[Any] = _NoInput()


class Runtime(Generic[D]):
    """Opens a store, executes runs of its apps, and starts new ones.

        async with Runtime(app) as runtime:
            result = await runtime.run(hello, "Ada")

    Nothing is opened, and no agent looked at, before `async with`. `store` is a URL (`sqlite:///path.db`,
    `memory://`); without it `STEPWELL_STORE`, the project's setting, or `.stepwell/stepwell.db` beside the project
    file decide. `deps` takes the place of the first app's lifespan. With `worker=False` it only submits and reads.
    `capacity` is how many runs it executes at once; `lease` (seconds or timedelta, default 30) is how long others wait
    before they take over from a worker that stopped answering but is not provably dead. `serve="own"` executes only
    runs that it started or adopted. `on_step` is told what steps do, in this process, while they do it.
    """

    def __init__(
        self,
        app: App[D],
        *apps: App[Any],
        store: str | None = None,
        deps: D = _NOT_GIVEN,
        worker: bool = True,
        capacity: int = CAPACITY,
        lease: Seconds = LEASE_SECONDS,
        serve: Literal["all", "own"] = "all",
        on_step: Observer | None = None,
    ) -> None:
        if isinstance(capacity, bool) or not isinstance(capacity, int) or capacity < 1:
            raise InvalidDefinition(
                f"capacity {capacity!r} is not a whole number of at least 1", code="definition.capacity"
            )
        self._lease = seconds(lease, what="lease")
        if self._lease < _SHORTEST_LEASE:
            raise InvalidDefinition(f"lease {lease!r} is shorter than {_SHORTEST_LEASE} s", code="definition.lease")
        self._apps: tuple[App[Any], ...] = (app, *apps)
        self._runnables: dict[str, Runnable] = {}
        self._app_of: dict[str, App[Any]] = {}
        self._store_url = store
        self._given_deps = deps
        self._works = worker
        self._capacity = capacity
        self._serve = serve
        self._observer = on_step
        self._clock: Clock = SystemClock()
        self._deps: dict[int, Any] = {}
        self._stack: AsyncExitStack | None = None
        self._store: Store | None = None
        self._worker: Worker | None = None
        self._submitter: Submitter | None = None
        self.runs = Runs(self._opened, self._make_run)

    # ------------------------------------------------------------ life

    async def __aenter__(self) -> Self:
        if self._stack is not None:
            raise Misuse("this runtime is already entered", code="runtime.entered", hint="make another Runtime")
        self._runnables, self._app_of = _collect(self._apps)
        async with AsyncExitStack() as stack:
            store = make_store(find_store(self._store_url).value, clock=self._clock)
            await store.open()
            stack.push_async_callback(store.close)
            if self._works:
                await self._start_worker(stack, store)
            self._store = store
            self._submitter = Submitter(store, clock=self._clock, entropy=os.urandom, worker=self._worker)
            self._stack = stack.pop_all()
        return self

    async def _start_worker(self, stack: AsyncExitStack, store: Store) -> None:
        for number, app in enumerate(self._apps):
            if number == 0 and self._given_deps is not _NOT_GIVEN:
                self._deps[id(app)] = self._given_deps
            elif app.lifespan is not None:
                self._deps[id(app)] = await stack.enter_async_context(app.lifespan())
        worker = Worker(
            store,
            self._runnables,
            capacity=self._capacity,
            clock=self._clock,
            entropy=os.urandom,
            deps=lambda agent: self._deps.get(id(self._app_of[agent])),
            only_own=self._serve == "own",
            lease_seconds=self._lease,
            observer=self._observer,
        )
        await worker.start()
        self._worker = worker
        stack.push_async_callback(self._stop_worker)

    async def _stop_worker(self) -> None:
        if self._worker is not None:
            await self._worker.stop()
            self._worker = None

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        stack, self._stack = self._stack, None
        self._submitter = None
        if stack is not None:
            await stack.__aexit__(kind, error, trace)
        self._store = None

    async def drain(self, *, timeout: Seconds | None = None) -> None:
        """Execute nothing new; let running attempts finish for up to `timeout` (default 30 s), then hand the others
        back.

        The runtime can still submit and read. Whatever was handed back waits for another worker.
        """
        limit = DRAIN if timeout is None else seconds(timeout, what="timeout")
        self._submitter = Submitter(self._opened(), clock=self._clock, entropy=os.urandom, worker=None)
        if self._worker is not None:
            await self._worker.stop(drain=limit)
            self._worker = None

    # ------------------------------------------------------------ starting runs

    @overload
    async def start(
        self,
        agent: Agent[I, O],
        input: I = ...,
        /,
        *,
        idempotency_key: str | None = None,
        delay: Seconds | None = None,
        priority: int = 0,
        metadata: Mapping[str, str] | None = None,
    ) -> Run[O]: ...
    @overload
    async def start(
        self,
        agent: str,
        input: Any = ...,
        /,
        *,
        idempotency_key: str | None = None,
        delay: Seconds | None = None,
        priority: int = 0,
        metadata: Mapping[str, str] | None = None,
    ) -> Run[Any]: ...
    async def start(
        self,
        agent: Agent[Any, Any] | str,
        input: Any = None,
        /,
        *,
        idempotency_key: str | None = None,
        delay: Seconds | None = None,
        priority: int = 0,
        metadata: Mapping[str, str] | None = None,
    ) -> Run[Any]:
        """Submit a run; it exists, durably, when this returns.

        `input` is a value of the agent's input type, or the plain data of one. The same `idempotency_key` (per agent)
        gives the same run, and `Conflict` for another input. `delay` (seconds or timedelta) is the earliest start.
        `priority`, -100 to 100, is worth a place 30 s earlier in the queue per point. `metadata` is kept with the run.

        Raises `NotFound` (`agent.unknown`), `InvalidInput` naming the field, `Conflict`, `Busy` (`queue.full`),
        `StoreUnavailable`.
        """
        if self._submitter is None:
            raise _not_entered()
        runnable = self._runnable(agent)
        options = Options(idempotency_key, delay, priority, metadata)
        submitted = await self._submitter.submit(runnable, input, options)
        if self._worker is not None and not submitted.run.life.ended:
            self._worker.adopt(submitted.run.id)
        return self._make_run(submitted.run)

    @overload
    async def run(
        self,
        agent: Agent[I, O],
        input: I = ...,
        /,
        *,
        idempotency_key: str | None = None,
        timeout: Seconds | None = None,
    ) -> RunResult[O]: ...
    @overload
    async def run(
        self, agent: str, input: Any = ..., /, *, idempotency_key: str | None = None, timeout: Seconds | None = None
    ) -> RunResult[Any]: ...
    async def run(
        self,
        agent: Agent[Any, Any] | str,
        input: Any = None,
        /,
        *,
        idempotency_key: str | None = None,
        timeout: Seconds | None = None,
    ) -> RunResult[Any]:
        """`start` and then `result`: how the run ended. Raises what these two raise, `WaitTimeout` after `timeout`
        among them.
        """
        run = await self.start(agent, input, idempotency_key=idempotency_key)
        return await run.result(timeout=timeout)

    async def adopt(self, run_id: str, /) -> Run[Any]:
        """With `serve="own"`: execute this run too, as soon as no other process does. Raises `NotFound`."""
        run = await self.runs.get(run_id)
        if self._worker is not None:
            self._worker.adopt(run_id)
        return run

    # ------------------------------------------------------------ facts

    async def report(self) -> StoreReport:
        """Facts about the store: where it is, what it runs on, runs by status, what looks wrong."""
        return await self._opened().report()

    async def workers(self) -> list[WorkerInfo]:
        """The processes that execute runs of this store and are not known to be dead."""
        return await self._opened().workers()

    # ------------------------------------------------------------ inside

    def _opened(self) -> Store:
        if self._store is None:
            raise _not_entered()
        return self._store

    def _make_run(self, record: RunRecord) -> Run[Any]:
        return Run(
            record,
            store=self._opened(),
            clock=self._clock,
            runnable=self._runnables.get(record.agent),
            local_ending=self._local_ending,
        )

    async def _local_ending(self, run_id: str) -> Ending | None:
        return None if self._worker is None else await self._worker.ending(run_id)

    def _runnable(self, agent: Agent[Any, Any] | str) -> Runnable:
        name = agent if isinstance(agent, str) else agent.name
        runnable = self._runnables.get(name)
        if runnable is None:
            raise _unknown_agent(name, self._apps)
        return runnable


def _collect(apps: tuple[App[Any], ...]) -> tuple[dict[str, Runnable], dict[str, App[Any]]]:
    runnables: dict[str, Runnable] = {}
    app_of: dict[str, App[Any]] = {}
    for app in apps:
        for name, agent in app.agents.items():
            if name in runnables:
                raise InvalidDefinition(
                    f"apps {app_of[name].name!r} and {app.name!r} both have an agent named {name!r}",
                    code="definition.duplicate",
                    hint="rename one: @app.agent(name=...)",
                )
            assert isinstance(agent, FunctionAgent)
            runnables[name] = FunctionRunnable(agent)
            app_of[name] = app
    return runnables, app_of


def _unknown_agent(name: str, apps: tuple[App[Any], ...]) -> NotFound:
    import difflib

    known = [agent for app in apps for agent in app.agents]
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean: {near[0]}" if near else f"known agents: {', '.join(known) or 'none'}"
    shown = ", ".join(repr(app.name) for app in apps)
    return NotFound(f"no agent {name!r} in app {shown}", code="agent.unknown", hint=hint)


def _not_entered() -> Misuse:
    return Misuse("this runtime is not open", code="runtime.closed", hint="use it inside `async with runtime:`")
