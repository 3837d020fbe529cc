"""Steps: called once, then remembered. What happens around one call of a step's function, in the order in which it
happens.

`StepRunner.run` is the table of contents: recall, settle a doubt, try, record, and after an error decide. Policies that
must know whether an effect happened journal an intent before the try; an intent without an end is a doubt, and doubts
are settled by the declared policy only.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from stepwell.domain import event
from stepwell.domain.errors import Fail, InvalidValue, NotExecuted, StepFailed, StepwellError
from stepwell.domain.event import Draft
from stepwell.domain.ids import QUESTION, derived, derived_id
from stepwell.domain.outcome import ErrorInfo, Held
from stepwell.domain.retry import Retry, jitter, seconds
from stepwell.domain.run import IN_DOUBT
from stepwell.domain.values import dumps
from stepwell.domain.wait import VERDICT
from stepwell.engine.attempt import Attempt, AttemptStopped
from stepwell.engine.failure import as_local, describe_error, is_being_closed
from stepwell.engine.function import BoundStep, describe
from stepwell.engine.offload import in_process
from stepwell.engine.replay import Call, Record
from stepwell.engine.report import StepReport
from stepwell.engine.scope import Scope, StepCode
from stepwell.engine.waiting import Waiting
from stepwell.ports.context import StepContext
from stepwell.ports.crash_point import CrashPoint

_log = logging.getLogger("stepwell.engine")

_logger = logging.getLogger("stepwell.run")
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
    """How a step is tried. `timeout` bounds one try in seconds; `in_doubt` is "rerun", "fail", or finds out."""

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
    """One step of one attempt: its function and arguments, its place, its policy. `tries` have failed so far, `intents`
    have been written.

    `scope` is `None` for a step with a key whose task owns no scope.
    """

    __slots__ = ("args", "bound", "call", "function", "identity", "intents", "policy", "scope", "tries")

    def __init__(
        self, bound: BoundStep, args: tuple[Any, ...], *, call: Call, scope: Scope | None, policy: Policy
    ) -> None:
        self.bound = bound
        self.function = function = bound.described
        self.args = args
        self.call = call
        self.scope = scope
        self.policy = policy
        self.tries = 0
        self.intents = 0
        name_text = function.name_text if call.name == function.name else dumps(call.name)
        self.identity = f'"name":{name_text},"digest":"{call.digest}","function":{function.function_text}'


class StepRunner:
    """Runs the steps of one attempt."""

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt
        self._with_key: dict[str, asyncio.Event] = {}

    async def run(self, step: Step) -> Any:
        """The step's result: remembered, found out, or made now. Raises `StepFailed` when the step failed for good."""
        task = asyncio.current_task()
        before = _cancels(task)
        self._attempt.waits.begin_step()
        try:
            return await (self._run_alone(step) if step.call.keyed else self._run(step))
        except asyncio.CancelledError:
            if step.scope is not None and _cancels(task) > before:
                self._attempt.interrupt(f"step {step.call.name}")
            raise
        finally:
            self._attempt.waits.end_step()

    async def _run_alone(self, step: Step) -> Any:
        """A key may be used again, in other tasks too: the step is done once, and the others are given what it gave."""
        key = step.call.step
        while (running := self._with_key.get(key)) is not None:
            with self._attempt.waits.following():
                await running.wait()
            self._attempt.check()
        ended = self._with_key[key] = asyncio.Event()
        try:
            return await self._run(step)
        finally:
            del self._with_key[key]
            ended.set()

    async def _run(self, step: Step) -> Any:
        record = self._attempt.recall(step.call)
        if record is None:
            return await self._try(step)
        if record.final:
            return await self._remembered(step, record)
        step.tries = record.tries
        step.intents = record.intents
        if record.intended and step.policy.must_know:
            found, value = await self._settle(step, "the process stopped during the step")
            if found:
                return value
        elif record.retry_at is not None:
            await self._wait_for(record.retry_at, longest=record.retry_at - record.at)
        return await self._try(step)

    async def _remembered(self, step: Step, record: Record) -> Any:
        facts = record.facts()
        if record.failed:
            error = facts["error"]
            self._report(step, "failed", error=_said(error.get("type"), error["message"]))
            raise _step_failed(step, ErrorInfo(error["code"], error["message"], error["retryable"], error.get("type")))
        text = await self._attempt.read_payload(facts, "result", step.call.step)
        try:
            value = step.function.codec.decode(text, f"the remembered result of step {step.call.name}")
        except InvalidValue as error:
            raise self._attempt.undecodable(step.call.step, error) from None
        self._report(step, "remembered")
        return value

    # ------------------------------------------------------------ trying

    async def _try(self, step: Step) -> Any:
        while True:
            self._attempt.before_acting()
            if step.policy.must_know:
                await self._intend(step)
                self._attempt.before_acting()
            self._report(step, "started")
            self._attempt.begin_try()
            try:
                found, value = await self._try_once(step)
            finally:
                self._attempt.end_try()
            if found:
                return value
            await self._attempt.waits.doze(self._attempt.clock.sleep(value))

    async def _try_once(self, step: Step) -> tuple[bool, Any]:
        """One try, recorded: (True, result), or (False, seconds until the next)."""
        task = asyncio.current_task()
        before = _cancels(task)
        began = self._attempt.clock.elapsed()
        try:
            _before()
            value = await self._invoke(step)
            _after()
            text, result = step.function.codec.remember(value, "result")
        except AttemptStopped:
            raise
        except BaseException as error:  # whatever a step raises is the step's error, SystemExit included
            if isinstance(error, GeneratorExit) and is_being_closed(task):
                raise
            if isinstance(error, asyncio.CancelledError) and _cancels(task) > before:
                return await self._after_cancel(step, error)
            return await self._after_error(step, error)
        await self._complete(step, text, began)
        return True, result

    async def _intend(self, step: Step) -> None:
        shown = step.policy.in_doubt if isinstance(step.policy.in_doubt, str) else "function"
        data = f'{{{step.identity},"in_doubt":"{shown}","idempotency_key":"{self._idempotency_key(step)}"}}'
        step.intents += 1
        await self._commit(step, Draft(event.STEP_INTENDED, data, step.call.step))
        _intended()

    async def _invoke(self, step: Step) -> Any:
        timeout = step.policy.timeout
        if timeout is None:
            return await self._call(step, step.bound)
        try:
            async with asyncio.timeout(timeout) as bound:
                return await self._call(step, step.bound)
        except TimeoutError as error:
            if bound.expired():
                raise StepTimeout(f"{step.call.name} took longer than {timeout:g} s") from error
            raise

    async def _call(self, step: Step, bound: BoundStep) -> Any:
        """Call a function with the step's arguments, where its kind is called. Context calls are refused meanwhile."""
        args = (*bound.args, *step.args)
        if bound.described.wants_context:
            args = (self._context(step), *args)
        with StepCode(self._attempt):
            if bound.described.is_async:
                return await bound.fn(*args, **bound.kwargs)
            if step.policy.run_in == "process" and bound is step.bound:
                return await in_process(bound.fn, args)
            value = await self._attempt.offload.in_thread(bound.fn, args, bound.kwargs)
            return await value if inspect.isawaitable(value) else value

    async def _complete(self, step: Step, text: str, began: float) -> None:
        ms = round((self._attempt.clock.elapsed() - began) * 1000, 3)
        payload = await self._attempt.payload(text)
        data = f'{{{step.identity},"ms":{ms},{payload.field("result")}}}'
        await self._commit(step, Draft(event.STEP_COMPLETED, data, step.call.step))
        _recorded()
        self._report(step, "done", ms=ms)
        await self._told(step)

    async def _told(self, step: Step) -> None:
        """The step is on record, for good."""
        if self._attempt.after_step is not None:
            await self._attempt.after_step(self._attempt, step.call)

    async def _commit(self, step: Step, draft: Draft) -> None:
        """Write what came of a try. What has a key is known from now on, whatever becomes of the calling task."""
        if step.call.keyed:
            self._attempt.replay.learn(step.call.step, draft)
        scope = "" if step.scope is None else step.scope.path
        await self._attempt.commit(draft, of_try=scope, apart=step.scope is None)

    # ------------------------------------------------------------ errors and doubts

    async def _after_cancel(self, step: Step, error: asyncio.CancelledError) -> tuple[bool, Any]:
        """The try was cancelled. By whoever stops the attempt: it unwinds. By the agent: a doubt is settled first."""
        if step.policy.must_know and self._attempt.stop is None and not self._attempt.leaving():
            found, value = await self._settle(step, "the agent cancelled the step")
            if found:
                return True, value
        raise error

    async def _after_error(self, step: Step, error: BaseException) -> tuple[bool, Any]:
        """Decide what an error means: (True, result) when the effect turned out to have happened, (False, seconds) to
        try again after that time.
        """
        info = describe_error(error, code="step.timeout" if isinstance(error, StepTimeout) else "step.error")
        if step.policy.must_know and not isinstance(error, NotExecuted):
            found, value = await self._settle(step, f"the step raised {info.type}: {info.message}")
            if found:
                return True, value
            if step.policy.in_doubt == "ask":  # a person decided that it runs again, whatever its retry policy says
                return False, 0.0
        step.tries += 1
        try:
            delay = _next_delay(step, error, self._attempt.record.id)
        except Exception as wrong:  # noqa: BLE001 - a policy that cannot be applied: its error is the step's
            delay, info = None, describe_error(wrong, code="step.error")
        if delay is None:
            await self._note_failure(step, info, None)
            self._report(step, "failed", error=_said(info.type, info.message))
            await self._told(step)
            raise _step_failed(step, info) from error
        retry_at = self._attempt.clock.now() + round(delay * 1_000_000)
        await self._note_failure(step, info, retry_at)
        self._report(step, "retrying", error=_said(info.type, info.message), retry_in=delay)
        return False, delay

    async def _note_failure(self, step: Step, error: ErrorInfo, retry_at: int | None) -> None:
        later = "" if retry_at is None else f',"retry_at":{retry_at}'
        data = f'{{{step.identity},"error":{error.text()},"try":{step.tries}{later}}}'
        await self._commit(step, Draft(event.STEP_FAILED, data, step.call.step))
        _noted()

    async def _wait_for(self, at: int, *, longest: int) -> None:
        """Wait for the next try; a clock that was set back does not make it longer than was decided at the failure."""
        delay = min(at - self._attempt.clock.now(), longest)
        if delay > 0:
            await self._attempt.waits.doze(self._attempt.clock.sleep(delay / 1_000_000))

    async def _settle(self, step: Step, why: str) -> tuple[bool, Any]:
        """Settle a doubt by the declared policy: (True, result) if the effect happened, (False, None) if it did not."""
        finder = step.policy.in_doubt
        if finder == "ask":
            return await self._ask(step, why)
        if isinstance(finder, str):
            raise self._hold(step, why)
        self._attempt.before_acting()
        task = asyncio.current_task()
        before = _cancels(task)
        began = self._attempt.clock.elapsed()
        try:
            bound = describe(finder)
            value = await self._call(step, bound)
            if value is None and not step.function.returns_none:
                raise NotExecuted
            text, result = step.function.codec.remember(value, f"the result that {bound.described.name} found")
        except NotExecuted:
            return False, None
        except AttemptStopped:
            raise
        except BaseException as error:  # the finder's failure leaves the doubt open: a person has to settle it
            if isinstance(error, GeneratorExit) and is_being_closed(task):
                raise
            if isinstance(error, asyncio.CancelledError) and _cancels(task) > before:
                raise
            told = describe_error(error, code="step.error")
            raise self._hold(step, f"{why}; finding out failed with {told.type}: {told.message:.500}") from error
        _settled()
        await self._complete(step, text, began)
        return True, result

    async def _ask(self, step: Step, why: str) -> tuple[bool, Any]:
        """A person settles the doubt. The run holds nothing while it waits."""
        place = step.call.step
        wait_id = derived_id(QUESTION, self._attempt.record.id, place, str(step.intents))
        text = f"step {step.call.name} may have had its effect: {why}. Did it?"
        details = {"step": place, "name": step.call.name}
        self._attempt.waits.end_step()
        try:
            verdict = await Waiting(self._attempt).verdict(wait_id, text, VERDICT, details)
        finally:
            self._attempt.waits.begin_step()
        if isinstance(verdict, dict):
            return await self._settled_as_done(step, dumps(verdict["done"]), why)
        if verdict == "rerun":
            error = ErrorInfo("step.rerun", "a person decided that the step runs again", retryable=True)
            await self._note_settlement(step, error, f'"verdict":"rerun","retry_at":{self._attempt.clock.now()}')
            return False, None
        error = ErrorInfo("step.settled_as_failed", "a person decided that the step failed")
        await self._note_settlement(step, error, '"verdict":"fail"')
        raise _step_failed(step, error)

    async def _settled_as_done(self, step: Step, text: str, why: str) -> tuple[bool, Any]:
        try:
            value = step.function.codec.decode(text, f"the result of step {step.call.name}")
        except InvalidValue as error:
            raise self._hold(step, f"{why}; the result that was given does not fit: {error.message}") from None
        _settled()
        payload = await self._attempt.payload(text)
        data = f'{{{step.identity},"verdict":"done","ms":0,{payload.field("result")}}}'
        await self._commit(step, Draft(event.STEP_COMPLETED, data, step.call.step))
        return True, value

    async def _note_settlement(self, step: Step, error: ErrorInfo, rest: str) -> None:
        data = f'{{{step.identity},"error":{error.text()},{rest}}}'
        await self._commit(step, Draft(event.STEP_FAILED, data, step.call.step))
        _noted()

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
            log=logging.LoggerAdapter(_logger, {"run_id": self._attempt.record.id}),
            cancelled=lambda: self._attempt.cancelling,
        )

    def _idempotency_key(self, step: Step) -> str:
        call = step.call
        run = self._attempt.record
        return derived("idem_", run.origin or run.id, call.step, call.name, call.digest)

    def _report(
        self,
        step: Step,
        status: Any,
        *,
        ms: float | None = None,
        error: str | None = None,
        retry_in: float | None = None,
    ) -> None:
        observer = self._attempt.observer
        if observer is None:
            return
        report = StepReport(self._attempt.record.id, step.call.step, step.call.name, status, ms, error, retry_in)
        try:
            observer(report)
        except Exception:  # noqa: BLE001 - an observer only watches: what it does wrong must not change the run
            _log.exception("run %s: what observes its steps failed", self._attempt.record.id)


def _said(kind: str | None, message: str) -> str:
    return f"{kind}: {message}" if kind else message


def _step_failed(step: Step, error: ErrorInfo) -> StepFailed:
    return StepFailed(
        f"step {step.call.name} failed: {_said(error.type, error.message)}",
        step=step.call.step,
        error_type=error.type or error.code,
        code=error.code,
        retryable=error.retryable,
    )


def _next_delay(step: Step, error: BaseException, run_id: str) -> float | None:
    """Seconds until the next try, or `None` if there is none; the jitter is drawn from run, step and try."""
    retry = step.policy.retry
    error = as_local(error)
    if retry is None or step.tries >= retry.max_attempts or not retry.covers(error):
        return None
    if isinstance(error, StepwellError) and not error.retryable:
        return None
    if isinstance(error, Fail) and error.retry_after is not None:
        return seconds(error.retry_after)
    return retry.delay(step.tries, jitter(run_id, step.call.step, str(step.tries)))


def _cancels(task: asyncio.Task[Any] | None) -> int:
    """How many cancellations of the task have been asked for: more than before means that one came from outside."""
    return 0 if task is None else task.cancelling()
