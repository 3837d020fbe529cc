"""Runtime: joins apps, a store and a worker. The only place where an engine and a store meet."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import AsyncExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, Self, overload

from typing_extensions import TypeVar

from stepwell.app import Agent, App
from stepwell.config import find_store
from stepwell.domain.errors import InvalidDefinition, Misuse, Seconds, StoreUnusable
from stepwell.domain.retry import seconds
from stepwell.domain.run import RunRecord
from stepwell.engine.defaults import DRAIN, LEASE_SECONDS
from stepwell.ports.clock import Clock, Entropy
from stepwell.ports.crash_point import refuse_variable
from stepwell.ports.runnable import Runnable
from stepwell.ports.store import Store, StoreReport, Submitted
from stepwell.ports.system_clock import SystemClock
from stepwell.runtime.access import Access
from stepwell.runtime.collection import collect, unknown_agent
from stepwell.runtime.groups import Agents, Queues, Workers
from stepwell.runtime.questions import Questions
from stepwell.runtime.result import RunResult
from stepwell.runtime.run import Run
from stepwell.runtime.runs import Runs
from stepwell.runtime.sessions import Sessions
from stepwell.stores import make_store

if TYPE_CHECKING:  # what a runtime that is open needs is loaded when it is opened
    from stepwell.engine.executor import Ending
    from stepwell.engine.quarantine import Aside
    from stepwell.engine.report import Observer
    from stepwell.engine.submission import Submitter
    from stepwell.engine.worker import Worker

D = TypeVar("D", default=Any)
I = TypeVar("I", default=str)  # noqa: E741  (an agent's input)
O = TypeVar("O", default=str)  # noqa: E741  (an agent's output)

CAPACITY: Final = 16
_SHORTEST_LEASE: Final = 0.2
_ALL: Final = 1_000_000


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
    runs that it started or adopted, and their children. `on_step` is told what steps do, in this process, while they
    do it.

    What is in the store is grouped: `runs`, `questions`, `sessions`, `workers`, `queues`; and `agents` lists those of
    the apps.
    """

    _suspects_only = False

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
        self._entropy: Entropy = os.urandom
        self._deps: dict[int, Any] = {}
        self._stack: AsyncExitStack | None = None
        self._store: Store | None = None
        self._access: Access | None = None
        self._worker: Worker | None = None
        self._submitter: Submitter | None = None
        self._draining = False
        self.runs = Runs(self._opened, self._make_run)
        self.questions = Questions(self._entered)
        self.sessions = Sessions(self._opened)
        self.agents = Agents(self._apps)
        self.workers = Workers(self._opened)
        self.queues = Queues(self._opened)

    # ------------------------------------------------------------ life

    async def __aenter__(self) -> Self:
        if self._stack is not None:
            raise Misuse("this runtime is already entered", code="runtime.entered", hint="make another Runtime")
        refuse_variable()
        self._runnables, self._app_of = collect(self._apps)
        async with AsyncExitStack() as stack:
            store = self._make_store()
            await store.open()
            stack.push_async_callback(store.close)
            if self._works:
                await self._start_worker(stack, store)
            self._store = store
            self._access = self._make_access(store)
            self._submitter = self._make_submitter(store)
            self._stack = stack.pop_all()
        return self

    async def _start_worker(self, stack: AsyncExitStack, store: Store) -> None:
        for number, app in enumerate(self._apps):
            if number == 0 and self._given_deps is not _NOT_GIVEN:
                self._deps[id(app)] = self._given_deps
            elif app.lifespan is not None:
                self._deps[id(app)] = await stack.enter_async_context(app.lifespan())
        worker = self._make_worker(store)
        await worker.start()
        self._worker = worker
        stack.push_async_callback(self._stop_worker)

    def _make_store(self) -> Store:
        return make_store(find_store(self._store_url).value, clock=self._clock)

    def _make_worker(self, store: Store) -> Worker:
        from stepwell.engine.worker import Worker

        return Worker(
            store,
            self._runnables,
            capacity=self._capacity,
            clock=self._clock,
            entropy=self._entropy,
            deps=self._deps_of,
            only_own=self._serve == "own",
            lease_seconds=self._lease,
            observer=self._observer,
            aside=self._aside(),
            suspects_only=self._suspects_only,
        )

    def _aside(self) -> Aside | None:
        """Runs that were lost again and again get a process of their own, if one could do what this one does."""
        if self._suspects_only or self._serve == "own" or self._given_deps is not _NOT_GIVEN:
            return None
        from stepwell.runtime.aside import aside_for

        return aside_for(self._apps, find_store(self._store_url).value, lease_seconds=self._lease)

    def _make_submitter(self, store: Store) -> Submitter:
        from stepwell.engine.submission import Submitter

        worker = None if self._draining else self._worker
        return Submitter(store, clock=self._clock, entropy=self._entropy, worker=worker)

    def _deps_of(self, agent: str) -> Any:
        return self._deps.get(id(self._app_of[agent]))

    async def _stop_worker(self) -> None:
        if self._worker is not None:
            await self._worker.stop()
            self._worker = None

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        stack, self._stack = self._stack, None
        self._submitter = None
        self._draining = False
        if stack is not None:
            await stack.__aexit__(kind, error, trace)
        self._store = self._access = None

    async def drain(self, *, timeout: Seconds | None = None) -> None:
        """Execute nothing new; let running attempts finish for up to `timeout` (default 30 s), then hand the others
        back.

        The runtime can still submit and read. Whatever was handed back waits for another worker.
        """
        limit = DRAIN if timeout is None else seconds(timeout, what="timeout")
        self._draining = True
        self._submitter = self._make_submitter(self._opened())
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
        session: str | None = None,
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
        session: str | None = None,
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
        session: str | None = None,
        idempotency_key: str | None = None,
        delay: Seconds | None = None,
        priority: int = 0,
        metadata: Mapping[str, str] | None = None,
    ) -> Run[Any]:
        """Submit a run; it exists, durably, when this returns.

        `input` is a value of the agent's input type, or the plain data of one. `session` names what several runs share;
        without it the run has a session of its own. The same `idempotency_key` (per agent)
        gives the same run, and `Conflict` for another input. `delay` (seconds or timedelta) is the earliest start.
        `priority`, -100 to 100, is worth a place 30 s earlier in the queue per point. `metadata` is kept with the run.

        Raises `NotFound` (`agent.unknown`), `InvalidInput` naming the field, `Conflict`, `Busy` (`queue.full`, and
        `session.busy` where the agent says so), `StoreUnavailable`.
        """
        if self._submitter is None:
            raise _not_entered()
        runnable = self._runnable(agent)
        from stepwell.engine.submission import Options

        options = Options(idempotency_key, delay, priority, metadata, session)
        return self._make_run(self._own(await self._submitter.submit(runnable, input, options)))

    @overload
    async def run(
        self,
        agent: Agent[I, O],
        input: I = ...,
        /,
        *,
        session: str | None = None,
        idempotency_key: str | None = None,
        timeout: Seconds | None = None,
    ) -> RunResult[O]: ...
    @overload
    async def run(
        self,
        agent: str,
        input: Any = ...,
        /,
        *,
        session: str | None = None,
        idempotency_key: str | None = None,
        timeout: Seconds | None = None,
    ) -> RunResult[Any]: ...
    async def run(
        self,
        agent: Agent[Any, Any] | str,
        input: Any = None,
        /,
        *,
        session: str | None = None,
        idempotency_key: str | None = None,
        timeout: Seconds | None = None,
    ) -> RunResult[Any]:
        """`start` and then `result`: how the run ended. Raises what these two raise, `WaitTimeout` after `timeout`
        among them.
        """
        run = await self.start(agent, input, session=session, idempotency_key=idempotency_key)
        return await run.result(timeout=timeout)

    async def adopt(self, run_id: str, /) -> Run[Any]:
        """With `serve="own"`: execute this run and its children too, as soon as no other process does. Raises
        `NotFound`.
        """
        run = await self.runs.get(run_id)
        if self._worker is not None:
            self._worker.adopt(run_id)
            for child in await self.runs.list(parent=run_id, ended=False, limit=_ALL):
                await self.adopt(child.id)
        return run

    async def broken(self) -> StoreUnusable:
        """Wait until the store has become unusable (`store.io_error`, `store.damaged`, `store.moved`), and return why.

        From then on nothing is executed here, and whoever waits for a run in this runtime gets the error; other
        processes take over what was executed. For programs that only serve: they should end, with an exit code that
        says so. Raises `Misuse` (`runtime.no_worker`) where nothing is executed.
        """
        self._opened()
        if self._worker is None:
            raise Misuse(
                "this runtime executes nothing", code="runtime.no_worker", hint="make it with worker=True, undrained"
            )
        return await self._worker.breakdown.wait()

    # ------------------------------------------------------------ facts

    async def report(self) -> StoreReport:
        """Facts about the store: where it is, what it runs on, runs by status, what looks wrong."""
        return await self._opened().report()

    # ------------------------------------------------------------ inside

    def _opened(self) -> Store:
        if self._store is None:
            raise _not_entered()
        return self._store

    def _entered(self) -> Access:
        if self._access is None:
            raise _not_entered()
        return self._access

    def _make_access(self, store: Store) -> Access:
        return Access(
            store=store,
            clock=self._clock,
            entropy=self._entropy,
            runnable=self._runnables.get,
            local_ending=self._local_ending,
            retry=self._retry,
            broken=self._why_broken,
        )

    def _make_run(self, record: RunRecord) -> Run[Any]:
        return Run(record, self._entered())

    def _own(self, submitted: Submitted) -> RunRecord:
        """A run that this runtime started: it may be executed here, also where only own runs are."""
        if self._worker is not None and not submitted.run.life.ended:
            self._worker.adopt(submitted.run.id)
        return submitted.run

    async def _retry(self, run: RunRecord) -> RunRecord:
        if self._submitter is None:
            raise _not_entered()
        return self._own(await self._submitter.retry(self._runnable(run.agent), run))

    def _why_broken(self) -> StoreUnusable | None:
        return None if self._worker is None else self._worker.breakdown.error

    async def _local_ending(self, run_id: str) -> Ending | None:
        return None if self._worker is None else await self._worker.ending(run_id)

    def _runnable(self, agent: Agent[Any, Any] | str) -> Runnable:
        name = agent if isinstance(agent, str) else agent.name
        runnable = self._runnables.get(name)
        if runnable is None:
            raise unknown_agent(name, self._apps)
        return runnable


def _not_entered() -> Misuse:
    return Misuse("this runtime is not open", code="runtime.closed", hint="use it inside `async with runtime:`")
