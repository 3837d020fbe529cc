"""What is refused everywhere: late writes, whatever they are, and everything that is asked of a run that has ended."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from stepwell.domain import event, transitions
from stepwell.domain.commit import Commit
from stepwell.domain.errors import LeaseLost, RunEnded
from stepwell.domain.event import Draft
from stepwell.domain.outcome import Payload
from stepwell.domain.run import Lifecycle, RunRecord
from stepwell.domain.submission import Submission, facts
from stepwell.domain.transitions import ClaimCause
from tests.protocol.core import FENCE, NOW, TIMEOUT, Bounds
from tests.protocol.explorer import Broken
from tests.protocol.messages import SENT, WAITS, every_message
from tests.protocol.promises import expect

_CAUSES: Final[tuple[ClaimCause, ...]] = ("due", "lost", "expired")
CHILD_END: Final = Draft(event.RUN_SUCCEEDED, '{"output":1}')
_ENDED: Final = Lifecycle("succeeded", NOW, NOW, ended_at=NOW)
CHILD: Final = RunRecord._make(
    (*facts(Submission("run_c", "a", "1", "s", Payload("1"), "", 0, 0, 60, parent="run_p", parent_step="0/9")), _ENDED)
)


class Refusals:
    """Tries on every run what must change nothing, once for each that behaves alike."""

    def __init__(self, bounds: Bounds) -> None:
        self._tried: set[Lifecycle] = set()
        self._writes = [(message.name, n, message.commit(n)) for n in (1, 2) for message in every_message(bounds)]

    def check(self, life: Lifecycle) -> None:
        """Raises `Broken`. A run that was never claimed is left out: nobody ever had a fence of it."""
        if life in self._tried or not (life.attempt or life.ended):
            return
        self._tried.add(life)
        if life.ended:
            _check_ended(life)
        for fence in [FENCE - 1, FENCE + 1] + [FENCE] * (life.status != "running"):
            for name, number, write in self._writes:
                if fence != FENCE or number > life.commit_no:
                    _check_refused(life, name, write, fence)


def _check_refused(life: Lifecycle, name: str, write: Commit, fence: int) -> None:
    """Whoever has another fence, or gave his lease back, writes nothing."""
    try:
        transitions.commit(life, write, fence=fence, now=NOW)
    except LeaseLost:
        return
    raise Broken(f"P3: no write with an old fence is accepted [{name}, fence {fence} of {life.fence}, {life.shown}]")


def _check_ended(life: Lifecycle) -> None:
    """Nothing happens to a run that has ended."""
    _check_claims(life)
    refused: list[Callable[[], object]] = [
        lambda: transitions.time_out(life, "deadline", NOW),
        lambda: transitions.pause(life, by="ann", now=NOW),
        lambda: transitions.resume(life, by="ann", drafts=(), verdict=None, now=NOW),
        lambda: transitions.received(life, SENT, now=NOW),
        lambda: transitions.answered(life, WAITS["q"], Payload("1"), by="ann", now=NOW),
    ]
    for each in refused:
        try:
            each()
        except RunEnded:
            continue
        raise Broken("P5: a run that has ended takes nothing more")
    for hook in (False, True):
        answer = transitions.cancel(life, by="ann", reason=None, has_hook=hook, now=NOW)
        expect(answer == (None, "already_ended"), "P5: a cancel of a run that has ended says so")
    told = transitions.child_ended(life, CHILD, CHILD_END, now=NOW, wakes=True)
    expect(told is None, "P5: an ended parent learns nothing")
    limit = transitions.overdue(life, timeout=TIMEOUT, deadline=NOW, now=NOW)
    expect(limit is None, "P5: an ended run has no limits")


def _check_claims(life: Lifecycle) -> None:
    for cause in _CAUSES:
        try:
            transitions.claim(life, worker="w2", cause=cause, now=NOW)
        except RunEnded:
            continue
        raise Broken("P5: a run that has ended is not claimed")
