"""A program that uses a store as another process would. Commands come in and answers go out as JSON lines.

Each command is a list: the name of a function below, and its arguments.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from stepwell.domain.errors import StepwellError
from stepwell.domain.ids import RUN, make_id, own_session
from stepwell.domain.outcome import Commit, Payload
from stepwell.domain.run import Lease
from stepwell.ports.store import ClaimRequest, Submission, WorkerInfo
from stepwell.ports.system_clock import SystemClock
from stepwell.stores.sqlite.store import SqliteStore
from stepwell.testing.conformance.harness import AGENT, HOUR, note

clock = SystemClock()


async def work(store: SqliteStore, worker_id: str, lease_seconds: float) -> None:
    """Register a worker."""
    info = WorkerInfo(worker_id, "here", os.getpid(), 16, clock.now())
    await store.open_worker(info, lease_seconds=lease_seconds)


async def submit(store: SqliteStore) -> str:
    """Put a run into the queue and give its id."""
    now = clock.now()
    run_id = make_id(RUN, now, os.urandom(8))
    run = Submission(
        id=run_id,
        agent=AGENT,
        version="1",
        session=own_session(run_id),
        input=Payload("1"),
        input_digest="1",
        available_at=now,
        created_at=now,
        timeout=HOUR,
    )
    return (await store.submit(run)).run.id


async def claim(store: SqliteStore, worker_id: str) -> list[list[Any]]:
    """Claim what there is and give the leases."""
    claims = await store.claim(ClaimRequest(worker_id, 100, (AGENT,)))
    return [list(claim.lease) for claim in claims.taken]


async def append(store: SqliteStore, lease: list[Any], number: int) -> int:
    """Commit one fact."""
    return (await store.commit(Lease(*lease), Commit(number, (note("beside"),)))).seq


async def wait(store: SqliteStore, topic: str) -> bool:
    """Wait for a hint."""
    with store.notifier.listen(topic) as listener:
        print(json.dumps("listening"), flush=True)
        return await listener.wait(30)


COMMANDS: dict[str, Callable[..., Awaitable[Any]]] = {
    function.__name__: function for function in (work, submit, claim, append, wait)
}


async def main() -> None:
    store = SqliteStore(sys.argv[1])
    await store.open()
    print(json.dumps("open"), flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        name, *arguments = json.loads(line)
        try:
            answer = await COMMANDS[name](store, *arguments)
        except StepwellError as error:
            answer = {"refused": error.code}
        print(json.dumps(answer), flush=True)
    await store.close()


if __name__ == "__main__":
    asyncio.run(main())
