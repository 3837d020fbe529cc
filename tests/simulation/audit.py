"""Looks at every write that the store accepts, as it is accepted, and says which promise it breaks.

It keeps its own account of leases, deaths, losses and errors, so that nothing of what it checks is the store's word.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from stepwell.domain import event
from stepwell.domain.event import Entry
from stepwell.domain.outcome import NEVER
from stepwell.domain.run import PAUSED, QUEUED, RUNNING, WAITING, Lifecycle, RunRecord
from stepwell.domain.submission import SESSION_LANE, Lane
from stepwell.ports.clock import Clock
from stepwell.ports.store import Heartbeat, WorkerInfo
from stepwell.stores.memory.runs import Row
from stepwell.stores.memory.store import MemoryStore
from stepwell.stores.memory.writing import Writing
from tests.simulation.lengths import Lengths, Since

_LET_GO: Final = {event.RUN_HANDED_BACK, event.RUN_RETRYING, event.RUN_HELD}
_BEGUN: Final = {event.RUN_STARTED, event.RUN_RESUMED}
_MOST_LOSSES: Final = 3
_MOST_IN_ALL: Final = 20


class AuditedStore(MemoryStore):
    """A memory store that shows every write to an audit, right after it."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.audit: Audit | None = None

    @property
    def rows(self) -> dict[str, Row]:
        return self._runs.rows

    @contextmanager
    def _writing(self) -> Iterator[Writing]:
        with super()._writing() as writing:
            yield writing
        if self.audit is not None:
            self.audit.wrote(writing.now)

    async def open_worker(self, worker: WorkerInfo, *, lease_seconds: float) -> None:
        await super().open_worker(worker, lease_seconds=lease_seconds)
        if self.audit is not None:
            self.audit.opened(worker.id, lease_seconds)

    async def close_worker(self, worker_id: str) -> None:
        await super().close_worker(worker_id)
        if self.audit is not None:
            self.audit.closed(worker_id)

    def abandon_worker(self, worker_id: str) -> None:
        super().abandon_worker(worker_id)
        if self.audit is not None:
            self.audit.died(worker_id)

    def heartbeat(self, worker_id: str, *, lease_seconds: float) -> Heartbeat:
        reply = super().heartbeat(worker_id, lease_seconds=lease_seconds)
        if self.audit is not None:
            self.audit.beat(worker_id, lease_seconds, reply)
        return reply


