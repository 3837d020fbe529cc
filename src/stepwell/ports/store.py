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
from typing import Literal, NamedTuple, Protocol, TypeAlias

from stepwell.domain.commit import Commit
from stepwell.domain.event import Draft, Entry
from stepwell.domain.outcome import Payload
from stepwell.domain.run import Lease, RunRecord
from stepwell.domain.session import MessageRecord, SessionRecord, SessionValue
from stepwell.domain.submission import DEFAULT_TENANT, Submission
from stepwell.domain.transitions import CancelAnswer
from stepwell.domain.wait import Signal, WaitRecord
from stepwell.ports.notifier import Notifier


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


class Submitted(NamedTuple):
    """The run that exists now. `created` is false when the idempotency key named an earlier one; `lease` is set when
    it was started.
    """

    run: RunRecord
    created: bool
    lease: Lease | None


@dataclass(frozen=True, slots=True)
class ClaimRequest:
    """Which runs a worker would take: at most `limit`, of these agents; only these very runs, when `only` is given.

    A suspect is a run that was lost twice or more without progress since. `suspects` says what to do about them:
    `"skip"` leaves them to others, `"alone"` takes one suspect and nothing else if there is one, `"any"` makes no
    difference between runs.
    """

    worker: str
    limit: int
    agents: Sequence[str]
    only: Sequence[str] | None = None
    suspects: Suspects = "any"


Suspects: TypeAlias = Literal["skip", "alone", "any"]


class Claim(NamedTuple):
    """A run in the hands of a worker, with its whole journal up to the claim."""

    run: RunRecord
    lease: Lease
    journal: list[Entry]


class Claims(NamedTuple):
    """What a claim gave. `next_due_at` is when the next run that these agents serve becomes due by itself, if any is
    known. `suspects` says that a suspect is there to be taken, and was left because the request said so.
    """

    taken: list[Claim]
    next_due_at: int | None
    suspects: bool = False


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
    parent: str | None = None
    ending: str | None = None
    before: str | None = None
    limit: int = 50


@dataclass(frozen=True, slots=True)
class QuestionQuery:
    """A listing of open questions, oldest first: all, or those of an assignee, of a run."""

    tenant: str = DEFAULT_TENANT
    assignee: str | None = None
    run_id: str | None = None
    ending: str | None = None
    limit: int = 1000


class LaneInfo(NamedTuple):
    """A lane as it stands: how many tickets it has, how many are taken, and how many runs stand in line for one."""

    tenant: str
    kind: str
    name: str
    capacity: int
    taken: int
    waiting: int


class Blockage(NamedTuple):
    """A lane that runs stand in line for, and of which so many runs of an agent that nobody serves keep tickets."""

    lane: LaneInfo
    agent: str
    runs: int


