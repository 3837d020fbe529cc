"""One transaction: loads what its operations need, lets the domain decide in memory, and saves what changed.

Each of the three takes a few statements, however many operations there are.
Used by the writer thread only. It neither begins nor ends the transaction, and knows no operation by name.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Final, TypeAlias

import apsw

from stepwell.domain import transitions
from stepwell.domain.errors import NotFound
from stepwell.domain.event import Entry
from stepwell.domain.run import RUNNING, Lifecycle, place_in_queue
from stepwell.domain.transitions import Change
from stepwell.ports.clock import Clock
from stepwell.stores.sqlite import statements
from stepwell.stores.sqlite.deaths import Deaths
from stepwell.stores.sqlite.look import look, lost_agents
from stepwell.stores.sqlite.rows import Row, is_claimable, is_in_queue, life_row, whole_row
from stepwell.stores.sqlite.statements import fetch

Key: TypeAlias = tuple[str, str, str]
"""Tenant, scope and idempotency key."""

_MOST_KEPT: Final = 20_000
_COUNT_AFTER: Final = 1_000_000
_BEFORE_ALL: Final = -(2**63)


class Memory:
    """What the writer knows of the file between transactions: valid until another connection commits.

    SQLite's own page cache rests on the same counter (`PRAGMA data_version`), so a row kept here is the locked row,
    not a belief about it. `rows` holds running runs by id. `queued` is how many runs are queued: counted at most once
    a second, followed in between. `clear` holds agents for which nothing waits, not even for its time, while nobody
    but the worker that asked holds runs: nothing can be ahead of a new run of theirs until a run becomes claimable.
    """

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}
        self.clear: set[tuple[str, str]] = set()
        self.queued = 0
        self.counted_at: int | None = None

    def forget(self) -> None:
        """Something else changed the file, or a transaction failed half-way."""
        self.rows.clear()
        self.clear.clear()
        self.counted_at = None

    def keep(self, changed: Mapping[str, Row]) -> None:
        """After a commit: keep what will be written again soon, drop the rest."""
        for run_id, row in changed.items():
            if row.life.status != RUNNING:
                self.rows.pop(run_id, None)
        if len(self.rows) > _MOST_KEPT:
            self.rows.clear()


class Wanted:
    """What the operations of a batch said they will need."""

    __slots__ = ("agents", "count", "keys", "lives", "runs")

    def __init__(self) -> None:
        self.lives: set[str] = set()
        self.runs: set[str] = set()
        self.keys: set[Key] = set()
        self.agents: set[tuple[str, str]] = set()
        self.count = False


class Batch:
    """The working set of one transaction. `careful` says that its operations may have been written before."""

    def __init__(
        self, cursor: apsw.Cursor, memory: Memory, deaths: Deaths, clock: Clock, *, careful: bool = False
    ) -> None:
        self.connection = cursor.connection
        self._cursor = cursor
        self.deaths = deaths
        self.now = clock.now()
        self.careful = careful
        self._clock = clock
        self.keys: dict[Key, tuple[str, str]] = {}
        self.new_keys: list[Any] = []
        self.claimable = False
        self.changed: dict[str, Row] = {}
        self.afterwards: list[Callable[[], None]] = []
        self._memory = memory
        self._rows = memory.rows
        self._unsaved: dict[str, Row] = {}
        self._evidence: tuple[int, Entry] | None = None
        self._wanted: Wanted | None = None
        self._first_places: dict[str, int] = {}
        self._requeued = False

    @property
    def elapsed(self) -> int:
        """Microseconds on the scale of leases."""
        return round(self._clock.elapsed() * 1_000_000)

    # ------------------------------------------------------------ what operations will need

    def want_life(self, run_id: str) -> None:
        """The run's lifecycle will be needed."""
        if run_id not in self._rows:
            self._want().lives.add(run_id)

    def want_run(self, run_id: str) -> None:
        """All of the run will be needed."""
        row = self._rows.get(run_id)
        if row is None or not row.facts:
            self._want().runs.add(run_id)

    def want_key(self, key: Key) -> None:
        """It will be asked which run an idempotency key names."""
        self._want().keys.add(key)

    def want_look(self, agent: str, worker: str) -> None:
        """It will be asked what this agent's queue holds, for a run that would start on the worker."""
        if (agent, worker) not in self._memory.clear:
            self._want().agents.add((agent, worker))

    def forget_clear(self) -> None:
        """Runs are about to change hands: what held for one worker may not hold any more."""
        self._memory.clear.clear()

    def want_count(self) -> None:
        """It will be asked how many runs are queued."""
        self._want().count = True

    def load(self) -> None:
        """Read what was asked for, with one statement for each kind of thing."""
        wanted = self._wanted
        if wanted is None:
            return
        if wanted.keys:
            for tenant, scope, key, run_id, digest in self._fetch(statements.KEYS, list(wanted.keys)):
                self.keys[tenant, scope, key] = run_id, digest
                self.want_run(run_id)
        if wanted.runs:
            self.adopt(map(whole_row, self._fetch(statements.RUNS_BY_ID, list(wanted.runs))))
        if wanted.lives:
            self.adopt(map(life_row, self._fetch(statements.LIVES_BY_ID, list(wanted.lives))))
        if wanted.agents:
            self._look_at_queues(wanted.agents)
        if wanted.count:
            self._count()

    def _want(self) -> Wanted:
        self._wanted = self._wanted or Wanted()
        return self._wanted

    def _look_at_queues(self, wanted: Collection[tuple[str, str]]) -> None:
        seen = look(self.connection, {agent for agent, _ in wanted}, self.now)
        waiting = {level.agent for level in seen.levels}
        holders = {holder.id for holder in seen.holders}
        for agent, worker in wanted:
            if agent not in waiting and holders <= {worker}:
                self._memory.clear.add((agent, worker))
        for level in seen.levels:
            if level.first_at <= self.now:
                self.queue_up(level.agent, place_in_queue(level.first_at, level.priority))
        causes = self.deaths.judge(seen.holders, self.elapsed, claimant=None)
        if causes:
            self._first_places |= dict.fromkeys(lost_agents(self.connection, causes), _BEFORE_ALL)

    def _count(self) -> None:
        memory, elapsed = self._memory, self.elapsed
        if memory.counted_at is None or not 0 <= elapsed - memory.counted_at < _COUNT_AFTER:
            memory.queued = int(self.connection.execute(statements.COUNT_QUEUED).get)
            memory.counted_at = elapsed

    def _fetch(self, text: str, names: list[Any]) -> list[Any]:
        found: list[Any] = fetch(self.connection, text, (json.dumps(names),))
        return found

    # ------------------------------------------------------------ runs

    def adopt(self, rows: Iterable[Row]) -> list[Row]:
        """Take stored rows into the working set. One that is there already stays as it is, and gets its facts."""
        adopted = []
        for row in rows:
            known = self._rows.setdefault(row.id, row)
            known.facts = known.facts or row.facts
            adopted.append(known)
        return adopted

    def find(self, run_id: str) -> Row | None:
        """The run, if it was asked for and exists."""
        return self._rows.get(run_id)

    def row(self, run_id: str) -> Row:
        """The run, or `NotFound`."""
        row = self._rows.get(run_id)
        if row is None:
            raise NotFound(f"there is no run {run_id}", code="run.unknown", hint="see: stepwell runs list")
        return row

    def goes_first(self, agent: str, place: int) -> bool:
        """Whether nothing claimable of the agent is ahead of that place: stored, lost, or put there by this batch."""
        return not self._requeued and self._first_places.get(agent, place + 1) > place

    def queue_up(self, agent: str, place: int) -> None:
        """A due run of the agent has that place in the queue."""
        self._first_places[agent] = min(place, self._first_places.get(agent, place))

    @property
    def queued(self) -> int:
        """How many runs are queued, right within a second."""
        return self._memory.queued

    def append(self, row: Row, change: Change) -> None:
        """Take over a change that only adds facts."""
        if change.life is row.life and not change.drafts and row.n:
            return
        row.life, entries = transitions.number(row.life, change, self.now)
        row.entries += entries
        self._unsaved[row.id] = row

    def change(self, row: Row, change: Change) -> None:
        """Take over any change of a run."""
        before = row.life
        self.append(row, change)
        row.whole = True
        self._requeued |= self._follow(before, row.life)

    def create(self, facts: tuple[Any, ...], change: Change) -> Row:
        """A new run, with everything that happened to it so far."""
        row = self._rows[facts[0]] = Row(0, facts[0], facts, change.life)
        self.append(row, change)
        self._follow(None, row.life)
        return row

    def _follow(self, before: Lifecycle | None, after: Lifecycle) -> bool:
        self._memory.queued += is_in_queue(after) - (before is not None and is_in_queue(before))
        waits = is_claimable(after)
        self.claimable |= waits
        if waits:
            self._memory.clear.clear()
        return waits

    # ------------------------------------------------------------ saving

    def save(self) -> None:
        """Write what changed since the last `save`."""
        if not self._unsaved:
            return
        unsaved, self._unsaved = self._unsaved, {}
        self.changed |= unsaved
        rows = list(unsaved.values())
        fresh = [row for row in rows if not row.n]
        if fresh:
            self._insert_runs(fresh)
        if self.new_keys:
            statements.INSERT_KEYS.run(self._cursor, self.new_keys)
            self.new_keys = []
        self._insert_entries(rows)
        if len(fresh) < len(rows):
            self._update_runs(rows)
        for row in rows:
            row.entries = []
            row.whole = row.fresh = False

    def _insert_runs(self, rows: list[Row]) -> None:
        columns: list[Any] = []
        for row in rows:
            columns += row.facts
            columns += row.life
        statements.INSERT_RUNS.run(self._cursor, columns)
        first = self.connection.last_insert_rowid() - len(rows) + 1  # a list of rows gets numbers without a gap
        for n, row in enumerate(rows, first):
            row.n = n
            row.fresh = True

    def _insert_entries(self, rows: list[Row]) -> None:
        columns: list[Any] = []
        for row in rows:
            n = row.n
            for entry in row.entries:
                columns.append(n)
                columns += entry
                evidence = n, entry
        if columns:
            self._evidence = evidence
            statements.INSERT_ENTRIES.run(self._cursor, columns)

    def _update_runs(self, rows: list[Row]) -> None:
        lives: list[Any] = []
        touched: list[Any] = []
        for row in rows:
            life = row.life
            if row.fresh:
                continue
            if row.whole:
                lives.append(row.n)
                lives += life
            else:
                touched += (row.n, life.seq, life.commit_no, life.updated_at, life.losses)
        if touched:
            statements.UPDATE_TOUCHED.run(self._cursor, touched)
        if lives:
            statements.UPDATE_LIVES.run(self._cursor, lives)

    def has_landed(self) -> bool:
        """After a commit of unknown result: whether it is in the file. Facts never change, so one of them decides."""
        if self._evidence is None:
            return False
        n, entry = self._evidence
        found = self.connection.execute(statements.LANDED, (n, entry.seq, entry.at, entry.kind, entry.data)).get
        return found is not None
