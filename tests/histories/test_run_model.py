"""Histories of one run, made by hand: what a client may be told, and what it never may."""

from __future__ import annotations

from typing import Any

import pytest

from tests.histories.history import FAIL, OK, UNKNOWN, Operation
from tests.histories.linearizability import NotLinearizable, linearize
from tests.histories.run_model import RunModel

RUN = "run-1"
MEANWHILE = "meanwhile"
"""Marks an operation that begins before the one in front of it has returned."""


def shown(status: str, seq: int, *, cancelling: bool = False, dead: bool = False, run: str = RUN) -> dict[str, Any]:
    return {"run": run, "status": status, "cancelling": cancelling, "dead": dead, "seq": seq}


def told(outcome: str, verb: str, value: Any, /, **given: Any) -> tuple[str, str, Any, dict[str, Any]]:
    return outcome, verb, value, given if verb == "start" else {"run": RUN, **given}


def start(plan: str = "a?", seq: int = 1, run: str = RUN, status: str = "queued") -> Any:
    return told(OK, "start", shown(status, seq, run=run), plan=plan)


def get(status: str, seq: int, *, cancelling: bool = False, dead: bool = False) -> Any:
    return told(OK, "get", shown(status, seq, cancelling=cancelling, dead=dead))


def signal(id: str, name: str = "a", value: str = "", *, new: bool = True) -> Any:
    return told(OK, "signal", new, id=id, name=name, value=value or id)


def answer(value: str, index: int = 0, by: str = "ada") -> Any:
    return told(OK, "answer", None, index=index, value=value, by=by)


def refused(code: str, asked: Any) -> Any:
    _, verb, _, given = asked
    return FAIL, verb, code, given


def unknown(asked: Any) -> Any:
    _, verb, _, given = asked
    return UNKNOWN, verb, None, given


def asked(*open_questions: int) -> Any:
    return told(OK, "questions", list(open_questions))


def question(outcome: str | None, index: int = 0, by: str | None = None) -> Any:
    return told(OK, "question", {"outcome": outcome, "by": by}, index=index)


def result(status: str, output: list[str] | None = None) -> Any:
    return told(OK, "result", {"status": status, "output": output})


def cancel(how: str) -> Any:
    return told(OK, "cancel", how)


def pause(status: str, seq: int, *, cancelling: bool = False) -> Any:
    return told(OK, "pause", shown(status, seq, cancelling=cancelling))


def resume(status: str = "queued", seq: int = 0) -> Any:
    return told(OK, "resume", shown(status, seq))


RETRY, DISCARD = told(OK, "retry", {"id": "run-2"}), told(OK, "discard", None)
DONE = [start(), signal("s1"), asked(0), answer("yes"), get("succeeded", 9)]
ASKED = [start(), signal("s1"), asked(0)]
DIED = [*ASKED, answer("fail"), get("failed", 9, dead=True)]


def history(story: list[Any]) -> list[Operation]:
    """One after the other; what comes behind `MEANWHILE` begins before the one in front of it returns."""
    found: list[Operation] = []
    joined = False
    for each in story:
        if each == MEANWHILE:
            joined = True
            continue
        outcome, verb, value, given = each
        called, returned = 10 * len(found), None if outcome == UNKNOWN else 10 * len(found) + 5
        if joined:
            called, joined = found[-1].called, False
            found[-1] = found[-1]._replace(returned=returned)
        found.append(Operation(f"c{len(found)}", verb, "it", given, called, returned, outcome, value))
    return found


