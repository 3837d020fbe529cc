"""A run as clients can see it, one operation after the other: the table of verbs and answers, written from the design
and from nothing else.

The runs checked follow a plan: one character per wait of the agent, in order; a letter is a signal of that name, `?` is
a question. The run returns what it got, and fails when an answer is `FAILING`. What workers do is not seen; whatever
they may have done by then is assumed when an answer shows it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple, TypeAlias

from tests.histories.history import FAIL, Operation
from tests.histories.linearizability import Refused

ASKS: Final = "?"
FAILING: Final = "fail"

SUCCEEDED: Final = "succeeded"
FAILED: Final = "failed"
CANCELLED: Final = "cancelled"
SOMEHOW: Final = "somehow"
"""It has ended, and what was seen since does not tell how."""
ENDS: Final = frozenset({SUCCEEDED, FAILED, CANCELLED})
LIVE: Final = frozenset({"queued", "running", "waiting"})
PAUSED: Final = "paused"
ANY_RUN: Final = "*"


class Life(NamedTuple):
    """What is known of a run. `seq` is the least number that its last event can have; `shown` the status that was read
    at that very number, if one was: the same number shows the same status.

    `signals` are (id, name, value) in the order of arrival, `answers` (value, by) in the order of the questions;
    `asked` counts the questions that somebody has seen, `began` says that it was seen to run, `pausing` that a
    pause was asked for while it did.
    """

    run: str = ""
    plan: str = ""
    signals: tuple[tuple[str, str, Any], ...] = ()
    answers: tuple[tuple[Any, str], ...] = ()
    asked: int = 0
    began: bool = False
    ended: str = ""
    dead: bool = False
    held: bool = False
    pausing: bool = False
    cancelling: bool = False
    seq: int = 0
    shown: str = ""


After: TypeAlias = Life | Refused


class RunModel:
    """The life of one run. `lost` says that it was given up because its workers died; then it may fail at any time.
    `nameless` is a run whose start nobody recorded: it exists, and what it waits for is not known. `hooked` is one with
    a clean-up, which a worker executes before a run that ever began is cancelled.
    """

    def __init__(self, *, lost: bool = False, nameless: bool = False, hooked: bool = False) -> None:
        self._hooked = hooked
        self._lost = lost
        self._nameless = nameless

    def start(self) -> Life:
        return Life(ANY_RUN, seq=1) if self._nameless else Life()

    def after(self, state: Life, operation: Operation) -> After:
        verb, given, told = operation.verb, operation.given, operation.value
        if verb != "start" and not _is_of(state, given["run"]):
            return Refused(f"there is no run {given['run']} here")
        if operation.outcome == FAIL and told in NOTHING_HAPPENED:
            return state
        if operation.outcome == FAIL and told not in REFUSALS.get(verb, ()):
            return Refused(f"{verb} is not refused with {told}")
        match verb:
            case "start":
                return self._started(state, given, told, operation.outcome == FAIL)
            case "get":
                return self._show(state, told)
            case "result":
                return self._result(state, told)
            case "signal":
                return self._signalled(state, given, told)
            case "answer":
                return self._answered(state, given, told)
            case "questions":
                return self._asked(state, told)
            case "question":
                return self._question(state, given, told)
            case "cancel":
                return self._cancelled(state, told)
            case "pause":
                return self._end(state) if told == "run.ended" else self._paused(state, told)
            case "resume":
                return self._resumed(state, told)
            case "retry":
                return self._retried(state, told)
            case "discard":
                return self._discarded(state, told)
        return Refused(f"nobody knows what {verb} is")

    def perhaps(self, state: Life, operation: Operation) -> Iterator[Life]:
        """What an operation may have done whose client never learned it."""
        for after in self._guesses(state, operation):
            if not isinstance(after, Refused):
                yield after

    def _guesses(self, state: Life, operation: Operation) -> Iterable[After]:
        verb, given = operation.verb, operation.given
        if verb == "start":
            return () if state.run else (Life(ANY_RUN, given["plan"], seq=1),)
        if not _is_of(state, given["run"]):
            return ()
        match verb:
            case "signal":
                return (self._signalled(state, given, True),)
            case "answer":
                return (self._answered(state, given, None),)
            case "cancel":
                return self._cancelled(state, "cancelled"), self._cancelled(state, "cancelling")
            case "pause" if not (state.ended or state.held or state.pausing or state.cancelling):
                return state._replace(pausing=True), _told(state)._replace(held=True)
            case "resume" if not state.ended and (state.held or state.pausing):
                return (_told(state)._replace(held=False) if state.held else state._replace(pausing=False),)
            case "retry":
                return (self._retried(state, None),)
            case "discard":
                return (self._discarded(state, None),)
        return ()

    # ------------------------------------------------------------ what changes it

    def _started(self, state: Life, given: Mapping[str, Any], told: Any, failed: bool) -> After:
        plan = given["plan"]
        if failed:
            fits = state.run and plan != state.plan
            return state if fits else Refused("the key is free, or names a run of this very input")
        if state.run and plan != state.plan:
            return Refused(f"the key names a run of another input, {state.plan!r}")
        return self._show(state if state.run else Life(told["run"], plan), told)

    def _signalled(self, state: Life, given: Mapping[str, Any], told: Any) -> After:
        sent = given["id"], given["name"], given["value"]
        known = next((signal for signal in state.signals if signal[0] == sent[0]), None)
        if told == "signal.conflict":
            return state if known not in (None, sent) else Refused("no other signal has this id")
        if told is False:
            return state if known == sent else Refused("this signal was not received before")
        if known is not None:
            return Refused("a signal of this id was received before")
        if told == "run.ended":
            return self._end(state)
        if state.ended:
            return Refused("a run that has ended takes no signal")
        return _told(state)._replace(signals=(*state.signals, sent))

    def _answered(self, state: Life, given: Mapping[str, Any], told: Any) -> After:
        index = given["index"]
        if told == "question.answered":
            return state if index < len(state.answers) else Refused("nobody answered this question before")
        if index < len(state.answers):
            return Refused(f"the question was answered before, by {state.answers[index][1]}")
        if told == "question.closed":
            return state if self._hooked and state.cancelling else self._end(state)
        asked = self._ask(state, index)
        if isinstance(asked, Refused):
            return asked
        return _told(asked)._replace(answers=(*state.answers, (given["value"], given["by"])))

    def _cancelled(self, state: Life, told: str) -> After:
        if told == "already_ended":
            return self._end(state)
        if state.ended:
            return Refused(f"it had ended before ({state.ended})")
        if told == "cancelled":
            if state.cancelling:
                return Refused("a worker has it, and was asked to end it before")
            if self._hooked and state.began:
                return Refused("it began, and has a clean-up to be executed first")
            return _told(state)._replace(ended=CANCELLED, held=False, pausing=False)
        if state.held and not self._hooked:
            return Refused("nobody executes a run that is held: it ends at once")
        return state if state.cancelling else _told(state)._replace(cancelling=True, pausing=False, held=False)

    def _paused(self, state: Life, told: Mapping[str, Any]) -> After:
        if state.ended:
            return Refused("a run that has ended cannot be paused")
        if state.held or state.pausing or state.cancelling:
            return self._show(state, told)
        if told["status"] == PAUSED:
            return self._show(_told(state)._replace(held=True), told)
        if told["status"] == "running":
            return self._show(state._replace(pausing=True), told)
        return Refused("what nobody executes is paused at once")

    def _resumed(self, state: Life, told: Any) -> After:
        if told == "run.ended":
            return self._end(state)
        if state.ended:
            return Refused("a run that has ended cannot be resumed")
        if told == "run.changed":
            return state
        if told == "run.not_held":
            return Refused("it is held") if state.held or state.pausing else state
        if state.held or (state.pausing and told["status"] != "running"):
            return self._show(_told(state)._replace(held=False, pausing=False), told)
        return self._show(state._replace(pausing=False), told) if state.pausing else Refused("it was not held")

    def _retried(self, state: Life, told: Any) -> After:
        if told == "run.not_ended":
            return Refused("it had ended") if state.ended else state
        if told == "run.succeeded":
            return self._end(state, {SUCCEEDED})
        ended = self._end(state, {FAILED, CANCELLED})
        return _late(ended) if isinstance(ended, Life) and ended.dead else ended

    def _discarded(self, state: Life, told: Any) -> After:
        if told == "run.not_dead":
            return Refused("it is dead, and was not discarded") if state.dead else state
        ended = self._end(state, {FAILED})
        if isinstance(ended, Life) and not ended.dead:
            return Refused("it was discarded before")
        return _late(ended) if isinstance(ended, Life) else ended

    # ------------------------------------------------------------ what shows it

    def _show(self, state: Life, told: Mapping[str, Any]) -> After:
        """Somebody reads the run."""
        status, seq = told["status"], told["seq"]
        if not _is_of(state, told["run"]):
            return Refused(f"this is the run {state.run}")
        if state.shown and seq == state.seq and status != state.shown:
            return Refused(f"it was {state.shown} at event {seq}, and nothing was written since")
        if state.ended and state.shown and seq != state.seq:
            return Refused(f"event {state.seq} was its last one")
        seen = self._seen(state._replace(run=told["run"]), status, bool(told["cancelling"]))
        if isinstance(seen, Refused):
            return seen
        if seq < seen.seq:
            return Refused(f"event {seen.seq} was written before")
        if seen.dead != bool(told["dead"]):
            return Refused("it is on the list of the dead" if seen.dead else "it is not on the list of the dead")
        return seen._replace(seq=seq, shown=status)

    def _seen(self, state: Life, status: str, cancelling: bool) -> After:
        if status in ENDS:
            return Refused("a run that has ended is not being cancelled") if cancelling else self._end(state, {status})
        if state.ended:
            return Refused(f"it has ended ({state.ended}), and keeps that")
        if cancelling != state.cancelling:
            return Refused("a cancel was asked for" if state.cancelling else "nobody asked for a cancel")
        if status == PAUSED:
            held = state.held or state.pausing
            if not held:
                return Refused("nobody paused it, or it was resumed")
            return state if state.held else _told(state)._replace(held=True, pausing=False)
        if status not in LIVE:
            return Refused(f"it cannot be {status}")
        if state.held:
            return Refused("it is held until somebody resumes it")
        if self._hooked and state.cancelling and status == "queued":
            return state
        if (state.pausing or state.cancelling) and status != "running":
            return Refused("what was asked for takes effect when its worker lets go of it")
        return state._replace(began=state.began or status != "queued")

    def _result(self, state: Life, told: Mapping[str, Any]) -> After:
        ended = self._end(state, {told["status"]})
        if isinstance(ended, Life) and ended.ended == SUCCEEDED and ended.plan:
            expected = _got(ended)[0]
            if told["output"] != expected:
                return Refused(f"it got {expected!r}, in this order")
        return ended

    def _asked(self, state: Life, told: list[int]) -> After:
        """Somebody reads which questions are open."""
        if not told:
            is_open = state.asked > len(state.answers) and not state.ended
            return self._end(state) if is_open else state
        if told != [len(state.answers)]:
            return Refused(f"{len(state.answers)} questions were answered, and one is asked at a time")
        return self._ask(state, told[0])

    def _question(self, state: Life, given: Mapping[str, Any], told: Mapping[str, Any]) -> After:
        """Somebody reads a question."""
        index = given["index"]
        match told["outcome"]:
            case None if index < len(state.answers):
                return Refused("the question was answered before")
            case None:
                return self._ask(state, index)
            case "answered" if index < len(state.answers):
                by = state.answers[index][1]
                return state if told["by"] == by else Refused(f"{by} answered it first")
            case "run_ended" if index >= len(state.answers):
                return self._end(state)
        return Refused("this is not how the question was closed")

    def _ask(self, state: Life, index: int) -> After:
        """The run has come to a question, and it is open."""
        if state.ended:
            return Refused(f"a run that has ended ({state.ended}) asks nothing")
        if index != len(state.answers):
            return Refused(f"question {len(state.answers)} comes before")
        if state.asked <= index and _next(state) != ASKS:
            return Refused("the run has not got what it waits for before it asks")
        return state._replace(asked=max(state.asked, index + 1), began=True)

    # ------------------------------------------------------------ its end

    def _end(self, state: Life, hows: Iterable[str] = ENDS) -> After:
        """The run has ended by now, in one of these ways."""
        if state.ended and state.ended != SOMEHOW:
            return state if state.ended in hows else Refused(f"it has ended ({state.ended}), and keeps that")
        if not state.run:
            return Refused("there is no run yet")
        possible = [how for how in self._possible_ends(state) if how in hows]
        if not possible:
            return Refused("nothing has happened that could have ended it so")
        how = possible[0] if len(possible) == 1 else SOMEHOW
        ended = state if state.ended else _told(state)
        still = how == SOMEHOW and state.cancelling
        return ended._replace(ended=how, dead=how == FAILED, pausing=False, cancelling=still)

    def _possible_ends(self, state: Life) -> Iterator[str]:
        if state.held:
            return
        if state.cancelling:
            yield CANCELLED
        if not state.plan or _next(state) == "":
            yield SUCCEEDED
        if not state.cancelling and (not state.plan or _next(state) == FAILING or self._lost):
            yield FAILED


NOTHING_HAPPENED: Final = frozenset({"store.busy", "store.full", "signal.full", "queue.full"})
"""The codes that say that nothing was stored."""

REFUSALS: Final[Mapping[str, frozenset[str]]] = {
    "start": frozenset({"idempotency.conflict"}),
    "signal": frozenset({"signal.conflict", "run.ended"}),
    "answer": frozenset({"question.answered", "question.closed"}),
    "pause": frozenset({"run.ended"}),
    "resume": frozenset({"run.not_held", "run.changed", "run.ended"}),
    "retry": frozenset({"run.not_ended", "run.succeeded"}),
    "discard": frozenset({"run.not_dead"}),
}
"""How each verb may be refused; reads and cancel never are."""


def _is_of(state: Life, run: str) -> bool:
    return bool(state.run) and (state.run in (run, ANY_RUN) or run == ANY_RUN)


def _told(state: Life) -> Life:
    """At least one more event was written."""
    return state._replace(seq=state.seq + 1, shown="")


def _late(state: Life) -> Life:
    """A dead run was taken off the list; exactly one event was written after its end."""
    return state._replace(dead=False, seq=state.seq + 1)


def _got(state: Life) -> tuple[list[Any], str]:
    """What the run can have got so far, and what its agent needs next: a character of the plan, nothing, or to fail."""
    kept: dict[str, list[Any]] = {}
    for _, name, value in reversed(state.signals):
        kept.setdefault(name, []).append(value)
    answers = [value for value, _ in reversed(state.answers)]
    got: list[Any] = []
    for what in state.plan:
        from_where = answers if what == ASKS else kept.get(what, [])
        if not from_where:
            return got, what
        got.append(from_where.pop())
        if what == ASKS and got[-1] == FAILING:
            return got, FAILING
    return got, ""


def _next(state: Life) -> str:
    return _got(state)[1]
