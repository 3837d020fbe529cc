"""One attempt at a run: the lease it writes under, what it remembers, and why it must stop.

Shared by everything that acts for the agent during the attempt. All writes of an attempt pass through `commit`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NoReturn

from stepwell.domain.commit import Commit
from stepwell.domain.errors import Conflict, InvalidInput, InvalidValue, LeaseLost, Misuse, NotFound, StoreError
from stepwell.domain.event import ARTIFACT_SAVED, Draft, Entry
from stepwell.domain.outcome import (
    Cancelled,
    Exhausted,
    Failed,
    HandedBack,
    Held,
    Outcome,
    Parked,
    Payload,
    Succeeded,
    TimedOut,
)
from stepwell.domain.run import DIVERGED, SUSPECT_AFTER
from stepwell.domain.values import dumps
from stepwell.engine.leasing import Leasing
from stepwell.engine.replay import Call, Diverged, Record, Replay
from stepwell.engine.waits import PARK_AFTER, Waits
from stepwell.ports.store import Claim, Control

if TYPE_CHECKING:
    from stepwell.engine.offload import Offload
    from stepwell.engine.report import AfterStep, Observer
    from stepwell.ports.clock import Clock
    from stepwell.ports.context import RunInfo
    from stepwell.ports.store import Store

_log = logging.getLogger("stepwell.engine")

INLINE_BYTES: Final = 256 * 1024
_UNWINDINGS: Final = 100
_MANY_NOTES: Final = 64
_LETTING_TRIES_END: Final = (Held, Cancelled)
_ENDS: Final = (Succeeded, Failed, TimedOut, Exhausted, Cancelled)


class AttemptStopped(BaseException):
    """Unwinds an agent whose attempt is over. Private; not an Exception, so that agents do not catch it by accident."""


class Lost:
    """The lease is gone, or nothing can be written: the attempt stops and writes nothing more."""


LOST: Final = Lost()
CALM: Final = Control()

_STEP_BACK: Final = Control(pausing=True)
"""What a suspect hears when it has made progress: it is none any more, and others wait to be executed alone. It stops
as for a pause, and is handed back since nobody asked for one.
"""


class Attempt:
    """What is known of one attempt while it goes on.

    `stop` is set once, by whatever ends the attempt early: an outcome to record, or `LOST` when nothing may be written
    any more. From then on every context call unwinds the agent, and `on_stop` sees to it that it really ends.
    `on_child` hears of every child that the attempt starts, `on_control` what somebody asked of the run. `may_act` says
    whether the lease is certain to be ours, `leaving` whether the worker itself is being stopped; `begun` that the
    attempt is being executed, `returned` that the agent has, `over` that the run has ended with this attempt,
    `cancelling` that it was asked to end, and `cleaning` that the agent's clean-up is running. `seq` numbers the newest
    event that was written here.
    """

    __slots__ = (
        "__weakref__",
        "_apart",
        "_interrupted",
        "_number",
        "_pending",
        "_pushing",
        "_replay",
        "_tries",
        "_tries_ended",
        "_unwound",
        "after_step",
        "artifacts",
        "begun",
        "cancelling",
        "cleaning",
        "clock",
        "deps",
        "info",
        "lease",
        "leasing",
        "leaving",
        "may_act",
        "observer",
        "offload",
        "on_child",
        "on_control",
        "on_stop",
        "over",
        "record",
        "restored",
        "returned",
        "seq",
        "stop",
        "store",
        "touched",
        "waits",
    )

    def __init__(
        self,
        claim: Claim,
        info: RunInfo,
        *,
        deps: Any,
        store: Store,
        clock: Clock,
        offload: Offload,
        may_act: Callable[[], bool],
        leaving: Callable[[], bool],
        observer: Observer | None,
        park_after: float = PARK_AFTER,
        after_step: AfterStep | None = None,
        leasing: Leasing | None = None,
    ) -> None:
        self.record = claim.run
        self.lease = claim.lease
        self.info = info
        self.deps = deps
        self.store = store
        self.clock = clock
        self.offload = offload
        self.may_act = may_act
        self.leaving = leaving
        self.observer = observer
        self.after_step = after_step
        self.on_child: Callable[[str], None] | None = None
        self.on_stop: Callable[[], None] | None = None
        self.on_control: Callable[[Control], None] | None = None
        self.cancelling = False
        self.cleaning = False
        self.stop: Outcome | Lost | None = None
        self.begun = False
        self.returned = False
        self.over = False
        self.restored = False
        self.touched = False
        self.leasing = leasing or Leasing(clock, None)
        self.artifacts: dict[str, dict[str, Any]] = {}
        self._replay = Replay(claim.journal)
        for entry in claim.journal:
            if entry.kind == ARTIFACT_SAVED:
                self.saw_artifact(json.loads(entry.data))
        self.seq = claim.run.life.seq
        self._number = 0
        self._pending: list[tuple[str, Draft]] = []
        self._pushing: asyncio.Task[None] | None = None
        self._apart: set[asyncio.Task[None]] = set()
        self._interrupted: str | None = None
        self._tries = 0
        self._tries_ended: asyncio.Event | None = None
        self._unwound = 0
        self.waits = Waits(self, park_after=park_after)

    # ------------------------------------------------------------ stopping

    def check(self) -> None:
        """Refuse a context call: unwind the agent if the attempt is over, object if it cancelled an earlier call."""
        if self.stop is not None:
            raise AttemptStopped
        if self._interrupted is not None:
            raise Misuse(
                f"{self._interrupted} was cancelled by the agent's own code, so what came of it cannot be remembered",
                code="context.cancelled",
                hint="bound a step with ctx.step(..., timeout=) instead of asyncio.timeout, wait_for or Task.cancel",
            )

    async def unwind(self) -> NoReturn:
        """Unwind the agent from a call it made although the attempt is over.

        One that swallows this for ever is kept waiting in the end, so that it takes no time from others.
        """
        self._unwound += 1
        if self._unwound > _UNWINDINGS:
            await asyncio.get_running_loop().create_future()
        raise AttemptStopped

    def end(self, stop: Outcome | Lost) -> AttemptStopped:
        """The attempt is over for this reason, unless it already was for another. Raise what this returns."""
        if self.stop is None:
            self.stop = stop
            self.waits.wake()
            if self.on_stop is not None:
                self.on_stop()
        elif isinstance(stop, Lost) and isinstance(self.stop, Cancelled):
            self.stop = stop  # who has lost the run does not clean up after it either
        return AttemptStopped()

    def cancel(self) -> None:
        """Somebody asked to cancel the run: the attempt is over, also where it was about to be held or parked."""
        self.cancelling = True
        if isinstance(self.stop, (Held, Parked)):
            self.stop = Cancelled("request")
        self.end(Cancelled("request"))

    def stopped(self) -> AttemptStopped:
        """What unwinds the agent."""
        return AttemptStopped()

    def close(self, stop: Outcome | Lost) -> None:
        """The agent has returned or was unwound. Tasks that it left behind can do nothing more in its name."""
        self.returned = True
        if self.stop is None:
            self.stop = stop

    def interrupt(self, call: str) -> None:
        """A context call was cancelled: by whoever stops the worker, or else by the agent itself.

        In the latter case nobody could say on a replay how far the call had come, so that no other may follow it.
        """
        if self.stop is None:
            if self.leaving():
                self.end(HandedBack())
            else:
                self._interrupted = call

    def for_clean_up(self, journal: list[Entry]) -> Attempt:
        """A second attempt over the same lease, for what an agent does when its run was cancelled. It never parks."""
        attempt = Attempt(
            Claim(self.record, self.lease, journal),
            self.info,
            deps=self.deps,
            store=self.store,
            clock=self.clock,
            offload=self.offload,
            may_act=lambda: self.may_act() and not isinstance(self.stop, Lost),
            leaving=self.leaving,
            observer=self.observer,
            park_after=math.inf,
            after_step=self.after_step,
            leasing=self.leasing,
        )
        attempt.cancelling = attempt.restored = True
        attempt._number = self._number
        return attempt

    def cleaned_up(self, by: Attempt) -> None:
        """The clean-up is over: what this attempt writes now comes after what that one wrote."""
        self._number = by._number

    # ------------------------------------------------------------ tries in the air

    def begin_try(self) -> None:
        """A step's function is about to be called."""
        self._tries += 1

    def end_try(self) -> None:
        """It has ended, and what came of it is written or never will be."""
        self._tries -= 1
        if self._tries == 0 and self._tries_ended is not None:
            self._tries_ended.set()

    @property
    def interrupted(self) -> bool:
        """Whether the agent's own code cancelled a call, so that what came of it is known to the journal alone."""
        return self._interrupted is not None

    @property
    def trying(self) -> int:
        """How many steps' functions are being executed, or have been and are being recorded."""
        return self._tries

    async def tries_end(self) -> None:
        """Where the run is being held or cancelled: let steps that were begun come to their end, which is still
        recorded.
        """
        if isinstance(self.stop, _LETTING_TRIES_END) and self._tries:
            self._tries_ended = asyncio.Event()
            await self._tries_ended.wait()

    def leased(self) -> int:
        """How long the attempt has held the run, in microseconds."""
        return max(0, round(self.leasing.seconds * 1_000_000))

    def seconds_left(self) -> float:
        """How much of its leased time the run may still use."""
        used = self.record.life.leased / 1_000_000 + self.leasing.seconds
        return self.record.timeout / 1_000_000 - used

    # ------------------------------------------------------------ remembering

    @property
    def replaying(self) -> bool:
        """Whether the agent still repeats what is remembered."""
        return self._replay.repeating

    @property
    def replay(self) -> Replay:
        return self._replay

    def recall(self, call: Call) -> Record | None:
        """What the journal knows of a call. A difference ends the attempt: the run is held as diverged."""
        self.touch()
        try:
            return self._replay.recall(call)
        except Diverged as difference:
            raise self.diverged(difference) from None

    def open_branches(self, place: str, verb: str, count: int) -> None:
        """The program opens branches at a place. A difference ends the attempt."""
        self.touch()
        try:
            self._replay.open_branches(place, verb, count)
        except Diverged as difference:
            raise self.diverged(difference) from None

    def touch(self) -> None:
        """The agent uses its context. If it once saved a checkpoint, it must have asked for it first."""
        self.touched = True
        if self._replay.checkpoint is not None and not self.restored:
            start = f"{self._replay.generation}/0"
            raise self.diverged(Diverged(start, "a checkpoint", "no ctx.restore at its start"))

    def expect_end(self, scope: str, position: int) -> None:
        """A branch ends. Calls that the journal still holds there are a difference."""
        try:
            self._replay.expect_end(scope, position)
        except Diverged as difference:
            raise self.diverged(difference) from None

    def expect_done(self) -> None:
        """The agent ends, or its numbering does. Calls that the journal holds and nobody made are a difference."""
        self.touch()
        try:
            self._replay.expect_done()
        except Diverged as difference:
            raise self.diverged(difference) from None

    def diverged(self, difference: Diverged) -> AttemptStopped:
        """Hold the run: the program is not the one that wrote the journal."""
        return self.end(Held(DIVERGED, "replay", dumps(difference.detail)))

    def undecodable(self, step: str, error: InvalidValue | InvalidInput) -> AttemptStopped:
        """Hold the run: what the journal holds does not fit the types of this program."""
        return self.diverged(Diverged(step, "a value of another shape", f"one that fits: {error.message}"))

    def saw_artifact(self, facts: dict[str, Any]) -> None:
        """The run keeps this file now; of equal names the newest counts."""
        self.artifacts[facts["name"]] = facts

    # ------------------------------------------------------------ writing

    def note(self, draft: Draft, scope: str) -> None:
        """Let a fact of a scope ride on the next commit."""
        self._pending.append((scope, draft))

    def push_notes(self) -> None:
        """See to it that notes are written soon, also when nothing else is."""
        if self._pushing is None and self._pending and self.stop is None:
            self._pushing = asyncio.create_task(self._push())
            self._apart.add(self._pushing)
            self._pushing.add_done_callback(self._settled)

    async def _push(self) -> None:
        while self._pending and self.stop is None:
            await self.commit()

    def _settled(self, task: asyncio.Task[None]) -> None:
        self._apart.discard(task)
        if task is self._pushing:
            self._pushing = None
        if not task.cancelled():
            task.exception()  # whoever calls the context next is unwound, since the attempt has ended

    async def notes_written(self) -> None:
        """Wait while more notes than some are on their way."""
        if self._pushing is not None and len(self._pending) > _MANY_NOTES:
            await asyncio.wait([self._pushing])

    def before_acting(self) -> None:
        """Refuse to start anything when the lease is no longer certain to be ours."""
        self.check()
        if not self.may_act():
            raise self.end(LOST)

    async def commit(self, *drafts: Draft, of_try: str | None = None, apart: bool = False, **more: Any) -> None:
        """Write facts, durably when this returns. When the lease is lost nothing is written and the attempt ends.

        What came of a try is written even while the run is being held or cancelled; `of_try` is the path of its scope.
        With `apart` it goes on when the caller is cancelled, as one that takes notes along does: each is told once.
        `more` are the other parts of a `Commit`; one that wants a version of a session's value may raise `Conflict`.
        """
        if self.stop is not None and (of_try is None or not isinstance(self.stop, _LETTING_TRIES_END)):
            raise AttemptStopped
        writing: Any = self._write(drafts, of_try, more)
        if apart or self._pending:
            writing = asyncio.ensure_future(writing)
            self._apart.add(writing)
            writing.add_done_callback(self._settled)
            writing = asyncio.shield(writing)
        try:
            await writing
        except LeaseLost:
            raise self.end(LOST) from None
        except Conflict as error:
            if "writes" in more:
                raise
            raise self.unwritable(error) from error
        except Exception as error:  # whatever a store raises, nobody knows whether it has written
            raise self.unwritable(error) from error

    async def _write(self, drafts: tuple[Draft, ...], of_try: str | None, more: dict[str, Any]) -> None:
        """Number the write and ask for it in one go: a later number that the store sees first would make it take this
        one for written.
        """
        notes = self._take_notes(of_try)
        try:
            write = self._next((*(note for _, note in notes), *drafts))
            answer = await self.store.commit(self.lease, write._replace(**more) if more else write)
        except (asyncio.CancelledError, Conflict):  # nothing of it was written, or the whole program is being ended
            self._pending = [*notes, *self._pending]
            raise
        self.seq = max(self.seq, answer.seq)
        control = answer.control
        if control == CALM and self.record.life.losses >= SUSPECT_AFTER:
            control = _STEP_BACK
        if control != CALM and self.on_control is not None:
            self.on_control(control)

    def unwritable(self, error: Exception) -> AttemptStopped:
        _log.error("run %s: the attempt stops, its store does not answer: %s", self.lease.run_id, error)
        return self.end(LOST) if self.stop is None else self.stopped()

    async def finish(self, outcome: Outcome) -> bool:
        """Write how the attempt stopped, and facts that still wait. False: the lease was lost, nothing was written."""
        if self._apart:
            await asyncio.wait(set(self._apart))
        notes = self._take_notes(None)
        write = self._next(tuple(note for _, note in notes))._replace(outcome=outcome)
        try:
            await self.store.commit(self.lease, write)
        except LeaseLost:
            _log.warning("run %s: the lease was lost, its end is not written", self.lease.run_id)
            return False
        except StoreError as error:
            _log.error("run %s: its end could not be written, it will be taken up again: %s", self.lease.run_id, error)
            return False
        self.over = isinstance(outcome, _ENDS)
        return True

    def _take_notes(self, scope: str | None) -> list[tuple[str, Draft]]:
        """The notes that ride on a write: all that wait, but while the run is being held those of a try's own scope."""
        if not self._pending:
            return []
        held = isinstance(self.stop, _LETTING_TRIES_END)
        taken = [note for note in self._pending if not held or note[0] == scope]
        self._pending = [note for note in self._pending if held and note[0] != scope]
        return taken

    def _next(self, drafts: tuple[Draft, ...]) -> Commit:
        self._number += 1
        return Commit(self._number, drafts, None, self.leased())

    async def payload(self, text: str) -> Payload:
        """A value as it goes into the journal: inline, or beside it when it is larger than 256 KiB."""
        if len(text) * 4 <= INLINE_BYTES:
            return Payload(text)
        content = text.encode()
        if len(content) <= INLINE_BYTES:
            return Payload(text)
        return Payload(None, await self.keep(content), len(content))

    async def keep(self, content: bytes) -> str:
        """Put bytes beside the journal; the attempt ends when the store does not take them."""
        try:
            return await self.store.put_blob(content)
        except Exception as error:  # whatever a store raises, the bytes may not be there
            raise self.unwritable(error) from error

    async def read_payload(self, facts: dict[str, Any], name: str, step: str) -> str:
        """The text of a value that `payload` put into an event. Bytes that are gone hold the run."""
        if "ref" not in facts:
            return dumps(facts[name])
        try:
            return (await self.store.get_blob(facts["ref"]["blob"])).decode()
        except NotFound:
            raise self.diverged(Diverged(step, "a value whose bytes are gone", "it")) from None
        except StoreError as error:
            raise self.unwritable(error) from error
