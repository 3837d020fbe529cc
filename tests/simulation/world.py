"""Carries out a plan: workers with the real engine on one store, clients, faults, and in the end a calm in which all
runs must come to their end.
"""

from __future__ import annotations

import asyncio
import logging
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from random import Random
from typing import Any, Final, NamedTuple
from unittest.mock import patch

from stepwell import StepContext
from stepwell.domain.errors import StepwellError
from stepwell.domain.run import RUNNING
from stepwell.engine import executor, worker
from stepwell.engine.report import StepReport
from stepwell.engine.worker import Worker
from stepwell.ports.clock import Entropy
from stepwell.ports.runnable import Runnable
from stepwell.runtime.collection import collect
from tests.simulation.audit import Audit, AuditedStore
from tests.simulation.clients import Clients
from tests.simulation.doors import Clock, Network, SimulatedHeart, SimulatedThreads, StoreFault
from tests.simulation.lengths import Lengths
from tests.simulation.loop import Process, SimulatedLoop
from tests.simulation.plans import LEASE, STORM, WORK, Item, Plan, When
from tests.simulation.programs import agents_in, make_apps
from tests.simulation.promises import check_end, explain
from tests.simulation.trace import Trace

_LONGEST: Final = 150.0
"""Virtual seconds after the storm within which everything has ended."""
_LOOK: Final = 0.5
_LEARNS: Final = 0.25
"""Seconds in which a worker learns of a cancel."""
_LONG_QUIET: Final = 12
_NIGHT: Final = 36_000.0
_RESTART: Final = 0.05


class Failure(NamedTuple):
    """A promise that was broken, and how."""

    promise: str
    text: str


class Result(NamedTuple):
    """How a simulation ended. `failure` is the first promise that was broken, if one was."""

    plan: Plan
    failure: Failure | None
    trace: Trace
    turns: int
    requests: int
    seconds: float
    faults: int
    runs: int

    @property
    def digest(self) -> str:
        """The same for every execution of the same plan."""
        return self.trace.digest(self.turns)


@cache
def _all_agents() -> dict[str, Runnable]:
    return collect(make_apps())[0]


def _agents_of(plan: Plan) -> dict[str, Runnable]:
    """The agents that a plan needs, as workers take them."""
    starts = [item.args[1:3] for item in plan.items if item.kind == "start"]
    names = set[str]().union(*[agents_in(*start) for start in starts])
    return {name: runnable for name, runnable in _all_agents().items() if name in names}


