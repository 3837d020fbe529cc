"""What a retry takes over from the journal of the run that it retries."""

from __future__ import annotations

import json
from typing import Any

import pytest

from stepwell.domain.event import Entry
from stepwell.engine.inheritance import inherited
from stepwell.engine.replay import Replay

BOOM = {"code": "step.error", "message": "boom", "retryable": True, "type": "ValueError"}
STEP = {"name": "work", "digest": "d"}


def journal(*facts: tuple[str, str | None, dict[str, Any]]) -> list[Entry]:
    """A journal of these facts, between the first and the last of an ended run."""
    return [Entry(seq, seq * 10, kind, step, None, json.dumps(data)) for seq, (kind, step, data) in enumerate(facts, 1)]


START = ("run.queued", None, {"input": 1}), ("run.started", None, {"attempt": 1})
FAILED = ("run.failed", None, {"error": BOOM})


def taken(*facts: tuple[str, str | None, dict[str, Any]], end: tuple[str, None, dict[str, Any]] = FAILED) -> list[Any]:
    """Kind, step and data of what is taken over."""
    drafts = inherited(journal(*START, *facts, end))
    return [(draft.kind, draft.step, json.loads(draft.data)) for draft in drafts]


@pytest.mark.parametrize(
    "fact",
    [
        ("step.completed", "0/1", STEP | {"result": 1}),
        ("step.completed", "work:key", STEP | {"result": 1}),
        ("step.failed", "0/1", STEP | {"error": BOOM}),
        ("step.intended", "0/1", STEP),
        ("time.read", "0/1", {"value": 5}),
        ("custom.seen", "0/1", {}),
        ("artifact.saved", "0/1", {"name": "a", "artifact": "b"}),
        ("checkpoint.saved", None, {"version": 1}),
        ("patch.marked", None, {"id": "p", "active": True}),
        ("session.changed", "0/1", {"key": "k", "version": 1}),
        ("session.read", "0/1", {"key": "k", "version": 1}),
        ("text.delta", None, {"stream": "0/1", "text": "a", "attempt": 1}),
        ("text.completed", "0/1", {"stream": "0/1", "length": 1}),
        ("run.retrying", None, {"attempt": 1, "error": BOOM, "available_at": 1}),
    ],
    ids=range(14),
)
def test_what_calls_left_behind_is_taken_over_as_it_is(fact: Any) -> None:
    assert taken(fact) == [fact]


def test_the_next_try_of_a_step_is_due_since_somebody_asked_for_it_now() -> None:
    failed = STEP | {"error": BOOM, "try": 1}
    assert taken(("step.failed", "0/1", failed | {"retry_at": 5})) == [("step.failed", "0/1", failed | {"retry_at": 0})]


@pytest.mark.parametrize("step", ["-1/1", "-1.2.0/1"])
def test_what_the_clean_up_did_is_not_part_of_a_retry(step: str) -> None:
    kept = ("step.completed", "-1 is a key", STEP | {"result": 1})
    assert taken(kept, ("step.completed", step, STEP | {"result": 1})) == [kept]


@pytest.mark.parametrize(
    "kind", ["run.resumed", "run.lost", "run.waiting", "run.held", "run.released", "run.cancelling", "run.discarded"]
)
def test_what_happened_to_the_run_itself_is_not(kind: str) -> None:
    assert taken((kind, None, {})) == []


