"""One attempt, from claim to outcome: prepare, run the agent, say what its stop means, write it once."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from stepwell.domain.errors import Fail, InvalidInput, InvalidValue, StepwellError
from stepwell.domain.event import Entry, to_datetime
from stepwell.domain.outcome import Failed, HandedBack, Outcome, Retrying, Succeeded, TimedOut
from stepwell.domain.retry import jitter, seconds
from stepwell.domain.run import RunRecord
from stepwell.domain.transitions import RUN_TIMEOUT
from stepwell.engine.attempt import Attempt, AttemptStopped, Lost
from stepwell.engine.context import RunContext
from stepwell.engine.failure import describe_error, is_being_closed
from stepwell.engine.offload import Offload
from stepwell.ports.context import Context, RunInfo
from stepwell.ports.crash_point import CrashPoint

if TYPE_CHECKING:
    from stepwell.engine.report import Observer
    from stepwell.ports.clock import Clock
    from stepwell.ports.runnable import Runnable
    from stepwell.ports.store import Claim, Store

_log = logging.getLogger("stepwell.engine")
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
    the worker is being stopped.
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
    ) -> None:
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
        )

    async def execute(self, attempt: Attempt, journal: list[Entry], input_text: str | None) -> Ending | None:
        """Run the attempt to its outcome and write it. `input_text` spares reading the input from the journal.

        Returns how the run ended when it succeeded with an output that is inline, so that a caller in this process need
        not read it back.
        """
        _claimed()
        runnable = self._runnables[attempt.record.agent]
        stop = await self._run(attempt, runnable, journal, input_text)
        await self._land(attempt)
        attempt.close(stop)
        _returned()
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
        limit = asyncio.get_running_loop().call_later(max(0.0, attempt.seconds_left()), _time_out, attempt, task)
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
        ctx = RunContext(attempt)
        task = asyncio.current_task()
        assert task is not None
        scope = ctx.enter(task)
        try:
            result = await runnable.run(cast("Context[Any]", ctx), value)
        finally:
            scope.leave()
        if attempt.stop is not None:
            raise AttemptStopped
        attempt.expect_done()
        return result

    async def _land(self, attempt: Attempt) -> None:
        try:
            await attempt.tries_end()
        except asyncio.CancelledError:  # there is no time for it: what is still being tried will be tried again
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


def _worth_retrying(error: BaseException) -> bool:
    """Errors of ours that the same program and input would meet again are not tried again."""
    return not isinstance(error, StepwellError) or error.retryable


def _time_out(attempt: Attempt, task: asyncio.Task[Any]) -> None:
    attempt.end(TimedOut(RUN_TIMEOUT))
    task.cancel()
