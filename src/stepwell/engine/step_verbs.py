"""The verbs that do things once: `step`, `map` and `gather`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from contextlib import nullcontext
from typing import Any

from stepwell.codec import fingerprint
from stepwell.domain import values
from stepwell.domain.errors import InvalidDefinition, Misuse, Seconds
from stepwell.domain.retry import Retry
from stepwell.engine.attempt import Attempt
from stepwell.engine.branches import all_ended, close_unbegun, end_all, run_branch
from stepwell.engine.calls import Calls
from stepwell.engine.checks import checked_key, distinct, step_policy
from stepwell.engine.failure import is_being_closed
from stepwell.engine.function import BoundStep, checked_name, describe
from stepwell.engine.replay import keyed_step, step_call
from stepwell.engine.scope import Scope, branch_path
from stepwell.engine.step import PLAIN, Policy, Step, StepRunner
from stepwell.engine.wait_verbs import BARE

_unlimited = nullcontext()


class StepVerbs(Calls):
    """`ctx.step` and what does several things at once."""

    def __init__(self, attempt: Attempt) -> None:
        Calls.__init__(self, attempt)
        self._runner = StepRunner(attempt)

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
        scope = self._scope_of("step", key)
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
                scope = self._scope_of("map", item_key)
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
                join = place if getattr(branch, "cr_code", None) in BARE else None
                branch_run = run_branch(self._attempt, branch_path(place, index), branch, join=join)
                tasks.append(asyncio.create_task(branch_run))
            self._attempt.waits.branch_out(tasks)
            return await self._whole(verb, all_ended(self._attempt, tasks))
        except GeneratorExit:
            if is_being_closed(caller):
                tasks = []  # nothing can be awaited any more
            raise
        finally:
            await end_all(tasks)
            close_unbegun(branches)
            del caller  # a frame that remembers its own task keeps both alive once the task has failed