RIGHT = {
    "a run from its start to its end": [*DONE, result("succeeded", ["s1", "yes"]), cancel("already_ended")],
    "signals in order": [
        *[start("aba"), signal("s1"), signal("s2"), signal("s3", "b")],
        result("succeeded", ["s1", "s3", "s2"]),
    ],
    "a signal twice": [start(), signal("s1"), signal("s1", new=False), get("waiting", 4)],
    "a signal again after the end": [*DONE, signal("s1", new=False), refused("run.ended", signal("s2"))],
    "one key, one run": [start(), start(seq=1), refused("idempotency.conflict", start("b"))],
    "two answers at once": [
        *ASKED,
        answer("yes"),
        MEANWHILE,
        refused("question.answered", answer("no", by="bob")),
        question("answered", by="ada"),
    ],
    "an answer that nobody heard of": [*ASKED, unknown(answer("yes")), result("succeeded", ["s1", "yes"])],
    "a signal that was never sent": [start(), unknown(signal("s1")), signal("s1"), asked(0)],
    "a signal that was sent": [start(), unknown(signal("s1")), signal("s1", new=False), asked(0)],
    "a start that nobody heard of": [unknown(start()), start("a?", 4, status="waiting"), signal("s1")],
    "a cancel while it waits": [start(), get("waiting", 3), cancel("cancelled"), get("cancelled", 4)],
    "a cancel that came too late": [*ASKED, answer("yes"), cancel("cancelling"), result("succeeded", ["s1", "yes"])],
    "a cancel that a worker hears": [start(), cancel("cancelling"), get("running", 3, cancelling=True),
                                     get("cancelled", 4)],
    "a cancel that nobody heard of": [start(), unknown(cancel("")), get("cancelled", 4), cancel("already_ended")],
    "a pause and a resume": [start(), pause("paused", 2), get("paused", 2), resume(seq=3), signal("s1"), asked(0)],
    "a pause of what is running": [start(), pause("running", 2), get("running", 2), get("paused", 4), resume(seq=5)],
    "a pause that came too late": [*ASKED, answer("yes"), pause("running", 6), get("succeeded", 8)],
    "a pause taken back in time": [start(), pause("running", 2), resume("running", 2), get("waiting", 4)],
    "arrivals while it is held": [start(), pause("paused", 2), signal("s1"), get("paused", 3), resume(seq=4)],
    "the end of the dead": [*DIED, DISCARD, get("failed", 10), refused("run.not_dead", DISCARD)],
    "a retry of the dead": [*DIED, RETRY, get("failed", 10), RETRY, refused("run.not_dead", DISCARD)],
    "no retry": [start(), refused("run.not_ended", RETRY), cancel("cancelled"), RETRY],
    "no retry of a success": [*DONE, refused("run.succeeded", RETRY)],
    "a question closed by the end": [*ASKED, cancel("cancelled"), refused("question.closed", answer("yes")),
                                     question("run_ended"), asked()],
    "nothing was stored": [start(), refused("store.busy", signal("s1")), signal("s1"), asked(0)],
}  # fmt: skip

WRONG = {
    "a stale read": [start(), get("waiting", 3), get("queued", 2)],
    "a read that misses a signal": [start(), get("waiting", 3), signal("s1"), get("waiting", 3)],
    "a lost signal": [start("aa"), signal("s1"), signal("s2"), signal("s3"), result("succeeded", ["s1", "s3"])],
    "signals out of order": [start("aa"), signal("s1"), signal("s2"), result("succeeded", ["s2", "s1"])],
    "a signal taken twice": [start("aa"), signal("s1"), result("succeeded", ["s1", "s1"])],
    "a signal new again": [start(), signal("s1"), signal("s1")],
    "a signal known too early": [start(), signal("s1", new=False)],
    "a signal with another value": [start(), signal("s1"), signal("s1", value="other", new=False)],
    "a conflict with nothing": [start(), signal("s1"), refused("signal.conflict", signal("s1"))],
    "a signal after the end": [*DONE, signal("s2")],
    "two winners": [*ASKED, answer("yes"), answer("no", by="bob")],
    "two winners at once": [*ASKED, answer("yes"), MEANWHILE, answer("no", by="bob")],
    "no winner": [*ASKED, refused("question.answered", answer("yes")), refused("question.answered", answer("no"))],
    "the last answer wins": [*ASKED, answer("yes"), refused("question.answered", answer("no", by="bob")),
                             question("answered", by="bob")],
    "an answer that came to nothing": [*ASKED, answer("yes"), asked(0)],
    "another answer came out": [*ASKED, answer("yes"), result("succeeded", ["s1", "no"])],
    "an answer after the end": [*ASKED, cancel("cancelled"), answer("yes")],
    "an answer before the question": [start(), get("waiting", 3), answer("yes")],
    "a question before its time": [start("a?"), asked(0)],
    "a question that is gone": [*ASKED, asked()],
    "a question closed for no reason": [*ASKED, refused("question.closed", answer("yes"))],
    "a cancel that was lost": [start(), cancel("cancelled"), get("waiting", 4)],
    "a cancel that nobody heard of any more": [start(), cancel("cancelling"), get("running", 3)],
    "a cancel that stops nothing": [start(), cancel("cancelling"), get("waiting", 5, cancelling=True)],
    "a cancel that nobody asked for": [start(), get("running", 2, cancelling=True)],
    "an end out of nothing": [start(), get("cancelled", 2)],
    "an end too early": [start(), signal("s1"), result("succeeded", ["s1", "yes"])],
    "ended twice, differently": [*ASKED, answer("yes"), cancel("cancelled"), get("succeeded", 9)],
    "alive again": [start(), cancel("cancelled"), get("running", 5)],
    "alive again after a success": [*DONE, pause("paused", 10)],
    "alive for a client, ended for another": [*DONE, refused("run.not_ended", RETRY)],
    "written to after its end": [*DONE, get("succeeded", 10)],
    "two ends in one run": [start(), cancel("cancelled"), get("cancelled", 4), cancel("cancelled")],
    "already ended, says somebody": [start(), cancel("already_ended"), get("waiting", 4)],
    "two runs for one key": [start(), start(run="run-2")],
    "one key, two inputs": [start("a"), start("b")],
    "a conflict with a free key": [refused("idempotency.conflict", start()), start()],
    "a pause that was lost": [start(), pause("paused", 2), get("running", 4)],
    "a pause that nobody asked for": [start(), get("paused", 2)],
    "a pause that was slept through": [start(), pause("running", 2), get("waiting", 4)],
    "a success while it is held": [*ASKED, pause("paused", 5), answer("yes"), result("succeeded", ["s1", "yes"])],
    "a resume out of nothing": [start(), resume(seq=2)],
    "a resume refused": [start(), pause("paused", 2), refused("run.not_held", resume())],
    "a resume of what has ended": [start(), cancel("cancelled"), resume("waiting", 4)],
    "a status that changed in silence": [start(), get("waiting", 3), get("queued", 3)],
    "a pause in silence": [start(), get("waiting", 3), pause("paused", 3)],
    "dead after it was discarded": [*DIED, DISCARD, get("failed", 10, dead=True)],
    "discarded twice": [*DIED, DISCARD, DISCARD],
    "discarded alive": [start(), DISCARD],
    "not dead, says somebody": [*DIED, refused("run.not_dead", DISCARD)],
    "a retry of a success": [*DONE, RETRY],
    "a failure for no reason": [start(), get("failed", 5, dead=True)],
    "an effect before its cause": [asked(0), start(), signal("s1")],
    "a refusal that stored all the same": [start(), refused("store.busy", signal("s1")), signal("s1", new=False)],
    "refused with what fits no verb": [start(), refused("queue.odd", signal("s1"))],
}  # fmt: skip


