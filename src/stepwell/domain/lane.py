"""Lanes: who holds a ticket, who stands in line for one, and who is next.

A run needs a ticket of each lane that it must pass through, and takes one after the other, from the narrow lanes to the
wide ones (`LANE_ORDER`): where a lane is full it stands in line, keeps what it has, and cannot be claimed. Nobody waits
for a narrow lane while he holds a ticket of a wide one, so no two runs can wait for each other.

A session's lane has one ticket: its holder has its turn. The children of a run that are not detached live on its turn,
and theirs on it as well: the ticket is lent to them. It is free when nobody is left who lives on it, also when the run
that took it has ended before them or wants to give it up.

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
LEAVING: Final = 3
LENT: Final = 4
"""How a run may stand to a ticket: it does not ask for it now, it stands in line for it, it holds it, it holds it until
nobody lives on it any more, or it is a child that lives on the one of a run above it.
"""

FREE: Final = 0
BLOCKED: Final = 1
AWAY: Final = 2
"""What a run's tickets say to a claim (its gate): it has them all, it stands in line for one, or it has given some back
(or never asked for them) and must `enter` when it is due. A run without lanes is always free.
"""

MOST_PROMOTED: Final = 256
"""To how many runs one operation grants tickets of one lane. A lane that grows by more goes on filling with the next
operations that give back one of its tickets.
"""


class Place(NamedTuple):
    """Where a run stands among those in line; the least is first. `fresh` is 0 for a run that started before, `at` its
    place in the queue, `number` the order in which runs were submitted: no two have the same.
    """

    fresh: int
    at: int
    number: int


class Ticket(NamedTuple):
    """How a run stands to the ticket of one lane. `lane` is the number by which the store knows the lane, `kind` is one
    of `LANE_ORDER`.
    """

    lane: int
    kind: str
    state: int


class Entrant(NamedTuple):
    """A run with its tickets: from the narrow lanes to the wide ones, those of one kind by the lane's name."""

    gate: int
    place: Place
    tickets: Sequence[Ticket]


class Room(NamedTuple):
    """A lane's tickets. More may be taken than there are, after the lane shrank. `lent` counts the children that live
    on the one of a session.
    """

    capacity: int
    taken: int
    lent: int = 0


class Lines(Protocol):
    """The rows of lanes and tickets, as a store offers them within a transaction. Each call is one row operation; what
    was set is seen by the calls that follow.
    """

    def entrant(self, run: str) -> Entrant:
        """The run with its tickets; its place is `place_of` what is stored of the run."""
        ...

    def room(self, lane: int) -> Room: ...

    def set_room(self, lane: int, room: Room) -> None: ...

    def first(self, lane: int) -> str | None:
        """The run that stands in line for this lane with the least place: one look at an index."""
        ...

    def holder(self, lane: int) -> tuple[str, int] | None:
        """The run that holds the ticket of this session's lane, unless it has ended, and how (`GRANTED` or `LEAVING`):
        one look at an index.
        """
        ...

    def set_ticket(self, run: str, lane: int, state: int, place: Place | None = None) -> None:
        """Change a ticket; the place is given when the run comes to stand in line, and means nothing otherwise."""
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
    """Take the tickets that the run misses, as far as they are to be had, and stand in line for the next one.

    Returns whether it has them all now. For a run that is due and not held; one that stands in line already keeps its
    place.
    """
    entrant = lines.entrant(run)
    return _go_on(lines, run, entrant.place, entrant.tickets)


def turns(tickets: Sequence[Ticket]) -> list[int]:
    """The lanes of the sessions in which a run with these tickets has its turn, or lives on one: so do the children
    that it makes.
    """
    return [lane for lane, kind, state in tickets if kind == SESSION_LANE and state not in (IDLE, IN_LINE)]


def lend(lines: Lines, run: str, lane: int) -> None:
    """Have a new child, which has a ticket of the lane that it does not ask for, live on the turn of its parent."""
    room = lines.room(lane)
    lines.set_room(lane, room._replace(lent=room.lent + 1))
    lines.set_ticket(run, lane, LENT)


def place_again(lines: Lines, run: str) -> None:
    """The run is due at another moment than when it came to stand in line: it stands there with its new place."""
    _, place, tickets = lines.entrant(run)
    for lane, kind, state in tickets:
        if state == IN_LINE:
            lines.set_ticket(run, lane, IN_LINE, _place_in(kind, place))


