"""Lanes and tickets as dicts, for the rules of `domain.lane`: who holds a ticket, and who stands in line for one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count

from stepwell.domain import lane as rules
from stepwell.domain.lane import AWAY, GRANTED, IDLE, IN_LINE, LEAVING, Entrant, Place, Room, Ticket
from stepwell.domain.run import RunRecord
from stepwell.domain.submission import LANE_ORDER, SESSION_LANE, Lane
from stepwell.ports.store import Blockage, LaneInfo
from stepwell.stores.memory.runs import Row, Runs


@dataclass(slots=True)
class _Lane:
    """One lane. `tickets` counts the runs that must pass through it, `holders` are those that hold one of its own,
    `line` may hold places that were left.
    """

    tenant: str
    kind: str
    name: str
    room: Room
    tickets: int = 0
    holders: dict[str, int] = field(default_factory=dict)
    line: list[tuple[Place, str]] = field(default_factory=list)


class Lanes:
    """All lanes that a run has a ticket of. Satisfies `domain.lane.Lines`."""

    def __init__(self, runs: Runs) -> None:
        self._runs = runs
        self._lanes: dict[int, _Lane] = {}
        self._numbers: dict[tuple[str, str, str], int] = {}
        self._tickets: dict[str, dict[int, int]] = {}
        self._places: dict[tuple[str, int], Place] = {}
        self._count = count(1)

    # ------------------------------------------------------------ for the store

    def concern(self, run_id: str) -> bool:
        """Whether the run has tickets."""
        return run_id in self._tickets

    def issue(self, row: Row, lanes: Sequence[Lane], parent: str | None = None) -> None:
        """Tickets for a new run, which is lent those of its parent's turns. Each lane takes the capacity that comes
        with it.
        """
        tenant, run_id = row.run.tenant, row.run.id
        numbers = {self._number(tenant, lane): lane.capacity for lane in lanes}
        lent = self.turns(parent) if parent is not None else []
        self._tickets[run_id] = dict.fromkeys(sorted({*numbers, *lent}, key=self._width), IDLE)
        self._runs.set_gate(row, AWAY)
        for number in self._tickets[run_id]:
            self._lanes[number].tickets += 1
        for number in lent:
            rules.lend(self, run_id, number)
        # those that shrink first: who moves up where one grows must not find the old room in the others
        for number, capacity in sorted(numbers.items(), key=lambda item: item[1] > self.room(item[0]).capacity):
            rules.resize(self, number, capacity)

    def turns(self, run_id: str) -> list[int]:
        """The lanes of the sessions in which the run has its turn, or lives on one."""
        return rules.turns(self._tickets_of(run_id)) if self.concern(run_id) else []

    def enter(self, run_id: str) -> None:
        """Have a run take the tickets that it needs, as far as they are to be had."""
        if self.concern(run_id):
            rules.enter(self, run_id)

    def place_again(self, run_id: str) -> None:
        """Have a run that is due at another moment now stand with the place of that moment, where it stands in line."""
        if self.concern(run_id):
            rules.place_again(self, run_id)

    def step_aside(self, run_id: str, *, keep_session: bool) -> None:
        """Have a run give back its tickets for now: all, or all but its place in the session's lane."""
        if self.concern(run_id):
            rules.release(self, run_id, keep_session=keep_session)

    def leave(self, run_id: str) -> None:
        """Have a run give back its tickets for good."""
        if self.concern(run_id):
            numbers = list(self._tickets[run_id])
            rules.leave(self, run_id)
            for number in numbers:
                self._forget_unused(number)

    def _forget_unused(self, number: int) -> None:
        lane = self._lanes[number]
        lane.tickets -= 1
        if not lane.tickets:
            del self._lanes[number]
            del self._numbers[lane.tenant, lane.kind, lane.name]

    def session_of(self, tenant: str, lanes: Sequence[Lane]) -> int | None:
        """The number of the session's lane among these, if somebody has a ticket of it."""
        return next((self._numbers.get((tenant, *lane[:2])) for lane in lanes if lane.kind == SESSION_LANE), None)

    def is_free(self, number: int) -> bool:
        """Whether a run that comes now would get a ticket."""
        room = self.room(number)
        return room.taken < room.capacity and self.first(number) is None

    def holders(self, number: int) -> list[str]:
        """The runs that hold a ticket of the lane."""
        return list(self._lanes[number].holders)

    def in_line(self, number: int) -> list[str]:
        """The runs that stand in line for the lane, those that go first at the front."""
        waiting = (run for run, tickets in self._tickets.items() if tickets.get(number) == IN_LINE)
        return sorted(waiting, key=lambda run: self._places[run, number])

    def infos(self, tenant: str, awaited_by: str | None) -> list[LaneInfo]:
        """The lanes in which a ticket is taken or awaited; where a run is given, the one in which it stands in line."""
        numbers = [number for number, lane in self._lanes.items() if lane.tenant == tenant]
        if awaited_by is not None:
            return [self._info(number) for number in numbers if awaited_by in self.in_line(number)]
        infos = map(self._info, numbers)
        return sorted(info for info in infos if info.taken or info.waiting)

    def blockages(self, runs: Iterable[RunRecord]) -> list[Blockage]:
        """The lanes with somebody in line of which these runs keep tickets, by kind and name."""
        kept = Counter(
            (number, run.agent)
            for run in runs
            for number, state in self._tickets.get(run.id, {}).items()
            if state not in (IDLE, IN_LINE) and self.in_line(number)
        )
        return sorted(Blockage(self._info(number), agent, count) for (number, agent), count in kept.items())

    def _info(self, number: int) -> LaneInfo:
        lane = self._lanes[number]
        waiting = len(self.in_line(number))
        return LaneInfo(lane.tenant, lane.kind, lane.name, lane.room.capacity, lane.room.taken, waiting)

    # ------------------------------------------------------------ for the rules

    def entrant(self, run: str) -> Entrant:
        row = self._runs.rows[run]
        return Entrant(row.gate, place_of(row), self._tickets_of(run))

    def _tickets_of(self, run: str) -> list[Ticket]:
        return [Ticket(number, self._lanes[number].kind, state) for number, state in self._tickets[run].items()]

    def room(self, lane: int) -> Room:
        return self._lanes[lane].room

    def set_room(self, lane: int, room: Room) -> None:
        self._lanes[lane].room = room

    def first(self, lane: int) -> str | None:
        line = self._lanes[lane].line
        while line:
            place, run = line[0]
            if self._places.get((run, lane)) == place:
                return run
            heappop(line)
        return None

    def holder(self, lane: int) -> tuple[str, int] | None:
        return next(iter(self._lanes[lane].holders.items()), None)

    def set_ticket(self, run: str, lane: int, state: int, place: Place | None = None) -> None:
        self._tickets[run][lane] = state
        self._places.pop((run, lane), None)
        if state in (GRANTED, LEAVING):
            self._lanes[lane].holders[run] = state
        else:
            self._lanes[lane].holders.pop(run, None)
        if place is not None:
            self._places[run, lane] = place
            heappush(self._lanes[lane].line, (place, run))

    def set_gate(self, run: str, gate: int) -> None:
        self._runs.set_gate(self._runs.rows[run], gate)

    def delete(self, run: str) -> None:
        for number in self._tickets.pop(run):
            self._places.pop((run, number), None)
            self._lanes[number].holders.pop(run, None)

    def _width(self, number: int) -> tuple[int, str]:
        lane = self._lanes[number]
        return LANE_ORDER.index(lane.kind), lane.name

    def _number(self, tenant: str, lane: Lane) -> int:
        key = tenant, lane.kind, lane.name
        if key not in self._numbers:
            self._numbers[key] = number = next(self._count)
            self._lanes[number] = _Lane(*key, Room(lane.capacity, 0))
        return self._numbers[key]


def place_of(row: Row) -> Place:
    """Where the run stands among those in line."""
    return rules.place_of(row.run.life, row.run.priority, row.number)


def entering(runs: Runs, now: int) -> Iterator[Row]:
    """The runs that must `enter`, since their time has come: those first that go first."""
    yield from sorted(runs.away_and_due(now), key=place_of)