@pytest.mark.parametrize("story", RIGHT.values(), ids=RIGHT)
def test_what_may_happen_is_explained(story: list[Any]) -> None:
    operations = history(story)
    linearize(RunModel(), operations)


@pytest.mark.parametrize("story", WRONG.values(), ids=WRONG)
def test_what_may_not_happen_is_not_explained(story: list[Any]) -> None:
    with pytest.raises(NotLinearizable):
        linearize(RunModel(), history(story))


HOOKED_RIGHT = {
    "cancelled before it began": [start(), cancel("cancelled"), get("cancelled", 2)],
    "a clean-up": [start(), get("waiting", 3), cancel("cancelling"), get("queued", 4, cancelling=True),
                   get("running", 5, cancelling=True), get("cancelled", 7)],
    "a clean-up of what was held": [*ASKED, pause("paused", 5), cancel("cancelling"), cancel("cancelling"),
                                    refused("run.not_held", resume()), get("queued", 6, cancelling=True)],
    "no answer during the clean-up": [*ASKED, cancel("cancelling"), refused("question.closed", answer("yes")),
                                      get("running", 6, cancelling=True)],
}  # fmt: skip
HOOKED_WRONG = {
    "no clean-up": [start(), get("waiting", 3), cancel("cancelled")],
    "no clean-up after a question": [*ASKED, cancel("cancelled")],
    "waiting during the clean-up": [*ASKED, cancel("cancelling"), get("waiting", 6, cancelling=True)],
    "held during the clean-up": [*ASKED, pause("paused", 5), cancel("cancelling"), get("paused", 6, cancelling=True)],
    "cancelled at once in the end": [*ASKED, cancel("cancelling"), cancel("cancelled")],
}


@pytest.mark.parametrize("story", HOOKED_RIGHT.values(), ids=HOOKED_RIGHT)
def test_a_run_with_a_clean_up_ends_when_that_is_done(story: list[Any]) -> None:
    linearize(RunModel(hooked=True), history(story))


@pytest.mark.parametrize("story", HOOKED_WRONG.values(), ids=HOOKED_WRONG)
def test_a_run_with_a_clean_up_does_not_end_without_it(story: list[Any]) -> None:
    with pytest.raises(NotLinearizable):
        linearize(RunModel(hooked=True), history(story))


def test_a_run_given_up_because_its_workers_died_may_fail_at_any_time() -> None:
    story = history([start(), get("failed", 5, dead=True)])
    linearize(RunModel(lost=True), story)
    with pytest.raises(NotLinearizable):
        linearize(RunModel(), story)


def test_a_run_whose_start_nobody_recorded_exists_all_the_same() -> None:
    story = history([get("waiting", 3), cancel("cancelled"), get("cancelled", 4)])
    linearize(RunModel(nameless=True), story)
    with pytest.raises(NotLinearizable):
        linearize(RunModel(), story)
