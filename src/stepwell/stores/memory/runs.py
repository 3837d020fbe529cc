"""All runs with their journals, and where to find those that somebody must act on.

The store changes runs through `add` and `apply` alone, so that no index can disagree with what is stored.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable
from heapq import heappop, heappush

from stepwell.domain import transitions
from stepwell.domain.event import Entry
from stepwell.domain.run import RUNNING, Lifecycle, RunRecord, place_in_queue
from stepwell.domain.transitions import Change
from stepwell.stores.memory.queue import AgentQueue, Place, claimable


class Row:
    """One run as stored. `number` counts submissions."""

    __slots__ = ("input_digest", "journal", "number", "run")

    def __init__(self, number: int, run: RunRecord, input_digest: str) -> None:
        self.number = number
        self.run = run
        self.journal: list[Entry] = []
        self.input_digest = input_digest

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
        self._queues: defaultdict[str, AgentQueue] = defaultdict(lambda: AgentQueue(self._waits))
        self._deadlines: list[tuple[int, str]] = []
        self._spent: dict[str, None] = {}
        self._held_by: defaultdict[str, dict[str, None]] = defaultdict(dict)

    def add(self, run: RunRecord, input_digest: str, change: Change, now: int) -> Row:
        """A new run, with the facts of its submission."""
        row = self.rows[run.id] = Row(len(self.rows), run, input_digest)
        if run.deadline is not None:
            heappush(self._deadlines, (run.deadline, run.id))
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

    def first_due(self, agents: Iterable[str], now: int) -> Place | None:
        """Which run of these agents goes first among those that are due."""
        firsts = [place for agent in agents if (place := self._queues[agent].first_due(now))]
        return min(firsts, default=None)

    def next_due_at(self, agents: Iterable[str], now: int) -> int | None:
        """When the first of those that are not due yet will be."""
        moments = [at for agent in agents if (at := self._queues[agent].next_due_at(now)) is not None]
        return min(moments, default=None)

    def held_by(self, worker_id: str) -> Collection[str]:
        """The ids of the runs that are running at this worker."""
        return self._held_by.get(worker_id, {}).keys()

    def holders(self) -> list[str]:
        """Every worker in whose hands a run is, dead or alive."""
        return list(self._held_by)

    def unserved(self, since: int) -> dict[str, int]:
        """How many runs of each agent are due since that moment, for agents of which no run is in anybody's hands."""
        served = {self.rows[run_id].run.agent for held in self._held_by.values() for run_id in held}
        waiting = (row.run for row in self.rows.values() if claimable(row.run.life))
        return dict(Counter(run.agent for run in waiting if run.agent not in served and run.life.available_at <= since))

    def _store(self, row: Row, change: Change, now: int) -> None:
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
        waited = before is not None and claimable(before) and before.available_at == life.available_at
        if claimable(life) and not waited:
            self._queues[run.agent].add(row.place)
        if life.status != RUNNING and life.leased >= run.timeout and not life.ended:
            self._spent[run.id] = None
        else:
            self._spent.pop(run.id, None)

    def _let_go(self, worker_id: str, run_id: str) -> None:
        held = self._held_by[worker_id]
        del held[run_id]
        if not held:
            del self._held_by[worker_id]

    def _waits(self, run_id: str, available_at: int) -> bool:
        life = self.rows[run_id].run.life
        return claimable(life) and life.available_at == available_at


def limit_passed(run: RunRecord, now: int) -> str | None:
    """The limit by which the run must end now, if there is one."""
    return transitions.overdue(run.life, timeout=run.timeout, deadline=run.deadline, now=now)