def release(lines: Lines, run: str, *, keep_session: bool) -> None:
    """Give the tickets back and leave the lines, and let those who stand there move up.

    With `keep_session` the run keeps the ticket of its session's lane, or its place in that line: so does every run
    that waits, backs off, is handed back or held. Without, it keeps it as long as children live on it. A child never
    gives back what it lives on. Before the run can be claimed again it must `enter`.
    """
    freed = []
    for lane, kind, state in lines.entrant(run).tickets:
        if state in (IDLE, LEAVING, LENT) or (keep_session and kind == SESSION_LANE):
            continue
        if state == GRANTED and lines.room(lane).lent:
            lines.set_ticket(run, lane, LEAVING)
            continue
        if state == GRANTED:
            freed.append(lane)
        lines.set_ticket(run, lane, IDLE)
    lines.set_gate(run, AWAY)
    _move_up(lines, freed, given_back=1)


def leave(lines: Lines, run: str) -> None:
    """The run has ended: its tickets go, and those who stand in line move up. A ticket that others live on is free when
    the last of them has left.
    """
    tickets = lines.entrant(run).tickets
    lines.delete(run)
    freed = [ticket.lane for ticket in tickets if _is_given_back(lines, ticket)]
    _move_up(lines, freed, given_back=1)


def resize(lines: Lines, lane: int, capacity: int) -> None:
    """Give the lane another number of tickets. Where it grows, those in line move up; where it shrinks, whoever holds
    one keeps it.
    """
    room = lines.room(lane)
    if room.capacity != capacity:
        lines.set_room(lane, room._replace(capacity=capacity))
        _move_up(lines, [lane], given_back=0)


def _is_given_back(lines: Lines, ticket: Ticket) -> bool:
    """Whether the lane has a ticket more, now that a run has gone."""
    if ticket.state == LENT:
        return _return_lent(lines, ticket.lane)
    return ticket.state in (GRANTED, LEAVING) and not lines.room(ticket.lane).lent


def _return_lent(lines: Lines, lane: int) -> bool:
    """One lives no more on the turn. If it was the last, whoever holds the ticket and wants to give it up does."""
    room = lines.room(lane)
    lines.set_room(lane, room._replace(lent=room.lent - 1))
    if room.lent > 1:
        return False
    holder = lines.holder(lane)
    if holder is None:
        return True
    run, state = holder
    if state == LEAVING:
        lines.set_ticket(run, lane, IDLE)
    return state == LEAVING


def _move_up(lines: Lines, lanes: Sequence[int], *, given_back: int) -> None:
    """Grant what is free in each of these lanes, narrow to wide, to the next ones. What was given back in a lane is not
    told before its turn, so that it chooses among all who reach it, and a ticket that only changes hands leaves the
    lane's row as it is.
    """
    for lane in lanes:
        room = lines.room(lane)
        taken = room.taken - given_back
        for _ in range(min(room.capacity - taken, MOST_PROMOTED)):
            run = lines.first(lane)
            if run is None:
                break
            _promote(lines, run, lane)
            taken += 1
        if taken != room.taken:
            lines.set_room(lane, room._replace(taken=taken))


def _promote(lines: Lines, run: str, lane: int) -> None:
    """The first in line gets his ticket, and goes on to his wider lanes, unless he is set aside and only kept his
    place.
    """
    gate, place, tickets = lines.entrant(run)
    lines.set_ticket(run, lane, GRANTED)
    if gate == BLOCKED:
        at = [ticket.lane for ticket in tickets].index(lane)
        _go_on(lines, run, place, tickets[at + 1 :])


def _go_on(lines: Lines, run: str, place: Place, tickets: Sequence[Ticket]) -> bool:
    """Take one ticket after the other, up to the first that is not to be had."""
    for lane, kind, state in tickets:
        if state == LEAVING:
            lines.set_ticket(run, lane, GRANTED)
        if state in (GRANTED, LEAVING, LENT) or (state == IDLE and _take(lines, run, lane)):
            continue
        if state == IDLE:
            lines.set_ticket(run, lane, IN_LINE, _place_in(kind, place))
        lines.set_gate(run, BLOCKED)
        return False
    lines.set_gate(run, FREE)
    return True


def _take(lines: Lines, run: str, lane: int) -> bool:
    """Take a ticket of the lane, if one is left and nobody stands in line for it."""
    room = lines.room(lane)
    if room.taken >= room.capacity or lines.first(lane) is not None:
        return False
    lines.set_room(lane, room._replace(taken=room.taken + 1))
    lines.set_ticket(run, lane, GRANTED)
    return True


def _place_in(kind: str, place: Place) -> Place:
    """In a session it goes by the order of submission alone."""
    return Place(0, 0, place.number) if kind == SESSION_LANE else place
