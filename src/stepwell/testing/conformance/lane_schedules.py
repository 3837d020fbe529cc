"""Injected schedules for lanes: many runs and their children that share a few lanes, moved on in every order, and what
must always hold.

The oracle knows nothing of tickets. It counts who is running: never more in a lane than it has room for, of a
synchronized session one turn after the other in the order of submission, with all that live on it, and nobody is left
out while all of his lanes have room. In the end everybody can be served, and no ticket is taken.

A schedule is a text of bytes, as in `schedules`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeAlias

from stepwell.domain.commit import Commit
from stepwell.domain.outcome import NEVER, HandedBack, Outcome, Parked, Payload, Succeeded
from stepwell.domain.run import RUNNING, WAITING, Lease, RunRecord
from stepwell.domain.submission import AGENT_LANE, GLOBAL_LANE, KEY_LANE, SESSION_LANE, Lane
from stepwell.ports.store import Store
from stepwell.testing.conformance.harness import AGENT, SECOND, Harness, take
from stepwell.testing.conformance.schedules import LONG

Name: TypeAlias = tuple[str, str]
Move: TypeAlias = Callable[["LanePlay", int], Awaitable[None]]

_NARROW: Final[tuple[tuple[Name, ...], ...]] = (
    ((KEY_LANE, "eu"),),
    ((KEY_LANE, "us"),),
    ((SESSION_LANE, "ses_a"),),
    ((SESSION_LANE, "ses_b"),),
    ((SESSION_LANE, "ses_a"), (KEY_LANE, "eu")),
    (),
)
_WIDE: Final[tuple[tuple[Name, ...], ...]] = ((), ((AGENT_LANE, AGENT),), ((AGENT_LANE, AGENT), (GLOBAL_LANE, "all")))
_ENOUGH: Final = 12


class LanePlay:
    """Some runs, one schedule."""

    def __init__(self, harness: Harness, views: Sequence[Store], tenant: str) -> None:
        self._harness = harness
        self._views = views
        self._tenant = tenant
        self._moves = 0
        self._worker = ""
        self._lanes: dict[str, tuple[Name, ...]] = {}
        self._delayed: set[str] = set()
        self._gave_up: set[str] = set()
        self._turns: dict[str, dict[Name, str]] = {}
        self._commits: Counter[str] = Counter()
        self._room: dict[Name, int] = {}
        self._leases: dict[str, Lease] = {}
        self._records: dict[str, RunRecord] = {}
        self._taken: dict[Name, int] = {}

    async def begin(self) -> None:
        """A worker, and nothing to do."""
        self._worker = await self._harness.worker(self.store, lease_seconds=LONG)

    async def move(self, byte: int) -> None:
        """Carry out what the byte names, and look."""
        self._moves += 1
        await LANE_MOVES[byte % len(LANE_MOVES)](self, byte // len(LANE_MOVES))
        await self._look()

    async def end(self) -> None:
        """Serve everybody, until no ticket is taken."""
        rounds = 3 * len(self._records) + 3
        while self._live() and (rounds := rounds - 1):
            await self._free_all()
            self._harness.clock.advance(20)
            await self.claims(99)
            for lease in list(self._leases.values()):
                await self._stop(lease, Succeeded(Payload("1")))
            await self._look()
        assert self._live() == []
        assert await self.store.lanes(tenant=self._tenant) == []
        await self.store.close_worker(self._worker)

    @property
    def store(self) -> Store:
        """The view whose turn it is."""
        return self._views[self._moves % len(self._views)]

    # ------------------------------------------------------------ moves

    async def submits(self, choice: int) -> None:
        """Somebody submits a run, to be limited or not, at once or later."""
        if len(self._records) >= _ENOUGH:
            return
        names = _NARROW[choice % len(_NARROW)] + _WIDE[choice // 7 % len(_WIDE)]
        delay = 5 if choice % 5 == 4 else 0
        lanes = self._sized(names, choice)
        hooked = choice // 3 % 2
        run = await self._harness.submit(self.store, tenant=self._tenant, delay=delay, hooked=hooked, lanes=lanes)
        self._note(run, names, {})
        if delay:
            self._delayed.add(run.id)

    async def makes_a_child(self, choice: int) -> None:
        """A run makes a child, which mostly lives on its turns."""
        if not self._leases or len(self._records) >= _ENOUGH:
            return
        lease = list(self._leases.values())[choice % len(self._leases)]
        detached = int(choice % 4 == 3)
        turns = {} if detached else self._turns[lease.run_id]
        names = _NARROW[choice // 3 % len(_NARROW)] + _WIDE[choice // 7 % len(_WIDE)]
        if turns:  # none that is waited for while another is held
            names = tuple(name for name in names if name[0] != SESSION_LANE or name in turns)
        number = self._commits[lease.run_id] + 1
        child = self._harness.child_of(
            self._records[lease.run_id],
            1000 * lease.fence + number,
            detached=detached,
            hooked=choice // 5 % 2,
            lanes=self._sized(names, choice),
        )
        self._commits[lease.run_id] = number
        await self.store.commit(lease, Commit(number, submits=(child,)))
        made = await self.store.get(child.id, tenant=self._tenant)
        self._note(made, tuple(name for name in names if name not in turns), turns)

    def _note(self, run: RunRecord, names: tuple[Name, ...], turns: dict[Name, str]) -> None:
        """A run is there, with lanes of its own and turns that it lives on."""
        self._records[run.id] = run
        self._lanes[run.id] = names
        self._turns[run.id] = turns | {name: run.id for name in names if name[0] == SESSION_LANE}

    def _sized(self, names: tuple[Name, ...], choice: int) -> tuple[Lane, ...]:
        lanes = tuple(Lane(*name, self._capacity(name, choice)) for name in names)
        self._room |= {(lane.kind, lane.name): lane.capacity for lane in lanes}
        return lanes

    def _capacity(self, name: Name, choice: int) -> int:
        """The room that the newest submission gives a lane: now more, now less."""
        return 1 if name[0] == SESSION_LANE else 1 + (choice ^ self._moves) % 3

    async def claims(self, choice: int) -> None:
        """The worker takes runs: some, or all that it can get; then who is left out has a reason."""
        if not choice % 2:
            await self._claim(1)
            return
        await self._claim(100)
        while await self._claim(100):  # what ended by the one before may have let in others
            pass
        await self._look()
        await self._check_left_out()

    async def _claim(self, limit: int) -> int:
        claims = await take(self.store, self._worker, limit=limit, only=list(self._records))
        for claim in claims:
            self._leases[claim.run.id] = claim.lease
            self._commits[claim.run.id] = 0
            self._gave_up.discard(claim.run.id)
            await self._check_order(claim.run)
        return len(claims)

    async def finishes(self, choice: int) -> None:
        """A run returns."""
        await self._stop_one(choice, Succeeded(Payload("1")))

    async def stops(self, choice: int) -> None:
        """A run gives back its lease: it waits for an arrival or for a while, or is handed back."""
        now = self._harness.clock.now()
        later = now + 3 * SECOND
        gives_up = Parked(later, "[]", release=True), Parked(NEVER, "[]", release=True)
        outcomes = Parked(NEVER, "[]"), Parked(later, "[]"), HandedBack(), *gives_up
        await self._stop_one(choice, outcomes[choice % len(outcomes)])

    async def arrives(self, choice: int) -> None:
        """What a run waits for is there."""
        waiting = [run for run in self._live() if run.life.status == "waiting"]
        if waiting:
            run = waiting[choice % len(waiting)]
            await self.store.signal(run.id, self._harness.signal("go"), tenant=self._tenant)

    async def is_cancelled(self, choice: int) -> None:
        """Somebody cancels a run."""
        if live := self._live():
            await self.store.cancel(live[choice % len(live)].id, by="ann", tenant=self._tenant)

    async def is_paused_or_resumed(self, choice: int) -> None:
        """Somebody sets a run aside, or lets it go on."""
        if live := self._live():
            run = live[choice % len(live)]
            if run.life.hold is None:
                await self.store.pause(run.id, by="ann", tenant=self._tenant)
            else:
                await self.store.resume(run.id, at_seq=run.life.seq, by="ann")

    async def worker_is_lost(self, _: int) -> None:
        """The worker goes away, and another comes."""
        await self.store.close_worker(self._worker)
        self._leases.clear()
        self._worker = await self._harness.worker(self.store, lease_seconds=LONG)

    async def time_passes(self, choice: int) -> None:
        """Time passes."""
        self._harness.clock.advance((1, 5)[choice & 1])

    async def _stop_one(self, choice: int, outcome: Outcome) -> None:
        leases = list(self._leases.values())
        if leases:
            await self._stop(leases[choice % len(leases)], outcome)

    async def _stop(self, lease: Lease, outcome: Outcome) -> None:
        del self._leases[lease.run_id]
        opens = (self._harness.signal_wait("go"),) if isinstance(outcome, Parked) else ()
        number = self._commits[lease.run_id] + 1
        await self.store.commit(lease, Commit(number, outcome=outcome, opens=opens))
        parked = (await self.store.get(lease.run_id, tenant=self._tenant)).life.status == WAITING
        if parked and isinstance(outcome, Parked) and outcome.release:
            self._gave_up.add(lease.run_id)

    async def _free_all(self) -> None:
        """Resume what is held, and give what is waited for."""
        for each in self._live():
            run = await self.store.get(each.id, tenant=self._tenant)  # its parent may have been resumed with it
            if run.life.hold is not None:
                await self.store.resume(run.id, at_seq=run.life.seq, by="ann")
            if run.life.status == "waiting":
                await self.store.signal(run.id, self._harness.signal("go"), tenant=self._tenant)

    # ------------------------------------------------------------ what must hold

    async def _look(self) -> None:
        """Whoever runs has a ticket in each of his lanes; more are taken than there are only where a lane shrank."""
        for run in self._live():
            self._records[run.id] = await self.store.get(run.id, tenant=self._tenant)
        running = Counter(name for run in self._live() if run.life.status == RUNNING for name in self._lanes[run.id])
        infos = {(lane.kind, lane.name): lane for lane in await self.store.lanes(tenant=self._tenant)}
        taken = {name: lane.taken for name, lane in infos.items()}
        for name, lane in infos.items():
            assert lane.capacity == self._room[name]
            assert running[name] <= lane.taken <= max(lane.capacity, self._taken.get(name, 0))
        assert running.keys() <= infos.keys()
        self._taken = taken
        self._check_sessions()

    def _check_sessions(self) -> None:
        """Of a session one turn has begun and is not over, at most, but for those that were given up; a turn is over
        when nobody is left who lives on it. Its ticket is taken that long, and no longer.
        """
        begun: dict[Name, str] = {}
        for run in self._live():
            for name, turn in self._turns[run.id].items():
                if turn != run.id or (run.life.attempt and run.id not in self._gave_up):
                    assert begun.setdefault(name, turn) == turn
        assert all(self._taken.get(name) for name in begun)
        turns = [(run, name) for run in self._live() for name in self._turns[run.id]]
        lived_on = {name for run, name in turns if self._may_have(run, name) or not run.life.attempt}
        assert {name for name, taken in self._taken.items() if taken and name[0] == SESSION_LANE} <= lived_on

    async def _check_order(self, run: RunRecord) -> None:
        """Nobody of his session who came before him, and was not put off, has yet to begin."""
        if run.life.fence > 1 or run.id in self._delayed:
            return
        sessions = {name for name in self._lanes[run.id] if name[0] == SESSION_LANE}
        for earlier_id in self._records:
            if earlier_id == run.id:
                return
            if sessions & set(self._lanes[earlier_id]) and earlier_id not in self._delayed:
                life = (await self.store.get(earlier_id, tenant=self._tenant)).life
                assert life.ended or life.attempt

    async def _check_left_out(self) -> None:
        """Whoever is due and was not taken misses a ticket of a full lane, or of a session that is not free."""
        now = self._harness.clock.now()
        for run in self._live():
            if run.life.status != RUNNING and run.life.hold is None and run.life.available_at <= now:
                assert any(self._is_full(name) and self._is_kept_from(run, name) for name in self._lanes[run.id])

    def _is_full(self, name: Name) -> bool:
        return self._taken.get(name, 0) >= self._room[name]

    def _is_kept_from(self, run: RunRecord, name: Name) -> bool:
        """Whether somebody else may have the turn of the session, if it is one."""
        others = [other for other in self._live() if other.id != run.id and name in self._turns[other.id]]
        return name[0] != SESSION_LANE or any(self._may_have(other, name) for other in others)

    def _may_have(self, run: RunRecord, name: Name) -> bool:
        """Whether the run lives on the turn of another, has begun one that it did not give up, or got one and is kept
        from its beginning.
        """
        if self._turns[run.id][name] != run.id:
            return True
        if run.life.attempt:
            return run.id not in self._gave_up or run.life.available_at <= self._harness.clock.now()
        return run.life.hold is not None or any(self._is_full(other) for other in self._lanes[run.id] if other != name)

    def _live(self) -> list[RunRecord]:
        return [run for run in self._records.values() if not run.life.ended]


LANE_MOVES: Final[tuple[Move, ...]] = (
    LanePlay.submits,
    LanePlay.submits,
    LanePlay.submits,
    LanePlay.makes_a_child,
    LanePlay.makes_a_child,
    LanePlay.claims,
    LanePlay.claims,
    LanePlay.claims,
    LanePlay.finishes,
    LanePlay.finishes,
    LanePlay.stops,
    LanePlay.stops,
    LanePlay.arrives,
    LanePlay.is_cancelled,
    LanePlay.is_paused_or_resumed,
    LanePlay.worker_is_lost,
    LanePlay.time_passes,
)


async def play_lanes(harness: Harness, views: Sequence[Store], tenant: str, schedule: bytes) -> None:
    """Play a schedule on lanes of its own. Raises `AssertionError` where something does not hold."""
    performance = LanePlay(harness, views, tenant)
    await performance.begin()
    for byte in schedule:
        await performance.move(byte)
    await performance.end()
