"""Injected schedules: one run, an attempt that opens waits, looks and parks, and senders who come in between.

A schedule is a text of bytes, each of which names the next move; every order of the moves is some schedule. Beside the
store stands an oracle that knows nothing of transitions: it keeps who waits for what, which signals nobody took, and
whether the run has been given a reason to wake since its last look. After each move the store must agree, so no
signal is lost and nobody is woken by what they do not wait for.

`play` needs nothing but a harness; whoever calls it draws the bytes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from stepwell.domain.commit import Commit
from stepwell.domain.errors import AlreadyAnswered, Conflict
from stepwell.domain.outcome import NEVER, HandedBack, Parked, Payload
from stepwell.domain.run import Lease
from stepwell.domain.values import loads
from stepwell.domain.wait import Signal, Wait
from stepwell.ports.store import Store
from stepwell.testing.conformance.harness import SECOND, Harness, take

NAMES: Final = ("a", "b")
MOST_WAITS: Final = 6
LONG: Final = 1e6
"""Seconds: no lease runs out by itself in a schedule."""


@dataclass(eq=False)
class Expected:
    """A wait as the oracle sees it. `ended` says how it was closed."""

    wait: Wait
    ended: str | None = None


@dataclass
class Oracle:
    """What must be true of the run. `unread` says that something was written since the attempt last looked; `wake_at`
    is when the run is due, while it waits.
    """

    waits: list[Expected] = field(default_factory=list)
    kept: dict[str, deque[str]] = field(default_factory=lambda: {name: deque() for name in NAMES})
    taken: list[tuple[str, str]] = field(default_factory=list)
    sent: list[Signal] = field(default_factory=list)
    running: bool = False
    held: bool = False
    unread: bool = False
    wake_at: int = 0

    def open(self, wait: Wait) -> None:
        """A wait is opened, and takes the oldest signal of its name."""
        expected = Expected(wait)
        self.waits.append(expected)
        if wait.type == "signal" and self.kept[wait.name]:
            self._close(expected, "received")
            self.taken.append((wait.id, self.kept[wait.name].popleft()))

    def arrive(self, signal: Signal, now: int) -> None:
        """A signal arrives that never did before."""
        self.sent.append(signal)
        self.unread = True
        waiting = [each for each in self.still_open("signal") if each.wait.name == signal.name]
        if waiting:
            self.taken.append((waiting[0].wait.id, signal.id))
            self.end(waiting[0], "received", now)
        else:
            self.kept[signal.name].append(signal.id)

    def end(self, expected: Expected, how: str, now: int) -> None:
        """Something closes an open wait, which is a reason to wake unless the wait is joined with another open one."""
        self._close(expected, how)
        self.unread = True
        join = expected.wait.join
        if join is None or all(each.wait.join != join for each in self.still_open()):
            self.wake_at = min(self.wake_at, now)

    def still_open(self, kind: str | None = None) -> list[Expected]:
        """The open waits, oldest first."""
        return [each for each in self.waits if each.ended is None and kind in (None, each.wait.type)]

    def _close(self, expected: Expected, how: str) -> None:
        assert expected.ended is None
        expected.ended = how


Move: TypeAlias = Callable[["Play", int], Awaitable[None]]


class Play:
    """One run, one schedule. The store is seen through two views in turn, where it has two."""

    def __init__(self, harness: Harness, views: Sequence[Store]) -> None:
        self.oracle = Oracle()
        self._harness = harness
        self._views = views
        self._moves = 0
        self._run_id = ""
        self._worker = ""
        self._lease: Lease | None = None
        self._number = 0
        self._seen = 0

    async def begin(self) -> None:
        """A run in the hands of a worker."""
        run = await self._harness.submit(self.store)
        self._run_id = run.id
        self._worker = await self._harness.worker(self.store, lease_seconds=LONG)
        await self.claims(0)
        assert self._lease is not None

    async def move(self, byte: int) -> None:
        """Carry out what the byte names."""
        self._moves += 1
        await MOVES[byte % len(MOVES)](self, byte // len(MOVES))

    async def end(self) -> None:
        """Whoever waits gets it and goes on; every signal that nobody took must still come, in order; and the journal
        must tell what the oracle saw.
        """
        await self._lift_hold()
        if self._lease is None:
            open_still = bool(self.oracle.still_open())
            await self._close_all()
            assert not open_still or self.oracle.wake_at <= self._harness.clock.now()
            await self.claims(0)
        if self._lease is not None:
            await self._take_all()
        await self._check_journal()
        if self._lease is not None:
            await self._commit(outcome=HandedBack())
        await self.store.cancel(self._run_id, by="the end")
        await self.store.close_worker(self._worker)

    @property
    def store(self) -> Store:
        """The view whose turn it is."""
        return self._views[self._moves % len(self._views)]

    # ------------------------------------------------------------ the attempt

    async def opens(self, choice: int) -> None:
        """The attempt opens a wait."""
        if self._lease is None or len(self.oracle.still_open()) >= MOST_WAITS:
            return
        join = (None, "both")[choice & 1]
        if choice & 6 == 6:
            await self._open(self._harness.question(join=join))
        else:
            await self._open(self._harness.signal_wait(NAMES[choice >> 1 & 1], join=join))

    async def looks(self, _: int) -> None:
        """The attempt reads what was written."""
        if self._lease is not None:
            self._seen = (await self.store.get(self._run_id)).life.seq
            self.oracle.unread = False

    async def parks(self, choice: int) -> None:
        """The attempt gives back its lease, until something arrives or for a while."""
        if self._lease is None:
            return
        now = self._harness.clock.now()
        wake_at = now + 5 * SECOND if choice % 3 == 0 else NEVER
        await self._commit(outcome=Parked(wake_at, "[]", self._seen))
        self._lease = None
        self.oracle.running = False
        self.oracle.wake_at = now if self.oracle.unread else wake_at

    async def gives_up(self, choice: int) -> None:
        """The attempt gives up a wait, open or not."""
        if self._lease is None or not self.oracle.waits:
            return
        expected = self.oracle.waits[choice % len(self.oracle.waits)]
        await self._commit(expires=(expected.wait.id,))
        if expected.ended is None:
            expected.ended = "timed_out"

    async def _open(self, wait: Wait) -> None:
        await self._commit(opens=(wait,))
        self.oracle.open(wait)

    async def _commit(self, **what: object) -> None:
        """What the holder writes itself is nothing unread to it."""
        assert self._lease is not None
        self._number += 1
        before = (await self.store.get(self._run_id)).life.seq
        answer = await self.store.commit(self._lease, Commit(self._number, **what))  # type: ignore[arg-type]
        if before == self._seen:
            self._seen = answer.seq

    # ------------------------------------------------------------ the world

    async def claims(self, _: int) -> None:
        """A worker looks for the run: it gets it if, and only if, there is a reason."""
        now = self._harness.clock.now()
        due = not self.oracle.running and not self.oracle.held and self.oracle.wake_at <= now
        claims = await take(self.store, self._worker, only=(self._run_id,))
        assert [claim.run.id for claim in claims] == ([self._run_id] if due else [])
        for claim in claims:
            self._lease, self._number, self._seen = claim.lease, 0, claim.run.life.seq
            self.oracle.running, self.oracle.unread = True, False

    async def sends(self, choice: int) -> None:
        """Somebody sends a signal."""
        await self._signals(self._fresh(NAMES[choice % len(NAMES)]))

    async def sends_again(self, choice: int) -> None:
        """Somebody sends a signal that arrived already."""
        if self.oracle.sent:
            before = (await self.store.get(self._run_id)).life
            signal = self.oracle.sent[choice % len(self.oracle.sent)]
            assert await self.store.signal(self._run_id, signal) is False
            assert (await self.store.get(self._run_id)).life == before

    async def answers(self, choice: int) -> None:
        """Somebody answers a question, open or not."""
        questions = [each for each in self.oracle.waits if each.wait.type == "question"]
        if not questions:
            return
        expected = questions[choice % len(questions)]
        refusal = await self._answer(expected.wait.id)
        wanted = {None: None, "answered": AlreadyAnswered, "timed_out": Conflict}[expected.ended]
        assert refusal is wanted
        if wanted is None:
            self.oracle.end(expected, "answered", self._harness.clock.now())

    async def pauses_or_resumes(self, _: int) -> None:
        """Somebody sets the run aside while it waits, or lets it go on."""
        if self.oracle.held:
            await self._lift_hold()
        elif not self.oracle.running:
            await self.store.pause(self._run_id, by="ann")
            self.oracle.held = True

    async def time_passes(self, choice: int) -> None:
        """Time passes: a little, or long enough for a run that parked for a while."""
        self._harness.clock.advance((1, 5)[choice & 1])

    # ------------------------------------------------------------ inside

    def _fresh(self, name: str) -> Signal:
        return self._harness.signal(name)

    async def _signals(self, signal: Signal) -> None:
        assert await self.store.signal(self._run_id, signal) is True
        self.oracle.arrive(signal, self._harness.clock.now())

    async def _answer(self, question_id: str) -> type[Exception] | None:
        try:
            await self.store.answer(question_id, Payload("true"), by="ann")
        except Conflict as refused:
            return type(refused)
        return None

    async def _lift_hold(self) -> None:
        if self.oracle.held:
            seq = (await self.store.get(self._run_id)).life.seq
            await self.store.resume(self._run_id, at_seq=seq, by="ann")
            self.oracle.held = False

    async def _close_all(self) -> None:
        for expected in self.oracle.still_open("question"):
            assert await self._answer(expected.wait.id) is None
            self.oracle.end(expected, "answered", self._harness.clock.now())
        for expected in self.oracle.still_open("signal"):
            await self._signals(self._fresh(expected.wait.name))

    async def _take_all(self) -> None:
        """Take what was kept, and one more of each name that is not there yet."""
        for name in NAMES:
            for _ in range(len(self.oracle.kept[name]) + 1):
                await self._open(self._harness.signal_wait(name))

    async def _check_journal(self) -> None:
        entries = await self.store.journal(self._run_id, limit=100_000)
        assert [entry.seq for entry in entries] == list(range(1, len(entries) + 1))
        told = [(entry.kind, loads(entry.data)) for entry in entries]
        received = [str(data["signal"]) for kind, data in told if kind == "signal.received" and isinstance(data, dict)]
        closed = [data for kind, data in told if kind == "wait.closed" and isinstance(data, dict)]
        taken = [(data["wait"], data["signal"]) for data in closed if data["outcome"] == "received"]
        assert received == [signal.id for signal in self.oracle.sent]
        assert taken == self.oracle.taken
        kept = {signal_id for signals in self.oracle.kept.values() for signal_id in signals}
        assert {signal_id for _, signal_id in taken} | kept == set(received)
        ends = {str(data["wait"]): data["outcome"] for data in closed}
        assert len(ends) == len(closed)
        assert ends == {each.wait.id: each.ended for each in self.oracle.waits if each.ended is not None}


MOVES: Final[tuple[Move, ...]] = (
    Play.opens,
    Play.opens,
    Play.sends,
    Play.sends,
    Play.looks,
    Play.parks,
    Play.parks,
    Play.claims,
    Play.claims,
    Play.answers,
    Play.gives_up,
    Play.sends_again,
    Play.pauses_or_resumes,
    Play.time_passes,
)


async def play(harness: Harness, views: Sequence[Store], schedule: bytes) -> None:
    """Play a schedule on a run of its own. Raises `AssertionError` where the store and the oracle part."""
    performance = Play(harness, views)
    await performance.begin()
    for byte in schedule:
        await performance.move(byte)
    await performance.end()
