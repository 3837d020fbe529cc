"""A run as callers see it: what was last read of it, the verbs on it, and its result."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Generic, Literal, Self, cast

from typing_extensions import TypeVar

from stepwell.domain import event
from stepwell.domain.errors import RunFailed, Seconds, WaitTimeout
from stepwell.domain.event import Entry, Event, to_datetime
from stepwell.domain.outcome import ErrorInfo
from stepwell.domain.retry import seconds
from stepwell.domain.run import SUCCEEDED, RunRecord, RunStatus
from stepwell.domain.values import dumps
from stepwell.engine import resumption
from stepwell.engine.executor import Ending
from stepwell.ports.clock import Clock
from stepwell.ports.runnable import Runnable
from stepwell.ports.store import Store

O_co = TypeVar("O_co", covariant=True, default=Any)

POLL: Final = 0.25
_PAGE: Final = 500


@dataclass(frozen=True, slots=True)
class Artifact:
    """A file that a run kept."""

    name: str
    media_type: str
    size: int
    _ref: str
    _store: Store

    async def bytes(self) -> bytes:
        """The content."""
        return await self._store.get_blob(self._ref)

    async def text(self) -> str:
        """The content, read as UTF-8."""
        return (await self.bytes()).decode("utf-8")


class RunResult(Generic[O_co]):
    """How a run ended. Everything but `output` can be read whatever the status is.

    `reason` is a short word for the cause, `error` is set when the run failed, `artifacts` are the files it kept,
    newest of each name, in the order in which they were first kept.
    """

    def __init__(
        self,
        record: RunRecord,
        *,
        output: Any = None,
        error: ErrorInfo | None = None,
        artifacts: Sequence[Artifact] = (),
    ) -> None:
        self.run_id = record.id
        self.status = cast("RunStatus", record.life.status)
        self.reason = record.life.reason
        self.ok = record.life.status == SUCCEEDED
        self.error = error
        self.artifacts = artifacts
        self._output = output

    @property
    def output(self) -> O_co:
        """What the agent returned. Raises `RunFailed` unless the run succeeded."""
        if not self.ok:
            code = self.error.code if self.error else f"run.{self.status}"
            why = f": {self.error.message}" if self.error else f" ({self.reason})" if self.reason else ""
            raise RunFailed(
                f"run {self.run_id} {_sentence(self.status)}{why}",
                run_id=self.run_id,
                status=self.status,
                code=code,
                hint=f"see: stepwell runs show {self.run_id[-6:]}",
                retryable=bool(self.error and self.error.retryable),
            )
        return cast("O_co", self._output)

    def __repr__(self) -> str:
        return f"<result of {self.run_id}: {self.status}>"


class Run(Generic[O_co]):
    """A run as last read, and the verbs on it. `refresh` reads it again; nothing here changes by itself."""

    def __init__(
        self,
        record: RunRecord,
        *,
        store: Store,
        clock: Clock,
        runnable: Runnable | None,
        local_ending: Callable[[str], Awaitable[Ending | None]],
    ) -> None:
        self._record = record
        self._store = store
        self._clock = clock
        self._runnable = runnable
        self._local_ending = local_ending

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

    def __repr__(self) -> str:
        return f"<run {self.id} of {self.agent}: {self.status}>"

    async def refresh(self) -> Self:
        """The run as it is now. Raises `NotFound` when it is no longer kept."""
        record = await self._store.get(self.id, tenant=self._record.tenant)
        return type(self)(
            record,
            store=self._store,
            clock=self._clock,
            runnable=self._runnable,
            local_ending=self._local_ending,
        )

    async def events(self, *, after: int = 0) -> AsyncIterator[Event]:
        """The run's events with numbers above `after`, in order, as they come.

        Ends when the run has ended and everything was given. A client that reconnects with its last number misses
        nothing.
        """
        with self._store.notifier.listen(self.id) as hints:
            while True:
                entries = await self._store.journal(self.id, after=after, limit=_PAGE)
                for entry in entries:
                    after = entry.seq
                    yield self._event(entry)
                if entries:
                    continue
                life = (await self._store.get(self.id, tenant=self._record.tenant)).life
                if life.seq > after:
                    continue
                if life.ended:
                    return
                await hints.wait(POLL)

    async def result(self, *, timeout: Seconds | None = None) -> RunResult[O_co]:
        """Wait for the end and say how it was; never raises because the run failed.

        Raises `WaitTimeout` after `timeout` (seconds or timedelta; default: no limit); the run goes on.
        """
        limit = None if timeout is None else seconds(timeout, what="timeout")
        try:
            async with asyncio.timeout(limit) as bound:
                ending = await self._local_ending(self.id)
                if ending is not None:
                    return self._result_of(ending)
                return await self._read_result(await self._wait_for_end())
        except TimeoutError as error:
            if not bound.expired():
                raise
            now = await self.refresh()
            raise WaitTimeout(
                f"run {self.id} has not ended after {limit:g} s; it is {now.status}",
                run_id=self.id,
                hint="it goes on without you; call result() again to wait longer",
            ) from error

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
        now = await self.refresh()
        self._record = await resumption.resume(
            self._store, self._clock, now._record, by=by or "api", verdict=verdict, result=result
        )

    # ------------------------------------------------------------ reading

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

    async def _wait_for_end(self) -> RunRecord:
        with self._store.notifier.listen(self.id) as hints:
            while True:
                record = await self._store.get(self.id, tenant=self._record.tenant)
                if record.life.ended:
                    return record
                await hints.wait(POLL)

    def _result_of(self, ending: Ending) -> RunResult[O_co]:
        """The result of a run that succeeded in this process a moment ago; its end is committed."""
        ended = ending.run._replace(life=ending.run.life._replace(status=SUCCEEDED, reason=None))
        artifacts = tuple(self._artifact(facts) for facts in ending.artifacts)
        return RunResult(ended, output=self._decode(ending.output), artifacts=artifacts)

    def _decode(self, text: str) -> Any:
        return json.loads(text) if self._runnable is None else self._runnable.decode_output(text)

    def _artifact(self, facts: Mapping[str, Any]) -> Artifact:
        return Artifact(facts["name"], facts["media_type"], facts["size"], facts["artifact"], self._store)

    async def _read_result(self, record: RunRecord) -> RunResult[O_co]:
        entry = await self._store.last_entry(self.id, tuple(event.ENDS))
        facts = json.loads(entry.data) if entry is not None else {}
        artifacts = await self._read_artifacts()
        if record.life.status != SUCCEEDED:
            return RunResult(record, error=_error(facts), artifacts=artifacts)
        blob = facts.get("ref")
        text = dumps(facts["output"]) if blob is None else (await self._store.get_blob(blob["blob"])).decode()
        return RunResult(record, output=self._decode(text), artifacts=artifacts)

    async def _read_artifacts(self) -> Sequence[Artifact]:
        found: dict[str, Artifact] = {}
        after = 0
        while entries := await self._store.journal(self.id, after=after, limit=_PAGE, kinds=(event.ARTIFACT_SAVED,)):
            for entry in entries:
                facts = json.loads(entry.data)
                found[facts["name"]] = self._artifact(facts)
                after = entry.seq
        return tuple(found.values())


def _error(facts: Mapping[str, Any]) -> ErrorInfo | None:
    error = facts.get("error")
    if error is None:
        return None
    return ErrorInfo(
        error["code"],
        error["message"],
        error["retryable"],
        error.get("type"),
        error.get("step"),
        tuple(error.get("traceback", ())),
    )


def _sentence(status: str) -> str:
    return {"failed": "failed", "cancelled": "was cancelled", "timed_out": "timed out", "exhausted": "used up a limit"}[
        status
    ]
