"""One attempt, from claim to outcome: prepare, run the agent, say what its stop means, write it once."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Mapping
from contextvars import Context
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

from stepwell.domain.errors import Fail, InvalidInput, InvalidValue, StepwellError, StoreError
from stepwell.domain.event import RUN_CANCELLING, Entry, to_datetime
from stepwell.domain.outcome import Cancelled, Failed, HandedBack, Outcome, Retrying, Succeeded, TimedOut
from stepwell.domain.retry import jitter, seconds
from stepwell.domain.run import RunRecord
from stepwell.domain.transitions import RUN_TIMEOUT
from stepwell.engine.attempt import Attempt, AttemptStopped, Lost
from stepwell.engine.context import RunContext
from stepwell.engine.failure import describe_error, is_being_closed
from stepwell.engine.leasing import Leasing
from stepwell.engine.offload import Offload
from stepwell.engine.scope import CLEAN_UP_SCOPE, Scope
from stepwell.engine.waits import PARK_AFTER
from stepwell.ports.context import Context as AgentContext
from stepwell.ports.context import RunInfo
from stepwell.ports.crash_point import CrashPoint

if TYPE_CHECKING:
    from stepwell.engine.report import AfterStep, Observer
    from stepwell.ports.clock import Clock
    from stepwell.ports.runnable import Runnable
    from stepwell.ports.store import Claim, Store

_log = logging.getLogger("stepwell.engine")
CLEAN_UP: Final = 30.0
"""Seconds that an agent's clean-up may take when its run was cancelled."""

_claimed = CrashPoint("executor.after_claim")
_returned = CrashPoint("executor.after_agent")
_ended = CrashPoint("executor.after_outcome")


class Ending(NamedTuple):
    """How a run succeeded: the run as claimed, its output's JSON text, and the data of its `artifact.saved` events."""

    run: RunRecord
    output: str
    artifacts: tuple[dict[str, Any], ...]


