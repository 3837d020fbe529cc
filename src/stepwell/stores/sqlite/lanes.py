"""Lanes and tickets in a batch, as `domain.lane` wants to see them. Used by the writer thread only.

What a batch is known to need is read with one statement for all of it; the line of a lane is read from its front, a few
runs at a time, when somebody leaves a lane that others stand in line for.
"""

from __future__ import annotations

import json
from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, TypeAlias

from stepwell.domain import lane as rules
from stepwell.domain.lane import AWAY, BLOCKED, IDLE, IN_LINE, LENT, Entrant, Place, Room, Ticket
from stepwell.domain.run import RUNNING, WAITING, Lifecycle
from stepwell.domain.submission import LANE_ORDER, Lane, Submission
from stepwell.stores.sqlite.batch import Batch, Part
from stepwell.stores.sqlite.rows import HAS_LANES, Row, whole_row
from stepwell.stores.sqlite.statements import inserting, sql, updating

Key: TypeAlias = tuple[str, str, str]
"""Tenant, kind and name of a lane."""

_LANE: Final = (
    "json_array(lane.n, lane.tenant, lane.kind, lane.name, lane.capacity, lane.taken, lane.lent,"
    " EXISTS (SELECT 1 FROM ticket AS t INDEXED BY ticket_line WHERE t.lane = lane.n AND t.state = 1))"
)
_LANES: Final = (
    "SELECT json_group_array({lane}) FROM lane WHERE (tenant, kind, name) IN"
    " (SELECT asked.value ->> 0, asked.value ->> 1, asked.value ->> 2 FROM json_each(?) AS asked)"
).replace("{lane}", _LANE)
_TICKETS: Final = (
    "SELECT json_group_array(json_array(run.id, {lane}, ticket.state, ticket.fresh, ticket.at, ticket.number))"
    " FROM json_each(?) AS asked CROSS JOIN run ON run.id = asked.value"
    " CROSS JOIN ticket ON ticket.run = run.n CROSS JOIN lane ON lane.n = ticket.lane"
).replace("{lane}", _LANE)
_LINE: Final = sql(
    "SELECT json_group_array(json_array(place_fresh, place_at, place_number, {run})) FROM ("
    " SELECT run.*, ticket.fresh AS place_fresh, ticket.at AS place_at, ticket.number AS place_number"
    " FROM ticket INDEXED BY ticket_line CROSS JOIN run ON run.n = ticket.run"
    " WHERE ticket.lane = ? AND ticket.state = 1 ORDER BY ticket.fresh, ticket.at, ticket.number LIMIT ?)"
)
_HOLDERS: Final = sql(
    "SELECT json_group_array(json_array(stands, {run})) FROM ("
    " SELECT run.*, ticket.state AS stands FROM ticket INDEXED BY ticket_held CROSS JOIN run ON run.n = ticket.run"
    " WHERE ticket.lane = ? AND ticket.state IN (2, 3))"
)
_INSIDE: Final = sql(
    "SELECT json_group_array(json_array({run})) FROM run WHERE n IN ("
    " SELECT run FROM ticket INDEXED BY ticket_held WHERE lane = ?1 AND state IN (2, 3)"
    " UNION ALL SELECT run FROM ticket INDEXED BY ticket_line WHERE lane = ?1 AND state = 1)"
)
_LAST_LANE: Final = "SELECT coalesce(max(n), 0) FROM lane"
_INSERT_LANES: Final = inserting("lane", ("n", "tenant", "kind", "name", "capacity", "taken", "lent"))
_UPDATE_LANES: Final = updating("lane", ("n",), ("capacity", "taken", "lent"))
_PUT_TICKETS: Final = inserting(
    "ticket",
    ("run", "lane", "state", "fresh", "at", "number"),
    "ON CONFLICT (run, lane) DO UPDATE SET state = excluded.state, fresh = excluded.fresh, at = excluded.at,"
    " number = excluded.number",
)
_DELETE_TICKETS: Final = "DELETE FROM ticket WHERE run IN (SELECT value FROM json_each(?))"

