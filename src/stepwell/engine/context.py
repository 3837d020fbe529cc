"""The context an agent is handed: each verb takes its place in the order, and leaves the work to the step runner or the attempt."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import mimetypes
from collections.abc import Callable, Coroutine, Iterable, MutableMapping
from datetime import datetime
from random import Random
from typing import Any, Final
from uuid import UUID

from stepwell.codec import codec_for, fingerprint
from stepwell.domain import event, values
from stepwell.domain.blob import blob_name
from stepwell.domain.errors import InvalidDefinition, InvalidValue, Misuse, Seconds
from stepwell.domain.event import Draft, to_datetime
from stepwell.domain.ids import NAME
from stepwell.domain.retry import Retry, seconds
from stepwell.engine.attempt import Attempt, AttemptStopped
from stepwell.engine.function import BoundStep, checked_name, describe
from stepwell.engine.replay import NOW, Call, keyed_step, step_call
from stepwell.engine.scope import Scope, branch_path, inside_step, nested, own_scope
from stepwell.engine.step import PLAIN, Policy, Step, StepRunner
from stepwell.ports.context import AnyLog, RunInfo
from stepwell.ports.crash_point import CrashPoint

MAX_ARTIFACT: Final = 64 * 1024 * 1024
_MAX_KEY: Final = 1000
_logger = logging.getLogger("stepwell.run")
_checkpointed = CrashPoint("checkpoint.after_record")
_artifact_kept = CrashPoint("artifact.after_blob")


class RunContext:
    """`stepwell.Context` over one attempt."""

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt
        self._runner = StepRunner(attempt, self._step_log)
        self._log: AnyLog | None = None

    # ------------------------------------------------------------ facts

    @property
    def run(self) -> RunInfo:
        return self._attempt.info

    @property
    def deps(self) -> Any:
        return self._attempt.deps

    @property
    def attempt(self) -> int:
        return self._attempt.record.life.attempt

    @property
    def log(self) -> AnyLog:
        if self._log is None:
            self._log = _RunLog(_logger, self._attempt)
        return self._log

    def _step_log(self) -> AnyLog:
        return logging.LoggerAdapter(_logger, {"run_id": self._attempt.record.id})

    @property
    def random(self) -> Random:
        scope = self._scope("random")
        if scope.random is None:
            scope.random = Random(f"{self._attempt.record.id} {scope.path}")
        return scope.random

    def uuid(self) -> UUID:
        scope = self._scope("uuid")
        scope.uuids += 1
        drawn = hashlib.blake2b(f"{self._attempt.record.id} {scope.path} {scope.uuids}".encode(), digest_size=16)
        bits = int.from_bytes(drawn.digest(), "big")
        return UUID(int=bits & ~(0xF << 76) & ~(3 << 62) | 8 << 76 | 2 << 62)

    def now(self) -> datetime:
        place = self._scope("now").next_place()
        record = self._attempt.recall(Call(event.TIME_READ, place, NOW, ""))
        if record is not None:
            return to_datetime(record.facts()["value"])
        now = self._attempt.clock.now()
        self._attempt.note(Draft(event.TIME_READ, f'{{"value":{now}}}', place))
        return to_datetime(now)

    def patched(self, id: str, /) -> bool:
        scope = self._scope("patched")
        known = self._attempt.replay.patches.get(id)
        if known is None:
            values.check(id, what="id")
            known = not self._attempt.replay.behind(scope.path, scope.position)
            self._attempt.replay.patches[id] = known
            self._attempt.note(Draft(event.PATCH_MARKED, values.dumps({"id": id, "active": known})))
        return known

    # ------------------------------------------------------------ steps

    async def step(
        self,
        fn: Callable[..., Any],
        /,
        *args: Any,
        name: str | None = None,
        key: str | None = None,
        timeout: Seconds | None = None,
        retry: Retry | None = None,
        in_doubt: str | Callable[..., Any] = "rerun",
        run_in: str = "thread",
    ) -> Any:
        bound = describe(fn)
        if timeout is None and retry is None and in_doubt == "rerun" and run_in == "thread":
            policy = PLAIN
        else:
            policy = _policy(bound, timeout, retry, in_doubt, run_in)
        scope = self._keyed_scope() if key is not None else self._scope("step")
        step = self._make_step(bound, args, scope=scope, name=name, key=key, policy=policy)
        return await self._runner.run(step)

    def _make_step(
        self,
        bound: BoundStep,
        args: tuple[Any, ...],
        *,
        scope: Scope | None,
        name: str | None,
        key: str | None,
        policy: Policy,
    ) -> Step:
        function = bound.described
        shown = function.name if name is None else checked_name(name)
        if shown == "<lambda>":
            raise Misuse("a lambda has no name to be remembered by", code="step.name", hint="give name=")
        args = (*bound.args, *args)
        digest = fingerprint((*args, bound.kwargs) if bound.kwargs else args, shown)
        compared = function.function if name is None else None
        if key is not None:
            place = keyed_step(shown, _checked_key(key, shown))
        else:
            assert scope is not None
            place = scope.next_place()
        call = step_call(place, shown, digest, compared, keyed=key is not None)
        return Step(bound.fn, function, args, bound.kwargs, call=call, scope=scope, policy=policy)

    # ------------------------------------------------------------ several things at once

    async def map(
        self,
        fn: Callable[..., Any],
        items: Iterable[Any],
        /,
        *,
        name: str | None = None,
        key: Callable[[Any], str] | None = None,
        limit: int | None = None,
    ) -> list[Any]:
        if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
            raise InvalidDefinition(f"ctx.map(limit={limit!r}): it must be a whole number of at least 1")
        bound = describe(fn)
        things = list(items)
        keys = None if key is None else _distinct([key(item) for item in things], bound.described.name)
        slots = asyncio.Semaphore(limit) if limit is not None else None

        async def one(index: int, item: Any) -> Any:
            if slots is not None:
                await slots.acquire()
            try:
                scope = self._scope("map")
                item_key = None if keys is None else keys[index]
                step = self._make_step(bound, (item,), scope=scope, name=name, key=item_key, policy=PLAIN)
                return await self._runner.run(step)
            finally:
                if slots is not None:
                    slots.release()

        return await self._branches("map", [one(index, item) for index, item in enumerate(things)])

    async def gather(self, *branches: Coroutine[Any, Any, Any]) -> Any:
        for branch in branches:
            if not asyncio.iscoroutine(branch):
                raise Misuse(
                    f"ctx.gather takes coroutines, not {branch!r:.80}",
                    code="context.gather",
                    hint="write ctx.gather(first(), second()); a task or a future belongs to somebody already",
                )
        results = await self._branches("gather", list(branches))
        return tuple(results) if len(branches) == 2 else results

    async def _branches(self, verb: str, branches: list[Coroutine[Any, Any, Any]]) -> list[Any]:
        tasks: list[asyncio.Task[Any]] = []
        try:
            place = self._scope(verb).next_place()
            self._attempt.open_branches(place, verb)
            for index, branch in enumerate(branches):
                tasks.append(asyncio.create_task(self._branch(branch_path(place, index), branch)))
            branches = []
            return await _all_ended(tasks)
        finally:
            for branch in branches:
                branch.close()
            await _end_all(tasks)

    async def _branch(self, path: str, branch: Coroutine[Any, Any, Any]) -> Any:
        task = asyncio.current_task()
        assert task is not None
        Scope(self, path, task).enter()
        return await branch

    # ------------------------------------------------------------ facts of the agent's own

    async def emit(self, name: str, data: Any = None, /) -> None:
        if not isinstance(name, str) or NAME.fullmatch(name) is None:
            raise InvalidDefinition(f"{name!r:.80} cannot name an event", code="definition.name")
        text = codec_for(Any).encode(data if isinstance(data, dict) else {"value": data}, f"emit {name}")
        values.check_size(text, 256 * 1024, f"emit {name}")
        kind = event.CUSTOM + name
        place = self._scope("emit").next_place()
        if self._attempt.recall(Call(kind, place, name, values.digest(values.loads(text)))) is None:
            await self._attempt.commit(Draft(kind, text, place))

    async def artifact(self, name: str, content: str | bytes, /, *, media_type: str | None = None) -> None:
        values.check(name, what="artifact name")
        raw = content.encode("utf-8") if isinstance(content, str) else bytes(content)
        if len(raw) > MAX_ARTIFACT:
            raise InvalidValue(
                f"artifact {name} has {len(raw):,} bytes; the limit is {MAX_ARTIFACT:,}", path=name, code="value.size"
            )
        ref = blob_name(raw)
        place = self._scope("artifact").next_place()
        if self._attempt.recall(Call(event.ARTIFACT_SAVED, place, name, ref)) is not None:
            return
        media_type = media_type or _media_type(name, content)
        await self._attempt.keep(raw)
        _artifact_kept()
        facts = {"artifact": ref, "name": name, "media_type": media_type, "size": len(raw)}
        await self._attempt.commit(Draft(event.ARTIFACT_SAVED, values.dumps(facts), place))
        self._attempt.saw_artifact(facts)

    # ------------------------------------------------------------ saved state

    async def checkpoint(self, state: Any, /) -> None:
        scope = self._scope("checkpoint")
        if "." in scope.path:
            raise Misuse(
                "ctx.checkpoint was called in a branch; only the agent itself can begin a new numbering",
                code="checkpoint.in_branch",
                hint="call it before or after ctx.gather and ctx.map",
            )
        if not self._attempt.restored:
            raise Misuse(
                "ctx.checkpoint was called by an agent that does not begin with ctx.restore: it would start over",
                code="checkpoint.not_restored",
                hint="make `state = await ctx.restore(Type)` the agent's first call, and go on from what it gives",
            )
        text = codec_for(type(state)).encode(state, "state")
        values.check_size(text, 1024 * 1024, "state")
        payload = await self._attempt.payload(text)
        self._attempt.expect_end(scope.path, scope.position)
        version = self._attempt.replay.generation + 1
        await self._attempt.commit(Draft(event.CHECKPOINT_SAVED, f'{{"version":{version},{payload.field("state")}}}'))
        _checkpointed()
        self._attempt.replay.generation = version
        scope.path, scope.position, scope.random, scope.uuids = str(version), 0, None, 0

    async def restore(self, type: Any, /) -> Any:
        self._scope("restore")
        if self._attempt.touched or self._attempt.restored:
            raise Misuse("ctx.restore must be the agent's first call through the context", code="checkpoint.late")
        self._attempt.restored = True
        entry = self._attempt.replay.checkpoint
        if entry is None:
            return None
        text = await self._attempt.read_payload(json.loads(entry.data), "state")
        return codec_for(type).decode(text, "the saved state")

    # ------------------------------------------------------------ scopes

    def _scope(self, verb: str) -> Scope:
        self._attempt.check()
        return own_scope(self, verb)

    def _keyed_scope(self) -> Scope | None:
        """The running task's scope, if it has one: a step with a key may run in any task, but not inside a step."""
        self._attempt.check()
        if inside_step(self):
            raise nested("step")
        try:
            return own_scope(self, "step")
        except Misuse:
            return None

    def enter(self, task: asyncio.Task[Any]) -> Scope:
        """Open the agent's own scope in its task."""
        scope = Scope(self, str(self._attempt.replay.generation), task)
        scope.enter()
        return scope


