"""Lanes and tickets in plain dictionaries, the simplest store there could be, and what is true of them at any time."""

from __future__ import annotations

from dataclasses import dataclass

from stepwell.domain.lane import AWAY, BLOCKED, FREE, GRANTED, IDLE, IN_LINE, Entrant, Place, Seats, Ticket, enter
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
        self.lanes: dict[int, Seats] = {number: Seats(capacity, 0) for number, (_, capacity) in enumerate(lanes)}
        self.runs: dict[str, Row] = {}
        self.lines: dict[int, dict[str, Place]] = {number: {} for number in self.lanes}
        self.freed: list[str] = []
        self.added = 0
        self.operations = 0

    def entrant(self, run: str) -> Entrant:
        self.operations += 1
        row = self.runs[run]
        return Entrant(
            row.gate, row.place, [Ticket(number, self.kinds[number], state) for number, state in row.states.items()]
        )

    def seats(self, lane: int) -> Seats:
        self.operations += 1
        return self.lanes[lane]

    def set_seats(self, lane: int, seats: Seats) -> None:
        self.operations += 1
        assert seats.taken >= 0
        assert seats.taken <= max(seats.capacity, self.lanes[lane].taken), "a seat that there is not was taken"
        self.lanes[lane] = seats

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

    def seated(self, lane: int) -> set[str]:
        return {run for run, row in self.runs.items() if row.states.get(lane) == GRANTED}

    def gates(self) -> dict[str, int]:
        return {run: row.gate for run, row in self.runs.items()}


def check(rows: Rows) -> None:
    """What is true after every operation."""
    for number, (capacity, taken) in rows.lanes.items():
        assert taken == len(rows.seated(number)), "a seat leaked"
        assert taken >= capacity or not rows.lines[number], "somebody stands in line for a seat that is left"
    for run, row in rows.runs.items():
        check_run(rows, run, row)


def check_run(rows: Rows, run: str, row: Row) -> None:
    """What its gate says of a run, is."""
    states = list(row.states.values())
    for number, state in row.states.items():
        assert (run in rows.lines[number]) == (state == IN_LINE)
    if row.gate == FREE:
        assert set(states) <= {GRANTED}
    elif row.gate == BLOCKED:
        stands = states.index(IN_LINE)
        assert set(states[:stands]) <= {GRANTED}
        assert set(states[stands + 1 :]) <= {IDLE}
    else:
        kept = {rows.kinds[number] for number, state in row.states.items() if state != IDLE}
        assert kept <= {SESSION_LANE}
    assert row.gate == FREE or not row.running
