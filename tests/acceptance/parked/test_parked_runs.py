"""Runs that wait are rows and nothing else: ten thousand of them cost their worker no memory, survive its death, and go
on when what they wait for has come. Nothing else wakes them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from stepwell import App, Context, Run, Runtime
from tests.acceptance.audit import audit
from tests.acceptance.fleet import Fleet, all_of, resident

PROGRAM = Path(__file__).parent / "program.py"
RUNS = 10_000
WARM = 300
GROWTH = 20 * 1024 * 1024
WAYS = ("ask", "sleep", "wait")
app = App("parked")


@app.agent
async def parked(ctx: Context, how: str) -> str:
    raise AssertionError("this process only submits")


@app.agent
async def patient(ctx: Context, steps: int) -> list[int]:
    raise AssertionError("this process only submits")


@app.agent
async def quick(ctx: Context, number: int) -> int:
    raise AssertionError("this process only submits")


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with Fleet(PROGRAM, tmp_path) as fleet:
        yield fleet


async def park(fleet: Fleet, runtime: Runtime, count: int, *, among: int) -> list[Run[str]]:
    """Start runs that wait, a third of them in each way, and return when all `among` runs do."""
    starts = [partial(runtime.start, parked, WAYS[number % 3]) for number in range(count)]
    runs = await all_of(starts)
    waiting = "select count(*) from run where status = 'waiting'"
    fleet.until(lambda: fleet.number(waiting) == among, 120, f"{among} runs wait")
    return runs


async def give(runtime: Runtime, runs: list[Run[str]]) -> None:
    """What the runs wait for, to those that do not wait for time."""
    askers = {run.id for run in runs[::3]}
    questions = [each for each in await runtime.questions.list(limit=1_000_000) if each.run_id in askers]
    assert len(questions) == len(askers)
    answers = [partial(each.answer, f"answer to {each.run_id}") for each in questions]
    signals = [partial(run.signal, "go", f"signal to {run.id}") for run in runs[2::3]]
    await all_of(answers)
    await all_of(signals)


async def test_parked_runs_cost_no_memory_and_go_on_after_a_restart(fleet: Fleet) -> None:
    async with Runtime(app, store=fleet.store, worker=False) as runtime:
        worker = fleet.start("-")
        warm = await park(fleet, runtime, WARM, among=WARM)
        before = resident(worker.pid)
        runs = await park(fleet, runtime, RUNS, among=RUNS + WARM)
        growth = resident(worker.pid) - before
        print(f"parked: {RUNS} runs, the worker grew by {growth / 1024 / 1024:.1f} MB")
        assert growth < GROWTH

        everybody = warm + runs
        half = len(everybody) // 6 * 3
        fleet.kill(worker)
        await give(runtime, everybody[:half])
        assert fleet.number("select count(*) from run where status = 'waiting'") == len(everybody), "nobody executes"
        fleet.start("-", "tomorrow")
        await give(runtime, everybody[half:])
        fleet.until_ended(len(everybody), 120)

        expected = {"ask": "answer to {}", "sleep": "rested", "wait": "signal to {}"}
        results = await all_of([run.result for run in everybody])
        for number, (run, result) in enumerate(zip(everybody, results, strict=True)):
            assert result.output == expected[WAYS[number % 3]].format(run.id)
    facts = audit(fleet.database)
    assert facts.faults == []
    assert facts.by_status == {"succeeded": len(everybody)}
    parkings = Counter(
        count
        for (count,) in fleet.query(
            "select count(*) from journal where kind in ('run.waiting', 'run.resumed') group by run"
        )
    )
    assert parkings == {2: len(everybody)}, "each parked once and was woken once"
    assert fleet.number("select max(attempt) from run") == 1, "a worker that dies with parked runs loses none"


async def test_signals_that_nobody_waits_for_do_not_replay_a_thousand_steps(fleet: Fleet) -> None:
    log = fleet.folder / "log"
    async with Runtime(app, store=fleet.store, worker=False) as runtime:
        fleet.start(str(log))
        run = await runtime.start(patient, 1000)
        waiting = "select count(*) from run where id = ? and status = 'waiting'"
        fleet.until(lambda: fleet.number(waiting, run.id) == 1, 60, "the run waits")
        for number in range(200):
            assert await run.signal("b", number)
            if number % 50 == 0:  # the worker has looked what there is to claim
                assert (await runtime.run(quick, number, timeout=30)).output == number
        assert (await runtime.run(quick, 7, timeout=30)).output == 7
        resumed = "select count(*) from journal where kind = 'run.resumed' and run = (select n from run where id = ?)"
        assert fleet.number(resumed, run.id) == 0
        assert log.read_text().split() == [run.id], "it was executed once so far"
        assert await run.signal("a", -1)
        assert (await run.result(timeout=60)).output == [-1, 0, 1, 2], "what came early was kept, in order"
        assert fleet.number(resumed, run.id) == 1
    assert log.read_text().split() == [run.id] * 2
    assert audit(fleet.database).faults == []
