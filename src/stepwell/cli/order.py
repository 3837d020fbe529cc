"""What `stepwell run` is asked for, once its words are read and its target is imported."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from stepwell.cli.terminal import command

if TYPE_CHECKING:
    from stepwell.runtime import AgentDescription, Target

Form = Literal["text", "json", "events"]
Broken = Literal["stopped", "timeout"] | None


@dataclass(frozen=True, slots=True)
class Order:
    """What is wanted: a new run of `agent` with `value`, or without an agent the newest unfinished run of the target.

    `typed` is the target as it was typed; `timeout` is in seconds.
    """

    target: Target
    typed: str | None
    store: str | None
    form: Form
    agent: AgentDescription | None = None
    value: Any = None
    key: str | None = None
    detach: bool = False
    timeout: float | None = None

    @property
    def continue_with(self) -> str:
        """The command that takes up the run of this order."""
        return command("run", *([self.typed] if self.typed else []), "--continue", store=self.store)
