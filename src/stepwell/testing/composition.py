"""The testing runtime: a memory store, a worker that can be killed, and a clock that jumps while the test waits."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from datetime import datetime
from random import Random
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Final

from typing_extensions import TypeVar

from stepwell.app import App
from stepwell.domain.errors import InvalidDefinition, Misuse, Seconds
from stepwell.domain.event import to_micros
from stepwell.engine.attempt import LOST, Attempt
from stepwell.engine.worker import Worker
from stepwell.runtime.composition import Runtime
from stepwell.testing.clock import START, ManualClock
from stepwell.testing.pace import Clock, Pace
from stepwell.testing.rehearsal import rehearse
from stepwell.testing.stuck import Stuck
from stepwell.testing.watched import WatchedStore

if TYPE_CHECKING:
    from stepwell.engine.replay import Call
    from stepwell.engine.report import StepReport
    from stepwell.ports.store import Store
    from stepwell.runtime.access import Access

D = TypeVar("D", default=Any)
T = TypeVar("T")

_CAPACITY: Final = 1_000_000
_LEASE: Final = 3600.0
_SHARE: Final = 100
"""A run is repeated when its journal has grown by this part of itself, so that its length counts once and not twice."""


class _NotGiven:
    """Stands for dependencies that were not given."""


_NOT_GIVEN: Final[Any] = _NotGiven()


class TestingRuntime(Runtime[D]):
    """A `Runtime` for tests. Make one with `stepwell.testing.runtime`.

    `clock` is its time; `executed` names the steps whose functions were really called, in the order of their begins:
    `name`, or `name:key` for a step with a key, once for each try.
    """

    __test__: ClassVar[bool] = False  # pytest takes what is called Test... for tests
    clock: Clock
    executed: list[str]

    def __init__(self, app: App[D], *, deps: D, now: int, replay_every_step: bool) -> None:
        given: dict[str, Any] = {} if deps is _NOT_GIVEN else {"deps": deps}
        super().__init__(app, store="memory://", capacity=_CAPACITY, lease=_LEASE, on_step=self._observe, **given)
        self._manual = self._clock = ManualClock(now)
        self._entropy = Random(0).randbytes
        self._watched = WatchedStore(self._manual)
        self._pace = Pace(
            self._watched, self._manual, worker=lambda: self._worker, busy=lambda: self._crashing is not None
        )
        self._replays = replay_every_step
        self._armed: list[str] = []
        self._rehearsed: dict[str, int] = {}
        self._crashing: asyncio.Future[None] | None = None
        self.clock = Clock(self._manual, self._pace.advance)
        self.executed = []

    # ------------------------------------------------------------ crashes

    async def crash(self) -> None:
        """Let the worker die as by kill -9, and a new one take over; returns when it has. The store remains.

        Runs that were being executed count a loss and go on at once: the death is known. What the test gave as `deps`,
        or the app's lifespan, stays. A function that runs in a thread cannot be killed; what it returns is dropped.
        Raises `Misuse` (`testing.no_worker`) when the runtime was drained.
        """
        if self._worker is None:
            raise Misuse(
                "nothing works here that could crash", code="testing.no_worker", hint="crash before `await rt.drain()`"
            )
        if self._crashing is None:
            self._crashing = asyncio.ensure_future(self._replace_worker(self._worker))
        await asyncio.shield(self._crashing)

    def crash_after(self, step: str, /) -> None:
        """Let the worker die right after this step (`name` or `name:key`) is recorded the next time, once.

        When the runtime is left and no such step was executed, that is an error (`testing.no_crash`).
        """
        self._opened()
        self._armed.append(step)

    async def _replace_worker(self, worker: Worker) -> None:
        store = self._opened()
        try:
            await worker.kill()
            self._worker = self._make_worker(store)
            await self._worker.start()
            self._submitter = self._make_submitter(store)
        finally:
            self._crashing = None

    async def _after_step(self, attempt: Attempt, call: Call) -> None:
        """A step was recorded: crash if the test wants it, else see whether the agent would go the same way again."""
        for step in (call.name, call.step):
            if step in self._armed:
                self._armed.remove(step)
                raise self._die(attempt)
        if self._replays and self._is_time_to_rehearse(attempt):
            held = await rehearse(attempt, self._runnables)
            if held is not None:
                raise attempt.end(held)

    def _is_time_to_rehearse(self, attempt: Attempt) -> bool:
        """After each step of which none is beside it; in a long run not after each, or it would take for ever."""
        if attempt.stop is not None or attempt.cancelling or attempt.trying > 1:
            return False
        since = attempt.seq - self._rehearsed.get(attempt.record.id, 0)
        if since * _SHARE < attempt.seq:
            return False
        self._rehearsed[attempt.record.id] = attempt.seq
        return True

    def _die(self, attempt: Attempt) -> BaseException:
        """From this moment on the worker writes nothing more."""
        worker = self._worker
        if worker is not None:
            for each in worker.attempts:
                each.end(LOST)
            self._crashing = self._crashing or asyncio.ensure_future(self._replace_worker(worker))
        return attempt.stopped()

    def _observe(self, report: StepReport) -> None:
        if report.status == "started":
            self.executed.append(report.step if ":" in report.step else report.name)

    # ------------------------------------------------------------ what is different here

    def _make_store(self) -> Store:
        return self._watched

    def _make_worker(self, store: Store) -> Worker:
        return Worker(
            store,
            self._runnables,
            capacity=self._capacity,
            clock=self._clock,
            entropy=self._entropy,
            deps=self._deps_of,
            lease_seconds=self._lease,
            observer=self._observer,
            park_after=0,
            after_step=self._after_step,
        )

    def _make_access(self, store: Store) -> Access:
        return replace(super()._make_access(store), patience=self._wait)

    async def _wait(self, run_id: str, doing: Coroutine[Any, Any, T], limit: float | None, /) -> T:
        return await self._pace.wait(run_id, doing, limit)

    async def drain(self, *, timeout: Seconds | None = None) -> None:
        """Let what can run go on as far as it can without time passing, then execute nothing more. `timeout` is that of
        `Runtime.drain`.
        """
        await self._pace.settle()
        await super().drain(timeout=0 if timeout is None else timeout)

    async def _stop_worker(self) -> None:
        if self._crashing is not None:
            await self._crashing
        if self._worker is not None:
            await self._worker.stop(drain=0)
            self._worker = None

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await super().__aexit__(kind, error, trace)
        if kind is None and self._armed:
            raise Stuck(
                f"nothing crashed: no step {self._armed[0]!r} was executed",
                code="testing.no_crash",
                hint=f"these were: {', '.join(dict.fromkeys(self.executed)) or 'none'}",
            )


def runtime(
    app: App[D],
    /,
    *,
    deps: D = _NOT_GIVEN,
    now: datetime | None = None,
    replay_every_step: bool = True,
) -> AbstractAsyncContextManager[TestingRuntime[D]]:
    """A runtime for a test, for `async with`: everything in memory, and no second takes a second.

        async with runtime(app, deps=Services(mail=FakeMail())) as rt:
            result = await rt.run(onboard, ada)

    Time stands still, and jumps to the next moment at which something is due only while the test awaits `rt.run`,
    `run.result`, `run.question` or `rt.clock.advance` and nothing can run. If nothing can ever happen, these raise
    `Stuck` (`testing.stuck`), which names what each run waits for. Their `timeout=` is in this time, too.

    `deps` takes the place of the app's lifespan. `now` (aware) is the time at the start; default: the first moment of
    2026. After each step (where several run side by side, after the last of them; in a run of hundreds, after every
    hundredth part) the agent is repeated from its start, so that one whose way depends on anything but its input and
    its steps is held as diverged and fails the test; with `replay_every_step=False` it is repeated only after waits and
    crashes. Ids and delays are the same in every test.
    """
    if now is not None and now.tzinfo is None:
        raise InvalidDefinition(f"now={now!r} has no time zone", code="definition.now", hint="use tzinfo=timezone.utc")
    begin = START if now is None else to_micros(now)
    return TestingRuntime(app, deps=deps, now=begin, replay_every_step=replay_every_step)