class _RunLog(logging.LoggerAdapter[logging.Logger]):
    """Carries the run's id, and is quiet while the agent repeats what is remembered."""

    def __init__(self, logger: logging.Logger, attempt: Attempt) -> None:
        super().__init__(logger, {"run_id": attempt.record.id})
        self._attempt = attempt

    def isEnabledFor(self, level: int) -> bool:
        return not self._attempt.replaying and super().isEnabledFor(level)

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        return msg, {**kwargs, "extra": {**(self.extra or {}), **kwargs.get("extra", {})}}


async def _all_ended(tasks: list[asyncio.Task[Any]]) -> list[Any]:
    """The results in order, when all have ended; else the first error in order. An attempt that stopped goes first, at once."""
    pending = set(tasks)
    while pending:
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            if not task.cancelled() and isinstance(task.exception(), AttemptStopped):
                raise AttemptStopped
    return [task.result() for task in tasks]


async def _end_all(tasks: list[asyncio.Task[Any]]) -> None:
    """Whatever ended the wait: no branch outlives it, and no error of a branch goes unseen."""
    open_tasks = [task for task in tasks if not task.done()]
    for task in open_tasks:
        task.cancel()
    if open_tasks:
        await asyncio.wait(open_tasks)
    for task in tasks:
        if not task.cancelled():
            task.exception()


