"""Two processes work off one file: nothing is executed twice, and one learns of the other's work at a hint."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from stepwell import App, Context, Runtime
from tests.acceptance.audit import audit

PROGRAM = Path(__file__).parent / "shared.py"
app = App("shared")


@app.agent
async def shared(ctx: Context, run: int) -> int:
    raise AssertionError("this process only submits")


class Workers:
    """Worker processes over one file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = f"sqlite:///{folder}/shared.db"
        self.processes: list[subprocess.Popen[str]] = []

    def start(self) -> None:
        command = [sys.executable, str(PROGRAM), self.store, str(self.folder / "log")]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.processes.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "working\n"

    def stop(self) -> list[int]:
        for process in self.processes:
            process.terminate()
        codes = [process.wait(30) for process in self.processes]
        for process in self.processes:
            process.communicate()
        self.processes = []
        return codes


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[Workers]:
    workers = Workers(tmp_path)
    yield workers
    for process in workers.processes:
        process.kill()
        process.communicate()


async def test_two_processes_share_the_runs_and_repeat_none(workers: Workers) -> None:
    async with Runtime(app, store=workers.store, worker=False) as runtime:
        workers.start()
        workers.start()
        runs = [await runtime.start(shared, number) for number in range(80)]
        results = [await run.result(timeout=60) for run in runs]
    assert workers.stop() == [0, 0]
    assert [result.output for result in results] == [3] * 80
    lines = [line.split() for line in (workers.folder / "log").read_text().splitlines()]
    assert len(lines) == 240
    assert len({(run, step) for run, step, _ in lines}) == 240
    assert len({pid for _, _, pid in lines}) == 2, "both processes had a part"
    facts = audit(workers.folder / "shared.db")
    assert facts.faults == []
    assert facts.by_status == {"succeeded": 80}


async def test_another_process_starts_a_run_at_a_hint_and_not_at_its_poll(workers: Workers) -> None:
    async with Runtime(app, store=workers.store, worker=False) as runtime:
        workers.start()
        latencies = []
        for number in range(15):
            began = time.perf_counter()
            await (await runtime.start(shared, number)).result(timeout=30)
            latencies.append(time.perf_counter() - began)
            await asyncio.sleep(0)
    latencies.sort()
    assert latencies[len(latencies) // 2] < 0.2, "a full poll is every 0.25 s, and a result takes two of them"


async def test_a_worker_that_is_told_to_stop_leaves_nothing_behind(workers: Workers) -> None:
    workers.start()
    assert workers.stop() == [0]
    async with Runtime(app, store=workers.store, worker=False) as runtime:
        assert await runtime.workers.list() == []
    assert sorted(path.name for path in workers.folder.iterdir() if "lock" in path.name) == []