_NOWHERE: Final = Place(0, 0, 0)
_READ_FIRST: Final = 4


@dataclass(slots=True)
class _Lane:
    """A lane; `fresh` until it is inserted."""

    key: Key
    room: Room
    fresh: bool = False


@dataclass(slots=True)
class _Line:
    """The front of a line, in order; `whole` when nobody stands behind it."""

    front: list[tuple[Place, str]] = field(default_factory=list)
    whole: bool = True
    size: int = _READ_FIRST

    def add(self, place: Place, run: str) -> None:
        if self.whole or (self.front and (place, run) < self.front[-1]):
            insort(self.front, (place, run))

    def remove(self, place: Place, run: str) -> None:
        at = bisect_left(self.front, (place, run))
        if at < len(self.front) and self.front[at] == (place, run):
            del self.front[at]


class _Kept(NamedTuple):
    """A ticket as it is; the place means something in line only."""

    state: int
    place: Place


class Lanes(Part):
    """The lanes that a batch is concerned with: `domain.lane.Lines`."""

    def __init__(self, batch: Batch) -> None:
        super().__init__(batch)
        self._lanes: dict[int, _Lane] = {}
        self._numbers: dict[Key, int] = {}
        self._lines: dict[int, _Line] = {}
        self._tickets: dict[str, dict[int, _Kept]] = {}
        self._wanted_keys: set[Key] = set()
        self._wanted_runs: set[str] = set()
        self._parents: set[str] = set()
        self._last: int | None = None
        self._changed_lanes: dict[int, None] = {}
        self._changed_tickets: dict[tuple[str, int], None] = {}
        self._left: list[str] = []

    # ------------------------------------------------------------ loading

    def want(self, submission: Submission) -> None:
        """The lanes of a run to be will be needed."""
        self._wanted_keys.update((submission.tenant, lane.kind, lane.name) for lane in submission.lanes)

    def want_turns(self, parent: str) -> None:
        """The turns that a run has or lives on will be needed, for a child of it."""
        self._parents.add(parent)

    def want_tickets(self, rows: Iterable[Row]) -> None:
        """The tickets of these runs will be needed, and their lanes."""
        self._wanted_runs.update(row.id for row in rows if row.id not in self._tickets)

    def load(self) -> None:
        keys, self._wanted_keys = self._wanted_keys - self._numbers.keys(), set()
        if keys:
            for columns in self.batch.fetch(_LANES, list(keys)):
                self._adopt(columns)
        parents, self._parents = self._parents, set()
        self.want_tickets(row for row in map(self.batch.find, parents) if row is not None and row.ties & HAS_LANES)
        runs, self._wanted_runs = self._wanted_runs - self._tickets.keys(), set()
        if runs:
            self._read_tickets(runs)

    def _read_tickets(self, runs: Iterable[str]) -> None:
        found: dict[str, list[tuple[int, _Kept]]] = {run: [] for run in runs}
        for run, columns, state, *place in self.batch.fetch(_TICKETS, list(found)):
            found[run].append((self._adopt(columns), _Kept(state, Place._make(place))))
        for run, tickets in found.items():
            self._tickets[run] = dict(sorted(tickets, key=lambda ticket: self._width(ticket[0])))

    def _adopt(self, columns: Sequence[Any]) -> int:
        n, tenant, kind, name, *room, has_line = columns
        if n not in self._lanes:
            self._lanes[n] = _Lane((tenant, kind, name), Room._make(room))
            self._numbers[tenant, kind, name] = n
            if not has_line:
                self._lines[n] = _Line()
        return int(n)

    def _width(self, lane: int) -> tuple[int, str]:
        _, kind, name = self._lanes[lane].key
        return LANE_ORDER.index(kind), name

    def _read_line(self, lane: int, size: int) -> _Line:
        self.batch.save()  # so that what was set is found
        line = self._lines[lane] = _Line(size=2 * size)
        read = self.batch.fetch_for(_LINE, lane, size)
        rows = self.batch.adopt(whole_row(columns[3:]) for columns in read)
        line.front = [(Place._make(columns[:3]), row.id) for columns, row in zip(read, rows, strict=True)]
        line.whole = len(read) < size
        self.want_tickets(rows)
        self.load()
        return line

    # ------------------------------------------------------------ what the rules ask and set

    def entrant(self, run: str) -> Entrant:
        row = self.batch.row(run)
        place = rules.place_of(row.life, row.record.priority, self.batch.number(row))
        return Entrant(row.gate, place, self._tickets_of(run))

    def _tickets_of(self, run: str) -> list[Ticket]:
        return [Ticket(lane, self._lanes[lane].key[1], kept.state) for lane, kept in self._tickets[run].items()]

    def room(self, lane: int) -> Room:
        return self._lanes[lane].room

    def set_room(self, lane: int, room: Room) -> None:
        self._lanes[lane].room = room
        self._changed_lanes[lane] = None

    def first(self, lane: int) -> str | None:
        line = self._lines.get(lane) or self._read_line(lane, _READ_FIRST)
        if not line.front and not line.whole:
            line = self._read_line(lane, line.size)
        return line.front[0][1] if line.front else None

    def holder(self, lane: int) -> tuple[str, int] | None:
        self.batch.save()  # so that what was set is found
        for state, *columns in self.batch.fetch_for(_HOLDERS, lane):
            [row] = self.batch.adopt([whole_row(columns)])
            self.want_tickets([row])
            self.load()
            return row.id, state
        return None

    def set_ticket(self, run: str, lane: int, state: int, place: Place | None = None) -> None:
        before = self._tickets[run][lane]
        kept = self._tickets[run][lane] = _Kept(state, place or _NOWHERE)
        self._changed_tickets[run, lane] = None
        line = self._lines.get(lane)
        if line is not None and before.state == IN_LINE:
            line.remove(before.place, run)
        if line is not None and state == IN_LINE:
            line.add(kept.place, run)

    def set_gate(self, run: str, gate: int) -> None:
        self.batch.set_gate(self.batch.row(run), gate)

    def delete(self, run: str) -> None:
        for lane, kept in self._tickets[run].items():
            self._changed_tickets.pop((run, lane), None)
            line = self._lines.get(lane)
            if line is not None and kept.state == IN_LINE:
                line.remove(kept.place, run)
        self._tickets[run] = {}
        self._left.append(run)

    # ------------------------------------------------------------ runs that come and go

    def turns(self, parent: Row) -> list[int]:
        """The lanes of the sessions in which a run has its turn, or lives on one. `want_turns` was asked before."""
        return rules.turns(self._tickets_of(parent.id)) if parent.ties & HAS_LANES else []

    def give_tickets(self, row: Row, lanes: Sequence[Lane], turns: Sequence[int]) -> None:
        """Give a new run, which is away, a ticket for each lane that it does not ask for yet, and have it live on these
        turns; a lane takes its capacity from it.
        """
        self.batch.tie(row, HAS_LANES)
        capacities = {self._lane((row.tenant, lane.kind, lane.name), lane.capacity): lane.capacity for lane in lanes}
        numbers = sorted({*capacities, *turns}, key=self._width)
        self._tickets[row.id] = {n: _Kept(IDLE, _NOWHERE) for n in numbers}
        for n in numbers:
            self._changed_tickets[row.id, n] = None
        for n in turns:
            rules.lend(self, row.id, n)
        # those that shrink first: who moves up where one grows must not find the old room in the others
        for n, capacity in sorted(capacities.items(), key=lambda item: item[1] > self.room(item[0]).capacity):
            rules.resize(self, n, capacity)

    def is_busy(self, tenant: str, lane: Lane) -> bool:
        """Whether a new run would have to stand in line for the lane."""
        n = self._numbers.get((tenant, lane.kind, lane.name))
        if n is None:
            return False
        return self.room(n).taken >= lane.capacity or self.first(n) is not None

    def inside(self, tenant: str, lane: Lane) -> list[Row]:
        """The runs that hold a ticket of the lane or stand in line for one, in the order of submission."""
        self.batch.save()
        n = self._numbers[tenant, lane.kind, lane.name]
        rows = self.batch.adopt(map(whole_row, self.batch.fetch_for(_INSIDE, n)))
        self.want_tickets(rows)
        self.load()
        return sorted(rows, key=lambda row: row.n)

    def holds(self, row: Row, lane: Lane) -> bool:
        """Whether the run, whose tickets have been loaded, holds one of the lane."""
        n = self._numbers[row.tenant, lane.kind, lane.name]
        return self._tickets[row.id][n].state not in (IDLE, IN_LINE, LENT)

    def _lane(self, key: Key, capacity: int) -> int:
        """The number of the lane, which is made with that capacity if it is new."""
        n = self._numbers.get(key)
        if n is not None:
            return n
        if self._last is None:
            self._last = int(self.batch.connection.execute(_LAST_LANE).get)
        n = self._last = self._last + 1
        self._lanes[n] = _Lane(key, Room(capacity, 0), fresh=True)
        self._numbers[key] = n
        self._lines[n] = _Line()
        self._changed_lanes[n] = None
        return n

    # ------------------------------------------------------------ saving

    def save(self) -> None:
        fresh: list[Any] = []
        changed: list[Any] = []
        for n in self._changed_lanes:
            lane = self._lanes[n]
            if lane.fresh:
                fresh += (n, *lane.key, *lane.room)
                lane.fresh = False
            else:
                changed += (n, *lane.room)
        self._changed_lanes.clear()
        self.batch.run(_INSERT_LANES, fresh)
        self.batch.run(_UPDATE_LANES, changed)
        self._save_tickets()

    def _save_tickets(self) -> None:
        tickets: list[Any] = []
        for run, lane in self._changed_tickets:
            state, place = self._tickets[run][lane]
            tickets += (self.batch.row(run).n, lane, state, *place)
        self._changed_tickets.clear()
        self.batch.run(_PUT_TICKETS, tickets)
        if self._left:
            runs = [self.batch.row(run).n for run in self._left]
            self.batch.connection.execute(_DELETE_TICKETS, (json.dumps(runs),))
            self._left.clear()


