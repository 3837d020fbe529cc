-- The first schema. Times are microseconds since the epoch (UTC) unless a comment says otherwise; durations are microseconds.
-- Whatever a user chooses a name for carries the tenant in its key. A number `n` stands for a run inside this file only.

CREATE TABLE meta (
    key TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

INSERT INTO meta (key, value) VALUES ('generation', lower(hex(randomblob(16))));

CREATE TABLE migration (
    version INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    checksum TEXT NOT NULL,
    applied_at INTEGER NOT NULL
) STRICT;

-- A run: first what never changes, then its lifecycle. `blocked` is 1 while a lane has no room for it.
CREATE TABLE run (
    n INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    tenant TEXT NOT NULL,
    agent TEXT NOT NULL,
    version TEXT NOT NULL,
    session TEXT NOT NULL,
    trigger TEXT,
    priority INTEGER NOT NULL DEFAULT 0,
    created_at INTEGER NOT NULL,
    timeout INTEGER NOT NULL,
    deadline INTEGER,
    idempotency_key TEXT,
    parent TEXT,
    root TEXT,
    depth INTEGER NOT NULL DEFAULT 0,
    causal_depth INTEGER NOT NULL DEFAULT 0,
    retry_of TEXT,
    forked_from TEXT,
    status TEXT NOT NULL CHECK (
        status IN ('queued', 'running', 'waiting', 'succeeded', 'failed', 'cancelled', 'timed_out', 'exhausted')
    ),
    available_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    reason TEXT,
    hold TEXT CHECK (hold IN ('paused', 'diverged', 'in_doubt')),
    dead INTEGER NOT NULL DEFAULT 0,
    cancelling INTEGER NOT NULL DEFAULT 0,
    pausing INTEGER NOT NULL DEFAULT 0,
    fence INTEGER NOT NULL DEFAULT 0,
    worker TEXT,
    claimed_at INTEGER NOT NULL DEFAULT 0,
    attempt INTEGER NOT NULL DEFAULT 0,
    errors INTEGER NOT NULL DEFAULT 0,
    lost INTEGER NOT NULL DEFAULT 0,
    losses INTEGER NOT NULL DEFAULT 0,
    expiries INTEGER NOT NULL DEFAULT 0,
    leased INTEGER NOT NULL DEFAULT 0,
    seq INTEGER NOT NULL DEFAULT 0,
    commit_no INTEGER NOT NULL DEFAULT 0,
    ended_at INTEGER,
    blocked INTEGER NOT NULL DEFAULT 0,
    metadata TEXT NOT NULL DEFAULT '{}'
) STRICT;

-- The queue. Runs of one agent and priority are due in the order of available_at, so a claim seeks once for each such pair and never
-- reads past what is not due yet; the pairs are merged by their place in the queue. `status` is carried along to count queued runs.
CREATE INDEX run_claimable ON run (agent, priority, available_at, status)
    WHERE status IN ('queued', 'waiting') AND hold IS NULL AND blocked = 0;

-- What each worker holds: for heartbeats, and to find what a lost worker left behind.
CREATE INDEX run_running ON run (worker) WHERE status = 'running';

-- Every run with a deadline that has not ended, held and blocked ones too.
CREATE INDEX run_deadline ON run (deadline) WHERE deadline IS NOT NULL AND ended_at IS NULL;

-- Runs that nobody executes and whose leased time is used up: nearly always empty.
CREATE INDEX run_spent ON run (n) WHERE leased >= timeout AND status <> 'running' AND ended_at IS NULL;

CREATE INDEX run_session ON run (tenant, session, id);

-- The journal: the truth. `position` orders the facts of all runs and is never used twice.
CREATE TABLE journal (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    run INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    at INTEGER NOT NULL,
    kind TEXT NOT NULL,
    step TEXT,
    node TEXT,
    data TEXT NOT NULL,
    UNIQUE (run, seq)
) STRICT;

-- `scope` says what the key belongs to: 'agent:<name>' or 'trigger:<name>'. `run` is the run's id.
CREATE TABLE idempotency (
    tenant TEXT NOT NULL,
    scope TEXT NOT NULL,
    key TEXT NOT NULL,
    run TEXT NOT NULL,
    input_digest TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (tenant, scope, key)
) STRICT, WITHOUT ROWID;

-- `lease_until` and `lease` are microseconds on the scale of CLOCK_BOOTTIME, which `boot_id` names. A run's lease is its worker's.
-- `gone` tells why the worker will not come back; its row stays until nothing is running in its name.
CREATE TABLE worker (
    id TEXT PRIMARY KEY,
    host TEXT NOT NULL,
    pid INTEGER NOT NULL,
    capacity INTEGER NOT NULL,
    started_at INTEGER NOT NULL,
    heartbeat_at INTEGER NOT NULL,
    boot_id TEXT NOT NULL,
    lease_until INTEGER NOT NULL,
    lease INTEGER NOT NULL,
    gone TEXT CHECK (gone IN ('closed', 'dead'))
) STRICT, WITHOUT ROWID;

CREATE TABLE session (
    tenant TEXT NOT NULL,
    id TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    metadata TEXT NOT NULL DEFAULT '{}',
    PRIMARY KEY (tenant, id)
) STRICT, WITHOUT ROWID;

-- A value is inline or in a blob; `version` grows with every write.
CREATE TABLE session_value (
    tenant TEXT NOT NULL,
    session TEXT NOT NULL,
    key TEXT NOT NULL,
    version INTEGER NOT NULL,
    value TEXT,
    blob TEXT,
    run TEXT,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (tenant, session, key)
) STRICT, WITHOUT ROWID;

-- A limit that runs pass through in order; `kind` is 'global', 'agent', 'key' or 'session'. `taken` counts granted tickets.
CREATE TABLE lane (
    tenant TEXT NOT NULL,
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    capacity INTEGER NOT NULL,
    taken INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant, kind, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE ticket (
    tenant TEXT NOT NULL,
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    run INTEGER NOT NULL,
    place INTEGER NOT NULL,
    granted INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant, kind, name, run)
) STRICT, WITHOUT ROWID;

CREATE INDEX ticket_next ON ticket (tenant, kind, name, granted, place);
CREATE INDEX ticket_run ON ticket (run);

-- What a parked run needs; `outcome` is set when the wait closes.
CREATE TABLE wait (
    run INTEGER NOT NULL,
    id TEXT NOT NULL,
    type TEXT NOT NULL,
    name TEXT NOT NULL,
    opened_at INTEGER NOT NULL,
    until INTEGER,
    outcome TEXT,
    closed_at INTEGER,
    PRIMARY KEY (run, id)
) STRICT, WITHOUT ROWID;

CREATE INDEX wait_open ON wait (type, name) WHERE outcome IS NULL;

-- Signals are first in, first out for each (run, name); `id` is the sender's, for deduplication.
CREATE TABLE signal (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    run INTEGER NOT NULL,
    name TEXT NOT NULL,
    id TEXT NOT NULL,
    value TEXT,
    blob TEXT,
    received_at INTEGER NOT NULL,
    taken_by TEXT,
    UNIQUE (run, id)
) STRICT;

CREATE INDEX signal_waiting ON signal (run, name, position) WHERE taken_by IS NULL;

-- Bytes by the SHA-256 of their content, in parts of at most 256 KiB. Only a complete one is ever read.
CREATE TABLE blob (
    n INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    size INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    complete INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE blob_chunk (
    blob INTEGER NOT NULL,
    part INTEGER NOT NULL,
    data BLOB NOT NULL,
    PRIMARY KEY (blob, part)
) STRICT;
