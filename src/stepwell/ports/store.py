"""The store: the one place where the truth lives. Queue, journal, workers, values and queries, as one technology
offers them.

Every method that changes something is one atomic write: it happened wholly, durably and visibly to every later read
when the call returns, or not at all when it raises. The conditions listed at each method are what the conformance
suite tests.

Raises, everywhere: `StoreUnavailable` (busy, unreachable; `StoreFull` when no space is left) and `StoreUnusable`
(damaged, or newer than this code). Times are microseconds since the epoch; the store asks its own clock for "now".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from stepwell.domain.event import Draft, Entry
from stepwell.domain.outcome import Commit, Payload
from stepwell.domain.run import Lease, RunRecord
from stepwell.ports.notifier import Notifier

DEFAULT_TENANT = ""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a store can promise. `durable`: survives the process. `shared`: several processes may open it at once."""

    durable: bool
    shared: bool


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """A process that claims and executes. `heartbeat_at` is when it last extended its leases; `running` counts its
    runs.
    """

    id: str
    host: str
    pid: int
    capacity: int
    started_at: int
    heartbeat_at: int = 0
    running: int = 0


class Submission(NamedTuple):
    """A run to be. `input_digest` identifies the input for the comparison of equal idempotency keys.

    With `start_on`, the named worker offers a free slot: the run starts there in the same write, if it is due at once
    and nothing claimable for the same agent is ahead of it. `queue_bound` is the largest number of queued runs at
    which another is accepted.
    """

    id: str
    agent: str
    version: str
    session: str
    input: Payload
    input_digest: str
    available_at: int
    created_at: int
    timeout: int
    tenant: str = DEFAULT_TENANT
    trigger: str | None = None
    priority: int = 0
    deadline: int | None = None
    idempotency_key: str | None = None
    metadata: str = "{}"
    causal_depth: int = 0
    queue_bound: int = 100_000
    start_on: str | None = None


class Submitted(NamedTuple):
    """The run that exists now. `created` is false when the idempotency key named an earlier one; `lease` is set when
    it was started.
    """

    run: RunRecord
    created: bool
    lease: Lease | None


@dataclass(frozen=True, slots=True)
class ClaimRequest:
    """Which runs a worker would take: at most `limit`, of these agents; only these very runs, when `only` is given."""

    worker: str
    limit: int
    agents: Sequence[str]
    only: Sequence[str] | None = None


class Claim(NamedTuple):
    """A run in the hands of a worker, with its whole journal up to the claim."""

    run: RunRecord
    lease: Lease
    journal: list[Entry]


class Claims(NamedTuple):
    """What a claim gave. `next_due_at` is when the next run that these agents serve becomes due by itself, if any is
    known.
    """

    taken: list[Claim]
    next_due_at: int | None


class Control(NamedTuple):
    """What the holder of a lease is told with each answer: whether somebody asked to cancel or to pause the run."""

    cancelling: bool = False
    pausing: bool = False


class Committed(NamedTuple):
    """The number of the last event that a write appended, and what the run's holder is told."""

    seq: int
    control: Control


class Heartbeat(NamedTuple):
    """The answer to a heartbeat: each run that this worker still holds, with its fence and what its holder is told."""

    held: Mapping[str, tuple[int, Control]]


@dataclass(frozen=True, slots=True)
class RunQuery:
    """A listing, newest first. `status` is what people see (holds included); `before` is the id after which the page
    goes on.
    """

    tenant: str = DEFAULT_TENANT
    status: str | None = None
    agent: str | None = None
    session: str | None = None
    ended: bool | None = None
    dead: bool | None = None
    ending: str | None = None
    before: str | None = None
    limit: int = 50


@dataclass(frozen=True, slots=True)
class StoreReport:
    """What `doctor` shows: where the store is, what it runs on, how many runs have each status, what looks wrong."""

    url: str
    version: str
    schema: int
    size_bytes: int
    runs: Mapping[str, int] = field(default_factory=dict)
    unserved: Mapping[str, int] = field(default_factory=dict)
    problems: Sequence[str] = ()


