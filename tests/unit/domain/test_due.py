"""When a run is due by a clock that is set back, and right again."""

import pytest

from stepwell.domain.due import made_up
from stepwell.domain.outcome import NEVER
from stepwell.domain.run import Lifecycle

W = 10_000
"""When it was decided that the run is due 60 later."""
RUN = Lifecycle("queued", available_at=W + 60, updated_at=W, timed_at=W)


def due_after(life: Lifecycle, *looks: int) -> int:
    """When the run is due after claims that read these times."""
    for now in looks:
        life = made_up(life, now) or life
    return life.available_at


@pytest.mark.parametrize(
    ("looks", "due"),
    [
        pytest.param((W, W + 59), W + 60, id="the clock is right"),
        pytest.param((W - 7200,), W - 7140, id="set back: what was left"),
        pytest.param((W - 7200, W - 7170, W - 7141), W - 7140, id="a look does not put it off"),
        pytest.param((W - 7200, W - 9000), W - 8940, id="set back again"),
        pytest.param((W - 7200, W), W + 60, id="right again"),
        pytest.param((W - 7200, W + 5, W - 30), W + 30, id="right again, and set back by less"),
        pytest.param((W - 7200, W + 5, W - 8000), W - 7940, id="right again, and set back by more"),
        pytest.param((W - 7200, W - 100), W - 7140, id="set forward, but not to where it was"),
    ],
)
def test_a_delay_is_neither_put_off_nor_brought_forward_for_good(looks: tuple[int, ...], due: int) -> None:
    assert due_after(RUN, *looks) == due


def test_a_run_that_was_due_is_due_at_once() -> None:
    assert due_after(RUN._replace(available_at=W), W - 7200) == W - 7200


def test_one_that_is_due_by_any_time_keeps_its_place() -> None:
    assert made_up(RUN._replace(available_at=W - 9000), W - 7200) is None


def test_another_write_does_not_hide_that_the_clock_was_set_back() -> None:
    assert due_after(RUN._replace(updated_at=W - 7200, seq=5), W - 7200) == W - 7140


@pytest.mark.parametrize(
    "life",
    [
        RUN._replace(status="running"),
        RUN._replace(status="succeeded", ended_at=W),
        RUN._replace(hold="paused"),
        RUN._replace(status="waiting", available_at=NEVER),
    ],
)
@pytest.mark.parametrize("now", [W - 7200, W + 7200])
def test_what_does_not_wait_for_a_time_is_left_alone(life: Lifecycle, now: int) -> None:
    assert made_up(life, now) is None
