"""A storm: worker processes over one file, clients that submit to it, and faults on a clock of their own.

The processes are those of `program.py`. What became of it all is judged by `verdict`, from the file and the logs.
"""

from __future__ import annotations

import asyncio
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Final, NamedTuple, Self

import apsw

from stepwell import App, Runtime
from stepwell.domain.run import SUSPECT_AFTER
from tests.acceptance.audit import AUDIT_TRIGGER
from tests.acceptance.fleet import looking_at, resident
from tests.acceptance.storm.program import CLIENTS, ENOUGH
from tests.acceptance.storm.weather import (
    LOCK_LEASES,
    SHARES,
    STOP_LEASES,
    Fault,
    Forecast,
    Kind,
    holds_write_lock,
    is_stopped,
)

PROGRAM: Final = Path(__file__).with_name("program.py")
BYSTANDER: Final = PROGRAM.with_name("bystander.py")
UNFENCED: Final = Path(__file__).with_name("unfenced.py")
WORKERS: Final = 4
AIM_FOR: Final = 2.0
PATIENCE: Final = 120.0
"""How long anything may take before the storm gives up waiting for it: far beyond every promise."""


class Profile(NamedTuple):
    """A size of storm: at least so many runs, from `faults` to `most_faults` faults, one every so many seconds."""

    name: str
    runs: int
    steps: int
    lease: float
    work: float
    faults: int
    most_faults: int
    window: int = 20
    fault_every: float = 0.25
    shares: Sequence[tuple[Kind, int]] = SHARES

    def calm(self) -> Profile:
        """A part of the same work, and nothing happens to it."""
        return self._replace(runs=min(self.runs, 500), faults=0, most_faults=0)


PR: Final = Profile("storm-pr", runs=200, steps=10, lease=1.0, work=0.01, faults=20, most_faults=40)
NIGHT: Final = Profile("storm-night", runs=5000, steps=20, lease=2.0, work=0.005, faults=20, most_faults=3000)
BUGS: Final = PR._replace(name="storm-bugs", steps=100, shares=(("kill", 1), ("stop", 4)), faults=400, most_faults=400)
"""Many stops, and runs so long that they have not ended with another worker when the stopped one goes on."""
RELEASE: Final = Profile("storm-release", runs=200, steps=20, lease=2.0, work=0.005, faults=3000, most_faults=3000)


class Vitals(NamedTuple):
    """What a worker process holds: open files, asyncio tasks, bytes of memory."""

    files: int
    tasks: int
    memory: int


