"""A program that uses a store as another process would. Commands come in and answers go out as JSON lines.

Each command is a list: the name of a function below, and its arguments.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

from stepwell.domain.commit import Commit
from stepwell.domain.errors import StepwellError
from stepwell.domain.ids import RUN, make_id, own_session
from stepwell.domain.outcome import Payload, Succeeded
from stepwell.domain.run import Lease
from stepwell.domain.submission import Submission
from stepwell.domain.wait import Signal
from stepwell.ports.store import ClaimRequest, RunQuery, WorkerInfo
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


async def send(store: SqliteStore, run_id: str, name: str, number: int) -> bool:
    """Send a signal with an id of its own."""
    return await store.signal(run_id, Signal(f"sig_{os.getpid()}_{number}", name, Payload(str(number))))


async def send_many(store: SqliteStore, run_id: str, name: str, number: int) -> int:
    """Send that many signals at once, and give how many were received."""
    return sum(await asyncio.gather(*(send(store, run_id, name, each) for each in range(number))))


async def answer(store: SqliteStore, question_id: str) -> str | None:
    """Answer a question, and give how it was closed."""
    return (await store.answer(question_id, Payload("true"), by="ann")).outcome


async def cancel(store: SqliteStore, run_id: str) -> str:
    """Ask for a run's end."""
    return await store.cancel(run_id, by="ann")


async def pass_through(store: SqliteStore, worker_id: str) -> list[list[float]]:
    """Take runs and end them until there is none; give when each was held."""
    held = []
    while await store.find(RunQuery(ended=False, limit=1)):
        claims = await store.claim(ClaimRequest(worker_id, 4, (AGENT,)))
        began = time.monotonic()
        for claim in claims.taken:
            await append(store, list(claim.lease), 1)
        for claim in claims.taken:
            held.append([began, time.monotonic()])  # before others can learn that it ends
            await store.commit(claim.lease, Commit(2, outcome=Succeeded(Payload("1"))))
    return held


async def wait(store: SqliteStore, topic: str) -> bool:
    """Wait for a hint."""
    with store.notifier.listen(topic) as listener:
        print(json.dumps("listening"), flush=True)
        return await listener.wait(30)


COMMANDS: dict[str, Callable[..., Awaitable[Any]]] = {
    function.__name__: function
    for function in (work, submit, claim, append, send, send_many, answer, cancel, pass_through, wait)
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
