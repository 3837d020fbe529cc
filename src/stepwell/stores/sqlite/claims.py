"""Claiming: what is past a limit ends, then lost runs are taken, then due ones. Carried out by the writer thread.

A claim that would find nothing is answered from a look at the queue, outside any transaction.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from typing import Any, Final

import apsw

from stepwell.domain import transitions
from stepwell.domain.event import Entry
from stepwell.domain.run import RUNNING, Lease, place_in_queue
from stepwell.domain.transitions import ClaimCause
from stepwell.ports.store import Claim, ClaimRequest, Claims
from stepwell.stores.sqlite import statements
from stepwell.stores.sqlite.batch import Batch
from stepwell.stores.sqlite.look import Look, look
from stepwell.stores.sqlite.operations import Operation
from stepwell.stores.sqlite.rows import Row, is_claimable, whole_row
from stepwell.stores.sqlite.statements import fetch, sql
from stepwell.stores.sqlite.workers import record_deaths

_MOST_ENDED_AT_ONCE: Final = 200

_OVERDUE: Final = sql(
    """
    SELECT json_group_array(json_array(n, {facts}, {life})) FROM run WHERE n IN (
        SELECT n FROM (
            SELECT n FROM run INDEXED BY run_deadline
            WHERE deadline IS NOT NULL AND deadline <= ?1 AND ended_at IS NULL ORDER BY deadline LIMIT ?2
        )
        UNION SELECT n FROM (
            SELECT n FROM run INDEXED BY run_spent
            WHERE leased >= timeout AND status <> 'running' AND ended_at IS NULL LIMIT ?2
        )
    )
    """
)
_LOST: Final = sql(
    """
    SELECT json_group_array(json_array(n, {facts}, {life})) FROM (
        SELECT * FROM run INDEXED BY run_running
        WHERE status = 'running' AND worker IN (SELECT value FROM json_each(?1))
            AND agent IN (SELECT value FROM json_each(?2))
        ORDER BY id LIMIT ?3
    )
    """
)
# The levels come from a look in the same transaction. Each gives its first runs; the best of all are taken.
_DUE: Final = sql(
    """
    SELECT json_group_array(json_array(n, {facts}, {life})) FROM (
        SELECT run.* FROM json_each(?1) AS level CROSS JOIN run ON run.n IN (
            SELECT first.n FROM run AS first INDEXED BY run_claimable
            WHERE first.agent = level.value ->> 0 AND first.priority = level.value ->> 1 AND {claimable}
                AND first.available_at <= ?2
            ORDER BY first.available_at LIMIT ?3
        )
        ORDER BY run.available_at - run.priority * {priority_step}, run.n LIMIT ?3
    )
    """
)


class Take(Operation):
    """Give a worker runs."""

    kind = "claim"

    def __init__(self, request: ClaimRequest) -> None:
        self._request = request
        self._taken: list[Row] = []

    def idle(self, batch: Batch) -> Claims | None:
        """The empty answer, when there is nothing to claim and nothing to end. Reads only."""
        seen = look(batch.connection, self._request.agents, batch.now)
        if seen.overdue or self._due(batch, seen, 1) or self._lost(batch, self._judge(batch, seen)):
            return None
        return Claims([], self._next_due_at(batch, seen))

    def apply(self, batch: Batch) -> None:
        self._taken = []
        batch.forget_clear()
        self._end_overdue(batch)
        seen = look(batch.connection, self._request.agents, batch.now)
        causes = self._judge(batch, seen)
        for row in batch.adopt(self._lost(batch, causes)):
            self._take(batch, row, causes[str(row.life.worker)])
        batch.save()
        self._take_due(batch, seen)
        if causes:
            record_deaths(batch, causes)
        self.answer = Claims(self._with_journals(batch), self._next_due_at(batch, seen))

    def leases(self) -> Sequence[Lease]:
        answer: Claims = self.answer
        return [claim.lease for claim in answer.taken]

    # ------------------------------------------------------------ what may be taken

    def _judge(self, batch: Batch, seen: Look) -> dict[str, ClaimCause]:
        return batch.deaths.judge(seen.holders, batch.elapsed, claimant=self._request.worker)

    def _lost(self, batch: Batch, causes: Collection[str]) -> list[Row]:
        """Runs of workers that are gone, oldest first."""
        if not causes:
            return []
        if self._request.only is not None:
            lost = [row for row in self._named(batch) if row.life.status == RUNNING and row.life.worker in causes]
            return sorted(lost, key=lambda row: row.id)[: self._request.limit]
        workers, agents = json.dumps(list(causes)), json.dumps(list(self._request.agents))
        return _rows(batch, _LOST, workers, agents, self._request.limit)

    def _due(self, batch: Batch, seen: Look, limit: int) -> list[Row]:
        """Runs whose time has come, by their place in the queue."""
        now = batch.now
        if self._request.only is not None:
            due = [row for row in self._named(batch) if is_claimable(row.life) and row.life.available_at <= now]
            return sorted(due, key=_place)[:limit]
        levels = [(level.agent, level.priority) for level in seen.levels if level.first_at <= now]
        return _rows(batch, _DUE, json.dumps(levels), now, limit) if levels else []

    def _named(self, batch: Batch) -> list[Row]:
        rows = _rows(batch, statements.RUNS_BY_ID, json.dumps(list(self._request.only or ())))
        return [row for row in rows if row.record.agent in self._request.agents]

    def _next_due_at(self, batch: Batch, seen: Look) -> int | None:
        if self._request.only is None:
            return seen.next_due_at(self._request.agents)
        later = (row.life.available_at for row in self._named(batch) if is_claimable(row.life))
        return min((at for at in later if at > batch.now), default=None)

    # ------------------------------------------------------------ taking

    def _end_overdue(self, batch: Batch) -> None:
        for row in batch.adopt(_rows(batch, _OVERDUE, batch.now, _MOST_ENDED_AT_ONCE)):
            self._end_if_overdue(batch, row)
        batch.save()  # what this batch has queued or handed back so far can be found and claimed, too

    def _take_due(self, batch: Batch, seen: Look) -> None:
        while (room := self._request.limit - len(self._taken)) > 0:
            rows = batch.adopt(self._due(batch, seen, room))
            for row in rows:
                self._take(batch, row, "due")
            batch.save()
            if len(rows) < room:
                return

    def _take(self, batch: Batch, row: Row, cause: ClaimCause) -> None:
        """Claim a run, which may also end it or set it aside."""
        if self._end_if_overdue(batch, row):
            return
        batch.change(row, transitions.claim(row.life, worker=self._request.worker, cause=cause, now=batch.now))
        if row.life.status == RUNNING:
            self._taken.append(row)

    def _end_if_overdue(self, batch: Batch, row: Row) -> bool:
        run = row.record
        limit = transitions.overdue(run.life, timeout=run.timeout, deadline=run.deadline, now=batch.now)
        if limit is not None:
            batch.change(row, transitions.time_out(run.life, limit, batch.now))
        return limit is not None

    def _with_journals(self, batch: Batch) -> list[Claim]:
        if not self._taken:
            return []
        journals: dict[int, list[Entry]] = {row.n: [] for row in self._taken}
        for n, *entry in _entries(batch, json.dumps(list(journals))):
            journals[n].append(Entry._make(entry))
        worker = self._request.worker
        return [Claim(row.record, Lease(row.id, row.life.fence, worker), journals[row.n]) for row in self._taken]


def _entries(batch: Batch, runs: str) -> Iterable[Any]:
    """The facts of these runs, each with its run in front."""
    try:
        found: list[Any] = fetch(batch.connection, statements.JOURNALS, (runs,))
    except apsw.TooBigError:  # no text of SQLite is as long as all of them: row by row
        return batch.connection.execute(statements.JOURNAL_ROWS, (runs,))
    return found


def _rows(batch: Batch, text: str, *arguments: str | int) -> list[Row]:
    """Runs as they are stored, not in the working set yet."""
    return [whole_row(columns) for columns in fetch(batch.connection, text, arguments)]


def _place(row: Row) -> tuple[int, int]:
    return place_in_queue(row.life.available_at, row.record.priority), row.n
