"""What readers ask: runs, journals, workers, and facts about the file. Each function is one question."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator, Sequence
from typing import Any, Final

import apsw

from stepwell.domain.errors import NotFound
from stepwell.domain.event import Entry
from stepwell.domain.run import RunRecord
from stepwell.domain.wait import WaitRecord
from stepwell.ports.store import Blockage, Control, LaneInfo, QuestionQuery, RunQuery, StoreReport, WorkerInfo
from stepwell.stores.sqlite import files, worker_lock
from stepwell.stores.sqlite.requests import unknown_question
from stepwell.stores.sqlite.rows import whole_row
from stepwell.stores.sqlite.statements import fetch, sql
from stepwell.stores.sqlite.waits import record_of, waits_sql

_ALARMING_LOG: Final = 64 * 1024 * 1024
_UNSERVED_AFTER: Final = 10_000_000

_GET: Final = sql("SELECT json_array({run}) FROM run WHERE id = ? AND tenant = ?")
_FIND: Final = sql(
    "SELECT json_group_array(json_array({run})) FROM (SELECT * FROM run WHERE {conditions} ORDER BY id DESC LIMIT ?)"
)
_JOURNAL: Final = sql(
    "SELECT json_group_array(json_array({entry})) FROM (SELECT {entry} FROM journal"
    " WHERE run = (SELECT n FROM run WHERE id = ?) AND seq > ? ORDER BY seq LIMIT ?)"
)
_JOURNAL_OF_KINDS: Final = _JOURNAL.replace("ORDER BY", "AND kind IN (SELECT value FROM json_each(?)) ORDER BY")
_LAST: Final = sql(
    "SELECT json_array({entry}) FROM journal WHERE run = (SELECT n FROM run WHERE id = ?)"
    " AND kind IN (SELECT value FROM json_each(?)) ORDER BY seq DESC LIMIT 1"
)
_WORKERS: Final = (
    "SELECT json_group_array(json_array(boot_id, id, host, pid, capacity, started_at, heartbeat_at, running)) FROM ("
    " SELECT *, (SELECT count(*) FROM run INDEXED BY run_running"
    " WHERE run.status = 'running' AND run.worker = worker.id) AS running"
    " FROM worker WHERE gone IS NULL ORDER BY started_at, id)"
)
_STATUSES: Final = (
    "SELECT json_group_object(shown, runs)"
    " FROM (SELECT coalesce(hold, status) AS shown, count(*) AS runs FROM run GROUP BY 1)"
)
# ?1 are the workers that live.
_SERVED: Final = (
    "(SELECT agent FROM run INDEXED BY run_running"
    " WHERE status = 'running' AND worker IN (SELECT value FROM json_each(?1)))"
)
_UNSERVED: Final = sql(
    "SELECT json_group_object(agent, runs) FROM (SELECT agent, count(*) AS runs FROM ("
    " SELECT agent FROM run INDEXED BY run_claimable WHERE {claimable} AND available_at <= ?2"
    " UNION ALL SELECT agent FROM run INDEXED BY run_away WHERE {away} AND available_at <= ?2"
    ") WHERE agent NOT IN {served} GROUP BY agent)"
).replace("{served}", _SERVED)
_BLOCKAGES: Final = (
    "SELECT json_group_array(json_array(tenant, kind, name, capacity, taken, waiting, agent, runs)) FROM ("
    " SELECT lane.*, run.agent, count(*) AS runs, (SELECT count(*) FROM ticket AS line INDEXED BY ticket_line"
    " WHERE line.lane = lane.n AND line.state = 1) AS waiting"
    " FROM ticket CROSS JOIN run ON run.n = ticket.run CROSS JOIN lane ON lane.n = ticket.lane"
    " WHERE ticket.state > 1 AND run.agent NOT IN {served} AND (run.status = 'running'"
    " OR run.status IN ('queued', 'waiting') AND run.hold IS NULL AND run.blocked <> 1 AND run.available_at <= ?2)"
    " GROUP BY lane.n, run.agent HAVING waiting > 0 ORDER BY kind, name, run.agent)"
).replace("{served}", _SERVED)
_CONTROLS: Final = (
    "SELECT json_group_object(id, json_array(fence, cancelling, pausing)) FROM run INDEXED BY run_control"
    " WHERE status = 'running' AND cancelling + pausing > 0 AND worker = ?"
)
_LANES: Final = (
    "SELECT json_group_array(json_array(tenant, kind, name, capacity, taken, waiting)) FROM ("
    " SELECT *, (SELECT count(*) FROM ticket INDEXED BY ticket_line WHERE lane = lane.n AND state = 1) AS waiting"
    " FROM lane WHERE tenant = ? AND (taken > 0 OR EXISTS"
    " (SELECT 1 FROM ticket INDEXED BY ticket_line WHERE lane = lane.n AND state = 1)) ORDER BY kind, name)"
)
_LANE_AWAITED: Final = _LANES.replace(
    " ORDER BY kind, name",
    " AND n = (SELECT lane FROM ticket WHERE run = (SELECT n FROM run WHERE id = ?) AND state = 1)",
)
_QUESTION: Final = waits_sql(
    "SELECT {wait} FROM wait JOIN run ON run.n = wait.run"
    " WHERE wait.id = ? AND wait.tenant = ? AND wait.type = 'question'"
)
_QUESTIONS: Final = waits_sql(
    "SELECT json_group_array(json(record)) FROM (SELECT {wait} AS record FROM wait CROSS JOIN run ON run.n = wait.run"
    " WHERE wait.type = 'question' AND wait.outcome IS NULL AND {conditions} ORDER BY wait.n LIMIT ?)"
)


def get(connection: apsw.Connection, run_id: str, tenant: str) -> RunRecord:
    """The run, or `NotFound`."""
    columns = fetch(connection, _GET, (run_id, tenant))
    if columns is None:
        raise NotFound(f"there is no run {run_id}", code="run.unknown", hint="see: stepwell runs list")
    return whole_row(columns).record


def find(connection: apsw.Connection, query: RunQuery) -> list[RunRecord]:
    """The runs that match all given fields, newest first."""
    conditions = list(_conditions(query))
    text = _FIND.replace("{conditions}", " AND ".join(condition for condition, _ in conditions))
    arguments = [argument for _, given in conditions for argument in given]
    return [whole_row(columns).record for columns in fetch(connection, text, (*arguments, query.limit))]


def _conditions(query: RunQuery) -> Iterator[tuple[str, Sequence[Any]]]:
    yield "tenant = ?", (query.tenant,)
    if query.status is not None:
        yield "coalesce(hold, status) = ?", (query.status,)
    if query.agent is not None:
        yield "agent = ?", (query.agent,)
    if query.session is not None:
        yield "session = ?", (query.session,)
    if query.ended is not None:
        yield "(ended_at IS NOT NULL) = ?", (int(query.ended),)
    if query.dead is not None:
        yield "dead = ?", (int(query.dead),)
    if query.parent is not None:
        yield "parent = ?", (query.parent,)
    if query.ending:
        yield "substr(id, ?) = ?", (-len(query.ending), query.ending)
    if query.before is not None:
        yield "id < ?", (query.before,)


def journal(connection: apsw.Connection, run_id: str, after: int, limit: int, kinds: Sequence[str]) -> list[Entry]:
    """Facts of the run with numbers above `after`, in order, of these kinds only where some are named."""
    if kinds:
        found = fetch(connection, _JOURNAL_OF_KINDS, (run_id, after, json.dumps(list(kinds)), limit))
    else:
        found = fetch(connection, _JOURNAL, (run_id, after, limit))
    return [Entry._make(entry) for entry in found]


def last_entry(connection: apsw.Connection, run_id: str, kinds: Sequence[str]) -> Entry | None:
    """The newest fact of one of these kinds."""
    entry = fetch(connection, _LAST, (run_id, json.dumps(list(kinds))))
    return None if entry is None else Entry._make(entry)


def controls(connection: apsw.Connection, worker_id: str) -> dict[str, tuple[int, Control]]:
    """The runs of the worker that somebody asked to cancel or to pause, with their fences."""
    found = fetch(connection, _CONTROLS, (worker_id,))
    return {
        run_id: (fence, Control(bool(cancelling), bool(pausing)))
        for run_id, (fence, cancelling, pausing) in found.items()
    }


def lanes(connection: apsw.Connection, tenant: str, awaited_by: str | None) -> list[LaneInfo]:
    """The lanes in which a ticket is taken or awaited, by kind and name; where a run is given, the one in which it
    stands in line.
    """
    if awaited_by is None:
        found = fetch(connection, _LANES, (tenant,))
    else:
        found = fetch(connection, _LANE_AWAITED, (tenant, awaited_by))
    return [LaneInfo._make(columns) for columns in found]


def question(connection: apsw.Connection, question_id: str, tenant: str) -> WaitRecord:
    """A question, open or closed, or `NotFound`."""
    columns = fetch(connection, _QUESTION, (question_id, tenant))
    if columns is None:
        raise unknown_question(question_id)
    return record_of(columns)


def questions(connection: apsw.Connection, query: QuestionQuery) -> list[WaitRecord]:
    """The open questions that match, oldest first."""
    conditions = list(_question_conditions(query))
    text = _QUESTIONS.replace("{conditions}", " AND ".join(condition for condition, _ in conditions))
    arguments = [argument for _, given in conditions for argument in given]
    return [record_of(columns) for columns in fetch(connection, text, (*arguments, query.limit))]


def _question_conditions(query: QuestionQuery) -> Iterator[tuple[str, Sequence[Any]]]:
    yield "wait.tenant = ?", (query.tenant,)
    if query.assignee is not None:
        yield "wait.assignee = ?", (query.assignee,)
    if query.run_id is not None:
        yield "wait.run = (SELECT n FROM run WHERE id = ?)", (query.run_id,)
    if query.ending:
        yield "substr(wait.id, ?) = ?", (-len(query.ending), query.ending)


def workers(connection: apsw.Connection, folder: str, boot_id: str) -> list[WorkerInfo]:
    """The workers that are registered and not known to be dead, oldest first."""
    found = fetch(connection, _WORKERS)
    return [WorkerInfo(*info) for boot, *info in found if boot == boot_id and not worker_lock.is_dead(folder, info[0])]


def report(connection: apsw.Connection, path: str, folder: str, boot_id: str, now: int) -> StoreReport:
    """Facts about the file, for people. Reads all of it."""
    waiting = json.dumps([worker.id for worker in workers(connection, folder, boot_id)]), now - _UNSERVED_AFTER
    return StoreReport(
        url=f"sqlite:///{path}",
        version=f"SQLite {apsw.sqlite_lib_version()}",
        schema=int(connection.execute("PRAGMA user_version").get),
        size_bytes=sum(files.size(path + ending) for ending in ("", "-wal")),
        runs=fetch(connection, _STATUSES),
        unserved=fetch(connection, _UNSERVED, waiting),
        blockages=[
            Blockage(LaneInfo._make(lane), agent, runs) for *lane, agent, runs in fetch(connection, _BLOCKAGES, waiting)
        ],
        problems=tuple(_problems(connection, path)),
    )


def _problems(connection: apsw.Connection, path: str) -> Iterator[str]:
    for (finding,) in connection.execute("PRAGMA quick_check(5)").fetchall():
        if finding != "ok":
            yield f"the file is damaged: {finding}"
    if files.size(path + "-wal") > _ALARMING_LOG:
        yield "the write-ahead log is larger than 64 MiB: a reader keeps it from being moved into the file"
    if stat.S_IMODE(os.stat(path).st_mode) & 0o077:
        yield f"others than the owner may read the file: chmod 600 {path}"
