"""Lanes and tickets in plain dictionaries, the simplest store there could be, and what is true of them at any time."""

from __future__ import annotations

from dataclasses import dataclass

from stepwell.domain.lane import (
    AWAY,
    BLOCKED,
    FREE,
    GRANTED,
    IDLE,
    IN_LINE,
    LEAVING,
    LENT,
    Entrant,
    Place,
    Room,
    Ticket,
    enter,
    lend,
    turns,
)
from stepwell.domain.submission import SESSION_LANE


@dataclass
class Row:
    """What a store keeps of a run that lanes limit."""

    place: Place
    states: dict[int, int]
    gate: int = AWAY
    held: bool = False
    running: bool = False
    started: bool = False


class Rows:
    """Lanes and tickets in plain dictionaries; counts the row operations. Lanes are numbered narrow to wide."""

    def __init__(self, *lanes: tuple[str, int]) -> None:
        self.kinds: dict[int, str] = {number: kind for number, (kind, _) in enumerate(lanes)}
        self.lanes: dict[int, Room] = {number: Room(capacity, 0) for number, (_, capacity) in enumerate(lanes)}
        self.runs: dict[str, Row] = {}
        self.lines: dict[int, dict[str, Place]] = {number: {} for number in self.lanes}
        self.freed: list[str] = []
        self.roots: dict[tuple[str, int], str] = {}
        self.added = 0
        self.operations = 0

    def entrant(self, run: str) -> Entrant:
        self.operations += 1
        row = self.runs[run]
        return Entrant(
            row.gate, row.place, [Ticket(number, self.kinds[number], state) for number, state in row.states.items()]
        )

    def room(self, lane: int) -> Room:
        self.operations += 1
        return self.lanes[lane]

    def set_room(self, lane: int, room: Room) -> None:
        self.operations += 1
        assert room.taken >= 0
        assert room.taken <= max(room.capacity, self.lanes[lane].taken), "a ticket that there is not was taken"
        self.lanes[lane] = room

    def holder(self, lane: int) -> tuple[str, int] | None:
        self.operations += 1
        held = {run: row.states.get(lane) for run, row in self.runs.items()}
        return next(((run, state) for run, state in held.items() if state in (GRANTED, LEAVING)), None)

    def first(self, lane: int) -> str | None:
        self.operations += 1
        return min(self.lines[lane], key=self.lines[lane].__getitem__, default=None)

    def set_ticket(self, run: str, lane: int, state: int, place: Place | None = None) -> None:
        self.operations += 1
        assert (state == IN_LINE) == (place is not None), "a place is for those who stand in line"
        self.lines[lane].pop(run, None)
        if place is not None:
            self.lines[lane][run] = place
        self.runs[run].states[lane] = state

    def set_gate(self, run: str, gate: int) -> None:
        self.operations += 1
        if gate == FREE:
            self.freed.append(run)
        self.runs[run].gate = gate

    def delete(self, run: str) -> None:
        self.operations += 1
        for line in self.lines.values():
            line.pop(run, None)
        del self.runs[run]

    def add(self, run: str, *lanes: int, at: int = 0, fresh: int = 1) -> None:
        """A run is submitted that needs these lanes."""
        self.added += 1
        self.runs[run] = Row(Place(fresh, at, self.added), dict.fromkeys(sorted(lanes), IDLE))

    def add_and_enter(self, run: str, *lanes: int, at: int = 0, fresh: int = 1) -> bool:
        self.add(run, *lanes, at=at, fresh=fresh)
        return enter(self, run)

    def add_child(self, run: str, parent: str, *lanes: int) -> bool:
        """A run is made by another, and lives on its turns."""
        lent = turns(self.entrant(parent).tickets)
        self.add(run, *{*lanes, *lent})
        for lane in lent:
            self.roots[run, lane] = self.root(parent, lane)
            lend(self, run, lane)
        return enter(self, run)

    def root(self, run: str, lane: int) -> str:
        """Whose turn a run lives on."""
        return self.roots.get((run, lane), run)

    def holders(self, lane: int) -> set[str]:
        return self.with_ticket(lane, GRANTED, LEAVING)

    def with_ticket(self, lane: int, *states: int) -> set[str]:
        return {run for run, row in self.runs.items() if row.states.get(lane) in states}

    def gates(self) -> dict[str, int]:
        return {run: row.gate for run, row in self.runs.items()}


def check(rows: Rows) -> None:
    """What is true after every operation."""
    for number, (capacity, taken, lent) in rows.lanes.items():
        assert lent == len(rows.with_ticket(number, LENT)), "a child was not counted"
        assert taken == (len(rows.holders(number)) or min(lent, 1)), "a ticket leaked"
        living = rows.with_ticket(number, GRANTED, LEAVING, LENT)
        assert not lent or len({rows.root(run, number) for run in living}) == 1, "two turns at once"
        assert taken >= capacity or not rows.lines[number], "somebody stands in line for a ticket that is left"
        assert lent or not rows.with_ticket(number, LEAVING), "somebody keeps a ticket for nobody"
    for run, row in rows.runs.items():
        check_run(rows, run, row)


def check_run(rows: Rows, run: str, row: Row) -> None:
    """What its gate says of a run, is."""
    states = list(row.states.values())
    for number, state in row.states.items():
        assert (run in rows.lines[number]) == (state == IN_LINE)
    if row.gate == FREE:
        assert set(states) <= {GRANTED, LENT}
    elif row.gate == BLOCKED:
        stands = states.index(IN_LINE)
        assert set(states[:stands]) <= {GRANTED, LENT}
        assert set(states[stands + 1 :]) <= {IDLE}
    else:
        kept = {rows.kinds[number] for number, state in row.states.items() if state != IDLE}
        assert kept <= {SESSION_LANE}
    assert row.gate == FREE or not row.running
