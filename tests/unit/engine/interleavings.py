"""One run, executed turn by turn of the event loop: what arrives, arrives at a chosen turn, and so does a crash.

`Interleaving` needs no worker and lets no real time pass: it claims the run, lets its attempt go on over a store whose
every call takes as many turns as a schedule says, and claims again. A run that has not ended, that nobody can claim,
and for which nothing is on its way any more, was not woken.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from functools import cache
from typing import Any

from stepwell.agents.function import FunctionRunnable
from stepwell.app import App, FunctionAgent
from stepwell.domain.outcome import NEVER, Payload
from stepwell.domain.run import RunRecord
from stepwell.domain.wait import Signal
from stepwell.engine.attempt import LOST, Attempt
from stepwell.engine.executor import Executor
from stepwell.engine.submission import Options, Submitter
from stepwell.ports.store import Claim, ClaimRequest, QuestionQuery, WorkerInfo
from stepwell.stores.memory.store import MemoryStore
from stepwell.testing.clock import ManualClock

MOST_TURNS = 20_000
_YIELDING = ("commit", "journal", "claim", "put_blob", "get_blob", "submit")

Arrival = Callable[["Interleaving"], Awaitable[None]]


class _TurningStore:
    """The store as one process sees it: each call takes turns before and after what it does; a dead one's never do
    anything.
    """

    def __init__(self, store: MemoryStore, schedule: Sequence[int], die_at: int | None) -> None:
        self._store = store
        self._schedule = schedule or (0,)
        self._at = 0
        self._calls_left = die_at
        self._order = asyncio.Lock()
        self.dead = asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)
        return self._turning(method) if name in _YIELDING else method

    def _turning(self, method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def call(*args: Any, **options: Any) -> Any:
            async with self._order:  # writes of one lease are applied in the order of the calls
                await self._turns()
                answer = await method(*args, **options)
            await self._turns()
            return answer

        return call

    async def _turns(self) -> None:
        if self._calls_left is not None:
            self._calls_left -= 1
            if self._calls_left < 0:
                self.dead.set()
        if self.dead.is_set():
            await asyncio.get_running_loop().create_future()
        self._at += 1
        for _ in range(self._schedule[self._at % len(self._schedule)]):
            await asyncio.sleep(0)


class Interleaving:
    """One run of the app's first agent, and everything that happens to it."""

    def __init__(self, app: App[Any], *, schedule: Sequence[int] = (), die_at: int | None = None) -> None:
        self.clock = ManualClock()
        self.store = MemoryStore(self.clock)
        self.runnables = _runnables(app)
        self.run_id = ""
        self.claims = 0
        self._schedule = schedule
        self._die_at = die_at
        self._lives = 0
        self._arriving = 0

    # ------------------------------------------------------------ what arrives

    async def signal(self, name: str, value: Any = None, *, id: str) -> None:
        """A signal is sent."""
        await self.store.signal(self.run_id, Signal(id, name, Payload(json.dumps(value))))

    async def answer(self, text: str, value: Any) -> None:
        """A question is answered as soon as it is asked."""
        while True:
            for question in await self.store.questions(QuestionQuery(run_id=self.run_id)):
                if question.wait.name == text:
                    await self.store.answer(question.wait.id, Payload(json.dumps(value)), by="ada")
                    return
            await asyncio.sleep(0)

    # ------------------------------------------------------------ going on

    async def run(self, arrivals: Sequence[tuple[int, Arrival]]) -> RunRecord:
        """Execute the run to its end, each arrival coming after so many turns."""
        submitter = Submitter(self.store, clock=self.clock, entropy=bytes, worker=None)
        submitted = await submitter.submit(next(iter(self.runnables.values())), None, Options())
        self.run_id = submitted.run.id
        coming = [asyncio.create_task(self._arrive(turns, arrival)) for turns, arrival in arrivals]
        self._arriving = len(coming)
        try:
            await self._execute_all()
        finally:
            for task in coming:
                task.cancel()
            await asyncio.gather(*coming, return_exceptions=True)
        return await self.store.get(self.run_id)

    async def _arrive(self, turns: int, arrival: Arrival) -> None:
        for _ in range(turns):
            await asyncio.sleep(0)
        await arrival(self)
        self._arriving -= 1

    async def _execute_all(self) -> None:
        await self._new_life()
        executing: set[asyncio.Task[None]] = set()
        for _ in range(MOST_TURNS):
            life = (await self.store.get(self.run_id)).life
            if life.ended:
                break
            claims = await self.store.claim(ClaimRequest(self._worker, 4, tuple(self.runnables)))
            for claim in claims.taken:
                self.claims += 1
                executing.add(asyncio.create_task(self._execute(claim)))
            if self._process.dead.is_set():
                await self._bury(executing)
            elif not claims.taken and not executing and not self._arriving and not self._pass_time(life.available_at):
                raise AssertionError(f"nobody wakes the run: {await self.store.journal(self.run_id)}")
            await asyncio.sleep(0)
            executing = {task for task in executing if not task.done() or task.result() is not None}
        else:
            raise AssertionError(f"the run does not end: {await self.store.journal(self.run_id)}")
        if self._process.dead.is_set():
            await self._bury(executing)
        await asyncio.gather(*executing)

    def _pass_time(self, until: int) -> bool:
        """Nothing else happens: let time pass until the run is due by itself."""
        if until >= NEVER or until <= self.clock.now():
            return False
        self.clock.advance_by(until - self.clock.now())
        return True

    async def _execute(self, claim: Claim) -> None:
        self._attempts.append(attempt := self._executor.prepare(claim))
        await self._executor.execute(attempt, claim.journal, None)

    async def _new_life(self) -> None:
        self._lives += 1
        self._worker = f"wrk_{self._lives}"
        self._process = _TurningStore(self.store, self._schedule, self._die_at if self._lives == 1 else None)
        self._attempts: list[Attempt] = []
        store: Any = self._process
        self._executor = Executor(
            store,
            self.runnables,
            clock=self.clock,
            deps=lambda _: None,
            may_act=lambda: True,
            leaving=lambda: False,
            observer=None,
            park_after=0,
        )
        info = WorkerInfo(self._worker, "here", 1, 16, self.clock.now())
        await self.store.open_worker(info, lease_seconds=1e9)

    async def _bury(self, executing: set[asyncio.Task[None]]) -> None:
        for attempt in self._attempts:
            attempt.end(LOST)
        while any(not task.done() for task in executing):  # again and again: there is nobody there to take heed of it
            for task in executing:
                task.cancel()
            await asyncio.sleep(0)
        executing.clear()
        self.store.abandon_worker(self._worker)
        await self._new_life()


@cache
def _runnables(app: App[Any]) -> dict[str, FunctionRunnable]:
    return {name: FunctionRunnable(agent) for name, agent in app.agents.items() if isinstance(agent, FunctionAgent)}
