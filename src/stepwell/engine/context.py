"""The context an agent is handed: each verb takes its place in the order, and leaves the work to the step runner or the
attempt.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import Callable, Coroutine, Iterable, MutableMapping
from contextlib import nullcontext
from datetime import datetime
from random import Random
from typing import Any, TypeVar
from uuid import UUID

from stepwell.codec import Codec, codec_for, fingerprint
from stepwell.domain import event, values
from stepwell.domain.blob import blob_name
from stepwell.domain.errors import InvalidDefinition, InvalidValue, Misuse, Seconds
from stepwell.domain.event import Draft, to_datetime
from stepwell.domain.ids import NAME
from stepwell.domain.retry import Retry
from stepwell.engine.attempt import Attempt
from stepwell.engine.branches import all_ended, close_unbegun, end_all, run_branch
from stepwell.engine.checks import artifact_bytes, check_text, checked_key, distinct, media_type_of, step_policy
from stepwell.engine.failure import is_being_closed
from stepwell.engine.function import BoundStep, checked_name, describe
from stepwell.engine.replay import NOW, Call, keyed_step, step_call
from stepwell.engine.scope import Scope, branch_path, own_scope, refuse_inside_step, scope_if_own
from stepwell.engine.step import PLAIN, Policy, Step, StepRunner
from stepwell.ports.context import AnyLog, RunInfo
from stepwell.ports.crash_point import CrashPoint

T = TypeVar("T")

_logger = logging.getLogger("stepwell.run")
_unlimited = nullcontext()
_checkpointed = CrashPoint("checkpoint.after_record")
_artifact_kept = CrashPoint("artifact.after_blob")


class RunContext:
    """`stepwell.Context` over one attempt."""

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt
        self._runner = StepRunner(attempt)
        self._loop = asyncio.get_running_loop()
        self._log: AnyLog | None = None
        self._state: Codec[Any] | None = None

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

    @property
    def random(self) -> Random:
        scope = self._scope("random")
        self._attempt.touch()
        if scope.random is None:
            scope.random = Random(f"{self._attempt.record.id} {scope.path}")
        return scope.random

    def uuid(self) -> UUID:
        scope = self._scope("uuid")
        self._attempt.touch()
        scope.uuids += 1
        drawn = hashlib.blake2b(f"{self._attempt.record.id} {scope.path} {scope.uuids}".encode(), digest_size=16)
        bits = int.from_bytes(drawn.digest(), "big")
        return UUID(int=bits & ~(0xF << 76) & ~(3 << 62) | 8 << 76 | 2 << 62)

    def now(self) -> datetime:
        scope = self._scope("now")
        place = scope.next_place()
        record = self._attempt.recall(Call(event.TIME_READ, place, NOW, ""))
        if record is not None:
            return to_datetime(record.facts()["value"])
        now = self._attempt.clock.now()
        self._attempt.note(Draft(event.TIME_READ, f'{{"value":{now}}}', place), scope.path)
        return to_datetime(now)

    def patched(self, id: str, /) -> bool:
        scope = self._scope("patched")
        self._attempt.touch()
        known = self._attempt.replay.patches.get(id)
        if known is None:
            check_text(id, "the id of a patch")
            known = not self._attempt.replay.behind(scope.path, scope.position)
            self._attempt.replay.patches[id] = known
            self._attempt.note(Draft(event.PATCH_MARKED, values.dumps({"id": id, "active": known})), scope.path)
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
        policy = step_policy(bound, timeout, retry, in_doubt, run_in)
        await self._open()
        scope = self._scope_of_step(key)
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
        told = (*bound.args, *args)
        digest = fingerprint((*told, bound.kwargs) if bound.kwargs else told, shown)
        compared = function.function if name is None else None
        if key is not None:
            place = keyed_step(shown, checked_key(key, shown))
        else:
            assert scope is not None
            place = scope.next_place()
        call = step_call(place, shown, digest, compared, keyed=key is not None)
        return Step(bound, args, call=call, scope=scope, policy=policy)

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
        keys = None if key is None else distinct([key(item) for item in things], bound.described.name)
        slots = asyncio.Semaphore(limit) if limit is not None else None

        async def one(index: int, item: Any) -> Any:
            async with slots or _unlimited:
                item_key = None if keys is None else keys[index]
                scope = self._scope_of_step(item_key)
                step = self._make_step(bound, (item,), scope=scope, name=name, key=item_key, policy=PLAIN)
                return await self._runner.run(step)

        return await self._branches("map", [one(index, item) for index, item in enumerate(things)])

    async def gather(self, *branches: Coroutine[Any, Any, Any]) -> Any:
        wrong = [branch for branch in branches if not asyncio.iscoroutine(branch)]
        if wrong:
            for branch in branches:
                if asyncio.iscoroutine(branch):
                    branch.close()
            raise Misuse(
                f"ctx.gather takes coroutines, not {values.quote(wrong[0])}",
                code="context.gather",
                hint="write ctx.gather(first(), second()); a task or a future belongs to somebody already",
            )
        results = await self._branches("gather", list(branches))
        return tuple(results) if len(branches) == 2 else results

    async def _branches(self, verb: str, branches: list[Coroutine[Any, Any, Any]]) -> list[Any]:
        caller = asyncio.current_task()
        tasks: list[asyncio.Task[Any]] = []
        try:
            await self._open()
            place = self._scope(verb).next_place()
            self._attempt.open_branches(place, verb, len(branches))
            for index, branch in enumerate(branches):
                tasks.append(asyncio.create_task(run_branch(self._attempt, branch_path(place, index), branch)))
            return await self._whole(verb, all_ended(self._attempt, tasks))
        except GeneratorExit:
            if is_being_closed(caller):
                tasks = []  # nothing can be awaited any more
            raise
        finally:
            await end_all(tasks)
            close_unbegun(branches)

    # ------------------------------------------------------------ facts of the agent's own

    async def emit(self, name: str, data: Any = None, /) -> None:
        if not isinstance(name, str) or NAME.fullmatch(name) is None:
            raise InvalidDefinition(f"{name!r:.80} cannot name an event", code="definition.name")
        text = codec_for(Any).encode(data if isinstance(data, dict) else {"value": data}, f"emit {name}")
        values.check_size(text, 256 * 1024, f"emit {name}")
        await self._open()
        kind = event.CUSTOM + name
        place = self._scope("emit").next_place()
        if self._attempt.recall(Call(kind, place, name, values.digest(values.loads(text)))) is None:
            await self._whole("emit", self._attempt.commit(Draft(kind, text, place)))

    async def artifact(self, name: str, content: str | bytes, /, *, media_type: str | None = None) -> None:
        check_text(name, "the artifact's name")
        raw = artifact_bytes(name, content)
        if media_type is None:
            media_type = media_type_of(name, content)
        check_text(media_type, f"the media type of artifact {name}")
        ref = blob_name(raw)
        await self._open()
        place = self._scope("artifact").next_place()
        if self._attempt.recall(Call(event.ARTIFACT_SAVED, place, name, ref)) is not None:
            return
        facts = {"artifact": ref, "name": name, "media_type": media_type, "size": len(raw)}
        await self._whole("artifact", self._keep(raw, Draft(event.ARTIFACT_SAVED, values.dumps(facts), place)))
        self._attempt.saw_artifact(facts)

    async def _keep(self, raw: bytes, draft: Draft) -> None:
        await self._attempt.keep(raw)
        _artifact_kept()
        await self._attempt.commit(draft)

    # ------------------------------------------------------------ saved state

    async def checkpoint(self, state: Any, /) -> None:
        await self._open()
        scope = self._scope("checkpoint")
        if "." in scope.path:
            raise Misuse(
                "ctx.checkpoint was called in a branch; only the agent itself can begin a new numbering",
                code="checkpoint.in_branch",
                hint="call it before or after ctx.gather and ctx.map",
            )
        if self._state is None:
            raise Misuse(
                "ctx.checkpoint was called by an agent that does not begin with ctx.restore: it would start over",
                code="checkpoint.not_restored",
                hint="make `state = await ctx.restore(Type)` the agent's first call, and go on from what it gives",
            )
        text = self._state.encode(state, "state")
        values.check_size(text, 1024 * 1024, "state")
        self._attempt.expect_done()
        await self._whole("checkpoint", self._save(text))
        self._attempt.replay.generation += 1
        scope.path, scope.position, scope.random, scope.uuids = str(self._attempt.replay.generation), 0, None, 0

    async def _save(self, text: str) -> None:
        payload = await self._attempt.payload(text)
        version = self._attempt.replay.generation + 1
        await self._attempt.commit(Draft(event.CHECKPOINT_SAVED, f'{{"version":{version},{payload.field("state")}}}'))
        _checkpointed()

    async def restore(self, type: Any, /) -> Any:
        await self._open()
        scope = self._scope("restore")
        if self._attempt.touched or self._attempt.restored:
            raise Misuse("ctx.restore must be the agent's first call through the context", code="checkpoint.late")
        self._attempt.restored = True
        self._state = codec_for(type)
        entry = self._attempt.replay.checkpoint
        if entry is None:
            return None
        place = f"{scope.path}/0"
        text = await self._whole("restore", self._attempt.read_payload(json.loads(entry.data), "state", place))
        try:
            return self._state.decode(text, "the saved state")
        except InvalidValue as error:
            raise self._attempt.undecodable(place, error) from None

    # ------------------------------------------------------------ scopes

    async def _open(self) -> None:
        """Refuse calls of an attempt that is over. Awaited first, so that not even a stubborn agent hogs the loop."""
        if self._attempt.stop is not None:
            await self._attempt.unwind()

    def _scope(self, verb: str) -> Scope:
        self._attempt.check()
        return own_scope(self._attempt, verb)

    def _scope_of_step(self, key: str | None) -> Scope | None:
        """The running task's scope. A step with a key may run in any task, but not inside a step."""
        if key is None:
            return self._scope("step")
        self._attempt.check()
        refuse_inside_step(self._attempt, "step")
        if asyncio.get_running_loop() is not self._loop:
            raise Misuse(
                "ctx.step was called in another event loop than the agent's",
                code="context.foreign_loop",
                hint="await it in the loop of the agent: asyncio.run_coroutine_threadsafe brings it there",
            )
        return scope_if_own(self._attempt)

    async def _whole(self, call: str, doing: Coroutine[Any, Any, T]) -> T:
        """Await what a call does. When it is cancelled half-way, no other call may follow."""
        task = asyncio.current_task()
        before = 0 if task is None else task.cancelling()
        try:
            return await doing
        except asyncio.CancelledError:
            if task is not None and task.cancelling() > before:
                self._attempt.interrupt(f"ctx.{call}")
            raise

    def enter(self, task: asyncio.Task[Any]) -> Scope:
        """Open the agent's own scope in its task."""
        scope = Scope(self._attempt, str(self._attempt.replay.generation), task)
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
