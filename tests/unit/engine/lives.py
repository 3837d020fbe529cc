"""A run and the lives of the processes that execute it: one store, and workers that come, die and come again.

`Lives` submits runs, lets workers execute them until they have ended or are held, and kills workers at chosen moments
the way a process dies: from that moment on nothing of it reaches the store or the outside.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

from stepwell.agents.function import FunctionRunnable
from stepwell.app import Agent, App, FunctionAgent
from stepwell.domain import event
from stepwell.domain.commit import Commit
from stepwell.domain.errors import LeaseLost
from stepwell.domain.event import Entry
from stepwell.domain.outcome import Payload
from stepwell.domain.run import WAITING, Lease, RunRecord
from stepwell.domain.wait import Signal, WaitRecord
from stepwell.engine.attempt import AttemptStopped
from stepwell.engine.defaults import LEASE_SECONDS
from stepwell.engine.report import Observer, StepReport
from stepwell.engine.submission import Options, Submitter
from stepwell.engine.worker import Worker
from stepwell.ports import crash_point
from stepwell.ports.clock import Clock, Entropy
from stepwell.ports.notifier import QUEUE
from stepwell.ports.store import Committed, QuestionQuery, RunQuery, Store
from stepwell.ports.system_clock import SystemClock
from stepwell.stores.memory.store import MemoryStore

PATIENCE = 20.0
"""Seconds after which something that should have happened counts as never happening."""


class Crash:
    """When a process dies: at the n-th passing of a point. A commit passes `commit.before` and `commit.after`.

    A `gentle` one is told to stop at once instead, and hands back what it holds.
    """

    def __init__(self, point: str | None = None, *, passing: int = 1, gentle: bool = False) -> None:
        self.point = point
        self.left = passing
        self.gentle = gentle

    def hits(self, point: str) -> bool:
        """Whether it happens now."""
        if self.point is not None and point != self.point:
            return False
        self.left -= 1
        return self.left == 0


class Process:
    """One life of a worker's process. What it does after its death is refused before it has an effect."""

    def __init__(self, crash: Crash | None) -> None:
        self.died = asyncio.Event()
        self.stopped = asyncio.Event()
        self.passed: list[str] = []
        self._crash = crash

    def at(self, point: str) -> None:
        """The process passes a point, unless it dies there or is dead already."""
        if not self.died.is_set():
            self.passed.append(point)
            if self._crash is None or not self._crash.hits(point):
                return
            self.stopped.set()
            if self._crash.gentle:
                return
            self.died.set()
        raise AttemptStopped


class ProcessStore:
    """A store as one process sees it."""

    def __init__(self, store: Store, process: Process) -> None:
        self._store = store
        self._process = process

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def commit(self, lease: Lease, write: Commit) -> Committed:
        self._process.at("commit.before")
        answer: Committed = await self._store.commit(lease, write)
        self._process.at("commit.after")
        return answer

    async def claim(self, request: Any) -> Any:
        if self._process.died.is_set():
            await asyncio.get_running_loop().create_future()
        return await self._store.claim(request)


class GroupCommits:
    """A store that writes as one with a writer thread does: calls gather and go together a little later, answers come
    later still. A call that is cancelled before it goes never goes.
    """

    def __init__(self, store: Store, seed: int) -> None:
        self._store = store
        self._random = random.Random(seed)
        self._gathered: list[tuple[asyncio.Future[Committed], Lease, Commit]] = []
        self._flushes: set[asyncio.Task[None]] = set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def commit(self, lease: Lease, write: Commit) -> Committed:
        answer: asyncio.Future[Committed] = asyncio.get_running_loop().create_future()
        self._gathered.append((answer, lease, write))
        if len(self._gathered) == 1:
            flush = asyncio.create_task(self._flush())
            self._flushes.add(flush)
            flush.add_done_callback(self._flushes.discard)
        return await answer

    async def _flush(self) -> None:
        await self._some_turns()
        batch, self._gathered = self._gathered, []
        answers: list[tuple[asyncio.Future[Committed], Committed | Exception]] = []
        for future, lease, write in batch:
            if not future.cancelled():
                try:
                    answers.append((future, await self._store.commit(lease, write)))
                except LeaseLost as error:
                    answers.append((future, error))
        await self._some_turns()
        for future, answer in answers:
            if future.done():
                continue
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)

    async def _some_turns(self) -> None:
        for _ in range(self._random.randrange(4)):
            await asyncio.sleep(0)


