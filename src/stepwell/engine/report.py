"""What a step is doing, told to an observer in this process: for progress on a terminal, never for the record."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Literal, NamedTuple, TypeAlias

from stepwell.engine.replay import Call


class StepReport(NamedTuple):
    """One moment of a step. `ms` is how long it took, `error` what went wrong, `retry_in` the seconds left."""

    run_id: str
    step: str
    name: str
    status: Literal["started", "done", "remembered", "retrying", "failed"]
    ms: float | None = None
    error: str | None = None
    retry_in: float | None = None


Observer: TypeAlias = Callable[[StepReport], None]

AfterStep: TypeAlias = Callable[[Any, Call], Awaitable[None]]
"""Called with the attempt and the call when a step is on record for good, before the agent hears of it. May end the
attempt. For tests.
"""
