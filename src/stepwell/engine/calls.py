"""What all verbs of a context share: their place in the order, and what happens when a call is cut short."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from stepwell.domain.errors import Misuse, StoreError
from stepwell.engine.attempt import Attempt
from stepwell.engine.scope import Scope, own_scope, refuse_inside_step, scope_if_own

T = TypeVar("T")


class Calls:
    """The calls of one attempt's agent."""

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt
        self._loop = asyncio.get_running_loop()

    async def _open(self) -> None:
        """Refuse calls of an attempt that is over. Awaited first, so that not even a stubborn agent hogs the loop."""
        if self._attempt.stop is not None:
            await self._attempt.unwind()

    def _scope(self, verb: str) -> Scope:
        self._attempt.check()
        return own_scope(self._attempt, verb)

    def _scope_of(self, verb: str, key: str | None) -> Scope | None:
        """The running task's scope. What has a key may be called in any task, but not inside a step."""
        if key is None:
            return self._scope(verb)
        self._attempt.check()
        refuse_inside_step(self._attempt, verb)
        if asyncio.get_running_loop() is not self._loop:
            raise Misuse(
                f"ctx.{verb} was called in another event loop than the agent's",
                code="context.foreign_loop",
                hint="await it in the loop of the agent: asyncio.run_coroutine_threadsafe brings it there",
            )
        scope = scope_if_own(self._attempt)
        if scope is None:
            self._attempt.waits.beside(asyncio.current_task())
        return scope

    async def ask_store(self, asked: Coroutine[Any, Any, T]) -> T:
        """What the store says. When it does not answer, the attempt ends: the agent must not decide on that."""
        try:
            return await asked
        except StoreError as error:
            raise self._attempt.unwritable(error) from error

    async def _whole(self, call: str, doing: Coroutine[Any, Any, T]) -> T:
        """Await what a call does. When it is cancelled half-way, no other call may follow."""
        before = _cancels()
        try:
            return await doing
        except asyncio.CancelledError:
            if _cancels() > before:
                self._attempt.interrupt(f"ctx.{call}")
            raise

    def enter(self, task: asyncio.Task[Any]) -> Scope:
        """Open the agent's own scope in its task."""
        scope = Scope(self._attempt, str(self._attempt.replay.generation), task)
        scope.enter()
        return scope


def _cancels() -> int:
    """How often the running task was cancelled. Asked anew each time: a frame that remembers its own task keeps both
    alive once the task has failed.
    """
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()
