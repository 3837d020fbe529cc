"""How an attempt stops: a small closed union of values, matched once when they are written.

Ordinary ends are values, not exceptions. Texts in `data` fields are JSON, made by whoever knows the types.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias

from stepwell.domain.values import dumps


class Payload(NamedTuple):
    """A value on its way into the journal: its JSON text, or a reference to where the bytes lie."""

    text: str | None
    ref: str | None = None
    size: int = 0

    def field(self, name: str) -> str:
        """As one member of a JSON object: `"name":text`, or `"ref":{...}` when the value lies elsewhere."""
        if self.text is not None:
            return f'"{name}":{self.text}'
        return f'"ref":{{"blob":"{self.ref}","size":{self.size},"of":"{name}"}}'


@dataclass(frozen=True, slots=True)
class ErrorInfo:
    """Why something failed: a stable `code`, a `message` for people, whether the same may succeed later, and the
    exception's type.

    `step` names the step whose failure it was, `also` the steps whose failures came with it from other branches;
    `traceback` holds the user's frames, innermost last.
    """

    code: str
    message: str
    retryable: bool = False
    type: str | None = None
    step: str | None = None
    traceback: tuple[str, ...] = ()
    also: tuple[str, ...] = ()

    def text(self) -> str:
        """The error as the text of a JSON object, without what is empty."""
        data: dict[str, object] = {"code": self.code, "message": self.message, "retryable": self.retryable}
        if self.type is not None:
            data["type"] = self.type
        if self.step is not None:
            data["step"] = self.step
        if self.traceback:
            data["traceback"] = list(self.traceback)
        if self.also:
            data["also"] = list(self.also)
        return dumps(data)


@dataclass(frozen=True, slots=True)
class Succeeded:
    """The agent returned."""

    output: Payload


@dataclass(frozen=True, slots=True)
class Failed:
    """The attempt ended in an error that is not tried again; `dead` when the attempts are used up."""

    error: ErrorInfo
    dead: bool = False


@dataclass(frozen=True, slots=True)
class Retrying:
    """The attempt ended in an error and another follows at `available_at`."""

    error: ErrorInfo
    available_at: int


NEVER: Final = 2**62
"""A moment that does not come: a run that is due then is woken by an arrival only."""


@dataclass(frozen=True, slots=True)
class Parked:
    """Every branch waits; the run is due again at `wake_at` (`NEVER`: only when something arrives). `waits` is the text
    of a JSON array that names them.

    `at_seq` is the number of the last event that the attempt knew: when more was written since, what it waits for may
    be there already, and the run is due at once. Without it nothing else can have been written. With `release` the run
    also gives up its turn in its synchronized session while it waits.
    """

    wake_at: int
    waits: str
    at_seq: int | None = None
    release: bool = False


@dataclass(frozen=True, slots=True)
class HandedBack:
    """The worker gives the run back unfinished; nothing is counted."""


@dataclass(frozen=True, slots=True)
class Held:
    """The run is set aside; `detail` is the text of a JSON object that explains it to a person."""

    why: str
    by: str
    detail: str = "{}"


@dataclass(frozen=True, slots=True)
class TimedOut:
    """The run's leased time or its deadline is over; `limit` says which."""

    limit: str


@dataclass(frozen=True, slots=True)
class Exhausted:
    """A declared limit is used up: never a success. `data` is the text of a JSON object."""

    limit: str
    data: str = "{}"


@dataclass(frozen=True, slots=True)
class Cancelled:
    """A cancel that was asked for has been carried out."""

    by: str
    reason: str | None = None


Outcome: TypeAlias = Succeeded | Failed | Retrying | Parked | HandedBack | Held | TimedOut | Exhausted | Cancelled
