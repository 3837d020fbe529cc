"""What runs, questions and sessions act through when their verbs are called: the open store, and the runtime that gave
them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from stepwell.domain.errors import InvalidInput, InvalidValue, StoreUnusable
from stepwell.domain.run import RunRecord
from stepwell.domain.values import check
from stepwell.ports.clock import Clock, Entropy
from stepwell.ports.runnable import Runnable
from stepwell.ports.store import Store

if TYPE_CHECKING:
    from stepwell.engine.executor import Ending

T = TypeVar("T")

API: Final = "api"
"""Who acted, where the caller does not say."""
POLL: Final = 0.25
_LONGEST: Final = 2000


class TimeUp(Exception):
    """A caller has waited as long as it wanted to."""


class Patience(Protocol):
    """How a caller waits for what a run does, for up to `limit` seconds. Raises `TimeUp` after that."""

    async def __call__(self, run_id: str, doing: Coroutine[Any, Any, T], limit: float | None, /) -> T: ...


async def in_real_time(_: str, doing: Coroutine[Any, Any, T], limit: float | None, /) -> T:
    """Wait by the clock on the wall."""
    try:
        async with asyncio.timeout(limit) as bound:
            return await doing
    except TimeoutError as error:
        if not bound.expired():
            raise
        raise TimeUp from error


@dataclass(frozen=True, slots=True)
class Access:
    """The collaborators. `runnable` finds an agent by its name, `local_ending` waits for an end in this process,
    `retry` submits a run that retries one, `broken` tells why nothing more is executed in this process, if that is so,
    and `patience` is how callers wait.
    """

    store: Store
    clock: Clock
    entropy: Entropy
    runnable: Callable[[str], Runnable | None]
    local_ending: Callable[[str], Awaitable[Ending | None]]
    retry: Callable[[RunRecord], Awaitable[RunRecord]]
    broken: Callable[[], StoreUnusable | None]
    patience: Patience = in_real_time

    def check_alive(self) -> None:
        """Raise `StoreUnusable` when the worker of this process has ended because of it: whoever waits here might wait
        for ever.
        """
        if (error := self.broken()) is not None:
            raise error


def checked_by(by: str | None) -> str:
    """Who acts, for the record. Raises `InvalidInput` (`input.by`)."""
    return API if by is None else _checked_words(by, "by", code="input.by")


def checked_reason(reason: str | None) -> str | None:
    """Why somebody acts, for the record. Raises `InvalidInput` (`input.reason`)."""
    return None if reason is None else _checked_words(reason, "reason", code="input.reason")


def _checked_words(text: str, what: str, *, code: str) -> str:
    if not isinstance(text, str) or not 0 < len(text) <= _LONGEST:
        raise InvalidInput(f"{what} {text!r:.80} is not a text of 1 to {_LONGEST} characters", code=code)
    try:
        check(text, what=what)
    except InvalidValue as error:
        raise InvalidInput(error.message, code=code, path=error.path, hint=error.hint) from None
    return text
