"""The worker: claims runs up to its capacity and executes them side by side, until it is told to drain.

It also offers its free slots to submissions, so that a run may start in the very write that creates it. What it holds
it holds by lease: `heartbeat` extends it, and what the heartbeat no longer confirms is given up.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import os
import socket
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from stepwell.domain.commit import Commit
from stepwell.domain.errors import LeaseLost, StoreError, StoreUnusable
from stepwell.domain.ids import ENTROPY_BYTES, WORKER, make_id
from stepwell.domain.outcome import Cancelled, HandedBack, Held, Outcome, TimedOut
from stepwell.domain.run import DIVERGED, Lease
from stepwell.domain.transitions import PAUSED_ON_REQUEST, RUN_TIMEOUT
from stepwell.domain.values import dumps
from stepwell.engine.attempt import LOST, Attempt, Lost
from stepwell.engine.breakdown import Breakdown
from stepwell.engine.controls import Controls
from stepwell.engine.defaults import DRAIN, LEASE_SECONDS
from stepwell.engine.executor import CLEAN_UP, Ending, Executor, who_cancelled
from stepwell.engine.failure import describe_error
from stepwell.engine.heartbeat import Heart
from stepwell.engine.quarantine import Aside, Quarantine
from stepwell.engine.waits import PARK_AFTER
from stepwell.ports.notifier import QUEUE
from stepwell.ports.store import Claim, ClaimRequest, Control, Heartbeat, WorkerInfo

if TYPE_CHECKING:
    from stepwell.engine.report import AfterStep, Observer
    from stepwell.ports.clock import Clock, Entropy
    from stepwell.ports.notifier import Listener
    from stepwell.ports.runnable import Runnable
    from stepwell.ports.store import Store

_log = logging.getLogger("stepwell.engine")

FULL_POLL: Final = 0.25
CANCEL_GRACE: Final = 5.0
COOPERATION: Final = 0.5
"""Seconds that a step in the air is left to come to its own end when its run is cancelled, before it is cancelled."""
_REFILL_DELAY: Final = 0.002
_AFTER_STORE_ERROR: Final = 1.0
_LAST_COMMIT: Final = 2**31


@dataclass(frozen=True, slots=True, eq=False)
class Slot:
    """Room for `count` runs of this worker for which the store is being asked. Each is one of its kind."""

    worker: str
    count: int = 1


@dataclass(slots=True, eq=False)
class _Holding:
    """A run in this worker's hands: its attempt and the task that executes it.

    `left` is set when the worker no longer has to do with it, `seen_off` once somebody sees to it that it ends.
    """

    attempt: Attempt
    task: asyncio.Task[Ending | None]
    left: asyncio.Event
    seen_off: bool = False


class Worker:
    """Executes runs of the given agents. With `only_own`, claims nothing but runs that were adopted."""

    def __init__(
        self,
        store: Store,
        runnables: Mapping[str, Runnable],
        *,
        capacity: int,
        clock: Clock,
        entropy: Entropy,
        deps: Callable[[str], Any],
        only_own: bool = False,
        lease_seconds: float = LEASE_SECONDS,
        observer: Observer | None = None,
        park_after: float = PARK_AFTER,
        after_step: AfterStep | None = None,
        aside: Aside | None = None,
        suspects_only: bool = False,
    ) -> None:
        self.id = make_id(WORKER, clock.now(), entropy(ENTROPY_BYTES))
        self._store = store
        self._runnables = runnables
        self._capacity = capacity
        self._clock = clock
        self._lease_seconds = lease_seconds
        self._own: set[str] | None = set() if only_own else None
        self._held: dict[str, _Holding] = {}
        self._asked: set[Slot] = set()
        self._more = False
        self._refill: asyncio.TimerHandle | None = None
        self._draining = False
        self._unknown: dict[tuple[str, int], frozenset[Slot]] = {}
        self._cleaned: set[tuple[str, int]] = set()  # whose end could not be written
        self._errands: set[asyncio.Task[None]] = set()
        self._context = contextvars.copy_context()
        self._idle = asyncio.Event()
        self._loop_task: asyncio.Task[None] | None = None
        self.quarantine = Quarantine(aside=aside, only=suspects_only)
        self._listener: Listener | None = None
        self.breakdown = Breakdown(self._give_up)
        broken = self.breakdown.note
        self._heart = Heart(
            store, self.id, lease_seconds=lease_seconds, clock=clock, answer=self._on_heartbeat, broken=broken
        )
        self._controls = Controls(
            store, self.id, clock=clock, busy=lambda: bool(self._held), obey=self._obey, broken=broken
        )
        self._executor = Executor(
            store,
            runnables,
            clock=clock,
            deps=deps,
            may_act=self._heart.certain,
            in_force=self._heart.in_force,
            leaving=self._leaving,
            observer=observer,
            park_after=park_after,
            after_step=after_step,
        )

    # ------------------------------------------------------------ life

    async def start(self) -> None:
        """Register, begin to beat, begin to claim. Leaves nothing behind when it fails."""
        info = WorkerInfo(self.id, socket.gethostname(), os.getpid(), self._capacity, self._clock.now())
        self._heart.leased_from_now()
        await self._store.open_worker(info, lease_seconds=self._lease_seconds)
        self._heart.start()
        self._idle.set()
        self._loop_task = asyncio.create_task(self._claim_loop(), name="stepwell-claims")
        self._controls.start()

    async def stop(self, *, drain: float = DRAIN) -> None:
        """Claim nothing more, let running attempts finish for up to `drain` seconds, hand the others back, sign off.

        The next call finishes what a cancelled one began.
        """
        self._draining = True
        if self._loop_task is None:
            return
        self._wake()
        await asyncio.wait([self._loop_task])
        aside = asyncio.create_task(self.quarantine.stop())  # it drains while our own attempts do
        if self._held and drain > 0:
            await asyncio.wait([holding.task for holding in self._held.values()], timeout=drain)
        await self._see_off_all(HandedBack())
        await asyncio.wait([aside])
        await self._controls.stop()
        await self._heart.stop()
        self._executor.offload.close()
        if self.breakdown.error is None:
            await self._store.close_worker(self.id)
        else:  # nothing can be written: its death is proved as that of a killed process
            self._store.abandon_worker(self.id)
        self._loop_task = None

    async def kill(self) -> None:
        """Vanish as a killed process would: nothing is handed back, nobody is told. For tests."""
        self._draining = True
        loop_task, self._loop_task = self._loop_task, None
        for holding in self._held.values():
            holding.attempt.end(LOST)
        self._store.abandon_worker(self.id)
        if loop_task is not None:
            loop_task.cancel()
            await asyncio.wait([loop_task])
        await self._see_off_all(LOST)
        await self._controls.stop()
        await self._heart.stop()
        self._executor.offload.close()

    def _give_up(self) -> None:
        """Nothing can be recorded any more: what is executed stops, and others take it up."""
        self._draining = True
        for holding in list(self._held.values()):
            self._stop(holding, LOST)
        self._wake()

    def _leaving(self) -> bool:
        """Whether this worker is being stopped, by a drain or because the event loop cancels everything."""
        loop_task = self._loop_task
        return self._draining or loop_task is None or loop_task.done() or loop_task.cancelling() > 0

    # ------------------------------------------------------------ slots

    @property
    def running(self) -> int:
        """How many attempts are being executed."""
        return len(self._held)

    @property
    def attempts(self) -> list[Attempt]:
        """What is being executed."""
        return [holding.attempt for holding in self._held.values()]

    @property
    def claiming(self) -> bool:
        """Whether it takes what is due."""
        return self._free > 0 and not self._quiet

    def beat(self) -> None:
        """Do now what the heartbeat does from time to time: for those who move the clock."""
        self._heart.beat()

    @property
    def _free(self) -> int:
        return self._capacity - len(self._held) - sum(slot.count for slot in self._asked)

    def offer_slot(self) -> Slot | None:
        """Reserve a free slot for a submission.

        Must be followed by `accept` or `withdraw_slot`.
        """
        if self._draining or self._free < 1 or self._quiet or not self._heart.certain():
            return None
        return self._reserve(1)

    @property
    def _quiet(self) -> bool:
        return self.quarantine.is_quiet(busy=bool(self._held))

    def _reserve(self, count: int) -> Slot:
        slot = Slot(self.id, count)
        self._asked.add(slot)
        return slot

    def withdraw_slot(self, slot: Slot) -> None:
        """The reserved slot is not needed."""
        self._asked.discard(slot)
        self._wake()

    def accept(self, slot: Slot, claim: Claim, input_text: str | None) -> None:
        """Execute a run that was started in a reserved slot; hand it back if the worker is leaving by now."""
        self._asked.discard(slot)
        if self._draining:
            self._run_errand(self._write_end(claim.lease, HandedBack()))
        else:
            self._launch(claim, input_text)

    def adopt(self, run_id: str) -> None:
        """Let an `only_own` worker claim this run too."""
        if self._own is not None:
            self._own.add(run_id)
            self._wake()

    # ------------------------------------------------------------ claiming

    async def _claim_loop(self) -> None:
        with self._store.notifier.listen(QUEUE) as listener:
            self._listener = listener
            while not self._draining:
                wait = FULL_POLL
                try:
                    if self._free > 0 and not self._quiet and self._heart.certain():
                        wait = await self._claim()
                    else:
                        self._more = True  # nobody has looked what this hint was about
                except StoreUnusable as error:
                    self.breakdown.note(error)
                except StoreError as error:
                    _log.warning("claiming failed, the next try follows: %s", error)
                    wait = _AFTER_STORE_ERROR
                except Exception:  # noqa: BLE001 - a worker that no longer claims without a word is worse than any error
                    _log.exception("claiming failed, the next try follows")
                    wait = _AFTER_STORE_ERROR
                if not self._draining:
                    await listener.wait(wait)
            self._listener = None

    async def _claim(self) -> float:
        """Claim into the free slots; returns the seconds until claiming again makes sense without a hint."""
        own = None if self._own is None else [run for run in self._own if run not in self._held]
        if own is not None and not own:
            self._more = bool(self._held)  # the hint may be about one that we are about to let go
            return FULL_POLL
        suspects, limit = self.quarantine.ask(self._free) if own is None else ("any", self._free)
        slot = self._reserve(limit)
        try:
            claims = await self._store.claim(ClaimRequest(self.id, limit, tuple(self._runnables), own, suspects))
        finally:
            self._asked.discard(slot)
        self.quarantine.learn(suspects, claims, self._wake)
        for claim in claims.taken:
            self._launch(claim, None)
        if suspects == "alone" or (claims.suspects and self.quarantine.ask(1)[0] == "alone"):
            self._more = True
            return FULL_POLL if self._quiet else 0.0
        self._more = len(claims.taken) == limit or (own is not None and bool(self._held))
        if claims.next_due_at is None:
            return FULL_POLL
        return min(FULL_POLL, max(0.0, (claims.next_due_at - self._clock.now()) / 1_000_000))

    def _launch(self, claim: Claim, input_text: str | None) -> None:
        try:
            attempt = self._executor.prepare(claim)
        except Exception as error:  # noqa: BLE001 - one unreadable run must not stop the others
            _log.exception("run %s cannot be executed, and is held", claim.run.id)
            told = describe_error(error, code="journal.unreadable")
            why = f"the journal cannot be read by this program: {told.type}: {told.message:.500}"
            held = Held(DIVERGED, "worker", dumps({"message": why}))
            self._run_errand(self._write_end(claim.lease, Cancelled("request") if claim.run.life.cancelling else held))
            return
        execution = self._executor.execute(attempt, claim.journal, input_text)
        task = asyncio.create_task(execution, context=self._context.copy())
        holding = _Holding(attempt, task, asyncio.Event())
        attempt.on_stop = lambda: self._see_off_later(holding)
        attempt.on_control = lambda control: self._control(holding, control)
        attempt.on_child = self.adopt
        for child in attempt.replay.live_children:
            self.adopt(child)
        before = self._held.get(claim.run.id)
        self._held[claim.run.id] = holding
        self._idle.clear()
        task.add_done_callback(lambda task: self._ended(holding))
        if before is not None:  # our own lease had run out, and we claimed the run again
            self._stop(before, LOST)

    def _ended(self, holding: _Holding) -> None:
        run_id, task = holding.attempt.record.id, holding.task
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("run %s: its execution broke off, it will be taken up again", run_id, exc_info=error)
        if self._own is not None and holding.attempt.over:
            self._own.discard(run_id)
        self._forget(holding)

    def _forget(self, holding: _Holding) -> None:
        """The run is no longer in our hands: its slot is free."""
        holding.left.set()
        attempt = holding.attempt
        attempt.on_stop = attempt.on_control = None  # it knows the holding: the two would keep each other alive
        run_id = attempt.record.id
        if attempt.cleaning and not attempt.over:
            self._cleaned.add((run_id, attempt.lease.fence))
        if self._held.get(run_id) is holding:
            del self._held[run_id]
            if not self._held:
                self._idle.set()
                self.quarantine.ended()
            self._slot_freed()

    def _slot_freed(self) -> None:
        """Claim again when more is known to wait: at once for a good part of the slots, a moment later for few."""
        if not self._more or self._draining:
            return
        if self._free * 4 >= self._capacity or not self._held:
            self._wake()
        elif self._refill is None:
            self._refill = asyncio.get_running_loop().call_later(_REFILL_DELAY, self._wake)

    def _wake(self) -> None:
        if self._refill is not None:
            self._refill.cancel()
            self._refill = None
        if self._listener is not None:
            self._listener.wake()

    async def ending(self, run_id: str) -> Ending | None:
        """Wait until this worker stops executing the run, if it does; how it succeeded, if it did so here and now."""
        holding = self._held.get(run_id)
        if holding is None:
            return None
        await holding.left.wait()
        task = holding.task
        failed = not task.done() or task.cancelled() or task.exception() is not None
        return None if failed else task.result()

    async def idle(self) -> None:
        """Return when nothing is being executed."""
        await self._idle.wait()

    # ------------------------------------------------------------ leases

    def _on_heartbeat(self, reply: Heartbeat, asked_at: float) -> None:
        """Give up what is lost or past its time; hand back what we hold without knowing of it."""
        for run_id, holding in list(self._held.items()):
            attempt = holding.attempt
            held = reply.held.get(run_id)
            gone = held is None and attempt.leasing.claimed_at < asked_at
            if gone or (held is not None and held[0] > attempt.lease.fence):
                self._stop(holding, LOST)
            elif attempt.seconds_left() < 0:
                self._stop(holding, TimedOut(RUN_TIMEOUT))
            elif held is not None:
                self._control(holding, held[1])
        self._hand_back({(run_id, fence) for run_id, (fence, _) in reply.held.items() if run_id not in self._held})

    def _hand_back(self, unknown: set[tuple[str, int]]) -> None:
        """Seen twice, and all that was being asked for at the first time has been answered since: nobody here will ever
        execute it.
        """
        asked = frozenset(self._asked)
        seen = {one: self._unknown.get(one, asked) for one in unknown}
        for run_id, fence in sorted(seen.keys() & self._unknown.keys()):
            if not seen[run_id, fence] & asked:
                over = Cancelled("request") if (run_id, fence) in self._cleaned else HandedBack()
                self._run_errand(self._write_end(Lease(run_id, fence, self.id), over))
        self._unknown = seen

    # ------------------------------------------------------------ what others ask of our runs

    def _obey(self, asked: Mapping[str, tuple[int, Control]]) -> None:
        for run_id, (fence, control) in asked.items():
            holding = self._held.get(run_id)
            if holding is not None and holding.attempt.lease.fence == fence:
                self._control(holding, control)

    def _control(self, holding: _Holding, control: Control) -> None:
        """A cancel or a pause: no call of the agent begins any more, and steps in the air come to their end."""
        attempt = holding.attempt
        if attempt.returned or isinstance(attempt.stop, Cancelled):
            return
        if control.cancelling:
            attempt.cancel()
        elif attempt.stop is not None:
            return
        elif control.pausing:
            attempt.end(PAUSED_ON_REQUEST)
        if attempt.stop is not None and not attempt.trying:
            self._cancel(holding)

    # ------------------------------------------------------------ stopping attempts

    def _stop(self, holding: _Holding, stop: Outcome | Lost) -> None:
        """Stop an attempt from outside. Where its agent has returned, its end is being written: that is let be."""
        holding.attempt.end(stop)
        self._see_off_later(holding)
        self._cancel(holding)

    @staticmethod
    def _cancel(holding: _Holding) -> None:
        """Unwind the agent. An execution that has not begun finds by itself that it is over, and would vanish without a
        word; one whose agent has returned is about to write how it ended.
        """
        if holding.attempt.begun and not holding.attempt.returned:
            holding.task.cancel()

    async def _see_off_all(self, stop: Outcome | Lost) -> None:
        for holding in list(self._held.values()):
            self._stop(holding, stop)
        while self._errands:
            await asyncio.wait(self._errands)

    def _see_off_later(self, holding: _Holding) -> None:
        if not holding.seen_off:
            holding.seen_off = True
            self._run_errand(self._see_off(holding))

    async def _see_off(self, holding: _Holding) -> None:
        """See to it that an attempt ends that has to. An agent that does not stop within the grace is left behind: it
        costs no slot any more, its writes are refused, and the outcome is written without it.
        """
        attempt, task = holding.attempt, holding.task
        while isinstance(attempt.stop, Held) and attempt.trying and not task.done():
            await asyncio.wait([task], timeout=CANCEL_GRACE)
        if isinstance(attempt.stop, Cancelled) and attempt.trying:
            await asyncio.wait([task], timeout=COOPERATION)
            if not attempt.returned:
                task.cancel()
        for _ in range(2):
            _, running = await asyncio.wait([task], timeout=CANCEL_GRACE / 2)
            if not running:
                return
            if not attempt.returned:
                task.cancel()
        if attempt.cleaning and (await asyncio.wait([task], timeout=CLEAN_UP))[0]:
            return
        _log.warning("run %s does not stop; it is left behind", attempt.record.id)
        self._forget(holding)
        if attempt.stop is not None and not isinstance(attempt.stop, Lost):
            await self._write_end(attempt.lease, attempt.stop, leased=attempt.leased())

    def _run_errand(self, errand: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(errand)
        self._errands.add(task)
        task.add_done_callback(self._errands.discard)

    async def _write_end(self, lease: Lease, outcome: Outcome, *, leased: int = 0) -> None:
        """End an attempt from outside its task, which either does not exist or does not stop."""
        if isinstance(outcome, Cancelled):
            outcome = await who_cancelled(self._store, lease.run_id)
        try:
            await self._store.commit(lease, Commit(_LAST_COMMIT, outcome=outcome, leased=leased))
        except (LeaseLost, StoreError) as error:
            _log.warning("run %s: its attempt could not be ended from outside: %s", lease.run_id, error)
