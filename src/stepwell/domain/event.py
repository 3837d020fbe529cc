"""Events: the facts of a run's journal, past tense, numbered 1..n without a gap.

`Draft` is a fact on its way into the journal: the store gives it its number and its time when it commits. `Entry` is
the fact as the journal keeps it. `Event` is what readers get: the entry, joined with what its run knows (session,
agent, trigger).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

RUN_QUEUED: Final = "run.queued"
RUN_STARTED: Final = "run.started"
RUN_RESUMED: Final = "run.resumed"
RUN_LOST: Final = "run.lost"
RUN_HANDED_BACK: Final = "run.handed_back"
RUN_RETRYING: Final = "run.retrying"
RUN_WAITING: Final = "run.waiting"
RUN_HELD: Final = "run.held"
RUN_RELEASED: Final = "run.released"
RUN_CANCELLING: Final = "run.cancelling"
RUN_SUCCEEDED: Final = "run.succeeded"
RUN_FAILED: Final = "run.failed"
RUN_CANCELLED: Final = "run.cancelled"
RUN_TIMED_OUT: Final = "run.timed_out"
RUN_EXHAUSTED: Final = "run.exhausted"
RUN_DISCARDED: Final = "run.discarded"
STEP_INTENDED: Final = "step.intended"
STEP_COMPLETED: Final = "step.completed"
STEP_FAILED: Final = "step.failed"
WAIT_OPENED: Final = "wait.opened"
WAIT_CLOSED: Final = "wait.closed"
SIGNAL_RECEIVED: Final = "signal.received"
CHILD_STARTED: Final = "child.started"
CHILD_ENDED: Final = "child.ended"
TEXT_DELTA: Final = "text.delta"
TEXT_COMPLETED: Final = "text.completed"
SESSION_CHANGED: Final = "session.changed"
SESSION_READ: Final = "session.read"
ARTIFACT_SAVED: Final = "artifact.saved"
CHECKPOINT_SAVED: Final = "checkpoint.saved"
PATCH_MARKED: Final = "patch.marked"
TIME_READ: Final = "time.read"
CUSTOM: Final = "custom."

KINDS: Final = frozenset(
    value for name, value in list(globals().items()) if name.isupper() and isinstance(value, str)
) - {CUSTOM}
ENDS: Final = frozenset({RUN_SUCCEEDED, RUN_FAILED, RUN_CANCELLED, RUN_TIMED_OUT, RUN_EXHAUSTED})

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Draft(NamedTuple):
    """A fact to be committed. `data` is the text of a JSON object; `step` is the step's place or key, where it has
    one.
    """

    kind: str
    data: str = "{}"
    step: str | None = None
    node: str | None = None


class Entry(NamedTuple):
    """A fact as the journal keeps it. `at` is in microseconds since the epoch (UTC)."""

    seq: int
    at: int
    kind: str
    step: str | None
    node: str | None
    data: str


@dataclass(frozen=True, slots=True)
class Event:
    """One fact of a run, as read.

    `seq` numbers the run's events 1..n; `at` is aware UTC; `data` is plain JSON data, its shape fixed by `kind`. What
    an agent emitted has the kind `custom.<name>`.
    """

    seq: int
    kind: str
    at: datetime
    run_id: str
    session_id: str
    agent: str
    trigger: str | None
    node: str | None
    step: str | None
    data: Mapping[str, Any]


def to_datetime(at: int) -> datetime:
    """Microseconds since the epoch as an aware datetime in UTC."""
    return _EPOCH + timedelta(microseconds=at)


def to_micros(when: datetime) -> int:
    """An aware datetime as microseconds since the epoch."""
    return (when - _EPOCH) // timedelta(microseconds=1)
