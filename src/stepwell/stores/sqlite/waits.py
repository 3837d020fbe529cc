"""Wait rows in a batch: those that runs opened, and what closed them. Used by the writer thread only.

Nothing here changes a run or its journal; the operations do, in the same transaction.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from stepwell.domain.values import loads
from stepwell.domain.wait import QUESTION, Wait, WaitRecord
from stepwell.stores.sqlite.batch import Batch, Part
from stepwell.stores.sqlite.rows import HAS_WAITS, Row
from stepwell.stores.sqlite.statements import inserting, updating

_WAIT: Final = (
    'wait.id, wait.type, wait.name, wait.step, wait.until, wait."join", wait.data,'
    ' run.id, wait.tenant, run.agent, wait.opened_at, wait.outcome, wait.closed_at, wait."by"'
)


def waits_sql(text: str) -> str:
    """Put the columns of a wait and its run into a statement."""
    return text.replace("{wait}", f"json_array({_WAIT})")


_BY_ID: Final = waits_sql(
    "SELECT json_group_array({wait}) FROM wait JOIN run ON run.n = wait.run"
    " WHERE wait.id IN (SELECT value FROM json_each(?))"
)
_OPEN: Final = waits_sql(
    "SELECT json_group_array(json(record)) FROM ("
    " SELECT {wait} AS record FROM json_each(?) AS named CROSS JOIN run ON run.id = named.value"
    " CROSS JOIN wait INDEXED BY wait_open ON wait.run = run.n AND wait.outcome IS NULL ORDER BY wait.n)"
)
_INSERT: Final = inserting(
    "wait",
    (
        *("id", "run", "tenant", "type", "name", "step", "until", '"join"', "data", "assignee"),
        *("opened_at", "outcome", "closed_at", '"by"'),
    ),
)
_CLOSE: Final = updating("wait", ("id",), ("outcome", "closed_at", '"by"'))


class Waits(Part):
    """The waits that a batch is concerned with."""

    def __init__(self, batch: Batch) -> None:
        super().__init__(batch)
        self._records: dict[str, WaitRecord] = {}
        self._open: dict[str, dict[str, None]] = {}
        self._runs: set[str] = set()
        self._ids: set[str] = set()
        self._questions: set[str] = set()
        self._fresh: dict[str, None] = {}
        self._closed: dict[str, None] = {}

    # ------------------------------------------------------------ loading

    def want_open(self, run_id: str) -> None:
        """All open waits of the run will be needed."""
        if run_id not in self._open:
            self._runs.add(run_id)

    def want(self, wait_id: str) -> None:
        """It will be asked whether there is such a wait."""
        self._ids.add(wait_id)

    def want_question(self, question_id: str) -> None:
        """The question will be needed, with its run and whatever else that waits for."""
        self._ids.add(question_id)
        self._questions.add(question_id)

    def locate(self) -> None:
        ids, self._ids = self._ids, set()
        if ids:
            self._adopt(self.batch.fetch(_BY_ID, list(ids)))
        for question_id in self._questions:
            record = self._records.get(question_id)
            if record is not None:
                self.batch.want_run(record.run_id)
                self.want_open(record.run_id)
        self._questions.clear()

    def load(self) -> None:
        runs, self._runs = self._runs, set()
        if runs:
            for run_id in runs:
                self._open.setdefault(run_id, {})
            for record in self._adopt(self.batch.fetch(_OPEN, list(runs))):
                self._open[record.run_id][record.wait.id] = None

    def _adopt(self, rows: Iterable[list[Any]]) -> list[WaitRecord]:
        records = map(record_of, rows)
        return [self._records.setdefault(record.wait.id, record) for record in records]

    # ------------------------------------------------------------ reading

    def get(self, wait_id: str) -> WaitRecord | None:
        """The wait, open or closed, if it was asked for and exists."""
        return self._records.get(wait_id)

    def open_of(self, run_id: str) -> list[WaitRecord]:
        """All open waits of a run, oldest first."""
        return list(self._each(run_id))

    def first_for(self, run_id: str, kind: str, name: str) -> WaitRecord | None:
        """The oldest wait of a run that is open for something of that name."""
        named = (record for record in self._each(run_id) if (record.wait.type, record.wait.name) == (kind, name))
        return next(named, None)

    def wakes(self, run_id: str, wait: Wait) -> bool:
        """Whether the end of this wait wakes its run: no other is open that it is joined with."""
        if wait.join is None:
            return True
        return all(record.wait.join != wait.join or record.wait.id == wait.id for record in self._each(run_id))

    def _each(self, run_id: str) -> Iterator[WaitRecord]:
        return map(self._records.__getitem__, self._open.get(run_id, ()))

    # ------------------------------------------------------------ changes

    def open(self, row: Row, wait: Wait) -> None:
        """A new wait of the run, whose facts have been loaded."""
        record = row.record
        self._records[wait.id] = WaitRecord(wait, row.id, record.tenant, record.agent, self.batch.now)
        self._open.setdefault(row.id, {})[wait.id] = None
        self._fresh[wait.id] = None
        self.batch.tie(row, HAS_WAITS)

    def close(self, wait_id: str, outcome: str, *, by: str | None = None) -> WaitRecord:
        """An open wait has come to its end."""
        record = self._records[wait_id]
        closed = self._records[wait_id] = record._replace(outcome=outcome, closed_at=self.batch.now, by=by)
        self._open.get(record.run_id, {}).pop(wait_id, None)
        if wait_id not in self._fresh:
            self._closed[wait_id] = None
        return closed

    def save(self) -> None:
        fresh: list[Any] = []
        for wait_id in self._fresh:
            fresh += self._columns(self._records[wait_id])
        self.batch.run(_INSERT, fresh)
        closed: list[Any] = []
        for wait_id in self._closed:
            record = self._records[wait_id]
            closed += (wait_id, record.outcome, record.closed_at, record.by)
        self.batch.run(_CLOSE, closed)
        self._fresh.clear()
        self._closed.clear()

    def _columns(self, record: WaitRecord) -> tuple[Any, ...]:
        wait = record.wait
        return (
            *(wait.id, self.batch.row(record.run_id).n, record.tenant, wait.type, wait.name, wait.step, wait.until),
            *(wait.join, wait.data, _assignee(wait), record.opened_at, record.outcome, record.closed_at, record.by),
        )


def record_of(columns: list[Any]) -> WaitRecord:
    """A wait from the columns of `waits_sql`."""
    return WaitRecord(Wait._make(columns[:7]), *columns[7:])


def _assignee(wait: Wait) -> str | None:
    data = loads(wait.data) if wait.type == QUESTION and wait.data else None
    assignee = data.get("assignee") if isinstance(data, dict) else None
    return assignee if isinstance(assignee, str) else None