class Pipe:
    """The lines that processes say, without waiting for them longer than one wants to."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._descriptor = stream.fileno()
        self._rest = b""

    def lines(self, wait: float) -> list[list[str]]:
        """The words of each line that has come, or comes within so many seconds."""
        if not select.select([self._descriptor], [], [], wait)[0]:
            return []
        heard = os.read(self._descriptor, 65536)
        assert heard, "whoever says this has ended"
        *lines, self._rest = (self._rest + heard).split(b"\n")
        return [line.decode().split() for line in lines]


@dataclass
class Storm:
    """One storm. Use it in a `with`; then `begin`, `rage`, `calm`."""

    folder: Path
    profile: Profile
    seed: int
    program: Path = PROGRAM
    faults: list[Fault] = field(default_factory=list)
    before: Vitals | None = None
    after: Vitals | None = None
    began: int = 0
    nearly_over: int = 0
    over: int = 0
    spared: int = 0

    def __enter__(self) -> Self:
        self.store = f"sqlite:///{self.database}"
        self._forecast = Forecast(self.seed, self.profile.shares)
        self._workers: dict[int, str] = {}
        self._awaited = 0
        self._stopped: dict[int, Fault] = {}
        self._tasks: dict[int, int] = {}
        self._eldest = 0
        self._locking = False
        self._locks: Pipe | None = None
        self._helpers: list[subprocess.Popen[bytes]] = []
        self._left = CLIENTS
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        (self.folder / "faults").write_text("".join(f"{fault}\n" for fault in self.faults), encoding="utf-8")
        for process in self._helpers:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # it, and all that it has started
            process.wait()
            for stream in (process.stdin, process.stdout):
                assert stream is not None
                stream.close()

    @property
    def database(self) -> Path:
        return self.folder / "storm.db"

    @property
    def effects(self) -> Path:
        return self.folder / "effects"

    @property
    def late(self) -> Path:
        return self.folder / "late"

    @property
    def said(self) -> Path:
        """What the processes logged."""
        return self.folder / "said"

    @property
    def logs(self) -> list[Path]:
        """What the clients were told, and which jobs workers did to get warm."""
        clients = [self.folder / f"client-{first}" for first in range(CLIENTS)]
        return [path for path in (*clients, self.folder / "effects.warm") if path.exists()]

    # ------------------------------------------------------------ beginning

    def begin(self) -> None:
        """Workers that are warm, their vital signs, and clients. Returns when runs are ending."""
        profile = self.profile
        self._start(BYSTANDER, "watcher", str(self.late))
        self._nest = self._start(self.program, self.store, str(self.effects), str(profile.lease))
        self._heard = Pipe(_out(self._nest))
        asyncio.run(_make(self.store))
        self._watch_commits()
        for number in range(WORKERS):
            self._hatch(str(-1 - number))
        self._locker = self._start(BYSTANDER, "locker", str(self.database))
        self._locks = Pipe(_out(self._locker))
        self.until(lambda: len(self._workers) == WORKERS, "all workers work")
        self._eldest = min(self._workers)
        self.before = self._vitals()
        for first in range(CLIENTS):
            numbers = (first, profile.runs, profile.steps, profile.work, profile.window)
            _tell(self._nest, "client", self.folder / f"client-{first}", *numbers)
        self.began = _now()
        self.until(lambda: self._number(ENDED) > 2 * WORKERS, "runs are ending")

    def _start(self, program: Path, *arguments: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, str(program), *arguments]
        with self.said.open("ab") as said:
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, start_new_session=True
            )
        self._helpers.append(process)
        return process

    def _hatch(self, *warm: str) -> None:
        self._awaited += 1
        _tell(self._nest, "worker", *warm)

    def _watch_commits(self) -> None:
        db = apsw.Connection(str(self.database))
        db.set_busy_timeout(10_000)
        db.execute(AUDIT_TRIGGER)
        db.close()

    # ------------------------------------------------------------ faults

    def rage(self, until: Callable[[], bool] | None = None) -> None:
        """A fault whenever it is time for one, until there were enough and hardly a run is left; or until then."""
        done = until or self._is_nearly_over
        deadline = time.monotonic() + PATIENCE + self.profile.faults * 5 + self.profile.runs * self.profile.steps / 20
        next_fault, kind = time.monotonic(), self._forecast.kind()
        while not done():
            assert time.monotonic() < deadline, f"the storm does not come to its end: {self.told()}"
            count = len(self.faults) + len(self._stopped) + self._locking
            if count >= self.profile.faults:
                (self.folder / ENOUGH).touch()
            due = time.monotonic() >= next_fault and count < self.profile.most_faults
            if due and self._is_complete() and self._strike(kind):
                next_fault = max(next_fault + self.profile.fault_every, time.monotonic())
                kind = self._forecast.kind()
            self._listen(0.01)
        self.nearly_over = _now()

    def _is_complete(self) -> bool:
        """Whether as many workers are at work as there should be. How soon one takes the place of another is the
        machine's affair: with a storm that outruns the replacements there would be nobody who could recover anything.
        """
        return len(self._workers) - len(self._stopped) >= WORKERS

    def _is_nearly_over(self) -> bool:
        """Every job was submitted, and no more of them are left than the workers have in their hands."""
        if not (self.folder / ENOUGH).exists() or len(self._submitted()) < CLIENTS:
            return False
        return self._number(LEFT) <= WORKERS

    def _submitted(self) -> list[Path]:
        return [log for log in self.logs if b"submitted all" in log.read_bytes()]

    def _strike(self, kind: Kind) -> bool:
        """Do a fault, if there is something to hit."""
        match kind:
            case "kill":
                return self._kill()
            case "stop":
                return self._stop()
            case "lock":
                return self._lock()

    def _kill(self) -> bool:
        """End a worker at once, stopped ones too. Never the eldest, who must live to show what a long life costs; nor
        one with a run that has lost two workers without progress: to lose three in a row ends it, as documented.
        """
        if not (among := self._workers.keys() - {self._eldest}):
            return False
        pid = self._forecast.victim(list(among))
        if self._holds_suspect(self._workers[pid]):
            self.spared += 1
            return False
        worker, at = self._workers.pop(pid), _now()
        with _following(pid) as ended:
            os.kill(pid, signal.SIGKILL)
            ended()
        if (stopped := self._stopped.pop(pid, None)) is not None:
            self.faults.append(stopped._replace(until=_now()))
        self.faults.append(Fault("kill", at, _now(), _now(), worker))
        self._replace_missing()
        return True

    def _holds_suspect(self, worker: str) -> bool:
        sql = "select count(*) from run where status = 'running' and worker = ? and losses >= ?"
        return self._number(sql, worker, SUSPECT_AFTER) > 0

    def _stop(self) -> bool:
        """Halt a worker for a lease and a half; now and then one that is in the middle of a write."""
        among = self._workers.keys() - self._stopped.keys()
        if not among:
            return False
        deadline = time.monotonic() + (AIM_FOR if self._forecast.aims() else 0.0)
        while True:
            pid = self._forecast.victim(list(among))
            at = _now()
            os.kill(pid, signal.SIGSTOP)
            while not is_stopped(pid):
                time.sleep(0.0002)
            blocks = holds_write_lock(pid)
            if blocks or time.monotonic() >= deadline:
                break
            os.kill(pid, signal.SIGCONT)
            time.sleep(0.001)
        until = at + round(self.profile.lease * STOP_LEASES * 1e6)
        self._stopped[pid] = Fault("stop", at, _now(), until, self._workers[pid], blocks)
        self._replace_missing()
        return True

    def _lock(self) -> bool:
        """Have a stranger hold the write lock of the file."""
        if self._locking:
            return False
        self._locking = True
        _tell(self._locker, str(self.profile.lease * LOCK_LEASES))
        return True

    def _replace_missing(self) -> None:
        """Somebody sees to it that so many workers are running."""
        for _ in range(WORKERS - (len(self._workers) - len(self._stopped) + self._awaited)):
            self._hatch()

    def _listen(self, wait: float) -> None:
        """Hear what processes say, for a moment, and let those go on whose time has come."""
        for line in self._heard.lines(wait):
            match line:
                case ["working", pid, worker]:
                    self._awaited -= 1
                    self._workers[int(pid)] = worker
                case ["tasks", pid, count]:
                    self._tasks[int(pid)] = int(count)
                case ["ended", pid, code]:
                    assert int(pid) not in self._workers, f"a worker ended by itself, with {code}"
                    assert code in ("0", "-9"), f"a process ended with {code}: {self.told()}"
                    self._left -= code == "0"
        for since, until in self._locks.lines(0) if self._locks is not None else ():
            self._locking = False
            self.faults.append(Fault("lock", int(since), int(since), int(until)))
        for stopped, fault in list(self._stopped.items()):
            if _now() >= fault.until:
                os.kill(stopped, signal.SIGCONT)
                self.faults.append(self._stopped.pop(stopped)._replace(until=_now()))

    # ------------------------------------------------------------ afterwards

    def calm(self) -> None:
        """No more faults: wait until those that last are over, all runs have ended and the clients know it."""
        (self.folder / ENOUGH).touch()
        self.until(lambda: not self._stopped and not self._locking, "the last faults are over")
        self.until(lambda: len(self._submitted()) == CLIENTS, "every job is submitted")
        self.until(lambda: self._number(LEFT) == 0, "every run has ended")
        self.over = _now()
        self.until(lambda: self._left == 0, "the clients know it")
        self.until(lambda: self._awaited == 0, "the last workers work")
        assert self.before is not None
        tasks = self.before.tasks
        self.until(lambda: self._is_at_rest(tasks), "the eldest worker is at rest", fails=False)

    def _is_at_rest(self, tasks: int) -> bool:
        self.after = self._vitals()
        return self.after.tasks <= tasks

    def _vitals(self) -> Vitals:
        pid = self._eldest
        self._tasks.pop(pid, None)
        os.kill(pid, signal.SIGUSR1)
        self.until(lambda: pid in self._tasks, "the eldest worker counts its tasks")
        return Vitals(len(os.listdir(f"/proc/{pid}/fd")), self._tasks[pid], resident(pid))

    def until(self, condition: Callable[[], bool], what: str, *, fails: bool = True) -> None:
        """Return when the condition holds; listen meanwhile."""
        deadline = time.monotonic() + (PATIENCE if fails else 10)
        while not condition():
            if time.monotonic() >= deadline:
                assert not fails, f"it never came to that: {what}; {self.told()}"
                return
            self._listen(0.01)

    def told(self) -> str:
        """What there is, for a message."""
        with looking_at(self.database) as db:
            open_still = "select id, status, hold, worker, fence, losses, expiries, seq from run where ended_at is null"
            left = db.execute(f"{open_still} limit 5").fetchall()
        said = self.said.read_text(encoding="utf-8")[-2000:]
        return (
            f"{len(self.faults)} faults, {len(self._workers)} workers, {self._number(LEFT)} runs left: {left}; {said}"
        )

    def found(self) -> bool:
        """Whether a step was accepted twice so far: then a storm that looks for bugs has seen enough."""
        return self._number(DOUBLE) > 0

    def _number(self, sql: str, *values: str | int) -> int:
        with looking_at(self.database) as db:
            return int(str(db.execute(sql, values).get))


@contextmanager
def _following(pid: int) -> Iterator[Callable[[], None]]:
    """What is called in the body returns when that very process has ended."""
    descriptor = os.pidfd_open(pid)
    try:
        yield lambda: _readable(descriptor)
    finally:
        os.close(descriptor)


def _readable(descriptor: int) -> None:
    assert select.select([descriptor], [], [], PATIENCE)[0], "a killed process does not end"


def _out(process: subprocess.Popen[bytes]) -> IO[bytes]:
    assert process.stdout is not None
    return process.stdout


async def _make(store: str) -> None:
    async with Runtime(App("nobody"), store=store, worker=False):
        pass


def _tell(process: subprocess.Popen[bytes], *words: object) -> None:
    assert process.stdin is not None
    process.stdin.write(" ".join(map(str, words)).encode() + b"\n")
    process.stdin.flush()


def _now() -> int:
    return time.time_ns() // 1000


ENDED: Final = "select count(*) from run where ended_at is not null"
DOUBLE: Final = "select count(*) from (select 1 from storm_audit group by run, step having count(*) > 1)"
LEFT: Final = "select count(*) from run where ended_at is null"
