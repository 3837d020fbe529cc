"""Steps: called once, then remembered. What happens around one call of a step's function, in the order in which it happens.

`StepRunner.run` is the table of contents: recall, settle a doubt, try, record, and after an error decide. Policies that must know whether
an effect happened journal an intent before the try; an intent without an end is a doubt, and doubts are settled by the declared policy only.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from stepwell.domain import event
from stepwell.domain.errors import Fail, NotExecuted, StepFailed, StepwellError
from stepwell.domain.event import Draft
from stepwell.domain.ids import derived
from stepwell.domain.outcome import ErrorInfo, Held
from stepwell.domain.retry import Retry, jitter, seconds
from stepwell.domain.run import IN_DOUBT
from stepwell.domain.values import dumps
from stepwell.engine.attempt import Attempt, AttemptStopped
from stepwell.engine.failure import as_local, describe_error
from stepwell.engine.function import StepFunction, describe
from stepwell.engine.offload import in_process
from stepwell.engine.replay import Call, Record
from stepwell.engine.report import StepReport
from stepwell.engine.scope import Scope
from stepwell.ports.context import AnyLog, StepContext
from stepwell.ports.crash_point import CrashPoint

_before = CrashPoint("step.before_function")
_after = CrashPoint("step.after_function")
_intended = CrashPoint("step.after_intent")
_recorded = CrashPoint("step.after_record")
_noted = CrashPoint("step.after_failure")
_settled = CrashPoint("step.after_settlement")


class StepTimeout(TimeoutError):
    """A try took longer than the step's `timeout`."""


@dataclass(frozen=True, slots=True)
class Policy:
    """How a step is tried. `timeout` bounds one try in seconds; `in_doubt` is "rerun", "fail" or a function that finds out."""

    timeout: float | None = None
    retry: Retry | None = None
    in_doubt: str | Callable[..., Any] = "rerun"
    run_in: str = "thread"

    @property
    def must_know(self) -> bool:
        """Whether a try leaves a doubt behind when its end is not recorded."""
        return self.in_doubt != "rerun"


PLAIN: Final = Policy()


class Step:
    """One step of one attempt: its function and arguments, its place in the journal, its policy. `tries` have failed so far."""

    __slots__ = ("args", "call", "fn", "function", "identity", "kwargs", "policy", "scope", "tries")

    def __init__(
        self,
        fn: Callable[..., Any],
        function: StepFunction,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        call: Call,
        scope: Scope | None,
        policy: Policy,
    ) -> None:
        self.fn = fn
        self.function = function
        self.args = args
        self.kwargs = kwargs
        self.call = call
        self.scope = scope
        self.policy = policy
        self.tries = 0
        name_text = function.name_text if call.name == function.name else dumps(call.name)
        self.identity = f'"name":{name_text},"digest":"{call.digest}","function":{function.function_text}'


