"""What it takes to make a run: from outside, or in the commit of a parent."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from stepwell.domain.event import Draft
from stepwell.domain.outcome import Payload
from stepwell.domain.run import RunRecord

DEFAULT_TENANT: Final = ""

SESSION_LANE: Final = "session"
KEY_LANE: Final = "key"
AGENT_LANE: Final = "agent"
GLOBAL_LANE: Final = "global"
LANE_ORDER: Final = (SESSION_LANE, KEY_LANE, AGENT_LANE, GLOBAL_LANE)
"""A run passes from the narrow lanes to the wide ones, so that it never keeps a place in a wide lane that it cannot
use, and no two runs can wait for each other.
"""


class Lane(NamedTuple):
    """A limit that a run passes through: at most `capacity` runs hold a ticket of the lane at once."""

    kind: str
    name: str
    capacity: int


class Submission(NamedTuple):
    """A run to be. `input_digest` identifies the input for the comparison of equal idempotency keys.

    With `start_on`, the named worker offers a free slot: the run starts there in the same write, if it is due at once
    and nothing claimable for the same agent is ahead of it. `queue_bound` is the largest number of queued runs at
    which another is accepted. `lanes` come in the order of `LANE_ORDER`; `busy` says what happens when the
    session's lane is not free: "queue", "reject", "interrupt" (cancel whoever is in it or in line for it) or "answer"
    (give the input to the open question of the run in it, if that is one of `answers`, which it fits); of a
    child it says nothing, which stands in line. `inherited` are facts that the run takes over from `retry_of`, right
    after `run.queued`. The rest is as in `RunRecord`.
    """

    id: str
    agent: str
    version: str
    session: str
    input: Payload
    input_digest: str
    available_at: int
    created_at: int
    timeout: int
    tenant: str = DEFAULT_TENANT
    trigger: str | None = None
    priority: int = 0
    deadline: int | None = None
    idempotency_key: str | None = None
    metadata: str = "{}"
    causal_depth: int = 0
    queue_bound: int = 100_000
    start_on: str | None = None
    parent: str | None = None
    parent_step: str | None = None
    root: str | None = None
    depth: int = 0
    detached: int = 0
    hooked: int = 0
    retry_of: str | None = None
    origin: str | None = None
    inherited: tuple[Draft, ...] = ()
    lanes: tuple[Lane, ...] = ()
    busy: str = "queue"
    answers: tuple[str, ...] = ()


def facts(submission: Submission) -> tuple[Any, ...]:
    """What never changes of the run, in the order of `RunRecord`: all but its life."""
    return (
        submission.id,
        submission.tenant,
        submission.agent,
        submission.version,
        submission.session,
        submission.trigger,
        submission.priority,
        submission.created_at,
        submission.timeout,
        submission.deadline,
        submission.idempotency_key,
        submission.metadata,
        submission.parent,
        submission.root,
        submission.depth,
        submission.causal_depth,
        submission.retry_of,
        None,  # forked_from
        submission.parent_step,
        submission.detached,
        submission.hooked,
        submission.origin,
    )


assert RunRecord._fields[12:] == (
    "parent",
    "root",
    "depth",
    "causal_depth",
    "retry_of",
    "forked_from",
    "parent_step",
    "detached",
    "hooked",
    "origin",
    "life",
)
