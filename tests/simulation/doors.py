"""What a simulated process has of the outside: a clock, a view of the store, hints, a heartbeat, threads.

Requests to the store and answers take time, one process's writes arrive in their order, and each may be hit by a fault:
an error before the write or after it, a repetition, a delay.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import replace
from functools import partial
from random import Random
from typing import Any, Final, NamedTuple, cast

from stepwell.domain.errors import StoreUnavailable
from stepwell.domain.outcome import HandedBack, Held, Parked, Retrying
from stepwell.engine.heartbeat import BEATS_PER_LEASE, Heart
from stepwell.engine.offload import Offload
from stepwell.ports.notifier import Listener
from stepwell.ports.store import Heartbeat, Store, WorkerInfo
from stepwell.stores.hints import Hints
from stepwell.testing.clock import START
from tests.simulation.audit import Audit, AuditedStore, Request
from tests.simulation.loop import Process, SimulatedLoop

_READS: Final = frozenset(
    ("get", "find", "journal", "last_entry", "question", "questions", "lanes", "session_value", "messages", "controls")
)
_LETS_GO: Final = (Parked, Retrying, HandedBack, Held)
_FAST: Final = 0.002
_GAP: Final = 0.0005
_TURNS_PER_BEAT: Final = 5


class Clock:
    """The clock of one process: its wall clock is off by `offset` seconds, its scale of durations is everybody's."""

    def __init__(self, loop: SimulatedLoop) -> None:
        self.offset = 0.0
        self._loop = loop

    def now(self) -> int:
        return START + round((self._loop.time() + self.offset) * 1_000_000)

    def elapsed(self) -> float:
        return self._loop.time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class StoreFault(NamedTuple):
    """What happens to one request: `how` is "before", "after", "twice" or "slow"."""

    verb: str
    how: str
    delay: float


class ProcessHints(Hints):
    """The hints of one process. Its listeners wake in the order in which they came."""

    def __init__(self) -> None:
        super().__init__()
        self._ordered: dict[str, dict[Any, None]] = {}

    def has(self, topic: str) -> bool:
        """Whether anybody listens."""
        return bool(self._ordered.get(topic))

    def give(self, topics: Iterable[str]) -> None:
        for topic in topics:
            for listener in list(self._ordered.get(topic, ())):
                listener.wake()

    def add(self, topic: str, listener: Listener) -> None:
        self._ordered.setdefault(topic, {})[listener] = None

    def remove(self, topic: str, listener: Listener) -> None:
        self._ordered.get(topic, {}).pop(listener, None)


class Network:
    """Between the processes and the store. `told` is called with what passes, for the trace."""

    def __init__(
        self,
        loop: SimulatedLoop,
        store: AuditedStore,
        audit: Audit,
        *,
        seed: int,
        delay: float,
        told: Callable[..., None],
    ) -> None:
        self.loop = loop
        self.store = store
        self.audit = audit
        self.process = loop.add_process("store")
        self.faults: dict[str, list[StoreFault]] = {}
        self.hint_faults = (0.0, 0.0, 0.0)
        self.requests = 0
        self.hits = 0
        self.broken_reads = 0
        self.crossed: set[str] = set()
        self._told = told
        self._delay = delay
        self._draw = Random(f"network {seed}").random
        self._hints: dict[Process, ProcessHints] = {}
        store.notifier.give = self._spread  # type: ignore[method-assign]  # hints leave the store by way of the network

    def view(self, process: Process, whose: str) -> Store:
        """The store as a process sees it. `whose` names the process in plans, whichever life of it this is."""
        hints = self._hints[process] = ProcessHints()
        return cast("Store", View(self, process, whose, hints))

    def delay(self) -> float:
        """How long something takes to arrive."""
        return _GAP + self._draw() * self._delay

    def fault(self, whose: str, verb: str) -> StoreFault | None:
        """What hits this request, if anything does. It is used up by that."""
        waiting = self.faults.get(whose)
        if not waiting:
            return None
        hit = next((fault for fault in waiting if fault.verb in (verb, "any")), None)
        if hit is not None:
            waiting.remove(hit)
            self.hits += 1
            self.broken_reads += verb == "journal"
            self._told(whose, f"FAULT: {hit.how}, at {verb}")
        return hit

    # ------------------------------------------------------------ requests

    def serve(
        self, request: Request, fault: StoreFault | None, reply: Callable[[Any, BaseException | None], None]
    ) -> None:
        """Carry out a request, in the store's own process."""
        how = None if fault is None else fault.how
        if how == "before":
            reply(None, _unavailable("before"))
            return
        if request.verb == "commit" and isinstance(request.args[1].outcome, _LETS_GO):
            self._cross(request.args[0].run_id)

        def done(answer: Any, error: BaseException | None) -> None:
            self._told(request.process, "does", request, answer, error)
            if how == "after" and error is None:
                reply(None, _unavailable("after"))
            else:
                reply(answer, error)

        def once_more(answer: Any, error: BaseException | None) -> None:
            if error is not None:
                done(answer, error)
            else:
                self._carry_out(replace(request, writes=0), done)

        self._carry_out(request, once_more if how == "twice" else done)

    def _cross(self, run_id: str) -> None:
        """An attempt lets go of its run: somebody who waited for this very moment cancels it."""
        name = self.audit.name(run_id)
        if name in self.crossed:
            self.crossed.remove(name)
            self._told("client", f"cancels {name} in this moment")
            self._carry_out(Request("client", "cancel", (run_id,), {"by": "client"}), lambda *_: None)

    def _carry_out(self, request: Request, done: Callable[[Any, BaseException | None], None]) -> None:
        self._drive(request, getattr(self.store, request.verb)(*request.args, **request.options), done)

    def _drive(
        self, request: Request, operation: Coroutine[Any, Any, Any], done: Callable[[Any, BaseException | None], None]
    ) -> None:
        """Run a store's coroutine. The real ones never wait; others come in between where one does."""
        self.audit.begin(request)
        try:
            waits_for = operation.send(None)
        except StopIteration as stop:
            done(stop.value, None)
        except Exception as error:  # noqa: BLE001 - whatever it raises is its answer
            done(None, error)
        else:
            again = partial(self._drive, request, operation, done)
            if waits_for is None:
                self.loop.call_later(self.delay() * 4, again)
            else:
                waits_for._asyncio_future_blocking = False
                waits_for.add_done_callback(lambda _: again())

    # ------------------------------------------------------------ hints

    def _spread(self, topics: Iterable[str]) -> None:
        lost, late, twice = self.hint_faults
        for topic in sorted(topics):
            for process, hints in self._hints.items():
                if process.dead or not hints.has(topic) or self._draw() < lost:
                    continue
                for _ in range(2 if self._draw() < twice else 1):
                    delay = self.delay() + (self._draw() if self._draw() < late else 0.0)
                    self.loop.send(process, delay, hints.give, (topic,))

    def forget(self, process: Process) -> None:
        """A process is gone."""
        self._hints.pop(process, None)


