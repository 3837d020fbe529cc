"""One transaction: loads what its operations need, lets the domain decide in memory, and saves what changed.

Each of the three takes a few statements, however many operations there are.
Used by the writer thread only. It neither begins nor ends the transaction, and knows no operation by name.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar

import apsw

from stepwell.domain import transitions
from stepwell.domain.errors import NotFound
from stepwell.domain.event import Entry
from stepwell.domain.lane import BLOCKED, FREE
from stepwell.domain.run import RUNNING, Lifecycle, place_in_queue
from stepwell.domain.transitions import Change
from stepwell.ports.clock import Clock
from stepwell.stores.sqlite import statements
from stepwell.stores.sqlite.deaths import Deaths
from stepwell.stores.sqlite.look import look, lost_agents
from stepwell.stores.sqlite.put_off import PutOff
from stepwell.stores.sqlite.recall import Recall
from stepwell.stores.sqlite.rows import HAS_CHILDREN, Row, is_claimable, is_in_queue, life_row, whole_row
from stepwell.stores.sqlite.statements import fetch

Key: TypeAlias = tuple[str, str, str]
"""Tenant, scope and idempotency key."""

Visit: TypeAlias = Callable[["Batch", Row], None]
"""What a change of a run does to each of its live descendants."""

_COUNT_AGAIN_AFTER: Final = 1_000_000
_COUNT_EVERY: Final = 60_000_000
_BEFORE_ALL: Final = -(2**63)


class Tied(NamedTuple):
    """A change of a run that is connected with other rows: what the run was before, and what became of it."""

    row: Row
    before: Lifecycle
    change: Change


class Part:
    """The rows of one kind that belong to runs. Made by the first operation of a batch that needs it, so that others
    pay nothing for it.
    """

    def __init__(self, batch: Batch) -> None:
        self.batch = batch

    def locate(self) -> None:
        """Find out which runs will be needed, before those are read."""

    def load(self) -> None:
        """Read what was asked for since the last time, with a fixed number of statements."""

    def save(self) -> None:
        """Write what changed since the last time. The runs are saved before."""


P = TypeVar("P", bound=Part)


class Wanted:
    """What the operations of a batch said they will need."""

    __slots__ = ("agents", "count", "keys", "lives", "runs")

    def __init__(self) -> None:
        self.lives: set[str] = set()
        self.runs: set[str] = set()
        self.keys: set[Key] = set()
        self.agents: set[tuple[str, str]] = set()
        self.count = 0


class Batch:
    """The working set of one transaction. `careful` says that its operations may have been written before."""

    def __init__(
        self, cursor: apsw.Cursor, recall: Recall, deaths: Deaths, clock: Clock, *, careful: bool = False
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
        self.control = False
        self.changed: dict[str, Row] = {}
        self.tied: list[Tied] = []
        self.spreading: list[tuple[Row, Visit]] = []
        self.given_up: set[str] = set()
        self.afterwards: list[Callable[[], None]] = []
        self._recall = recall
        self._rows = recall.rows
        self._unsaved: dict[str, Row] = {}
        self._evidence: tuple[int, Entry] | None = None
        self._wanted: Wanted | None = None
        self._first_places: dict[str, int] = {}
        self._requeued = False
        self._made = 0
        self._last: int | None = None
        self._parts: dict[type[Part], Part] = {}

    @property
    def elapsed(self) -> int:
        """Microseconds on the scale of leases."""
        return round(self._clock.elapsed() * 1_000_000)

    @property
    def put_off(self) -> PutOff:
        """Whether a clock that was set back may have put runs off."""
        return self._recall.put_off

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
        if (agent, worker) not in self._recall.clear:
            self._want().agents.add((agent, worker))

    def forget_clear(self) -> None:
        """Runs are about to change hands: what held for one worker may not hold any more."""
        self._recall.clear.clear()

    def want_count(self, bound: int) -> None:
        """It will be asked whether so many runs are queued."""
        wanted = self._want()
        wanted.count = max(wanted.count, bound)

    def load(self) -> None:
        """Read what was asked for since the last time, with a few statements for each kind of thing."""
        parts = self._parts.values()
        for part in parts:
            part.locate()
        if self._wanted is not None:
            self._load(self._wanted)
            self._wanted = None
        for part in parts:
            part.load()

    def part(self, kind: type[P]) -> P:
        """The batch's rows of one kind."""
        part = self._parts.get(kind)
        if part is None:
            part = self._parts[kind] = kind(self)
        assert isinstance(part, kind)
        return part

    def _load(self, wanted: Wanted) -> None:
        if wanted.keys:
            for tenant, scope, key, run_id, digest in self.fetch(statements.KEYS, list(wanted.keys)):
                self.keys[tenant, scope, key] = run_id, digest
                self.want_run(run_id)
        if wanted.runs:
            self.adopt(map(whole_row, self.fetch(statements.RUNS_BY_ID, list(wanted.runs))))
        if wanted.lives:
            self.adopt(map(life_row, self.fetch(statements.LIVES_BY_ID, list(wanted.lives))))
        if wanted.agents:
            self._look_at_queues(wanted.agents)
        if wanted.count:
            self._count(wanted.count)

    def _want(self) -> Wanted:
        self._wanted = self._wanted or Wanted()
        return self._wanted

    def _look_at_queues(self, wanted: Collection[tuple[str, str]]) -> None:
        seen = look(self.connection, {agent for agent, _ in wanted}, self.now)
        waiting = {level.agent for level in seen.levels}
        holders = {holder.id for holder in seen.holders}
        for agent, worker in wanted:
            if agent not in waiting and holders <= {worker}:
                self._recall.clear.add((agent, worker))
        for level in seen.levels:
            if level.first_at <= self.now:
                self.queue_up(level.agent, place_in_queue(level.first_at, level.priority))
        causes = self.deaths.judge(seen.holders, self.elapsed, claimant=None)
        if causes:
            self._first_places |= dict.fromkeys(lost_agents(self.connection, causes), _BEFORE_ALL)

    def _count(self, bound: int) -> None:
        """Make sure that `queued` is right within a second as far as the bound is concerned."""
        recall = self._recall
        if recall.counted_at is not None and not recall.guessed:
            return
        last = int(self.connection.execute(statements.LAST_RUN).get)
        age = _COUNT_EVERY if recall.counted_at is None else self.elapsed - recall.counted_at
        recall.queued += last - recall.last_run
        recall.last_run = last
        if not 0 <= age < (_COUNT_AGAIN_AFTER if recall.queued >= bound else _COUNT_EVERY):
            recall.queued = int(self.connection.execute(statements.COUNT_QUEUED).get)
            recall.counted_at = self.elapsed
            recall.guessed = False

    def fetch(self, text: str, names: list[Any]) -> list[Any]:
        """What a statement finds that takes one list and gives one."""
        found: list[Any] = fetch(self.connection, text, (json.dumps(names),))
        return found

    def fetch_for(self, text: str, *arguments: int | str) -> list[Any]:
        """What a statement finds that gives one list."""
        found: list[Any] = fetch(self.connection, text, arguments)
        return found

    def run(self, statement: statements.ManyRows, parameters: list[Any]) -> None:
        """Write many rows, whose columns follow each other."""
        if parameters:
            statement.run(self._cursor, parameters)

    def next_change(self) -> int:
        """A number that is higher than that of any earlier change of a session."""
        self._recall.changes = max(self.now, self._recall.changes + 1)
        return self._recall.changes

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
            raise unknown_run(run_id)
        return row

    def run_of(self, run_id: str, tenant: str) -> Row:
        """The whole run, if it is that tenant's, or `NotFound`."""
        row = self._rows.get(run_id)
        if row is None or row.tenant != tenant:
            raise unknown_run(run_id)
        return row

    def goes_first(self, agent: str, place: int) -> bool:
        """Whether nothing claimable of the agent is ahead of that place: stored, lost, or put there by this batch."""
        return not self._requeued and self._first_places.get(agent, place + 1) > place

    def queue_up(self, agent: str, place: int) -> None:
        """A due run of the agent has that place in the queue."""
        self._first_places[agent] = min(place, self._first_places.get(agent, place))

    @property
    def queued(self) -> int:
        """How many runs are queued, as far as a bound is concerned: see `_count`."""
        return self._recall.queued

    def append(self, row: Row, change: Change) -> None:
        """Take over a change that only adds facts."""
        if change.life is row.life and not change.drafts and row.n:
            return
        if change.life.losses != row.life.losses:
            row.whole = True  # the first write after a loss
        row.life, entries = transitions.number(row.life, change, self.now)
        row.entries += entries
        self._unsaved[row.id] = row

    def change(self, row: Row, change: Change) -> None:
        """Take over any change of a run."""
        before = row.life
        self.append(row, change)
        row.whole = True
        life = row.life
        self._requeued |= self._follow(before, life, row.gate)
        if row.ties:
            self.tied.append(Tied(row, before, change))
        if before.status == life.status == RUNNING:
            self.control |= (before.cancelling, before.pausing) != (life.cancelling, life.pausing)

    def create(self, facts: tuple[Any, ...], change: Change, *, gate: int = 0) -> Row:
        """A new run, with everything that happened to it so far."""
        row = self._rows[facts[0]] = Row(0, facts[0], facts, change.life, gate=gate)
        row.made = self._made
        self._made += 1
        self.append(row, change)
        self._follow(None, row.life, gate)
        return row

    def number(self, row: Row) -> int:
        """The number of the run in the file; of one that is not inserted yet, the one that it is going to have."""
        if row.n:
            return row.n
        if self._last is None:
            self._last = int(self.connection.execute(statements.LAST_RUN).get)
        return self._last + 1 + row.made

    def tie(self, row: Row, tie: int) -> None:
        """Note that a run is connected with other rows."""
        if not row.ties & tie:
            row.ties |= tie
            row.tied = True
            self._unsaved[row.id] = row

    def set_gate(self, row: Row, gate: int) -> None:
        """Keep what a run's lanes say to claims."""
        if row.gate != gate:
            row.gate = gate
            row.tied = True
            self._unsaved[row.id] = row
            self._requeued |= self._follow(row.life, row.life, gate)

    def spread(self, row: Row, visit: Visit) -> None:
        """Have a run's live descendants visited, when all operations of the batch are applied."""
        if row.ties & HAS_CHILDREN:
            self.spreading.append((row, visit))

    def _follow(self, before: Lifecycle | None, after: Lifecycle, gate: int) -> bool:
        self._recall.queued += is_in_queue(after) - (before is not None and is_in_queue(before))
        waits = is_claimable(after)
        self.claimable |= waits and gate != BLOCKED
        if waits and gate == FREE:
            self._recall.clear.clear()
            return True
        return False

    # ------------------------------------------------------------ saving

    def save(self) -> None:
        """Write what changed since the last `save`."""
        if self._unsaved:
            self._save_runs()
        for part in self._parts.values():
            part.save()

    def _save_runs(self) -> None:
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
            row.whole = row.tied = row.fresh = False

    def _insert_runs(self, rows: list[Row]) -> None:
        columns: list[Any] = []
        for row in rows:
            columns += row.facts
            columns += row.life
            columns += (row.ties, row.gate)
        statements.INSERT_RUNS.run(self._cursor, columns)
        first = self.connection.last_insert_rowid() - len(rows) + 1  # a list of rows gets numbers without a gap
        self._made, self._last, self._recall.last_run = 0, None, first + len(rows) - 1
        for n, row in enumerate(rows, first):
            assert row.made == n - first, "the number was told before"
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
        ties: list[Any] = []
        for row in rows:
            life = row.life
            if row.fresh:
                continue
            if row.tied:
                ties += (row.n, row.ties, row.gate)
            if row.whole:
                lives.append(row.n)
                lives += life
            else:
                touched += (row.n, life.seq, life.commit_no, life.updated_at, life.held)
        if touched:
            statements.UPDATE_TOUCHED.run(self._cursor, touched)
        if lives:
            statements.UPDATE_LIVES.run(self._cursor, lives)
        if ties:
            statements.UPDATE_TIES.run(self._cursor, ties)

    def has_landed(self) -> bool:
        """After a commit of unknown result: whether it is in the file. Facts never change, so one of them decides."""
        if self._evidence is None:
            return False
        n, entry = self._evidence
        return self.is_written(n, entry)

    def is_written(self, n: int, entry: Entry) -> bool:
        """Whether this very fact stands in the run's journal."""
        found = self.connection.execute(statements.LANDED, (n, entry.seq, entry.at, entry.kind, entry.data)).get
        return found is not None


def unknown_run(run_id: str) -> NotFound:
    """There is no run of that id, or it is another tenant's."""
    return NotFound(f"there is no run {run_id}", code="run.unknown", hint="see: stepwell runs list")
