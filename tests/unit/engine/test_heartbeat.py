"""The heartbeat: from its own thread, in time, and honest about what it does not know."""

import asyncio
import threading
from collections.abc import Callable

import pytest

from stepwell.domain.errors import StoreUnavailable, StoreUnusable
from stepwell.engine.heartbeat import Heart
from stepwell.ports.store import Heartbeat
from stepwell.stores.memory.store import MemoryStore
from stepwell.testing.clock import ManualClock
from tests.unit.engine.lives import PATIENCE

LEASE = 3 / 32  # its third is exact, in binary digits and in microseconds
"""Real seconds; the thread looks at its clock fifteen times in a lease."""


class Beating:
    """A heart over a store that counts, with a clock moved by hand."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.replies: list[float] = []
        self.threads: set[str] = set()
        self.asked = 0
        self.takes = 0.0
        self.error: Exception | None = None
        self.certain_at_reply: list[bool] = []
        self.broken: list[StoreUnusable] = []
        self.looked = threading.Semaphore(0)
        self.heart = Heart(
            self,  # type: ignore[arg-type]
            "wrk_1",
            lease_seconds=LEASE,
            clock=self,  # type: ignore[arg-type]
            answer=self._answer,
            broken=self.broken.append,
        )

    def now(self) -> int:
        return self.clock.now()

    def elapsed(self) -> float:
        if threading.current_thread().name == "stepwell-heartbeat":
            self.looked.release()
        return self.clock.elapsed()

    def heartbeat(self, worker_id: str, *, lease_seconds: float) -> Heartbeat:
        self.asked += 1
        self.clock.advance(self.takes)
        self.threads.add(threading.current_thread().name)
        if self.error is not None:
            raise self.error
        return Heartbeat({})

    def _answer(self, reply: Heartbeat, asked_at: float) -> None:
        self.certain_at_reply.append(self.heart.certain())
        self.replies.append(asked_at)
        self.threads.add(threading.current_thread().name)

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not condition():
                await asyncio.sleep(0.001)

    def looks(self, count: int) -> None:
        """Block the event loop until the thread has looked at the clock so often."""
        for _ in range(count):
            assert self.looked.acquire(timeout=PATIENCE)


async def test_it_asks_from_a_thread_of_its_own_and_answers_on_the_loop() -> None:
    beating = Beating()
    beating.heart.start()
    beating.clock.advance(LEASE / 3)
    await beating.until(lambda: beating.replies)
    await beating.heart.stop()
    assert beating.threads == {"stepwell-heartbeat", threading.current_thread().name}


async def test_it_beats_three_times_in_a_lease_and_not_more_often() -> None:
    beating = Beating()
    beating.heart.start()
    for beat in range(1, 7):
        beating.clock.advance(LEASE / 3)
        await beating.until(lambda: len(beating.replies) == beat)  # noqa: B023 - awaited within its own turn
        await beating.until(lambda: beating.looked.acquire(blocking=False))
    await beating.heart.stop()
    assert beating.asked == 6


async def test_its_leases_are_certain_for_four_fifths_of_their_time() -> None:
    beating = Beating()
    beating.heart.start()
    beating.clock.advance(0.79 * LEASE)
    assert beating.heart.certain()
    beating.clock.advance(0.02 * LEASE)
    assert not beating.heart.certain()
    await beating.until(lambda: beating.heart.certain())
    await beating.heart.stop()


async def test_what_is_lost_is_told_before_the_others_are_certain_again() -> None:
    beating = Beating()
    beating.heart.start()
    beating.clock.advance(0.9 * LEASE)
    await beating.until(lambda: beating.replies)
    await beating.heart.stop()
    assert beating.certain_at_reply[0] is False


async def test_an_answer_confirms_from_the_moment_of_its_question() -> None:
    beating = Beating()
    beating.takes = 0.81 * LEASE
    beating.heart.start()
    beating.clock.advance(LEASE / 3)
    await beating.until(lambda: beating.replies)
    await beating.heart.stop()
    assert beating.replies[0] == pytest.approx(LEASE / 3)
    assert not beating.heart.certain(), "the leases may have been extended right at the beginning"


@pytest.mark.parametrize("error", [StoreUnavailable("away"), RuntimeError("odd")])
async def test_a_beat_that_fails_is_repeated_and_confirms_nothing(error: Exception) -> None:
    beating = Beating()
    beating.error = error
    beating.heart.start()
    for beat in range(1, 4):
        beating.clock.advance(LEASE / 3)
        await beating.until(lambda: beating.asked == beat)  # noqa: B023 - awaited within its own turn
    assert not beating.heart.certain()
    beating.error = None
    beating.clock.advance(LEASE / 3)
    await beating.until(beating.heart.certain)
    await beating.heart.stop()


async def test_a_store_that_is_unusable_is_told_once_and_asked_no_more() -> None:
    beating = Beating()
    beating.error = error = StoreUnusable("the disk failed")
    beating.heart.start()
    beating.clock.advance(LEASE / 3)
    await beating.until(lambda: beating.broken)
    await beating.until(lambda: "stepwell-heartbeat" not in {thread.name for thread in threading.enumerate()})
    beating.clock.advance(10 * LEASE)
    await beating.heart.stop()
    assert beating.broken == [error]
    assert beating.asked == 1


async def test_a_loop_that_does_not_turn_is_not_vouched_for() -> None:
    beating = Beating()
    beating.heart.start()
    beating.clock.advance(LEASE / 3)
    await beating.until(lambda: beating.replies)
    asked = beating.asked
    for _ in range(6):
        beating.clock.advance(LEASE / 3)
        beating.looks(8)  # the loop stands still meanwhile
    while_still = beating.asked
    assert while_still <= asked + 2, "leases were extended for a loop that stood still"
    await beating.until(lambda: beating.asked > while_still)
    await beating.heart.stop()


async def test_stopping_ends_the_thread_and_twice_is_fine() -> None:
    beating = Beating()
    beating.heart.start()
    await beating.heart.stop()
    await beating.heart.stop()
    assert "stepwell-heartbeat" not in {thread.name for thread in threading.enumerate()}


def test_a_loop_that_was_closed_ends_the_thread() -> None:
    async def begin() -> None:
        Heart(
            MemoryStore(),
            "wrk_1",
            lease_seconds=LEASE,
            clock=ManualClock(),
            answer=lambda reply, asked_at: None,
            broken=lambda error: None,
        ).start()

    asyncio.run(begin())
    for thread in threading.enumerate():
        if thread.name == "stepwell-heartbeat":
            thread.join(PATIENCE)
            assert not thread.is_alive()