class View:
    """The store port for one process. What it asks for goes by the network."""

    def __init__(self, network: Network, process: Process, whose: str, hints: ProcessHints) -> None:
        self.notifier = hints
        self.capabilities = AuditedStore.capabilities
        self._network = network
        self._process = process
        self._whose = whose
        self._arrives = 0.0

    def __getattr__(self, verb: str) -> Callable[..., Coroutine[Any, Any, Any]]:
        if verb.startswith("_"):
            raise AttributeError(verb)
        return partial(self._ask, verb)

    async def open_worker(self, worker: WorkerInfo, *, lease_seconds: float) -> None:
        await self._ask("open_worker", worker, lease_seconds=lease_seconds)

    async def _ask(self, verb: str, *args: Any, **options: Any) -> Any:
        network, loop = self._network, self._network.loop
        fault = network.fault(self._whose, verb)
        request = Request(self._process.name, verb, args, options, asked_at=self._process.at_work_since(loop.time()))
        answer = loop.create_future()
        due = loop.time() + network.delay() + (fault.delay if fault and fault.how == "slow" else 0.0)
        if verb not in _READS:  # writes of one process arrive in the order in which they were sent
            due = self._arrives = max(due, self._arrives + 1e-6)
        network.requests += 1

        def reply(value: Any, error: BaseException | None) -> None:
            loop.send(self._process, network.delay(), self._deliver, request, answer, value, error)

        loop.send(network.process, due - loop.time(), network.serve, request, fault, reply)
        return await answer

    def _deliver(self, request: Request, answer: asyncio.Future[Any], value: Any, error: BaseException | None) -> None:
        if error is None:
            self._network.audit.acknowledged(request, value)
        if answer.done():
            return
        if error is not None:
            answer.set_exception(error)
        else:
            answer.set_result(value)

    def heartbeat(self, worker_id: str, *, lease_seconds: float) -> Heartbeat:
        """Blocking, from the thread of the heartbeat."""
        network = self._network
        fault = network.fault(self._whose, "heartbeat")
        if fault and fault.how == "before":
            raise _unavailable("before")
        reply = network.store.heartbeat(worker_id, lease_seconds=lease_seconds)
        if fault and fault.how == "after":
            raise _unavailable("after")
        return reply

    def abandon_worker(self, worker_id: str) -> None:
        self._network.store.abandon_worker(worker_id)


class SimulatedHeart(Heart):
    """The heartbeat with a simulated thread in place of its own."""

    def start(self) -> None:
        loop = self._simulated
        self._owner = loop.current
        self._beating = False
        process = loop.add_process(f"{self._owner.name} heart", part_of=self._owner)
        loop.send(process, self._pause, self._round, self._clock.elapsed() + self._lease / BEATS_PER_LEASE)

    async def stop(self) -> None:
        self._stopping.set()

    @property
    def _simulated(self) -> SimulatedLoop:
        assert isinstance(self._loop, SimulatedLoop)
        return self._loop

    @property
    def _pause(self) -> float:
        return self._lease / BEATS_PER_LEASE / _TURNS_PER_BEAT

    def _round(self, next_beat: float) -> None:
        if self._stopping.is_set():
            return
        following = next_beat if self._beating else self._turn(next_beat)
        if following is not None:
            self._simulated.call_later(self._pause, self._round, following)

    def _extend(self, asked_at: float) -> None:
        self._beating = True
        view = cast("View", self._store)
        self._simulated.call_later(view._network.delay(), self._arrive, asked_at)

    def _arrive(self, asked_at: float) -> None:
        self._beating = False
        super()._extend(asked_at)

    def _call_soon(self, fn: Callable[[], None]) -> bool:
        self._simulated.send(self._owner, 0, fn)
        return True


class SimulatedThreads(Offload):
    """Threads of steps: each call happens at once, at some moment."""

    def _submit(self, work: Callable[[], Callable[[], None]]) -> None:
        loop = asyncio.get_running_loop()
        loop.call_later(_FAST, lambda: work()())

    def close(self) -> None:
        """There is nothing to let go."""


def _unavailable(when: str) -> StoreUnavailable:
    return StoreUnavailable(f"the store broke off {when} it wrote")
