"""A backup that is made while workers write is a whole store of one moment."""

from __future__ import annotations

import asyncio
from pathlib import Path

import apsw

from stepwell import App, Context, Runtime
from tests.acceptance.audit import audit

RUNS, STEPS = 30, 6
app = App("backups")


async def note(number: int) -> int:
    await asyncio.sleep(0)
    return number


@app.agent
async def counting(ctx: Context, run: int) -> int:
    return sum([await ctx.step(note, number) for number in range(STEPS)])


def copy(source: Path, target: Path, step: int) -> None:
    """Back the file up, a few pages at a time."""
    of = apsw.Connection(str(source), flags=apsw.SQLITE_OPEN_READONLY)
    to = apsw.Connection(str(target))
    with to.backup("main", of, "main") as backup:
        while not backup.done:
            backup.step(step)
    to.close()
    of.close()


async def test_a_backup_under_load_is_whole_and_its_runs_go_on(tmp_path: Path) -> None:
    copies = []
    async with Runtime(app, store=f"sqlite:///{tmp_path}/live.db", lease=1) as runtime:
        runs = [await runtime.start(counting, number) for number in range(RUNS)]
        for number, pages in enumerate((1_000_000, 1_000_000, 50)):
            target = tmp_path / f"copy-{number}.db"
            await asyncio.to_thread(copy, tmp_path / "live.db", target, pages)
            copies.append(target)
        for run in runs:
            assert (await run.result(timeout=60)).output == sum(range(STEPS))
    assert audit(tmp_path / "live.db").faults == []
    for target in copies:
        facts = audit(target)
        assert facts.faults == []
        assert facts.runs == RUNS
        target.chmod(0o600)
        async with Runtime(app, store=f"sqlite:///{target}") as runtime:
            for run in runs:
                again = await runtime.runs.get(run.id)
                assert (await again.result(timeout=60)).output == sum(range(STEPS))
        assert audit(target).by_status == {"succeeded": RUNS}
