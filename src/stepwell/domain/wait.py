"""Waits and what ends them: a wait is a row from the moment it is opened, an arrival is a fact that may close one.

A wait for time alone has no row: its `wait.opened` names the moment, and the run is due then.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from stepwell.domain.outcome import Payload

TIME: Final = "time"
SIGNAL: Final = "signal"
QUESTION: Final = "question"
CHILD: Final = "child"

RECEIVED: Final = "received"
ANSWERED: Final = "answered"
TIMED_OUT: Final = "timed_out"
CHILD_ENDED: Final = "ended"
RUN_ENDED: Final = "run_ended"


VERDICT: Final[dict[str, Any]] = {
    "anyOf": [
        {"enum": ["rerun", "fail"]},
        {"type": "object", "properties": {"done": {}}, "required": ["done"], "additionalProperties": False},
    ]
}
"""What a person may say about a step in doubt: it runs again, it failed, or it is done and this is its result."""

MAX_SIGNALS: Final = 1000
"""How many signals a run keeps that nothing has waited for yet."""


class Wait(NamedTuple):
    """What a run needs before a call of its agent can return.

    `name` is the signal's name or the child's run id; for a question it is its text. `step` is the place or key of the
    call, `until` the moment at which it gives up. Waits with the same `join` wake the run together, when the last of
    them is closed; without one a wait wakes it alone. `data` is the data of `wait.opened`; an empty text means that no
    event tells of it, because another one does already.
    """

    id: str
    type: str
    name: str
    step: str | None
    until: int | None = None
    join: str | None = None
    data: str = ""


class WaitRecord(NamedTuple):
    """A wait as stored. `outcome`, `closed_at` and `by` are set when it was closed; `agent` and `tenant` are its
    run's.
    """

    wait: Wait
    run_id: str
    tenant: str
    agent: str
    opened_at: int
    outcome: str | None = None
    closed_at: int | None = None
    by: str | None = None


class Signal(NamedTuple):
    """A named message into a run. `id` is the sender's own name for it: the same id is received once."""

    id: str
    name: str
    value: Payload
    by: str | None = None
