"""The nest of a storm: `program.py STORE EFFECTS LEASE` starts a process for each line that it is told:

    worker [NUMBER]                            executes runs; first does a job with this number, to get warm
    client LOG FIRST COUNT STEPS WORK WINDOW   submits jobs

It has everything imported and forks: a worker that is killed is replaced at once, also on a slow machine. No store and
no thread is open when it forks.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import random
import signal
import sys
import time
import traceback
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stepwell import App, Context, Run, Runtime, StoreError
from stepwell.domain.errors import Busy
from stepwell.engine.executor import Executor

CLIENTS = 2
ENOUGH = "enough"
app = App("storm")
fence: ContextVar[int] = ContextVar("fence")
"""With which fence the attempt that a step belongs to was given its run: steps and agents tell it in their results."""


@dataclass(frozen=True, slots=True)
class Job:
    """A run: so many steps, each of which takes so many seconds."""

    number: int
    steps: int
    work: float


def note(log: str, *words: object) -> None:
    """Leave a line outside the store, in one write."""
    line = " ".join(map(str, words)) + "\n"
    fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(fd, line.encode())
    finally:
        os.close(fd)


async def effect(job: int, step: int, work: float) -> dict[str, int]:
    """One effect outside the store, and a little work before its record."""
    note(sys.argv[2], job, step, fence.get(), os.getpid(), time.time_ns() // 1000)
    await asyncio.sleep(work)
    return {"step": step, "fence": fence.get()}


@app.agent
async def stormy(ctx: Context, job: Job) -> dict[str, int]:
    for step in range(job.steps):
        await ctx.step(effect, job.number, step, job.work)
    return {"fence": fence.get()}


# ---------------------------------------------------------------- workers


def nest(store: str, effects: str, lease: float) -> None:
    """Start what each line says; tell what has ended. When nobody tells anything any more, end all."""
    asyncio.run(_load())
    children: set[int] = set()

    def reap(*_: object) -> None:
        while children:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            children.discard(pid)
            say("ended", pid, os.waitstatus_to_exitcode(status))

    signal.signal(signal.SIGCHLD, reap)
    for line in sys.stdin:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})  # none ends before it is known
        pid = os.fork()
        if pid == 0:
            _hatch(store, effects, lease, line.split())
        children.add(pid)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
    for pid in list(children):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


async def _load() -> None:
    """Have everything imported that a worker needs, which would hold up its event loop later."""
    importlib.import_module("stepwell.stores.sqlite.store")
    async with Runtime(app, store="memory://", lease=60) as runtime:
        await runtime.run(stormy, Job(0, 0, 0.0))


def _hatch(store: str, effects: str, lease: float, told: list[str]) -> None:
    """Be a worker or a client, and never come back."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
    os.close(0)
    random.seed()
    try:
        match told:
            case ["worker", *warm]:
                asyncio.run(work(store, effects, lease, warm=[int(number) for number in warm]))
            case ["client", log, *numbers]:
                first, count, steps, window = (int(numbers[at]) for at in (0, 1, 2, 4))
                asyncio.run(client(store, log, first, count, steps, float(numbers[3]), window))
        os._exit(0)
    except BaseException:  # noqa: BLE001 - whatever ends a process must not go on in the nest's loop
        traceback.print_exc()
        os._exit(1)


async def work(store: str, effects: str, lease: float, *, warm: Sequence[int]) -> None:
    """Execute until killed. A warm worker has done a job and sent a heartbeat before it says that it works: what it
    will need is loaded and open.
    """
    logging.basicConfig(format="%(asctime)s %(process)d %(message)s")
    _tell_fences()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, lambda: say("tasks", os.getpid(), len(asyncio.all_tasks())))
    async with Runtime(app, store=store, capacity=1, lease=lease) as runtime:
        for number in warm:
            run = await runtime.start(stormy, Job(number, 2, 0.0), idempotency_key=key(number))
            await run.result()
            note(f"{effects}.warm", "accepted", number, run.id)
        me = [worker for worker in await runtime.workers.list() if worker.pid == os.getpid()][-1]
        while warm and await _beaten_at(runtime, me.id) == me.heartbeat_at:
            await asyncio.sleep(0.01)
        say("working", os.getpid(), me.id)
        await asyncio.Event().wait()


async def _beaten_at(runtime: Runtime, worker_id: str) -> int:
    return next(worker.heartbeat_at for worker in await runtime.workers.list() if worker.id == worker_id)


def _tell_fences() -> None:
    """Let every attempt know its own fence, which the product tells no agent."""
    execute = Executor.execute

    async def execute_knowing(self: Executor, attempt: Any, *rest: Any) -> Any:
        fence.set(attempt.lease.fence)
        return await execute(self, attempt, *rest)

    setattr(Executor, "execute", execute_knowing)  # noqa: B010 - a plain assignment is refused by type checkers


def say(*words: object) -> None:
    """Tell the storm, in one write: many processes share the pipe."""
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


# ---------------------------------------------------------------- clients


def key(number: int) -> str:
    """The idempotency key of a job."""
    return f"job-{number}"


async def client(store: str, log: str, first: int, count: int, steps: int, work: float, window: int) -> None:
    """Submit every second job, again on any error, and now and then one of the other client's too. `window` jobs are
    under way at a time. It goes on until there were `count` and somebody has said that it is enough.
    """
    under_way: deque[tuple[int, Run[dict[str, int]]]] = deque()
    enough = Path(log).with_name(ENOUGH)
    async with Runtime(app, store=store, worker=False) as runtime:
        number = first
        while number < count or not enough.exists():
            under_way.append((number, await _submit(runtime, log, Job(number, steps, work))))
            if number % 20 == first:
                await _submit(runtime, log, Job(number + 1 - 2 * first, steps, work))
            if len(under_way) >= window:
                await _result(log, *under_way.popleft())
            number += CLIENTS
        note(log, "submitted", "all")
        while under_way:
            await _result(log, *under_way.popleft())


async def _submit(runtime: Runtime, log: str, job: Job) -> Run[dict[str, int]]:
    while True:
        try:
            run = await runtime.start(stormy, job, idempotency_key=key(job.number))
        except (StoreError, Busy) as error:
            note(log, "refused", job.number, error.code)
            await asyncio.sleep(0.05)
        else:
            note(log, "accepted", job.number, run.id)
            return run


async def _result(log: str, number: int, run: Run[dict[str, int]]) -> None:
    while True:
        try:
            result = await run.result()
        except StoreError as error:
            note(log, "unread", number, error.code)
            await asyncio.sleep(0.05)
        else:
            note(log, "ended", number, result.status)
            return


def main() -> None:
    _, store, effects, lease = sys.argv
    nest(store, effects, float(lease))


if __name__ == "__main__":
    main()
