"""What runs may be and what may happen to them: the lives, causes and rows of which the tables of transitions are made.

A row says what there was, what happened, and all that differs afterwards: a field that is not named has not changed.
When the run is due is decided now where that is named.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from stepwell.domain import transitions
from stepwell.domain.commit import Commit
from stepwell.domain.event import Draft
from stepwell.domain.outcome import ErrorInfo, Outcome, Payload
from stepwell.domain.run import ENDED, Lifecycle, RunRecord
from stepwell.domain.submission import Submission, facts
from stepwell.domain.transitions import Change
from stepwell.domain.wait import Signal, Wait

NOW, LATER = 1_000, 9_000
TOLD = 7
"""How long the holder says that it has held the run."""

ERROR = ErrorInfo("agent.error", "no luck")
OUTPUT = Payload('"done"')

NEW = Lifecycle("queued", available_at=100, updated_at=90)
QUEUED = NEW._replace(fence=1, attempt=1, claimed_at=150, commit_no=4, leased=50, seq=6)
RUNNING = QUEUED._replace(status="running", fence=2, worker="w1", claimed_at=200, updated_at=260, commit_no=3, held=60)
WAITING = QUEUED._replace(status="waiting", available_at=LATER)
CANCELLING = RUNNING._replace(cancelling=1)
PAUSING = RUNNING._replace(pausing=1)
BACKING_OFF = QUEUED._replace(available_at=LATER, errors=1, reason="agent.error")
PAUSED, DIVERGED, IN_DOUBT = (QUEUED._replace(hold=hold) for hold in ("paused", "diverged", "in_doubt"))
WAITING_PAUSED = WAITING._replace(hold="paused")
ENDS = [NEW._replace(status=status, ended_at=500, fence=3, attempt=1) for status in sorted(ENDED)]
"""In the order of the alphabet: cancelled, exhausted, failed, succeeded, timed_out."""

WAIT = Wait("0/3", "signal", "go", step="0/3", data='{"wait":"0/3","type":"signal","name":"go"}')
QUESTION = Wait("q_1", "question", "Refund?", step="0/4", data='{"wait":"q_1","type":"question","name":"Refund?"}')
SIGNAL = Signal("sig_1", "go", Payload('{"n":1}'))
CHILD = RunRecord._make(
    (*facts(Submission("run_c", "a", "1", "ses_1", OUTPUT, "", 0, 0, 60, parent="run_p", parent_step="0/5")), ENDS[3])
)

CLAIMED = {"status": "running", "worker": "w2", "claimed_at": NOW, "commit_no": 0, "reason": None}
"""What every claim writes, beside the fence."""
CHARGED = {"leased": RUNNING.leased + RUNNING.held, "held": 0}
"""What a run is charged whose worker is gone: the time that it had told of when it last wrote."""

Cause = Callable[[Lifecycle], Change | None]


def claim(cause: transitions.ClaimCause) -> Cause:
    """A worker takes the run."""
    return lambda life: transitions.claim(life, worker="w2", cause=cause, now=NOW)


def write(outcome: Outcome | None, *drafts: Draft, has_hook: bool = False) -> Cause:
    """The holder of the lease commits."""
    return lambda life: transitions.commit(
        life, Commit(life.commit_no + 1, drafts, outcome, TOLD), fence=life.fence, now=NOW, has_hook=has_hook
    )


def cancel(*, has_hook: bool = False) -> Cause:
    """Somebody asks for the end."""
    return lambda life: transitions.cancel(life, by="ann", reason="why not", has_hook=has_hook, now=NOW)[0]


def pause(life: Lifecycle) -> Change | None:
    """Somebody asks for a pause."""
    return transitions.pause(life, by="ann", now=NOW)


def resume(verdict: str | None = None, *drafts: Draft) -> Cause:
    """Somebody lifts the hold."""
    return lambda life: transitions.resume(life, by="ann", drafts=drafts, verdict=verdict, now=NOW)


def discard(life: Lifecycle) -> Change:
    """Somebody takes the run off the list of the dead."""
    return transitions.discard(life, by="ann")


def receive(*, wait: Wait | None = WAIT, wakes: bool = True) -> Cause:
    """A signal arrives, for a wait or for none."""
    return lambda life: transitions.received(life, SIGNAL, now=NOW, wait=wait, wakes=wakes)


def answer(*, wakes: bool = True) -> Cause:
    """A person answers."""
    return lambda life: transitions.answered(life, QUESTION, OUTPUT, by="ann", now=NOW, wakes=wakes)


def child_ends(*, wakes: bool = True) -> Cause:
    """A child comes to its end."""
    end = Draft("run.succeeded", '{"output":"done"}')
    return lambda life: transitions.child_ended(life, CHILD, end, now=NOW, wakes=wakes)


def time_out(limit: str) -> Cause:
    """The run passed a limit."""
    return lambda life: transitions.time_out(life, limit, NOW)


def ended(status: str, reason: str | None, **changes: Any) -> dict[str, Any]:
    """What every end writes."""
    cleared = {"hold": None, "worker": None, "cancelling": 0, "pausing": 0}
    return {"status": status, "reason": reason, "ended_at": NOW, **cleared, **changes}


def committed(changes: dict[str, Any]) -> dict[str, Any]:
    """What every commit of RUNNING with an outcome writes beside the outcome."""
    return {"commit_no": 4, "losses": 0, "leased": RUNNING.leased + TOLD, "held": 0, **changes}


STEP = Draft("step.completed", '{"name":"pay"}', step="0/1")


class Row(NamedTuple):
    """One row: what there was, what happened, every field that is different, and the events that tell it."""

    before: Lifecycle
    cause: Cause
    changes: dict[str, Any]
    events: list[str]

    def check(self) -> None:
        """Let it happen, and compare."""
        change = self.cause(self.before)
        assert change is not None
        before, after = self.before._asdict(), change.life._asdict()
        moved = {name: (before[name], value) for name, value in after.items() if value != before[name]}
        changes = ({"timed_at": NOW} if "available_at" in self.changes else {}) | self.changes
        assert moved == {name: (before[name], value) for name, value in changes.items() if value != before[name]}
        assert [draft.kind for draft in change.drafts] == self.events
