"""Scopes: numbered sequences of context calls, each belonging to one task.

The agent is a scope; each branch of `gather` and each item of `map` is another. The path of a scope is the generation (how many
checkpoints were saved) followed by the positions and branches that lead to it: `0`, then `0.3.1` for the second branch of the third
call. A call's place is its scope and its position, `0.3.1/2`. Keys never look like places.
"""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from random import Random
from typing import Any

from stepwell.domain.errors import Misuse

_current: ContextVar[Scope] = ContextVar("stepwell.scope")


class Scope:
    """One sequence of calls. `busy` is set while a step's own code runs in the scope's task."""

    __slots__ = ("busy", "owner", "path", "position", "random", "task", "uuids")

    def __init__(self, owner: object, path: str, task: asyncio.Task[Any]) -> None:
        self.owner = owner
        self.path = path
        self.task = task
        self.position = 0
        self.busy = False
        self.random: Random | None = None
        self.uuids = 0

    def next_place(self) -> str:
        """Take the next position."""
        self.position += 1
        return f"{self.path}/{self.position}"

    def branch(self, place: str, index: int, task: asyncio.Task[Any]) -> Scope:
        """The scope of a branch that was opened at a place of this one."""
        return Scope(self.owner, branch_path(place, index), task)

    def enter(self) -> None:
        """Make this the scope of the running task, and of nothing that ran before."""
        _current.set(self)


def branch_path(place: str, index: int) -> str:
    """The path of a branch that was opened at `place`."""
    return f"{place.replace('/', '.')}.{index}"


def own_scope(owner: object, verb: str) -> Scope:
    """The scope that the running task owns. Raises `Misuse` in any other task, whatever runs beside it."""
    scope = _current.get(None)
    if scope is None or scope.owner is not owner or asyncio.current_task() is not scope.task:
        raise Misuse(
            f"ctx.{verb} was called from a task that its scope did not start, so its place in the order is not defined",
            code="context.foreign_task",
            hint=(
                "use ctx.gather or ctx.map to do several things at once, or give a step a key=; "
                "asyncio.wait_for and create_task start tasks: use timeout= instead"
            ),
        )
    if scope.busy:
        raise nested(verb)
    return scope


def inside_step(owner: object) -> bool:
    """Whether the running task is executing a step's own code."""
    scope = _current.get(None)
    return scope is not None and scope.owner is owner and scope.busy and asyncio.current_task() is scope.task


def nested(verb: str) -> Misuse:
    """The error of a context call inside a step."""
    return Misuse(
        f"ctx.{verb} was called inside a step; what a step does is remembered as a whole",
        code="context.nested",
        hint="call it from the agent, before or after the step",
    )