class Lives:
    """One store, and the lives of the workers on it."""

    def __init__(
        self,
        app: App[Any],
        *,
        deps: Any = None,
        clock: Clock | None = None,
        capacity: int = 16,
        lease_seconds: float = LEASE_SECONDS,
        observer: Observer | None = None,
        entropy: Entropy | None = None,
        group_commits: int | None = None,
        park_after: float = 0.01,
    ) -> None:
        self.app = app
        self.deps = deps
        self.clock: Clock = clock or SystemClock()
        self.store: Store = MemoryStore(self.clock)
        if group_commits is not None:
            self.store = cast("Store", GroupCommits(self.store, group_commits))
        self.reports: list[StepReport] = []
        self._sent = 0
        self._capacity = capacity
        self._lease_seconds = lease_seconds
        self._park_after = park_after
        self._observer = observer or self.reports.append
        self.entropy: Entropy = entropy or random.Random(0).randbytes

    # ------------------------------------------------------------ runs

    async def submit(self, agent: Agent[Any, Any] | None = None, value: Any = None, **options: Any) -> str:
        """Submit a run of the agent (default: the app's first), and give its id."""
        runnable = self.runnables(self.app)[agent.name if agent else next(iter(self.app.agents))]
        submitter = Submitter(self.store, clock=self.clock, entropy=self.entropy, worker=None)
        return (await submitter.submit(runnable, value, Options(**options))).run.id

    async def record(self, run_id: str) -> RunRecord:
        """The run as it is now."""
        return await self.store.get(run_id)

    async def journal(self, run_id: str, *kinds: str) -> list[Entry]:
        """The run's facts in order; those of some kinds only, where any are named."""
        found = await self.store.journal(run_id, limit=1_000_000)
        return [entry for entry in found if not kinds or entry.kind in kinds]

    async def facts(self, run_id: str, *kinds: str) -> list[dict[str, Any]]:
        """The data of the run's facts of these kinds."""
        return [json.loads(entry.data) for entry in await self.journal(run_id, *kinds)]

    async def output(self, run_id: str, agent: Agent[Any, Any] | None = None) -> Any:
        """What the run returned. Fails where it did not succeed, showing the last fact."""
        last = (await self.journal(run_id))[-1]
        assert last.kind == event.RUN_SUCCEEDED, last
        facts = json.loads(last.data)
        blob = facts.get("ref")
        text = json.dumps(facts["output"]) if blob is None else (await self.store.get_blob(blob["blob"])).decode()
        name = agent.name if agent else next(iter(self.app.agents))
        return self.runnables(self.app)[name].decode_output(text)

    async def error(self, run_id: str) -> dict[str, Any]:
        """Why the run failed."""
        last = (await self.journal(run_id))[-1]
        assert last.kind == event.RUN_FAILED, last
        error: dict[str, Any] = json.loads(last.data)["error"]
        return error

    async def hold(self, run_id: str) -> dict[str, Any]:
        """Why the run is held."""
        last = (await self.journal(run_id))[-1]
        assert last.kind == event.RUN_HELD, last
        facts: dict[str, Any] = json.loads(last.data)
        return facts

    # ------------------------------------------------------------ what comes from outside

    async def signal(self, run_id: str, name: str, value: Any = None, *, id: str | None = None) -> bool:
        """Send the run a signal."""
        self._sent += 1
        sent = Signal(id or f"signal {self._sent}", name, Payload(json.dumps(value)), "ada")
        return await self.store.signal(run_id, sent)

    async def questions(self, run_id: str) -> list[WaitRecord]:
        """The run's open questions, oldest first."""
        return await self.store.questions(QuestionQuery(run_id=run_id))

    async def question(self, run_id: str, text: str | None = None) -> WaitRecord:
        """The run's open question (of that text), once it has one."""

        async def asks() -> bool:
            return any(text in (None, each.wait.name) for each in await self.questions(run_id))

        await self.until(asks, run_id)
        return next(each for each in await self.questions(run_id) if text in (None, each.wait.name))

    async def answer(self, run_id: str, value: Any, *, text: str | None = None, by: str = "ada") -> None:
        """Answer the run's question (of that text), once it asks."""
        question = await self.question(run_id, text)
        await self.store.answer(question.wait.id, Payload(json.dumps(value)), by=by)

    async def parked(self, run_id: str) -> RunRecord:
        """The run, once it waits and nobody executes it."""

        async def waits() -> bool:
            life = (await self.record(run_id)).life
            assert not life.ended, (await self.journal(run_id))[-1]
            return life.status == WAITING

        await self.until(waits, run_id)
        return await self.record(run_id)

    async def has(self, run_id: str, kind: str, count: int = 1) -> None:
        """Return once the run's journal holds so many facts of that kind."""

        async def holds() -> bool:
            return len(await self.journal(run_id, kind)) >= count

        await self.until(holds, run_id)

    async def children(self, run_id: str) -> list[RunRecord]:
        """The runs that this run made, in their order."""
        return (await self.store.find(RunQuery(parent=run_id, limit=10_000)))[::-1]

    def look(self) -> None:
        """Let workers look at the queue at once: the clock was moved."""
        self.store.notifier.give((QUEUE,))  # type: ignore[attr-defined]

    # ------------------------------------------------------------ workers

    def runnables(self, app: App[Any]) -> dict[str, FunctionRunnable]:
        """The app's agents as the engine takes them."""
        return {name: FunctionRunnable(a) for name, a in app.agents.items() if isinstance(a, FunctionAgent)}

    def make_worker(self, app: App[Any] | None = None, *, store: Any = None, **options: Any) -> Worker:
        """A worker for an app (default: the one of these lives), not started yet."""
        options = {
            "capacity": self._capacity,
            "lease_seconds": self._lease_seconds,
            "park_after": self._park_after,
            **options,
        }
        return Worker(
            self.store if store is None else store,
            self.runnables(app or self.app),
            clock=self.clock,
            entropy=self.entropy,
            deps=lambda _: self.deps,
            observer=self._observer,
            **options,
        )

    @asynccontextmanager
    async def working(self, app: App[Any] | None = None, **options: Any) -> AsyncIterator[Worker]:
        """A worker that claims until the block ends."""
        worker = self.make_worker(app, **options)
        await worker.start()
        try:
            yield worker
        finally:
            await worker.stop()

    async def settled(self, run_id: str) -> RunRecord:
        """The run, once it has ended or is held."""

        async def is_settled() -> bool:
            life = (await self.record(run_id)).life
            return life.ended or life.hold is not None

        await self.until(is_settled, run_id)
        return await self.record(run_id)

    async def until(self, condition: Callable[[], Any], topic: str) -> None:
        """Wait for a condition that changes with the store's hints on a topic."""
        with self.store.notifier.listen(topic) as hints:
            async with asyncio.timeout(PATIENCE):
                while not await condition():
                    await hints.wait(PATIENCE)

    async def live(self, run_id: str, *, app: App[Any] | None = None, crash: Crash | None = None) -> Process:
        """One life: a worker executes until the run has ended or is held, or until the crash kills it."""
        process = Process(crash)
        worker = self.make_worker(app, store=ProcessStore(self.store, process))
        crash_point.install(process.at)
        logger = logging.getLogger("stepwell.engine")
        logger.disabled = crash is not None  # a process that dies tells nobody
        try:
            await worker.start()
            ends = [asyncio.create_task(self.settled(run_id)), asyncio.create_task(process.stopped.wait())]
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if process.died.is_set():
                await worker.kill()
            elif process.stopped.is_set():
                await worker.stop(drain=0)
            else:
                ends[0].result()
                await worker.stop()
        finally:
            crash_point.install(None)
            logger.disabled = False
            for task in ends:
                task.cancel()
            await asyncio.wait(ends)
        return process

    async def run(
        self, agent: Agent[Any, Any] | None = None, value: Any = None, *, crashes: tuple[Crash, ...] = ()
    ) -> str:
        """Submit a run and live until it has ended or is held, dying once for each crash that it meets."""
        run_id = await self.submit(agent, value)
        for crash in crashes:
            if not (await self.live(run_id, crash=crash)).died.is_set():
                return run_id
        await self.live(run_id)
        return run_id


AFTER_AGENT = "executor.after_agent"


async def twice(agent: Agent[Any, Any], value: Any = None, *, deps: Any = None) -> tuple[Lives, str]:
    """Run an agent to its end, lose the process before the end is written, and run it again on what is remembered."""
    assert agent.app is not None
    lives = Lives(agent.app, deps=deps)
    run_id = await lives.run(agent, value, crashes=(Crash(AFTER_AGENT),))
    return lives, run_id
