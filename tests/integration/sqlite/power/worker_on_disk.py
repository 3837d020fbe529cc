"""Stepwell's commands on a disk whose syncs fail as soon as the file `broken` is there.

    worker_on_disk.py worker|run|finish

The store, the program's traces and the count of failed syncs are in the current folder. `worker` and `run` are
the commands; `finish` waits for the end of the one run and prints its id.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import apsw

from stepwell import App, Context, Runtime
from tests.integration.sqlite.power.failing_disk import FailingDisk, Kind

FOLDER = Path.cwd()
STORE = f"sqlite:///{FOLDER}/data.db"
SYNCS: Kind = "sync"
app = App("on-disk")


def leave(effect: str) -> None:
    with (FOLDER / "effects").open("a") as file:
        file.write(f"{effect}\n")


def begin() -> None:
    leave("begin")


async def end() -> str:
    leave("end")
    (FOLDER / "begun").touch()
    while not (FOLDER / "go").exists():
        await asyncio.sleep(0.01)
    return "done"


@app.agent
async def work(ctx: Context) -> str:
    await ctx.step(begin)
    return await ctx.step(end)


class BreakableDisk(FailingDisk):
    """Broken from the moment on at which the file is there."""

    def __init__(self) -> None:
        super().__init__(counts=(SYNCS,), lasting=True)
        self.before = self._look

    def _look(self, number: int) -> None:
        if not self.fail_at and (FOLDER / "broken").exists():
            self.fail_at = number

    def fail(self) -> int:
        """Count those that failed, where the test can see it."""
        (FOLDER / "syncs-that-failed").write_text(str(self.failures))
        return super().fail()


async def start() -> str:
    async with Runtime(app, store=STORE, worker=False) as runtime:
        return (await runtime.start(work, idempotency_key="the run")).id


async def finish() -> None:
    async with Runtime(app, store=STORE) as runtime:
        run = await runtime.start(work, idempotency_key="the run")
        await run.result(timeout=40)
        print(run.id)


def main() -> None:
    from stepwell.cli import main as command

    mode = sys.argv[1]
    if mode == "finish":
        asyncio.run(finish())
        return
    disk = BreakableDisk()
    apsw.set_default_vfs(disk.name)
    arguments = ["--key", "the run"] if mode == "run" else []
    if mode == "worker":
        asyncio.run(start())
    sys.argv = ["stepwell", mode, __file__, "--store", STORE, *arguments]
    command()


if __name__ == "__main__":
    main()
