"""Retry policies and the durations they are written in."""

import math
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepwell.domain.errors import Fail, InvalidDefinition, Seconds
from stepwell.domain.retry import Retry, micros, seconds

fractions = st.floats(0, 1, exclude_max=True)


class TestDurations:
    @pytest.mark.parametrize(
        ("duration", "expected"),
        [(0, 0.0), (30, 30.0), (0.25, 0.25), (timedelta(minutes=5), 300.0), (timedelta(0), 0.0)],
    )
    def test_a_duration_is_seconds_or_a_timedelta(self, duration: Seconds, expected: float) -> None:
        assert seconds(duration) == expected
        assert micros(duration) == expected * 1_000_000

    @pytest.mark.parametrize("duration", [-1, -0.001, math.nan, math.inf, -math.inf, 1e10, timedelta(seconds=-1)])
    def test_a_duration_is_finite_and_not_negative(self, duration: Seconds) -> None:
        with pytest.raises(InvalidDefinition) as refused:
            seconds(duration, what="Retry(max_delay=)")
        assert refused.value.code == "definition.duration"
        assert "Retry(max_delay=)" in str(refused.value)

    @pytest.mark.parametrize("duration", ["30", None, True, [1], b"1"])
    def test_nothing_else_is_a_duration(self, duration: object) -> None:
        with pytest.raises(InvalidDefinition, match="neither seconds nor a timedelta"):
            seconds(duration)  # type: ignore[arg-type]

    def test_a_microsecond_is_not_lost(self) -> None:
        assert micros(timedelta(microseconds=1)) == 1
        assert micros(0.000_001) == 1


class TestDelay:
    def test_the_ceiling_doubles_up_to_the_largest_delay(self) -> None:
        retry = Retry(first_delay=1, max_delay=60)
        almost_one = math.nextafter(1, 0)
        ceilings = [retry.delay(failures, almost_one) for failures in range(1, 10)]
        assert ceilings == pytest.approx([1, 2, 4, 8, 16, 32, 60, 60, 60])

    def test_the_jitter_reaches_down_to_no_delay_at_all(self) -> None:
        assert Retry().delay(5, 0.0) == 0

    def test_half_the_jitter_is_half_the_ceiling(self) -> None:
        assert Retry(first_delay=timedelta(seconds=4)).delay(2, 0.5) == 4

    @given(st.integers(1, 10_000), fractions, st.floats(0, 1e6), st.floats(0, 1e6))
    def test_a_delay_never_passes_the_largest_one(
        self, failures: int, fraction: float, first_delay: float, max_delay: float
    ) -> None:
        delay = Retry(first_delay=first_delay, max_delay=max_delay).delay(failures, fraction)
        assert 0 <= delay <= max_delay


class TestCovers:
    def test_every_ordinary_exception_is_tried_again_by_default(self) -> None:
        assert Retry().covers(ValueError("x"))
        assert not Retry().covers(KeyboardInterrupt())

    def test_only_the_named_types_are_tried_again(self) -> None:
        retry = Retry(on=(OSError,), never_on=(FileNotFoundError,))
        assert retry.covers(ConnectionError())
        assert not retry.covers(FileNotFoundError())
        assert not retry.covers(ValueError())

    def test_a_fail_decides_by_itself(self) -> None:
        assert Retry(on=(OSError,)).covers(Fail("busy", retryable=True))
        assert not Retry().covers(Fail("no"))


class TestChecks:
    @pytest.mark.parametrize("max_attempts", [0, -1, 1.5, True, "3", None])
    def test_attempts_are_a_whole_number_of_at_least_one(self, max_attempts: object) -> None:
        with pytest.raises(InvalidDefinition) as refused:
            Retry(max_attempts=max_attempts)  # type: ignore[arg-type]
        assert refused.value.code == "definition.retry"
        assert refused.value.hint

    def test_delays_are_checked_where_they_are_written(self) -> None:
        with pytest.raises(InvalidDefinition, match=r"Retry\(first_delay=\)"):
            Retry(first_delay=-1)
        with pytest.raises(InvalidDefinition, match=r"Retry\(max_delay=\)"):
            Retry(max_delay=math.inf)

    def test_the_defaults_are_three_attempts_from_a_second_to_a_minute(self) -> None:
        retry = Retry()
        assert (retry.max_attempts, retry.first_delay, retry.max_delay) == (3, 1, 60)
