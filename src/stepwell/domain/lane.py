"""Lanes: who holds a seat, who stands in line for one, and who is next.

A run has one ticket for each lane that it must pass through, and takes its seats one after the other, from the narrow
lanes to the wide ones (`LANE_ORDER`): where a lane is full it stands in line, keeps what it has, and cannot be claimed.
Nobody waits for a narrow lane while he sits in a wide one, so no two runs can wait for each other.

Stores call these rules inside the transaction that holds the rows, and show them the rows as `Lines`. Nothing here
decides which lanes a run needs, reads a clock, or knows a run without tickets. However many stand in line, an
operation touches a bounded number of rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol

from stepwell.domain.run import Lifecycle, place_in_queue
from stepwell.domain.submission import SESSION_LANE

IDLE: Final = 0
IN_LINE: Final = 1
GRANTED: Final = 2
"""What a ticket may be: unused, waiting for a seat of its lane, or worth a seat."""

FREE: Final = 0
BLOCKED: Final = 1
AWAY: Final = 2
"""What a run's tickets say to a claim (its gate): it has all its seats, it stands in line for one, or it has given
seats back (or never asked for them) and must `enter` when it is due. A run without tickets is always free.
"""

MOST_PROMOTED: Final = 256
"""How many runs one operation seats in one lane. A lane that grows by more goes on filling with the next operations
that give back one of its seats.
"""


class Place(NamedTuple):
    """Where a run stands among those in line; the least is first. `fresh` is 0 for a run that started before, `at` its
    place in the queue, `number` the order in which runs were submitted: no two have the same.
    """

    fresh: int
    at: int
    number: int


class Ticket(NamedTuple):
    """A run's ticket of one lane. `lane` is the number by which the store knows the lane, `kind` is one of
    `LANE_ORDER`.
    """

    lane: int
    kind: str
    state: int


class Entrant(NamedTuple):
    """A run with its tickets: from the narrow lanes to the wide ones, those of one kind by the lane's name."""

    gate: int
    place: Place
    tickets: Sequence[Ticket]


class Seats(NamedTuple):
    """A lane's seats. More may be taken than there are, after the lane shrank."""

    capacity: int
    taken: int


class Lines(Protocol):
    """The rows of lanes and tickets, as a store offers them within a transaction. Each call is one row operation; what
    was set is seen by the calls that follow.
    """

    def entrant(self, run: str) -> Entrant:
        """The run with its tickets; its place is `place_of` what is stored of the run."""
        ...

    def seats(self, lane: int) -> Seats: ...

    def set_seats(self, lane: int, seats: Seats) -> None: ...

    def first(self, lane: int) -> str | None:
        """The run whose ticket of this lane is in line with the least place: one look at an index."""
        ...

    def set_ticket(self, run: str, lane: int, state: int, place: Place | None = None) -> None:
        """Change a ticket; the place is given when the ticket comes to stand in line, and means nothing otherwise."""
        ...

    def set_gate(self, run: str, gate: int) -> None:
        """Keep what the tickets say to a claim. Whoever waits for runs to claim wants to hear of each that is set
        free.
        """
        ...

    def delete(self, run: str) -> None:
        """Forget the run's tickets."""
        ...


def place_of(life: Lifecycle, priority: int, number: int) -> Place:
    """The place of a run in the lines of all lanes but a session's: runs that started before go ahead, then it goes by
    the place in the queue, whose boost for priority is bounded, and then by the order of submission.
    """
    return Place(0 if life.attempt else 1, place_in_queue(life.available_at, priority), number)


def enter(lines: Lines, run: str) -> bool:
    """Take the seats that the run misses, as far as they are to be had, and stand in line for the next one.

    Returns whether it has them all now. For a run that is due and not held; one that stands in line already keeps its
    place.
    """
    entrant = lines.entrant(run)
    return _go_on(lines, run, entrant.place, entrant.tickets)


def release(lines: Lines, run: str, *, keep_session: bool) -> None:
    """Give the seats back and leave the lines, and let those who stand there move up.

    With `keep_session` the run keeps its seat in the session's lane, or its place in that line: so does every run that
    waits, backs off, is handed back or held. Before it can be claimed again it must `enter`.
    """
    freed = []
    for lane, kind, state in lines.entrant(run).tickets:
        if state == IDLE or (keep_session and kind == SESSION_LANE):
            continue
        if state == GRANTED:
            freed.append(lane)
        lines.set_ticket(run, lane, IDLE)
    lines.set_gate(run, AWAY)
    _move_up(lines, freed, given_back=1)


def leave(lines: Lines, run: str) -> None:
    """The run has ended: its tickets go, and those who stand in line move up."""
    freed = [ticket.lane for ticket in lines.entrant(run).tickets if ticket.state == GRANTED]
    lines.delete(run)
    _move_up(lines, freed, given_back=1)


def resize(lines: Lines, lane: int, capacity: int) -> None:
    """Give the lane another number of seats. Where it grows, those in line move up; where it shrinks, whoever sits
    there stays.
    """
    seats = lines.seats(lane)
    if seats.capacity != capacity:
        lines.set_seats(lane, Seats(capacity, seats.taken))
        _move_up(lines, [lane], given_back=0)


def _move_up(lines: Lines, lanes: Sequence[int], *, given_back: int) -> None:
    """Seat the next ones in each of these lanes, narrow to wide. What was given back in a lane is not told before its
    turn, so that it chooses among all who reach it, and a seat that only changes hands leaves the lane's row as it is.
    """
    for lane in lanes:
        capacity, before = lines.seats(lane)
        taken = before - given_back
        for _ in range(min(capacity - taken, MOST_PROMOTED)):
            run = lines.first(lane)
            if run is None:
                break
            _promote(lines, run, lane)
            taken += 1
        if taken != before:
            lines.set_seats(lane, Seats(capacity, taken))


def _promote(lines: Lines, run: str, lane: int) -> None:
    """The first in line gets his seat, and goes on to his wider lanes, unless he is set aside and only kept his
    place.
    """
    gate, place, tickets = lines.entrant(run)
    lines.set_ticket(run, lane, GRANTED)
    if gate == BLOCKED:
        at = [ticket.lane for ticket in tickets].index(lane)
        _go_on(lines, run, place, tickets[at + 1 :])


def _go_on(lines: Lines, run: str, place: Place, tickets: Sequence[Ticket]) -> bool:
    """Take one seat after the other, up to the first that is not to be had."""
    for lane, kind, state in tickets:
        if state == GRANTED or (state == IDLE and _take(lines, run, lane)):
            continue
        if state == IDLE:
            lines.set_ticket(run, lane, IN_LINE, _place_in(kind, place))
        lines.set_gate(run, BLOCKED)
        return False
    lines.set_gate(run, FREE)
    return True


def _take(lines: Lines, run: str, lane: int) -> bool:
    """Take a seat of the lane, if one is left and nobody stands in line for it."""
    capacity, taken = lines.seats(lane)
    if taken >= capacity or lines.first(lane) is not None:
        return False
    lines.set_seats(lane, Seats(capacity, taken + 1))
    lines.set_ticket(run, lane, GRANTED)
    return True


def _place_in(kind: str, place: Place) -> Place:
    """In a session it goes by the order of submission alone."""
    return Place(0, 0, place.number) if kind == SESSION_LANE else place