class Store(Protocol):
    """The contract. An instance serves one process; `open` before use, `close` after; both may be called twice."""

    @property
    def capabilities(self) -> Capabilities: ...

    @property
    def notifier(self) -> Notifier: ...

    async def open(self) -> None:
        """Make the store usable, creating or migrating what is missing.

        * Starts nothing and leaves nothing behind when it fails.
        * Refuses a schema newer than this code, a damaged file and a place that cannot be written, each with the
          reason, untouched.
        """
        ...

    async def close(self) -> None:
        """Finish what was accepted, release workers' proofs of life, threads and files. Bounded in time."""
        ...

    # ------------------------------------------------------------ queue

    async def submit(self, submission: Submission) -> Submitted:
        """Create a queued run with its event `run.queued`, or give the one that its idempotency key already names.

        * One (tenant, agent, key) makes one run, whoever races. The same key with another input digest: `Conflict`
          (`idempotency.conflict`), and the first run is untouched.
        * `Busy` (`queue.full`) when the queue holds `queue_bound` runs; the bound is checked within a second, not to
          the run.
        * With `start_on`: also started there, in the same write, under the condition named at `Submission`.
        """
        ...

    async def claim(self, request: ClaimRequest) -> Claims:
        """Give the worker up to `limit` runs, in this order of preference: lost ones, then due ones by their place in
        the queue.

        * Due: status queued or waiting, `available_at` has passed, not held. Never the same run to two workers.
        * Lost: running, and its worker is proven dead (at once) or its lease has run out (without proof).
        * Runs past a limit are ended in the same write, whether served by this worker or not; they are not returned.
        * What is given back satisfies `transitions.claim`; a run whose losses are used up ends dead and is not
          returned.
        * Nothing to claim costs no write.
        """
        ...

    async def commit(self, lease: Lease, write: Commit) -> Committed:
        """Append facts for a leased run and apply the outcome, if there is one, in one write.

        * A fence that is not the current one, or a run that is not running: `LeaseLost`, and nothing is written.
        * Writes of one lease are applied in the order of the calls; one that is refused harms no other.
        * The same `number` twice is written once, and acknowledged again, also when it gave the lease back.
        """
        ...

    async def resume(
        self, run_id: str, *, at_seq: int, by: str, drafts: tuple[Draft, ...] = (), verdict: str | None = None
    ) -> RunRecord:
        """Lift a hold, appending `drafts` in front of `run.released`.

        `Conflict` (`run.changed`) when the run's last event is no longer `at_seq`; `NotFound`; what
        `transitions.resume` raises.
        """
        ...

    # ------------------------------------------------------------ workers

    async def open_worker(self, worker: WorkerInfo, *, lease_seconds: float) -> None:
        """Register a worker and hold a proof of its life that ends with the process, however it ends. Its leases begin
        now.
        """
        ...

    async def close_worker(self, worker_id: str) -> None:
        """The worker stops: runs that it still holds count as handed back without an event of their own, claimable at
        once as expired.
        """
        ...

    def abandon_worker(self, worker_id: str) -> None:
        """Drop the proof of life and say nothing, as a killed process would. For tests."""
        ...

    def heartbeat(self, worker_id: str, *, lease_seconds: float) -> Heartbeat:
        """Extend all leases of the worker. Blocking: called from a thread of its own, on a connection of its own.

        A run that is missing in the answer is lost to this worker.
        """
        ...

    async def workers(self) -> list[WorkerInfo]:
        """The workers that are registered and not known to be dead, oldest first."""
        ...

    # ------------------------------------------------------------ reading

    async def get(self, run_id: str, *, tenant: str = DEFAULT_TENANT) -> RunRecord:
        """The run. `NotFound` (`run.unknown`) when there is none of that id for that tenant."""
        ...

    async def find(self, query: RunQuery) -> list[RunRecord]:
        """The runs that match all given fields, newest first; empty when none does."""
        ...

    async def journal(
        self, run_id: str, *, after: int = 0, limit: int = 1000, kinds: Sequence[str] = ()
    ) -> list[Entry]:
        """Up to `limit` facts with numbers above `after`, in order, of these kinds only where some are named; else
        empty.
        """
        ...

    async def last_entry(self, run_id: str, kinds: Sequence[str]) -> Entry | None:
        """The newest fact of one of these kinds, or `None`."""
        ...

    async def report(self) -> StoreReport:
        """Facts about the store itself, for people."""
        ...

    # ------------------------------------------------------------ values that lie beside the journal

    async def put_blob(self, content: bytes) -> str:
        """Keep bytes and return their name, which depends on nothing but the content. Must precede the commit that
        refers to it.
        """
        ...

    async def get_blob(self, ref: str) -> bytes:
        """The bytes. `NotFound` (`blob.unknown`) when there are none of that name."""
        ...
