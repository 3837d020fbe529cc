"""The simulation can fail: each of these bugs is found within two hundred seeds, and made small."""

from typing import Final

import pytest

from tests.simulation.__main__ import told
from tests.simulation.bugs import PLANTED
from tests.simulation.plans import draw
from tests.simulation.shrinking import shrink
from tests.simulation.world import Result, simulate

WITHIN: Final = 200


def first_failure() -> Result | None:
    """The first seed that breaks a promise."""
    results = (simulate(draw(seed)) for seed in range(WITHIN))
    return next((result for result in results if result.failure is not None), None)


@pytest.mark.parametrize("name", PLANTED)
def test_the_simulation_finds_the_bug(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    PLANTED[name](monkeypatch)
    found = first_failure()
    assert found is not None
    assert found.failure is not None
    assert simulate(found.plan).digest == found.digest
    print(f"{name}: found at seed {found.plan.seed} as {found.failure.promise}: {found.failure.text}")


def test_a_failure_is_made_small_and_told_step_by_step(monkeypatch: pytest.MonkeyPatch) -> None:
    PLANTED["duplicate on an ambiguous commit"](monkeypatch)
    found = first_failure()
    assert found is not None
    small = shrink(found)
    assert small.failure is not None
    assert small.failure.promise == "P2"
    assert len(small.plan.items) < len(found.plan.items) or small.plan.workers < found.plan.workers
    assert any(item.kind == "store" and "twice" in item.args for item in small.plan.items)
    story = told(found).splitlines()
    assert story[0].startswith(f"seed {found.plan.seed} breaks P2: ")
    assert story[1] == f"again with: make simulate REPLAY={found.plan.seed}"
    assert any("FAULT: twice" in line for line in story)
    assert "was accepted twice" in story[-1]
