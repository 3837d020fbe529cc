"""Claiming: what is past a limit ends, then lost runs are taken, then due ones. Carried out by the writer thread.

A claim that would find nothing is answered from a look at the queue, outside any transaction.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import apsw

from stepwell.domain import due, transitions
from stepwell.domain.event import Entry
from stepwell.domain.outcome import NEVER
from stepwell.domain.run import RUNNING, SUSPECT_AFTER, Lease, Lifecycle, place_in_queue
from stepwell.domain.transitions import Change, ClaimCause
from stepwell.ports.store import Claim, ClaimRequest, Claims
from stepwell.stores.sqlite import statements
from stepwell.stores.sqlite.batch import Batch
from stepwell.stores.sqlite.lanes import enter, place_again
from stepwell.stores.sqlite.look import Look, look
from stepwell.stores.sqlite.operations import Operation
from stepwell.stores.sqlite.put_off import MOST_AT_ONCE, PUT_OFF
from stepwell.stores.sqlite.rows import Row, is_claimable, whole_row
from stepwell.stores.sqlite.statements import fetch, sql
from stepwell.stores.sqlite.ties import settle
from stepwell.stores.sqlite.workers import record_deaths

"""So many losses without progress in between make a run a suspect."""

_MOST_ENDED_AT_ONCE: Final = 200
_MOST_ENTERING_AT_ONCE: Final = 500

_OVERDUE: Final = sql(
    """
    SELECT json_group_array(json_array({run})) FROM run WHERE n IN (
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
_ENTERING: Final = sql(
    "SELECT json_group_array(json_array({run})) FROM ("
    " SELECT * FROM run INDEXED BY run_away WHERE {away} AND available_at <= ? ORDER BY available_at LIMIT ?)"
)
# Each worker comes with the number of losses from which on its runs are suspects; ?4 puts those last (1) or first (-1).
_LOST: Final = sql(
    """
    SELECT json_group_array(json_array({run})) FROM (
        SELECT run.* FROM json_each(?1) AS gone CROSS JOIN run INDEXED BY run_running
            ON run.status = 'running' AND run.worker = gone.value ->> 0
        WHERE run.agent IN (SELECT value FROM json_each(?2))
        ORDER BY ?4 * (run.losses >= gone.value ->> 1), run.id LIMIT ?3
    )
    """
)
# The levels come from a look in the same transaction. Each gives its first runs; the best of all are taken.
_DUE_IF: Final = sql(
    """
    SELECT json_group_array(json_array({run})) FROM (
        SELECT run.* FROM json_each(?1) AS level CROSS JOIN run ON run.n IN (
            SELECT first.n FROM run AS first INDEXED BY run_claimable
            WHERE first.agent = level.value ->> 0 AND first.priority = level.value ->> 1 AND {claimable}
                AND first.available_at <= ?2{condition}
            ORDER BY first.available_at LIMIT ?3
        )
        ORDER BY run.available_at - run.priority * {priority_step}, run.n LIMIT ?3
    )
    """
)


_DUE: Final = _DUE_IF.replace("{condition}", "")
_DUE_INNOCENT: Final = _DUE_IF.replace("{condition}", " AND first.losses < 2")
_DUE_SUSPECTS: Final = sql(
    """
    SELECT json_group_array(json_array({run})) FROM (
        SELECT * FROM run INDEXED BY run_suspect
        WHERE agent IN (SELECT value FROM json_each(?1)) AND {suspect} AND available_at <= ?2
        ORDER BY available_at - priority * {priority_step}, n LIMIT ?3
    )
    """
)

_SUSPECT_FROM: Final[Mapping[ClaimCause, int]] = {"lost": SUSPECT_AFTER - 1, "expired": SUSPECT_AFTER}


class Pass(NamedTuple):
    """One way through the queue: at most `limit` runs; of suspects only, of others only, or of all."""

    limit: int
    suspects: bool | None = None

    @property
    def order(self) -> int:
        """Whether suspects come first (-1) or last (1) among those that were lost."""
        return {None: 0, True: -1, False: 1}[self.suspects]

    def is_for(self, life: Lifecycle) -> bool:
        """Whether it takes such runs."""
        return self.suspects is None or (life.losses >= SUSPECT_AFTER) == self.suspects

    def allows(self, life: Lifecycle) -> bool:
        """Whether a run may be claimed, with this result. What ends or is set aside by it is given to nobody."""
        return life.status != RUNNING or self.is_for(life)


class Take(Operation):
    """Give a worker runs."""

    kind = "claim"

    def __init__(self, request: ClaimRequest) -> None:
        self._request = request
        self._taken: list[Row] = []

    def idle(self, batch: Batch) -> Claims | None:
        """The empty answer, when there is nothing to claim and nothing to end. Reads only."""
        seen = look(batch.connection, self._request.agents, batch.now)
        causes = self._judge(batch, seen)
        if seen.overdue or seen.entering or batch.put_off.is_possible(batch.connection, batch.now):
            return None
        if any(self._finds(batch, seen, causes, step) for step in self._passes()):
            return None
        return Claims([], self._next_due_at(batch, seen), self._leaves_suspects(batch, seen, causes))

    def apply(self, batch: Batch) -> None:
        self._taken = []
        batch.forget_clear()
        self._end_overdue(batch)
        if batch.put_off.is_possible(batch.connection, batch.now):
            self._make_up(batch)
        seen = look(batch.connection, self._request.agents, batch.now)
        if seen.entering:
            self._let_enter(batch)
            seen = look(batch.connection, self._request.agents, batch.now)
        causes = self._judge(batch, seen)
        for step in self._passes():
            if not self._taken:
                self._take_lost(batch, causes, step)
                self._take_due(batch, seen, step)
        if causes:
            record_deaths(batch, causes)
        suspects = self._leaves_suspects(batch, seen, causes)
        self.answer = Claims(self._with_journals(batch), self._next_due_at(batch, seen), suspects)

    def leases(self) -> Sequence[Lease]:
        answer: Claims = self.answer
        return [claim.lease for claim in answer.taken]

    def _passes(self) -> Sequence[Pass]:
        limit = self._request.limit
        match self._request.suspects:
            case "any":
                return (Pass(limit),)
            case "skip":
                return (Pass(limit, suspects=False),)
            case "alone":
                return Pass(min(1, limit), suspects=True), Pass(limit, suspects=False)

    # ------------------------------------------------------------ what may be taken

    def _judge(self, batch: Batch, seen: Look) -> dict[str, ClaimCause]:
        return batch.deaths.judge(seen.holders, batch.elapsed, claimant=self._request.worker)

    def _finds(self, batch: Batch, seen: Look, causes: Mapping[str, ClaimCause], step: Pass) -> bool:
        """Whether the pass would change anything."""
        lost = self._lost(batch, causes, step, step.limit)
        changes = (self._claim(batch, row, causes[str(row.life.worker)]) for row in lost)
        return any(step.allows(change.life) for change in changes) or bool(self._due(batch, seen, step, 1))

    def _leaves_suspects(self, batch: Batch, seen: Look, causes: Mapping[str, ClaimCause]) -> bool:
        """Whether a suspect is there that was not given."""
        if self._request.suspects == "any" or not (causes or seen.suspects):
            return False
        step = Pass(1, suspects=True)
        lost = self._lost(batch, causes, step, 1)
        lives = (self._claim(batch, row, causes[str(row.life.worker)]).life for row in lost)
        return any(life.status == RUNNING and step.allows(life) for life in lives) or bool(
            self._due(batch, seen, step, 1)
        )

    def _lost(self, batch: Batch, causes: Mapping[str, ClaimCause], step: Pass, limit: int) -> list[Row]:
        """Runs of workers that are gone, oldest first."""
        if not causes:
            return []
        if self._request.only is not None:
            lost = [row for row in self._named(batch) if row.life.status == RUNNING and row.life.worker in causes]
            return sorted(lost, key=lambda row: row.id)
        gone = json.dumps([(worker, _SUSPECT_FROM[cause]) for worker, cause in causes.items() if cause != "due"])
        return _rows(batch, _LOST, gone, json.dumps(list(self._request.agents)), limit, step.order)

    def _due(self, batch: Batch, seen: Look, step: Pass, limit: int) -> list[Row]:
        """Runs whose time has come, by their place in the queue."""
        now = batch.now
        if self._request.only is not None:
            due = [row for row in self._named(batch) if is_claimable(row.life) and not row.gate]
            due = [row for row in due if row.life.available_at <= now and step.is_for(row.life)]
            return sorted(due, key=_place)[:limit]
        if step.suspects:
            agents = json.dumps(list(self._request.agents))
            return _rows(batch, _DUE_SUSPECTS, agents, now, limit) if seen.suspects else []
        levels = [(level.agent, level.priority) for level in seen.levels if level.first_at <= now]
        text = _DUE_INNOCENT if seen.suspects and step.suspects is False else _DUE
        return _rows(batch, text, json.dumps(levels), now, limit) if levels else []

    def _named(self, batch: Batch) -> list[Row]:
        rows = _rows(batch, statements.RUNS_BY_ID, json.dumps(list(self._request.only or ())))
        return [row for row in rows if row.record.agent in self._request.agents]

    def _next_due_at(self, batch: Batch, seen: Look) -> int | None:
        if self._request.only is None:
            return seen.next_due_at(self._request.agents)
        later = (row.life.available_at for row in self._named(batch) if is_claimable(row.life))
        return min((at for at in later if batch.now < at < NEVER), default=None)

    # ------------------------------------------------------------ taking

    def _end_overdue(self, batch: Batch) -> None:
        for row in batch.adopt(_rows(batch, _OVERDUE, batch.now, _MOST_ENDED_AT_ONCE)):
            self._end_if_overdue(batch, row)
        self._save(batch)  # what this batch has queued or handed back so far can be found and claimed, too

    def _make_up(self, batch: Batch) -> None:
        """Have a clock that was set back put off no run, nor bring one forward once it is right, whoever serves it."""
        while rows := batch.adopt(_rows(batch, PUT_OFF, batch.now, MOST_AT_ONCE)):
            for row in rows:
                life = due.made_up(row.life, batch.now)
                assert life is not None, "the statement and the rule mean the same runs"
                batch.change(row, Change(life, ()))
            place_again(batch, rows)
            self._save(batch)
        batch.put_off.are_made_up(batch.connection, batch.now)

    def _let_enter(self, batch: Batch) -> None:
        """Have runs whose time has come take their tickets, whoever serves them."""
        rows = batch.adopt(_rows(batch, _ENTERING, batch.now, _MOST_ENTERING_AT_ONCE))
        enter(batch, rows)
        self._save(batch)
        batch.claimable |= len(rows) == _MOST_ENTERING_AT_ONCE  # more may be due: whoever waits for runs looks again

    def _take_lost(self, batch: Batch, causes: Mapping[str, ClaimCause], step: Pass) -> None:
        while (room := step.limit - len(self._taken)) > 0:
            rows = batch.adopt(self._lost(batch, causes, step, room))
            before = [row.life for row in rows]
            for row in rows:
                if len(self._taken) < step.limit:
                    self._take(batch, row, causes[str(row.life.worker)], step)
            batch.save()
            if len(rows) < room or [row.life for row in rows] == before:
                break
        self._save(batch)

    def _take_due(self, batch: Batch, seen: Look, step: Pass) -> None:
        while (room := step.limit - len(self._taken)) > 0:
            rows = batch.adopt(self._due(batch, seen, step, room))
            for row in rows:
                if is_claimable(row.life) and not row.gate:  # the end of another may have changed it
                    self._take(batch, row, "due", step)
            self._save(batch)
            if len(rows) < room:
                return

    def _take(self, batch: Batch, row: Row, cause: ClaimCause, step: Pass) -> None:
        """Claim a run, which may also end it or set it aside."""
        if self._end_if_overdue(batch, row):
            return
        change = self._claim(batch, row, cause)
        if not step.allows(change.life):
            return
        batch.change(row, change)
        if row.life.status == RUNNING:
            self._taken.append(row)

    def _claim(self, batch: Batch, row: Row, cause: ClaimCause) -> Change:
        return transitions.claim(row.life, worker=self._request.worker, cause=cause, now=batch.now)

    def _end_if_overdue(self, batch: Batch, row: Row) -> bool:
        run = row.record
        limit = transitions.overdue(run.life, timeout=run.timeout, deadline=run.deadline, now=batch.now)
        if limit is not None:
            batch.change(row, transitions.time_out(run.life, limit, batch.now))
        return limit is not None

    def _save(self, batch: Batch) -> None:
        """Write what was decided so far, and what follows from it for other runs."""
        settle(batch)
        batch.save()

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
