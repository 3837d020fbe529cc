"""Suspects get a process of their own: a run that kills whatever executes it takes two workers along and no third."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import apsw
import pytest

from stepwell.runtime import Runtime, load_target

PROGRAM = """
    import asyncio
    import os
    from pathlib import Path

    from stepwell import App, Context

    HERE = Path(__file__).parent
    app = App("suspects")


    @app.agent
    async def poison(ctx: Context, n: int) -> int:
        os._exit(7)


    @app.agent
    async def innocent(ctx: Context, n: int) -> int:
        (HERE / f"pid-{n}-{ctx.attempt}").write_text(str(os.getpid()))
        while not (HERE / "go").exists():
            await asyncio.sleep(0.01)
        return n
"""


ONLY_ONE = """
import contextlib
import fcntl


@contextlib.asynccontextmanager
async def only_one():
    with (HERE / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with (HERE / "refused").open("a") as refused:
                refused.write("1")
            raise
        yield None


"""


class Place:
    """A folder with a program and a store, and workers of the command line on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.program = folder / "suspects.py"
        self.program.write_text(textwrap.dedent(PROGRAM))
        self.store = f"sqlite:///{folder}/suspects.db"
        self.workers: list[subprocess.Popen[bytes]] = []

    async def submit(self, agent: str, *inputs: int) -> list[str]:
        """Runs of an agent, queued."""
        async with Runtime(load_target(str(self.program)).app, store=self.store, worker=False) as runtime:
            return [(await runtime.start(agent, n)).id for n in inputs]

    def worker(self) -> subprocess.Popen[bytes]:
        """Start a worker."""
        command = [sys.executable, "-m", "stepwell", "worker", str(self.program), "--store", self.store]
        worker = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        self.workers.append(worker)
        return worker

    def statuses(self, runs: list[str]) -> list[str]:
        """What became of the runs."""
        marks = ",".join("?" * len(runs))
        sql = f"select id, status || iif(dead, ' dead', '') from run where id in ({marks})"
        db = apsw.Connection(str(self.folder / "suspects.db"))
        try:
            db.set_busy_timeout(5000)
            found = {str(run): str(status) for run, status in db.execute(sql, runs).fetchall()}
        finally:
            db.close()
        return [found[run] for run in runs]

    def kinds(self, run: str) -> list[str]:
        """The kinds of a run's events."""
        db = apsw.Connection(str(self.folder / "suspects.db"))
        try:
            db.set_busy_timeout(5000)
            sql = "select kind from journal where run = (select n from run where id = ?) order by seq"
            return [str(kind) for (kind,) in db.execute(sql, (run,)).fetchall()]
        finally:
            db.close()

    def pid(self, n: int, attempt: int) -> int | None:
        """Which process executed that attempt of an innocent run, once it has begun."""
        note = self.folder / f"pid-{n}-{attempt}"
        text = note.read_text() if note.exists() else ""
        return int(text) if text else None


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    yield place
    for worker in place.workers:
        worker.kill()
        worker.wait()


def until(condition: Callable[[], bool], what: str, limit: float = 30) -> None:
    """Return when the condition holds."""
    deadline = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def die_twice(place: Place) -> None:
    """Two workers meet the poison, and die of it."""
    for _ in range(2):
        assert place.worker().wait(30) == 7


async def test_the_third_death_is_that_of_a_process_for_suspects(place: Place) -> None:
    runs = await place.submit("poison", 1)
    die_twice(place)
    survivor = place.worker()
    until(lambda: place.statuses(runs) == ["failed dead"], "the poisonous run is found out")
    (later,) = await place.submit("innocent", 9)
    (place.folder / "go").touch()
    until(lambda: place.statuses([later]) == ["succeeded"], "the worker goes on")
    assert survivor.poll() is None
    assert place.kinds(runs[0]).count("run.lost") == 3


async def test_an_innocent_suspect_is_executed_beside_the_worker_and_takes_no_slot_of_it(place: Place) -> None:
    innocent = await place.submit("innocent", 1, 2)
    poison = await place.submit("poison", 3)
    die_twice(place)
    survivor = place.worker()
    until(lambda: (place.pid(1, 3) or place.pid(2, 3)) is not None, "a suspect is executed")
    assert (place.pid(1, 3) or place.pid(2, 3)) != survivor.pid
    (later,) = await place.submit("innocent", 7)
    until(lambda: place.pid(7, 1) == survivor.pid, "the worker itself takes what nobody suspects")
    (place.folder / "go").touch()
    until(lambda: place.statuses([*innocent, later]) == ["succeeded"] * 3, "the innocent come to their end")
    until(lambda: place.statuses(poison) == ["failed dead"], "the poisonous run is found out")
    assert survivor.poll() is None


async def test_where_that_process_cannot_begin_the_worker_executes_suspects_alone(place: Place) -> None:
    """The app opens only in the first process that wants it: a second one ends before it works."""
    text = place.program.read_text().replace('App("suspects")', 'App("suspects", lifespan=only_one)')
    place.program.write_text(text.replace("app = App(", ONLY_ONE + "app = App(", 1))
    innocent = await place.submit("innocent", 1)
    poison = await place.submit("poison", 2)
    die_twice(place)
    (place.folder / "go").touch()
    survivor = place.worker()
    until(lambda: place.statuses(innocent) == ["succeeded"], "the innocent suspect is executed all the same")
    assert survivor.wait(30) == 7, "the poisonous one meets the worker alone"
    assert (place.folder / "refused").read_text() == "1", "a process that cannot begin is not begun again and again"
    place.worker()
    until(lambda: place.statuses(poison) == ["failed dead"], "the poisonous run is found out")


async def test_a_worker_that_stops_ends_the_process_that_it_started(place: Place) -> None:
    (innocent,) = await place.submit("innocent", 1)
    await place.submit("poison", 2)
    die_twice(place)
    survivor = place.worker()
    until(lambda: place.pid(1, 3) is not None, "the suspect is executed")
    aside = place.pid(1, 3)
    assert aside is not None
    assert aside != survivor.pid
    (place.folder / "go").touch()
    survivor.terminate()
    survivor.wait(60)
    until(lambda: not _lives(aside), "the process for suspects has ended, too")
    assert place.statuses([innocent]) in (["succeeded"], ["queued"])
    assert "run.lost" not in place.kinds(innocent)[-2:]


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
