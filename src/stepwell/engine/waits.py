"""The waits of one attempt: hears of what closes them, and parks the run when nothing else goes on.

A run may be parked when each of its branches is in a wait and no step is open. Tasks that the agent started itself
(what has a key may be called there) count from their first call on; an agent or branch that is in no wait is taken to
wait for such a task while one of them is in a wait. What came in the meantime is in the run's journal: it is read again
right before parking, and the parking commit says up to where, so that the store keeps a run due of which more was
written since. Nothing here decides what a wait means.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import Context
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol
from weakref import ref

from stepwell.domain.errors import StoreError
from stepwell.domain.outcome import NEVER, Parked
from stepwell.domain.values import dumps
from stepwell.engine.replay import ARRIVALS
from stepwell.engine.scope import scope_if_own

if TYPE_CHECKING:
    from stepwell.domain.event import Entry
    from stepwell.domain.outcome import Outcome
    from stepwell.domain.run import RunRecord
    from stepwell.engine.replay import Replay
    from stepwell.ports.clock import Clock
    from stepwell.ports.notifier import Listener
    from stepwell.ports.store import Store

PARK_AFTER: Final = 0.25
POLL: Final = 0.25
_KINDS: Final = tuple(ARRIVALS)
_PAGE: Final = 1000
_TOLD: Final = 20
_LONGEST_NAME: Final = 200
_SET_BACK: Final = 1000
"""A wall clock that lost more than so many microseconds was set back: less is the time between two looks."""


class Waiter(Protocol):
    """The attempt, as its waits see it."""

    @property
    def record(self) -> RunRecord: ...

    @property
    def clock(self) -> Clock: ...

    @property
    def store(self) -> Store: ...

    @property
    def replay(self) -> Replay: ...

    @property
    def seq(self) -> int: ...

    @property
    def stop(self) -> object: ...

    def end(self, stop: Outcome) -> BaseException: ...

    def stopped(self) -> BaseException: ...

    def unwritable(self, error: Exception) -> BaseException: ...


class Limit(NamedTuple):
    """Until when a wait lasts. Where that stands for a length, `lasts` is the length, and `ahead` how far the wall
    clock was ahead of the scale of durations when the moment was decided, or when the run was claimed: a clock that is
    set back later makes no length longer. It is `made_up` by so much for a clock that was set back before, as long as
    that has not come to `decided_at` again.
    """

    until: int
    lasts: int | None = None
    ahead: int | None = None
    decided_at: int = 0
    made_up: int = 0


class _Open:
    """A wait that a task is in. `told` is how the parked run names it, `limit` when it gives up; `beside` says that the
    task is none of the branches.
    """

    __slots__ = ("beside", "future", "limit", "release", "told")

    def __init__(self, told: dict[str, Any], limit: Limit | None, release: bool, beside: bool) -> None:
        self.future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.beside = beside
        self.told = told
        self.limit = limit
        self.release = release


class Waits:
    """What an attempt waits for, and whether anything else goes on in it.

    `branches` counts the branches that are not in a wait, the agent itself among them; `steps` the steps that are
    being tried or will be tried again. Of the tasks beside the branches, `besides` are known, and `beside_waiting` are
    in a wait.
    """

    def __init__(self, attempt: Waiter, *, park_after: float) -> None:
        self._of = ref(attempt)  # it knows its waits: the two must not keep each other alive
        self._park_after = park_after
        self._open: dict[str, list[_Open]] = {}
        self._branches = 1
        self._besides: set[asyncio.Task[Any]] = set()
        self._beside_waiting = 0
        self._steps = 0
        self._asleep = 0
        self._quiet_since: float | None = None
        self._read_upto = attempt.record.life.seq
        self._reading = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._listener: Listener | None = None
        self._loop = asyncio.get_running_loop()
        self._ahead_at_claim = _ahead(attempt.clock)

    @property
    def _attempt(self) -> Waiter:
        attempt = self._of()
        assert attempt is not None  # whoever calls is called by it
        return attempt

    # ------------------------------------------------------------ what goes on

    def branch_out(self, branches: Sequence[asyncio.Task[Any]]) -> None:
        """The caller waits for these branches from now on; the last that ends passes its turn to the caller."""
        left = len(branches)

        def ended(_: asyncio.Task[Any]) -> None:
            nonlocal left
            left -= 1
            if left:
                self._branches -= 1
                self._look_round()

        self._branches += max(0, left - 1)
        for branch in branches:
            branch.add_done_callback(ended)

    def beside(self, task: asyncio.Task[Any] | None) -> None:
        """A task that the agent started itself makes a call: it goes on until it ends, but for its waits."""
        if task is not None and task not in self._besides:
            self._besides.add(task)
            task.add_done_callback(self._beside_ended)
            self._look_round()

    def _beside_ended(self, task: asyncio.Task[Any]) -> None:
        self._besides.discard(task)
        self._look_round()

    @contextmanager
    def following(self) -> Iterator[None]:
        """The caller's step waits meanwhile for another call of this attempt to be done."""
        beside = scope_if_own(self._attempt) is None
        self._stand_still(beside)
        self.end_step()
        try:
            yield
        finally:
            self.begin_step()
            self._go_on(beside)

    def begin_step(self) -> None:
        """A step is open: the run cannot be parked."""
        self._steps += 1

    def end_step(self) -> None:
        """The step has been done, or has failed for good."""
        self._steps -= 1
        if self._steps == 0:
            self._look_round()

    async def doze(self, until: Awaitable[Any]) -> None:
        """Wait in an open step of which nothing is in the air: for its next try."""
        self._asleep += 1
        try:
            await until
        finally:
            self._asleep -= 1

    @property
    def dormant(self) -> bool:
        """Whether nothing is done until some time has passed, although the run cannot be parked."""
        asleep = self._asleep
        if asleep == 0 or self._steps != asleep or self._attempt.stop is not None:
            return False
        return self._branches <= asleep + self._beside_waiting

    def _stand_still(self, beside: bool) -> None:
        if beside:
            self._beside_waiting += 1
        else:
            self._branches -= 1

    def _go_on(self, beside: bool) -> None:
        if beside:
            self._beside_waiting -= 1
        else:
            self._branches += 1
        self._look_round()

    def _is_quiet(self) -> bool:
        if self._steps or not self._open or len(self._besides) > self._beside_waiting:
            return False
        return self._branches <= self._beside_waiting

    def _look_round(self) -> None:
        quiet = self._is_quiet()
        if quiet and self._quiet_since is None:
            self._quiet_since = self._loop.time()
            if self._listener is not None:
                self._listener.wake()
        elif not quiet:
            self._quiet_since = None

    # ------------------------------------------------------------ waiting

    async def arrival(
        self, about: str, told: dict[str, Any], limit: Limit | None, *, release: bool = False
    ) -> Entry | None:
        """What closes the wait of that id, or the child's end: the fact in the journal. `None` when its time is over.

        The attempt may end in here: then this unwinds.
        """
        attempt = self._attempt
        entry = attempt.replay.arrived.get(about)
        if entry is not None or (limit is not None and self._until(limit) <= attempt.clock.now()):
            return entry
        wait = _Open(told, limit, release, scope_if_own(attempt) is None)
        self._open.setdefault(about, []).append(wait)
        self._stand_still(wait.beside)
        if self._task is None:
            self._task = asyncio.create_task(self._serve(), context=Context())  # its timers outlive it, with all of it
        else:
            self.wake()
        self._look_round()
        try:
            await wait.future
        finally:
            self._leave(about, wait)
            del wait  # what unwinds this call knows its frame, and the wait knows what unwinds
        return attempt.replay.arrived.get(about)

    async def read(self, about: str) -> Entry:
        """What closed a wait that is known to be closed. When the store does not answer, the attempt ends."""
        try:
            await self._read_news()
        except StoreError as error:
            raise self._attempt.unwritable(error) from error
        return self._attempt.replay.arrived[about]

    def _leave(self, about: str, wait: _Open) -> None:
        """The caller was cancelled: nothing has come, unless it came at the same moment."""
        waits = self._open.get(about, [])
        if wait in waits:
            waits.remove(wait)
            if not waits:
                del self._open[about]
            self._go_on(wait.beside)

    def _close(self, about: str) -> None:
        for wait in self._open.pop(about):
            self._go_on(wait.beside)
            if not wait.future.done():
                wait.future.set_result(None)

    def _waiting(self) -> list[_Open]:
        return [wait for waits in self._open.values() for wait in waits]

    # ------------------------------------------------------------ serving

    def wake(self) -> None:
        """Look again at once: something else than the journal has changed."""
        if self._listener is not None:
            self._listener.wake()

    async def _serve(self) -> None:
        attempt = self._attempt
        try:
            with attempt.store.notifier.listen(attempt.record.id) as listener:
                self._listener = listener
                while attempt.stop is None:
                    await self._read_news()
                    self._ring()
                    if not self._may_park() or not await self._park():
                        await listener.wait(self._patience())
        except Exception as error:  # noqa: BLE001 - whatever a store raises: without its news the attempt would wait for ever
            attempt.unwritable(error)
        finally:
            self._listener = None
            self._task = None
        self._unwind()

    async def _read_news(self) -> None:
        """Learn what came since the last time."""
        async with self._reading:
            attempt = self._attempt
            while True:
                entries = await attempt.store.journal(
                    attempt.record.id, after=self._read_upto, limit=_PAGE, kinds=_KINDS
                )
                for entry in entries:
                    self._read_upto = entry.seq
                    about = attempt.replay.note_arrival(entry)
                    if about in self._open:
                        self._close(about)
                if len(entries) < _PAGE:
                    return

    def _ring(self) -> None:
        """Let those go on whose time is over."""
        now = self._attempt.clock.now()
        for about, waits in list(self._open.items()):
            if any(wait.limit is not None and self._until(wait.limit) <= now for wait in waits):
                self._close(about)

    def _patience(self) -> float:
        """Seconds until it makes sense to look again without a hint."""
        patience = POLL
        if self._quiet_since is not None and self._may_park_at() > self._loop.time():
            patience = min(patience, self._may_park_at() - self._loop.time())
        first = self.first_due()
        if first < NEVER:
            patience = min(patience, (first - self._attempt.clock.now()) / 1_000_000)
        return max(0.0, patience)

    def first_due(self) -> int:
        """When the first of the open waits gives up; `NEVER` if none does."""
        limits = (wait.limit for wait in self._waiting())
        return min((self._until(limit) for limit in limits if limit is not None), default=NEVER)

    # ------------------------------------------------------------ limits

    def lasting(self, length: int) -> Limit:
        """So many microseconds from now."""
        return Limit(self._attempt.clock.now() + length, length, _ahead(self._attempt.clock))

    def recorded(self, until: int, lasts: int, *, decided_at: int, made_up: int) -> Limit:
        """The limit of a wait that an earlier attempt began, as of the claim."""
        return Limit(until, lasts, self._ahead_at_claim, decided_at, made_up)

    def _until(self, limit: Limit) -> int:
        """When a wait gives up, by the clock as it is now."""
        clock = self._attempt.clock
        until = limit.until - limit.made_up if clock.now() < limit.decided_at else limit.until
        set_back = 0 if limit.ahead is None else limit.ahead - _ahead(clock)
        return until - set_back if set_back > _SET_BACK else until

    # ------------------------------------------------------------ parking

    def _may_park_at(self) -> float:
        assert self._quiet_since is not None
        return self._quiet_since + self._park_after

    def _may_park(self) -> bool:
        """Nothing has gone on for a while, and nothing is about to."""
        if self._quiet_since is None or self._loop.time() < self._may_park_at():
            return False
        left = self.first_due() - self._attempt.clock.now()
        return left > self._park_after * 1_000_000

    async def _park(self) -> bool:
        """End the attempt so that the run waits without it, unless something has come just now."""
        attempt = self._attempt
        known = attempt.seq
        await self._read_news()
        if attempt.stop is not None or not self._may_park():
            return False
        release = all(wait.release for wait in self._waiting())
        attempt.end(Parked(self.first_due(), dumps(self._told()), max(known, self._read_upto), release))
        return True

    def _told(self) -> list[dict[str, Any]]:
        """How the parked run names its waits: those that are over first come first."""
        waits = [waits[0] for waits in self._open.values()]
        waits.sort(key=lambda wait: NEVER if wait.limit is None else wait.limit.until)
        more = [{"type": "more", "count": len(waits) - _TOLD}] if len(waits) > _TOLD else []
        return [*(wait.told for wait in waits[:_TOLD]), *more]

    def _unwind(self) -> None:
        waits = self._waiting()
        self._open.clear()
        for wait in waits:
            if wait.beside:  # nobody may be there to hear of an exception
                wait.future.cancel()
            elif not wait.future.done():
                wait.future.set_exception(self._attempt.stopped())

    async def close(self) -> None:
        """The attempt is over: stop looking. Tasks that were left behind in a wait are cancelled."""
        waits = self._waiting()
        self._open.clear()
        for wait in waits:
            wait.future.cancel()
        task = self._task
        if task is not None:
            task.cancel()
            await asyncio.wait([task])


def _ahead(clock: Clock) -> int:
    return clock.now() - round(clock.elapsed() * 1_000_000)


def wait_data(wait: str, type: str, name: str, limit: Limit | None, **more: Any) -> str:
    """The data of `wait.opened`."""
    facts: dict[str, Any] = {"wait": wait, "type": type, "name": name}
    if limit is not None:
        facts["until"] = limit.until
        more["lasts"] = limit.lasts
    return dumps(facts | {key: value for key, value in more.items() if value is not None})


def told_of(data: str) -> dict[str, Any]:
    """How a parked run names a wait: who and until when, without what only its own event needs to say."""
    facts = json.loads(data)
    told = {key: facts[key] for key in ("wait", "type", "name", "until") if key in facts}
    return told | {"name": _shortened(facts["name"])}


def _shortened(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…"