def _policy(
    bound: BoundStep, timeout: Seconds | None, retry: Retry | None, in_doubt: Any, run_in: str
) -> Policy:
    if not callable(in_doubt) and in_doubt not in ("rerun", "fail"):
        raise InvalidDefinition(
            f"in_doubt={in_doubt!r:.80}", code="definition.in_doubt", hint='use "rerun", "fail" or a function'
        )
    if callable(in_doubt) and not bound.described.typed:
        raise InvalidDefinition(
            f"step {bound.described.name} has no return annotation, so what its in_doubt function found cannot be told "
            "from nothing",
            code="definition.in_doubt",
            hint="annotate the step's return type",
        )
    if run_in not in ("thread", "process"):
        raise InvalidDefinition(f"run_in={run_in!r:.80}", code="definition.run_in", hint='use "thread" or "process"')
    if run_in == "process" and (bound.described.is_async or bound.described.wants_context or bound.kwargs):
        raise InvalidDefinition(
            f'step {bound.described.name} cannot run with run_in="process"',
            code="definition.run_in",
            hint="only a plain function without StepContext and keyword arguments runs in another interpreter",
        )
    bounded = None if timeout is None else seconds(timeout, what="timeout")
    return Policy(bounded, retry, in_doubt, run_in)


def _checked_key(key: str, name: str) -> str:
    if not isinstance(key, str) or not 0 < len(key) <= _MAX_KEY:
        raise InvalidDefinition(
            f"step {name}: key {key!r:.80} is not a text of 1 to {_MAX_KEY} characters",
            code="definition.step_key",
            hint="use key=str(...)",
        )
    values.check(key, what="key")
    return key


def _distinct(keys: list[str], name: str) -> list[str]:
    seen: set[str] = set()
    for key in keys:
        if key in seen:
            raise InvalidDefinition(
                f"ctx.map({name}): two items have the key {key!r:.80}",
                code="definition.step_key",
                hint="give each item a key of its own, or leave key= out",
            )
        seen.add(key)
    return keys


def _media_type(name: str, content: str | bytes) -> str:
    guessed = mimetypes.guess_type(name)[0]
    return guessed or ("text/plain" if isinstance(content, str) else "application/octet-stream")
