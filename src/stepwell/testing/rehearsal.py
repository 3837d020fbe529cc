"""Repeats an agent from its start while it goes on, to find out whether a later attempt would go the same way.

A rehearsal is given what the journal holds and stops where that ends: it writes nothing, waits for nothing, and calls
no step's function. Where the agent takes another way than the journal, a real attempt would be held as diverged.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
from collections.abc import Awaitable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, Final, cast

from stepwell.domain.outcome import Held
from stepwell.domain.run import DIVERGED
from stepwell.engine.attempt import LOST, Attempt, AttemptStopped
from stepwell.engine.context import RunContext
from stepwell.engine.waits import Limit, Waits
from stepwell.ports.store import Claim

if TYPE_CHECKING:
    from stepwell.domain.event import Draft, Entry
    from stepwell.ports.context import Context
    from stepwell.ports.runnable import Runnable

_STUBBORN: Final = 100
"""So often an agent may go on after it was unwound."""

_left_behind: Final[set[asyncio.Task[None]]] = set()


async def rehearse(attempt: Attempt, runnables: Mapping[str, Runnable]) -> Held | None:
    """Repeat the agent of an attempt up to where its journal ends; how a later attempt would be held, if it would."""
    again = Rehearsal(attempt, await _whole_journal(attempt))
    task = asyncio.create_task(_repeat(again, runnables))
    task.add_done_callback(lambda task: task.cancelled() or task.exception())
    try:
        await asyncio.wait([task, again.given_up], return_when=asyncio.FIRST_COMPLETED)
    finally:
        task.cancel()
        if again.given_up.done():  # it does not let itself be unwound
            _left_behind.add(task)
            task.add_done_callback(_left_behind.discard)
        else:
            await asyncio.wait([task])
            await again.waits.close()
    return again.stop if isinstance(again.stop, Held) and again.stop.why == DIVERGED else None


async def _repeat(again: Rehearsal, runnables: Mapping[str, Runnable]) -> None:
    runnable = runnables[again.record.agent]
    text = await again.read_payload(json.loads(again.journal[0].data), "input", "the input")
    ctx = RunContext(again, runnables)
    task = asyncio.current_task()
    assert task is not None
    scope = ctx.enter(task)
    with contextlib.suppress(AttemptStopped):
        try:
            await runnable.run(cast("Context[Any]", ctx), runnable.decode_input(text))
        except (AttemptStopped, asyncio.CancelledError):
            raise
        except BaseException:  # noqa: BLE001 - whatever the agent raises after its last step, a later attempt would too
            pass
        finally:
            scope.leave()
        again.expect_done()


async def _whole_journal(attempt: Attempt) -> list[Entry]:
    journal: list[Entry] = []
    while page := await attempt.store.journal(attempt.record.id, after=len(journal)):
        journal += page
    return journal


class Rehearsal(Attempt):
    """An attempt that only remembers: whatever would be new unwinds the agent.

    `given_up` is done when the agent does not let itself be unwound.
    """

    __slots__ = ("_edges", "given_up", "journal")

    def __init__(self, attempt: Attempt, journal: list[Entry]) -> None:
        super().__init__(
            Claim(attempt.record, attempt.lease, journal),
            attempt.info,
            deps=attempt.deps,
            store=attempt.store,
            clock=attempt.clock,
            offload=attempt.offload,
            may_act=attempt.may_act,
            leaving=attempt.leaving,
            observer=None,
        )
        self.journal = journal
        self.given_up = asyncio.get_running_loop().create_future()
        self.waits = _Remembered(self)
        self._edges = 0

    @property
    def replaying(self) -> bool:
        """Always: nobody is to see what an agent says in a rehearsal."""
        return True

    def edge(self) -> AttemptStopped:
        """Here the journal ends. Raise what this returns. Other branches may go on to where it ends for them."""
        self._edges += 1
        if self._edges > _STUBBORN:
            self.end(LOST)
            if not self.given_up.done():
                self.given_up.set_result(None)
        return AttemptStopped()

    def before_acting(self) -> None:
        self.check()
        raise self.edge()

    async def commit(self, *drafts: Draft, of_try: str | None = None, apart: bool = False, **more: Any) -> None:
        raise self.edge()

    def note(self, draft: Draft, scope: str) -> None:
        """What rides on a commit rides on none."""

    def push_notes(self) -> None:
        """There are none."""


class _Remembered(Waits):
    """The waits of a rehearsal: those that are over are over, and nobody waits for the others."""

    def __init__(self, attempt: Rehearsal) -> None:
        super().__init__(attempt, park_after=math.inf)
        self._rehearsal = attempt

    async def arrival(
        self, about: str, told: dict[str, Any], limit: Limit | None, *, release: bool = False
    ) -> Entry | None:
        entry = self._rehearsal.replay.arrived.get(about)
        if entry is None and (limit is None or limit.until > self._rehearsal.clock.now()):
            raise self._rehearsal.edge()
        return entry

    async def doze(self, until: Awaitable[Any]) -> None:
        if isinstance(until, Coroutine):
            until.close()
        raise self._rehearsal.edge()