class Machine:
    """The place of one worker: it is started again after it died or was drained. `whose` names it in plans."""

    def __init__(self, world: World, number: int) -> None:
        self.number = number
        self.whose = f"w{number}"
        self.clock = Clock(world.loop)
        self.lives = 0
        self.worker: Worker | None = None
        self.store: Any = None
        self.process: Process = world.loop.world
        self.armed: list[tuple[int, Callable[[], None]]] = []
        self._world = world

    def start(self) -> None:
        """A new process, with a new worker in it."""
        world = self._world
        self.lives += 1
        process = self.process = world.loop.add_process(f"{self.whose}.{self.lives}")
        with world.loop.within(process):
            world.loop.begin(self._live(process))

    def hit(self, when: When, fault: Callable[[], None]) -> None:
        """Let a fault happen to whichever process is in this place at that moment."""
        if when.in_step:
            self.armed.append((when.turns, fault))
        else:
            self.process.after(when.turns, fault)

    def begins_step(self) -> None:
        """A step begins here: what was armed for that happens soon."""
        armed, self.armed = self.armed, []
        for turns, fault in armed:
            self.process.after(turns, fault)

    async def _live(self, process: Process) -> None:
        """Start a worker, as often as it takes."""
        world = self._world
        draw = Random(f"{world.plan.seed} {process.name}").randbytes
        self.store = world.network.view(process, self.whose)
        while self.worker is None:
            made = self._make(draw)
            try:
                await made.start()
            except StepwellError as error:
                world.tell(process.name, f"cannot start: {error.message}")
                await asyncio.sleep(_RESTART)
            else:
                self.worker = made

    def _make(self, draw: Entropy) -> Worker:
        world = self._world
        made = Worker(
            self.store,
            world.agents,
            capacity=world.plan.capacity,
            clock=self.clock,
            entropy=draw,
            deps=lambda _: world.effects,
            lease_seconds=LEASE,
            observer=lambda report: world.observed(self, made.id, report),
        )
        return made

    def crash(self, proof: float | None, restart: float) -> None:
        """The process is gone. Its death is proved after `proof` seconds, or never."""
        world, dead = self._world, self.worker
        if self.process.dead:
            return
        self.process.die()
        world.tell(self.process.name, "CRASH")
        world.network.forget(self.process)
        self.worker = None
        if dead is not None and proof is not None:
            world.loop.send(world.network.process, 2 * world.plan.delay + proof, world.store.abandon_worker, dead.id)
        world.loop.send(world.loop.world, restart, self.start)

    def stand_still(self, kind: str, seconds: float) -> None:
        """Nothing of the process is executed for a while; at a stall its threads go on."""
        world, process, whole = self._world, self.process, kind == "stop"
        world.tell(process.name, f"{kind.upper()} for {seconds:g} s")
        process.hold(whole=whole)
        world.loop.send(world.loop.world, seconds, self._go_on, process, whole)

    def _go_on(self, process: Process, whole: bool) -> None:
        self._world.tell(process.name, "goes on")
        process.go_on(whole=whole)

    def drain(self, seconds: float, restart: float) -> None:
        """Stop in good order, in the worker's own process, and begin anew."""
        with self._world.loop.within(self.process):
            self._world.loop.begin(self._drain(seconds, restart))

    async def _drain(self, seconds: float, restart: float) -> None:
        world, stopping, process = self._world, self.worker, self.process
        if stopping is None:
            return
        self.worker = None
        world.tell(process.name, "DRAIN")
        try:
            await stopping.stop(drain=seconds)
        except StepwellError as error:
            world.tell(process.name, f"did not sign off: {error.message}")
        world.loop.send(world.loop.world, 0, self._replace, process, stopping, restart)

    def _replace(self, process: Process, stopped: Worker, restart: float) -> None:
        if process.dead or process is not self.process:
            return
        process.die()
        world = self._world
        world.network.forget(process)
        world.loop.send(world.network.process, 2 * world.plan.delay, world.store.abandon_worker, stopped.id)
        world.loop.send(world.loop.world, restart, self.start)


class Effects:
    """What steps did to the outside, by idempotency key; and what programs tell besides."""

    def __init__(self, world: World) -> None:
        self.counted: dict[str, int] = {}
        self.lengths = world.lengths
        self.cleaned = Counter[str]()
        self._world = world

    def __call__(self, step: StepContext[Any], name: str) -> None:
        key = step.idempotency_key
        self.counted[key] = self.counted.get(key, 0) + 1
        self._world.tell("outside", f"effect {name} of {self._world.audit.name(step.run.id)}")

    def cleans_up(self, run_id: str) -> None:
        """The clean-up of a run begins."""
        name = self._world.audit.name(run_id)
        self._world.tell(self._world.loop.current.name, f"begins to clean up after {name}")
        self.cleaned[run_id] += 1
        if self.cleaned[run_id] > 1:
            self._world.breaks("P5", f"{name} is cleaned up after again")

    def had_effect(self, step: StepContext[Any], _: str) -> bool:
        """Whether the step had its effect."""
        return step.idempotency_key in self.counted


