"""What the times in a journal tell about a clock that was set back."""

import pytest

from stepwell.domain.event import Entry
from stepwell.engine.times import Times


@pytest.mark.parametrize(
    ("times", "begun"),
    [
        pytest.param([], 100, id="nothing was written since"),
        pytest.param([100, 130, 150], 100, id="the clock was right"),
        pytest.param([101, 20, 40], 20, id="set back"),
        pytest.param([20, 40, 10, 30], 10, id="set back twice"),
        pytest.param([20, 105], 100, id="right again"),
        pytest.param([20, 100], 100, id="right again, to the very time"),
        pytest.param([20, 105, 60, 70], 60, id="right again, and set back by less"),
        pytest.param([60, 105, 20], 20, id="right again, and set back by more"),
    ],
)
def test_a_length_counts_from_the_earliest_time_since_the_journal_last_bore_its_own(
    times: list[int], begun: int
) -> None:
    entries = [Entry(seq, at, "custom.x", None, None, "{}") for seq, at in enumerate([500, 30, 100, *times], 1)]
    assert Times(entries).begun_at(3, 100) == begun
