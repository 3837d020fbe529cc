"""A run: one submission to one end. What is known of it, what its status may be, and who may write for it.

`Lifecycle` holds the facts that transitions change; `RunRecord` adds those that never change. Times are microseconds
since the epoch (UTC), durations microseconds, unless a name says otherwise.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple, TypeAlias

RunStatus: TypeAlias = Literal[
    "queued",
    "running",
    "waiting",
    "paused",
    "diverged",
    "in_doubt",
    "succeeded",
    "failed",
    "cancelled",
    "timed_out",
    "exhausted",
]

QUEUED: Final = "queued"
RUNNING: Final = "running"
WAITING: Final = "waiting"
SUCCEEDED: Final = "succeeded"
FAILED: Final = "failed"
CANCELLED: Final = "cancelled"
TIMED_OUT: Final = "timed_out"
EXHAUSTED: Final = "exhausted"

PAUSED: Final = "paused"
DIVERGED: Final = "diverged"
IN_DOUBT: Final = "in_doubt"

HOLDS: Final = frozenset({PAUSED, DIVERGED, IN_DOUBT})
ENDED: Final = frozenset({SUCCEEDED, FAILED, CANCELLED, TIMED_OUT, EXHAUSTED})
STATUSES: Final = (
    QUEUED,
    RUNNING,
    WAITING,
    PAUSED,
    DIVERGED,
    IN_DOUBT,
    SUCCEEDED,
    FAILED,
    CANCELLED,
    TIMED_OUT,
    EXHAUSTED,
)

MAX_CONSECUTIVE_LOSSES: Final = 3
MAX_LOSSES_AND_EXPIRIES: Final = 20
CLEANING_UP: Final = 2
"""`Lifecycle.cancelling` of a run that was claimed for its clean-up; 1 says that somebody asked for the end."""
SUSPECT_AFTER: Final = 2
"""So many losses in a row make a run a suspect: it may be what kills its workers, and is executed alone."""

PRIORITY_RANGE: Final = 100
PRIORITY_STEP: Final = 30_000_000
"""One point of priority is worth this much earlier a place in the queue (30 s), so that nothing starves."""


class Lifecycle(NamedTuple):
    """The changing part of a run.

    `hold` sets the run aside until somebody resumes it. `fence` grows with every claim and every forced end. `attempt`
    is the number of the current try; `errors` counts those that ended in an exception, `lost` those whose worker
    provably died, `expiries` leases that ran out without proof, `losses` the proven ones in a row without a commit in
    between. `seq` is the last event's number, `commit_no` the last accepted commit of a worker: a commit whose answer
    got lost is recognised by (fence, commit_no). `leased` is the time that workers spent on the run before the present
    lease, `held` what the present one had spent when it last wrote: both are measured on the workers' own scale of
    durations, so that a jump of the wall clock neither spends nor gives time.

    `timed_at` is when it was decided at which moment the run is available. `made_up` is by how much `available_at` is
    earlier than that moment, since the clock was set back meanwhile: see `domain.due`.
    """

    status: str
    available_at: int
    updated_at: int
    reason: str | None = None
    hold: str | None = None
    dead: int = 0
    cancelling: int = 0
    pausing: int = 0
    fence: int = 0
    worker: str | None = None
    claimed_at: int = 0
    attempt: int = 0
    errors: int = 0
    lost: int = 0
    losses: int = 0
    expiries: int = 0
    leased: int = 0
    seq: int = 0
    commit_no: int = 0
    ended_at: int | None = None
    held: int = 0
    timed_at: int = 0
    made_up: int = 0

    def stamped(self, seq: int, at: int) -> Lifecycle:
        """With the number and the time of its last event: what every write changes, at half the cost of `_replace`."""
        return tuple.__new__(Lifecycle, (*self[:2], at, *self[3:17], seq, *self[18:]))

    @property
    def ended(self) -> bool:
        """Whether the run has reached its end."""
        return self.ended_at is not None

    @property
    def shown(self) -> str:
        """The status that people see: the hold, where there is one."""
        return self.hold or self.status


class RunRecord(NamedTuple):
    """A run as stored. `timeout` bounds the leased time, `deadline` is a moment; `metadata` is the text of a JSON
    object.

    A child names its `parent`, the call there that started it (`parent_step`) and the `root` of the tree; `detached`
    lets it outlive its parent. `hooked` says that its agent has a clean-up for cancels. Effects are identified by
    `origin`, the first of the runs that this one retries, where there is one.
    """

    id: str
    tenant: str
    agent: str
    version: str
    session: str
    trigger: str | None
    priority: int
    created_at: int
    timeout: int
    deadline: int | None
    idempotency_key: str | None
    metadata: str
    parent: str | None
    root: str | None
    depth: int
    causal_depth: int
    retry_of: str | None
    forked_from: str | None
    parent_step: str | None
    detached: int
    hooked: int
    origin: str | None
    life: Lifecycle


class Lease(NamedTuple):
    """A worker's right to write for a run: valid while the run is running with this very fence."""

    run_id: str
    fence: int
    worker: str


def place_in_queue(available_at: int, priority: int) -> int:
    """The moment by which due runs are ordered: earlier for a higher priority."""
    return available_at - priority * PRIORITY_STEP
