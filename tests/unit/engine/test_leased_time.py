"""What a run is charged for: the time for which it was held, and none in which its lease had run out."""

import asyncio
from typing import Any

import pytest

from stepwell.app import App
from stepwell.domain import event
from stepwell.engine.heartbeat import Heart
from stepwell.engine.leasing import Leasing
from stepwell.ports.context import Context
from stepwell.ports.store import Heartbeat
from stepwell.testing.clock import ManualClock
from tests.unit.engine.lives import Lives

LEASE = 30.0
MICROS = 1_000_000


class Confirming:
    """A store whose heartbeats all succeed."""

    def heartbeat(self, worker_id: str, *, lease_seconds: float) -> Heartbeat:
        return Heartbeat({})


@pytest.fixture
async def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def heart(clock: ManualClock) -> Heart:
    store: Any = Confirming()
    return Heart(store, "wrk_1", lease_seconds=LEASE, clock=clock, answer=lambda *told: None, broken=lambda error: None)


class TestHeart:
    async def test_leases_are_in_force_until_they_run_out(self, heart: Heart, clock: ManualClock) -> None:
        begin = heart.in_force()
        clock.advance(LEASE - 1)
        assert heart.in_force() - begin == LEASE - 1
        clock.advance(3600)
        assert heart.in_force() - begin == LEASE

    async def test_they_are_in_force_again_once_they_are_confirmed(self, heart: Heart, clock: ManualClock) -> None:
        begin = heart.in_force()
        for _ in range(3):
            clock.advance(3600)
            heart.beat()
        assert heart.in_force() - begin == 3 * LEASE
        clock.advance(10)
        assert heart.in_force() - begin == 3 * LEASE + 10

    async def test_beats_in_time_leave_no_gap(self, heart: Heart, clock: ManualClock) -> None:
        begin = heart.in_force()
        for _ in range(10):
            clock.advance(LEASE)
            heart.beat()
        assert heart.in_force() - begin == 10 * LEASE

    async def test_an_attempt_knows_whether_its_lease_ran_out(self, heart: Heart, clock: ManualClock) -> None:
        clock.advance(3600)
        heart.beat()
        leasing = Leasing(clock, heart.in_force)
        clock.advance(LEASE)
        assert (leasing.seconds, leasing.interrupted) == (LEASE, False)
        clock.advance(1)
        assert (leasing.seconds, leasing.interrupted) == (LEASE, True)

    async def test_a_wall_clock_that_jumps_changes_nothing(self, heart: Heart, clock: ManualClock) -> None:
        begin = heart.in_force()
        for jump in (7200, -14_400):
            clock.jump(jump)
            assert (heart.in_force() - begin, heart.certain()) == (0, True)


class Held:
    """A run with a time limit whose step stays until it is let go."""

    def __init__(self, clock: ManualClock) -> None:
        app = App("test")
        self.begun, self.ended = asyncio.Event(), asyncio.Event()

        async def staying() -> str:
            self.begun.set()
            await self.ended.wait()
            return "done"

        @app.agent(timeout=2 * LEASE)
        async def agent(ctx: Context) -> str:
            return await ctx.step(staying)

        self.lives = Lives(app, clock=clock, lease_seconds=LEASE)


@pytest.fixture
def held(clock: ManualClock) -> Held:
    return Held(clock)


class TestRun:
    async def test_a_stop_that_is_longer_than_the_time_limit_does_not_end_it(
        self, held: Held, clock: ManualClock
    ) -> None:
        run = await held.lives.submit()
        async with held.lives.working() as worker:
            await held.begun.wait()
            clock.advance(3600)
            worker.beat()
            held.ended.set()
            life = (await held.lives.settled(run)).life
        assert (life.status, life.leased) == ("succeeded", round(LEASE * MICROS))

    async def test_time_for_which_it_was_held_ends_it(self, held: Held, clock: ManualClock) -> None:
        run = await held.lives.submit()
        async with held.lives.working() as worker:
            await held.begun.wait()
            for _ in range(3):
                clock.advance(LEASE)
                worker.beat()
            life = (await held.lives.settled(run)).life
            held.ended.set()
        assert (life.status, life.reason) == ("timed_out", "timeout")
        assert (await held.lives.facts(run, event.RUN_TIMED_OUT)) == [{"limit": "timeout"}]
