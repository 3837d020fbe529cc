"""The wall clock of workers jumps while their runs wait and work: no lease runs out by it, nothing is done twice, and
nothing is forgotten.

The clock of the machine is never touched: the workers' processes are given another one.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from stepwell import Run, Runtime
from stepwell.ports.system_clock import SystemClock
from tests.acceptance.audit import audit
from tests.acceptance.clock import program
from tests.acceptance.clock.program import LONG, LONG_WAYS, SHORT, WAYS
from tests.acceptance.fleet import Fleet

PROGRAM = Path(__file__).parent / "program.py"
HOURS = 2 * 3600.0
LIMIT = 60.0
LENGTHS = ("sleep", "ask", "wait for", *LONG_WAYS)
"""The ways of waiting that last so long, whatever the clock says."""


class Line(NamedTuple):
    """What a worker did outside the store, and when (seconds of a scale that never jumps)."""

    what: str
    run: str
    pid: int
    moment: float


class Clocks(Fleet):
    """Worker processes whose clocks jump, and somebody who starts runs by the machine's clock."""

    client: Runtime[None]
    places: tuple[Path, ...] = ()

    async def open(self, aheads: Sequence[float], bug: str | None) -> None:
        """A worker for each of these clocks, so many seconds ahead."""
        self.places = tuple(self.folder / str(number) for number in range(len(aheads)))
        for place, ahead in zip(self.places, aheads, strict=True):
            place.mkdir()
            self.set_clock(place, ahead)
        for process in [self.begin(str(place), *([bug] if bug else [])) for place in self.places]:
            await asyncio.to_thread(self.await_ready, process)

    @staticmethod
    def set_clock(place: Path, ahead: float) -> None:
        """The clock of one worker shows another time from now on."""
        fresh = place / "fresh"
        fresh.write_text(str(ahead))
        fresh.rename(place / "ahead")

    def jump(self, ahead: float) -> None:
        """The clocks of all workers show another time from now on."""
        for place in self.places:
            self.set_clock(place, ahead)

    async def submit(self, *hows: str, delay: float | None = None) -> dict[str, Run[str]]:
        """A run for each way of waiting."""
        return {how: await self.client.start(program.waiting, how, delay=delay) for how in hows}

    def lines(self) -> list[Line]:
        """What all workers did, in the order of time."""
        texts = [(place / "log").read_text() for place in self.places if (place / "log").exists()]
        rows = [line.rsplit(" ", 3) for text in texts for line in text.splitlines()]
        return sorted(
            (Line(what, run, int(pid), float(at)) for what, run, pid, at in rows), key=lambda line: line.moment
        )

    def done(self, run: Run[str]) -> Counter[str]:
        """How often each effect of a run happened."""
        return Counter(line.what for line in self.lines() if line.run == run.id)

    def took(self, run: Run[str]) -> float:
        """Seconds between the effect before the wait and the one after it."""
        at = {line.what: line.moment for line in self.lines() if line.run == run.id}
        return at["after"] - at["before"]

    async def till(self, condition: Callable[[], bool], what: str, limit: float = LIMIT) -> None:
        """Return when the condition holds."""
        deadline = time.monotonic() + limit
        while not condition():
            assert time.monotonic() < deadline, f"{what}: not within {limit:g} s; {self.told()}"
            await asyncio.sleep(0.02)

    async def till_waiting(self, runs: dict[str, Run[str]]) -> None:
        """Return when every run has come to where it waits; one works."""
        opened = "select count(distinct run) from journal where kind in ('wait.opened', 'step.failed', 'run.retrying')"
        await self.till(
            lambda: self.number(opened) == len(runs) - 1 and self.done(runs["at work"])["long"] == 1,
            "every run waits or works",
        )

    async def till_long_waits(self) -> dict[str, Run[str]]:
        """Runs that wait for long, once all are parked."""
        runs = await self.submit(*LONG_WAYS)
        parked = "select count(distinct run) from journal where kind = 'run.waiting'"
        await self.till(lambda: self.number(parked) == len(runs), "every run is parked")
        return runs

    async def till_ended(self, *runs: Run[str], limit: float = LIMIT) -> None:
        """Return when these runs have ended."""
        ids = ",".join(f"'{run.id}'" for run in runs)
        ended = f"select count(*) from run where ended_at is not null and id in ({ids})"
        await self.till(lambda: self.number(ended) == len(runs), "the runs have ended", limit)

    def lost_leases(self) -> int:
        """How many leases ran out or were lost."""
        return self.number("select coalesce(sum(expiries + lost), 0) from run")


@asynccontextmanager
async def clocks(folder: Path, *aheads: float, bug: str | None = None) -> AsyncIterator[Clocks]:
    """Workers whose clocks are so many seconds ahead."""
    folder.mkdir()
    with Clocks(PROGRAM, folder) as fleet:
        async with Runtime(program.app, store=fleet.store, worker=False) as fleet.client:
            await fleet.open(aheads, bug)
            yield fleet


