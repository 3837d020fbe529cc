"""The tasks of one `gather` or `map`: each runs one branch in a scope of its own, and all have ended before anything is
said of them.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Coroutine, Iterable
from typing import Any

from stepwell.engine.attempt import Attempt, AttemptStopped
from stepwell.engine.failure import mark_together
from stepwell.engine.scope import Scope


async def run_branch(attempt: Attempt, path: str, branch: Coroutine[Any, Any, Any], *, join: str | None = None) -> Any:
    """Run a branch in the running task, which becomes the owner of its scope. `join` names the place whose branches
    wake the run together, for a branch that does nothing but wait.
    """
    scope = Scope(attempt, path, _running(), join)
    scope.enter()
    try:
        result = await branch
    except (SystemExit, KeyboardInterrupt) as error:  # a task would throw it at the event loop
        return _Raised(error)
    finally:
        scope.leave()
    attempt.expect_end(path, scope.position)
    return result


async def all_ended(attempt: Attempt, tasks: list[asyncio.Task[Any]]) -> list[Any]:
    """The results in order when all have ended, else the first error in order.

    Where the attempt stopped, that goes first, and what other branches were trying comes to its end before, if it may.
    """
    if tasks:
        await _ended_or_stopped(tasks)
    if any(task.done() and isinstance(_error_of(task), AttemptStopped) for task in tasks):
        await attempt.tries_end()
        raise AttemptStopped
    errors = [error for task in tasks if (error := _error_of(task)) is not None]
    if errors:
        mark_together(errors)
        raise errors[0]
    return [task.result() for task in tasks]


async def end_all(tasks: list[asyncio.Task[Any]]) -> None:
    """Whatever ended the wait: no branch outlives it, and no error of a branch goes unseen."""
    open_tasks = [task for task in tasks if not task.done()]
    for task in open_tasks:
        task.cancel()
    if open_tasks:
        await asyncio.wait(open_tasks)
    for task in tasks:
        if not task.cancelled():
            task.exception()


def _running() -> asyncio.Task[Any]:
    """The task that runs. A frame that remembers its own task keeps both alive once the task has failed."""
    task = asyncio.current_task()
    assert task is not None
    return task


def close_unbegun(branches: Iterable[Coroutine[Any, Any, Any]]) -> None:
    """Let go of branches that were never begun and never will be."""
    for branch in branches:
        if inspect.getcoroutinestate(branch) == inspect.CORO_CREATED:
            branch.close()


class _Raised:
    """What a branch raised, where its task cannot raise it itself."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error


def _ended_or_stopped(tasks: list[asyncio.Task[Any]]) -> asyncio.Future[None]:
    """What is done when all tasks have ended, or one of them because the attempt stopped."""
    ended = asyncio.get_running_loop().create_future()
    left = len(tasks)

    def one_less(task: asyncio.Task[Any]) -> None:
        nonlocal left
        left -= 1
        if not ended.done() and (left == 0 or isinstance(_error_of(task), AttemptStopped)):
            ended.set_result(None)

    for task in tasks:
        task.add_done_callback(one_less)
    return ended


def _error_of(task: asyncio.Task[Any]) -> BaseException | None:
    if task.cancelled():
        return asyncio.CancelledError()
    error = task.exception()
    return error if error is not None or not isinstance(task.result(), _Raised) else task.result().error