class Executor:
    """Executes claims of one worker.

    `deps` gives what an agent's app shares; `may_act` says whether the leases are certain to be ours, `leaving` whether
    the worker is being stopped; `in_force` gives seconds on a scale that stands still while the leases have run out,
    where they can.
    """

    def __init__(
        self,
        store: Store,
        runnables: Mapping[str, Runnable],
        *,
        clock: Clock,
        deps: Callable[[str], Any],
        may_act: Callable[[], bool],
        leaving: Callable[[], bool],
        observer: Observer | None,
        park_after: float = PARK_AFTER,
        after_step: AfterStep | None = None,
        in_force: Callable[[], float] | None = None,
    ) -> None:
        self._in_force = in_force
        self._park_after = park_after
        self._after_step = after_step
        self._store = store
        self._runnables = runnables
        self._clock = clock
        self._deps = deps
        self._may_act = may_act
        self._leaving = leaving
        self._observer = observer
        self.offload = Offload()

    def prepare(self, claim: Claim) -> Attempt:
        """The attempt of a claim, before anything runs."""
        run = claim.run
        metadata = json.loads(run.metadata) if run.metadata != "{}" else {}
        info = RunInfo(run.id, run.agent, run.version, run.session, to_datetime(run.created_at), metadata)
        return Attempt(
            claim,
            info,
            deps=self._deps(run.agent),
            store=self._store,
            clock=self._clock,
            offload=self.offload,
            may_act=self._may_act,
            leaving=self._leaving,
            observer=self._observer,
            park_after=self._park_after,
            after_step=self._after_step,
            leasing=Leasing(self._clock, self._in_force),
        )

    async def execute(self, attempt: Attempt, journal: list[Entry], input_text: str | None) -> Ending | None:
        """Run the attempt to its outcome and write it. `input_text` spares reading the input from the journal.

        Returns how the run ended when it succeeded with an output that is inline, so that a caller in this process need
        not read it back.
        """
        attempt.begun = True
        _claimed()
        runnable = self._runnables[attempt.record.agent]
        if attempt.record.life.cancelling:
            attempt.end(Cancelled("request"))
        stop = attempt.stop
        if stop is None:
            stop = await self._run(attempt, runnable, journal, input_text)
        await self._land(attempt)
        attempt.close(stop)
        await self._leave_waits(attempt)  # from here on nobody cancels this task: what is left is to write the end
        _returned()
        if isinstance(attempt.stop, Lost):  # it may have been learnt while steps in the air came to their end
            stop = attempt.stop
        if isinstance(stop, Cancelled):
            stop = await who_cancelled(self._store, attempt.record.id)
            if runnable.hooked:
                await self._clean_up(attempt, runnable)
        if isinstance(stop, Lost):
            _log.warning("run %s: the lease was lost, nothing more is written", attempt.record.id)
            return None
        written = await attempt.finish(stop)
        _ended()
        if not written or attempt.interrupted or not isinstance(stop, Succeeded) or stop.output.text is None:
            return None
        return Ending(attempt.record, stop.output.text, tuple(attempt.artifacts.values()))

    async def _run(
        self, attempt: Attempt, runnable: Runnable, journal: list[Entry], input_text: str | None
    ) -> Outcome | Lost:
        task = asyncio.current_task()
        assert task is not None
        limit = _TimeLimit(attempt, task)
        try:
            value = await self._agent(attempt, runnable, journal, input_text)
            return Succeeded(await attempt.payload(runnable.encode_output(value)))
        except AttemptStopped:
            pass
        except BaseException as error:  # whatever an agent raises, SystemExit included, decides its run and no other
            if isinstance(error, GeneratorExit) and is_being_closed(task):
                raise
            if attempt.stop is None:
                return self._after_error(attempt, runnable, error)
        finally:
            limit.cancel()
        assert attempt.stop is not None
        return attempt.stop

    async def _agent(self, attempt: Attempt, runnable: Runnable, journal: list[Entry], input_text: str | None) -> Any:
        if input_text is None:
            input_text = await attempt.read_payload(json.loads(journal[0].data), "input", "the input")
        try:
            value = runnable.decode_input(input_text)
        except (InvalidInput, InvalidValue) as error:
            raise attempt.undecodable("the input", error) from None
        ctx = RunContext(attempt, self._runnables)
        task = asyncio.current_task()
        assert task is not None
        scope = ctx.enter(task)
        try:
            result = await runnable.run(cast("AgentContext[Any]", ctx), value)
        finally:
            scope.leave()
        if attempt.stop is not None:
            raise AttemptStopped
        attempt.expect_done()
        return result

    async def _clean_up(self, attempt: Attempt, runnable: Runnable) -> None:
        """Run what the agent declared for a cancel, for a bounded time. Whatever comes of it, the run is cancelled."""
        attempt.cleaning = True
        try:
            journal = await self._whole_journal(attempt)
        except StoreError as error:
            _log.error("run %s: its clean-up cannot begin: %s", attempt.record.id, error)
            return
        if isinstance(attempt.stop, Lost):  # it has been learnt meanwhile
            return
        again = attempt.for_clean_up(journal)
        ctx = RunContext(again, self._runnables)
        task = asyncio.current_task()
        assert task is not None
        scope = Scope(again, CLEAN_UP_SCOPE, task)
        scope.enter()
        try:
            async with asyncio.timeout(CLEAN_UP):
                await runnable.on_cancel(cast("AgentContext[Any]", ctx))
        except AttemptStopped:
            _log.warning("run %s: its clean-up was stopped", attempt.record.id)
        except BaseException as error:  # whatever the clean-up raises, the run ends as cancelled
            if isinstance(error, GeneratorExit) and is_being_closed(task):
                raise
            _log.exception("run %s: its clean-up failed", attempt.record.id)
        finally:
            scope.leave()
            await again.waits.close()
            attempt.cleaned_up(again)

    async def _whole_journal(self, attempt: Attempt) -> list[Entry]:
        journal: list[Entry] = []
        while True:
            page = await self._store.journal(attempt.record.id, after=len(journal))
            if not page:
                return journal
            journal += page

    async def _land(self, attempt: Attempt) -> None:
        try:
            await attempt.tries_end()
        except asyncio.CancelledError:  # there is no time for it: what is still being tried will be tried again
            return

    @staticmethod
    async def _leave_waits(attempt: Attempt) -> None:
        """Close the waits, and let a cancel arrive that is still on its way: an agent that learnt from its own write
        that it is over may have come here before it. It must hit neither the clean-up nor the writing of the end.
        """
        try:
            await attempt.waits.close()
            if not isinstance(attempt.stop, Succeeded):
                await asyncio.sleep(0)
        except asyncio.CancelledError:  # it was meant for the agent, which is unwound already
            return

    def _after_error(self, attempt: Attempt, runnable: Runnable, error: BaseException) -> Outcome:
        """What an exception of the agent means: another attempt by its retry policy, or the end."""
        if isinstance(error, asyncio.CancelledError) and self._leaving():
            return HandedBack()
        try:
            return self._by_policy(attempt, runnable, error)
        except Exception as wrong:  # noqa: BLE001 - a policy that cannot be applied must not run the agent for ever
            return Failed(describe_error(wrong, code="agent.error"))

    def _by_policy(self, attempt: Attempt, runnable: Runnable, error: BaseException) -> Outcome:
        info = describe_error(error, code="agent.error")
        retry = runnable.retry
        if retry is None or not _worth_retrying(error) or not retry.covers(error):
            return Failed(info)
        failures = attempt.record.life.errors + 1
        if failures >= retry.max_attempts:
            return Failed(info, dead=True)
        if isinstance(error, Fail) and error.retry_after is not None:
            delay = seconds(error.retry_after)
        else:
            delay = retry.delay(failures, jitter(attempt.record.id, "attempt", str(failures)))
        return Retrying(info, self._clock.now() + round(delay * 1_000_000))


async def who_cancelled(store: Store, run_id: str) -> Cancelled:
    """The end of a run that was cancelled, which names who asked for it, and why."""
    try:
        asked = await store.last_entry(run_id, (RUN_CANCELLING,))
    except StoreError as error:  # it stands in the journal all the same
        _log.warning("run %s: who cancelled it cannot be read: %s", run_id, error)
        asked = None
    told = {} if asked is None else json.loads(asked.data)
    return Cancelled(told.get("by", "request"), told.get("reason"))


def _worth_retrying(error: BaseException) -> bool:
    """Errors of ours that the same program and input would meet again are not tried again."""
    return not isinstance(error, StepwellError) or error.retryable


class _TimeLimit:
    """Ends an attempt once its run's leased time is used up. A process that was stopped used less than its timers say:
    then it rings again.
    """

    __slots__ = ("_attempt", "_task", "_timer")

    def __init__(self, attempt: Attempt, task: asyncio.Task[Any]) -> None:
        self._attempt = attempt
        self._task = task
        self._set()

    def _set(self) -> None:
        left = max(0.0, self._attempt.seconds_left())
        elsewhere = Context()  # a timer outlives its cancel, with its context
        self._timer = asyncio.get_running_loop().call_later(left, self._ring, context=elsewhere)

    def _ring(self) -> None:
        if self._attempt.seconds_left() > 0 and self._attempt.leasing.interrupted:
            self._set()
            return
        self._attempt.end(TimedOut(RUN_TIMEOUT))
        self._task.cancel()

    def cancel(self) -> None:
        """The agent is done, in time or not."""
        self._timer.cancel()