class TestWaits:
    OPENED = ("wait.opened", "0/1", {"wait": "w_1", "type": "signal", "name": "go"})
    CLOSED = ("wait.closed", "0/1", {"wait": "w_1", "outcome": "received", "signal": "s"})
    RECEIVED = ("signal.received", None, {"signal": "s", "name": "go", "value": 1})

    def test_one_that_was_closed_is_remembered_with_what_closed_it(self) -> None:
        assert taken(self.OPENED, self.RECEIVED, self.CLOSED) == [self.OPENED, self.RECEIVED, self.CLOSED]

    def test_one_that_is_open_is_begun_anew(self) -> None:
        assert taken(self.OPENED) == []

    def test_a_signal_that_nothing_took_stays_behind(self) -> None:
        assert taken(self.RECEIVED) == []

    def test_a_sleep_ends_at_the_same_moment(self) -> None:
        slept = ("wait.opened", "0/1", {"wait": "0/1", "type": "time", "name": "sleep", "until": 50})
        assert taken(slept) == [slept]

    def test_what_was_asked_about_a_doubt_is_asked_anew(self) -> None:
        asked = ("wait.opened", None, {"wait": "q_1", "type": "question", "name": "Did it?"})
        answered = ("wait.closed", None, {"wait": "q_1", "outcome": "answered", "by": "ada", "value": "rerun"})
        assert taken(asked, answered) == []


class TestChildren:
    STARTED = ("child.started", "0/1", {"child": "run_c", "agent": "c", "mode": "spawn", "digest": "d"})
    JOINED = ("wait.opened", "0/2", {"wait": "w_1", "type": "child", "name": "run_c"})

    def ended(self, status: str) -> Any:
        return ("child.ended", "0/1", {"child": "run_c", "status": status})

    def test_one_that_succeeded_is_remembered(self) -> None:
        facts = (self.STARTED, self.JOINED, self.ended("succeeded"))
        assert taken(*facts) == list(facts)

    def test_one_that_failed_is_forgotten_as_an_attempt_would_forget_it(self) -> None:
        found = taken(self.STARTED, self.ended("failed"), end=("run.cancelled", None, {"by": "ada"}))
        assert found[:2] == [self.STARTED, self.ended("failed")]
        [(kind, step, told)] = found[2:]
        assert (kind, step, told["error"]["step"], told["error"]["code"]) == (
            "run.retrying",
            None,
            "0/1",
            "run.cancelled",
        )

    def test_one_that_had_not_ended_was_cancelled_with_its_parent(self) -> None:
        found = taken(self.STARTED, end=("run.timed_out", None, {"limit": "timeout"}))
        assert found[1] == self.ended("cancelled")
        assert found[2][0] == "run.retrying"

    def test_nobody_waits_for_one_that_is_made_anew(self) -> None:
        assert self.JOINED not in taken(self.STARTED, self.JOINED)


class TestTheEnd:
    def test_a_failure_that_ended_the_run_is_forgotten(self) -> None:
        error = BOOM | {"step": "0/1", "also": ["0/2"]}
        step = ("step.failed", "0/1", STEP | {"error": BOOM})
        found = taken(step, end=("run.failed", None, {"error": error}))
        assert found == [step, ("run.retrying", None, {"attempt": 1, "error": error, "available_at": 40})]

    def test_the_replay_of_it_knows_nothing_of_that_failure(self) -> None:
        facts = (("step.failed", "0/1", STEP | {"error": BOOM}), ("step.completed", "0/2", STEP | {"result": 1}))
        drafts = inherited(journal(*START, *facts, ("run.failed", None, {"error": BOOM | {"step": "0/1"}})))
        entries = [Entry(seq, seq, draft.kind, draft.step, None, draft.data) for seq, draft in enumerate(drafts, 2)]
        assert not Replay(entries).repeating
        assert Replay(entries[:-1]).repeating

    def test_children_are_forgotten_together_with_it(self) -> None:
        error = BOOM | {"step": "0/2"}
        child = ("child.started", "0/1", {"child": "run_c", "agent": "c", "mode": "spawn", "digest": "d"})
        *_, (_, _, told) = taken(child, end=("run.failed", None, {"error": error}))
        assert (told["error"]["step"], told["error"]["also"]) == ("0/2", ["0/1"])

    def test_an_error_of_no_step_leaves_nothing_to_be_forgotten(self) -> None:
        assert taken() == []

    def test_a_retry_of_a_retry_takes_over_what_that_took_over(self) -> None:
        step = ("step.completed", "0/1", STEP | {"result": 1})
        queued, started = START
        assert [draft.kind for draft in inherited(journal(queued, step, started, FAILED))] == ["step.completed"]
