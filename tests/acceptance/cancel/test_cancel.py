"""A cancel at every status and instant, of runs that other processes execute: who waits for the run learns it within a
second, there is exactly one end, children end, and the worker keeps nothing of it.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from stepwell import Agent, Run, Runtime
from tests.acceptance.audit import audit
from tests.acceptance.cancel.program import (
    CAPACITY,
    HOUR,
    app,
    busy,
    chatty,
    elsewhere,
    hooked,
    single,
    sprint,
    subject,
    together,
    unserved,
)
from tests.acceptance.fleet import Fleet, all_of

PROGRAM = Path(__file__).parent / "program.py"
RUNS = 5
WAKES_WITHIN = 1.0
RACES = 240


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with Fleet(PROGRAM, tmp_path) as fleet:
        yield fleet


@pytest.fixture
async def runtime(fleet: Fleet) -> AsyncIterator[Runtime]:
    async with Runtime(app, elsewhere, store=fleet.store, worker=False) as runtime:
        yield runtime


@dataclass
class Place:
    """Where runs are when they are cancelled: the status to wait for, how many of their files, and the answer."""

    agent: Agent[str, Any]
    how: str
    status: str = "running"
    there: int = 1
    answer: str = "cancelling"
    attempt: int = 1
    options: dict[str, Any] = field(default_factory=dict)

    async def reach(self, fleet: Fleet, runtime: Runtime) -> Run[Any]:
        """A run that has come there."""
        run = await runtime.start(self.agent, self.how, **self.options)
        await at(run, "waiting" if self.how in ("a divergence", "a pause") else self.status, self.attempt)
        if self.how == "a divergence":
            await run.signal("go")
        if self.how == "a pause":
            await run.pause()
        await at(run, self.status, self.attempt)
        await family_is_there(fleet, run, self.there)
        return run


WAITING = partial(Place, subject, status="waiting", there=0, answer="cancelled")
HELD = partial(Place, subject, there=0, answer="cancelled")
PLACES = {
    "queued where nobody serves it": Place(unserved, "a step", "queued", 0, "cancelled", 0),
    "queued for later": Place(subject, "a step", "queued", 0, "cancelled", 0, {"delay": HOUR}),
    "backing off": Place(subject, "a failed attempt", "queued", 0, "cancelled"),
    "in a step": Place(subject, "a step"),
    "in a step in a thread": Place(subject, "a step in a thread"),
    "in its own code": Place(subject, "its own code"),
    "in a wait beside a step": Place(subject, "a wait beside a step"),
    "parked on a question": WAITING("a question"),
    "parked on a sleep": WAITING("a sleep"),
    "parked on a signal": WAITING("a signal"),
    "parked on several": WAITING("several waits"),
    "parked on children and theirs": WAITING("children", there=2),
    "paused": HELD("a pause", status="paused"),
    "in doubt": HELD("a doubt", status="in_doubt"),
    "diverged": HELD("a divergence", status="diverged"),
    "parked, with a clean-up": Place(hooked, "a signal", "waiting", 0),
    "in a step, with a clean-up": Place(hooked, "a step"),
}


async def at(run: Run[Any], status: str, attempt: int) -> None:
    """Return when the run has that status in that attempt."""
    async with asyncio.timeout(30):
        while (run.status, run.attempt) != (status, attempt):
            await asyncio.sleep(0.002)
            run = await run.refresh()


async def family_is_there(fleet: Fleet, run: Run[Any], count: int) -> None:
    """Return when so many of the run and its descendants have come to where they stay."""
    async with asyncio.timeout(30):
        while len(there(fleet, await family(run))) < count:
            await asyncio.sleep(0.002)


async def family(run: Run[Any]) -> list[Run[Any]]:
    found = [run]
    for child in await run.children():
        found += await family(child)
    return found


def there(fleet: Fleet, runs: Sequence[Run[Any]]) -> list[str]:
    return [run.id for run in runs if (fleet.folder / f"{run.id}.there").exists()]


async def cancelled(run: Run[Any]) -> tuple[str, float]:
    """What a cancel answers, and the seconds until somebody who waits for the run's end knows it."""
    waiter = asyncio.create_task(run.result())
    await asyncio.sleep(0)
    began = time.perf_counter()
    answer = await run.cancel(reason="enough", by="test")
    await asyncio.wait_for(waiter, 30)
    return answer, time.perf_counter() - began


async def census(runtime: Runtime) -> tuple[int, int]:
    """The most tasks and threads that the worker has while each of its slots executes a run."""
    runs = await all_of([partial(runtime.start, together, number) for number in range(CAPACITY)])
    results = await asyncio.gather(*[run.result(timeout=30) for run in runs])
    tasks, threads = zip(*[result.output for result in results], strict=True)
    return max(tasks), max(threads)


async def until_as_before(runtime: Runtime, before: tuple[int, int]) -> None:
    """Return when the worker has no more tasks and threads than before: what was left behind would stay."""
    deadline = time.monotonic() + 15
    while (found := await census(runtime)) > before or found[1] > before[1]:
        assert time.monotonic() < deadline, f"{found} tasks and threads, {before} before"