async def jump_and_back(folder: Path, jump: float) -> None:
    """Every way of waiting, with a jump in its middle, and the clock set right in the end."""
    async with clocks(folder, 0.0, 0.0) as fleet:
        runs = await fleet.submit(*WAYS)
        await fleet.till_waiting(runs)
        runs |= await fleet.submit("delayed", delay=SHORT)
        fleet.jump(jump)
        later = await fleet.submit("later")
        await runs["signal"].signal("go", 1)
        await fleet.till_ended(*(run for how, run in (runs | later).items() if how != "sleep until"))
        fleet.jump(0.0)
        await fleet.till_ended(*runs.values())
        check(fleet, runs | later, shortest=SHORT - max(0.0, jump))


def check(fleet: Clocks, runs: dict[str, Run[str]], *, shortest: float) -> None:
    """Everything was done once, no lease was lost, and nothing that lasts came early."""
    facts = audit(fleet.database)
    assert facts.faults == []
    assert facts.by_status == {"succeeded": len(runs)}
    assert fleet.lost_leases() == 0
    more = {"at work": {"long": 1}, "step retry": {"try": 2}, "run retry": {"attempt": 2}}
    done = {how: dict(fleet.done(run)) for how, run in runs.items()}
    assert done == {how: {"before": 1, "after": 1} | more.get(how, {}) for how in runs}
    assert [how for how in LENGTHS if how in runs and fleet.took(runs[how]) < shortest] == []


async def wrong_for_a_moment(fleet: Clocks) -> list[Run[str]]:
    """The workers' clocks are wrong, twice, and right soon after, while claims go on. Gives the runs they took."""
    passing: list[Run[str]] = []
    for _ in range(2):
        fleet.jump(-HOURS)
        passing += (await fleet.submit("nothing")).values()
        await fleet.till_ended(*passing)
        fleet.jump(0.0)
    return passing


def started_at(fleet: Clocks, run: Run[str]) -> float:
    """When the run had its first effect."""
    return next(line.moment for line in fleet.lines() if line.run == run.id)


async def test_a_clock_that_is_wrong_for_a_moment_makes_nothing_shorter(tmp_path: Path) -> None:
    async with clocks(tmp_path / "moment", 0.0, 0.0) as fleet:
        runs = await fleet.till_long_waits()
        began = time.monotonic()
        runs |= await fleet.submit("delayed", delay=LONG)
        passing = await wrong_for_a_moment(fleet)
        runs |= {run.id: run for run in passing}
        await fleet.till_ended(*runs.values())
        check(fleet, runs, shortest=LONG)
        assert started_at(fleet, runs["delayed"]) - began >= LONG


async def test_delays_that_a_wrong_clock_makes_shorter_are_found(tmp_path: Path) -> None:
    async with clocks(tmp_path / "bug", 0.0, 0.0, bug="brought forward") as fleet:
        began = time.monotonic()
        [delayed] = (await fleet.submit("delayed", delay=HOURS / 2)).values()
        await wrong_for_a_moment(fleet)
        await fleet.till_ended(delayed)
        assert started_at(fleet, delayed) - began < HOURS / 2


async def test_what_is_written_after_the_clock_was_set_back_puts_nothing_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = SystemClock.now
    async with clocks(tmp_path / "written", 0.0, 0.0) as fleet:
        runs = await fleet.till_long_waits() | await fleet.submit("delayed", delay=LONG)
        fleet.jump(-HOURS)
        monkeypatch.setattr(SystemClock, "now", lambda clock: right(clock) - round(HOURS * 1_000_000))
        for run in runs.values():
            await run.signal("unheard", 1)
        await fleet.till_ended(*runs.values())
        check(fleet, runs, shortest=LONG)


async def test_jumps_of_the_wall_clock_take_no_lease_double_nothing_and_lose_nothing(tmp_path: Path) -> None:
    jumps = {"back": -HOURS, "forth": HOURS, "a step back": -0.5, "a step forth": 0.5}
    await asyncio.gather(*(jump_and_back(tmp_path / name, jump) for name, jump in jumps.items()))


async def test_two_workers_whose_clocks_are_five_minutes_apart_do_not_disturb_each_other(tmp_path: Path) -> None:
    async with clocks(tmp_path / "apart", 0.0, 300.0) as fleet:
        runs = await fleet.submit("at work", "sleep", "step retry", "run retry", "nothing")
        await fleet.till_ended(*runs.values())
        check(fleet, runs, shortest=0.0)


async def test_leases_by_the_wall_clock_are_found(tmp_path: Path) -> None:
    async with clocks(tmp_path / "bug", 0.0, 0.0, bug="wall-clock lease") as fleet:
        runs = await fleet.submit("at work")
        await fleet.till(lambda: fleet.done(runs["at work"])["long"] == 1, "the run is at work")
        fleet.jump(-HOURS)
        await fleet.till(lambda: fleet.lost_leases() > 0, "a lease runs out")


async def test_runs_that_a_clock_puts_off_are_found(tmp_path: Path) -> None:
    async with clocks(tmp_path / "bug", -HOURS, bug="put off") as fleet:
        runs = await fleet.submit("nothing")
        with pytest.raises(AssertionError, match="the runs have ended"):
            await fleet.till_ended(*runs.values(), limit=3 * SHORT)
        fleet.jump(0.0)
        await fleet.till_ended(*runs.values())
