"""What a step is doing, told to an observer in this process: for progress on a terminal, never for the record."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple, TypeAlias


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
