-- Waits, children, sessions and lanes.

-- `ties` says with what other rows a run is connected, so that those without any pay nothing for it: 1 it has a parent, 2 it has made
-- children, 4 it has opened waits, 8 it passes through lanes.
ALTER TABLE run ADD COLUMN parent_step TEXT;
ALTER TABLE run ADD COLUMN detached INTEGER NOT NULL DEFAULT 0;
ALTER TABLE run ADD COLUMN hooked INTEGER NOT NULL DEFAULT 0;
ALTER TABLE run ADD COLUMN origin TEXT;
ALTER TABLE run ADD COLUMN held INTEGER NOT NULL DEFAULT 0;
ALTER TABLE run ADD COLUMN ties INTEGER NOT NULL DEFAULT 0;

-- The children of a run: those that live have no `ended_at`.
CREATE INDEX run_family ON run (parent, ended_at) WHERE parent IS NOT NULL;

-- What somebody asked of running runs: nearly always empty.
CREATE INDEX run_control ON run (worker) WHERE status = 'running' AND cancelling + pausing > 0;

-- Runs that took several workers with them, and wait to be claimed again: nearly always empty.
CREATE INDEX run_suspect ON run (agent, available_at)
    WHERE losses > 1 AND status IN ('queued', 'waiting') AND hold IS NULL AND blocked = 0;

-- What a run needs, from the moment it says so; `outcome` is set when the wait closes. `n` is the order of opening. `id` is the run's
-- name for it, and for questions the name by which they are answered. `assignee` is that of `data`.
DROP TABLE wait;
CREATE TABLE wait (
    n INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    run INTEGER NOT NULL,
    tenant TEXT NOT NULL,
    type TEXT NOT NULL,
    name TEXT NOT NULL,
    step TEXT,
    until INTEGER,
    "join" TEXT,
    data TEXT NOT NULL,
    assignee TEXT,
    opened_at INTEGER NOT NULL,
    outcome TEXT,
    closed_at INTEGER,
    "by" TEXT
) STRICT;

CREATE INDEX wait_open ON wait (run) WHERE outcome IS NULL;
CREATE INDEX wait_question ON wait (tenant, n) WHERE type = 'question' AND outcome IS NULL;
CREATE INDEX wait_assigned ON wait (tenant, assignee, n)
    WHERE type = 'question' AND outcome IS NULL AND assignee IS NOT NULL;

-- Signals are first in, first out for each (run, name); `id` is the sender's, for deduplication, and `digest` tells whether the same id
-- came with the same name and value. The value itself stands in the journal. `taken_by` is the wait that a signal has closed.
DROP TABLE signal;
CREATE TABLE signal (
    position INTEGER PRIMARY KEY,
    run INTEGER NOT NULL,
    id TEXT NOT NULL,
    name TEXT NOT NULL,
    digest TEXT NOT NULL,
    received_at INTEGER NOT NULL,
    taken_by TEXT,
    UNIQUE (run, id)
) STRICT;

CREATE INDEX signal_kept ON signal (run, name, position) WHERE taken_by IS NULL;

-- A session is a row once it is named or keeps something; `changed` orders sessions by their last change. Before this version a session
-- was known by its runs alone.
DROP TABLE session;
CREATE TABLE session (
    tenant TEXT NOT NULL,
    id TEXT NOT NULL,
    named INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    changed INTEGER NOT NULL,
    PRIMARY KEY (tenant, id)
) STRICT, WITHOUT ROWID;

CREATE INDEX session_changed ON session (tenant, changed);

INSERT INTO session (tenant, id, named, created_at, updated_at, changed)
SELECT tenant, session, 1, min(created_at), max(created_at), max(created_at)
FROM run WHERE session <> 'ses_' || substr(id, 5) GROUP BY tenant, session;

ALTER TABLE session_value ADD COLUMN size INTEGER NOT NULL DEFAULT 0;

CREATE TABLE session_message (
    tenant TEXT NOT NULL,
    session TEXT NOT NULL,
    number INTEGER NOT NULL,
    role TEXT NOT NULL,
    value TEXT,
    blob TEXT,
    size INTEGER NOT NULL DEFAULT 0,
    run TEXT,
    at INTEGER NOT NULL,
    PRIMARY KEY (tenant, session, number)
) STRICT, WITHOUT ROWID;

-- Runs whose lanes have no room (`blocked` 1) or that must take their tickets again once they are due (2): see domain/lane.py. Both
-- count for the queue's bound; those of the second kind are found by their time.
CREATE INDEX run_gated ON run (agent, blocked, available_at, status)
    WHERE blocked > 0 AND status IN ('queued', 'waiting') AND hold IS NULL;

CREATE INDEX run_away ON run (available_at) WHERE blocked = 2 AND status IN ('queued', 'waiting') AND hold IS NULL;

-- A limit that runs pass through in order; `kind` is 'session', 'key', 'agent' or 'global'. `taken` counts granted tickets.
DROP TABLE lane;
CREATE TABLE lane (
    n INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL,
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    capacity INTEGER NOT NULL,
    taken INTEGER NOT NULL,
    UNIQUE (tenant, kind, name)
) STRICT;

-- A run's ticket of a lane: `state` is 0 unused, 1 in line with the place (fresh, at, number), 2 granted.
DROP TABLE ticket;
CREATE TABLE ticket (
    run INTEGER NOT NULL,
    lane INTEGER NOT NULL,
    state INTEGER NOT NULL,
    fresh INTEGER NOT NULL,
    at INTEGER NOT NULL,
    number INTEGER NOT NULL,
    PRIMARY KEY (run, lane)
) STRICT, WITHOUT ROWID;

CREATE INDEX ticket_line ON ticket (lane, fresh, at, number) WHERE state = 1;
CREATE INDEX ticket_granted ON ticket (lane) WHERE state = 2;
