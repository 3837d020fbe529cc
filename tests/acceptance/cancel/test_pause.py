"""A pause at any instant, of runs that other processes execute: it completes nothing but the step in flight, nothing
goes on while it lasts, and everything does afterwards.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path

import pytest

from stepwell import Run, RunEnded, Runtime
from tests.acceptance.audit import audit
from tests.acceptance.cancel.program import app, busy, sprint
from tests.acceptance.fleet import Fleet, all_of

PROGRAM = Path(__file__).parent / "program.py"
RUNS, ROUNDS, FACTS = 60, 3, 30


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with Fleet(PROGRAM, tmp_path) as fleet:
        yield fleet


@pytest.fixture
async def runtime(fleet: Fleet) -> AsyncIterator[Runtime]:
    async with Runtime(app, store=fleet.store, worker=False) as runtime:
        yield runtime


async def paused(runtime: Runtime, number: int) -> Run[int]:
    """A run that was paused after so many facts, once that has taken effect, or it has ended before."""
    run = await runtime.start(busy, ROUNDS)
    while not run.ended and run.seq < 1 + number % FACTS:
        await asyncio.sleep(0.001)
        run = await run.refresh()
    try:
        await run.pause()
    except RunEnded:
        return await run.refresh()
    async with asyncio.timeout(20):
        while not (run := await run.refresh()).ended and run.status != "paused":
            await asyncio.sleep(0.002)
    return run


async def test_what_is_paused_stands_still_and_goes_on_when_it_is_resumed(fleet: Fleet, runtime: Runtime) -> None:
    fleet.start_many(2)
    runs = await all_of([partial(paused, runtime, number) for number in range(RUNS)], at_once=12)
    held = [run for run in runs if run.status == "paused"]
    children = [child for run in held for child in await run.children() if not child.ended]
    async with asyncio.timeout(20):
        while {child.status for child in children} - {"paused", "succeeded"}:
            await asyncio.sleep(0.002)
            children = [await child.refresh() for child in children]
    before = [(run.id, run.seq) for run in await all_of([run.refresh for run in held + children])]
    for number in range(4):  # the workers have nothing else to do meanwhile
        assert (await runtime.run(sprint, number, timeout=30)).ok
    assert [(run.id, run.seq) for run in await all_of([run.refresh for run in held + children])] == before
    print(
        f"pause: {len(held)} of {RUNS} were paused, and {sum(child.status == 'paused' for child in children)} children"
    )
    assert len(held) > RUNS // 2
    await all_of([run.resume for run in held])
    results = await all_of([partial(run.result, timeout=30) for run in runs])
    assert [result.output for result in results] == [ROUNDS] * RUNS
    facts = audit(fleet.database)
    assert facts.faults == []
    assert set(facts.by_status) == {"succeeded"}
    told = Counter(kind for (kind,) in fleet.query("select kind from journal"))
    assert told["run.held"] == told["run.released"] >= len(held)
    assert told["run.lost"] == 0
