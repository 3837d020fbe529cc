"""The SQL that batches and readers run, and how many rows travel in one statement.

Rows come back as one JSON text and go in as one VALUES list: SQLite is entered once a statement instead of once a row,
and each entry gives the GIL away, which a busy event loop may then keep for 5 ms. Measured at 1, 10, 50 and 500 rows,
VALUES costs what `executemany` does on an idle machine, and a third to a half of what `json_each` does.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Final

import apsw

from stepwell.domain.run import PRIORITY_STEP, Lifecycle, RunRecord

FACTS: Final = RunRecord._fields[:-1]
LIFE: Final = Lifecycle._fields
ENTRY: Final = ("seq", "at", "kind", "step", "node", "data")
TOUCHED: Final = ("seq", "commit_no", "updated_at", "held")
TIED: Final = ("ties", "blocked")

ROWS_AT_ONCE: Final = 128
"""The most rows of one statement: its text must stay below the 16 KiB up to which APSW keeps prepared statements."""

CLAIMABLE: Final = "status IN ('queued', 'waiting') AND hold IS NULL AND blocked = 0"


GATED: Final = "blocked > 0 AND status IN ('queued', 'waiting') AND hold IS NULL"
"""Runs that their lanes keep from being claimed."""

AWAY: Final = "blocked = 2 AND status IN ('queued', 'waiting') AND hold IS NULL"
"""Those of them that must take their tickets once they are due."""

SUSPECT: Final = f"losses > 1 AND {CLAIMABLE}"
"""Runs that took several workers with them lately, and wait to be claimed."""


def sql(text: str) -> str:
    """Put the column lists and the index's condition into a statement."""
    return (
        text.replace("{life}", ", ".join(LIFE))
        .replace("{run}", ", ".join(("n", *TIED, *FACTS, *LIFE)))
        .replace("{facts}", ", ".join(FACTS))
        .replace("{entry}", ", ".join(ENTRY))
        .replace("{claimable}", CLAIMABLE)
        .replace("{suspect}", SUSPECT)
        .replace("{gated}", GATED)
        .replace("{away}", AWAY)
        .replace("{priority_step}", str(PRIORITY_STEP))
    )


class ManyRows:
    """A statement over a list of rows, `values` standing for them in its text; `single` does the same for one row.

    The list is filled up to a power of two with rows of NULL, so that few texts exist and all stay prepared; the
    statement must pass over rows whose first column is NULL.
    """

    def __init__(self, text: str, single: str, columns: int) -> None:
        self._text = text
        self._single = single
        self._columns = columns
        self._texts: dict[int, str] = {}

    def run(self, cursor: apsw.Cursor, parameters: list[Any]) -> None:
        """Run for all rows, whose columns follow each other in `parameters`."""
        if len(parameters) == self._columns:
            cursor.execute(self._single, parameters)
            return
        most = ROWS_AT_ONCE * self._columns
        for start in range(0, len(parameters), most):
            self._run(cursor, parameters[start : start + most])

    def _run(self, cursor: apsw.Cursor, parameters: list[Any]) -> None:
        rows = len(parameters) // self._columns
        size = 1 << (rows - 1).bit_length()
        parameters.extend([None] * ((size - rows) * self._columns))
        cursor.execute(self._texts.get(size) or self._make(size), parameters)

    def _make(self, size: int) -> str:
        row = f"({','.join('?' * self._columns)})"
        text = self._texts[size] = self._text.replace("{values}", "VALUES " + ",".join([row] * size))
        return text


def inserting(table: str, columns: Iterable[str], on_conflict: str = "") -> ManyRows:
    """Insert rows into a table, in their order."""
    names = tuple(columns)
    places = ", ".join("?" * len(names))

    def text(template: str) -> str:
        return (
            template.replace("{table}", table)
            .replace("{names}", ", ".join(names))
            .replace("{places}", places)
            .replace("{on_conflict}", on_conflict)
        )

    return ManyRows(
        text("INSERT INTO {table} ({names}) SELECT * FROM ({values}) WHERE column1 IS NOT NULL {on_conflict}"),
        text("INSERT INTO {table} ({names}) VALUES ({places}) {on_conflict}"),
        len(names),
    )


def updating(table: str, keys: Iterable[str], columns: Iterable[str]) -> ManyRows:
    """Set columns of rows that exist; a row is the key and then the values."""
    key, names = tuple(keys), tuple(columns)
    words = {
        "{table}": table,
        "{names}": ", ".join((*key, *names)),
        "{changes}": ", ".join(f"{name} = new.{name}" for name in names),
        "{places}": ", ".join(f"{name} = ?{place}" for place, name in enumerate(names, len(key) + 1)),
        "{is_new}": " AND ".join(f"{table}.{name} = new.{name}" for name in key),
        "{is_given}": " AND ".join(f"{name} = ?{place}" for place, name in enumerate(key, 1)),
    }

    def text(template: str) -> str:
        for word, meaning in words.items():
            template = template.replace(word, meaning)
        return template

    return ManyRows(
        text("WITH new ({names}) AS ({values}) UPDATE {table} SET {changes} FROM new WHERE {is_new}"),
        text("UPDATE {table} SET {places} WHERE {is_given}"),
        len(key) + len(names),
    )


INSERT_RUNS: Final = inserting("run", (*FACTS, *LIFE, *TIED))
INSERT_ENTRIES: Final = inserting("journal", ("run", *ENTRY))
INSERT_KEYS: Final = inserting("idempotency", ("tenant", "scope", "key", "run", "input_digest", "created_at"))
UPDATE_TOUCHED: Final = updating("run", ("n",), TOUCHED)
UPDATE_LIVES: Final = updating("run", ("n",), LIFE)
UPDATE_TIES: Final = updating("run", ("n",), TIED)

LIVES_BY_ID: Final = sql(
    "SELECT json_group_array(json_array(n, ties, blocked, id, {life})) FROM run"
    " WHERE id IN (SELECT value FROM json_each(?))"
)
RUNS_BY_ID: Final = sql(
    "SELECT json_group_array(json_array({run})) FROM run WHERE id IN (SELECT value FROM json_each(?))"
)
KEYS: Final = sql(
    "SELECT json_group_array(json_array(tenant, scope, key, run, input_digest)) FROM idempotency"
    " WHERE (tenant, scope, key) IN (SELECT value ->> 0, value ->> 1, value ->> 2 FROM json_each(?))"
)
COUNT_QUEUED: Final = sql(
    "SELECT (SELECT count(*) FROM run INDEXED BY run_claimable WHERE {claimable} AND status = 'queued')"
    " + (SELECT count(*) FROM run INDEXED BY run_gated WHERE {gated} AND status = 'queued')"
)
LAST_RUN: Final = "SELECT coalesce(max(n), 0) FROM run"
JOURNAL_ROWS: Final = sql(
    "SELECT run, {entry} FROM journal WHERE run IN (SELECT value FROM json_each(?)) ORDER BY run, seq"
)
JOURNALS: Final = sql("SELECT json_group_array(json_array(run, {entry})) FROM ({rows})").replace("{rows}", JOURNAL_ROWS)
LANDED: Final = "SELECT 1 FROM journal WHERE run = ? AND seq = ? AND at = ? AND kind = ? AND data = ?"


def fetch(connection: apsw.Connection, text: str, parameters: tuple[Any, ...] = ()) -> Any:
    """The value of a query that gives one JSON text in one row, parsed; `None` when it gives no row."""
    value = connection.execute(text, parameters).get
    return None if value is None else json.loads(value)
