"""A worker process that is stopped while it holds runs, somebody who takes them over, and the evidence of both."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import apsw

from stepwell import Agent, Run, Runtime
from tests.acceptance.audit import audit
from tests.acceptance.fleet import looking_at
from tests.acceptance.zombies import program
from tests.acceptance.zombies.program import LEASE, STOPPING

Zombie = Agent[dict[str, str], list[int]]

PAUSE = 1.5 * LEASE
PATIENCE = 60.0
LOST = "the lease was lost"

AUDIT_TRIGGER = """
create table zombie_audit(run text, kind text, step text, fence int, pid int, data text);
create trigger zombie_audit_entry after insert on journal begin
  insert into zombie_audit select run.id, new.kind, new.step, run.fence, worker.pid, new.data
  from run left join worker on worker.id = run.worker where run.n = new.run;
end;
"""


class Line(NamedTuple):
    """What a process did outside the store, and when (seconds of CLOCK_BOOTTIME)."""

    what: str
    run: str
    step: str
    pid: int
    moment: float


class Stop(NamedTuple):
    """One process that did not run for a while, and the runs that it held."""

    pid: int
    runs: frozenset[str]
    since: float
    until: float


@dataclass
class Evidence:
    """What was found of one victim. `late` are steps that it began for runs that it had lost, `accepted` its writes to
    them, `changed` the runs whose journal grew after they had ended elsewhere, `broken` what is wrong in the file.
    """

    stops: list[Stop] = field(default_factory=list)
    late: list[Line] = field(default_factory=list)
    accepted: list[tuple[Any, ...]] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    broken: list[object] = field(default_factory=list)

    @property
    def faults(self) -> list[object]:
        """All that must not be."""
        return [*self.late, *self.accepted, *self.changed, *self.broken]

    @property
    def zombies(self) -> int:
        """How many runs were lost by a stop."""
        return sum(len(stop.runs) for stop in self.stops)


class Victim:
    """A worker process with a store of its own. The heir is a worker of the process that uses this."""

    def __init__(self, folder: Path, capacity: int, *bugs: str) -> None:
        self.folder = folder
        self.capacity = capacity
        self.evidence = Evidence()
        self.errors = folder / "errors"
        self._bugs = bugs

    async def __aenter__(self) -> Self:
        self.folder.mkdir()
        self.client = Runtime(program.app, store=program.store_of(self.folder), worker=False)
        await self.client.__aenter__()
        with apsw.Connection(str(self.folder / "zombies.db")) as db:
            db.execute(AUDIT_TRIGGER)
        command = [sys.executable, str(Path(program.__file__)), str(self.folder), str(self.capacity), *self._bugs]
        with self.errors.open("w") as errors:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
        assert self.process.stdout is not None
        said = await asyncio.to_thread(self.process.stdout.readline)
        assert said == "working\n", self.errors.read_text()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.communicate()
        await self.client.__aexit__(kind, error, trace)

    async def fall(self, round: str, places: Sequence[str], *, slow: bool) -> None:
        """Bring a run to each place, stop the process there, let another worker take over, and let the process go on.

        With `slow` the heir is still at work then.
        """
        while not await self._fall(round, places, slow=slow):
            round += "x"

    async def _fall(self, round: str, places: Sequence[str], *, slow: bool) -> bool:
        runs = [await self._start(place, round, slow=slow) for place in places]
        await self.until(lambda: self._places() >= {run.id for run in runs}, f"runs are at {places}")
        (self.folder / f"there-{round}").touch()
        if not set(places) & set(STOPPING):
            self.process.send_signal(signal.SIGSTOP)
        await self.until(self._is_stopped, "the process is stopped")
        since = boottime()
        if not self._others_may_write():  # a stopped writer stops everybody: another case, with another promise
            await self._go_on(round)
            await self._signal(places, runs)
            await self.until(lambda: self._ended(runs), "the runs have ended")
            return False
        async with Runtime(program.app, store=self.client_store, capacity=16, lease=LEASE):
            await self._taken_over(places, runs, slow=slow)
            await _pass(since + PAUSE)
            ended = {} if slow else {run.id: self._journal(run) for run in runs}
            stop = Stop(self.process.pid, frozenset(run.id for run in runs), since, boottime())
            self.evidence.stops.append(stop)
            await self._go_on(round)
            await self.until(lambda: not self._silent(stop), f"the process says what it lost of {places}")
            await self.until(lambda: self._ended(runs), "the runs have ended")
        self.evidence.changed += [run.id for run in runs if run.id in ended and ended[run.id] != self._journal(run)]
        return True

    async def rest(self, place: str, leases: float) -> str:
        """Bring a run that has a time limit to a place, and stop the process for so long, while nobody else is there.
        Returns how the run ends.
        """
        run = await self._start(place, "rest", slow=False, agent=program.limited)
        await self.until(lambda: run.id in self._places(), f"the run is at {place}")
        self.process.send_signal(signal.SIGSTOP)
        await self.until(self._is_stopped, "the process is stopped")
        await _pass(boottime() + leases * LEASE)
        await self._go_on("rest")
        return (await run.result(timeout=PATIENCE)).status

    async def work(self, count: int) -> set[int]:
        """Have runs executed that nobody disturbs; the processes that did it."""
        runs = [await self._start("nowhere", "last", slow=False) for _ in range(count)]
        results = [await run.result(timeout=PATIENCE) for run in runs]
        return {pid for result in results for pid in result.output}

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        """Return when the condition holds."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, f"{what}: not within {PATIENCE:g} s; {self._told()}"
            await asyncio.sleep(0.01)

    def conclude(self) -> Evidence:
        """What the log and the store tell of all that happened."""
        self.evidence.late = [line for stop in self.evidence.stops for line in self._late(stop)]
        self.evidence.accepted = self._accepted()
        self.evidence.broken = audit(self.folder / "zombies.db").faults
        return self.evidence

    # ------------------------------------------------------------ a fall

    @property
    def client_store(self) -> str:
        return program.store_of(self.folder)

    async def _start(self, place: str, round: str, *, slow: bool, agent: Zombie = program.zombie) -> Run[list[int]]:
        where = {"place": place, "round": round, "slow": "yes" if slow else "no", "folder": str(self.folder)}
        return await self.client.start(agent, where)

    async def _taken_over(self, places: Sequence[str], runs: Sequence[Run[list[int]]], *, slow: bool) -> None:
        taken = "select count(*) from run where fence > 1 and id in (select value from json_each(?))"
        await self.until(lambda: self._query(taken, _ids(runs))[0][0] == len(runs), "another worker takes over")
        await self._signal(places, runs)
        if not slow:
            await self.until(lambda: self._ended(runs), "the runs have ended elsewhere")

    @staticmethod
    async def _signal(places: Sequence[str], runs: Sequence[Run[list[int]]]) -> None:
        for place, run in zip(places, runs, strict=True):
            if place == "wait":
                await run.signal("go", 1)

    async def _go_on(self, round: str) -> None:
        (self.folder / f"go-{round}").touch()
        self.process.send_signal(signal.SIGCONT)

    def _is_stopped(self) -> bool:
        after_name = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2]
        return after_name.split()[0] == "T"

    def _others_may_write(self) -> bool:
        db = apsw.Connection(str(self.folder / "zombies.db"))
        try:
            db.set_busy_timeout(200)
            db.execute("BEGIN IMMEDIATE")
            db.execute("ROLLBACK")
        except apsw.BusyError:
            return False
        finally:
            db.close()
        return True

    # ------------------------------------------------------------ evidence

    def _lines(self) -> list[Line]:
        log = self.folder / "log"
        lines = [line.rsplit(" ", 4) for line in log.read_text().splitlines()] if log.exists() else []
        return [Line(what, run, step, int(pid), float(moment)) for what, run, step, pid, moment in lines]

    def _places(self) -> set[str]:
        return {line.run for line in self._lines() if line.what == "place" and line.pid == self.process.pid}

    def _late(self, stop: Stop) -> list[Line]:
        """Steps that the process began for what it had lost, without having claimed it again."""
        late = []
        again: set[str] = set()
        for line in self._lines():
            if line.pid == stop.pid and line.moment >= stop.until and line.run in stop.runs:
                if line.what == "attempt":
                    again.add(line.run)
                elif line.what == "effect" and line.run not in again:
                    late.append(line)
        return late

    def _silent(self, stop: Stop) -> list[str]:
        told = [line for line in self.errors.read_text().splitlines() if LOST in line]
        return [run for run in stop.runs if not any(run in line for line in told)]

    def _accepted(self) -> list[tuple[Any, ...]]:
        """Writes that were not the holder's: what a step gave and what was streamed tell which process wrote it."""
        steps = (
            "select run, kind, step, fence, pid, data from zombie_audit"
            " where kind = 'step.completed' and data ->> 'result' is not pid"
        )
        texts = (
            "select run, kind, step, fence, pid, data from zombie_audit"
            " where kind = 'text.delta' and trim(replace(data ->> 'text', coalesce(pid, 'nobody') || ' ', '')) <> ''"
        )
        return [*self._query(steps), *self._query(texts)]

    def _journal(self, run: Run[list[int]]) -> list[Any]:
        return self._query("select * from journal where run = (select n from run where id = ?) order by seq", run.id)

    def _ended(self, runs: Sequence[Run[list[int]]]) -> bool:
        ended = "select count(*) from run where ended_at is not null and id in (select value from json_each(?))"
        return bool(self._query(ended, _ids(runs))[0][0] == len(runs))

    def _query(self, sql: str, *values: str) -> list[Any]:
        with looking_at(self.folder / "zombies.db") as db:
            return db.execute(sql, values).fetchall()

    def _told(self) -> str:
        runs = self._query("select id, status, worker, fence, seq from run where ended_at is null")
        return f"not ended: {runs}; log: {self._lines()[-8:]}; said: {self.errors.read_text()[-1500:]}"


def boottime() -> float:
    """Seconds on the scale of the log."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


async def _pass(moment: float) -> None:
    """The pause itself, which is a time."""
    while (left := moment - boottime()) > 0:
        await asyncio.sleep(left)


def _ids(runs: Sequence[Run[list[int]]]) -> str:
    return "[" + ",".join(f'"{run.id}"' for run in runs) + "]"
