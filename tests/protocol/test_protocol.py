"""Every state of small worlds: what the transitions promise holds in each, and from each an end can be reached.

`make protocol` looks at millions of states, the suite at some hundred thousand.
"""

import os

import pytest

from stepwell.domain.run import STATUSES
from tests.protocol.core import Bounds
from tests.protocol.explorer import explore
from tests.protocol.worlds import LARGE, SMALL, Family, OneRun, lowered

WORLDS = LARGE if int(os.environ.get("STORM_SCALE", "1")) > 1 else SMALL
TINY = Bounds(errors=1, lost=1, zombies=0, waits="sq", kept=1, limits=True, holds=True, hooks=(True,))
HAPPENS = {
    "a claim",
    "a claim: the lease ran out",
    "a claim: its worker is dead",
    "the worker dies",
    "its time comes",
    "the round ends it: timeout",
    "the round ends it: deadline",
    "a signal arrives",
    "a signal arrives early",
    "ann answers",
    "ann cancels the run",
    "ann pauses the run",
    "ann resumes the run",
    "ann resumes the run (rerun)",
    "ann resumes the run (done)",
    "ann discards the run",
    *(
        f"the lease holder writes{again}: {what}"
        for again in ("", " again")
        for what in (
            *("step 1", "note", "return", "fail", "give up", "cancelled", "over time", "exhaust"),
            *("hand back", "retry now", "retry later", "pause", "diverge", "doubt"),
            *("sleep", "park", "open s", "open q", "open s and park", "open q and park", "give up waiting"),
        )
    ),
    "a zombie writes: step 1 (refused)",
    "a zombie writes: park (refused)",
}


@pytest.mark.storm
@pytest.mark.parametrize("name", WORLDS)
def test_no_state_of_the_world_breaks_a_promise(name: str) -> None:
    world = WORLDS[name]
    report = world.explore()
    print(f"{name}: {report.states:,} states, {report.edges:,} edges, depth {report.depth}, {report.seconds:.1f} s")
    assert report.states >= world.at_least


def test_all_that_may_happen_to_a_run_happens() -> None:
    world = OneRun(TINY)
    with lowered(TINY):
        explore(world)
    assert set(world.runs.labels) >= HAPPENS
    assert {core.life.shown for core in world.runs.cores} == set(STATUSES)
    assert {core.life.dead for core in world.runs.cores} == {0, 1}


def test_all_that_may_happen_between_relatives_happens() -> None:
    bounds = Bounds(errors=0, lost=1, zombies=0, waits="c", child=True, pauses=False, hooks=(False,))
    world = Family(bounds, bounds._replace(waits="", child=False))
    with lowered(bounds):
        explore(world)
    told = set(world.parent.runs.labels)
    assert told >= {f"the lease holder writes: {what}" for what in ("make a child", "call a child", "open c and park")}
    assert "the parent learns it" in told
    assert "its parent has ended" in world.child.runs.labels


def test_the_same_world_has_the_same_states_each_time() -> None:
    bounds = Bounds(errors=0, lost=1, zombies=1, pauses=False)
    with lowered(bounds):
        first, second = (explore(OneRun(bounds))._replace(seconds=0) for _ in range(2))
    assert first == second