@dataclass(slots=True)
class Request:
    """What a process asks of the store. `writes` counts the writes that it was carried out with, `asked_at` is when it
    was sent.
    """

    process: str
    verb: str
    args: tuple[Any, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    writes: int = 0
    asked_at: float = 0.0


@dataclass(slots=True)
class Account:
    """What the audit knows of one run. `turns` are the sessions in which it is at work, each with the run that took the
    turn there: itself, or one above it; `inherited` counts the facts that came with it from the run that it retries;
    `put_off` says since when its next attempt is put off, and by how many seconds.
    """

    name: str
    life: Lifecycle
    last: Entry | None = None
    lanes: tuple[Lane, ...] = ()
    inherited: int = 0
    claimed_at: float = -1.0
    turns: dict[Lane, str] = field(default_factory=dict)
    put_off: tuple[Since | None, float] = (None, 0.0)
    errors: int = 0
    lost: int = 0
    losses: int = 0
    expiries: int = 0
    released: bool = False
    completed: set[str] = field(default_factory=set)
    failures: Counter[str] = field(default_factory=Counter)
    places: dict[str, int] = field(default_factory=dict)
    open_waits: dict[str, str] = field(default_factory=dict)
    kept: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    received: set[str] = field(default_factory=set)


class Audit:
    """The accounts of all runs, and of who may hold them. `breaks` is told which promise was broken, and how."""

    def __init__(self, store: AuditedStore, clock: Clock, breaks: Callable[[str, str], None], lengths: Lengths) -> None:
        self._lengths = lengths
        self.accounts: dict[str, Account] = {}
        self.applied: set[tuple[str, int, int]] = set()
        self.writes = 0
        self._latest = 0
        self._store_now = 0
        self._store = store
        self._clock = clock
        self._breaks = breaks
        self._leases: dict[str, float] = {}
        self._dead: set[str] = set()
        self._request = Request("", "")
        self._lanes: dict[str, tuple[Lane, ...]] = {}
        store.audit = self

    # ------------------------------------------------------------ what happens

    def begin(self, request: Request) -> None:
        """The store is about to carry out a request."""
        self._request = request
        if request.verb == "submit":
            self._lanes[request.args[0].id] = request.args[0].lanes
        elif request.verb == "commit":
            for submission in request.args[1].submits:
                self._lanes[submission.id] = submission.lanes

    def opened(self, worker: str, lease: float) -> None:
        """A worker was registered."""
        self._leases[worker] = self._clock.elapsed() + lease

    def closed(self, worker: str) -> None:
        """A worker signed off."""
        self._leases.pop(worker, None)

    def died(self, worker: str) -> None:
        """A worker is proven dead. One that signed off before has nothing left to prove."""
        if worker in self._leases:
            self._dead.add(worker)

    def beat(self, worker: str, lease: float, reply: Heartbeat) -> None:
        """A worker extended its leases, and was told what it holds."""
        if worker in self._leases and worker not in self._dead:
            self._leases[worker] = self._clock.elapsed() + lease
        for run_id in reply.held:
            if self._store.rows[run_id].run.life.worker != worker:
                self._breaks("P3", f"worker {worker} is told that it holds {self.name(run_id)}, which it does not")

    def name(self, run_id: str) -> str:
        """A short name for a run: that of its number."""
        account = self.accounts.get(run_id)
        return run_id if account is None else account.name

    def wrote(self, now: int) -> None:
        """A write was accepted: look at each run that is not as it was."""
        changed = False
        self._store_now = now
        self._latest = max(self._latest, now)  # what was due once stays so when the clock is set back
        for run_id, row in self._store.rows.items():
            account = self.accounts.get(run_id)
            if account is None:
                account = self.accounts[run_id] = self._new(row)
            if account.life is not row.run.life:
                changed = True
                self._look(account, row)
        if changed:
            self.writes += 1
            self._request.writes += 1
            if self._request.writes > 1:
                self._breaks("P6", f"{self._request.verb} was written in {self._request.writes} parts")

    def _new(self, row: Row) -> Account:
        run = row.run
        number = json.loads(run.metadata).get("n") if run.metadata != "{}" else None
        name = f"run {number}" if number is not None else f"child {len(self.accounts)}"
        account = Account(name, Lifecycle("", 0, 0), lanes=self._lanes.get(run.id, ()))
        account.turns = {lane: run.id for lane in account.lanes if lane.kind == SESSION_LANE}
        if run.parent is not None and not run.detached:
            account.turns |= self.accounts[run.parent].turns
        if run.retry_of is not None:
            account.inherited = len(row.journal)
            account.name += " again"
        elif number is not None:
            delay = json.loads(row.journal[0].data)["input"].get("delay", 0.0)
            account.put_off = self._lengths.start_of(int(number), delay)
        return account

    # ------------------------------------------------------------ one change of one run

    def _look(self, account: Account, row: Row) -> None:
        before, life = account.life, row.run.life
        entries = row.journal[before.seq :]
        self._numbers(account, row, entries)
        kinds = [entry.kind for entry in entries]
        if before.status:
            self._end(account, before, life, kinds)
            self._pairs(account, before, life, kinds)
            self._fences(account, before, life, row.run)
            self._claims(account, before, row.run, kinds)
        for entry in entries:
            self._fact(account, row.run.id, entry)
        if life.status == RUNNING and before.fence != life.fence:
            self._room(account, row.run)
        lets_go = before.status in ("", RUNNING) and life.status in (QUEUED, WAITING) and not life.hold
        if lets_go and life.available_at < NEVER:
            ahead = (life.available_at - self._store_now) / 1_000_000
            self._lengths.decided(row, ahead, self._request.asked_at, account.claimed_at)
        account.life, account.last = life, row.journal[-1]

    def _numbers(self, account: Account, row: Row, entries: list[Entry]) -> None:
        seq = account.life.seq
        numbers = [entry.seq for entry in entries]
        whole = numbers == list(range(seq + 1, row.run.life.seq + 1)) and len(row.journal) == row.run.life.seq
        if not whole or (seq and row.journal[seq - 1] is not account.last):
            self._breaks("P6", f"{account.name}: events {numbers} follow {seq}, and the last is {row.run.life.seq}")

    def _end(self, account: Account, before: Lifecycle, life: Lifecycle, kinds: list[str]) -> None:
        if before.ended and (before.status, before.reason, before.ended_at) != (
            life.status,
            life.reason,
            life.ended_at,
        ):
            self._breaks("P5", f"{account.name} had ended as {before.status}, and is {life.shown} now")
        ends = [kind for kind in kinds if kind in event.ENDS]
        expected = [f"run.{life.status}"] if life.ended and not before.ended else []
        if ends != expected:
            self._breaks("P6", f"{account.name} went from {before.shown} to {life.shown} with the ends {ends}")

    def _pairs(self, account: Account, before: Lifecycle, life: Lifecycle, kinds: list[str]) -> None:
        """A change of the status and its event come together."""
        told = set(kinds)
        wanted: set[str] = set()
        if before.status == RUNNING and life.status == WAITING:
            wanted = {event.RUN_WAITING}
        elif before.status == RUNNING and life.status == QUEUED:
            wanted = _LET_GO
        elif life.status == RUNNING and life.fence != before.fence:
            wanted = _BEGUN
        elif before.hold and not life.hold and not life.ended:
            wanted = {event.RUN_RELEASED, event.RUN_CANCELLING}
        if wanted and not wanted & told:
            self._breaks("P6", f"{account.name} went from {before.shown} to {life.shown} with {sorted(told)}")
        if life.hold and not before.hold and event.RUN_HELD not in told:
            self._breaks("P6", f"{account.name} is held without an event")
        if life.cancelling and not before.cancelling and event.RUN_CANCELLING not in told:
            self._breaks("P6", f"{account.name} is asked to end without an event")
        if _BEGUN & told and life.fence == before.fence:
            self._breaks("P6", f"{account.name} is told to begin, and does not")

    def _fences(self, account: Account, before: Lifecycle, life: Lifecycle, run: RunRecord) -> None:
        request = self._request
        if life.fence < before.fence:
            self._breaks("P3", f"{account.name}: fence {life.fence} follows {before.fence}")
        by_holder = request.verb == "commit" and request.args[0].run_id == run.id
        if life.ended and not before.ended and not by_holder and life.fence == before.fence:
            self._breaks("P3", f"{account.name} was ended by {request.verb}, and its fence did not grow")
        if not by_holder:
            return
        lease, write = request.args[:2]
        if (before.status, before.fence, before.worker) != (RUNNING, lease.fence, lease.worker):
            self._breaks(
                "P3",
                f"a write of {lease.worker} with fence {lease.fence} was accepted for {account.name}, which is "
                f"{before.shown} with fence {before.fence} at {before.worker}",
            )
        if (run.id, lease.fence, write.number) in self.applied:
            self._breaks("P2", f"write {write.number} with fence {lease.fence} of {account.name} was accepted twice")
        self.applied.add((run.id, lease.fence, write.number))
        account.losses = 0

    def _claims(self, account: Account, before: Lifecycle, run: RunRecord, kinds: list[str]) -> None:
        """A run is only taken from whoever lost it, and its counters say what happened to it."""
        life = run.life
        taken = life.fence != before.fence and self._request.verb in ("claim", "submit")
        if taken and before.status == RUNNING and not self._is_lost(before.worker):
            self._breaks("P8", f"{account.name} was taken from {before.worker}, which holds it")
        if taken and life.status == RUNNING and before.status in (QUEUED, WAITING):
            self._is_due(account, before)
        if taken and before.status == RUNNING:
            if before.worker in self._dead:
                account.lost += 1
                account.losses += 1
            else:
                account.expiries += 1
        if event.RUN_RETRYING in kinds:
            account.errors += 1
            account.put_off = self._lengths.next_attempt_of(run.id, account.errors)
        if event.RUN_RELEASED in kinds and before.attempt:
            account.put_off = (None, 0.0)
        attempt = before.attempt if before.cancelling else 1 + account.errors + account.lost
        if taken and life.status == RUNNING and life.attempt != attempt:
            self._breaks("P8", f"{account.name} begins attempt {life.attempt}, which is its attempt {attempt}")
        if life.status == "failed" and life.reason == "run.lost" and not before.ended:
            enough = account.losses >= _MOST_LOSSES or account.lost + account.expiries >= _MOST_IN_ALL
            if not enough:
                self._breaks("P1", f"{account.name} was given up after {account.losses} losses in a row")

    def _is_due(self, account: Account, before: Lifecycle) -> None:
        """What nobody executes is taken at its time: by what is stored, and by what was decided beforehand."""
        if before.hold is not None or before.available_at > self._latest:
            self._breaks("P8", f"{account.name} was taken while it was {before.shown}, or before its time")
        early = self._lengths.early(*account.put_off)
        if early and before.status == QUEUED and not before.cancelling:
            self._breaks("P8", f"{account.name} was taken {early:g} s before its time")

    def _is_lost(self, worker: str | None) -> bool:
        if worker is None or worker in self._dead:
            return True
        return self._clock.elapsed() >= self._leases.get(worker, 0.0)

    # ------------------------------------------------------------ limits

    def _room(self, account: Account, run: RunRecord) -> None:
        """A run begins: its lanes must have room for it."""
        account.released = False
        account.claimed_at = self._clock.elapsed()
        for lane in account.turns:
            self._turn(account, lane)
        for lane in account.lanes:
            if lane.kind == SESSION_LANE:
                continue
            inside = [
                other.name
                for run_id, other in self.accounts.items()
                if lane in other.lanes and self._store.rows[run_id].run.life.status == RUNNING
            ]
            if len(inside) > lane.capacity:
                self._breaks("P8", f"{len(inside)} runs execute in lane {lane}: {', '.join(inside)}")

    def _turn(self, account: Account, lane: Lane) -> None:
        """Who took a turn has it from its start to its end, but for the time in which it gave it up; who lives on one
        does so from the moment in which it is made.
        """
        for run_id, other in self.accounts.items():
            whose, life = other.turns.get(lane), self._store.rows[run_id].run.life
            if whose is None or whose == account.turns[lane] or life.ended:
                continue
            if whose != run_id or (life.attempt and not other.released):
                self._breaks("P8", f"{account.name} begins in session {lane.name}, where {other.name} is at work")

    # ------------------------------------------------------------ facts

    def _fact(self, account: Account, run_id: str, entry: Entry) -> None:
        match entry.kind:
            case event.STEP_COMPLETED:
                self._step(account, entry)
            case event.STEP_FAILED:
                account.failures[entry.step or ""] += 1
                if entry.step in account.completed:
                    self._breaks("P2", f"{account.name}: step {entry.step} failed after it was done")
            case event.WAIT_OPENED:
                self._wait_opened(account, run_id, json.loads(entry.data))
            case event.WAIT_CLOSED:
                self._wait_closed(account, json.loads(entry.data))
            case event.SIGNAL_RECEIVED:
                facts = json.loads(entry.data)
                if facts["signal"] in account.received:
                    self._breaks("P2", f"{account.name}: signal {facts['signal']} was received twice")
                account.received.add(facts["signal"])
                account.kept[facts["name"]].append(facts["signal"])
            case event.RUN_WAITING:
                request = self._request
                outcome = request.args[1].outcome if request.verb == "commit" else None
                account.released = bool(getattr(outcome, "release", False))
            case event.RUN_HELD:
                why = json.loads(entry.data)["why"]
                if why not in (PAUSED, "in_doubt"):
                    self._breaks("P2", f"{account.name} is held: {entry.data}")

    def _step(self, account: Account, entry: Entry) -> None:
        step = entry.step or ""
        if step in account.completed:
            self._breaks("P2", f"{account.name}: step {step} is done twice")
        account.completed.add(step)
        scope, slash, place = step.partition("/")
        if slash and place.isdigit() and ":" not in scope:
            if int(place) <= account.places.get(scope, 0):
                self._breaks("P2", f"{account.name}: step {step} is done after step {scope}/{account.places[scope]}")
            account.places[scope] = int(place)

    def _wait_opened(self, account: Account, run_id: str, facts: dict[str, Any]) -> None:
        if facts.get("lasts") is not None:
            ahead = (facts["until"] - self._store_now) / 1_000_000
            self._lengths.opened(run_id, facts["lasts"] / 1_000_000, ahead)
        if facts["type"] != "time":
            if facts["wait"] in account.open_waits:
                self._breaks("P2", f"{account.name}: wait {facts['wait']} is opened twice")
            account.open_waits[facts["wait"]] = facts["name"]

    def _wait_closed(self, account: Account, facts: dict[str, Any]) -> None:
        if facts["outcome"] == "due":
            return
        name = account.open_waits.pop(facts["wait"], None)
        if name is None:
            self._breaks("P2", f"{account.name}: wait {facts['wait']} is closed, and was not open")
        elif "signal" in facts:
            kept = account.kept[name]
            if not kept or kept.pop(0) != facts["signal"]:
                self._breaks("P2", f"{account.name}: signal {facts['signal']} is taken out of turn")

    # ------------------------------------------------------------ answers

    def acknowledged(self, request: Request, answer: Any) -> None:
        """A process is told that its request was carried out: then it was."""
        match request.verb:
            case "commit":
                lease, write = request.args[:2]
                if (lease.run_id, lease.fence, write.number) not in self.applied:
                    self._breaks("P1", f"write {write.number} of {self.name(lease.run_id)} is acknowledged, and lost")
            case "submit":
                if answer.run.id not in self._store.rows:
                    self._breaks("P1", f"{answer.run.id} is acknowledged, and does not exist")
            case "signal":
                run_id, signal = request.args[:2]
                if signal.id not in self.accounts[run_id].received:
                    self._breaks("P1", f"signal {signal.id} to {self.name(run_id)} is acknowledged, and lost")

    # ------------------------------------------------------------ steps

    def may_begin(self, worker: str, run_id: str, step: str) -> str | None:
        """Why this worker must not begin this step now."""
        account, life = self.accounts[run_id], self._store.rows[run_id].run.life
        if step in account.completed:
            return f"{account.name}: step {step} is executed again after it was done"
        if life.status != RUNNING or life.worker != worker:
            return f"{worker} begins step {step} of {account.name}, which is {life.shown} at {life.worker}"
        return None
