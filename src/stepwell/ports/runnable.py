"""What the engine can run: an agent of any kind, behind one protocol."""

from __future__ import annotations

from typing import Any, Protocol

from stepwell.domain.retry import Retry
from stepwell.ports.context import Context


class Runnable(Protocol):
    """An agent as the engine sees it. Values cross this border as JSON text; the runnable knows their types.

    `timeout` is the leased time in microseconds that a run may use in all; `retry` decides what an exception of the
    agent means.
    """

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...

    @property
    def retry(self) -> Retry | None: ...

    @property
    def timeout(self) -> int: ...

    def encode_input(self, value: Any) -> str:
        """The JSON text of what a caller gives as input: a typed value or plain data. Raises `InvalidInput`, naming
        the field.
        """
        ...

    def decode_input(self, text: str) -> Any:
        """The stored input as the agent takes it."""
        ...

    def encode_output(self, value: Any) -> str:
        """The JSON text of what the agent returned. Raises `InvalidValue` when it does not round-trip."""
        ...

    def decode_output(self, text: str) -> Any:
        """The stored output as callers take it."""
        ...

    async def run(self, ctx: Context[Any], value: Any) -> Any:
        """Run the agent from the top with a decoded input, to its return value."""
        ...
