"""The index over a journal: what it answers, and what it calls a difference."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepwell.domain import event
from stepwell.domain.errors import Misuse
from stepwell.domain.event import Draft, Entry
from stepwell.engine.replay import Call, Diverged, Replay, keyed_step, step_call

IDENTITY = {"name": "fetch", "digest": "d1", "function": "fetch"}


def entries(*facts: tuple[str, str | None, dict[str, Any]]) -> list[Entry]:
    """A journal of these kinds, steps and data."""
    return [Entry(n, n, kind, step, None, json.dumps(data)) for n, (kind, step, data) in enumerate(facts, 1)]


def completed(step: str, **changes: Any) -> tuple[str, str, dict[str, Any]]:
    return event.STEP_COMPLETED, step, {**IDENTITY, "result": 1, **changes}


def failed(step: str, **changes: Any) -> tuple[str, str, dict[str, Any]]:
    return event.STEP_FAILED, step, {**IDENTITY, "error": {"code": "x", "message": "x", "retryable": True}, **changes}


def retrying(*steps: str) -> tuple[str, None, dict[str, Any]]:
    first, *also = steps
    return event.RUN_RETRYING, None, {"error": {"step": first, "also": also}}


def call(step: str, name: str = "fetch", digest: str = "d1", function: str | None = "fetch") -> Call:
    return step_call(step, name, digest, function, keyed=":" in step)


class TestRecords:
    def test_nothing_is_known_of_a_new_run(self) -> None:
        replay = Replay()
        assert replay.recall(call("0/1")) is None
        assert not replay.repeating
        replay.expect_done()

    def test_a_completed_step_is_final(self) -> None:
        record = Replay(entries(completed("0/1"))).recall(call("0/1"))
        assert record is not None
        assert (record.final, record.completed, record.failed) == (True, True, False)
        assert record.facts()["result"] == 1

    def test_a_failure_with_a_next_try_is_not(self) -> None:
        record = Replay(entries(failed("0/1", retry_at=5), failed("0/1", retry_at=9))).recall(call("0/1"))
        assert record is not None
        assert (record.final, record.tries, record.retry_at) == (False, 2, 9)

    def test_a_rerun_that_a_person_decided_is_no_try(self) -> None:
        record = Replay(entries(failed("0/1", retry_at=5, verdict="rerun"))).recall(call("0/1"))
        assert record is not None
        assert record.tries == 0

    @pytest.mark.parametrize(
        ("after", "in_doubt"),
        [([], True), ([failed("0/1", retry_at=1)], False), ([completed("0/1")], False), ([failed("0/1")], False)],
        ids=["nothing", "a failure with a next try", "its end", "its failure"],
    )
    def test_an_intent_is_in_doubt_until_something_follows(self, after: list[Any], in_doubt: bool) -> None:
        record = Replay(entries((event.STEP_INTENDED, "0/1", IDENTITY), *after)).recall(call("0/1"))
        assert record is not None
        assert record.in_doubt is in_doubt

    def test_what_has_a_key_is_known_at_once(self) -> None:
        replay = Replay()
        assert replay.recall(call("fetch:a")) is None
        replay.learn("fetch:a", Draft(event.STEP_COMPLETED, json.dumps({**IDENTITY, "result": 2}), "fetch:a"))
        record = replay.recall(call("fetch:a"))
        assert record is not None
        assert record.facts()["result"] == 2

    def test_a_key_is_for_one_call(self) -> None:
        replay = Replay(entries(completed("fetch:a")))
        replay.recall(call("fetch:a"))
        with pytest.raises(Misuse) as refused:
            replay.recall(call("fetch:a", digest="d2"))
        assert refused.value.code == "step.key_used_twice"

    def test_a_checkpoint_drops_places_and_keeps_keys(self) -> None:
        replay = Replay(
            entries(completed("0/1"), completed("fetch:a"), (event.CHECKPOINT_SAVED, None, {"version": 1, "state": 7}))
        )
        assert replay.generation == 1
        assert replay.checkpoint is not None
        assert replay.recall(call("1/1")) is None
        assert replay.recall(call("fetch:a")) is not None
        assert not replay.repeating
        replay.expect_done()


class TestDifferences:
    def diverges(self, replay: Replay, asked: Call) -> dict[str, Any]:
        with pytest.raises(Diverged) as difference:
            replay.recall(asked)
        return difference.value.detail

    @pytest.mark.parametrize(
        ("asked", "found"),
        [
            (call("0/1", name="load"), "step load"),
            (call("0/1", digest="d2"), "step fetch with other arguments"),
            (call("0/1", function="Other.fetch"), "step fetch of function Other.fetch"),
            (Call(event.TIME_READ, "0/1", "now", ""), "now"),
            (Call("custom.seen", "0/1", "seen", "d"), "emit seen"),
            (Call(event.ARTIFACT_SAVED, "0/1", "a.txt", "d"), "artifact a.txt"),
        ],
        ids=range(6),
    )
    def test_another_call_at_a_place_is_one(self, asked: Call, found: str) -> None:
        detail = self.diverges(Replay(entries(completed("0/1"))), asked)
        assert detail["step"] == "0/1"
        assert detail["expected"].startswith("step fetch")
        assert detail["found"] == found
        assert detail["message"] == f"at 0/1 the journal has {detail['expected']}, the program asks for {found}"

    @pytest.mark.parametrize("function", [None, "fetch"])
    def test_a_function_that_is_not_compared_may_be_any(self, function: str | None) -> None:
        assert Replay(entries(completed("0/1"))).recall(call("0/1", function=function)) is not None

    def test_a_hole_in_front_of_a_record_is_one(self) -> None:
        replay = Replay(entries(completed("0/2")))
        assert "nothing, and goes on at 0/2" in self.diverges(replay, call("0/1"))["message"]

    def test_a_hole_in_a_branch_whose_gather_had_ended_is_one(self) -> None:
        replay = Replay(entries(completed("0.1.0/1"), completed("0/2")))
        assert "goes on at 0/2" in self.diverges(replay, call("0.1.1.5.0/1"))["message"]

    def test_a_new_call_at_the_end_of_a_branch_is_none_while_the_others_go_on(self) -> None:
        replay = Replay(entries(completed("0.1.0/1"), completed("0.1.1/1"), completed("0.1.1/2")))
        assert replay.recall(call("0.1.0/2")) is None

    def test_steps_with_keys_leave_no_hole(self) -> None:
        assert Replay(entries(completed("0/2"))).recall(call("fetch:a")) is None

    @pytest.mark.parametrize(("count", "is_one"), [(1, True), (2, False), (3, False)])
    def test_fewer_branches_than_the_journal_knows_are_one(self, count: int, is_one: bool) -> None:
        replay = Replay(entries(completed("0.1.1/1")))
        if is_one:
            with pytest.raises(Diverged, match=r"gather or map \(2 branches\)"):
                replay.open_branches("0/1", "gather", count)
        else:
            replay.open_branches("0/1", "gather", count)

    def test_branches_that_left_no_trace_are_none(self) -> None:
        Replay(entries(completed("0/2"))).open_branches("0/1", "map", 3)

    def test_an_end_before_the_journals_is_one(self) -> None:
        replay = Replay(entries(completed("0/1"), completed("0.2.0/1"), completed("0.2.0/2"), completed("0/10")))
        replay.recall(call("0/1"))
        with pytest.raises(Diverged, match=r"at 0\.2\.0/2 .* nothing more"):
            replay.expect_end("0.2.0", 1)
        replay.recall(call("0.2.0/1"))
        replay.recall(call("0.2.0/2"))
        replay.expect_end("0.2.0", 2)
        with pytest.raises(Diverged, match=r"at 0/10 "):
            replay.expect_done()


class TestSoftRecords:
    def test_what_followed_the_failure_that_ended_an_attempt_is_soft(self) -> None:
        replay = Replay(
            entries(
                completed("0/1"),
                failed("0/2"),
                completed("0/3"),
                completed("0.4.0/1"),
                completed("k:a"),
                retrying("0/2"),
            )
        )
        assert replay.recall(call("0/1")) is not None
        assert replay.recall(call("0/2")) is None
        assert replay.recall(call("0/3", digest="other")) is None, "passed over"
        replay.open_branches("0/4", "gather", 1)
        assert replay.recall(call("0.4.0/1")) is not None, "it fits"
        assert replay.recall(call("k:a", digest="other", name="k")) is None
        replay.expect_done()

    def test_it_is_not_expected_either(self) -> None:
        replay = Replay(entries(failed("0/1"), completed("0/2"), retrying("0/1")))
        replay.recall(call("0/1"))
        replay.expect_done()
        assert not replay.repeating

    def test_other_branches_are_as_they_were(self) -> None:
        replay = Replay(entries(failed("0.1.0/1"), completed("0.1.1/1"), completed("0/2"), retrying("0.1.0/1")))
        with pytest.raises(Diverged):
            replay.recall(call("0.1.1/1", digest="other"))
        assert replay.recall(call("0/2", digest="other")) is None

    def test_a_failure_with_a_key_has_no_place_so_everything_after_it_is_soft(self) -> None:
        replay = Replay(entries(completed("0/1"), failed("fetch:a"), completed("0/2"), retrying("fetch:a")))
        assert replay.recall(call("0/2", digest="other")) is None
        with pytest.raises(Diverged):
            replay.recall(call("0/1", digest="other"))

    def test_a_doubt_is_never_passed_over(self) -> None:
        replay = Replay(entries(failed("0/1"), (event.STEP_INTENDED, "0/2", IDENTITY), retrying("0/1")))
        with pytest.raises(Diverged):
            replay.recall(call("0/2", digest="other"))

    def test_a_settled_doubt_is(self) -> None:
        replay = Replay(
            entries(failed("0/1"), (event.STEP_INTENDED, "0/2", IDENTITY), completed("0/2"), retrying("0/1"))
        )
        assert replay.recall(call("0/2", digest="other")) is None

    def test_what_took_its_place_is_hard(self) -> None:
        replay = Replay(
            entries(failed("0/1"), completed("0/2"), retrying("0/1"), completed("0/1"), completed("0/2", digest="d2"))
        )
        with pytest.raises(Diverged):
            replay.recall(call("0/2"))
        assert replay.recall(call("0/2", digest="d2")) is not None

    def test_what_went_on_in_a_later_attempt_is_hard(self) -> None:
        replay = Replay(
            entries(failed("0/1"), failed("0/2", retry_at=5), retrying("0/1"), completed("0/1"), completed("0/2"))
        )
        with pytest.raises(Diverged):
            replay.recall(call("0/2", digest="other"))

    def test_another_step_in_the_place_of_an_unfinished_one_begins_at_its_first_try(self) -> None:
        replay = Replay(
            entries(
                failed("0/1"),
                failed("0/2", retry_at=5),
                retrying("0/1"),
                completed("0/1"),
                failed("0/2", digest="d2", retry_at=6),
            )
        )
        record = replay.recall(call("0/2", digest="d2"))
        assert record is not None
        assert record.tries == 1

    def test_all_failures_that_ended_it_are_forgotten(self) -> None:
        replay = Replay(entries(failed("0.1.0/1"), failed("0.1.1/1"), failed("0/9"), retrying("0.1.0/1", "0.1.1/1")))
        assert replay.recall(call("0.1.0/1")) is None
        assert replay.recall(call("0.1.1/1")) is None


class TestPatches:
    def test_a_run_is_behind_where_it_went_on_before(self) -> None:
        replay = Replay(entries(completed("0/1"), completed("0.2.0/1"), completed("0/3")))
        assert replay.behind("0", 2)
        assert not replay.behind("0", 3)
        assert replay.behind("0.2.0", 1), "the gather around it had ended"

    def test_marks_are_known(self) -> None:
        replay = Replay(entries((event.PATCH_MARKED, None, {"id": "a", "active": False})))
        assert replay.patches == {"a": False}


@given(st.text(min_size=1), st.text(min_size=1), st.text(min_size=1), st.text(min_size=1))
def test_no_two_keyed_steps_meet_and_none_looks_like_a_place(name: str, key: str, other: str, other_key: str) -> None:
    assert (keyed_step(name, key) == keyed_step(other, other_key)) == ((name, key) == (other, other_key))
    assert ":" in keyed_step(name, key)