def give_back(batch: Batch, changes: Sequence[tuple[Row, Lifecycle]]) -> None:
    """Runs that were changed, each with what it was before, give back the tickets that they do not need now."""
    concerned = [(row, before) for row, before in changes if _needs_less(row, before)]
    for row, _ in concerned:
        batch.want_run(row.id)
    batch.part(Lanes).want_tickets(row for row, _ in concerned)
    batch.load()
    for row, before in concerned:
        if row.life.ended and not before.ended:
            rules.leave(batch.part(Lanes), row.id)
        elif row.gate != AWAY:
            gives_up = row.id in batch.given_up and row.life.status == WAITING  # who has yet to clean up keeps his turn
            rules.release(batch.part(Lanes), row.id, keep_session=not gives_up)


def enter(batch: Batch, rows: Sequence[Row]) -> None:
    """Runs that are due take their tickets, as far as they are to be had, in the order of their places."""
    batch.part(Lanes).want_tickets(rows)
    batch.load()
    for row in sorted(rows, key=lambda row: rules.place_of(row.life, row.record.priority, row.n)):
        rules.enter(batch.part(Lanes), row.id)


def place_again(batch: Batch, rows: Iterable[Row]) -> None:
    """Runs that stand in line and are due at another moment now have the place of that moment."""
    standing = [row for row in rows if row.gate == BLOCKED]
    if standing:
        batch.part(Lanes).want_tickets(standing)
        batch.load()
        for row in standing:
            rules.place_again(batch.part(Lanes), row.id)


def _needs_less(row: Row, before: Lifecycle) -> bool:
    """Whether the run has ended, or was set aside or given back to the queue."""
    life = row.life
    if life.ended:
        return not before.ended
    return row.gate != AWAY and life.status != RUNNING and (before.status == RUNNING or life.hold is not None)
