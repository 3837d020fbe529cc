"""One attempt at a run: the lease it writes under, what it remembers, and why it must stop.

Shared by everything that acts for the agent during the attempt. All writes of an attempt pass through `commit`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from stepwell.domain.errors import LeaseLost, StoreError
from stepwell.domain.event import ARTIFACT_SAVED, Draft
from stepwell.domain.outcome import Commit, Held, Outcome, Payload
from stepwell.domain.run import DIVERGED
from stepwell.domain.values import dumps
from stepwell.engine.replay import Call, Diverged, Record, Replay

if TYPE_CHECKING:
    from stepwell.engine.offload import Offload
    from stepwell.engine.report import Observer
    from stepwell.ports.clock import Clock
    from stepwell.ports.context import RunInfo
    from stepwell.ports.store import Claim, Store

_log = logging.getLogger("stepwell.engine")

INLINE_BYTES: Final = 256 * 1024


class AttemptStopped(BaseException):
    """Unwinds an agent whose attempt is over. Private; not an Exception, so that agents do not catch it by accident."""


class Lost:
    """The lease is gone, or nothing can be written: the attempt stops and writes nothing more."""


LOST: Final = Lost()


class Attempt:
    """The state of one attempt.

    `stop` is set once, by whatever ends the attempt early: an outcome to record, or `LOST` when nothing may be written any more. From
    then on every context call unwinds the agent.
    """

    __slots__ = (
        "_number",
        "_pending",
        "_replay",
        "artifacts",
        "claimed_elapsed",
        "clock",
        "deps",
        "info",
        "lease",
        "may_act",
        "observer",
        "offload",
        "record",
        "restored",
        "stop",
        "store",
        "touched",
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
        observer: Observer | None,
    ) -> None:
        self.record = claim.run
        self.lease = claim.lease
        self.info = info
        self.deps = deps
        self.store = store
        self.clock = clock
        self.offload = offload
        self.may_act = may_act
        self.observer = observer
        self.stop: Outcome | Lost | None = None
        self.restored = False
        self.touched = False
        self.claimed_elapsed = clock.elapsed()
        self.artifacts: dict[str, dict[str, Any]] = {}
        self._replay = Replay(claim.journal)
        for entry in claim.journal:
            if entry.kind == ARTIFACT_SAVED:
                self.saw_artifact(json.loads(entry.data))
        self._number = 0
        self._pending: list[Draft] = []

    # ------------------------------------------------------------ stopping

    def check(self) -> None:
        """Unwind the agent when the attempt is over."""
        if self.stop is not None:
            raise AttemptStopped

    def end(self, stop: Outcome | Lost) -> AttemptStopped:
        """The attempt is over for this reason, unless it already was for another. Raise what this returns."""
        if self.stop is None:
            self.stop = stop
        return AttemptStopped()

    def seconds_left(self) -> float:
        """How much of its leased time the run may still use."""
        used = self.record.life.leased / 1_000_000 + self.clock.elapsed() - self.claimed_elapsed
        return self.record.timeout / 1_000_000 - used

    # ------------------------------------------------------------ remembering

    @property
    def replaying(self) -> bool:
        """Whether the agent still repeats what is remembered."""
        return self._replay.remaining > 0

    @property
    def replay(self) -> Replay:
        return self._replay

    def recall(self, call: Call) -> Record | None:
        """What the journal knows of a call. A difference ends the attempt: the run is held as diverged."""
        self.touched = True
        try:
            return self._replay.recall(call)
        except Diverged as difference:
            raise self.diverged(difference) from None

    def open_branches(self, place: str, verb: str) -> None:
        """The program opens branches at a place. A difference ends the attempt."""
        self.touched = True
        try:
            self._replay.open_branches(place, verb)
        except Diverged as difference:
            raise self.diverged(difference) from None

    def expect_end(self, scope: str, position: int) -> None:
        """The scope ends, or its numbering does. Calls that the journal still holds there are a difference."""
        try:
            self._replay.expect_end(scope, position)
        except Diverged as difference:
            raise self.diverged(difference) from None

    def diverged(self, difference: Diverged) -> AttemptStopped:
        """Hold the run: the program is not the one that wrote the journal."""
        return self.end(Held(DIVERGED, "replay", dumps(difference.detail)))

    def saw_artifact(self, facts: dict[str, Any]) -> None:
        """The run keeps this file now; of equal names the newest counts."""
        self.artifacts[facts["name"]] = facts

    # ------------------------------------------------------------ writing

    def note(self, draft: Draft) -> None:
        """Let a fact ride on the next commit."""
        self._pending.append(draft)

    def before_acting(self) -> None:
        """Refuse to start anything when the lease is no longer certain to be ours."""
        self.check()
        if not self.may_act():
            raise self.end(LOST)

    async def commit(self, *drafts: Draft) -> None:
        """Write facts, durably when this returns. When the lease is lost nothing is written and the attempt ends."""
        self.check()
        write = self._next(drafts)
        try:
            await self.store.commit(self.lease, write)
        except LeaseLost:
            raise self.end(LOST) from None
        except StoreError as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: StoreError) -> AttemptStopped:
        _log.error("run %s: the attempt stops, its store does not answer: %s", self.lease.run_id, error)
        return self.end(LOST)

    async def finish(self, outcome: Outcome) -> bool:
        """Write how the attempt stopped, and facts that still wait. False when the lease was lost: then nothing was written."""
        leased = round((self.clock.elapsed() - self.claimed_elapsed) * 1_000_000)
        write = self._next(())._replace(outcome=outcome, leased=max(0, leased))
        try:
            await self.store.commit(self.lease, write)
        except LeaseLost:
            return False
        except StoreError as error:
            _log.error("run %s: its end could not be written, it will be taken up again: %s", self.lease.run_id, error)
            return False
        return True

    def _next(self, drafts: tuple[Draft, ...]) -> Commit:
        if self._pending:
            drafts = (*self._pending, *drafts)
            self._pending = []
        self._number += 1
        return Commit(self._number, drafts)

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
        except StoreError as error:
            raise self._unwritable(error) from error

    async def read_payload(self, facts: dict[str, Any], name: str) -> str:
        """The text of a value that `payload` put into an event."""
        if "ref" in facts:
            try:
                return (await self.store.get_blob(facts["ref"]["blob"])).decode()
            except StoreError as error:
                raise self._unwritable(error) from error
        return dumps(facts[name])
