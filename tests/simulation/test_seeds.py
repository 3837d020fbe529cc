"""Two thousand seeds, in every run of the suite: each promise is kept in each. `make simulate SEEDS=` runs more."""

from typing import Final

import pytest

from tests.simulation.__main__ import told
from tests.simulation.plans import draw
from tests.simulation.world import simulate

SEEDS: Final = 2000
CHUNK: Final = 50


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_all_promises_are_kept_in_these_seeds(first: int) -> None:
    for seed in range(first, first + CHUNK):
        result = simulate(draw(seed))
        assert result.failure is None, told(result)


def test_seeds_hold_work_and_faults() -> None:
    results = [simulate(draw(seed)) for seed in range(60)]
    assert sum(result.faults for result in results) > 100
    assert sum(result.runs for result in results) > 150
    kinds = {item.kind for result in results for item in result.plan.items}
    assert kinds >= {
        "start",
        "signal",
        "cancel",
        "pause",
        "resume",
        "answer",
        "crash",
        "stop",
        "stall",
        "jump",
        "drain",
        "dip",
        "cross",
        "strand",
        "retry",
    }