@dataclass(frozen=True, slots=True)
class StoreReport:
    """What `doctor` shows: where the store is, what it runs on, how many runs have each status, what looks wrong.

    `unserved` counts, by agent, the runs that have been due for a while, where no live worker executes a run of that
    agent; `blockages` are the lanes that such runs, and those that a dead worker of such an agent left behind, keep
    from others.
    """

    url: str
    version: str
    schema: int
    size_bytes: int
    runs: Mapping[str, int] = field(default_factory=dict)
    unserved: Mapping[str, int] = field(default_factory=dict)
    blockages: Sequence[Blockage] = ()
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
        * With `lanes`: the run stands in line for a ticket of each, and can be claimed once it has them all. A lane
          takes its capacity from the newest submission that names it. A delayed run takes its place when it is due.
        * A session lane that is not free under `busy="reject"`: `Busy` (`session.busy`); under `"interrupt"`: whoever
          holds or awaits its ticket is cancelled; under `"answer"`: the input answers the oldest open question of the
          run that holds the ticket which is one of the submission's `answers`, and that run is given back; without
          such a question the new run stands in line.
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
        * `opens`: a wait for a signal that is there already takes the oldest one of its name, one for a child that has
          ended is not opened; `expires`: closed as timed out, unless something closed the wait before.
        * `writes` whose `expected` is not the key's version: `Conflict` (`session.changed`), and nothing of the commit
          is written.
        * An outcome that ends the run also, in the same write: closes its waits, cancels its children that are not
          detached, tells its parent (`child.ended`), and gives back its tickets. One that only gives back the lease
          keeps the ticket of the session's lane (unless it is `Parked` with `release`), and gives back the others.
        * `submits`: a child that is not detached lives on the tickets of sessions' lanes that the run holds or lives
          on itself. Such a ticket is free when whoever took it has ended, or gave it up, and the last child that lives
          on it has ended: in the write that brings this about. `busy` of a child says nothing, it stands in line.
        """
        ...

    async def signal(self, run_id: str, signal: Signal, *, tenant: str = DEFAULT_TENANT) -> bool:
        """A message arrives at a run: `signal.received`, and the oldest wait open for its name is closed with it.

        * False, and nothing is written, when a signal of that id was received before. The same id with another name or
          value: `Conflict` (`signal.conflict`).
        * A waiting run is due at once if the signal is what it waits for, and not woken otherwise. What nobody waits
          for yet is kept for the next wait of that name, in the order of arrival.
        * `Busy` (`signal.full`) when `MAX_SIGNALS` are kept; `RunEnded`; `NotFound` (`run.unknown`).
        """
        ...

    async def answer(self, question_id: str, value: Payload, *, by: str, tenant: str = DEFAULT_TENANT) -> WaitRecord:
        """A person answers: `wait.closed` with the value, and the run is due at once if it waits.

        `AlreadyAnswered` when somebody did before; `Conflict` (`question.closed`) when its time is over or its run has
        ended; `NotFound` (`question.unknown`).
        """
        ...

    async def cancel(
        self, run_id: str, *, by: str, reason: str | None = None, tenant: str = DEFAULT_TENANT
    ) -> CancelAnswer:
        """Ask for an end, under the rules of `transitions.cancel`; what ends at once ends as by an outcome.
        `NotFound`.
        """
        ...

    async def pause(self, run_id: str, *, by: str, tenant: str = DEFAULT_TENANT) -> RunRecord:
        """Set the run and its live descendants aside, under the rules of `transitions.pause`.

        `NotFound`, `RunEnded`.
        """
        ...

    async def discard(self, run_id: str, *, by: str, tenant: str = DEFAULT_TENANT) -> RunRecord:
        """Take a dead run off the list of the dead. `NotFound`; `Conflict` (`run.not_dead`)."""
        ...

    async def resume(
        self, run_id: str, *, at_seq: int, by: str, drafts: tuple[Draft, ...] = (), verdict: str | None = None
    ) -> RunRecord:
        """Lift a hold, appending `drafts` in front of `run.released`. Live descendants that are paused are resumed too.

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

    async def controls(self, worker_id: str) -> Mapping[str, tuple[int, Control]]:
        """The runs of this worker that somebody asked to cancel or to pause, with their fences. Costs one look at an
        index that is nearly always empty.
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

    async def question(self, question_id: str, *, tenant: str = DEFAULT_TENANT) -> WaitRecord:
        """A question, open or closed. `NotFound` (`question.unknown`)."""
        ...

    async def questions(self, query: QuestionQuery) -> list[WaitRecord]:
        """The open questions that match, oldest first. The assignee is that of the data of `wait.opened`."""
        ...

    async def lanes(self, *, awaited_by: str | None = None, tenant: str = DEFAULT_TENANT) -> list[LaneInfo]:
        """The lanes in which a ticket is taken or awaited, by kind and name; where a run's id is given, only the one in
        which that run stands in line.
        """
        ...

    async def session_value(self, session: str, key: str, *, tenant: str = DEFAULT_TENANT) -> SessionValue | None:
        """What a session keeps under a key."""
        ...

    async def messages(
        self, session: str, *, last: int | None = None, upto: int | None = None, tenant: str = DEFAULT_TENANT
    ) -> list[MessageRecord]:
        """A session's messages in order: of those numbered up to `upto` (default: all) the `last` ones."""
        ...

    async def session(self, session: str, *, tenant: str = DEFAULT_TENANT) -> SessionRecord:
        """The session. `NotFound` (`session.unknown`) when no run of it was ever submitted."""
        ...

    async def sessions(self, *, limit: int = 50, tenant: str = DEFAULT_TENANT) -> list[SessionRecord]:
        """Sessions, the one that changed last first. Those that belong to a single run without a session of its own
        are left out unless they keep something.
        """
        ...

    async def delete_session(self, session: str, *, tenant: str = DEFAULT_TENANT) -> None:
        """Forget what the session keeps. Its runs stay. `Conflict` (`session.busy`) while one has not ended;
        `NotFound`.
        """
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
