"""A session as its runs see it: messages, and values under keys."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

from typing_extensions import TypeVar

T = TypeVar("T")

Json: TypeAlias = Any


class SessionState(Protocol):
    """Values that the runs of a session share, each under a key: a text of 1 to 200 characters."""

    async def get(self, key: str, type: type[T] = ..., *, default: T = ...) -> T:
        """The value as `type`; `default` (else `None`) when there is none. What was read is remembered."""
        ...

    async def set(self, key: str, value: Json) -> None:
        """Keep a value, once; the last one written counts. At most 256 KiB."""
        ...

    async def update(self, key: str, fn: Callable[[Any], Any], *, default: Json = None) -> Any:
        """Replace the value by `fn(value)` and return the new one, atomically: when another run wrote in between, `fn`
        is called again with what it wrote. `fn` is a plain function of data without effects.
        """
        ...


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a session."""

    role: str
    text: str


class Session(Protocol):
    """What the runs of one session share. A run without a session has one of its own."""

    @property
    def id(self) -> str:
        """The session's name."""
        ...

    @property
    def state(self) -> SessionState:
        """The values."""
        ...

    async def messages(self, *, last: int | None = None) -> list[Message]:
        """The conversation so far, oldest first; only the `last` ones where that is given. What was read is
        remembered.
        """
        ...

    async def add(self, role: Literal["user", "assistant"], text: str) -> None:
        """Add a message, once."""
        ...
