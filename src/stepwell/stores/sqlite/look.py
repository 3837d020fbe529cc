"""A look at the queue without touching it: who waits, who holds runs, and whether a limit has passed.

Reads only, in one statement whose cost grows with the number of agents, priorities and workers, never of runs.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Final, NamedTuple

import apsw

from stepwell.domain.outcome import NEVER
from stepwell.stores.sqlite.statements import fetch, sql

# `level` steps through the priorities that an agent's queue holds, `holder` through the workers that hold runs; each
# step is one seek.
_LOOK: Final = sql(
    """
    WITH RECURSIVE
    level (agent, priority) AS (
        SELECT value, (
            SELECT priority FROM run INDEXED BY run_claimable
            WHERE agent = value AND {claimable} ORDER BY priority LIMIT 1
        ) FROM json_each(?1)
        UNION ALL
        SELECT agent, (
            SELECT run.priority FROM run INDEXED BY run_claimable
            WHERE run.agent = level.agent AND run.priority > level.priority AND {claimable}
            ORDER BY run.priority LIMIT 1
        ) FROM level WHERE priority IS NOT NULL
    ),
    holder (id) AS (
        SELECT (SELECT min(worker) FROM run INDEXED BY run_running WHERE status = 'running')
        UNION ALL
        SELECT (SELECT min(worker) FROM run INDEXED BY run_running WHERE status = 'running' AND worker > holder.id)
        FROM holder WHERE holder.id IS NOT NULL
    )
    SELECT
        EXISTS (SELECT 1 FROM run INDEXED BY run_away WHERE {away} AND available_at <= ?2),
        (SELECT min(first) FROM (
            SELECT (
                SELECT min(available_at) FROM run INDEXED BY run_gated
                WHERE agent = value AND blocked = 2 AND available_at > ?2 AND {gated}
            ) AS first FROM json_each(?1)
        )),
        EXISTS (SELECT 1 FROM run INDEXED BY run_suspect
                WHERE agent IN (SELECT value FROM json_each(?1)) AND {suspect} AND available_at <= ?2),
        (SELECT json_group_array(json_array(
            level.agent,
            level.priority,
            (SELECT min(available_at) FROM run INDEXED BY run_claimable
             WHERE run.agent = level.agent AND run.priority = level.priority AND {claimable}),
            (SELECT min(available_at) FROM run INDEXED BY run_claimable
             WHERE run.agent = level.agent AND run.priority = level.priority AND available_at > ?2 AND {claimable})
        )) FROM level WHERE level.priority IS NOT NULL),
        (SELECT json_group_array(json_array(holder.id, boot_id, lease_until, lease, gone))
         FROM holder LEFT JOIN worker ON worker.id = holder.id WHERE holder.id IS NOT NULL),
        EXISTS (SELECT 1 FROM run INDEXED BY run_deadline
                WHERE deadline IS NOT NULL AND deadline <= ?2 AND ended_at IS NULL)
        OR EXISTS (SELECT 1 FROM run INDEXED BY run_spent
                   WHERE leased >= timeout AND status <> 'running' AND ended_at IS NULL)
    """
)

_LOST_AGENTS: Final = (
    "SELECT json_group_array(DISTINCT agent) FROM run INDEXED BY run_running"
    " WHERE status = 'running' AND worker IN (SELECT value FROM json_each(?))"
)


class Level(NamedTuple):
    """The claimable runs of one agent and priority: when the first is due, and the first of those not due yet."""

    agent: str
    priority: int
    first_at: int
    next_at: int | None


class Holder(NamedTuple):
    """A worker in whose name runs are running. All but `id` are `None` when it is not registered."""

    id: str
    boot_id: str | None
    lease_until: int | None
    lease: int | None
    gone: str | None


class Look(NamedTuple):
    """What was seen. `entering` says that runs are due which must take their tickets first, `away_until` is when
    the next of them will be; `suspects` says that one of those is due.
    """

    entering: bool
    away_until: int | None
    suspects: bool
    levels: list[Level]
    holders: list[Holder]
    overdue: bool

    def next_due_at(self, agents: Collection[str]) -> int | None:
        """When the next run of these agents becomes due by itself."""
        moments = (level.next_at for level in self.levels if level.next_at and level.agent in agents)
        return min((at for at in (*moments, self.away_until or NEVER) if at < NEVER), default=None)


def look(connection: apsw.Connection, agents: Collection[str], now: int) -> Look:
    """What the queues of these agents hold now."""
    entering, away_until, suspects, levels, holders, overdue = connection.execute(
        _LOOK, (json.dumps(list(agents)), now)
    ).get
    return Look(
        bool(entering),
        away_until,
        bool(suspects),
        [Level(*level) for level in json.loads(levels)],
        [Holder(*holder) for holder in json.loads(holders)],
        bool(overdue),
    )


def lost_agents(connection: apsw.Connection, workers: Collection[str]) -> frozenset[str]:
    """Whose runs these workers have left behind."""
    return frozenset(fetch(connection, _LOST_AGENTS, (json.dumps(list(workers)),)))
