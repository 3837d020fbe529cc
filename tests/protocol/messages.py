"""What a lease holder may write, and the stores' part of a commit: waits opened, closed and found satisfied."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from stepwell.domain import event, transitions
from stepwell.domain.commit import Commit
from stepwell.domain.event import Draft
from stepwell.domain.outcome import (
    NEVER,
    Cancelled,
    ErrorInfo,
    Exhausted,
    Failed,
    HandedBack,
    Held,
    Outcome,
    Parked,
    Payload,
    Retrying,
    Succeeded,
    TimedOut,
)
from stepwell.domain.transitions import PAUSED_ON_REQUEST
from stepwell.domain.wait import CHILD, QUESTION, SIGNAL, Signal, Wait
from tests.protocol.core import ENDED_CHILD, LATER, LIVE_CHILD, NO_CHILD, NOW, SEQ, TIMEOUT, Bounds, Core

WAITS: Final = {
    "s": Wait("w_s", SIGNAL, "go", "0/7", data='{"wait":"w_s"}'),
    "q": Wait("w_q", QUESTION, "Go?", "0/8", data='{"wait":"w_q"}'),
    "c": Wait("w_c", CHILD, "run_c", "0/9"),
}
SENT: Final = Signal("sig_1", "go", Payload("1"))
_ERROR: Final = ErrorInfo("agent.error", "no luck")
_STARTED: Final = Draft(event.CHILD_STARTED, '{"child":"run_c"}', "0/9")


@dataclass(frozen=True)
class Message:
    """One write: `step` is the number of the step that it completes, `opens` and `expires` name waits, `submits` makes
    the child. `fresh` says that it parks at the last event of the run, `leased` how long the run was held.
    """

    name: str
    outcome: Outcome | None = None
    step: int = 0
    opens: str = ""
    expires: str = ""
    submits: bool = False
    fresh: bool = True
    leased: int = 0

    def parks(self) -> bool:
        """Whether it parks the run."""
        return isinstance(self.outcome, Parked)

    def commit(self, number: int, *, joined: bool = False) -> Commit:
        """As it is sent."""
        outcome = self.outcome
        if isinstance(outcome, Parked):
            outcome = replace(outcome, at_seq=SEQ if self.fresh else SEQ - 1)
        drafts = (step_completed(self.step),) if self.step else ()
        opens = tuple(WAITS[each]._replace(join="j" if joined else None) for each in self.opens)
        return Commit(number, drafts, outcome, self.leased, opens, tuple(WAITS[each].id for each in self.expires))


def step_completed(number: int) -> Draft:
    """The fact that a step was done."""
    return Draft(event.STEP_COMPLETED, '{"name":"pay"}', f"0/{number}")


def may_write(core: Core, bounds: Bounds) -> list[Message]:
    """What a holder may decide to write that has read the whole journal."""
    life = core.life
    found = [Message(f"step {core.steps + 1}", step=core.steps + 1)] if core.steps < bounds.steps else []
    found.append(Message("return", Succeeded(Payload("1"))))
    if life.cancelling:
        found.append(Message("cancelled", Cancelled("request")))
    else:
        found += [Message("fail", Failed(_ERROR)), *_stops(core, bounds), *_waiting(core, bounds)]
    if bounds.limits:
        found.append(Message("note", leased=TIMEOUT))
        found.append(Message("over time", TimedOut("timeout"), leased=TIMEOUT))
    return [replace(message, leased=max(message.leased, life.held)) for message in found]


def _stops(core: Core, bounds: Bounds) -> list[Message]:
    """How an attempt ends early."""
    found = [Message("hand back", HandedBack())]
    if core.life.errors < bounds.errors:
        found += [Message("retry later", Retrying(_ERROR, LATER)), Message("retry now", Retrying(_ERROR, NOW))]
    else:
        found.append(Message("give up", Failed(_ERROR, dead=True)))
    if bounds.pauses:
        found.append(Message("pause", PAUSED_ON_REQUEST))
    if bounds.holds:
        found += [Message("diverge", Held("diverged", by="replay")), Message("doubt", Held("in_doubt", by="step"))]
    if bounds.limits:
        found.append(Message("exhaust", Exhausted("steps")))
    return found


def _waiting(core: Core, bounds: Bounds) -> list[Message]:
    """Waits are opened, parked for, and given up."""
    found = [Message("sleep", Parked(LATER, "[]"))]
    if core.waits:
        found += [Message("park", Parked(NEVER, "[]")), Message("give up waiting", expires=core.waits)]
    elif bounds.joined:
        found.append(Message("open both", opens=bounds.waits))
    for each in "" if bounds.joined else bounds.waits:
        if each not in core.waits and (each != "c" or core.child != NO_CHILD):
            found.append(Message(f"open {each}", opens=each))
            found.append(Message(f"open {each} and park", Parked(NEVER, "[]"), opens=each))
    if bounds.child and core.child == NO_CHILD:
        found.append(Message("make a child", submits=True))
        found.append(Message("call a child", Parked(NEVER, "[]"), opens="c", submits=True))
    return found


def every_message(bounds: Bounds) -> list[Message]:
    """What anybody might send at any time, whatever he has read."""
    idle = [Message(f"step {number}", step=number) for number in range(1, bounds.steps + 1)]
    stops = [*_stops(EMPTY, bounds), *_stops(EMPTY, bounds._replace(errors=0))]
    parks = [Message("sleep", Parked(LATER, "[]")), Message("park", Parked(NEVER, "[]"))]
    ends = [Message("return", Succeeded(Payload("1"))), Message("fail", Failed(_ERROR))]
    return [*idle, Message("note"), *ends, *stops, *parks, Message("cancelled", Cancelled("request"))]


class Beside(NamedTuple):
    """What a store does beside the run itself: the write with all facts, and the waits, signals and child after it.

    `missed` says that a wait that was opened is over already.
    """

    write: Commit
    waits: str
    kept: int
    child: int
    missed: bool


def beside(core: Core, message: Message, write: Commit, joined: bool) -> Beside:
    """The stores' part of a commit that is accepted."""
    drafts, waits, kept, child, over = list(write.drafts), core.waits, core.kept, core.child, ""
    if message.submits and child == NO_CHILD:
        child = LIVE_CHILD
        drafts.append(_STARTED)
    for wait in write.opens:
        letter = wait.id[-1]
        if letter == "c" and child == ENDED_CHILD:
            over += letter
            continue
        drafts += transitions.opened([wait])
        if letter == "s" and kept:
            kept, over = kept - 1, over + letter
            drafts.append(transitions.taken(wait, SENT.id))
        else:
            waits += letter
    for letter in message.expires:
        if letter in waits:
            waits = waits.replace(letter, "")
            drafts.append(transitions.expired(WAITS[letter]))
    missed = bool(over) and not (joined and waits)
    outcome = write.outcome
    if isinstance(outcome, Parked) and missed:
        outcome = replace(outcome, wake_at=min(outcome.wake_at, NOW))
    told = write._replace(drafts=tuple(drafts), outcome=outcome)
    return Beside(told, "".join(sorted(waits)), kept, child, missed)


EMPTY: Final = Core(transitions.queued(NOW, NOW))
