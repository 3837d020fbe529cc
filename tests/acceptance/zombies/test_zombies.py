"""Workers that are stopped in the middle and go on when others have taken over: they learn it, stop, and have changed
nothing.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from tests.acceptance.zombies.program import LEASE, STAYING, STOPPING
from tests.acceptance.zombies.victims import PAUSE, Evidence, Victim

SCALE = int(os.environ.get("STORM_SCALE", "1"))
CAPACITIES = (1, 2, 4, 6)
ROUNDS = 5 * SCALE


def places_of(capacity: int, round: int) -> list[str]:
    """Where the runs of one fall are: one of them stops the process, every third time somebody outside does."""
    staying = [STAYING[(round * 2 + n) % len(STAYING)] for n in range(capacity)]
    if round % 3 < 2:
        staying[0] = STOPPING[(round + capacity) % len(STOPPING)]
    return staying


async def suffer(folder: Path, capacity: int) -> Evidence:
    """One process falls again and again, and works on in the end."""
    async with Victim(folder, capacity) as victim:
        for round in range(ROUNDS):
            await victim.fall(str(round), places_of(capacity, round), slow=round % 2 == 1)
        assert await victim.work(capacity) == {victim.process.pid}, "the process goes on with other runs"
        return victim.conclude()


@pytest.mark.storm
async def test_workers_that_were_stopped_in_the_middle_change_nothing_when_they_go_on(tmp_path: Path) -> None:
    found = await asyncio.gather(*(suffer(tmp_path / str(n), n) for n in CAPACITIES))
    stops, zombies = [stop for one in found for stop in one.stops], sum(one.zombies for one in found)
    shortest = min(stop.until - stop.since for stop in stops)
    print(f"zombies: {zombies} runs lost in {len(stops)} stops of {shortest / LEASE:.2f} leases at least")
    assert [one.faults for one in found] == [[]] * len(CAPACITIES)
    assert len(stops) >= 20
    assert zombies >= 50
    assert shortest >= PAUSE


async def test_a_worker_without_its_self_stop_is_found(tmp_path: Path) -> None:
    async with Victim(tmp_path / "one", 1, "no self-stop") as victim:
        await victim.fall("0", ["stop before"], slow=True)
        assert [line.step for line in victim.conclude().late] == ["second"]


async def test_a_worker_without_a_fence_is_found(tmp_path: Path) -> None:
    async with Victim(tmp_path / "one", 2, "no fence") as victim:
        await victim.fall("0", ["stop after try", "stream"], slow=True)
        await victim.until(lambda: bool(victim.conclude().accepted), "a write of the process is accepted")


async def test_time_in_which_a_process_was_stopped_is_not_the_runs_time_also_when_nobody_took_over(
    tmp_path: Path,
) -> None:
    async def rest(name: str, place: str, *bugs: str) -> str:
        async with Victim(tmp_path / name, 1, *bugs) as victim:
            return await victim.rest(place, leases=5)

    sound = [rest(place, place) for place in ("step", "before")]
    planted = rest("planted", "step", "stopped time")
    assert await asyncio.gather(*sound, planted) == ["succeeded", "succeeded", "timed_out"]
