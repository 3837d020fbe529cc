"""Every store against injected schedules: no arrival is lost, and no lane lets in more than it has room for."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from itertools import count
from pathlib import Path
from typing import TypeAlias

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from stepwell.ports.store import Store
from stepwell.testing.conformance import Harness
from stepwell.testing.conformance.lane_schedules import play_lanes
from stepwell.testing.conformance.schedules import MOVES, Play, play
from tests.conformance.stores import maker

ARRIVALS = {"memory": 10_000, "sqlite": 120}
LANES = {"memory": 1_500, "sqlite": 30}

Player: TypeAlias = Callable[[Harness, Sequence[Store], bytes], Awaitable[None]]


def play_many(store: str, folder: Path, player: Player, *, schedules: st.SearchStrategy[bytes], times: int) -> None:
    """Have hypothesis find a schedule that the store does not stand."""
    played = 0
    harness = Harness(maker(store, folder))
    with asyncio.Runner() as runner:
        views = runner.run(harness.views())

        @settings(
            max_examples=times,
            deadline=None,
            phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        )
        @given(schedule=schedules)
        def plays(schedule: bytes) -> None:
            nonlocal played
            played += 1
            runner.run(awaited(player(harness, views, schedule)))

        plays()
        runner.run(harness.close())
    assert played >= times


async def awaited(call: Awaitable[None]) -> None:
    await call


@pytest.mark.parametrize("store", ARRIVALS)
def test_no_signal_is_lost_and_nobody_is_woken_for_nothing(store: str, tmp_path: Path) -> None:
    play_many(store, tmp_path, play, schedules=st.binary(min_size=6, max_size=16), times=ARRIVALS[store])


@pytest.mark.parametrize("store", LANES)
def test_no_lane_lets_in_more_than_it_has_room_for(store: str, tmp_path: Path) -> None:
    tenants = count(1)

    async def player(harness: Harness, views: Sequence[Store], schedule: bytes) -> None:
        await play_lanes(harness, views, f"tenant {next(tenants)}", schedule)

    play_many(store, tmp_path, player, schedules=st.binary(min_size=10, max_size=40), times=LANES[store])


async def test_an_arrival_between_opening_and_parking_is_played_out(harness: Harness) -> None:
    order = [Play.opens, Play.sends, Play.parks, Play.claims]
    await play(harness, await harness.views(), bytes(MOVES.index(move) for move in order))
