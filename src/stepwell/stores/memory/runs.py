"""All runs with their journals, and where to find those that somebody must act on.

The store changes runs through `add` and `apply` alone, so that no index can disagree with what is stored.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable
from functools import partial
from heapq import heappop, heappush
from typing import NamedTuple

from stepwell.domain import due, transitions
from stepwell.domain.event import Entry
from stepwell.domain.lane import AWAY, BLOCKED, FREE
from stepwell.domain.run import RUNNING, SUSPECT_AFTER, Lifecycle, RunRecord, place_in_queue
from stepwell.domain.transitions import Change
from stepwell.stores.memory.queue import Line, Place, claimable


class Kind(NamedTuple):
    """Runs of one kind stand in one line: those of one agent, suspects apart, and apart those whose tickets must be
    taken before they can be claimed.
    """

    agent: str
    suspect: bool
    away: bool = False


class Row:
    """One run as stored. `number` counts submissions, `gate` is what its tickets say to a claim; `line` is where it
    waits to be claimed, and since when.
    """

    __slots__ = ("gate", "journal", "line", "number", "run")

    def __init__(self, number: int, run: RunRecord) -> None:
        self.number = number
        self.run = run
        self.journal: list[Entry] = []
        self.gate = FREE
        self.line: tuple[Kind, int] | None = None

    @property
    def place(self) -> Place:
        """Where the run stands in the queue."""
        available_at = self.run.life.available_at
        return Place(place_in_queue(available_at, self.run.priority), self.number, self.run.id, available_at)


class Runs:
    """The run table and its indexes."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}
        self.by_status: Counter[str] = Counter()
        self._lines: dict[Kind, Line] = {}
        self._newcomers: list[Row] = []
        self._children: defaultdict[str, list[Row]] = defaultdict(list)
        self._deadlines: list[tuple[int, str]] = []
        self._written_at = 0
        self._made_up: dict[str, None] = {}
        self._spent: dict[str, None] = {}
        self._held_by: defaultdict[str, dict[str, None]] = defaultdict(dict)

    def add(self, run: RunRecord, change: Change, now: int) -> Row:
        """A new run, with the facts of its submission."""
        row = self.rows[run.id] = Row(len(self.rows), run)
        if run.deadline is not None:
            heappush(self._deadlines, (run.deadline, run.id))
        if run.parent is not None:
            self._children[run.parent].append(row)
        self._store(row, change, now)
        self._index(row, None)
        return row

    def apply(self, row: Row, change: Change, now: int) -> RunRecord:
        """Store what a transition made of the run."""
        before = row.run.life
        self._store(row, change, now)
        self._index(row, before)
        return row.run

    def overdue(self, now: int) -> list[tuple[Row, str]]:
        """The runs past a limit that nobody executes any more, and those past their deadline, each with the limit."""
        passed = dict.fromkeys(self._spent)
        while self._deadlines and self._deadlines[0][0] <= now:
            passed[heappop(self._deadlines)[1]] = None
        found = ((row, limit_passed(row.run, now)) for row in map(self.rows.__getitem__, passed))
        return [(row, limit) for row, limit in found if limit is not None]

    def put_off(self, now: int) -> list[tuple[Row, Lifecycle]]:
        """The runs that a clock which was set back would put off, each with what makes up for it, and those for which
        that is to be taken back.
        """
        was_set_back, self._written_at = self._written_at > now, now
        rows = self.rows.values() if was_set_back else map(self.rows.__getitem__, self._made_up)
        found = ((row, due.made_up(row.run.life, now)) for row in rows)
        return [(row, life) for row, life in found if life is not None]

    def children(self, run_id: str) -> list[Row]:
        """The runs that this one made, in that order."""
        return list(self._children.get(run_id, ()))

    def first_due(self, kinds: Iterable[Kind], now: int) -> Place | None:
        """Which run of these kinds goes first among those that are due."""
        return min((place for line in self._standing(kinds) if (place := line.first_due(now))), default=None)

    def next_due_at(self, kinds: Iterable[Kind], now: int) -> int | None:
        """When the first of those that are not due yet will be."""
        moments = (line.next_due_at(now) for line in self._standing(kinds))
        return min((at for at in moments if at is not None), default=None)

    def away_and_due(self, now: int) -> list[Row]:
        """The runs whose time has come and whose tickets must be taken."""
        found: list[Row] = []
        for line in self._standing([kind for kind in self._lines if kind.away]):
            found += map(self.rows.__getitem__, line.all_due(now))
        return found

    def set_gate(self, row: Row, gate: int) -> None:
        """Keep what the run's tickets say to a claim."""
        row.gate = gate
        self._line_up(row)

    def newcomers(self) -> bool:
        """Whether a run came to stand in a line since this was last asked, and stands there still."""
        newcomers, self._newcomers = self._newcomers, []
        return any(row.line is not None for row in newcomers)

    def held_by(self, worker_id: str) -> Collection[str]:
        """The ids of the runs that are running at this worker."""
        return self._held_by.get(worker_id, {}).keys()

    def holders(self) -> list[str]:
        """Every worker in whose hands a run is, dead or alive."""
        return list(self._held_by)

    def unserved(self, alive: Collection[str], since: int) -> list[RunRecord]:
        """The runs that are due since that moment or were left behind, of agents of which no run is in the hands of
        these workers.
        """
        served = {self.rows[run_id].run.agent for worker in alive for run_id in self.held_by(worker)}
        rows = (row for row in self.rows.values() if row.run.agent not in served)
        return [row.run for row in rows if row.run.life.status == RUNNING or _is_due(row, since)]

    def _store(self, row: Row, change: Change, now: int) -> None:
        self._written_at = max(self._written_at, now)
        life, entries = transitions.number(row.run.life, change, now)
        row.run = row.run._replace(life=life)
        row.journal += entries

    def _index(self, row: Row, before: Lifecycle | None) -> None:
        run, life = row.run, row.run.life
        if before is not None:
            self.by_status[before.shown] -= 1
            if before.status == RUNNING and before.worker is not None:
                self._let_go(before.worker, run.id)
        self.by_status[life.shown] += 1
        if life.status == RUNNING and life.worker is not None:
            self._held_by[life.worker][run.id] = None
        self._line_up(row)
        if life.made_up and not life.ended:
            self._made_up[run.id] = None
        else:
            self._made_up.pop(run.id, None)
        if life.status != RUNNING and life.leased >= run.timeout and not life.ended:
            self._spent[run.id] = None
        else:
            self._spent.pop(run.id, None)

    def _let_go(self, worker_id: str, run_id: str) -> None:
        held = self._held_by[worker_id]
        del held[run_id]
        if not held:
            del self._held_by[worker_id]

    def _line_up(self, row: Row) -> None:
        """Have the run stand in the line of its kind, if it may be claimed at all."""
        line = line_of(row)
        if line == row.line:
            return
        row.line = line
        if line is not None:
            kind = line[0]
            if kind not in self._lines:
                self._lines[kind] = Line(partial(self._stands, kind))
            self._lines[kind].add(row.place)
            self._newcomers.append(row)

    def _standing(self, kinds: Iterable[Kind]) -> list[Line]:
        return [self._lines[kind] for kind in kinds if kind in self._lines]

    def _stands(self, kind: Kind, run_id: str, available_at: int) -> bool:
        return self.rows[run_id].line == (kind, available_at)


def line_of(row: Row) -> tuple[Kind, int] | None:
    """Where a run waits to be claimed, and since when or until when; one that waits for a ticket stands nowhere."""
    life = row.run.life
    if not claimable(life) or row.gate == BLOCKED:
        return None
    return Kind(row.run.agent, is_suspect(life), row.gate == AWAY), life.available_at


def _is_due(row: Row, since: int) -> bool:
    return line_of(row) is not None and row.run.life.available_at <= since


def is_suspect(life: Lifecycle) -> bool:
    """Whether the run took too many workers with it lately to be executed beside others."""
    return life.losses >= SUSPECT_AFTER


def limit_passed(run: RunRecord, now: int) -> str | None:
    """The limit by which the run must end now, if there is one."""
    return transitions.overdue(run.life, timeout=run.timeout, deadline=run.deadline, now=now)
