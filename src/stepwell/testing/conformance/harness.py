"""The harness: a place to keep data in, the stores that see it, a clock, and short ways to say what tests say often.

Made by the adapter's fixture, one for each test. It knows no store; it is given a way to make them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any, Final

from stepwell.domain.event import Draft, Entry
from stepwell.domain.ids import RUN, WORKER, make_id, own_session
from stepwell.domain.outcome import Commit, Outcome, Payload
from stepwell.domain.run import Lease, RunRecord
from stepwell.domain.values import dumps
from stepwell.ports.clock import Clock
from stepwell.ports.store import (
    DEFAULT_TENANT,
    Capabilities,
    Claim,
    ClaimRequest,
    Committed,
    Heartbeat,
    Store,
    Submission,
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


async def stored(store: Store, run_id: str, *, tenant: str = DEFAULT_TENANT) -> tuple[RunRecord, list[Entry]]:
    """Everything that the store knows of a run, to compare before and after."""
    return await store.get(run_id, tenant=tenant), await events(store, run_id)


def note(text: str) -> Draft:
    """A fact of an agent's own."""
    return Draft("custom.note", dumps({"text": text}))
