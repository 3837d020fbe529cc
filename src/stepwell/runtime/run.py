"""A run as callers see it: what was last read of it, and the verbs on it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from datetime import datetime
from typing import Any, Final, Generic, Literal, Self, cast

from typing_extensions import TypeVar

from stepwell.domain import event
from stepwell.domain.errors import Seconds, WaitTimeout
from stepwell.domain.event import Entry, Event, to_datetime
from stepwell.domain.outcome import NEVER
from stepwell.domain.retry import seconds
from stepwell.domain.run import RunRecord, RunStatus
from stepwell.domain.transitions import CancelAnswer
from stepwell.ports.store import RunQuery
from stepwell.runtime.access import POLL, Access, TimeUp, checked_by, checked_reason
from stepwell.runtime.questions import Question, oldest_open
from stepwell.runtime.result import RunResult, read_result, result_of
from stepwell.runtime.text import TextPart, joined

O_co = TypeVar("O_co", covariant=True, default=Any)

_PAGE: Final = 500


class Run(Generic[O_co]):
    """A run as last read, and the verbs on it. `refresh` reads it again; nothing here changes by itself."""

    def __init__(self, record: RunRecord, access: Access) -> None:
        self._record = record
        self._access = access

    @property
    def id(self) -> str:
        """The run's id: `run_` and 26 characters."""
        return self._record.id

    @property
    def status(self) -> RunStatus:
        """Where the run is in its life; a hold is shown in place of what it holds."""
        return cast("RunStatus", self._record.life.shown)

    @property
    def reason(self) -> str | None:
        """A short word for the cause of the status, where there is one."""
        return self._record.life.reason

    @property
    def dead(self) -> bool:
        """Whether the run failed with its attempts or losses used up."""
        return bool(self._record.life.dead)

    @property
    def ended(self) -> bool:
        """Whether the run has reached its end and keeps its status."""
        return self._record.life.ended

    @property
    def cancelling(self) -> bool:
        """Whether somebody asked to cancel the run, and it has not ended yet."""
        return bool(self._record.life.cancelling)

    @property
    def agent(self) -> str:
        """The agent's name."""
        return self._record.agent

    @property
    def version(self) -> str:
        """The agent's version at submission."""
        return self._record.version

    @property
    def session_id(self) -> str:
        """The session: its own, for a run that was started without one."""
        return self._record.session

    @property
    def trigger(self) -> str | None:
        """The trigger that started the run; `None` when it was started directly."""
        return self._record.trigger

    @property
    def created_at(self) -> datetime:
        """When the run was submitted, aware UTC."""
        return to_datetime(self._record.created_at)

    @property
    def attempt(self) -> int:
        """The number of the current or last attempt; 0 before the first."""
        return self._record.life.attempt

    @property
    def seq(self) -> int:
        """The number of the last event."""
        return self._record.life.seq

    @property
    def metadata(self) -> Mapping[str, str]:
        """What the caller gave at the start, unchanged."""
        return cast("Mapping[str, str]", json.loads(self._record.metadata))

    @property
    def parent_id(self) -> str | None:
        """The run that started this one as its child; `None` for a run that was started from outside."""
        return self._record.parent

    @property
    def retry_of(self) -> str | None:
        """The run that this one retries."""
        return self._record.retry_of

    @property
    def losses(self) -> int:
        """How many times in a row a worker died with the run, without progress in between."""
        return self._record.life.losses

    @property
    def available_at(self) -> datetime | None:
        """When the run is due next, aware UTC; `None` when only something that arrives makes it due."""
        at = self._record.life.available_at
        return None if at >= NEVER else to_datetime(at)

    def __repr__(self) -> str:
        return f"<run {self.id} of {self.agent}: {self.status}>"

    # ------------------------------------------------------------ reading it

    async def refresh(self) -> Self:
        """The run as it is now. Raises `NotFound` when it is no longer kept."""
        return type(self)(await self._now(), self._access)

    async def children(self) -> list[Run[Any]]:
        """The runs that this one started, in the order of their start."""
        found: list[RunRecord] = []
        before = None
        while page := await self._access.store.find(
            RunQuery(tenant=self._record.tenant, parent=self.id, before=before, limit=_PAGE)
        ):
            found += page
            before = page[-1].id
        started = await self._started_children()
        found.sort(key=lambda record: started.get(record.id, self.seq + 1))
        return [Run(record, self._access) for record in found]

    async def _started_children(self) -> dict[str, int]:
        """The ids of the children in the order of their start, which the journal alone knows."""
        store, order, after = self._access.store, dict[str, int](), 0
        while page := await store.journal(self.id, after=after, limit=_PAGE, kinds=(event.CHILD_STARTED,)):
            for entry in page:
                order.setdefault(json.loads(entry.data)["child"], entry.seq)
            after = page[-1].seq
        return order

    async def events(self, *, after: int = 0) -> AsyncIterator[Event]:
        """The run's events with numbers above `after`, in order, as they come.

        Ends when the run has ended and everything was given. A client that reconnects with its last number misses
        nothing.
        """
        store = self._access.store
        with store.notifier.listen(self.id) as hints:
            while True:
                entries = await store.journal(self.id, after=after, limit=_PAGE)
                for entry in entries:
                    after = entry.seq
                    yield self._event(entry)
                if entries:
                    continue
                life = (await self._now()).life
                if life.seq > after:
                    continue
                if life.ended:
                    return
                self._access.check_alive()
                await hints.wait(POLL)

    async def text(self) -> AsyncIterator[TextPart]:
        """What the agent shows with `ctx.stream_text`, piece by piece, as it comes; each piece is a `str`.

        Where an attempt was lost and the next one shows the same again, only what is new is given. Where it shows
        something else, a piece that says so comes first, and has `restarted` set: what was given before of that stream
        counts no more. Ends when the run has ended and everything was given.
        """
        async with aclosing(joined(self.events())) as parts:
            async for part in parts:
                yield part

    async def result(self, *, timeout: Seconds | None = None) -> RunResult[O_co]:
        """Wait for the end and say how it was; never raises because the run failed.

        Raises `WaitTimeout` after `timeout` (seconds or timedelta; default: no limit); the run goes on.
        """
        limit = None if timeout is None else seconds(timeout, what="timeout")
        try:
            return await self._access.patience(self.id, self._result(), limit)
        except TimeUp as error:
            now = await self.refresh()
            raise WaitTimeout(
                f"run {self.id} has not ended after {limit:g} s; it is {now.status}",
                run_id=self.id,
                hint="it goes on without you; call result() again to wait longer",
            ) from error

    async def question(self, *, timeout: Seconds | None = None) -> Question[Any]:
        """The oldest open question of the run; waits until it asks one.

        Raises `RunEnded` when the run ends without one, `WaitTimeout` after `timeout` (seconds or timedelta; default:
        no limit); the run goes on.
        """
        limit = None if timeout is None else seconds(timeout, what="timeout")
        try:
            return await self._access.patience(self.id, oldest_open(self._record, self._access), limit)
        except TimeUp as error:
            now = await self.refresh()
            raise WaitTimeout(
                f"run {self.id} has asked nothing after {limit:g} s; it is {now.status}",
                run_id=self.id,
                hint="it goes on without you; call question() again to wait longer",
            ) from error

    # ------------------------------------------------------------ changing it

    async def cancel(self, *, reason: str | None = None, by: str | None = None) -> CancelAnswer:
        """Ask the run and its children to end. What nobody executes ends at once: "cancelled". What is executed, or
        has a clean-up, is told to: "cancelling"; it may still succeed first. "already_ended" changes nothing.

        `reason` and `by` (who asked; default "api") are kept for the record.
        """
        return await self._access.store.cancel(
            self.id,
            by=checked_by(by),
            reason=checked_reason(reason),
            tenant=self._record.tenant,
        )

    async def pause(self, *, by: str | None = None) -> None:
        """Set the run and its children aside: at once when nobody executes it, else as soon as the step in flight is
        done. `resume` lets it go on. Raises `RunEnded`.
        """
        self._record = await self._access.store.pause(self.id, by=checked_by(by), tenant=self._record.tenant)

    async def resume(
        self,
        *,
        verdict: Literal["done", "rerun", "fail"] | None = None,
        result: Any = None,
        by: str | None = None,
    ) -> None:
        """Lift the run's hold; a worker takes it up again.

        A run that is held `in_doubt` needs a `verdict` on the step: "done" records `result` (data) as what the step
        returned, "rerun" runs it again, "fail" lets it raise `StepFailed` in the agent. `by` names who decided, for
        the record. Raises `Conflict` when the run is not held or changed since it was read, `RunEnded`,
        `InvalidInput`.
        """
        from stepwell.engine import resumption

        self._record = await resumption.resume(
            self._access.store,
            self._access.clock,
            await self._now(),
            by=checked_by(by),
            verdict=verdict,
            result=result,
        )

    async def retry(self) -> Run[O_co]:
        """Start a new run of the same agent with the same input, session and metadata, and return it.

        It takes over what this one finished: steps that are done are not done again, under their old idempotency keys
        those that failed are. It has the version, timeout and limits that the agent declares today. A dead run is taken
        off the list of the dead. Raises `Conflict` when this run has not ended (`run.not_ended`) or succeeded
        (`run.succeeded`), `NotFound` (`agent.unknown`) when no app of this runtime has the agent.
        """
        return Run(await self._access.retry(await self._now()), self._access)

    async def signal(self, name: str, payload: Any = None, /, *, id: str | None = None, by: str | None = None) -> bool:
        """Send the run a named message with data, for `ctx.wait_for` to take. It is kept until the run takes it.

        A signal with the same `id` (a text of your own; default: a new one) is received once: then this returns False.
        Raises `RunEnded`, `Conflict` (`signal.conflict`) for the same id with another name or payload, `Busy`
        (`signal.full`) when too many wait to be taken, `InvalidInput`.
        """
        from stepwell.runtime import signals  # at the first signal: most programs send none

        made = await signals.make(self._access, name, payload, id=id, by=checked_by(by))
        return await self._access.store.signal(self.id, made, tenant=self._record.tenant)

    # ------------------------------------------------------------ inside

    async def _now(self) -> RunRecord:
        return await self._access.store.get(self.id, tenant=self._record.tenant)

    def _event(self, entry: Entry) -> Event:
        run = self._record
        return Event(
            seq=entry.seq,
            kind=entry.kind,
            at=to_datetime(entry.at),
            run_id=run.id,
            session_id=run.session,
            agent=run.agent,
            trigger=run.trigger,
            node=entry.node,
            step=entry.step,
            data=json.loads(entry.data),
        )

    async def _result(self) -> RunResult[O_co]:
        store, runnable = self._access.store, self._access.runnable(self.agent)
        ending = await self._access.local_ending(self.id)
        if ending is not None:
            return result_of(ending, store, runnable)
        return await read_result(await self._wait_for_end(), store, runnable)

    async def _wait_for_end(self) -> RunRecord:
        with self._access.store.notifier.listen(self.id) as hints:
            while True:
                record = await self._now()
                if record.life.ended:
                    return record
                self._access.check_alive()
                await hints.wait(POLL)
