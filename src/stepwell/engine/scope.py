"""Scopes: numbered sequences of context calls, each belonging to one task.

The agent is a scope; each branch of `gather` and each item of `map` is another. The path of a scope is the generation
(how many checkpoints were saved) followed by the positions and branches that lead to it: `0`, then `0.3.1` for the
second branch of the third call. A call's place is its scope and its position, `0.3.1/2`. Keys never look like places.
"""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from random import Random
from types import TracebackType
from typing import Any, Final, Protocol

from stepwell.domain.errors import Misuse

CLEAN_UP_SCOPE: Final = "-1"
"""The scope of a clean-up's calls: no generation of the agent's own has that number."""

_current: ContextVar[Scope] = ContextVar("stepwell.scope")
_step_of: ContextVar[object] = ContextVar("stepwell.step_of", default=None)


class Closable(Protocol):
    """What is open in a scope until its next call."""

    def close(self) -> None: ...


class Scope:
    """One sequence of calls. `owner` is the attempt whose calls it numbers, `task` the one that may make them.

    `join` names what waits in here wake the run together with, where the sequence is but one wait; `stream` is the text
    that is being shown, until the next call.
    """

    __slots__ = ("join", "owner", "path", "position", "random", "stream", "task", "uuids")

    def __init__(self, owner: object, path: str, task: asyncio.Task[Any], join: str | None = None) -> None:
        self.join = join
        self.stream: Closable | None = None
        self.owner = owner
        self.path = path
        self.task: asyncio.Task[Any] | None = task
        self.position = 0
        self.random: Random | None = None
        self.uuids = 0

    def next_place(self) -> str:
        """Take the next position."""
        if self.stream is not None:
            self.end_stream()
        self.position += 1
        return f"{self.path}/{self.position}"

    def end_stream(self) -> None:
        """The text that is being shown is complete."""
        stream, self.stream = self.stream, None
        if stream is not None:
            stream.close()

    def enter(self) -> None:
        """Make this the scope of the running task, and of nothing that ran before."""
        _current.set(self)

    def leave(self) -> None:
        """The sequence ends. Its task remembers the scope: without this the two would keep each other alive."""
        self.end_stream()
        self.task = None


def branch_path(place: str, index: int) -> str:
    """The path of a branch that was opened at `place`."""
    return f"{place.replace('/', '.')}.{index}"


def own_scope(owner: object, verb: str) -> Scope:
    """The scope that the running task owns.

    Raises `Misuse` in any other task, whatever runs beside it, and in a step's own code.
    """
    refuse_inside_step(owner, verb)
    scope = scope_if_own(owner)
    if scope is None:
        raise Misuse(
            f"ctx.{verb} was called from a task that its scope did not start, so its place in the order is not defined",
            code="context.foreign_task",
            hint=(
                "use ctx.gather or ctx.map to do several things at once, or give a step a key=; "
                "asyncio.wait_for and create_task start tasks: use timeout= instead"
            ),
        )
    return scope


def scope_if_own(owner: object) -> Scope | None:
    """The scope that the running task owns, if it does: what has a key needs none."""
    scope = _current.get(None)
    if scope is None or scope.owner is not owner or scope.task is None:
        return None
    return scope if asyncio.current_task() is scope.task else None


def refuse_inside_step(owner: object, verb: str) -> None:
    """Raise `Misuse` in a step's own code, and in whatever task or thread that code started."""
    if _step_of.get() is owner:
        raise Misuse(
            f"ctx.{verb} was called inside a step; what a step does is remembered as a whole",
            code="context.nested",
            hint="call it from the agent, before or after the step",
        )


class StepCode:
    """Entered around a step's own code: what runs inside is no longer the agent's."""

    __slots__ = ("_owner",)

    def __init__(self, owner: object) -> None:
        self._owner = owner

    def __enter__(self) -> None:
        _step_of.set(self._owner)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _step_of.set(None)