class StepRunner:
    """Runs the steps of one attempt."""

    def __init__(self, attempt: Attempt, make_log: Callable[[], AnyLog]) -> None:
        self._attempt = attempt
        self._make_log = make_log

    async def run(self, step: Step) -> Any:
        """The step's result: remembered, found out, or made now. Raises `StepFailed` when the step failed for good."""
        self._attempt.check()
        record = self._attempt.recall(step.call)
        if record is None:
            return await self._try(step)
        if record.final:
            return await self._remembered(step, record)
        step.tries = record.tries
        if record.intended and step.policy.must_know:
            found, value = await self._settle(step, "the process stopped during the step")
            if found:
                return value
        elif record.retry_at is not None:
            await self._wait_until(step, record.retry_at)
        return await self._try(step)

    async def _remembered(self, step: Step, record: Record) -> Any:
        facts = record.facts()
        if record.failed:
            error = facts["error"]
            self._report(step, "failed", error=error["message"])
            raise _step_failed(step, ErrorInfo(error["code"], error["message"], error["retryable"], error.get("type")))
        text = await self._attempt.read_payload(facts, "result")
        self._report(step, "remembered")
        return step.function.codec.decode(text, f"the remembered result of step {step.call.name}")

    # ------------------------------------------------------------ trying

    async def _try(self, step: Step) -> Any:
        while True:
            await self._intend(step)
            self._attempt.before_acting()
            self._report(step, "started")
            began = time.perf_counter()
            try:
                _before()
                value = await self._invoke(step)
                _after()
                text, result = step.function.codec.remember(value, "result")
            except (AttemptStopped, GeneratorExit):
                raise
            except BaseException as error:  # whatever a step raises is the step's error, SystemExit included
                if isinstance(error, asyncio.CancelledError) and _cancelled_from_outside():
                    raise
                found, value = await self._after_error(step, error)
                if found:
                    return value
            else:
                await self._complete(step, text, began)
                return result

    async def _intend(self, step: Step) -> None:
        if step.policy.must_know:
            shown = step.policy.in_doubt if isinstance(step.policy.in_doubt, str) else "function"
            data = f'{{{step.identity},"in_doubt":"{shown}","idempotency_key":"{self._idempotency_key(step)}"}}'
            await self._attempt.commit(Draft(event.STEP_INTENDED, data, step.call.step))
            _intended()

    async def _invoke(self, step: Step) -> Any:
        timeout = step.policy.timeout
        if timeout is None:
            return await self._call(step, step.fn, step.function)
        try:
            async with asyncio.timeout(timeout) as bound:
                return await self._call(step, step.fn, step.function)
        except TimeoutError as error:
            if bound.expired():
                raise StepTimeout(f"{step.call.name} took longer than {timeout:g} s") from error
            raise

    async def _call(self, step: Step, fn: Callable[..., Any], function: StepFunction) -> Any:
        args = (self._context(step), *step.args) if function.wants_context else step.args
        if function.is_async:
            return await self._alone(step, fn(*args, **step.kwargs))
        if step.policy.run_in == "process" and fn is step.fn:
            return await in_process(fn, args)
        value = await self._attempt.offload.in_thread(fn, args, step.kwargs)
        return await self._alone(step, value) if inspect.isawaitable(value) else value

    async def _alone(self, step: Step, awaitable: Any) -> Any:
        """Await the step's own code; context calls from inside it are refused meanwhile."""
        if step.scope is None:
            return await awaitable
        step.scope.busy = True
        try:
            return await awaitable
        finally:
            step.scope.busy = False

    async def _complete(self, step: Step, text: str, began: float) -> None:
        ms = round((time.perf_counter() - began) * 1000, 3)
        payload = await self._attempt.payload(text)
        data = f'{{{step.identity},"ms":{ms},{payload.field("result")}}}'
        await self._attempt.commit(Draft(event.STEP_COMPLETED, data, step.call.step))
        _recorded()
        self._report(step, "done", ms=ms)

    # ------------------------------------------------------------ errors and doubts

    async def _after_error(self, step: Step, error: BaseException) -> tuple[bool, Any]:
        """Decide what an error means. (True, result) when the effect turned out to have happened, (False, None) to try again."""
        info = describe_error(error, code="step.timeout" if isinstance(error, StepTimeout) else "step.error")
        if step.policy.must_know and not isinstance(error, NotExecuted):
            found, value = await self._settle(step, f"the step raised {info.type}: {info.message}")
            if found:
                return True, value
        step.tries += 1
        delay = _next_delay(step, error, self._attempt.record.id)
        if delay is None:
            await self._note_failure(step, info, None)
            self._report(step, "failed", error=info.message)
            raise _step_failed(step, info) from error
        retry_at = self._attempt.clock.now() + round(delay * 1_000_000)
        await self._note_failure(step, info, retry_at)
        self._report(step, "retrying", error=info.message, retry_in=delay)
        await self._wait_until(step, retry_at)
        return False, None

    async def _note_failure(self, step: Step, error: ErrorInfo, retry_at: int | None) -> None:
        later = "" if retry_at is None else f',"retry_at":{retry_at}'
        data = f'{{{step.identity},"error":{error.text()},"try":{step.tries}{later}}}'
        await self._attempt.commit(Draft(event.STEP_FAILED, data, step.call.step))
        _noted()

    async def _wait_until(self, step: Step, at: int) -> None:
        """Wait for the next try; a clock that was set back does not make it longer than the policy's longest delay."""
        delay = (at - self._attempt.clock.now()) / 1_000_000
        if step.policy.retry is not None:
            delay = min(delay, max(seconds(step.policy.retry.max_delay), seconds(step.policy.retry.first_delay)))
        if delay > 0:
            await self._attempt.clock.sleep(delay)

    async def _settle(self, step: Step, why: str) -> tuple[bool, Any]:
        """Settle a doubt by the declared policy: (True, result) when the effect happened, (False, None) when it did not."""
        finder = step.policy.in_doubt
        if isinstance(finder, str):
            raise self._hold(step, why)
        began = time.perf_counter()
        function = describe(finder).described
        try:
            value = await self._call(step, finder, function)
            if value is None and not step.function.returns_none:
                raise NotExecuted
            text, result = step.function.codec.remember(value, f"the result that {function.name} found")
        except NotExecuted:
            return False, None
        except (AttemptStopped, GeneratorExit, asyncio.CancelledError):
            raise
        except BaseException as error:  # the finder's failure leaves the doubt open: a person has to settle it
            raise self._hold(step, f"{why}; {function.name} could not find out: {error!r:.500}") from error
        _settled()
        await self._complete(step, text, began)
        return True, result

    def _hold(self, step: Step, why: str) -> AttemptStopped:
        detail = f'{{"step":{dumps(step.call.step)},{step.identity},"message":{dumps(why)}}}'
        return self._attempt.end(Held(IN_DOUBT, "step", detail))

    # ------------------------------------------------------------ what a step is given

    def _context(self, step: Step) -> StepContext[Any]:
        return StepContext(
            run=self._attempt.info,
            deps=self._attempt.deps,
            idempotency_key=self._idempotency_key(step),
            attempt=step.tries + 1,
            log=self._make_log(),
        )

    def _idempotency_key(self, step: Step) -> str:
        return derived("idem_", self._attempt.record.root or self._attempt.record.id, step.call.step)

    def _report(
        self, step: Step, status: Any, *, ms: float | None = None, error: str | None = None, retry_in: float | None = None
    ) -> None:
        if self._attempt.observer is not None:
            call = step.call
            self._attempt.observer(
                StepReport(self._attempt.record.id, call.step, call.name, status, ms, error, retry_in)
            )


def _step_failed(step: Step, error: ErrorInfo) -> StepFailed:
    kind = error.type or "an error"
    return StepFailed(
        f"step {step.call.name} failed: {kind}: {error.message}",
        step=step.call.step,
        error_type=kind,
        code=error.code,
        retryable=error.retryable,
    )


def _next_delay(step: Step, error: BaseException, run_id: str) -> float | None:
    """Seconds until the next try, or `None` when there is none. The jitter is drawn from the run, the step and the try."""
    retry = step.policy.retry
    error = as_local(error)
    if retry is None or step.tries >= retry.max_attempts or not retry.covers(error):
        return None
    if isinstance(error, StepwellError) and not error.retryable:
        return None
    if isinstance(error, Fail) and error.retry_after is not None:
        return seconds(error.retry_after)
    return retry.delay(step.tries, jitter(run_id, step.call.step, str(step.tries)))


def _cancelled_from_outside() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
