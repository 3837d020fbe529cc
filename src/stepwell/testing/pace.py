"""Lets the time of a testing runtime jump, and only while the test waits and nothing can happen before time passes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, TypeVar

from stepwell.domain.errors import Seconds
from stepwell.domain.event import to_datetime
from stepwell.domain.outcome import NEVER
from stepwell.domain.retry import micros
from stepwell.runtime.access import TimeUp
from stepwell.testing.clock import ManualClock
from stepwell.testing.stuck import Stuck, explain
from stepwell.testing.watched import CHANGE, WatchedStore

if TYPE_CHECKING:
    from stepwell.engine.attempt import Attempt
    from stepwell.engine.worker import Worker

T = TypeVar("T")

_LOOK_AGAIN: Final = 0.05
"""Seconds of real time after which to look again, for agents that await something real without telling anybody."""
_TURNS: Final = 20
"""So many turns of the event loop carry what has happened to whoever waits for it."""
_MOST_JUMPS: Final = 100_000


class Clock:
    """The time of a testing runtime. It stands still unless the test waits for a run, or moves it."""

    def __init__(self, clock: ManualClock, advance: Callable[[int], Awaitable[None]]) -> None:
        self._clock = clock
        self._advance = advance

    def now(self) -> datetime:
        """What time it is, aware UTC."""
        return to_datetime(self._clock.now())

    async def advance(self, duration: Seconds) -> None:
        """Let so much time pass (seconds or timedelta). What becomes due on the way is done at its moment, and what can
        go on has gone on when this returns.
        """
        await self._advance(micros(duration))


class Pace:
    """Moves the clock. `worker` gives the one that executes, if there is one; `busy` says that it is being replaced."""

    def __init__(
        self,
        store: WatchedStore,
        clock: ManualClock,
        *,
        worker: Callable[[], Worker | None],
        busy: Callable[[], bool],
    ) -> None:
        self._store = store
        self._clock = clock
        self._worker = worker
        self._busy = busy

    async def wait(self, run_id: str, doing: Coroutine[Any, Any, T], limit: float | None) -> T:
        """Await what a test wants of a run, and let time jump meanwhile.

        Raises `TimeUp` when `limit` seconds of the clock have passed, `Stuck` when nothing can ever happen.
        """
        until = None if limit is None else self._clock.now() + round(limit * 1_000_000)
        task = asyncio.ensure_future(doing)
        try:
            for _ in range(_MOST_JUMPS):
                if not await self._at_rest(task):
                    return await task
                await self._pass_time(run_id, until)
            raise Stuck(
                f"time has jumped {_MOST_JUMPS:,} times, and run {run_id} is where it was",
                hint="does another run go on for ever? give what you wait for a timeout=",
            )
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def advance(self, duration: int) -> None:
        """Let so many microseconds pass, from one moment at which something is due to the next."""
        until = self._clock.now() + duration
        await self._at_rest(None)
        while self._clock.now() < until:
            self._jump(until)
            await self._at_rest(None)

    async def settle(self) -> None:
        """Return when nothing can happen before time passes."""
        await self._at_rest(None)

    # ------------------------------------------------------------ rest

    async def _at_rest(self, task: asyncio.Future[Any] | None) -> bool:
        """True when nothing can happen before time passes; false as soon as the task has ended."""
        with self._store.notifier.listen(CHANGE) as listener:
            if task is not None:
                task.add_done_callback(lambda _: listener.wake())
            while task is None or not task.done():
                seen = self._store.changes
                for _ in range(_TURNS):
                    await asyncio.sleep(0)
                if self._store.changes != seen or (task is not None and task.done()):
                    continue
                if self._rests():
                    return True
                if not self._store.looked:
                    self._store.rouse()
                await listener.wait(_LOOK_AGAIN)
        return False

    def _rests(self) -> bool:
        """Whether everything waits for time, as far as one sees now."""
        worker = self._worker()
        if self._busy():
            return False
        if worker is None:
            return True
        attempts = worker.attempts
        if not all(attempt.waits.dormant for attempt in attempts):
            return False
        return self._store.looked or (bool(attempts) and not worker.claiming)

    # ------------------------------------------------------------ time

    async def _pass_time(self, run_id: str, until: int | None) -> None:
        if until is not None and self._clock.now() >= until:
            raise TimeUp
        held = (await self._store.get(run_id)).life.hold is not None
        if (until is None and held) or not self._jump(until):
            raise await explain(self._store, run_id)

    def _jump(self, until: int | None) -> bool:
        """Move the clock to the next moment at which something is due, at most to `until`. False if there is none."""
        now = self._clock.now()
        worker = self._worker()
        attempts = [] if worker is None else worker.attempts
        moments = [at for at in (until, *self._moments(attempts)) if at is not None and at > now]
        if not moments:
            return False
        self._clock.advance_by(min(moments) - now)
        if worker is not None:
            worker.beat()
        self._store.time_passed([attempt.record.id for attempt in attempts])
        return True

    def _moments(self, attempts: list[Attempt]) -> list[int | None]:
        now = self._clock.now()
        wake = self._clock.next_wake()
        moments = [self._store.next_due_at, None if wake is None else now + wake]
        for attempt in attempts:
            first = attempt.waits.first_due()
            moments.append(first if first < NEVER else None)
            moments.append(now + round(attempt.seconds_left() * 1_000_000) + 1)  # when its time is used up
        return moments
