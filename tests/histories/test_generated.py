"""Histories that are linearizable by construction are accepted, whatever they are; changed in one place, nearly all of
them are not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.histories.history import FAIL, OK, UNKNOWN, Operation
from tests.histories.linearizability import MOST_OPERATIONS, NotLinearizable, linearize
from tests.histories.living import history
from tests.histories.run_model import ENDS, RunModel

HISTORIES: Final = 150
LENGTH: Final = 60


@settings(max_examples=150)
@given(
    seed=st.integers(0, 2**32),
    length=st.integers(1, 80),
    overlap=st.integers(0, 60),
    lost=st.sampled_from([0.0, 0.02, 0.1]),
)
def test_a_history_of_a_living_run_is_explained(seed: int, length: int, overlap: int, lost: float) -> None:
    operations = history(seed, length, overlap=overlap, lost=lost)
    order = linearize(RunModel(), operations)
    assert len(order) >= sum(each.returned is not None for each in operations)


def test_the_longest_histories_are_checked_too() -> None:
    for seed in range(10):
        linearize(RunModel(), history(seed, MOST_OPERATIONS, overlap=40))


def test_living_runs_come_to_every_end() -> None:
    seen = Counter(each.value["status"] for seed in range(HISTORIES) for each in history(seed, LENGTH)
                   if each.verb == "get" and each.outcome == OK)  # fmt: skip
    assert set(seen) == {*ENDS, "queued", "running", "waiting", "paused"}


# ---------------------------------------------------------------- one place changed

Change = Callable[[Random, Sequence[Operation], Operation], Operation | None]


def an_older_read(chance: Random, before: Sequence[Operation], each: Operation) -> Operation | None:
    reads = [old.value for old in before if old.verb == "get" and old.outcome == OK]
    if each.verb != "get" or each.outcome != OK or len(reads) < 2 or reads[-2] == each.value:
        return None
    return each._replace(value=reads[-2]) if reads[-2]["seq"] < each.value["seq"] else None


def another_status(chance: Random, before: Sequence[Operation], each: Operation) -> Operation | None:
    if each.verb != "get" or each.outcome != OK:
        return None
    others = sorted({"waiting", "paused", *ENDS} - {each.value["status"]})
    return each._replace(value=each.value | {"status": chance.choice(others)})


def another_reception(chance: Random, before: Sequence[Operation], each: Operation) -> Operation | None:
    return each._replace(value=not each.value) if each.verb == "signal" and each.outcome == OK else None


def another_cancel(chance: Random, before: Sequence[Operation], each: Operation) -> Operation | None:
    if each.verb != "cancel" or each.outcome != OK:
        return None
    others = sorted({"cancelled", "cancelling", "already_ended"} - {each.value})
    return each._replace(value=chance.choice(others))


def another_output(chance: Random, before: Sequence[Operation], each: Operation) -> Operation | None:
    if each.verb != "result" or each.outcome != OK or not each.value["output"]:
        return None
    output = [*each.value["output"][:-1], "else"]
    return each._replace(value={"status": each.value["status"], "output": output})


def a_second_winner(chance: Random, before: Sequence[Operation], each: Operation) -> Operation | None:
    won = each.verb == "answer" and each.value == "question.answered"
    return each._replace(outcome=OK, value=None) if won else None


def a_loser_instead(chance: Random, before: Sequence[Operation], each: Operation) -> Operation | None:
    won = each.verb == "answer" and each.outcome == OK
    return each._replace(outcome=FAIL, value="question.answered") if won else None


def an_acceptance(chance: Random, before: Sequence[Operation], each: Operation) -> Operation | None:
    refused = each.verb == "signal" and each.value == "run.ended"
    return each._replace(outcome=OK, value=True) if refused else None


def a_refusal(chance: Random, before: Sequence[Operation], each: Operation) -> Operation | None:
    done = each.verb in ("pause", "resume") and each.outcome == OK
    return each._replace(outcome=FAIL, value="run.ended") if done else None


CHANGES: Final[dict[str, Change]] = {
    change.__name__: change
    for change in (
        *(an_older_read, another_status, another_reception, another_cancel, another_output),
        *(a_second_winner, a_loser_instead, an_acceptance, a_refusal),
    )
}


def changed(seed: int, change: Change) -> list[Operation] | None:
    """A history with one answer changed; nothing where there is no answer of that kind."""
    chance, operations = Random(seed), history(seed, LENGTH, overlap=10, lost=0.02)
    found = [(place, other) for place, each in enumerate(operations)
             if (other := change(chance, operations[:place], each)) is not None]  # fmt: skip
    if not found:
        return None
    place, other = chance.choice(found)
    return [*operations[:place], other, *operations[place + 1 :]]


def is_explained(operations: Sequence[Operation]) -> bool:
    known = [each for each in operations if each.outcome != UNKNOWN or each.verb not in ("get", "result", "questions")]
    try:
        linearize(RunModel(), known)
    except NotLinearizable:
        return False
    return True


@pytest.mark.parametrize("change", CHANGES)
def test_one_changed_answer_is_mostly_noticed(change: str) -> None:
    stories: list[Any] = [story for seed in range(HISTORIES) if (story := changed(seed, CHANGES[change])) is not None]
    missed = sum(is_explained(story) for story in stories)
    print(f"\n{change}: {len(stories) - missed} of {len(stories)} noticed")
    assert len(stories) >= 15
    assert missed <= 0.3 * len(stories)
