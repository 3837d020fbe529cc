"""What `stepwell run` does once it knows what is wanted: start or take up the run, follow it, say how it ended."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from stepwell.cli import endings
from stepwell.cli.asking import Asker, can_ask, open_questions
from stepwell.cli.interrupts import stop_requests
from stepwell.cli.order import Broken, Order
from stepwell.cli.output import Write
from stepwell.cli.progress import Progress, make_progress
from stepwell.cli.reading import history, tail
from stepwell.cli.records import event_record, line
from stepwell.cli.terminal import NOTE, age, mark, say, short
from stepwell.domain import event
from stepwell.domain.errors import NotFound
from stepwell.domain.run import DIVERGED, HOLDS, RUNNING

if TYPE_CHECKING:
    from stepwell.domain.event import Event
    from stepwell.runtime import Run, Runtime, Target

GRACE: Final = 0.5
"""Seconds that a run which is handed back may still use, so that a step that is nearly done is not done again."""


async def execute(order: Order, write: Write) -> int:
    """Carry out an order; the exit code. What was asked for goes through `write`, everything else to stderr."""
    from stepwell.runtime import Runtime

    progress = Progress(quiet=True) if order.form == "events" else make_progress()
    with stop_requests(endings.last_words(order)) as stop:
        async with Runtime(
            order.target.app, store=order.store, worker=not order.detach, serve="own", on_step=progress.on_step
        ) as runtime:
            if order.detach:
                return endings.submitted(await _start(runtime, order), write, as_json=order.form == "json")
            try:
                return await _see_through(runtime, order, progress, write, stop)
            finally:
                await runtime.drain(timeout=GRACE)


async def _see_through(
    runtime: Runtime[Any], order: Order, progress: Progress, write: Write, stop: asyncio.Event
) -> int:
    """Start or take up the run, follow it, hand it back when it must be left, and say how it stands."""
    run, after = await (_take_up(runtime, order, progress) if order.agent is None else _begin(runtime, order))
    follower = Follower(progress, write if order.form == "events" else None, known=run.seq)
    asker = Asker(runtime, progress, store=order.store, in_place=can_ask() and order.form != "events")
    with progress:
        asking = asyncio.create_task(asker.ask_all(run))
        asking.add_done_callback(lambda _: stop.set())  # it only ends by itself when something goes wrong
        try:
            run, broken = await follower.follow_until(stop, run, after, order.timeout)
        finally:
            await _end(asking)
        if broken is not None:
            await runtime.drain(timeout=GRACE)
            run = await follower.catch_up(run)
    questions = [] if run.ended else await open_questions(runtime, run)
    return await endings.tell(run, order, write, held=follower.held, broken=broken, questions=questions)


async def _end(asking: asyncio.Task[None]) -> None:
    """No more questions; what went wrong in asking them is raised now."""
    asking.cancel()
    with suppress(asyncio.CancelledError):
        await asking


# ---------------------------------------------------------------- which run


async def _begin(runtime: Runtime[Any], order: Order) -> tuple[Run[Any], int]:
    """Start the run, or find the one of the same key; mention another one that is waiting to be continued."""
    assert order.agent is not None
    unfinished = await runtime.runs.list(agent=order.agent.name, ended=False, limit=1)
    run = await _start(runtime, order)
    for other in unfinished:
        if other.id != run.id and other.parent_id is None:
            since = f"{other.status}, {age(other.created_at)}"
            say(f"  {mark(NOTE)} run {short(other.id)} of {other.agent} has not ended ({since})")
            say(f"    continue it with: {order.continue_with}")
    if run.ended or run.id in [other.id for other in unfinished]:
        now = "has ended" if run.ended else "goes on"
        say(f"  {mark(NOTE)} run {short(run.id)} was started with this key {age(run.created_at)}, and {now}")
    return run, 0


async def _start(runtime: Runtime[Any], order: Order) -> Run[Any]:
    assert order.agent is not None
    return await runtime.start(order.agent.name, order.value, idempotency_key=order.key)


async def _take_up(runtime: Runtime[Any], order: Order, progress: Progress) -> tuple[Run[Any], int]:
    """The newest unfinished run, ready to be executed here; and the number of its last event until now."""
    run = await _newest_unfinished(runtime, order.target)
    say(f"  {mark(NOTE)} continuing run {short(run.id)} of {run.agent}, started {age(run.created_at)}")
    after = run.seq
    if run.status == DIVERGED:
        await run.resume(by="stepwell run --continue")
    if run.status in HOLDS - {DIVERGED}:
        return run, after
    if run.status == RUNNING:
        await _mention_executor(runtime, run)
    progress.await_claim()
    return await runtime.adopt(run.id), after


async def _newest_unfinished(runtime: Runtime[Any], target: Target) -> Run[Any]:
    agents = [target.agent.name] if target.agent is not None else list(target.app.agents)
    found = [run for agent in agents for run in await runtime.runs.list(agent=agent, ended=False, limit=1)]
    if not found:
        raise NotFound(
            f"no run of {' or '.join(agents) or target.origin} is unfinished",
            code="run.none_unfinished",
            hint="see: stepwell runs list",
        )
    return await _topmost(runtime, max(found, key=lambda run: (run.created_at, run.id)))


async def _topmost(runtime: Runtime[Any], run: Run[Any]) -> Run[Any]:
    """The run itself, or for a child the run that waits for it: whoever executes that one executes its children."""
    while run.parent_id is not None:
        parent = await runtime.runs.get(run.parent_id)
        if parent.ended:
            break
        run = parent
    return run


async def _mention_executor(runtime: Runtime[Any], run: Run[Any]) -> None:
    """Say so when another process, not known to be dead, executes the run: then it is followed, and taken over when
    that process dies.
    """
    claims = [told for told in await history(run) if told.kind in (event.RUN_STARTED, event.RUN_RESUMED)]
    owner = claims[-1].data["worker"] if claims else None
    for worker in await runtime.workers.list():
        if worker.id == owner:
            say(f"  {mark(NOTE)} process {worker.pid} on {worker.host} executes it; following")


# ---------------------------------------------------------------- following it


class Follower:
    """Reads a run's events as they come, for progress or for stdout; those up to `known` happened before this command.
    `held` is the event that set the run aside, if one did.
    """

    def __init__(self, progress: Progress, write: Write | None, *, known: int) -> None:
        self.held: Event | None = None
        self._known = known
        self._progress = progress
        self._write = write
        self._last = 0

    async def follow_until(
        self, stop: asyncio.Event, run: Run[Any], after: int, timeout: float | None
    ) -> tuple[Run[Any], Broken]:
        """Follow until the run has ended or is held; or until a stop is asked for or the time is over, and then say
        which.
        """
        self._last = after
        following = asyncio.create_task(self._follow(run))
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait((following, stopping), timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            if following.done():
                return await following, None
            return run, "stopped" if stopping.done() else "timeout"
        except BrokenPipeError:  # whoever read the events has left
            self._write = _nowhere
            return run, "stopped"
        finally:
            following.cancel()
            stopping.cancel()
            await asyncio.wait((following, stopping))

    async def catch_up(self, run: Run[Any]) -> Run[Any]:
        """Give what has come since, without waiting for more; the run as it is now."""
        now = await run.refresh()
        for told in await history(now, after=self._last):
            self._tell(told)
        return now

    async def _follow(self, run: Run[Any]) -> Run[Any]:
        if run.status in HOLDS:
            return await self._find_hold(run)
        async with tail(run, after=self._last) as events:
            async for told in events:
                self._tell(told)
                if told.kind == event.RUN_HELD:
                    now = await run.refresh()
                    if now.status in HOLDS:
                        return now
        return await run.refresh()

    async def _find_hold(self, run: Run[Any]) -> Run[Any]:
        holds = [told for told in await history(run) if told.kind == event.RUN_HELD]
        self.held = holds[-1]
        return run

    def _tell(self, told: Event) -> None:
        self._last = told.seq
        if told.kind == event.RUN_HELD:
            self.held = told
        if self._write is not None:
            self._write(line(event_record(told)))
        else:
            self._progress.on_event(told, is_past=told.seq <= self._known)


def _nowhere(text: str) -> None:
    """Takes the events that nobody reads any more."""