class World:
    """One simulation."""

    def __init__(self, plan: Plan, *, lease: float = LEASE) -> None:
        self.plan = plan
        self.lease = lease
        self.failure: Failure | None = None
        self.faults = 0
        self.loop = SimulatedLoop(plan.seed, shuffle=any(item.kind == "order" for item in plan.items))
        self.store_clock = Clock(self.loop)
        self.store = AuditedStore(self.store_clock)
        self.lengths = Lengths(plan, self.loop.time, self.breaks)
        self.audit = Audit(self.store, self.store_clock, self.breaks, self.lengths)
        self.trace = Trace(self.audit)
        self.network = Network(self.loop, self.store, self.audit, seed=plan.seed, delay=plan.delay, told=self.tell)
        self.effects = Effects(self)
        self.machines = [Machine(self, number) for number in range(plan.workers)]
        self.agents = _agents_of(plan)
        self.clients = Clients(self, self.agents)
        self.calm = False
        self._until = 0.0
        self._quiet = 0
        self._to_come = sum(item.kind in WORK for item in plan.items)
        self._begun: set[tuple[str, str, int, int]] = set()

    # ------------------------------------------------------------ what is told

    def tell(self, process: str, *what: Any) -> None:
        """A line of the trace."""
        self.trace.tell(self.loop.time(), process, *what)

    def breaks(self, promise: str, text: str) -> None:
        """A promise was broken: nothing that follows matters."""
        if self.failure is None:
            self.failure = Failure(promise, text)
            self.tell("audit", f"BROKEN {promise}: {text}")
            self.loop.halt(promise)

    def observed(self, by: Machine, worker_id: str, report: StepReport) -> None:
        """A worker tells what a step does. One that begins must be allowed to."""
        if report.status != "started":
            return
        account = self.audit.accounts[report.run_id]
        by.begins_step()
        self.tell(self.loop.current.name, f"begins {report.step} {report.name} of {account.name}")
        why = self.audit.may_begin(worker_id, report.run_id, report.step)
        if why is not None:
            self.breaks("P2", why)
        begun = (report.run_id, report.step, account.life.fence, account.failures[report.step])
        if begun in self._begun:
            self.breaks("P4", f"{account.name}: step {report.step} is executed again, and no fault hit it")
        self._begun.add(begun)

    # ------------------------------------------------------------ the course of it

    async def run(self) -> None:
        """Storm, then calm, until everything has ended."""
        for machine in self.machines:
            machine.start()
        for item in self.plan.items:
            self.loop.call_later(item.at, self._happen, item)
        while self.loop.time() < STORM and not (self._all_ended() and not self._to_come):
            await asyncio.sleep(_LOOK)
        self._calm()
        self._until = self.loop.time() + _LONGEST
        while not self._all_ended():
            if self.loop.time() > self._until:
                self.breaks("P10", explain(self))
                return
            writes = self.audit.writes
            await asyncio.sleep(_LOOK)
            self.clients.help()
            self._look_at_lengths()
            self._quiet = self._quiet + 1 if writes == self.audit.writes else 0
            if self._quiet:
                await self._pass_time()
        check_end(self)

    def _all_ended(self) -> bool:
        return not self.clients.busy and all(row.run.life.ended for row in self.store.rows.values())

    def _calm(self) -> None:
        """No more faults; clocks are right again, as far as they ever are."""
        self.tell("world", "CALM")
        self.network.faults.clear()
        self.network.hint_faults = (0.0, 0.0, 0.0)
        for clock in self._clocks():
            clock.offset = self.store_clock.offset
        self.calm = True

    def _look_at_lengths(self) -> None:
        steady = all(machine.worker and not machine.process.held for machine in self.machines)
        why = self.lengths.look(self.store.rows.values(), self.store_clock.now(), steady=steady)
        if why is not None:
            self.breaks("P10", why)

    async def _pass_time(self) -> None:
        """Where nothing happens, and all that is left waits for a later time, let that time come. Only clocks that
        differed put anything off.
        """
        if self.lengths.keeps_all(self.store.rows.values()) or any(machine.process.held for machine in self.machines):
            return
        if self._quiet > _LONG_QUIET and all(machine.worker for machine in self.machines) and self._dozes():
            await self._suspend()
        elif not self._dozes():
            self._turn_clocks()

    def _dozes(self) -> bool:
        """Whether runs are executed, and all of these wait for the next try of a step: a clock that was wrong put it
        off.
        """
        attempts = [attempt for machine in self.machines if machine.worker for attempt in machine.worker.attempts]
        dozing = {attempt.record.id for attempt in attempts if attempt.waits.dormant}
        running = {run_id for run_id, row in self.store.rows.items() if row.run.life.status == RUNNING}
        return bool(running) and running <= dozing

    async def _suspend(self) -> None:
        """Nobody executes anything for a night."""
        self.tell("world", f"SUSPENDED for {_NIGHT:g} s")
        for machine in self.machines:
            machine.stand_still("stop", _NIGHT)
        self._until += _NIGHT
        await asyncio.sleep(_NIGHT)

    def _turn_clocks(self) -> None:
        now = self.store_clock.now()
        rows = [row.run.life for row in self.store.rows.values() if not row.run.life.ended]
        later = [life.available_at - now for life in rows if now < life.available_at < now + 10**11]
        if not later or any(life.status == RUNNING for life in rows):
            return
        for clock in self._clocks():
            clock.offset += min(later) / 1_000_000
        self.lengths.set_clock(self.store_clock.offset)
        self.tell("world", f"all clocks are set {min(later) / 1_000_000:g} s ahead")

    def _clocks(self) -> list[Clock]:
        return [self.store_clock, self.clients.clock, *(machine.clock for machine in self.machines)]

    # ------------------------------------------------------------ items

    def _happen(self, item: Item) -> None:
        self._to_come -= item.kind in WORK
        match item.kind:
            case "crash" | "stop" | "stall" | "drain" | "jump" | "dip":
                number, when, *how = item.args
                machine = self.machines[number]
                machine.hit(when, partial(self._hit, machine, item.kind, *how))
            case "store":
                whose, verb, how, delay = item.args
                name = whose if isinstance(whose, str) else f"w{whose}"
                self.network.faults.setdefault(name, []).append(StoreFault(verb, how, delay))
            case "hints":
                self.network.hint_faults = item.args
            case "order":
                pass
            case "strand":
                number, seconds = item.args
                self.clients.do(item._replace(kind="cancel", args=(number,)))
                self.loop.call_later(_LEARNS, self._strand, number, seconds)
            case _:
                self.clients.do(item)

    def _hit(self, machine: Machine, kind: str, *how: Any) -> None:
        if self.calm:
            return
        self.faults += 1
        match kind:
            case "crash":
                machine.crash(*how)
            case "drain":
                machine.drain(*how)
            case "jump":
                self._jump(*how)
            case "dip":
                seconds, after = how
                self._jump("all", -seconds)
                self.loop.send(self.loop.world, after, self._jump, "all", seconds)
            case _:
                machine.stand_still(kind, *how)

    def _strand(self, number: int, seconds: float) -> None:
        """Stop whoever holds a run."""
        row = self.store.rows.get(self.clients.accepted.get(number, ""))
        for machine in self.machines:
            if row and machine.worker and machine.worker.id == row.run.life.worker and not self.calm:
                self.faults += 1
                machine.stand_still("stop", seconds)

    def _jump(self, whose: int | str, seconds: float) -> None:
        self.tell("world", f"JUMP of {whose} by {seconds:g} s")
        match whose:
            case "all":
                clocks = self._clocks()
            case "store":
                clocks = [self.store_clock]
            case "client":
                clocks = [self.clients.clock]
            case number:
                clocks = [self.machines[int(number)].clock]
        for clock in clocks:
            clock.offset += seconds
        self.lengths.set_clock(self.store_clock.offset)


@contextmanager
def _doors() -> Iterator[None]:
    """The engine with a heartbeat and threads that are simulated, and nobody told of branches that were never begun."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            patch.object(worker, "Heart", SimulatedHeart),
            patch.object(executor, "Offload", SimulatedThreads),
            warnings.catch_warnings(),
        ):
            warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
            yield
    finally:
        logging.disable(level)


def simulate(plan: Plan) -> Result:
    """Carry out a plan. Nothing of it depends on anything but the plan."""
    with _doors():
        world = World(plan)
        loop = world.loop
        loop.simulate(world.run())
    failure = world.failure
    if failure is None and loop.halted is not None:
        failure = Failure("P10", f"{loop.halted}: {explain(world)}")
    if failure is None and loop.complaints:
        failure = Failure("no loose ends", loop.complaints[0])
    runs = len(world.store.rows)
    return Result(
        plan,
        failure,
        world.trace,
        loop.turns,
        world.network.requests,
        loop.time(),
        world.faults + world.network.hits,
        runs,
    )
