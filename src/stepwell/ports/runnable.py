"""What the engine can run: an agent of any kind, behind one protocol."""

from __future__ import annotations

from typing import Any, Literal, Protocol, TypeAlias

from stepwell.domain.retry import Retry
from stepwell.domain.submission import Lane
from stepwell.ports.context import Context

SessionMode: TypeAlias = Literal["shared", "synchronized", "isolated"]
WhenBusy: TypeAlias = Literal["queue", "reject", "interrupt", "answer"]


class Runnable(Protocol):
    """An agent as the engine sees it. Values cross this border as JSON text; the runnable knows their types.

    `timeout` is the leased time in microseconds that a run may use in all; `retry` decides what an exception of the
    agent means. `hooked` says that there is a clean-up for cancels: `on_cancel`. `session_mode` says what a run sees of
    its session, `busy` what a submission to a synchronized session does that is not free, and `max_children` bounds
    the live children of one run.
    """

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...

    @property
    def retry(self) -> Retry | None: ...

    @property
    def timeout(self) -> int: ...

    @property
    def hooked(self) -> bool: ...

    @property
    def session_mode(self) -> SessionMode: ...

    @property
    def busy(self) -> WhenBusy: ...

    @property
    def max_children(self) -> int: ...

    def lanes(self, input_text: str, session: str) -> tuple[Lane, ...]:
        """The limits that a run with this input passes through, from the narrow to the wide; none for most agents.

        Raises `InvalidInput` (`input.limit_key`) when the input has no place in a limit that counts by a key.
        """
        ...

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

    async def on_cancel(self, ctx: Context[Any]) -> None:
        """Run the agent's clean-up after a cancel; only where `hooked` says that there is one."""
        ...
