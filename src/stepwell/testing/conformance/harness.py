"""The harness: a place to keep data in, the stores that see it, a clock, and short ways to say what tests say often.

Made by the adapter's fixture, one for each test. It knows no store; it is given a way to make them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any, Final

from stepwell.domain.commit import Commit
from stepwell.domain.event import Draft, Entry
from stepwell.domain.ids import QUESTION, RUN, SIGNAL, WORKER, derived_id, make_id, own_session
from stepwell.domain.outcome import NEVER, Outcome, Parked, Payload
from stepwell.domain.run import Lease, RunRecord
from stepwell.domain.submission import DEFAULT_TENANT, Submission
from stepwell.domain.values import dumps, loads
from stepwell.domain.wait import CHILD, Signal, Wait
from stepwell.domain.wait import QUESTION as QUESTION_WAIT
from stepwell.domain.wait import SIGNAL as SIGNAL_WAIT
from stepwell.ports.clock import Clock
from stepwell.ports.store import (
    Capabilities,
    Claim,
    ClaimRequest,
    Committed,
    Heartbeat,
    Store,
    WorkerInfo,
)
from stepwell.testing.clock import ManualClock

AGENT: Final = "audit"
LEASE: Final = 30.0
SECOND: Final = 1_000_000
MINUTE: Final = 60 * SECOND
HOUR: Final = 3600 * SECOND


class Harness:
    """Stores over one place: `make` gives one more view of it. A store that is not shared is made once."""

    def __init__(self, make: Callable[[Clock], Store]) -> None:
        self.clock = ManualClock()
        self._make = make
        self._stores: list[Store] = []
        self._numbers = count(1)

    # ------------------------------------------------------------ stores

    @property
    def capabilities(self) -> Capabilities:
        """What the store says of itself, known once one is made."""
        return self._stores[0].capabilities

    async def make(self) -> Store:
        """An open store on the data: the view of another process, where the store can be shared."""
        if self._stores and not self.capabilities.shared:
            return self._stores[0]
        store = self._make(self.clock)
        self._stores.append(store)
        await store.open()
        return store

    async def views(self) -> tuple[Store, Store]:
        """Two views of the same data; the same one twice where the store cannot be shared."""
        return await self.make(), await self.make()

    async def reopen(self) -> Store:
        """Close every store and open one anew on the same data. For durable stores."""
        await self.close()
        return await self.make()

    async def close(self) -> None:
        """Close every store that was made."""
        while self._stores:
            await self._stores.pop().close()

    # ------------------------------------------------------------ subjects

    def submission(self, *, delay: float = 0, **changes: Any) -> Submission:
        """A submission that is due in `delay` seconds; `changes` replace its fields."""
        now = self.clock.now()
        run_id = self._id(RUN)
        values: dict[str, Any] = {
            "id": run_id,
            "agent": AGENT,
            "version": "1",
            "session": own_session(run_id),
            "input": Payload('{"package":"wheel"}'),
            "input_digest": "wheel",
            "available_at": now + round(delay * SECOND),
            "created_at": now,
            "timeout": HOUR,
        }
        return Submission(**(values | changes))

    async def submit(self, store: Store, *, delay: float = 0, **changes: Any) -> RunRecord:
        """Submit a run and give it."""
        return (await store.submit(self.submission(delay=delay, **changes))).run

    async def worker(self, store: Store, *, lease_seconds: float = LEASE) -> str:
        """Open a worker and give its id."""
        info = WorkerInfo(self._id(WORKER), host="here", pid=1, capacity=16, started_at=self.clock.now())
        await store.open_worker(info, lease_seconds=lease_seconds)
        return info.id

    async def started(self, store: Store, **changes: Any) -> Lease:
        """Submit a run and have a new worker take it."""
        run = await self.submit(store, **changes)
        [claim] = await take(store, await self.worker(store), agents=(run.agent,), only=(run.id,))
        return claim.lease

    async def ended(self, store: Store, outcome: Outcome, **changes: Any) -> RunRecord:
        """Submit a run and have a new worker bring it to this outcome."""
        lease = await self.started(store, **changes)
        await store.commit(lease, Commit(1, outcome=outcome))
        return await store.get(lease.run_id, tenant=changes.get("tenant", DEFAULT_TENANT))

    # ------------------------------------------------------------ waits and children

    def signal(self, name: str = "go", value: str = "1", **changes: Any) -> Signal:
        """A signal with an id of its own."""
        return Signal(**({"id": self._id(SIGNAL), "name": name, "value": Payload(value)} | changes))

    def signal_wait(self, name: str = "go", **changes: Any) -> Wait:
        """A wait for a signal of that name."""
        return self._wait("w_", SIGNAL_WAIT, name, changes, {})

    def question(self, text: str = "Ship it?", *, assignee: str | None = None, **changes: Any) -> Wait:
        """A question to a person."""
        return self._wait(QUESTION, QUESTION_WAIT, text, changes, {"assignee": assignee} if assignee else {})

    def child_wait(self, child_id: str, **changes: Any) -> Wait:
        """A wait for the end of a child; another event tells of it already."""
        return self._wait("w_", CHILD, child_id, {"data": ""} | changes, {})

    def child_of(self, parent: RunRecord, number: int = 1, **changes: Any) -> Submission:
        """The child that a call of the parent makes, the same for the same call."""
        step = f"0/{number}"
        values: dict[str, Any] = {
            "id": derived_id(RUN, parent.id, step),
            "parent": parent.id,
            "parent_step": step,
            "root": parent.root or parent.id,
            "depth": parent.depth + 1,
            "session": parent.session,
            "tenant": parent.tenant,
        }
        return self.submission(**(values | changes))

    async def parked(self, store: Store, *waits: Wait, wake_at: int = NEVER, **changes: Any) -> RunRecord:
        """Submit a run, have a new worker open these waits in it and park it."""
        lease = await self.started(store, **changes)
        await self.park(store, lease, *waits, wake_at=wake_at)
        return await store.get(lease.run_id, tenant=changes.get("tenant", DEFAULT_TENANT))

    async def park(self, store: Store, lease: Lease, *waits: Wait, wake_at: int = NEVER, number: int = 1) -> None:
        """Open these waits and park the run, in two writes with the numbers from `number` on."""
        opened = await store.commit(lease, Commit(number, opens=waits))
        await store.commit(lease, Commit(number + 1, outcome=Parked(wake_at, "[]", opened.seq)))

    async def finish(self, store: Store, run_id: str, outcome: Outcome, **written: Any) -> None:
        """Have a new worker take this very run and bring it to this outcome."""
        run = await store.get(run_id)
        [claim] = await take(store, await self.worker(store), agents=(run.agent,), only=(run_id,))
        await store.commit(claim.lease, Commit(1, outcome=outcome, **written))

    def _wait(self, prefix: str, kind: str, name: str, changes: dict[str, Any], told: dict[str, Any]) -> Wait:
        wait_id = self._id(prefix)
        data = dumps({"wait": wait_id, "type": kind, "name": name} | told)
        return Wait(**({"id": wait_id, "type": kind, "name": name, "step": "0/1", "data": data} | changes))

    def _id(self, prefix: str) -> str:
        return make_id(prefix, self.clock.now(), next(self._numbers).to_bytes(8, "big"))


async def take(
    store: Store,
    worker_id: str,
    *,
    limit: int = 100,
    agents: Sequence[str] = (AGENT,),
    only: Sequence[str] | None = None,
) -> list[Claim]:
    """What a claim gives the worker."""
    return (await store.claim(ClaimRequest(worker_id, limit, agents, only))).taken


async def is_due(store: Store, worker_id: str, run_id: str) -> bool:
    """Whether a claim gives the worker this run, which it then holds."""
    return [claim.run.id for claim in await take(store, worker_id, only=(run_id,))] == [run_id]


async def take_over(
    store: Store, worker_id: str, *, limit: int = 100, only: Sequence[str] | None = None
) -> list[Claim]:
    """What a claim gives the worker once the death of another is proven: soon, and long before any lease runs out."""
    async with asyncio.timeout(10):
        while not (taken := await take(store, worker_id, limit=limit, only=only)):  # noqa: ASYNC110
            await asyncio.sleep(0.01)  # a proof is found by asking again
    return taken


async def append(store: Store, lease: Lease, number: int, *texts: str) -> Committed:
    """Commit one note for each text."""
    return await store.commit(lease, Commit(number, tuple(note(text) for text in texts)))


async def beat(store: Store, worker_id: str, *, lease_seconds: float = LEASE) -> Heartbeat:
    """Send a heartbeat from a thread, as workers do."""
    return await asyncio.to_thread(store.heartbeat, worker_id, lease_seconds=lease_seconds)


async def events(store: Store, run_id: str) -> list[Entry]:
    """The whole journal of a run. Fails when its numbers are not 1..n."""
    entries = await store.journal(run_id, limit=1_000_000)
    assert [entry.seq for entry in entries] == list(range(1, len(entries) + 1))
    return entries


async def kinds(store: Store, run_id: str) -> list[str]:
    """The kinds of a run's events, in order."""
    return [entry.kind for entry in await events(store, run_id)]


async def told(store: Store, run_id: str, kind: str) -> list[dict[str, Any]]:
    """The data of a run's events of one kind, in order."""
    found = [loads(entry.data) for entry in await events(store, run_id) if entry.kind == kind]
    return [data for data in found if isinstance(data, dict)]


async def closed_waits(store: Store, run_id: str) -> list[str]:
    """The waits that the journal says were closed, in that order."""
    return [data["wait"] for data in await told(store, run_id, "wait.closed")]


async def stored(store: Store, run_id: str, *, tenant: str = DEFAULT_TENANT) -> tuple[RunRecord, list[Entry]]:
    """Everything that the store knows of a run, to compare before and after."""
    return await store.get(run_id, tenant=tenant), await events(store, run_id)


def note(text: str) -> Draft:
    """A fact of an agent's own."""
    return Draft("custom.note", dumps({"text": text}))