async def test_a_cancel_anywhere_is_known_at_once_and_leaves_nothing(fleet: Fleet, runtime: Runtime) -> None:
    fleet.start()
    warm = [await PLACES["in a step in a thread"].reach(fleet, runtime) for _ in range(CAPACITY)]
    await all_of([partial(cancelled, run) for run in warm])
    before = await census(runtime)
    worst: dict[str, float] = {}
    for name, place in PLACES.items():
        reach = partial(place.reach, fleet, runtime)
        runs = await all_of([reach] * min(RUNS, CAPACITY // max(1, place.there)))
        families = [await family(run) for run in runs]
        assert all(len(each) == (5 if place.how == "children" else 1) for each in families)
        answers = await all_of([partial(cancelled, run) for run in runs])
        worst[name] = max(seconds for _, seconds in answers)
        assert {answer for answer, _ in answers} == {place.answer}, name
        for member in [member for each in families for member in each]:
            result = await member.result(timeout=10)
            assert result.status == "cancelled", name
            assert await member.cancel() == "already_ended"
            cleaned = (fleet.folder / f"{member.id}.clean").exists()
            assert cleaned == (place.agent is hooked), name
    print(f"cancel: {len(PLACES)} places, n = up to {RUNS} each; until the waiter knows, p100 of each:")
    print("\n".join(f"  {name}: {seconds * 1000:.0f} ms" for name, seconds in worst.items()))
    assert max(worst.values()) < WAKES_WITHIN, worst
    await until_as_before(runtime, before)
    facts = audit(fleet.database)
    assert facts.faults == []
    assert set(facts.by_status) == {"cancelled", "succeeded"}
    assert fleet.number("select count(*) from wait where outcome is null") == 0, "no wait outlives its run"
    assert fleet.number("select count(*) from ticket") == 0


async def test_a_cancel_reaches_a_run_that_stands_in_line_and_its_place_goes_to_the_next(
    fleet: Fleet, runtime: Runtime
) -> None:
    fleet.start()
    holder = await Place(single, "a step").reach(fleet, runtime)
    in_line = [await runtime.start(single, "a step") for _ in range(RUNS)]
    assert fleet.number("select count(*) from run where blocked = 1") == RUNS
    *gone, _, last = in_line
    assert await all_of([run.cancel for run in gone]) == ["cancelled"] * len(gone)
    answer, seconds = await cancelled(holder)
    assert (answer, seconds < WAKES_WITHIN) == ("cancelling", True)
    await family_is_there(fleet, in_line[-2], 1)
    assert await last.cancel() == "cancelled"
    assert (await cancelled(in_line[-2]))[0] == "cancelling"
    assert fleet.number("select count(*) from ticket") == 0
    assert audit(fleet.database).faults == []


async def test_a_cancel_reaches_runs_whose_worker_was_killed(fleet: Fleet, runtime: Runtime) -> None:
    worker = fleet.start()
    place = PLACES["parked on children and theirs"]
    runs = [await place.reach(fleet, runtime) for _ in range(2)]
    families = [member for run in runs for member in await family(run)]
    fleet.kill(worker)
    answers = await all_of([partial(cancelled, run) for run in runs])
    assert {answer for answer, _ in answers} == {"cancelled"}, "they were parked, and need nobody"
    assert max(seconds for _, seconds in answers) < WAKES_WITHIN
    fleet.start()
    began = time.perf_counter()
    for member in families:
        assert (await member.result(timeout=10)).status == "cancelled", (
            "whoever looks next finds the dead worker's runs"
        )
    assert time.perf_counter() - began < WAKES_WITHIN
    assert audit(fleet.database).faults == []


@pytest.mark.parametrize(
    ("agent", "size", "upto"), [(sprint, 6, 9), (chatty, 12, 15), (busy, 4, 40)], ids=["sprint", "chatty", "busy"]
)
async def test_a_cancel_that_races_with_the_end_has_one_winner(
    fleet: Fleet, runtime: Runtime, agent: Agent[int, int], size: int, upto: int
) -> None:
    fleet.start_many(2)

    async def race(number: int) -> tuple[str, str, float]:
        run = await runtime.start(agent, size)
        moment = 1 + number % upto
        while not run.ended and run.seq < moment:
            await asyncio.sleep(0.001)
            run = await run.refresh()
        answers, second = await asyncio.gather(cancelled(run), run.cancel(by="somebody else"))
        run = await run.refresh()
        assert run.status == "cancelled" or "cancelled" not in (answers[0], second)
        assert (fleet.folder / f"{run.id}.clean").exists() == (run.status == "cancelled" and run.attempt > 0)
        return answers[0], run.status, answers[1]

    races = await all_of([partial(race, number) for number in range(RACES)], at_once=12)
    found = Counter((answer, status) for answer, status, _ in races)
    slowest = max(seconds for _, _, seconds in races)
    print(f"races with {agent.name}: {dict(found)}; until the waiter knows, p100 {slowest * 1000:.0f} ms")
    assert slowest < WAKES_WITHIN
    assert found.keys() <= {
        ("cancelled", "cancelled"),
        ("cancelling", "cancelled"),
        ("cancelling", "succeeded"),
        ("already_ended", "succeeded"),
        ("already_ended", "cancelled"),
    }
    won = Counter(status for _, status, _ in races)
    assert min(won["cancelled"], won["succeeded"]) >= 10, "both sides win some"
    fleet.until(lambda: fleet.number("select count(*) from run where ended_at is null") == 0, 10, "children have ended")
    facts = audit(fleet.database)
    assert facts.faults == []
    assert set(facts.by_status) == {"cancelled", "succeeded"}
    assert fleet.number("select sum(attempt > 1 or errors > 0) from run") == 0
    await until_all_slots_are_free(runtime)


async def until_all_slots_are_free(runtime: Runtime) -> None:
    """Return when no worker says that it executes anything."""
    async with asyncio.timeout(10):
        while any(worker.running for worker in await runtime.workers.list()):
            await asyncio.sleep(0.01)
